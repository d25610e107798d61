/* tokenizer/bpe.c: words to symbols, to be merged, and the ways around merging. */
#include "tokenizer/bpe.h"

#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/bpe_merge.h"
#include "tokenizer/byte_level.h"

#define FIRST_CAPACITY 128
#define ASKED 128 /* symbols of them whose merges are asked for together */

enum { WHOLE_UNKNOWN, WHOLE_YES, WHOLE_NO };

/* The symbols of one word while they are collected. */
struct word {
    const struct bpe *b;
    struct bpe_scratch *scratch;
    size_t count;
    size_t n_parts;   /* that have an end */
    bool unk_pending; /* an unknown that the next one may be fused with */
    struct token_list *out;
    clm_error *err;
};

static int scratch_reserve(struct bpe_scratch *s, size_t n, clm_error *err)
{
    void *ids = n <= INT32_MAX / 4 ? mem_grow(s->ids, &s->capacity, n, sizeof *s->ids) : NULL;

    if (!ids)
        return fail(err, CLM_ERR_NOMEM, "a word of %zu symbols", n);
    s->ids = ids;
    return 0;
}

void bpe_scratch_release(struct bpe_scratch *s)
{
    mem_free(s->ids);
    strbuf_release(&s->text);
    bpe_words_release(&s->words);
    *s = (struct bpe_scratch){0};
}

/* Adds the tokens that the slot has for the word, if it does. */
static bool add_remembered(const struct bpe_word *slot, const struct bpe_word *key,
                           struct token_list *out)
{
    if (!slot || !bpe_word_is(slot, key))
        return false;
    for (size_t i = 0; i < slot->count; i++)
        token_list_add(out, (int32_t)slot->ids[i]);
    return true;
}

/* Keep what was added to the tokens since there were so many before. */
static void remember(struct bpe_word *slot, const struct bpe_word *key,
                     const struct token_list *out, size_t before)
{
    size_t count = out->count - before;

    if (!slot || out->failed || !count || count > BPE_WORD_IDS)
        return;
    *slot = *key;
    slot->count = (uint16_t)count;
    for (size_t i = 0; i < count; i++)
        slot->ids[i] = (uint32_t)out->ids[before + i];
}

/* Symbols of a word. */

static int add_symbol(struct word *w, int32_t id)
{
    if (w->count == w->scratch->capacity && scratch_reserve(w->scratch, w->count + 1, w->err))
        return -1;
    w->scratch->ids[w->count++] = (uint32_t)id;
    return 0;
}

static int flush_unk(struct word *w)
{
    if (!w->unk_pending)
        return 0;
    w->unk_pending = false;
    return add_symbol(w, w->b->unk);
}

static int add_unknown(struct word *w, const char *s, size_t n)
{
    const struct bpe *b = w->b;

    if (b->byte_fallback) {
        size_t known = 0;

        while (known < n && b->fallback_ids[(unsigned char)s[known]] >= 0)
            known++;
        if (known == n) {
            for (size_t i = 0; i < n; i++) {
                if (add_symbol(w, b->fallback_ids[(unsigned char)s[i]]))
                    return -1;
            }
            return 0;
        }
    }
    if (!b->has_unk)
        return 0;
    if (b->unk < 0)
        return fail(w->err, CLM_ERR_FORMAT,
                    "tokenizer: the text needs the unknown token, which the vocabulary lacks");
    if (!b->fuse_unk && flush_unk(w))
        return -1;
    w->unk_pending = true;
    return 0;
}

static int add_slowly(struct word *w, int32_t id, const char *s, size_t n)
{
    if (id < 0)
        return add_unknown(w, s, n);
    return flush_unk(w) ? -1 : add_symbol(w, id);
}

/* Mostly it is known, there is room, and nothing waits to go before it. */
static inline int add_known_or_not(struct word *w, int32_t id, const char *s, size_t n)
{
    if (id < 0 || w->unk_pending || w->count == w->scratch->capacity)
        return add_slowly(w, id, s, n);
    w->scratch->ids[w->count++] = (uint32_t)id;
    return 0;
}

/* A character with the prefix of those inside a word and the suffix of the last. */
static int add_affixed(struct word *w, const char *s, size_t n, bool first, bool last)
{
    struct strbuf *text = &w->scratch->text;

    strbuf_clear(text);
    if (!first)
        strbuf_add(text, w->b->prefix.s, w->b->prefix.n);
    strbuf_add(text, s, n);
    if (last)
        strbuf_add(text, w->b->suffix.s, w->b->suffix.n);
    if (text->failed)
        return fail(w->err, CLM_ERR_NOMEM, "a word of %zu symbols", w->count);
    return add_known_or_not(w, vocab_find(w->b->vocab, text->data, text->size), text->data,
                            text->size);
}

static int collect_characters(struct word *w, const char *s, size_t n)
{
    const struct bpe *b = w->b;

    for (size_t i = 0; i < n;) {
        int32_t c;
        size_t size = utf8_decode(s + i, n - i, &c);
        int rc;

        if (b->prefix.n || b->suffix.n)
            rc = add_affixed(w, s + i, size, i == 0, i + size == n);
        else if (c < BPE_CHARACTERS)
            rc = add_known_or_not(w, b->char_ids[c], s + i, size);
        else
            rc = add_known_or_not(w, vocab_find(b->vocab, s + i, size), s + i, size);
        if (rc)
            return -1;
        i += size;
    }
    return flush_unk(w);
}

/* The tables of merges are larger than the caches near the core, and a part has few pairs to ask
 * for at once: what all parts need is asked for before the first of them waits. */
static void ask_for_merges(const struct bpe_pairs *p, const uint32_t *ids, size_t n)
{
    uint64_t found[ASKED];
    size_t n_found = 0;

    n = n < ASKED ? n : ASKED;
    for (size_t i = 0; i + 1 < n; i++) {
        uint64_t h = bpe_pair_hash(ids[i], ids[i + 1]);

        if (!bpe_pairs_may_have(p, h))
            continue;
        bpe_pairs_prefetch_slot(p, h);
        found[n_found++] = h;
    }
    for (size_t i = 0; i < n_found; i++)
        bpe_pairs_prefetch_rule(p, found[i]);
}

/* Merge the symbols so far, a part by itself. */
static int merge_parts(struct word *w)
{
    uint32_t *ids = w->scratch->ids;
    const size_t *ends = w->scratch->ends;

    if (w->n_parts > 1)
        ask_for_merges(&w->b->merges, ids, w->count);
    for (size_t i = 0, begin = 0; i < w->n_parts; begin = ends[i++])
        if (bpe_merge(w->b, ids + begin, ends[i] - begin, w->out, w->err))
            return -1;
    w->count = w->n_parts = 0;
    return 0;
}

/* The symbols since the end before are a part: nothing merges across its borders. */
static int end_part(struct word *w)
{
    w->scratch->ends[w->n_parts++] = w->count;
    return w->n_parts == BPE_PARTS ? merge_parts(w) : 0;
}

/* The token of the character at s[i], *c of *size bytes, where it is sure to be merged to that. */
static int32_t find_seed(const struct bpe *b, const char *s, size_t i, size_t n, size_t *size,
                         int32_t *c)
{
    unsigned limits;

    if ((unsigned char)s[i] < 0xC0)
        return -1;
    *size = utf8_decode(s + i, n - i, c);
    if (*size < 2 || *c >= BPE_CHARACTERS || b->char_ids[*c] < 0)
        return -1;
    limits = b->limits[*c];
    if (!limits)
        return b->char_ids[*c];
    if ((limits & BPE_NOT_AFTER_ASCII && i && !(s[i - 1] & 0x80)) ||
        (limits & BPE_NOT_BEFORE_ASCII && i + *size < n && !(s[i + *size] & 0x80)))
        return -1;
    if (limits & BPE_NOT_BEFORE_SOME && i + *size < n) {
        unsigned char last = (unsigned char)s[i + *size - 1], lead = (unsigned char)s[i + *size];
        int32_t next;

        utf8_decode(s + i + *size, n - i - *size, &next);
        if (bpe_is_disturbed(b, last, next) || bpe_is_disturbed(b, last, BPE_LEAD | lead))
            return -1;
    }
    return b->char_ids[*c];
}

/* Collects parts; those that are many go out. */
static int collect_bytes(struct word *w, const char *s, size_t n)
{
    int32_t before = -1; /* the character before, if it was taken as one */

    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)s[i];
        char text[UTF8_MAX];
        size_t size = 0;
        int32_t c, id = find_seed(w->b, s, i, n, &size, &c);

        if (id >= 0) {
            if (before >= 0 && w->b->neighbours && !bpe_are_neighbours(w->b, before, c) &&
                end_part(w))
                return -1;
            if (add_known_or_not(w, id, s + i, size))
                return -1;
            before = c;
            i += size - 1;
            continue;
        }
        before = -1;
        id = w->b->byte_ids[byte];
        size = id < 0 ? utf8_encode(byte_level_char(byte), text) : 0;

        if (add_known_or_not(w, id, text, size))
            return -1;
    }
    return flush_unk(w);
}

static int encode_merging(const struct bpe *b, struct bpe_scratch *scratch, const char *s, size_t n,
                          struct token_list *out, clm_error *err)
{
    struct word w = {.b = b, .scratch = scratch, .out = out, .err = err};

    if (scratch_reserve(scratch, FIRST_CAPACITY, err))
        return -1;
    if (b->raw ? collect_bytes(&w, s, n) : collect_characters(&w, s, n))
        return -1;
    return w.count ? end_part(&w) || merge_parts(&w) ? -1 : 0 : 0;
}

/* The id of the word's text as a whole, or -1. */
static int32_t find_word(const struct bpe *b, struct bpe_scratch *scratch, const char *s, size_t n)
{
    char small[256];
    size_t size = 0;

    if (!n || n > b->longest[(unsigned char)*s])
        return -1;
    if (!b->raw)
        return vocab_find(b->vocab, s, n);
    if (n <= sizeof small / 2) {
        for (size_t i = 0; i < n; i++) {
            unsigned char byte = (unsigned char)s[i];

            if (byte > 0x20 && byte < 0x7F)
                small[size++] = (char)byte;
            else
                size += utf8_encode(byte_level_char(byte), small + size);
        }
        return vocab_find(b->vocab, small, size);
    }
    strbuf_clear(&scratch->text);
    byte_level_write(&scratch->text, s, n);
    return scratch->text.failed ? -1 : vocab_find(b->vocab, scratch->text.data, scratch->text.size);
}

static int encode_new_word(const struct bpe *b, struct bpe_scratch *scratch, const char *s,
                           size_t n, struct token_list *out, clm_error *err)
{
    int32_t id = find_word(b, scratch, s, n);
    size_t before = out->count;
    unsigned char whole;

    if (scratch->text.failed)
        return fail(err, CLM_ERR_NOMEM, "a word of %zu bytes", n);
    if (id < 0)
        return encode_merging(b, scratch, s, n, out, err);
    whole =
        b->ignore_merges ? WHOLE_YES : atomic_load_explicit(&b->whole[id], memory_order_relaxed);
    if (whole == WHOLE_YES) {
        token_list_add(out, id);
        return 0;
    }
    if (encode_merging(b, scratch, s, n, out, err))
        return -1;
    if (whole == WHOLE_UNKNOWN && !out->failed) {
        bool same = out->count == before + 1 && out->ids[before] == id;

        atomic_store_explicit(&b->whole[id], same ? WHOLE_YES : WHOLE_NO, memory_order_relaxed);
    }
    return 0;
}

static int encode_word(const struct bpe *b, struct bpe_scratch *scratch, const char *s, size_t n,
                       struct token_list *out, clm_error *err)
{
    struct bpe_word key, *slot = NULL;
    size_t before = out->count;

    if (n && n <= BPE_WORD_SIZE) {
        key = bpe_word_key(s, n);
        if (bpe_words_find(&scratch->words, &key, &slot, err))
            return -1;
        if (add_remembered(slot, &key, out))
            return 0;
    }
    if (encode_new_word(b, scratch, s, n, out, err))
        return -1;
    remember(slot, &key, out, before);
    return 0;
}

/* Cutting a long text where no token can reach across. Without a pre-tokenizer, as SentencePiece
 * models go, this finds the words again: no token has a space mark after a letter. */

#define SHORT_WORD 8 /* bytes; cutting less is not worth the look */

/* Unknown characters stay with their neighbours, which they may be fused with. */
static bool may_be_neighbours(const struct bpe *b, int32_t left, int32_t right)
{
    return bpe_are_neighbours(b, left, right) || left >= BPE_CHARACTERS ||
           right >= BPE_CHARACTERS || b->char_ids[left] < 0 || b->char_ids[right] < 0;
}

/* A part from begin to end; c is its last character, and mostly the only one. */
static inline int encode_part(const struct bpe *b, struct bpe_scratch *scratch, const char *begin,
                              const char *end, int32_t c, struct token_list *out, clm_error *err)
{
    size_t n = (size_t)(end - begin);

    if (n <= UTF8_MAX && c < BPE_CHARACTERS && b->char_ids[c] >= 0 &&
        n == utf8_length((unsigned char)*begin)) {
        token_list_add(out, b->char_ids[c]);
        return 0;
    }
    return encode_word(b, scratch, begin, n, out, err);
}

static int encode_cut(const struct bpe *b, struct bpe_scratch *scratch, const char *s, size_t n,
                      struct token_list *out, clm_error *err)
{
    size_t begin = 0;
    int32_t before = -1, c;

    for (size_t i = 0; i < n;) {
        size_t size = utf8_decode(s + i, n - i, &c);

        if (before >= 0 && !may_be_neighbours(b, before, c)) {
            if (encode_part(b, scratch, s + begin, s + i, before, out, err))
                return -1;
            begin = i;
        }
        before = c;
        i += size;
    }
    return encode_part(b, scratch, s + begin, s + n, before, out, err);
}

int bpe_encode(const struct bpe *b, struct bpe_scratch *scratch, const char *s, size_t n,
               struct token_list *out, clm_error *err)
{
    if (!b->raw && b->neighbours && n > SHORT_WORD)
        return encode_cut(b, scratch, s, n, out, err);
    return encode_word(b, scratch, s, n, out, err);
}
