/* tokenizer/unicode_form.c: the normalization forms of UAX #15, from utf8proc's tables.
 *
 * Decomposed characters collect in a buffer; runs of combining marks are sorted by class with a
 * counting sort, so that no run is long enough to hurt; then pairs are composed.
 *
 * The reference's tables are those of Unicode 12: a character that got its decomposition later
 * stays as it is.
 */
#include <string.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/normalize.h"
#include "tokenizer/punctuation.h"
#include "tokenizer/unicode.h"

#define MAX_DECOMPOSED 32 /* characters of one: U+FDFA has 18 */
#define SHORT_RUN 16

static bool has_no_decomposition(int32_t c)
{
    static const struct {
        int32_t first, last;
    } later[] = {{0x32FF, 0x32FF},   {0xA7F1, 0xA7F4},   {0xAB69, 0xAB69},   {0x10781, 0x107BA},
                 {0x11938, 0x11938}, {0x1E030, 0x1E06D}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9},
                 {0x105C9, 0x105C9}, {0x105E4, 0x105E4}, {0x11383, 0x113C8}, {0x16121, 0x16128},
                 {0x16D68, 0x16D6A}, {0x1CCD6, 0x1CCF9}};

    for (size_t i = 0; i < COUNT(later); i++) {
        if (c >= later[i].first && c <= later[i].last)
            return true;
    }
    return false;
}

static int reserve(struct normal_scratch *x, size_t n, clm_error *err)
{
    void *characters = mem_grow(x->characters, &x->capacity, n, sizeof *x->characters);

    if (!characters)
        return fail(err, CLM_ERR_NOMEM, "a text of %zu characters", n);
    x->characters = characters;
    return 0;
}

/* Marks that the reference's tables do not know yet are of class 0. */
static int combining_class(int32_t c)
{
    return c < 0x300 || !combining_class_known(c) ? 0 : utf8proc_get_property(c)->combining_class;
}

static void sort_short(int32_t *c, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        int32_t moved = c[i];
        int class = combining_class(moved);
        size_t k = i;

        for (; k > 0 && combining_class(c[k - 1]) > class; k--)
            c[k] = c[k - 1];
        c[k] = moved;
    }
}

static int sort_long(int32_t *c, size_t n, clm_error *err)
{
    size_t starts[257] = {0};
    int32_t *sorted = mem_alloc(n * sizeof *sorted);

    if (!sorted)
        return fail(err, CLM_ERR_NOMEM, "a run of %zu combining marks", n);
    for (size_t i = 0; i < n; i++)
        starts[combining_class(c[i]) + 1]++;
    for (int class = 0; class < 256; class ++)
        starts[class + 1] += starts[class];
    for (size_t i = 0; i < n; i++)
        sorted[starts[combining_class(c[i])]++] = c[i];
    memcpy(c, sorted, n * sizeof *c);
    mem_free(sorted);
    return 0;
}

/* Put the marks between two starters into canonical order. */
static int order_marks(int32_t *c, size_t n, clm_error *err)
{
    for (size_t i = 0; i < n;) {
        size_t begin = i;

        while (i < n && combining_class(c[i]))
            i++;
        if (i - begin > SHORT_RUN) {
            if (sort_long(c + begin, i - begin, err))
                return -1;
        } else {
            sort_short(c + begin, i - begin);
        }
        i += i == begin;
    }
    return 0;
}

static int decompose(struct normal_scratch *x, const char *s, size_t size, int options, size_t *n,
                     clm_error *err)
{
    *n = 0;
    for (size_t i = 0; i < size;) {
        int32_t c;
        utf8proc_ssize_t added = 1;
        int boundary = 0;

        i += utf8_decode(s + i, size - i, &c);
        if (reserve(x, *n + MAX_DECOMPOSED, err))
            return -1;
        if (c < 0xA0 || has_no_decomposition(c))
            x->characters[*n] = c;
        else
            added = utf8proc_decompose_char(c, x->characters + *n, MAX_DECOMPOSED,
                                            (utf8proc_option_t)options, &boundary);
        if (added < 0 || added > MAX_DECOMPOSED)
            return fail(err, CLM_ERR_UNSUPPORTED, "a character that cannot be decomposed: U+%04X",
                        (unsigned)c);
        *n += (size_t)added;
    }
    return 0;
}

/* What may be joined to a character before it: marks, and the vowels and ends of Hangul. */
static bool may_follow(int32_t c)
{
    return c >= 0x300 && (unicode_category(c)[0] == 'M' || (c >= 0x1161 && c <= 0x11C2));
}

/* The character that the pair is, or -1. */
static int32_t compose_pair(int32_t first, int32_t second)
{
    int32_t pair[2] = {first, second};

    if (utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1)
        return -1;
    return has_no_decomposition(pair[0]) ? -1 : pair[0];
}

/* UAX #15: each character that is not blocked from the last starter is joined to it, if it can. */
static size_t compose(int32_t *c, size_t n)
{
    size_t kept = 0, starter = SIZE_MAX;
    int before = -1; /* class of the character between, -1: there is none */

    for (size_t i = 0; i < n; i++) {
        int class = combining_class(c[i]);
        int32_t joined = -1;

        if (starter != SIZE_MAX && before < class + (before < 0) && may_follow(c[i]))
            joined = compose_pair(c[starter], c[i]);
        if (joined >= 0) {
            c[starter] = joined;
            continue;
        }
        before = class;
        if (!class) {
            starter = kept;
            before = -1;
        }
        c[kept++] = c[i];
    }
    return kept;
}

/* Whether a character stays as it is under a form, and what stands before it too: a starter that is
 * not joined to another. Where in doubt it is not. */
static bool is_inert(enum normal_kind form, int32_t c)
{
    if (c < 0x80 || (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF)) /* ideographs */
        return true;
    if (form != NORMAL_NFC)
        return false;
    return c < 0x300 || (c >= 0x400 && c <= 0x482) ||                      /* Latin, Cyrillic, */
           (c >= 0x2010 && c <= 0x2027) || (c >= 0x3001 && c <= 0x3029) || /* punctuation, */
           (c >= 0x3041 && c <= 0x3096) || (c >= 0x30A1 && c <= 0x30FA) || /* kana, */
           (c >= 0xAC00 && c <= 0xD7A3) || (c >= 0xFF01 && c <= 0xFF5E);   /* Hangul, wide ASCII */
}

/* The end of the run of characters from i that are inert, or that are not; *last is where its last
 * one begins. */
static size_t run_end(enum normal_kind form, bool inert, const char *s, size_t i, size_t size,
                      size_t *last)
{
    *last = i;
    while (i < size) {
        int32_t c;
        size_t n;

        if (inert && unicode_is_ideograph(s + i, size - i)) {
            *last = i;
            i += 3;
            continue;
        }
        n = utf8_decode(s + i, size - i, &c);
        if (is_inert(form, c) != inert)
            break;
        *last = i;
        i += n;
    }
    return i;
}

static int change(enum normal_kind form, struct normal_scratch *x, const char *s, size_t size,
                  struct strbuf *out, clm_error *err)
{
    int options = UTF8PROC_DECOMPOSE;
    size_t n;

    if (form == NORMAL_NFKC || form == NORMAL_NFKD)
        options |= UTF8PROC_COMPAT;
    if (decompose(x, s, size, options, &n, err) || order_marks(x->characters, n, err))
        return -1;
    if (form == NORMAL_NFC || form == NORMAL_NFKC)
        n = compose(x->characters, n);
    for (size_t i = 0; i < n; i++) {
        char text[UTF8_MAX];

        strbuf_add(out, text, utf8_encode(x->characters[i], text));
    }
    return 0;
}

/* The last character of an inert run goes with what is behind it, which may be joined to it. */
int unicode_form(enum normal_kind form, struct normal_scratch *x, const char *s, size_t size,
                 struct strbuf *out, clm_error *err)
{
    for (size_t i = 0; i < size;) {
        size_t last, begin = i, unused;

        i = run_end(form, true, s, i, size, &last);
        if (i == size)
            last = i;
        strbuf_add(out, s + begin, last - begin);
        i = run_end(form, false, s, i, size, &unused);
        if (last < i && change(form, x, s + last, i - last, out, err))
            return -1;
    }
    return 0;
}
