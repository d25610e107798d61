#include "template/strings.h"

#include "base/utf8.h"
#include "template/characters.h"

/* ---- letters ---- */

/* A sigma is final after a letter and not before one; what has no case in between is skipped. */
static bool final_sigma(const struct value *s, size_t at)
{
    const char *begin = s->s, *end = s->s + s->size, *p = s->s + at;
    int32_t c = 0;
    bool before = false;

    while (p > begin) {
        do
            p--;
        while (p > begin && ((unsigned char)*p & 0xC0) == 0x80);
        utf8_decode(p, (size_t)(end - p), &c);
        if (!character_is_case_ignorable(c)) {
            before = character_is_cased(c);
            break;
        }
    }
    if (!before)
        return false;
    for (p = s->s + at + 2; p < end;) {
        p += utf8_decode(p, (size_t)(end - p), &c);
        if (!character_is_case_ignorable(c))
            return !character_is_cased(c);
    }
    return true;
}

static int lower_at(const struct value *s, size_t at, int32_t c, int32_t out[3])
{
    if (c != 0x3A3)
        return character_lower(c, out);
    out[0] = final_sigma(s, at) ? 0x3C2 : 0x3C3;
    return 1;
}

static int convert(const struct value *s, size_t at, int32_t c, enum letter_case how,
                   bool after_cased, int32_t out[3])
{
    switch (how) {
    case CASE_UPPER:
        return character_upper(c, out);
    case CASE_LOWER:
        return lower_at(s, at, c, out);
    case CASE_TITLE:
        return after_cased ? lower_at(s, at, c, out) : character_title(c, out);
    case CASE_CAPITALIZE:
        return at ? lower_at(s, at, c, out) : character_title(c, out);
    case CASE_SWAP:
        if (character_is_upper(c))
            return lower_at(s, at, c, out);
        if (character_is_lower(c))
            return character_upper(c, out);
        out[0] = c;
        return 1;
    default:
        return character_fold(c, out);
    }
}

static char ascii_case(char c, enum letter_case how, size_t at, bool after_cased)
{
    bool lower = c >= 'a' && c <= 'z', upper = c >= 'A' && c <= 'Z';
    bool to_upper = how == CASE_UPPER || (how == CASE_TITLE && !after_cased) ||
                    (how == CASE_CAPITALIZE && !at) || (how == CASE_SWAP && lower);

    if (to_upper ? lower : upper)
        return (char)(c ^ 0x20);
    return c;
}

static int ascii_string_case(struct render *r, const struct value *s, enum letter_case how,
                             struct value *out)
{
    char *copy = heap_bytes(&r->heap, s->size);
    bool cased = false;

    if (!copy)
        return render_no_memory(r);
    for (size_t i = 0; i < s->size; i++) {
        copy[i] = ascii_case(s->s[i], how, i, cased);
        cased = (s->s[i] | 32) >= 'a' && (s->s[i] | 32) <= 'z';
    }
    *out = value_string(copy, s->size);
    out->flags = s->flags;
    return 0;
}

int string_case(struct render *r, const struct value *s, enum letter_case how, struct value *out)
{
    size_t mark = emit_mark(r);
    struct value text = *s;
    bool cased = false;

    if (render_scan(r, text.size))
        return -1;
    if (string_ascii(&text))
        return ascii_string_case(r, &text, how, out);
    for (size_t i = 0; i < text.size;) {
        int32_t c, to[3];
        size_t n = utf8_decode(text.s + i, text.size - i, &c);
        int used = convert(&text, i, c, how, cased, to);

        for (int k = 0; k < used; k++)
            if (emit_character(r, to[k]))
                return -1;
        cased = how == CASE_TITLE && character_is_cased(c);
        i += n;
    }
    if (emit_capture(r, mark, out))
        return -1;
    out->flags = text.flags & STRING_MARKUP;
    return 0;
}

static bool begins_word(int32_t c)
{
    return character_is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
}

/* One word: the first character in upper case, the others in lower case. */
static int emit_word(struct render *r, const char *s, size_t n)
{
    struct value first, rest;
    size_t head;

    if (!n)
        return 0;
    head = character_offset(s, n, 1);
    first = value_string(s, head);
    rest = value_string(s + head, n - head);
    return string_case(r, &first, CASE_UPPER, &first) || string_case(r, &rest, CASE_LOWER, &rest) ||
                   emit_str(r, &first) || emit_str(r, &rest)
               ? -1
               : 0;
}

int string_title(struct render *r, const struct value *s, struct value *out)
{
    size_t mark = emit_mark(r), begin = 0, i = 0;

    while (i < s->size) {
        int32_t c;
        size_t n = utf8_decode(s->s + i, s->size - i, &c);

        if (begins_word(c)) {
            if (emit_word(r, s->s + begin, i - begin) || emit_bytes(r, s->s + i, n))
                return -1;
            begin = i + n;
        }
        i += n;
    }
    return emit_word(r, s->s + begin, s->size - begin) || emit_capture(r, mark, out) ? -1 : 0;
}

bool string_all(const struct value *s, bool (*test)(int32_t c))
{
    for (size_t i = 0; i < s->size;) {
        int32_t c;

        i += utf8_decode(s->s + i, s->size - i, &c);
        if (!test(c))
            return false;
    }
    return s->size != 0;
}

static bool only_case(const struct value *s, bool (*wanted)(int32_t c), bool (*other)(int32_t c))
{
    bool any = false;

    for (size_t i = 0; i < s->size;) {
        int32_t c;

        i += utf8_decode(s->s + i, s->size - i, &c);
        if (other(c) || character_is_title(c))
            return false;
        any |= wanted(c);
    }
    return any;
}

bool string_is_lower(const struct value *s)
{
    return only_case(s, character_is_lower, character_is_upper);
}

bool string_is_upper(const struct value *s)
{
    return only_case(s, character_is_upper, character_is_lower);
}

bool string_is_title(const struct value *s)
{
    bool any = false, after_cased = false;

    for (size_t i = 0; i < s->size;) {
        int32_t c;

        i += utf8_decode(s->s + i, s->size - i, &c);
        if (character_is_upper(c) || character_is_title(c)) {
            if (after_cased)
                return false;
            any = after_cased = true;
        } else if (character_is_lower(c)) {
            if (!after_cased)
                return false;
        } else {
            after_cased = false;
        }
    }
    return any;
}

/* ---- ends ---- */

static bool one_of(const struct value *chars, const char *c, size_t n)
{
    return memmem(chars->s, chars->size, c, n) != NULL;
}

int string_strip(struct render *r, const struct value *s, const struct value *chars,
                 enum strip_side side, struct value *out)
{
    const char *begin = s->s, *end = s->s + s->size;
    bool space = chars->kind == V_MISSING || chars->kind == V_NONE;

    if (!space && chars->kind != V_STRING)
        return render_fail(r, "strip arg must be None or str, not %s", type_name(chars));
    if (space) {
        if (side & STRIP_LEFT)
            begin = character_skip_space(begin, end);
        if (side & STRIP_RIGHT)
            end = character_strip_end(begin, end);
    } else {
        while ((side & STRIP_LEFT) && begin < end) {
            size_t n = utf8_length((unsigned char)*begin);

            if (!one_of(chars, begin, n))
                break;
            begin += n;
            if (render_work(r, 1 + chars->size / 64))
                return -1;
        }
        while ((side & STRIP_RIGHT) && end > begin) {
            const char *last = end - 1;

            while (last > begin && ((unsigned char)*last & 0xC0) == 0x80)
                last--;
            if (!one_of(chars, last, (size_t)(end - last)))
                break;
            end = last;
            if (render_work(r, 1 + chars->size / 64))
                return -1;
        }
    }
    *out = value_string(begin, (size_t)(end - begin));
    out->flags = s->flags;
    return render_scan(r, s->size - out->size);
}

int string_pad(struct render *r, const struct value *s, int64_t left, int64_t right,
               const struct value *fill, struct value *out)
{
    size_t mark = emit_mark(r);
    const char *c = " ";
    size_t n = 1;

    if (fill && fill->kind != V_MISSING) {
        if (fill->kind != V_STRING || character_count(fill->s, fill->size) != 1)
            return render_fail(r, "The fill character must be exactly one character long");
        c = fill->s;
        n = fill->size;
    }
    if (left <= 0 && right <= 0) {
        *out = *s;
        return 0;
    }
    if (n == 1) {
        if ((left > 0 && emit_char(r, *c, (size_t)left)) || emit_bytes(r, s->s, s->size) ||
            (right > 0 && emit_char(r, *c, (size_t)right)))
            return -1;
    } else {
        for (; left > 0; left--)
            if (emit_bytes(r, c, n))
                return -1;
        if (emit_bytes(r, s->s, s->size))
            return -1;
        for (; right > 0; right--)
            if (emit_bytes(r, c, n))
                return -1;
    }
    if (emit_capture(r, mark, out))
        return -1;
    out->flags = s->flags & STRING_MARKUP;
    return 0;
}

int string_center(struct render *r, const struct value *s, int64_t width, const struct value *fill,
                  struct value *out)
{
    int64_t room = width - (int64_t)character_count(s->s, s->size);
    int64_t left = room > 0 ? room / 2 + (room & width & 1) : 0;

    return string_pad(r, s, left, room - left, fill, out);
}

/* ---- parts ---- */

int string_replace(struct render *r, const struct value *s, const struct value *old,
                   const struct value *new, int64_t count, struct value *out)
{
    size_t mark = emit_mark(r);
    const char *at = s->s, *end = s->s + s->size;

    if (render_scan(r, s->size))
        return -1;
    for (; count; count--) {
        const char *found = old->size ? memmem(at, (size_t)(end - at), old->s, old->size) : at;
        size_t step;

        if (!found)
            break;
        if (emit_bytes(r, at, (size_t)(found - at)) || emit_bytes(r, new->s, new->size))
            return -1;
        at = found + old->size;
        if (old->size)
            continue;
        if (at == end) /* an empty string is found between all characters, and at the end */
            break;
        step = utf8_length((unsigned char)*at);
        if (emit_bytes(r, at, step))
            return -1;
        at += step;
    }
    if (at == s->s && mark == emit_mark(r)) {
        *out = *s;
        return 0;
    }
    if (emit_bytes(r, at, (size_t)(end - at)) || emit_capture(r, mark, out))
        return -1;
    out->flags = s->flags & STRING_MARKUP;
    return render_scan(r, out->size);
}

static int add_part(struct render *r, struct list_builder *b, const struct value *s,
                    const char *begin, const char *end)
{
    struct value part = value_string(begin, (size_t)(end - begin));

    part.flags = s->flags;
    return render_work(r, 1) ? -1 : list_add(r, b, part);
}

static void reverse_items(struct list_builder *b)
{
    for (size_t i = 0; i < b->size / 2; i++) {
        struct value v = b->items[i];

        b->items[i] = b->items[b->size - 1 - i];
        b->items[b->size - 1 - i] = v;
    }
}

static const char *find_space(const char *s, const char *end)
{
    while (s < end) {
        int32_t c;
        size_t n = utf8_decode(s, (size_t)(end - s), &c);

        if (character_is_space(c))
            break;
        s += n;
    }
    return s;
}

static int split_words(struct render *r, const struct value *s, int64_t max, struct list_builder *b)
{
    const char *at = s->s, *end = s->s + s->size;

    for (;;) {
        const char *stop;

        at = character_skip_space(at, end);
        if (at == end)
            return 0;
        stop = max-- ? find_space(at, end) : end; /* the rest keeps its space at the end */
        if (add_part(r, b, s, at, stop))
            return -1;
        at = stop;
    }
}

/* The last white space before end, and where the word behind it begins. */
static const char *word_start(const char *begin, const char *end)
{
    const char *p = end;

    while (p > begin) {
        const char *c_at = p - 1;
        int32_t c;

        while (c_at > begin && ((unsigned char)*c_at & 0xC0) == 0x80)
            c_at--;
        utf8_decode(c_at, (size_t)(end - c_at), &c);
        if (character_is_space(c))
            break;
        p = c_at;
    }
    return p;
}

static int split_words_right(struct render *r, const struct value *s, int64_t max,
                             struct list_builder *b)
{
    const char *end = s->s + s->size;

    for (;;) {
        const char *start;

        end = character_strip_end(s->s, end);
        if (end == s->s)
            break;
        start = max-- ? word_start(s->s, end) : s->s;
        if (add_part(r, b, s, start, end))
            return -1;
        end = start;
    }
    reverse_items(b);
    return 0;
}

static const char *find_last(const char *s, const char *end, const struct value *what)
{
    for (const char *p = end - what->size; (size_t)(end - s) >= what->size && p >= s; p--)
        if (!memcmp(p, what->s, what->size))
            return p;
    return NULL;
}

static int split_right(struct render *r, const struct value *s, const struct value *separator,
                       int64_t max, struct list_builder *b)
{
    const char *end = s->s + s->size;

    if (render_work(r, (uint64_t)s->size * separator->size / 64)) /* find_last is a plain search */
        return -1;
    for (; max; max--) {
        const char *found = find_last(s->s, end, separator);

        if (!found)
            break;
        if (add_part(r, b, s, found + separator->size, end))
            return -1;
        end = found;
    }
    if (add_part(r, b, s, s->s, end))
        return -1;
    reverse_items(b);
    return 0;
}

static int split_left(struct render *r, const struct value *s, const struct value *separator,
                      int64_t max, struct list_builder *b)
{
    const char *at = s->s, *end = s->s + s->size;

    for (; max; max--) {
        const char *found = memmem(at, (size_t)(end - at), separator->s, separator->size);

        if (!found)
            break;
        if (add_part(r, b, s, at, found))
            return -1;
        at = found + separator->size;
    }
    return add_part(r, b, s, at, end);
}

int string_split(struct render *r, const struct value *s, const struct value *separator,
                 int64_t max, bool from_right, struct value *out)
{
    struct list_builder b = {0};
    int rc;

    if (render_scan(r, s->size))
        return -1;
    if (separator->kind == V_MISSING || separator->kind == V_NONE) {
        rc = from_right ? split_words_right(r, s, max, &b) : split_words(r, s, max, &b);
    } else {
        if (separator->kind != V_STRING)
            return render_fail(r, "must be str or None, not %s", type_name(separator));
        if (!separator->size)
            return render_fail(r, "empty separator");
        rc = from_right ? split_right(r, s, separator, max, &b)
                        : split_left(r, s, separator, max, &b);
    }
    return rc ? -1 : list_finish(r, &b, V_LIST, out);
}

int string_lines(struct render *r, const struct value *s, bool keep_ends, struct value *out)
{
    struct list_builder b = {0};
    const char *at = s->s, *end = s->s + s->size, *p = at;

    if (render_scan(r, s->size))
        return -1;
    while (p < end) {
        const char *stop = p;
        int32_t c;

        p += utf8_decode(p, (size_t)(end - p), &c);
        if (!character_is_line_end(c))
            continue;
        if (c == '\r' && p < end && *p == '\n')
            p++;
        if (add_part(r, &b, s, at, keep_ends ? p : stop))
            return -1;
        at = p;
    }
    if (at < end && add_part(r, &b, s, at, end))
        return -1;
    return list_finish(r, &b, V_LIST, out);
}

int string_join(struct render *r, const struct value *separator, const struct value *items,
                bool as_text, struct value *out)
{
    bool escape = !as_text && (separator->flags & STRING_MARKUP);
    size_t mark = emit_mark(r);
    struct value item;
    struct iter it;
    bool first = true;
    int more;

    if (iter_begin(r, items, &it))
        return -1;
    while ((more = iter_next(r, &it, &item)) > 0) {
        if (render_work(r, 1) || (!first && emit_bytes(r, separator->s, separator->size)))
            return -1;
        if (!as_text && item.kind != V_STRING)
            return render_fail(r, "sequence item: expected str instance, %s found",
                               type_name(&item));
        if (escape && !(item.flags & STRING_MARKUP)) {
            if (emit_escaped(r, item.s, item.size))
                return -1;
        } else if (emit_str(r, &item)) {
            return -1;
        }
        first = false;
    }
    if (more < 0 || emit_capture(r, mark, out))
        return -1;
    if (escape)
        out->flags |= STRING_MARKUP;
    return 0;
}
