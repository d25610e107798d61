#include "template/render.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/utf8.h"
#include "template/number.h"

int render_fail(struct render *r, const char *format, ...)
{
    char message[400];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return fail(r->err, CLM_ERR_FORMAT, "%s:%u: %s", r->t->name, r->line, message);
}

int render_no_memory(struct render *r)
{
    if (r->heap.over_limit)
        return fail(r->err, CLM_ERR_FULL, "%s:%u: rendering needs more than %zu bytes of memory",
                    r->t->name, r->line, r->heap.limit);
    return fail(r->err, CLM_ERR_NOMEM, "%s:%u: no memory left", r->t->name, r->line);
}

int render_out_of_steps(struct render *r)
{
    r->steps = 0;
    return fail(r->err, CLM_ERR_FULL, "%s:%u: rendering takes more steps than allowed", r->t->name,
                r->line);
}

int render_too_deep(struct render *r)
{
    return fail(r->err, CLM_ERR_FULL, "%s:%u: nested deeper than %u levels", r->t->name, r->line,
                r->max_depth);
}

int emit_more(struct render *r, const char *s, size_t n)
{
    struct strbuf *b = r->out;

    if (n > r->out_limit - b->size)
        return fail(r->err, CLM_ERR_FULL, "%s:%u: the text made is larger than allowed", r->t->name,
                    r->line);
    strbuf_add(b, s, n);
    r->out_room = b->capacity < r->out_limit ? b->capacity : r->out_limit;
    return b->failed ? render_no_memory(r) : 0;
}

int emit_text(struct render *r, const char *s)
{
    return emit_bytes(r, s, strlen(s));
}

int emit_char(struct render *r, char c, size_t times)
{
    char many[256];

    if (times > r->out_limit)
        times = r->out_limit + 1; /* fails below */
    memset(many, c, times < sizeof many ? times : sizeof many);
    while (times) {
        size_t n = times < sizeof many ? times : sizeof many;

        if (emit_bytes(r, many, n))
            return -1;
        times -= n;
    }
    return 0;
}

int emit_character(struct render *r, int32_t c)
{
    char bytes[UTF8_MAX];

    return emit_bytes(r, bytes, utf8_encode(c, bytes));
}

int emit_escaped(struct render *r, const char *s, size_t n)
{
    size_t begin = 0;

    for (size_t i = 0; i < n; i++) {
        const char *escape;

        switch (s[i]) {
        case '&':
            escape = "&amp;";
            break;
        case '<':
            escape = "&lt;";
            break;
        case '>':
            escape = "&gt;";
            break;
        case '"':
            escape = "&#34;";
            break;
        case '\'':
            escape = "&#39;";
            break;
        default:
            continue;
        }
        if (emit_bytes(r, s + begin, i - begin) || emit_text(r, escape))
            return -1;
        begin = i + 1;
    }
    return emit_bytes(r, s + begin, n - begin);
}

int emit_capture(struct render *r, size_t mark, struct value *out)
{
    size_t n = r->out->size - mark;
    char *copy;

    *out = value_string("", 0);
    if (!n)
        return 0;
    if (n > UINT32_MAX)
        return render_fail(r, "a string of more than 4 GiB");
    copy = heap_bytes(&r->heap, n);
    if (!copy)
        return render_no_memory(r);
    memcpy(copy, r->out->data + mark, n);
    r->out->size = mark;
    r->out->data[mark] = '\0';
    *out = value_string(copy, n);
    return 0;
}

int to_string(struct render *r, const struct value *v, struct value *out)
{
    size_t mark;

    if (v->kind == V_STRING) {
        *out = *v;
        return 0;
    }
    mark = emit_mark(r);
    return emit_str(r, v) || emit_capture(r, mark, out) ? -1 : 0;
}

struct list *list_new(struct render *r, size_t size)
{
    struct list *l;

    if (size >= UINT32_MAX)
        return render_fail(r, "a list of more than 4 billion items"), NULL;
    l = render_alloc(r, 1, sizeof *l + size * sizeof *l->items);
    if (l) {
        l->size = (uint32_t)size;
        l->items = (struct value *)(l + 1);
    }
    return l;
}

int list_add(struct render *r, struct list_builder *b, struct value v)
{
    if (b->size == b->room) {
        size_t room = b->room ? 2 * b->room : 8;
        struct value *larger = render_alloc(r, room, sizeof *larger);

        if (!larger)
            return -1;
        if (b->size)
            memcpy(larger, b->items, b->size * sizeof *larger);
        b->items = larger;
        b->room = room;
    }
    b->items[b->size++] = v;
    return 0;
}

int list_finish(struct render *r, struct list_builder *b, enum value_kind kind, struct value *out)
{
    struct list *l = render_alloc(r, 1, sizeof *l);

    if (!l)
        return -1;
    if (b->size >= UINT32_MAX)
        return render_fail(r, "a list of more than 4 billion items");
    *l = (struct list){(uint32_t)b->size, b->items};
    *out = kind == V_TUPLE ? value_tuple(l) : value_list(l);
    return 0;
}

int string_copy(struct render *r, const char *s, size_t n, struct value *out)
{
    char *copy = heap_bytes(&r->heap, n);

    if (!copy)
        return render_no_memory(r);
    if (n)
        memcpy(copy, s, n);
    *out = value_string(copy, n);
    return 0;
}

int string_join2(struct render *r, const struct value *a, const struct value *b, struct value *out)
{
    size_t total = (size_t)a->size + b->size;
    const char *s;

    if (!a->size || !b->size) {
        *out = a->size ? *a : *b;
        return 0;
    }
    if (total > UINT32_MAX)
        return render_fail(r, "a string of more than 4 GiB");
    s = heap_join(&r->heap, a->s, a->size, b->s, b->size, false);
    if (!s)
        return render_no_memory(r);
    *out = value_string(s, total);
    out->flags = a->flags & b->flags & STRING_ASCII;
    return render_scan(r, b->size);
}

bool string_ascii(struct value *v)
{
    if (v->flags & STRING_ASCII)
        return true;
    if (utf8_ascii_part(v->s, v->size) < v->size)
        return false;
    v->flags |= STRING_ASCII;
    return true;
}

/* ---- frames and scopes ---- */

struct frame *frame_new(struct render *r, const struct function *f, struct frame *outer)
{
    struct frame *frame = NULL;
    size_t size = f->n_slots;

    if (size < FRAME_POOLS && r->spare[size]) {
        frame = r->spare[size];
        r->spare[size] = frame->outer;
    } else {
        frame = render_alloc(r, 1, sizeof *frame + size * sizeof frame->slots[0]);
    }
    if (!frame)
        return NULL;
    frame->outer = outer;
    frame->size = (uint32_t)size;
    memset(frame->slots, 0, size * sizeof frame->slots[0]);
    return frame;
}

void frame_release(struct render *r, const struct function *f, struct frame *frame)
{
    if (f->keeps_frame || f->n_slots >= FRAME_POOLS)
        return;
    frame->outer = r->spare[f->n_slots];
    r->spare[f->n_slots] = frame;
}

/* What a name means that no scope has set. */
static void resolve(struct render *r, const struct load *l, struct value *out)
{
    const struct value *found = l->global;
    const struct dict_entry *e;

    if (l->outer) {
        *out = *variable_slot(r, *l->outer);
        if (out->kind != V_MISSING)
            return;
    }
    /* Each pass of a loop asks again, and mostly for what is not there. */
    if (r->input_hashes >> (l->hash & 63) & 1 && (e = dict_find_text(&r->input, &l->name, l->hash)))
        found = &e->value;
    *out = found ? *found : (struct value){0};
}

void scope_enter(struct render *r, const struct scope_loads *loads)
{
    for (uint32_t i = 0; i < loads->size; i++) {
        const struct load *l = &loads->items[i];
        struct value v = {0};

        if (l->how == LOAD_ALIAS)
            v = *variable_slot(r, l->source);
        else if (l->how == LOAD_RESOLVE)
            resolve(r, l, &v);
        r->frame->slots[l->slot] = v;
    }
}

void scope_leave(struct render *r, const struct scope_loads *loads)
{
    if (loads->count)
        memset(&r->frame->slots[loads->first], 0, loads->count * sizeof(struct value));
}

/* ---- the whole ---- */

int render_variables(struct render *r, const struct template_variable *variables, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const json *v = variables[i].value;

        if (v && render_variable(r, variables[i].name, *v))
            return -1;
    }
    return 0;
}

int render_variable(struct render *r, const char *name, struct value v)
{
    struct value key = value_cstring(name);

    uint64_t hash = hash_bytes(key.s, key.size);

    r->input_hashes |= (uint64_t)1 << (hash & 63);
    return dict_set_hashed(r, &r->input, &key, hash, v);
}

static int render_root(struct render *r)
{
    r->frame = frame_new(r, &r->t->root, NULL);
    if (!r->frame)
        return -1;
    scope_enter(r, &r->t->root.loads);
    return run_nodes(r, &r->t->body) == FLOW_ERROR ? -1 : 0;
}

int render_with(const template *t, const struct template_options *options,
                int (*load)(struct render *r, void *ctx), void *ctx, struct strbuf *out,
                clm_error *err)
{
    static const struct template_options defaults;
    const struct template_limits *limits;
    size_t before = out->size;
    clm_error own = {0};
    struct render r = {.t = t, .out = out, .err = &own, .line = 1};
    int rc;

    r.options = options ? options : &defaults;
    limits = &r.options->limits;
    r.out_limit = limits->output_bytes ? limits->output_bytes : (size_t)256 << 20;
    if (!size_add(r.out_limit, before, &r.out_limit))
        r.out_limit = SIZE_MAX;
    r.out_room = out->capacity < r.out_limit ? out->capacity : r.out_limit;
    r.steps = limits->steps ? limits->steps : 100000000;
    r.max_depth = limits->depth ? limits->depth : 1500;
    heap_init(&r.heap, limits->memory_bytes ? limits->memory_bytes : (size_t)1 << 30);
    if (r.options->raised)
        strbuf_clear(r.options->raised);
    rc = load(&r, ctx) || render_root(&r) ? -1 : 0;
    heap_release(&r.heap);
    if (rc) {
        out->size = before;
        out->failed = false;
        if (out->data)
            out->data[before] = '\0';
        if (err && !err->code)
            *err = own;
    }
    return rc;
}

struct plain_input {
    const struct template_variable *variables;
    size_t n;
};

static int load_plain(struct render *r, void *ctx)
{
    const struct plain_input *input = ctx;

    return render_variables(r, input->variables, input->n);
}

int template_render(const template *t, const struct template_variable *variables, size_t n,
                    const struct template_options *options, struct strbuf *out, clm_error *err)
{
    struct plain_input input = {variables, n};

    return render_with(t, options, load_plain, &input, out, err);
}
