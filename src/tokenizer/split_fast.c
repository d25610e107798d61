/* tokenizer/split_fast.c: the expressions of GPT-2, GPT-4 (cl100k), Llama 3, Qwen, GPT-4o (o200k).
 *
 * Their alternatives, in order (X is \p{X}):
 *   contraction   (?i:'s|'t|'re|'ve|'m|'ll|'d)
 *   word          [^\r\nLN]?L+
 *   numbers       N{1,3}
 *   other         ' ?[^\sLN]+[\r\n]*'
 *   lines         \s*[\r\n]+       to the last line end of a run of spaces
 *   spaces        \s+(?!\S)        all but the last space, if a word follows
 *                 \s+
 */
#include "tokenizer/split_fast.h"

#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/unicode.h"

#define TAIL "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define BEFORE "[^\\r\\n\\p{L}\\p{N}]?"
#define OTHER " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
#define OTHER_SLASH " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|"

static const struct split_fast scanners[] = {
    {.text = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
     .gpt2 = true},
    {.text = CONTRACTION "|" BEFORE "\\p{L}+|\\p{N}{1,3}|" OTHER TAIL,
     .contractions = true,
     .digits = 3},
    {.text = "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}|"
             " ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
     .contractions = true,
     .digits = 3},
    {.text = CONTRACTION "|" BEFORE "\\p{L}+|\\p{N}|" OTHER TAIL,
     .contractions = true,
     .digits = 1},
    {.text =
         CONTRACTION "|" BEFORE "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" TAIL,
     .contractions = true,
     .marks = true,
     .digits = 1},
    {.text = BEFORE UPPER "*" LOWER "+" CONTRACTION "?|" BEFORE UPPER "+" LOWER "*" CONTRACTION
                          "?|\\p{N}{1,3}|" OTHER_SLASH TAIL,
     .cased = true,
     .contractions = true,
     .digits = 3,
     .slash = true},
    {.text = BEFORE UPPER "*" LOWER "+|" BEFORE UPPER "+" LOWER "*|\\p{N}|" OTHER_SLASH TAIL,
     .cased = true,
     .digits = 1,
     .slash = true},
};

const struct split_fast *split_fast_find(const char *text, size_t n)
{
    for (size_t i = 0; i < COUNT(scanners); i++) {
        if (strlen(scanners[i].text) == n && !memcmp(scanners[i].text, text, n))
            return &scanners[i];
    }
    return NULL;
}

const char *split_fast_text(size_t i)
{
    return i < COUNT(scanners) ? scanners[i].text : NULL;
}

/* A character, its place and its kind; at the end of the text size is 0. */
struct seen {
    unsigned bits;
    int32_t c;
    size_t size;
};

struct scan {
    const uint8_t *table;
    const char *s;
    size_t n;
};

static inline struct seen look(const struct scan *sc, size_t at)
{
    struct seen x = {0};

    if (at >= sc->n)
        return x;
    x.c = (unsigned char)sc->s[at];
    x.size = 1;
    if (x.c >= 0x80)
        x.size = utf8_decode(sc->s + at, sc->n - at, &x.c);
    x.bits = x.c < UNICODE_TABLE_SIZE ? sc->table[x.c] : unicode_bits(x.c);
    return x;
}

/* The end of a run of characters that have one of the bits. */
static inline size_t run_of(const struct scan *sc, size_t at, unsigned bits)
{
    for (struct seen x; x = look(sc, at), x.bits & bits; at += x.size)
        if (x.size == 3 && bits & CHAR_LETTER)
            while (unicode_is_ideograph(sc->s + at + 3, sc->n - at - 3))
                at += 3;
    return at;
}

static inline size_t run_without(const struct scan *sc, size_t at, unsigned bits)
{
    for (struct seen x; x = look(sc, at), x.size && !(x.bits & bits); at += x.size)
        ;
    return at;
}

/* The length of 's, 't, 're, 've, 'm, 'll or 'd at s[at], or 0. Without regard to case U+017F, the
 * long s, is an s. */
static size_t contraction(const struct scan *sc, size_t at, bool any_case)
{
    const char *s = sc->s + at;
    size_t n = sc->n - at;
    char first, second;

    if (n < 2 || s[0] != '\'')
        return 0;
    if (any_case && n >= 3 && s[1] == '\xC5' && s[2] == '\xBF')
        return 3;
    first = any_case && s[1] >= 'A' && s[1] <= 'Z' ? (char)(s[1] | 32) : s[1];
    if (first == 's' || first == 't' || first == 'm' || first == 'd')
        return 2;
    if (n < 3)
        return 0;
    second = any_case && s[2] >= 'A' && s[2] <= 'Z' ? (char)(s[2] | 32) : s[2];
    if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
        (first == 'l' && second == 'l'))
        return 3;
    return 0;
}

/* The last two alternatives: all spaces but the last one, unless the text ends or it is the only.
 */
static size_t spaces(const struct scan *sc, size_t at, size_t run, size_t last)
{
    return run == sc->n || last == at ? run : last;
}

static size_t space_run(const struct scan *sc, size_t at, bool lines)
{
    size_t last = at, line_end = 0, i = at;

    for (struct seen x; x = look(sc, i), x.bits & CHAR_SPACE; i += x.size) {
        last = i;
        if (x.c == '\r' || x.c == '\n')
            line_end = i + 1;
    }
    return lines && line_end ? line_end : spaces(sc, at, i, last);
}

static size_t next_gpt2(const struct scan *sc, size_t at)
{
    size_t size = contraction(sc, at, false), start;
    struct seen x;

    if (size)
        return at + size;
    start = at + (sc->s[at] == ' ');
    x = look(sc, start);
    if (x.bits & CHAR_LETTER)
        return run_of(sc, start + x.size, CHAR_LETTER);
    if (x.bits & CHAR_NUMBER)
        return run_of(sc, start + x.size, CHAR_NUMBER);
    if (x.size && !(x.bits & CHAR_SPACE))
        return run_without(sc, start + x.size, CHAR_LETTER | CHAR_NUMBER | CHAR_SPACE);
    return space_run(sc, at, false);
}

static inline bool is_upper(struct seen x) /* Lu Lt Lm Lo M */
{
    return x.bits & (CHAR_LETTER | CHAR_MARK) && !(x.bits & CHAR_LOWER);
}

static inline bool is_lower(struct seen x) /* Ll Lm Lo M */
{
    return x.bits & (CHAR_LETTER | CHAR_MARK) && !(x.bits & CHAR_UPPER);
}

/* UPPER*LOWER+ from at, or 0. Where no lower case follows, the greedy UPPER* gives back down to
 * the last character that is in both sets, and LOWER+ takes that one. */
static size_t word_with_lower(const struct scan *sc, size_t at)
{
    size_t both_end = 0;
    struct seen x;

    for (; x = look(sc, at), is_upper(x); at += x.size) {
        if (is_lower(x))
            both_end = at + x.size;
    }
    if (!is_lower(x))
        return both_end;
    for (; is_lower(x); x = look(sc, at))
        at += x.size;
    return at;
}

/* UPPER+LOWER* from at, where the above found nothing: so no lower case follows. */
static size_t word_upper(const struct scan *sc, size_t at)
{
    size_t start = at;

    for (struct seen x; x = look(sc, at), is_upper(x);)
        at += x.size;
    return at > start ? at : 0;
}

/* The two alternatives for words of o200k, each with the optional character before it and without.
 */
static size_t cased_word(const struct scan *sc, size_t at, struct seen first)
{
    bool before = !(first.bits & (CHAR_LETTER | CHAR_NUMBER)) && first.c != '\r' && first.c != '\n';
    size_t end = 0;

    if (before)
        end = word_with_lower(sc, at + first.size);
    if (!end)
        end = word_with_lower(sc, at);
    if (!end && before)
        end = word_upper(sc, at + first.size);
    return end ? end : word_upper(sc, at);
}

static size_t plain_word(const struct scan *sc, size_t at, struct seen first, unsigned letters)
{
    struct seen x;

    /* The character before the letters may be a mark, even where marks count as letters. */
    if (!(first.bits & (CHAR_LETTER | CHAR_NUMBER)) && first.c != '\r' && first.c != '\n') {
        x = look(sc, at + first.size);
        if (x.bits & letters)
            return run_of(sc, at + first.size + x.size, letters);
    }
    return first.bits & letters ? run_of(sc, at + first.size, letters) : 0;
}

static size_t numbers(const struct scan *sc, size_t at, int most)
{
    for (int i = 0; i < most; i++) {
        struct seen x = look(sc, at);

        if (!(x.bits & CHAR_NUMBER))
            break;
        at += x.size;
    }
    return at;
}

/* ' ?[^\sLN]+[\r\n/]*', or 0 */
static size_t other(const struct scan *sc, size_t at, unsigned not_these, bool slash)
{
    size_t start = at + (sc->s[at] == ' ');
    size_t end = run_without(sc, start, not_these);

    if (end == start)
        return 0;
    while (end < sc->n &&
           (sc->s[end] == '\r' || sc->s[end] == '\n' || (slash && sc->s[end] == '/')))
        end++;
    return end;
}

size_t split_fast_next(const struct split_fast *f, const uint8_t *table, const char *s, size_t n,
                       size_t at)
{
    struct scan sc = {table, s, n};
    unsigned letters = CHAR_LETTER | (f->marks ? CHAR_MARK : 0);
    struct seen first;
    size_t end;

    if (f->gpt2)
        return next_gpt2(&sc, at);
    if (f->contractions && !f->cased && (end = contraction(&sc, at, true)) > 0)
        return at + end;
    first = look(&sc, at);
    end = f->cased ? cased_word(&sc, at, first) : plain_word(&sc, at, first, letters);
    if (end)
        return end + (f->cased && f->contractions ? contraction(&sc, end, true) : 0);
    if (first.bits & CHAR_NUMBER)
        return numbers(&sc, at, f->digits);
    end = other(&sc, at, letters | CHAR_NUMBER | CHAR_SPACE, f->slash);
    return end ? end : space_run(&sc, at, true);
}
