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
    bool spaces;         /* indent is made of them */
    struct value indent; /* one level of it */
    struct value item_separator, key_separator;
    unsigned level;
};

static int write_value(struct writer *w, const struct value *v);

#define BYTES(x) (0x0101010101010101u * (x))
#define HIGH BYTES(0x80u)

/* Has bits of HIGH if one of these eight bytes cannot stand in a JSON string as it is. x - n
 * borrows into the high bit of every byte of x that is below n <= 0x80; other bytes get that bit
 * only above such a byte, which is as good for finding out whether there is any, or have it in w,
 * which does not count. */
static inline uint64_t not_plain(uint64_t w, bool ascii)
{
    uint64_t low =
        (w - BYTES(0x20)) | ((w ^ BYTES('"')) - BYTES(1)) | ((w ^ BYTES('\\')) - BYTES(1));

    return (low & ~w) | (ascii ? w | (w + BYTES(1)) : 0);
}

/* Copies, and says whether all of it can. The last eight bytes may overlap those before. */
static bool copy_plain(char *to, const char *s, size_t n, bool ascii)
{
    uint64_t w = BYTES('a'), found = 0;
    uint32_t half, last;

    if (n >= 8) {
        for (size_t i = 0; i + 8 < n; i += 8) {
            memcpy(&w, s + i, 8);
            memcpy(to + i, &w, 8);
            found |= not_plain(w, ascii);
        }
        memcpy(&w, s + n - 8, 8);
        memcpy(to + n - 8, &w, 8);
    } else if (n >= 4) {
        memcpy(&half, s, 4);
        memcpy(&last, s + n - 4, 4);
        memcpy(to, &half, 4);
        memcpy(to + n - 4, &last, 4);
        w = (uint64_t)half << 32 | last;
    } else if (n) {
        bytes_copy(to, s, n);
        w = w << 24 | (uint64_t)(unsigned char)s[0] << 16 | (uint64_t)(unsigned char)s[n / 2] << 8 |
            (unsigned char)s[n - 1];
    }
    return !((found | not_plain(w, ascii)) & HIGH);
}

/* How many bytes at the beginning can. */
static size_t plain_bytes(const char *s, size_t n, bool ascii)
{
    size_t i = 0;

    for (uint64_t w; n - i >= 8; i += 8) { /* eight at a time */
        memcpy(&w, s + i, 8);
        if (not_plain(w, ascii) & HIGH)
            break;
    }
    while (i < n) {
        unsigned char c = (unsigned char)s[i];

        if (c < 0x20 || c == '"' || c == '\\' || (ascii && c >= 0x7F))
            break;
        i++;
    }
    return i;
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
    struct strbuf *b = w->r->out;
    size_t i = 0;

    if (render_scan(w->r, size))
        return -1;
    if (size + 2 < w->r->out_room - b->size) {
        char *at = b->data + b->size;

        at[0] = '"';
        if (copy_plain(at + 1, s, size, w->ascii)) {
            at[size + 1] = '"';
            at[size + 2] = '\0';
            b->size += size + 2;
            return 0;
        }
    }
    if (emit_bytes(w->r, "\"", 1))
        return -1;
    for (;;) {
        size_t plain = plain_bytes(s + i, size - i, w->ascii);
        int32_t c;

        if (emit_bytes(w->r, s + i, plain))
            return -1;
        i += plain;
        if (i == size)
            return emit_bytes(w->r, "\"", 1);
        c = (unsigned char)s[i];
        i += c < 0x80 ? 1 : utf8_decode(s + i, size - i, &c);
        if (write_escape(w->r, c))
            return -1;
    }
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

static int break_line(struct writer *w)
{
    static const char spaces[33] = "                                ";
    struct strbuf *b = w->r->out;
    size_t n = w->level * (size_t)w->indent.size;

    if (w->spaces && n < sizeof spaces && sizeof spaces < w->r->out_room - b->size) {
        char *at = b->data + b->size;

        at[0] = '\n';
        memcpy(at + 1, spaces, sizeof spaces - 1); /* as many as need no call */
        at[n + 1] = '\0';
        b->size += n + 1;
        return 0;
    }
    if (emit_bytes(w->r, "\n", 1))
        return -1;
    for (unsigned i = 0; i < w->level && w->indent.size; i++)
        if (emit_bytes(w->r, w->indent.s, w->indent.size))
            return -1;
    return 0;
}

static inline int new_line(struct writer *w)
{
    return w->pretty ? break_line(w) : 0;
}

/* Separators have one or two bytes: too few to call memcpy for. */
static inline int emit_separator(struct render *r, const struct value *v)
{
    struct strbuf *b = r->out;
    char *at;

    if (v->size - 1u > 1 || v->size >= r->out_room - b->size)
        return emit_bytes(r, v->s, v->size);
    at = b->data + b->size;
    at[0] = v->s[0];
    at[1] = v->s[v->size - 1]; /* of one byte: gone with the next line */
    at[v->size] = '\0';
    b->size += v->size;
    return 0;
}

static int separate(struct writer *w, bool first)
{
    if (!first && emit_separator(w->r, &w->item_separator))
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
        struct dict_entry *e = &d->entries[order ? order[i] : i];

        if (separate(w, !i) || write_key(w, &e->key) || emit_separator(w->r, &w->key_separator) ||
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
    w->spaces = true;
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
int emit_tojson(struct render *r, struct value self, const struct value *p, const struct args *args,
                struct value *out)
{
    struct writer w = {.r = r, .ascii = value_truth(&p[0]), .sort_keys = value_truth(&p[3])};

    (void)args;
    (void)out;
    w.indent = value_string("", 0);
    return set_indent(&w, &p[1]) || set_separators(&w, &p[2]) || write_value(&w, &self) ? -1 : 0;
}

FILTER(tojson)
{
    size_t mark = emit_mark(r);

    return emit_tojson(r, self, p, args, out) || emit_capture(r, mark, out) ? -1 : 0;
}
