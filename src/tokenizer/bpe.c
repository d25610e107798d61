/* tokenizer/bpe.c: words to symbols, and symbols merged, lowest rank first, leftmost first.
 *
 * A word of up to SMALL symbols is searched for its best pair again after every merge, which for so
 * few is faster than any queue. A longer one keeps its pairs in a heap: n log n for any input.
 */
#include "tokenizer/bpe.h"

#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/byte_level.h"

#define SMALL 128
#define NO_RANK UINT32_MAX

enum { WHOLE_UNKNOWN, WHOLE_YES, WHOLE_NO };

/* The symbols of one word while they are collected. */
struct word {
    const struct bpe *b;
    struct bpe_scratch *scratch;
    size_t count;
    bool unk_pending; /* an unknown that the next one may be fused with */
    clm_error *err;
};

static int scratch_reserve(struct bpe_scratch *s, size_t n, clm_error *err)
{
    size_t capacity = s->capacity ? s->capacity : 128, doubled;
    void *p;

    if (n <= s->capacity)
        return 0;
    while (capacity < n)
        capacity *= 2;
    if (!size_mul(capacity, 2 * sizeof *s->heap, &doubled) || capacity > INT32_MAX / 2)
        return fail(err, CLM_ERR_NOMEM, "a word of %zu symbols", n);
    if (!(p = mem_resize(s->ids, capacity * sizeof *s->ids)))
        goto failed;
    s->ids = p;
    if (!(p = mem_resize(s->next, capacity * sizeof *s->next)))
        goto failed;
    s->next = p;
    if (!(p = mem_resize(s->previous, capacity * sizeof *s->previous)))
        goto failed;
    s->previous = p;
    if (!(p = mem_resize(s->heap, doubled)))
        goto failed;
    s->heap = p;
    s->capacity = capacity;
    return 0;

failed:
    return fail(err, CLM_ERR_NOMEM, "a word of %zu symbols", n);
}

void bpe_scratch_release(struct bpe_scratch *s)
{
    mem_free(s->ids);
    mem_free(s->next);
    mem_free(s->previous);
    mem_free(s->heap);
    strbuf_release(&s->text);
    *s = (struct bpe_scratch){0};
}

/* Merging a word of few symbols. */

struct pair {
    uint32_t rank;
    uint32_t merged;
};

static struct pair find_pair(const struct bpe *b, uint32_t left, uint32_t right)
{
    const struct pair_slot *slot = pair_map_find(&b->merges, left, right);

    return slot ? (struct pair){slot->a, slot->b} : (struct pair){NO_RANK, 0};
}

/* The place of the least rank; two plain loops, which compilers turn into vector code. */
static size_t least_rank(const uint32_t *ranks, size_t n)
{
    uint32_t least = NO_RANK;
    size_t at = 0;

    for (size_t i = 0; i < n; i++)
        least = ranks[i] < least ? ranks[i] : least;
    while (at < n && ranks[at] != least)
        at++;
    return at;
}

/* ranks[i] and merged[i] are those of symbols i and i + 1. */
static size_t merge_small(const struct bpe *b, uint32_t *ids, size_t n)
{
    uint32_t ranks[SMALL], merged[SMALL];
    size_t pairs = n - 1;

    for (size_t i = 0; i < pairs; i++) {
        struct pair pair = find_pair(b, ids[i], ids[i + 1]);

        ranks[i] = pair.rank;
        merged[i] = pair.merged;
    }
    while (pairs > 0) {
        size_t best = least_rank(ranks, pairs), after;

        if (ranks[best] == NO_RANK)
            break;
        ids[best] = merged[best];
        after = pairs - best - 1; /* pairs right of the best one, and symbols right of its two */
        memmove(ids + best + 1, ids + best + 2, after * sizeof *ids);
        memmove(ranks + best, ranks + best + 1, after * sizeof *ranks);
        memmove(merged + best, merged + best + 1, after * sizeof *merged);
        pairs--;
        for (size_t i = best - (best > 0); i <= best && i < pairs; i++) {
            struct pair pair = find_pair(b, ids[i], ids[i + 1]);

            ranks[i] = pair.rank;
            merged[i] = pair.merged;
        }
    }
    return pairs + 1;
}

/* Merging a long word: a binary heap of rank << 32 | position. */

static void heap_push(uint64_t *heap, size_t *n, uint64_t value)
{
    size_t i = (*n)++;

    while (i > 0 && heap[(i - 1) / 2] > value) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = value;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    uint64_t top = heap[0], last = heap[--*n];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < *n) {
        if (child + 1 < *n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= last)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

static void push_pair(const struct bpe *b, struct bpe_scratch *s, size_t *heap_size, int32_t at)
{
    struct pair pair;

    if (at < 0 || s->next[at] < 0)
        return;
    pair = find_pair(b, s->ids[at], s->ids[s->next[at]]);
    if (pair.rank != NO_RANK)
        heap_push(s->heap, heap_size, (uint64_t)pair.rank << 32 | (uint32_t)at);
}

/* Each merge takes one pair from the heap and puts at most two: 2 n places are enough. An entry
 * whose symbols have changed since is recognised by its rank. */
static size_t merge_long(const struct bpe *b, struct bpe_scratch *s, size_t n)
{
    size_t heap_size = 0, kept = 0;

    for (size_t i = 0; i < n; i++) {
        s->next[i] = i + 1 < n ? (int32_t)(i + 1) : -1;
        s->previous[i] = (int32_t)i - 1;
    }
    for (size_t i = 0; i + 1 < n; i++)
        push_pair(b, s, &heap_size, (int32_t)i);
    while (heap_size) {
        uint64_t top = heap_pop(s->heap, &heap_size);
        int32_t at = (int32_t)(uint32_t)top, right = s->next[at];
        struct pair pair;

        if (right < 0) /* the last symbol, or one that was merged into its left neighbour */
            continue;
        pair = find_pair(b, s->ids[at], s->ids[right]);
        if (pair.rank != top >> 32)
            continue;
        s->ids[at] = pair.merged;
        s->next[at] = s->next[right];
        if (s->next[right] >= 0)
            s->previous[s->next[right]] = at;
        s->next[right] = -1;
        push_pair(b, s, &heap_size, s->previous[at]);
        push_pair(b, s, &heap_size, at);
    }
    for (int32_t i = 0; i >= 0; i = s->next[i])
        s->ids[kept++] = s->ids[i];
    return kept;
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

static int add_known_or_not(struct word *w, int32_t id, const char *s, size_t n)
{
    if (id < 0)
        return add_unknown(w, s, n);
    return flush_unk(w) ? -1 : add_symbol(w, id);
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

static int collect_bytes(struct word *w, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)s[i];
        int32_t id = w->b->byte_ids[byte];
        char text[UTF8_MAX];
        size_t size = id < 0 ? utf8_encode(byte_level_char(byte), text) : 0;

        if (add_known_or_not(w, id, text, size))
            return -1;
    }
    return flush_unk(w);
}

static int encode_merging(const struct bpe *b, struct bpe_scratch *scratch, const char *s, size_t n,
                          struct token_list *out, clm_error *err)
{
    struct word w = {.b = b, .scratch = scratch, .err = err};

    if (scratch_reserve(scratch, SMALL, err))
        return -1;
    if (b->raw ? collect_bytes(&w, s, n) : collect_characters(&w, s, n))
        return -1;
    if (w.count > SMALL)
        w.count = merge_long(b, scratch, w.count);
    else if (w.count > 1)
        w.count = merge_small(b, scratch->ids, w.count);
    for (size_t i = 0; i < w.count; i++)
        token_list_add(out, (int32_t)scratch->ids[i]);
    return 0;
}

/* The id of the word's text as a whole, or -1. */
static int32_t find_word(const struct bpe *b, struct bpe_scratch *scratch, const char *s, size_t n)
{
    char small[256];
    size_t size = 0;

    if (n > b->longest)
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

static int encode_word(const struct bpe *b, struct bpe_scratch *scratch, const char *s, size_t n,
                       struct token_list *out, clm_error *err)
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

/* Cutting a long text where no token can reach across. Without a pre-tokenizer, as SentencePiece
 * models go, this finds the words again: no token has a space mark after a letter. */

#define SHORT_WORD 8 /* bytes; cutting less is not worth the look */

/* Unknown characters stay with their neighbours, which they may be fused with. */
static bool may_be_neighbours(const struct bpe *b, int32_t left, int32_t right)
{
    size_t h = bpe_neighbour_hash(left, right);

    return b->neighbours[h / 64] >> h % 64 & 1 || left >= BPE_CHARACTERS ||
           right >= BPE_CHARACTERS || b->char_ids[left] < 0 || b->char_ids[right] < 0;
}

static int encode_cut(const struct bpe *b, struct bpe_scratch *scratch, const char *s, size_t n,
                      struct token_list *out, clm_error *err)
{
    size_t begin = 0;
    int32_t before = -1, c;

    for (size_t i = 0; i < n;) {
        size_t size = utf8_decode(s + i, n - i, &c);

        if (before >= 0 && !may_be_neighbours(b, before, c)) {
            if (encode_word(b, scratch, s + begin, i - begin, out, err))
                return -1;
            begin = i;
        }
        before = c;
        i += size;
    }
    return encode_word(b, scratch, s + begin, n - begin, out, err);
}

int bpe_encode(const struct bpe *b, struct bpe_scratch *scratch, const char *s, size_t n,
               struct token_list *out, clm_error *err)
{
    if (b->neighbours && n > SHORT_WORD)
        return encode_cut(b, scratch, s, n, out, err);
    return encode_word(b, scratch, s, n, out, err);
}
