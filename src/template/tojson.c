#include "template/filters.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "template/number.h"

/* How json.dumps is to write. */
struct writer {
    struct render *r;
    bool ascii, sort_keys, pretty;
    struct value indent; /* one level of it */
    struct value item_separator, key_separator;
    unsigned level;
};

static int write_value(struct writer *w, const struct value *v);

/* Whether a character can stand in a JSON string as it is. */
static bool plain(unsigned char c, bool ascii)
{
    return c >= 0x20 && c != '"' && c != '\\' && (!ascii || c < 0x7F);
}

static int write_escape(struct render *r, int32_t c)
{
    static const char letters[] = {['"'] = '"',  ['\\'] = '\\', ['\n'] = 'n', ['\r'] = 'r',
                                   ['\t'] = 't', ['\f'] = 'f',  ['\b'] = 'b'};
    char text[16];

    if (c < (int32_t)sizeof letters && letters[c]) {
        text[0] = '\\';
        text[1] = letters[c];
        return emit_bytes(r, text, 2);
    }
    if (c < 0x10000)
        snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800u + (unsigned)((c - 0x10000) >> 10),
                 0xDC00u + (unsigned)((c - 0x10000) & 0x3FF));
    return emit_text(r, text);
}

static int write_string(struct writer *w, const char *s, size_t size)
{
    size_t begin = 0, i = 0;

    if (render_scan(w->r, size) || emit_bytes(w->r, "\"", 1))
        return -1;
    while (i < size) {
        int32_t c = (unsigned char)s[i];
        size_t n = 1;

        if (plain((unsigned char)c, w->ascii)) {
            i++;
            continue;
        }
        if (c >= 0x80)
            n = utf8_decode(s + i, size - i, &c);
        if (emit_bytes(w->r, s + begin, i - begin) || write_escape(w->r, c))
            return -1;
        i += n;
        begin = i;
    }
    return emit_bytes(w->r, s + begin, size - begin) || emit_bytes(w->r, "\"", 1) ? -1 : 0;
}

static int write_float(struct writer *w, double f)
{
    char text[NUMBER_ROOM];

    if (isnan(f))
        return emit_text(w->r, "NaN");
    if (isinf(f))
        return emit_text(w->r, f < 0 ? "-Infinity" : "Infinity");
    return emit_bytes(w->r, text, number_repr(f, text));
}

static int new_line(struct writer *w)
{
    if (!w->pretty)
        return 0;
    if (emit_bytes(w->r, "\n", 1))
        return -1;
    for (unsigned i = 0; i < w->level; i++)
        if (emit_bytes(w->r, w->indent.s, w->indent.size))
            return -1;
    return 0;
}

static int separate(struct writer *w, bool first)
{
    if (!first && emit_bytes(w->r, w->item_separator.s, w->item_separator.size))
        return -1;
    return new_line(w);
}

static int write_list(struct writer *w, const struct list *l)
{
    if (!l->size)
        return emit_bytes(w->r, "[]", 2);
    if (emit_bytes(w->r, "[", 1))
        return -1;
    w->level++;
    for (uint32_t i = 0; i < l->size; i++)
        if (separate(w, !i) || write_value(w, &l->items[i]))
            return -1;
    w->level--;
    return new_line(w) || emit_bytes(w->r, "]", 1) ? -1 : 0;
}

static int write_key(struct writer *w, const struct value *key)
{
    switch (key->kind) {
    case V_STRING:
        return write_string(w, key->s, key->size);
    case V_NONE:
    case V_BOOL:
    case V_INT:
    case V_BIGINT:
    case V_FLOAT:
        return emit_bytes(w->r, "\"", 1) || write_value(w, key) || emit_bytes(w->r, "\"", 1) ? -1
                                                                                             : 0;
    default:
        return render_fail(w->r, "keys must be str, int, float, bool or None, not %s",
                           type_name(key));
    }
}

/* Orders the positions of entries by their keys: a plain merge sort, which is stable. */
static int sort_entries(struct render *r, const struct dict *d, uint32_t *order, uint32_t *spare,
                        uint32_t n)
{
    uint32_t half = n / 2, i = 0, j = half, at = 0;

    if (n < 2)
        return 0;
    if (sort_entries(r, d, order, spare, half) || sort_entries(r, d, order + half, spare, n - half))
        return -1;
    while (i < half && j < n) {
        int less = value_less(r, &d->entries[order[j]].key, &d->entries[order[i]].key, OP_LT);

        if (less < 0 || render_work(r, 1))
            return -1;
        spare[at++] = less ? order[j++] : order[i++];
    }
    while (i < half)
        spare[at++] = order[i++];
    memcpy(order, spare, at * sizeof *order);
    return 0;
}

static int sorted_order(struct render *r, const struct dict *d, uint32_t **out)
{
    uint32_t *order = render_alloc(r, 2 * (size_t)d->size, sizeof *order);

    if (!order)
        return -1;
    for (uint32_t i = 0; i < d->size; i++)
        order[i] = i;
    *out = order;
    return sort_entries(r, d, order, order + d->size, d->size);
}

static int write_dict(struct writer *w, const struct dict *d)
{
    uint32_t *order = NULL;

    if (!d->size)
        return emit_bytes(w->r, "{}", 2);
    if (w->sort_keys && sorted_order(w->r, d, &order))
        return -1;
    if (emit_bytes(w->r, "{", 1))
        return -1;
    w->level++;
    for (uint32_t i = 0; i < d->size; i++) {
        const struct dict_entry *e = &d->entries[order ? order[i] : i];

        if (separate(w, !i) || write_key(w, &e->key) ||
            emit_bytes(w->r, w->key_separator.s, w->key_separator.size) ||
            write_value(w, &e->value))
            return -1;
    }
    w->level--;
    return new_line(w) || emit_bytes(w->r, "}", 1) ? -1 : 0;
}

static int write_value(struct writer *w, const struct value *v)
{
    int rc;

    switch (v->kind) {
    case V_NONE:
        return emit_text(w->r, "null");
    case V_BOOL:
        return emit_text(w->r, v->i ? "true" : "false");
    case V_INT:
    case V_BIGINT:
        return emit_str(w->r, v);
    case V_FLOAT:
        return write_float(w, v->f);
    case V_STRING:
        return write_string(w, v->s, v->size);
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
        break;
    default:
        return render_fail(w->r, "Object of type %s is not JSON serializable", type_name(v));
    }
    if (render_work(w->r, 1) || render_enter(w->r))
        return -1;
    rc = v->kind == V_DICT ? write_dict(w, v->dict) : write_list(w, v->list);
    render_leave(w->r);
    return rc;
}

static int set_indent(struct writer *w, const struct value *indent)
{
    size_t mark = emit_mark(w->r);

    if (indent->kind == V_MISSING || indent->kind == V_NONE)
        return 0;
    w->pretty = true;
    if (indent->kind == V_STRING) {
        w->indent = *indent;
        return 0;
    }
    if (indent->kind != V_INT && indent->kind != V_BOOL)
        return render_fail(w->r, "tojson: indent is neither a number nor a string but %s",
                           type_name(indent));
    if (indent->i <= 0)
        return 0;
    return emit_char(w->r, ' ', (size_t)indent->i) || emit_capture(w->r, mark, &w->indent) ? -1 : 0;
}

static int set_separators(struct writer *w, const struct value *v)
{
    struct value list;

    w->item_separator = w->pretty ? value_string(",", 1) : value_string(", ", 2);
    w->key_separator = value_string(": ", 2);
    if (v->kind == V_MISSING || v->kind == V_NONE)
        return 0;
    if (to_list(w->r, v, &list))
        return -1;
    if (list.list->size != 2 || list.list->items[0].kind != V_STRING ||
        list.list->items[1].kind != V_STRING)
        return render_fail(w->r, "tojson: separators must be two strings");
    w->item_separator = list.list->items[0];
    w->key_separator = list.list->items[1];
    return 0;
}

/* p: ensure_ascii, indent, separators, sort_keys. */
static int to_json(struct render *r, const struct value *v, const struct value p[4])
{
    struct writer w = {.r = r, .ascii = value_truth(&p[0]), .sort_keys = value_truth(&p[3])};

    w.indent = value_string("", 0);
    return set_indent(&w, &p[1]) || set_separators(&w, &p[2]) || write_value(&w, v) ? -1 : 0;
}

FILTER(tojson)
{
    size_t mark = emit_mark(r);

    (void)args;
    return to_json(r, &self, p) || emit_capture(r, mark, out) ? -1 : 0;
}

/* ---- the other way: the input's values ---- */

static int json_list(struct render *r, const json *v, struct value *out)
{
    size_t n = json_size(v);
    struct list *l = list_new(r, n);

    if (!l)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (json_value(r, json_at(v, i), &l->items[i]))
            return -1;
    *out = value_list(l);
    return 0;
}

static int json_dict(struct render *r, const json *v, struct value *out)
{
    struct dict *d = dict_new(r, json_size(v));
    struct json_iter it = json_first(v);
    size_t size;

    double f;

    if (!d)
        return -1;
    /* how json.h gives what JSON has no word for */
    if (json_size(v) == 1 && json_string(json_get(v, "__float__"), &size)) {
        const char *text = json_string(json_get(v, "__float__"), &size);

        if (number_from_text(text, size, &f) && !isfinite(f)) {
            *out = value_float(f);
            return 0;
        }
    }
    while (json_next(&it)) {
        struct value key = value_string(it.key, it.key_size), item;

        if (json_value(r, it.value, &item) ||
            dict_set_hashed(r, d, &key, hash_bytes(key.s, key.size), item))
            return -1;
    }
    *out = value_dict(d);
    return 0;
}

int json_value(struct render *r, const json *v, struct value *out)
{
    size_t size;
    const char *s;
    int rc = 0;

    switch (json_kind(v)) {
    case JSON_ABSENT:
    case JSON_NULL:
        *out = value_none();
        return 0;
    case JSON_BOOL:
        *out = value_bool(json_bool(v, false));
        return 0;
    case JSON_INT:
        *out = value_int(json_int(v, 0));
        return 0;
    case JSON_REAL:
        *out = value_float(json_real(v, 0));
        return 0;
    case JSON_STRING:
        s = json_string(v, &size);
        if (size > UINT32_MAX)
            return render_fail(r, "a string of more than 4 GiB");
        *out = value_string(s, size);
        return 0;
    default:
        break;
    }
    if (render_enter(r))
        return -1;
    rc = json_kind(v) == JSON_ARRAY ? json_list(r, v, out) : json_dict(r, v, out);
    render_leave(r);
    return rc;
}
