/* tokenizer/pretokenize.c: stages that each turn a list of pieces into another. */
#include "tokenizer/pretokenize.h"

#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/scripts.h"
#include "tokenizer/unicode.h"

static int pieces_add(struct pieces *p, size_t begin, size_t size, size_t head, clm_error *err)
{
    if (!size)
        return 0;
    if (p->count == p->capacity) {
        void *items = mem_grow(p->items, &p->capacity, p->count + 1, sizeof *p->items);

        if (!items)
            return fail(err, CLM_ERR_NOMEM, "a text of %zu pieces", p->count);
        p->items = items;
    }
    p->items[p->count++] = (struct piece){.begin = (uint32_t)begin,
                                          .size = (uint32_t)size,
                                          .head = (uint32_t)(head < size ? head : size)};
    return 0;
}

/* How much of the head is left at an offset into the piece. */
static size_t head_at(struct piece piece, size_t offset)
{
    return piece.head > offset ? piece.head - offset : 0;
}

static int add_match(struct pre_scratch *x, size_t begin, size_t end, bool is_match, clm_error *err)
{
    if (x->n_matches == x->capacity) {
        void *matches = mem_grow(x->matches, &x->capacity, x->n_matches + 1, sizeof *x->matches);

        if (!matches)
            return fail(err, CLM_ERR_NOMEM, "a text of %zu pieces", x->n_matches);
        x->matches = matches;
    }
    x->matches[x->n_matches++] =
        (struct pre_match){.begin = (uint32_t)begin, .end = (uint32_t)end, .is_match = is_match};
    return 0;
}

/* The matches of a pattern and the gaps between them, in order. */
static int list_matches(const struct pre_stage *st, struct pre_scratch *x, const char *s, size_t n,
                        clm_error *err)
{
    struct search search = search_start(&st->pattern, &x->matcher, s, n);
    size_t last = 0;
    int rc;

    x->n_matches = 0;
    while ((rc = search_next(&search, err)) > 0) {
        if ((last != search.begin && add_match(x, last, search.begin, st->invert, err)) ||
            add_match(x, search.begin, search.end, !st->invert, err))
            return -1;
        last = search.end;
    }
    if (rc || last == n)
        return rc;
    return add_match(x, last, n, st->invert, err);
}

static int list_characters(const struct pre_stage *st, struct pre_scratch *x, const char *s,
                           size_t n, clm_error *err)
{
    size_t last = 0;

    x->n_matches = 0;
    for (size_t i = 0; i < n;) {
        int32_t c;
        size_t size = utf8_decode(s + i, n - i, &c);

        if (st->is_match(c, st->parameter)) {
            if ((last < i && add_match(x, last, i, false, err)) ||
                add_match(x, i, i + size, true, err))
                return -1;
            last = i + size;
        }
        i += size;
    }
    return last < n ? add_match(x, last, n, false, err) : 0;
}

/* Neighbours that the behavior joins become one match; what stays is one piece each. */
static void merge_matches(struct pre_scratch *x, enum split_behavior behavior)
{
    struct pre_match *m = x->matches;
    size_t n = x->n_matches, kept = 0;

    if (behavior == SPLIT_MERGED_WITH_NEXT) {
        bool later = false;

        kept = n;
        for (size_t i = n; i-- > 0;) {
            bool is_match = m[i].is_match;

            if (is_match && !later && kept < n)
                m[kept].begin = m[i].begin;
            else
                m[--kept] = m[i];
            later = is_match;
        }
        memmove(m, m + kept, (n - kept) * sizeof *m);
        x->n_matches = n - kept;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        bool before = i > 0 && x->matches[i - 1].is_match; /* read before it is written over */
        bool join =
            behavior == SPLIT_CONTIGUOUS ? m[i].is_match == before : m[i].is_match && !before;

        if (join && kept)
            m[kept - 1].end = m[i].end;
        else
            m[kept++] = (struct pre_match){m[i].begin, m[i].end, m[i].is_match};
    }
    x->n_matches = kept;
}

static int split_piece(const struct pre_stage *st, struct pre_scratch *x, struct pieces *out,
                       const char *s, struct piece piece, clm_error *err)
{
    int rc = st->kind == PRE_CHARACTERS ? list_characters(st, x, s + piece.begin, piece.size, err)
                                        : list_matches(st, x, s + piece.begin, piece.size, err);

    if (rc)
        return rc;
    if (st->behavior > SPLIT_ISOLATED)
        merge_matches(x, st->behavior);
    for (size_t i = 0; i < x->n_matches; i++) {
        const struct pre_match *m = &x->matches[i];

        if (st->behavior == SPLIT_REMOVED && m->is_match)
            continue;
        if (pieces_add(out, piece.begin + m->begin, m->end - m->begin, head_at(piece, m->begin),
                       err))
            return -1;
    }
    return 0;
}

static int fixed_length_piece(const struct pre_stage *st, struct pieces *out, const char *s,
                              struct piece piece, clm_error *err)
{
    size_t begin = 0, count = 0;

    for (size_t i = 0; i < piece.size;) {
        int32_t c;

        i += utf8_decode(s + piece.begin + i, piece.size - i, &c);
        if (++count < st->length && i < piece.size)
            continue;
        if (pieces_add(out, piece.begin + begin, i - begin, head_at(piece, begin), err))
            return -1;
        begin = i;
        count = 0;
    }
    return 0;
}

/* Where the script changes; spaces and inherited characters belong to any. What stands before the
 * first character that has a script is dropped, as the reference does. */
static int scripts_piece(struct pieces *out, const char *s, struct piece piece, clm_error *err)
{
    int last = SCRIPT_NONE;
    size_t begin = SIZE_MAX;

    for (size_t i = 0; i < piece.size;) {
        int32_t c;
        size_t size = utf8_decode(s + piece.begin + i, piece.size - i, &c);
        int script = script_of(c);

        if (script != SCRIPT_ANY) {
            if (script != last) {
                if (begin != SIZE_MAX &&
                    pieces_add(out, piece.begin + begin, i - begin, head_at(piece, begin), err))
                    return -1;
                begin = i;
            }
            last = script;
        }
        i += size;
    }
    if (begin == SIZE_MAX)
        return 0;
    return pieces_add(out, piece.begin + begin, piece.size - begin, head_at(piece, begin), err);
}

static int words_piece(struct pieces *out, const char *s, struct piece piece, clm_error *err)
{
    enum { SPACE, WORD, REST } last = SPACE;
    size_t begin = 0;

    for (size_t i = 0; i <= piece.size;) {
        int32_t c = ' ';
        size_t size = i < piece.size ? utf8_decode(s + piece.begin + i, piece.size - i, &c) : 1;
        int kind = unicode_is_word(c) ? WORD : unicode_is_space(c) ? SPACE : REST;

        if (kind != (int)last) {
            if (last != SPACE &&
                pieces_add(out, piece.begin + begin, i - begin, head_at(piece, begin), err))
                return -1;
            begin = i;
            last = kind;
        }
        i += size;
    }
    return 0;
}

/* Put a piece, changed, behind the text of out, and give its new place. */
static struct piece rewrite_metaspace(const struct pre_stage *st, struct pieces *out, const char *s,
                                      struct piece piece)
{
    const struct span *mark = &st->replacement;
    struct piece result = {.begin = (uint32_t)out->text.size, .head = piece.head};
    const char *at = s + piece.begin, *end = at + piece.size;
    bool marked = *at == ' ' || (piece.size >= mark->n && !memcmp(at, mark->s, mark->n));

    if (!marked && (st->scheme == PREPEND_ALWAYS || (st->scheme == PREPEND_FIRST && piece.head))) {
        strbuf_add(&out->text, mark->s, mark->n);
        result.head += result.head ? (uint32_t)mark->n : 0;
    }
    if (piece.head && *at == ' ')
        result.head += (uint32_t)mark->n - 1;
    while (at < end) {
        const char *space = memchr(at, ' ', (size_t)(end - at));

        strbuf_add(&out->text, at, (size_t)((space ? space : end) - at));
        if (space)
            strbuf_add(&out->text, mark->s, mark->n);
        at = space ? space + 1 : end;
    }
    result.size = (uint32_t)(out->text.size - result.begin);
    return result;
}

static struct piece rewrite_prefix_space(const struct pre_stage *st, struct pieces *out,
                                         const char *s, struct piece piece)
{
    struct piece result = {.begin = (uint32_t)out->text.size, .head = piece.head};

    if (st->add_prefix_space && s[piece.begin] != ' ')
        strbuf_add_char(&out->text, ' ');
    if (piece.head)
        result.head += (uint32_t)(out->text.size - result.begin);
    strbuf_add(&out->text, s + piece.begin, piece.size);
    result.size = (uint32_t)(out->text.size - result.begin);
    return result;
}

/* Every piece is rewritten by fn into the text of out, then split by st's own pattern, or not. */
static int rewrite(const struct pre_stage *st, struct pre_scratch *x, const struct pieces *in,
                   struct pieces *out,
                   struct piece (*fn)(const struct pre_stage *, struct pieces *, const char *,
                                      struct piece),
                   bool split, clm_error *err)
{
    for (size_t i = 0; i < in->count; i++) {
        struct piece piece = fn(st, out, in->text.data, in->items[i]);

        if (out->text.failed)
            return fail(err, CLM_ERR_NOMEM, "a text of %zu bytes", in->text.size);
        if (out->text.size > INT32_MAX)
            return fail(err, CLM_ERR_ARG, "a text of %zu bytes: too long", out->text.size);
        if (split ? split_piece(st, x, out, out->text.data, piece, err)
                  : pieces_add(out, piece.begin, piece.size, piece.head, err))
            return -1;
    }
    return 0;
}

/* The bytes of each piece as the characters that stand for them. */
static int map_bytes(const struct pieces *in, struct pieces *out, clm_error *err)
{
    for (size_t i = 0; i < in->count; i++) {
        const struct piece *piece = &in->items[i];
        size_t begin = out->text.size, head;

        byte_level_write(&out->text, in->text.data + piece->begin, piece->head);
        head = out->text.size - begin;
        byte_level_write(&out->text, in->text.data + piece->begin + piece->head,
                         piece->size - piece->head);
        if (out->text.failed)
            return fail(err, CLM_ERR_NOMEM, "a text of %zu bytes", in->text.size);
        if (out->text.size > INT32_MAX)
            return fail(err, CLM_ERR_ARG, "a text of %zu bytes: too long", out->text.size);
        if (pieces_add(out, begin, out->text.size - begin, head, err))
            return -1;
    }
    return 0;
}

static void clear(struct pieces *p)
{
    strbuf_clear(&p->text);
    p->count = 0;
}

/* Cutting moves no text: it goes from in to out as it is. */
static int cut(const struct pre_stage *st, struct pre_scratch *x, struct pieces *in,
               struct pieces *out, clm_error *err)
{
    const char *s = in->text.data;
    struct strbuf text = out->text;
    int rc = 0;

    for (size_t i = 0; i < in->count && !rc; i++) {
        if (st->kind == PRE_FIXED_LENGTH)
            rc = fixed_length_piece(st, out, s, in->items[i], err);
        else if (st->kind == PRE_SCRIPTS)
            rc = scripts_piece(out, s, in->items[i], err);
        else if (st->kind == PRE_WORDS)
            rc = words_piece(out, s, in->items[i], err);
        else
            rc = split_piece(st, x, out, s, in->items[i], err);
    }
    out->text = in->text;
    in->text = text;
    return rc;
}

static int run_stage(const struct pre_stage *st, struct pre_scratch *x, struct pieces *in,
                     struct pieces *out, clm_error *err)
{
    if (st->kind == PRE_METASPACE)
        return rewrite(st, x, in, out, rewrite_metaspace, st->split, err);
    if (st->kind == PRE_BYTE_LEVEL && st->add_prefix_space)
        return rewrite(st, x, in, out, rewrite_prefix_space, st->use_regex, err);
    return cut(st, x, in, out, err);
}

int pretokenize(const struct pretokenizer *p, struct pre_scratch *x, const char *s, size_t n,
                size_t head, const struct pieces **result, clm_error *err)
{
    struct pieces *in = &x->pieces[0], *out = &x->pieces[1], *swap;

    clear(in);
    strbuf_add(&in->text, s, n);
    if (in->text.failed)
        return fail(err, CLM_ERR_NOMEM, "a text of %zu bytes", n);
    if (n > INT32_MAX)
        return fail(err, CLM_ERR_ARG, "a text of %zu bytes: too long", n);
    if (pieces_add(in, 0, n, head, err))
        return -1;
    for (size_t i = 0; i < p->n_stages; i++) {
        const struct pre_stage *st = &p->stages[i];

        if (st->kind != PRE_BYTE_LEVEL || st->add_prefix_space || st->use_regex) {
            clear(out);
            if (run_stage(st, x, in, out, err))
                return -1;
            swap = in;
            in = out;
            out = swap;
        }
        if (st->kind == PRE_BYTE_LEVEL && !(p->raw_bytes && i + 1 == p->n_stages)) {
            clear(out);
            if (map_bytes(in, out, err))
                return -1;
            swap = in;
            in = out;
            out = swap;
        }
    }
    *result = in;
    return 0;
}

void pre_scratch_release(struct pre_scratch *x)
{
    for (int i = 0; i < 2; i++) {
        strbuf_release(&x->pieces[i].text);
        mem_free(x->pieces[i].items);
    }
    mem_free(x->matches);
    matcher_release(&x->matcher);
    *x = (struct pre_scratch){0};
}
