#include "template/filters.h"

#include <locale.h>
#include <time.h>

#define MAX_RANGE 100000

#define GLOBAL(name)                                                                               \
    static int global_##name(struct render *r, struct value self, const struct value *p,           \
                             const struct args *args, struct value *out)
#define UNUSED ((void)r, (void)self, (void)p, (void)args)

GLOBAL(range)
{
    struct range *range = render_alloc(r, 1, sizeof *range);
    int64_t bounds[3] = {0, 0, 1};
    uint64_t size = 0;

    UNUSED;
    if (!range)
        return -1;
    if (args->n_named || !args->n_positional || args->n_positional > 3)
        return render_fail(r, "range() takes one to three numbers");
    for (uint32_t i = 0; i < args->n_positional; i++)
        if (arg_int(r, &args->positional[i], "range", &bounds[args->n_positional == 1 ? 1 : i]))
            return -1;
    if (!bounds[2])
        return render_fail(r, "range() arg 3 must not be zero");
    if (bounds[2] > 0 && bounds[1] > bounds[0])
        size = ((uint64_t)bounds[1] - (uint64_t)bounds[0] - 1) / (uint64_t)bounds[2] + 1;
    else if (bounds[2] < 0 && bounds[1] < bounds[0])
        size = ((uint64_t)bounds[0] - (uint64_t)bounds[1] - 1) / -(uint64_t)bounds[2] + 1;
    if (size > MAX_RANGE)
        return render_fail(
            r, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", MAX_RANGE);
    *range = (struct range){bounds[0], bounds[1], bounds[2], (uint32_t)size};
    *out = (struct value){.kind = V_RANGE, .range = range};
    return 0;
}

/* Puts the items of a mapping, or of pairs, into another. */
static int add_items(struct render *r, struct dict *d, const struct value *from)
{
    struct value pair, list;
    struct iter it;
    int more;

    if (from->kind == V_DICT) {
        if (dict_reserve(r, d, (size_t)d->size + from->dict->size))
            return -1;
        for (uint32_t i = 0; i < from->dict->size; i++) {
            const struct dict_entry *e = &from->dict->entries[i];

            if (dict_set_hashed(r, d, &e->key, e->hash, e->value))
                return -1;
        }
        return 0;
    }
    if (iter_begin(r, from, &it))
        return -1;
    while ((more = iter_next(r, &it, &pair)) > 0) {
        if (render_work(r, 1) || to_list(r, &pair, &list))
            return -1;
        if (list.list->size != 2)
            return render_fail(r, "dictionary update sequence element has length %u; 2 is required",
                               list.list->size);
        if (dict_set(r, d, &list.list->items[0], list.list->items[1]))
            return -1;
    }
    return more;
}

/* dict(mapping or pairs, key=value, ...) */
static int make_dict(struct render *r, const struct args *args, struct dict **out)
{
    struct dict *d = dict_new(r, args->n_named);

    if (!d)
        return -1;
    if (args->n_positional > 1)
        return render_fail(r, "dict expected at most 1 argument, got %u", args->n_positional);
    if (args->n_positional && add_items(r, d, &args->positional[0]))
        return -1;
    for (uint32_t i = 0; i < args->n_named; i++)
        if (dict_set(r, d, &args->named[i].name, args->named[i].value))
            return -1;
    *out = d;
    return 0;
}

GLOBAL(dict)
{
    struct dict *d;

    UNUSED;
    if (make_dict(r, args, &d))
        return -1;
    *out = value_dict(d);
    return 0;
}

GLOBAL(namespace)
{
    struct dict *d;

    UNUSED;
    if (make_dict(r, args, &d))
        return -1;
    for (uint32_t i = 0; i < d->size; i++) {
        const struct value *key = &d->entries[i].key;

        if (key->kind == V_STRING && key->size && key->s[0] == '_')
            return render_fail(r,
                               "Chat templates cannot store underscore-prefixed attributes on a "
                               "namespace, but got '%.*s'. Please rename the attribute.",
                               (int)key->size, key->s);
    }
    *out = (struct value){.kind = V_NAMESPACE, .dict = d};
    return 0;
}

GLOBAL(cycler)
{
    struct cycler *c = render_alloc(r, 1, sizeof *c);
    struct list *l = list_new(r, args->n_positional);

    UNUSED;
    if (!c || !l)
        return -1;
    if (!l->size)
        return render_fail(r, "at least one item has to be provided");
    memcpy(l->items, args->positional, l->size * sizeof *l->items);
    *c = (struct cycler){l, 0};
    *out = (struct value){.kind = V_CYCLER, .cycler = c};
    return 0;
}

GLOBAL(joiner)
{
    struct joiner *j = render_alloc(r, 1, sizeof *j);
    struct value separator = value_string(", ", 2);

    UNUSED;
    if (!j)
        return -1;
    *j = (struct joiner){p[0].kind == V_MISSING ? separator : p[0], false};
    *out = (struct value){.kind = V_JOINER, .joiner = j};
    return 0;
}

GLOBAL(raise_exception)
{
    struct value text;

    UNUSED;
    (void)out;
    if (to_string(r, &p[0], &text))
        return -1;
    if (r->options->raised && !r->err->code) {
        strbuf_addf(r->options->raised, "%s:%u: ", r->t->name, r->line);
        strbuf_add(r->options->raised, text.s, text.size);
    }
    return render_fail(r, "%.*s", (int)(text.size < 10000 ? text.size : 10000), text.s);
}

GLOBAL(lipsum)
{
    UNUSED;
    (void)out;
    return render_fail(r, "lipsum makes random text, which is not supported");
}

/* ---- the clock ---- */

/* One conversion, "%..." of n characters, as the C library shows it in the C locale. */
static int emit_time(struct render *r, const struct tm *now, const char *format, size_t n)
{
    char spec[16], text[256];
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    size_t size;

    if (!c_locale)
        return render_no_memory(r);
    memcpy(spec, format, n);
    spec[n] = '\0';
    size = strftime_l(text, sizeof text, spec, now, c_locale);
    freelocale(c_locale);
    return emit_bytes(r, text, size);
}

static int emit_conversion(struct render *r, const struct tm *now, const char *s, size_t n)
{
    switch (s[n - 1]) {
    case 'f': /* microseconds: the clock is set to a second */
        return emit_text(r, "000000");
    case 'z': /* the time has no zone, as datetime.now() */
    case 'Z':
        return 0;
    default:
        return emit_time(r, now, s, n);
    }
}

GLOBAL(strftime_now)
{
    struct tm now;
    struct value format;
    size_t mark = emit_mark(r), i = 0;

    UNUSED;
    if (arg_text(r, &p[0], "strftime() argument 1", &format))
        return -1;
    if (r->options->now) {
        now = *r->options->now;
    } else {
        time_t seconds = time(NULL);

        if (!localtime_r(&seconds, &now))
            return render_fail(r, "the clock cannot be read");
    }
    while (i < format.size) {
        const char *s = format.s + i;
        size_t left = format.size - i, n = 1;

        if (*s != '%') {
            const char *next = memchr(s, '%', left);

            n = next ? (size_t)(next - s) : left;
            if (emit_bytes(r, s, n))
                return -1;
        } else {
            /* flags and widths between "%" and the letter are the C library's */
            while (n < left && n < 8 && strchr("-_0^#EO123456789", s[n]) && s[n])
                n++;
            if (n == left || n == 8) {
                if (emit_bytes(r, s, n))
                    return -1;
            } else if (s[n] & 0x80 ? emit_bytes(r, s, ++n) : emit_conversion(r, &now, s, ++n)) {
                return -1;
            }
        }
        i += n;
    }
    return emit_capture(r, mark, out);
}

/* ---- names ---- */

static const struct builtin functions[] = {
    {"cycler", global_cycler, NULL, 0, 0},
    {"dict", global_dict, NULL, 0, 0},
    {"joiner", global_joiner, "sep", 0, 0},
    {"lipsum", global_lipsum, NULL, 0, 0},
    {"namespace", global_namespace, NULL, 0, 0},
    {"raise_exception", global_raise_exception, "message", 1, 0},
    {"range", global_range, NULL, 0, 0},
    {"strftime_now", global_strftime_now, "format", 1, 0},
};

#define FUNCTION(i)                                                                                \
    {                                                                                              \
        .kind = V_BUILTIN, .builtin = &functions[i]                                                \
    }

static const struct value globals[COUNT(functions)] = {
    FUNCTION(0), FUNCTION(1), FUNCTION(2), FUNCTION(3),
    FUNCTION(4), FUNCTION(5), FUNCTION(6), FUNCTION(7),
};

const struct value *global_find(const char *name, size_t size)
{
    const struct builtin *b = builtin_search(functions, COUNT(functions), name, size);

    return b ? &globals[b - functions] : NULL;
}
