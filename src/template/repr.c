#include "template/render.h"

#include <stdio.h>

#include "base/utf8.h"
#include "template/bigint.h"
#include "template/characters.h"
#include "template/number.h"

static int emit_int(struct render *r, int64_t i)
{
    char digits[24];
    char *at = digits + sizeof digits;
    uint64_t rest = i < 0 ? -(uint64_t)i : (uint64_t)i;

    do
        *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (i < 0)
        *--at = '-';
    return emit_bytes(r, at, (size_t)(digits + sizeof digits - at));
}

static int emit_bigint(struct render *r, const struct bigint *b)
{
    char text[9 * (BIGINT_MAX_DIGITS / 9 + 3)];
    size_t n = bigint_to_text(b, text);

    return emit_bytes(r, text, n);
}

static int emit_float(struct render *r, double f)
{
    char text[NUMBER_ROOM];

    return emit_bytes(r, text, number_repr(f, text));
}

/* A character inside a quoted string that cannot stand there as it is. */
static int emit_escape(struct render *r, int32_t c, char quote)
{
    char text[16];

    switch (c) {
    case '\n':
        return emit_bytes(r, "\\n", 2);
    case '\r':
        return emit_bytes(r, "\\r", 2);
    case '\t':
        return emit_bytes(r, "\\t", 2);
    case '\\':
        return emit_bytes(r, "\\\\", 2);
    default:
        break;
    }
    if (c == quote)
        return emit_bytes(r, quote == '"' ? "\\\"" : "\\'", 2);
    snprintf(text, sizeof text,
             c < 0x100     ? "\\x%02x"
             : c < 0x10000 ? "\\u%04x"
                           : "\\U%08x",
             (unsigned)c);
    return emit_text(r, text);
}

static int emit_quoted(struct render *r, const char *s, size_t size, bool bytes)
{
    bool single = memchr(s, '\'', size), has_double = memchr(s, '"', size);
    char quote = single && !has_double ? '"' : '\'';
    size_t begin = 0, i = 0;

    if (render_scan(r, size) || emit_bytes(r, &quote, 1))
        return -1;
    while (i < size) {
        int32_t c = (unsigned char)s[i];
        size_t n = 1;

        if (c >= 0x80 && !bytes)
            n = utf8_decode(s + i, size - i, &c);
        if (c == quote || c == '\\' ||
            (bytes ? c < 0x20 || c >= 0x7F : !character_is_printable(c))) {
            if (emit_bytes(r, s + begin, i - begin) || emit_escape(r, c, quote))
                return -1;
            begin = i + n;
        }
        i += n;
    }
    return emit_bytes(r, s + begin, size - begin) || emit_bytes(r, &quote, 1) ? -1 : 0;
}

static int emit_items(struct render *r, const struct list *l, const char *open, const char *close)
{
    if (emit_text(r, open))
        return -1;
    for (uint32_t i = 0; i < l->size; i++)
        if ((i && emit_bytes(r, ", ", 2)) || emit_repr(r, &l->items[i]))
            return -1;
    return emit_text(r, close);
}

static int emit_dict(struct render *r, const struct dict *d)
{
    if (emit_char(r, '{', 1))
        return -1;
    for (uint32_t i = 0; i < d->size; i++) {
        const struct dict_entry *e = &d->entries[i];

        if ((i && emit_bytes(r, ", ", 2)) || emit_repr(r, &e->key) || emit_bytes(r, ": ", 2) ||
            emit_repr(r, &e->value))
            return -1;
    }
    return emit_char(r, '}', 1);
}

static int emit_view(struct render *r, const struct value *v)
{
    static const char *const open[] = {[VIEW_KEYS] = "dict_keys([",
                                       [VIEW_VALUES] = "dict_values([",
                                       [VIEW_ITEMS] = "dict_items(["};
    struct value item;
    struct iter it;
    int more;
    bool first = true;

    if (emit_text(r, open[v->flags]) || iter_begin(r, v, &it))
        return -1;
    while ((more = iter_next(r, &it, &item)) > 0) {
        if ((!first && emit_bytes(r, ", ", 2)) || emit_repr(r, &item))
            return -1;
        first = false;
    }
    return more < 0 ? -1 : emit_bytes(r, "])", 2);
}

static int emit_range(struct render *r, const struct range *range)
{
    if (emit_text(r, "range(") || emit_int(r, range->start) || emit_bytes(r, ", ", 2) ||
        emit_int(r, range->stop))
        return -1;
    if (range->step != 1 && (emit_bytes(r, ", ", 2) || emit_int(r, range->step)))
        return -1;
    return emit_char(r, ')', 1);
}

static int emit_loop(struct render *r, struct loop *loop)
{
    struct value v = {.kind = V_LOOP, .loop = loop};
    int64_t length;

    return emit_text(r, "<LoopContext ") || value_length(r, &v, &length) ||
                   emit_int(r, loop->index0 + 1) || emit_char(r, '/', 1) || emit_int(r, length) ||
                   emit_char(r, '>', 1)
               ? -1
               : 0;
}

static int emit_macro(struct render *r, const struct macro_code *code)
{
    if (code->name.kind != V_STRING)
        return emit_text(r, "<Macro anonymous>");
    return emit_text(r, "<Macro ") || emit_repr(r, &code->name) || emit_char(r, '>', 1) ? -1 : 0;
}

static int emit_object(struct render *r, const struct value *v)
{
    switch (v->kind) {
    case V_LIST:
        return emit_items(r, v->list, "[", "]");
    case V_TUPLE:
        return emit_items(r, v->list, "(", v->list->size == 1 ? ",)" : ")");
    case V_DICT:
        return emit_dict(r, v->dict);
    case V_NAMESPACE:
        return emit_text(r, "<Namespace ") || emit_dict(r, v->dict) || emit_char(r, '>', 1) ? -1
                                                                                            : 0;
    case V_VIEW:
        return emit_view(r, v);
    case V_RANGE:
        return emit_range(r, v->range);
    case V_LOOP:
        return emit_loop(r, v->loop);
    case V_MACRO:
        return emit_macro(r, v->macro->code);
    case V_BUILTIN:
        return emit_text(r, "<function ") || emit_text(r, v->builtin->name) || emit_char(r, '>', 1)
                   ? -1
                   : 0;
    case V_METHOD:
        return emit_text(r, "<built-in method ") || emit_text(r, v->method->builtin->name) ||
                       emit_text(r, " of ") || emit_text(r, type_name(&v->method->self)) ||
                       emit_text(r, " object>")
                   ? -1
                   : 0;
    default:
        return emit_char(r, '<', 1) || emit_text(r, type_name(v)) || emit_text(r, " object>") ? -1
                                                                                              : 0;
    }
}

int emit_repr(struct render *r, const struct value *v)
{
    int rc;

    switch (v->kind) {
    case V_MISSING:
    case V_UNDEFINED:
        return emit_text(r, "Undefined");
    case V_NONE:
        return emit_text(r, "None");
    case V_BOOL:
        return emit_text(r, v->i ? "True" : "False");
    case V_INT:
        return emit_int(r, v->i);
    case V_BIGINT:
        return emit_bigint(r, v->big);
    case V_FLOAT:
        return emit_float(r, v->f);
    case V_STRING:
        if (!(v->flags & STRING_MARKUP))
            return emit_quoted(r, v->s, v->size, false);
        return emit_text(r, "Markup(") || emit_quoted(r, v->s, v->size, false) ||
                       emit_char(r, ')', 1)
                   ? -1
                   : 0;
    case V_BYTES:
        return emit_char(r, 'b', 1) || emit_quoted(r, v->s, v->size, true) ? -1 : 0;
    default:
        break;
    }
    if (render_work(r, 1) || render_enter(r))
        return -1;
    rc = emit_object(r, v);
    render_leave(r);
    return rc;
}

int emit_str(struct render *r, const struct value *v)
{
    if (v->kind == V_STRING)
        return emit_bytes(r, v->s, v->size);
    if (v->kind == V_UNDEFINED)
        return 0;
    return emit_repr(r, v);
}
