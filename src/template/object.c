#include "template/render.h"

#include "base/utf8.h"
#include "template/bigint.h"
#include "template/characters.h"
#include "template/number.h"

static int missing_element(struct render *r, const struct value *object, const struct value *key,
                           struct value *out)
{
    size_t mark = emit_mark(r);
    struct value text;

    if (is_number(key)) {
        if (emit_repr(r, key) || emit_capture(r, mark, &text))
            return -1;
    } else {
        text = value_cstring(type_name(key));
    }
    *out = value_undefined(UNDEFINED_ELEMENT, text.s, text.size, object->kind);
    return 0;
}

static int bind_method(struct render *r, const struct value *object, const struct builtin *b,
                       struct value *out)
{
    struct method *m = render_alloc(r, 1, sizeof *m);

    if (!m)
        return -1;
    *m = (struct method){*object, b};
    *out = (struct value){.kind = V_METHOD, .method = m};
    return 0;
}

static bool range_attribute(const struct value *object, const struct value *name, struct value *out)
{
    if (string_is(name, "start"))
        *out = value_int(object->range->start);
    else if (string_is(name, "stop"))
        *out = value_int(object->range->stop);
    else if (string_is(name, "step"))
        *out = value_int(object->range->step);
    else
        return false;
    return true;
}

static bool number_attribute(const struct value *object, const struct value *name,
                             struct value *out)
{
    bool is_float = object->kind == V_FLOAT;

    if (string_is(name, "real"))
        *out = object->kind == V_BOOL ? value_int(object->i) : *object;
    else if (string_is(name, "imag"))
        *out = is_float ? value_float(0) : value_int(0);
    else if (!is_float && string_is(name, "numerator"))
        *out = object->kind == V_BOOL ? value_int(object->i) : *object;
    else if (!is_float && string_is(name, "denominator"))
        *out = value_int(1);
    else
        return false;
    return true;
}

static int macro_attribute(struct render *r, const struct macro_code *code,
                           const struct value *name, struct value *out, bool *found)
{
    if (string_is(name, "name")) {
        *out = code->name;
    } else if (string_is(name, "catch_kwargs")) {
        *out = value_bool(code->uses_kwargs);
    } else if (string_is(name, "catch_varargs")) {
        *out = value_bool(code->uses_varargs);
    } else if (string_is(name, "caller")) {
        *out = value_bool(code->uses_caller);
    } else if (string_is(name, "arguments")) {
        struct list *l = list_new(r, code->n_parameters);

        if (!l)
            return -1;
        for (uint32_t i = 0; i < l->size; i++)
            l->items[i] = code->parameters[i].name;
        *out = value_tuple(l);
    } else {
        *found = false;
    }
    return 0;
}

/* What is an attribute for Python, other than a method. */
static int own_attribute(struct render *r, const struct value *object, const struct value *name,
                         uint64_t hash, struct value *out, bool *found)
{
    const struct dict_entry *e;

    *found = true;
    switch (object->kind) {
    case V_NAMESPACE:
        e = dict_find_text(object->dict, name, hash);
        *found = e;
        if (e)
            *out = e->value;
        return 0;
    case V_LOOP:
        return loop_attribute(r, object->loop, name, out, found);
    case V_MACRO:
        return macro_attribute(r, object->macro->code, name, out, found);
    case V_RANGE:
        *found = range_attribute(object, name, out);
        return 0;
    case V_BOOL:
    case V_INT:
    case V_BIGINT:
    case V_FLOAT:
        *found = number_attribute(object, name, out);
        return 0;
    case V_TUPLE:
        *found = (object->flags & TUPLE_GROUP) &&
                 (string_is(name, "grouper") || string_is(name, "list"));
        if (*found)
            *out = object->list->items[string_is(name, "list")];
        return 0;
    case V_CYCLER:
        *found = string_is(name, "current") || string_is(name, "pos");
        if (*found)
            *out = name->s[0] == 'p' ? value_int(object->cycler->at)
                                     : object->cycler->items->items[object->cycler->at];
        return 0;
    default:
        *found = false;
        return 0;
    }
}

/* Names of the form __x__ belong to Python; the sandbox shows none of them. */
void missing_attribute(const struct value *object, const struct value *name, struct value *out)
{
    bool internal = name->size >= 2 && !memcmp(name->s, "__", 2);

    *out = value_undefined(internal ? UNDEFINED_UNSAFE : UNDEFINED_ATTR, name->s, name->size,
                           object->kind);
}

int get_attribute(struct render *r, const struct value *object, const struct value *name,
                  uint64_t hash, const struct builtin *methods, struct value *out)
{
    const struct builtin *b;
    const struct dict_entry *e;
    bool found;

    if (object->kind == V_UNDEFINED)
        return undefined_error(r, object);
    b = methods ? method_for(methods, object->kind) : NULL;
    if (b && !b->fn) {
        *out = value_undefined(UNDEFINED_UNSAFE, name->s, name->size, object->kind);
        return 0;
    }
    if (b)
        return bind_method(r, object, b, out);
    if (own_attribute(r, object, name, hash, out, &found))
        return -1;
    if (found)
        return 0;
    e = object->kind == V_DICT ? dict_find_text(object->dict, name, hash) : NULL;
    if (e)
        *out = e->value;
    else
        missing_attribute(object, name, out);
    return 0;
}

/* An index into size items: 1 with *at set, 0 out of range. */
static int list_index(int64_t index, int64_t size, int64_t *at)
{
    *at = index < 0 ? index + size : index;
    return *at >= 0 && *at < size;
}

/* The n-th character from the front or, for negative n, from the back; false when there is none. */
static bool character_at(const struct value *s, int64_t n, struct value *out)
{
    const char *at = s->s, *end = s->s + s->size;

    if (s->flags & STRING_ASCII) {
        if (!list_index(n, s->size, &n))
            return false;
        at += n;
    } else if (n >= 0) {
        if ((uint64_t)n >= s->size)
            return false;
        at += character_offset(s->s, s->size, (size_t)n);
        if (at == end)
            return false;
    } else {
        if ((uint64_t)-n > s->size)
            return false;
        for (at = end; n; n++) {
            if (at == s->s)
                return false;
            do
                at--;
            while (at > s->s && ((unsigned char)*at & 0xC0) == 0x80);
        }
    }
    *out = value_string(at, utf8_length((unsigned char)*at));
    out->flags = s->flags & (STRING_ASCII | STRING_MARKUP);
    return true;
}

/* object[index]: 1, 0 when there is no such item, -1. */
static int item_at(struct render *r, const struct value *object, const struct value *key,
                   struct value *out)
{
    int64_t at;

    if (key->kind != V_INT && key->kind != V_BOOL)
        return 0;
    switch (object->kind) {
    case V_LIST:
    case V_TUPLE:
        if (!list_index(key->i, object->list->size, &at))
            return 0;
        *out = object->list->items[at];
        return 1;
    case V_RANGE:
        if (!list_index(key->i, object->range->size, &at))
            return 0;
        *out = value_int(object->range->start + at * object->range->step);
        return 1;
    case V_STRING:
        if (render_scan(r, object->size))
            return -1;
        return character_at(object, key->i, out);
    case V_BYTES:
        if (!list_index(key->i, object->size, &at))
            return 0;
        *out = value_int((unsigned char)object->s[at]);
        return 1;
    default:
        return 0;
    }
}

static bool hashable(const struct value *key)
{
    if (key->kind == V_TUPLE) {
        for (uint32_t i = 0; i < key->list->size; i++)
            if (key->list->items[i].kind == V_TUPLE || !hashable(&key->list->items[i]))
                return false; /* nested tuples as keys: not worth the recursion */
        return true;
    }
    return key->kind != V_LIST && key->kind != V_DICT && key->kind != V_VIEW;
}

int get_item(struct render *r, const struct value *object, const struct value *key,
             struct value *out)
{
    const struct value *held;
    int found = 0;

    if (object->kind == V_UNDEFINED)
        return undefined_error(r, object);
    if (object->kind == V_DICT) {
        found = hashable(key) ? dict_get(r, object->dict, key, &held) : 0;
        if (found > 0)
            *out = *held;
    } else if (key->kind != V_STRING) {
        found = item_at(r, object, key, out);
    }
    if (found)
        return found < 0 ? -1 : 0;
    if (key->kind != V_STRING)
        return missing_element(r, object, key, out);
    return get_attribute(r, object, key, hash_bytes(key->s, key->size),
                         methods_named(key->s, key->size), out);
}

/* ---- slices ---- */

static int slice_bound(struct render *r, const struct value *v, int64_t otherwise, int64_t *out)
{
    switch (v->kind) {
    case V_NONE:
        *out = otherwise;
        return 0;
    case V_BOOL:
    case V_INT:
        *out = v->i;
        return 0;
    case V_BIGINT:
        *out = v->big->negative ? INT64_MIN / 2 : INT64_MAX / 2;
        return 0;
    case V_UNDEFINED:
        /* Undefined has no __index__ */
    default:
        return render_fail(r, "slice indices must be integers or None or have an __index__ method");
    }
}

static int64_t clamp(int64_t i, int64_t size, bool backwards)
{
    if (i < 0)
        i += size;
    if (i < 0)
        return backwards ? -1 : 0;
    if (i >= size)
        return backwards ? size - 1 : size;
    return i;
}

struct slice {
    int64_t start, step, size;
};

static int make_slice(struct render *r, const struct value *start, const struct value *stop,
                      const struct value *step, int64_t size, struct slice *out)
{
    int64_t from = 0, to = 0;

    if (slice_bound(r, step, 1, &out->step))
        return -1;
    if (!out->step)
        return render_fail(r, "slice step cannot be zero");
    if (out->step > INT64_MAX / 4 || out->step < INT64_MIN / 4)
        out->step = out->step < 0 ? INT64_MIN / 4 : INT64_MAX / 4;
    bool back = out->step < 0;

    if (slice_bound(r, start, 0, &from) || slice_bound(r, stop, 0, &to))
        return -1;
    from = start->kind == V_NONE ? (back ? size - 1 : 0) : clamp(from, size, back);
    to = stop->kind == V_NONE ? (back ? -1 : size) : clamp(to, size, back);
    out->start = from;
    if (back)
        out->size = from > to ? (from - to - 1) / -out->step + 1 : 0;
    else
        out->size = to > from ? (to - from - 1) / out->step + 1 : 0;
    return 0;
}

static int slice_list(struct render *r, const struct value *object, const struct slice *s,
                      struct value *out)
{
    struct list *l;

    if (s->step == 1) { /* lists never change: a part can share the items */
        l = render_alloc(r, 1, sizeof *l);
        if (!l)
            return -1;
        *l = (struct list){(uint32_t)s->size, NULL};
        if (s->size)
            l->items = object->list->items + s->start;
    } else {
        l = list_new(r, (size_t)s->size);
        if (!l || render_work(r, (uint64_t)s->size))
            return -1;
        for (int64_t i = 0; i < s->size; i++)
            l->items[i] = object->list->items[s->start + i * s->step];
    }
    *out = object->kind == V_TUPLE ? value_tuple(l) : value_list(l);
    return 0;
}

static int slice_range(struct render *r, const struct value *object, const struct slice *s,
                       struct value *out)
{
    const struct range *from = object->range;
    struct range *range = render_alloc(r, 1, sizeof *range);

    if (!range)
        return -1;
    range->start = from->start + s->start * from->step;
    range->step = from->step * (s->size > 1 ? s->step : 1);
    range->size = (uint32_t)s->size;
    range->stop = range->start + s->size * range->step;
    *out = (struct value){.kind = V_RANGE, .range = range};
    return 0;
}

/* Every step-th character. */
static int pick_characters(struct render *r, const struct value *object, const struct slice *s,
                           bool ascii, struct value *out)
{
    size_t mark = emit_mark(r);
    const char **starts;
    size_t n = 0;

    if (ascii) {
        for (int64_t i = 0; i < s->size; i++)
            if (emit_bytes(r, object->s + s->start + i * s->step, 1))
                return -1;
        return emit_capture(r, mark, out);
    }
    starts = render_alloc(r, (size_t)object->size + 1, sizeof *starts);
    if (!starts)
        return -1;
    for (uint32_t i = 0; i < object->size; i++)
        if (((unsigned char)object->s[i] & 0xC0) != 0x80)
            starts[n++] = object->s + i;
    starts[n] = object->s + object->size;
    for (int64_t i = 0; i < s->size; i++) {
        const char *const *at = &starts[s->start + i * s->step];

        if (emit_bytes(r, at[0], (size_t)(at[1] - at[0])))
            return -1;
    }
    return emit_capture(r, mark, out);
}

static int slice_string(struct render *r, const struct value *object, const struct value *start,
                        const struct value *stop, const struct value *step, struct value *out)
{
    struct value text = *object;
    bool ascii = string_ascii(&text);
    int64_t size = (int64_t)(ascii ? text.size : character_count(text.s, text.size));
    struct slice s;

    if (make_slice(r, start, stop, step, size, &s) || render_scan(r, text.size))
        return -1;
    if (s.step != 1) {
        if (render_work(r, (uint64_t)s.size) || pick_characters(r, &text, &s, ascii, out))
            return -1;
    } else {
        size_t from =
            ascii ? (size_t)s.start : character_offset(text.s, text.size, (size_t)s.start);
        size_t n = ascii ? (size_t)s.size
                         : character_offset(text.s + from, text.size - from, (size_t)s.size);

        *out = value_string(text.s + from, n);
    }
    out->flags = text.flags;
    return 0;
}

int get_slice(struct render *r, const struct value *object, const struct value *start,
              const struct value *stop, const struct value *step, struct value *out)
{
    struct slice s;

    switch (object->kind) {
    case V_LIST:
    case V_TUPLE:
        return make_slice(r, start, stop, step, object->list->size, &s) ||
                       slice_list(r, object, &s, out)
                   ? -1
                   : 0;
    case V_RANGE:
        return make_slice(r, start, stop, step, object->range->size, &s) ||
                       slice_range(r, object, &s, out)
                   ? -1
                   : 0;
    case V_STRING:
        return slice_string(r, object, start, stop, step, out);
    case V_UNDEFINED:
        return undefined_error(r, object);
    case V_DICT:
        return render_fail(r, "unhashable type: 'slice'");
    default:
        return render_fail(r, "'%s' object is not subscriptable", type_name(object));
    }
}

/* ---- paths ---- */

static bool is_index(const char *s, size_t n, int64_t *out)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] < '0' || s[i] > '9')
            return false;
    return n && bigint_small_from_text(s, n, 10, out);
}

int get_path(struct render *r, const struct value *object, const struct value *path,
             const struct value *fallback, struct value *out)
{
    const char *s, *end;
    struct value now = *object;

    if (path->kind != V_STRING)
        return path->kind == V_MISSING || path->kind == V_NONE ? (*out = *object, 0)
                                                               : get_item(r, object, path, out);
    s = path->s;
    end = s + path->size;
    for (;;) {
        const char *dot = memchr(s, '.', (size_t)(end - s));
        size_t n = (size_t)((dot ? dot : end) - s);
        struct value key = value_string(s, n), next;
        int64_t index;

        if (is_index(s, n, &index))
            key = value_int(index);
        if (get_item(r, &now, &key, &next))
            return -1;
        /* only a fallback that is not None counts */
        if (next.kind == V_UNDEFINED && fallback && fallback->kind != V_MISSING &&
            fallback->kind != V_NONE)
            next = *fallback;
        now = next;
        if (!dot)
            break;
        s = dot + 1;
    }
    *out = now;
    return 0;
}
