/* tokenizer/normalize.c: stages that each turn a text into another. */
#include "tokenizer/normalize.h"

#include <string.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/punctuation.h"
#include "tokenizer/unicode.h"

static void add_char(struct strbuf *out, int32_t c)
{
    char text[UTF8_MAX];

    strbuf_add(out, text, utf8_encode(c, text));
}

/* Lower case in the Unicode version of the reference's language, which is past utf8proc's. */
static int32_t lower(int32_t c)
{
    static const struct {
        int32_t first, last, to;
    } later[] = {{0x1C89, 0x1C89, 0x1C8A},   {0xA7CB, 0xA7CB, 0x0264}, {0xA7CC, 0xA7CC, 0xA7CD},
                 {0xA7CE, 0xA7CE, 0xA7CF},   {0xA7D2, 0xA7D2, 0xA7D3}, {0xA7D4, 0xA7D4, 0xA7D5},
                 {0xA7DA, 0xA7DA, 0xA7DB},   {0xA7DC, 0xA7DC, 0x019B}, {0x10D50, 0x10D65, 0x10D70},
                 {0x16EA0, 0x16EB8, 0x16EBB}};

    for (size_t i = 0; c >= 0x1C89 && i < COUNT(later); i++) {
        if (c >= later[i].first && c <= later[i].last)
            return c - later[i].first + later[i].to;
    }
    return utf8proc_tolower(c);
}

static void add_lower(struct strbuf *out, int32_t c)
{
    if (c == 0x130) /* the only one whose lower case is two characters */
        strbuf_add_str(out, "i\xCC\x87");
    else
        add_char(out, lower(c));
}

static bool is_chinese(int32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B81F) ||
           (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) ||
           (c >= 0x2F800 && c <= 0x2FA1F);
}

static void add_chinese(struct strbuf *out, int32_t c)
{
    if (is_chinese(c))
        strbuf_add_char(out, ' ');
    add_char(out, c);
    if (is_chinese(c))
        strbuf_add_char(out, ' ');
}

static void add_clean(struct strbuf *out, int32_t c)
{
    if (c == '\t' || c == '\n' || c == '\r')
        strbuf_add_char(out, ' ');
    else if (c != 0 && c != UTF8_REPLACEMENT && !other_is(c))
        add_char(out, unicode_is_space(c) ? ' ' : c);
}

static void add_nmt(struct strbuf *out, int32_t c)
{
    bool drop = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
                c == 0x8F || c == 0x9F;
    bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                 (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                 c == 0xFEFF || c == UTF8_REPLACEMENT;

    if (!drop)
        add_char(out, space ? ' ' : c);
}

static void add_unless_combining(struct strbuf *out, int32_t c)
{
    if (!combining_mark_is(c))
        add_char(out, c);
}

static void add_unless_nonspacing(struct strbuf *out, int32_t c)
{
    if (!nonspacing_mark_is(c))
        add_char(out, c);
}

/* Each character on its own. */
static int each(void (*add)(struct strbuf *, int32_t), const char *s, size_t n, struct strbuf *out,
                size_t *head)
{
    size_t of_head = 0;

    for (size_t i = 0; i < n;) {
        int32_t c;

        i += utf8_decode(s + i, n - i, &c);
        add(out, c);
        if (i <= *head)
            of_head = out->size;
    }
    *head = of_head;
    return 0;
}

static int strip(const struct normal_stage *st, const char *s, size_t n, struct strbuf *out,
                 size_t *head)
{
    size_t begin = 0, end = 0;

    for (size_t i = 0; i < n;) {
        int32_t c;
        size_t size = utf8_decode(s + i, n - i, &c);

        if (!unicode_is_space(c))
            end = i + size;
        else if (st->left && begin == i)
            begin = i + size;
        i += size;
    }
    if (!st->right)
        end = n;
    *head = *head > begin ? *head - begin : 0;
    if (end > begin)
        strbuf_add(out, s + begin, end - begin);
    return 0;
}

#define SHORT 8 /* bytes */

/* One byte becomes a short text, as each space does for models of SentencePiece. */
static void replace_byte(char from, const struct span *to, const char *s, size_t n,
                         struct strbuf *out)
{
    char block[512], text[SHORT] = {0};
    size_t used = 0;

    memcpy(text, to->s, to->n);
    for (size_t i = 0; i < n; i++) {
        if (s[i] == from) {
            memcpy(block + used, text, SHORT);
            used += to->n;
        } else {
            block[used++] = s[i];
        }
        if (used > sizeof block - SHORT) {
            strbuf_add(out, block, used);
            used = 0;
        }
    }
    strbuf_add(out, block, used);
}

static int replace(const struct normal_stage *st, struct normal_scratch *x, const char *s, size_t n,
                   struct strbuf *out, size_t *head, clm_error *err)
{
    struct search search = search_start(&st->pattern, &x->matcher, s, n);
    size_t last = 0, of_head = *head;
    int rc = 0;

    if (pattern_is_byte(&st->pattern) && st->content.n <= SHORT) {
        replace_byte(*st->pattern.string.s, &st->content, s, *head, out);
        of_head = out->size;
        replace_byte(*st->pattern.string.s, &st->content, s + *head, n - *head, out);
        *head = of_head;
        return 0;
    }
    while (n && (rc = search_next(&search, err)) > 0) {
        strbuf_add(out, s + last, search.begin - last);
        /* What comes in stands for the last character that went. */
        if (search.end <= *head)
            of_head += st->content.n - (search.end - search.begin);
        else if (search.begin < *head)
            of_head -= *head - search.begin;
        strbuf_add(out, st->content.s, st->content.n);
        last = search.end;
    }
    strbuf_add(out, s + last, n - last);
    *head = of_head;
    return rc;
}

static int change_form(enum normal_kind form, struct normal_scratch *x, const char *s, size_t n,
                       struct strbuf *out, size_t *head, clm_error *err)
{
    int rc = *head ? unicode_form(form, x, s, *head, out, err) : 0;

    *head = out->size;
    strbuf_clear(out);
    return rc ? rc : unicode_form(form, x, s, n, out, err);
}

static int run_stage(const struct normal_stage *st, struct normal_scratch *x, const char *s,
                     size_t n, struct strbuf *out, size_t *head, clm_error *err)
{
    size_t of_head;

    switch (st->kind) {
    case NORMAL_NFC:
    case NORMAL_NFD:
    case NORMAL_NFKC:
    case NORMAL_NFKD:
        return change_form(st->kind, x, s, n, out, head, err);
    case NORMAL_LOWERCASE:
        return each(add_lower, s, n, out, head);
    case NORMAL_STRIP:
        return strip(st, s, n, out, head);
    case NORMAL_STRIP_ACCENTS:
        return each(add_unless_combining, s, n, out, head);
    case NORMAL_STRIP_NONSPACING:
        return each(add_unless_nonspacing, s, n, out, head);
    case NORMAL_REPLACE:
        return replace(st, x, s, n, out, head, err);
    case NORMAL_PREPEND:
        if (n)
            strbuf_add(out, st->content.s, st->content.n);
        *head += *head ? st->content.n : 0;
        strbuf_add(out, s, n);
        return 0;
    case NORMAL_NMT:
        return each(add_nmt, s, n, out, head);
    case NORMAL_BERT_CLEAN:
        return each(add_clean, s, n, out, head);
    case NORMAL_BERT_CHINESE:
        return each(add_chinese, s, n, out, head);
    case NORMAL_BYTE_LEVEL:
        byte_level_write(out, s, *head);
        of_head = out->size;
        byte_level_write(out, s + *head, n - *head);
        *head = of_head;
        return 0;
    case NORMAL_PRECOMPILED:
        precompiled_apply(&st->map, s, n, out, head);
        return 0;
    }
    return 0;
}

int normalize(const struct normalizer *n, struct normal_scratch *x, const char *s, size_t size,
              struct span *out, size_t *head, clm_error *err)
{
    *out = (struct span){s, size};
    for (size_t i = 0; i < n->n_stages; i++) {
        struct strbuf *to = &x->text[i & 1];

        strbuf_clear(to);
        if (run_stage(&n->stages[i], x, out->s, out->n, to, head, err))
            return -1;
        if (to->failed)
            return fail(err, CLM_ERR_NOMEM, "a text of %zu bytes", size);
        *out = (struct span){to->data ? to->data : "", to->size};
        *head = *head < out->n ? *head : out->n;
        while (*head && *head < out->n && (out->s[*head] & 0xC0) == 0x80)
            ++*head; /* a composed character that began in it is in it as a whole */
    }
    return 0;
}

void normal_scratch_release(struct normal_scratch *x)
{
    strbuf_release(&x->text[0]);
    strbuf_release(&x->text[1]);
    mem_free(x->characters);
    matcher_release(&x->matcher);
    *x = (struct normal_scratch){0};
}
