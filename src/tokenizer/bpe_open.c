/* tokenizer/bpe_open.c: reading a BPE model, and the tables that make encoding fast. */
#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/bpe.h"
#include "tokenizer/bpe_merge.h"
#include "tokenizer/byte_level.h"

/* "a b", cut at its one space. */
static bool cut_merge(struct span part[2])
{
    const char *s = part[0].s, *space = memchr(s, ' ', part[0].n);
    size_t after;

    if (!space)
        return false;
    after = part[0].n - (size_t)(space + 1 - s);
    if (memchr(space + 1, ' ', after))
        return false;
    part[1] = (struct span){space + 1, after};
    part[0].n = (size_t)(space - s);
    return true;
}

/* Whether a token's text is that of the two joined. */
static bool is_joined(const struct bpe *b, int32_t id, struct span left, struct span right)
{
    size_t n;
    const char *text = vocab_text(b->vocab, id, &n);

    return text && n == left.n + right.n && !memcmp(text, left.s, left.n) &&
           !memcmp(text + left.n, right.s, right.n);
}

/* The id of the two joined. Most often it is that of the merge before, or one more. */
static int32_t find_joined(const struct bpe *b, struct span left, struct span right, int32_t before,
                           struct strbuf *joined)
{
    if (is_joined(b, before, left, right))
        return before;
    if (is_joined(b, before + 1, left, right))
        return before + 1;
    strbuf_clear(joined);
    strbuf_add(joined, left.s, left.n);
    strbuf_add(joined, right.s, right.n);
    return vocab_find(b->vocab, joined->data ? joined->data : "", joined->size);
}

/* Merges are looked up some at a time, so that fetching from memory for one goes on beside the work
 * for the others: the tables are larger than the caches. */
#define BATCH (VOCAB_BATCH / 2)

struct merge_reader {
    struct bpe *b;
    struct reader *r;
    const char *text[2 * BATCH]; /* left, right, left, right, ... */
    size_t size[2 * BATCH];
    int count;      /* of merges in the batch */
    uint32_t rank;  /* of the first in the batch */
    int32_t merged; /* id of the last one that was added */
    struct strbuf joined;
};

static int add_merge(struct merge_reader *m, struct span left, struct span right,
                     const int32_t *ids)
{
    struct bpe *b = m->b;
    size_t skip = right.n >= b->prefix.n ? b->prefix.n : right.n;
    struct span tail = {right.s + skip, right.n - skip};

    m->merged = find_joined(b, left, tail, m->merged, &m->joined);
    if (m->joined.failed)
        return no_memory(m->r);
    if (ids[0] < 0 || ids[1] < 0 || m->merged < 0)
        return fail(m->r->err, CLM_ERR_FORMAT,
                    "%s: model: merge %u, \"%.*s\" and \"%.*s\", needs a token that the "
                    "vocabulary lacks",
                    m->r->name, m->rank, (int)(left.n < 40 ? left.n : 40), left.s,
                    (int)(right.n < 40 ? right.n : 40), right.s);
    m->rank++;
    return bpe_pairs_add(&b->merges,
                         (struct bpe_rule){(uint32_t)ids[0], (uint32_t)ids[1], (uint32_t)m->merged},
                         m->r->err);
}

static int add_batch(struct merge_reader *m)
{
    int32_t ids[2 * BATCH];
    int n = 2 * m->count;

    m->count = 0;
    vocab_find_all(m->b->vocab, m->text, m->size, (size_t)n, ids);
    for (int i = 0; i < n; i += 2) {
        struct span left = {m->text[i], m->size[i]}, right = {m->text[i + 1], m->size[i + 1]};

        if (add_merge(m, left, right, ids + i))
            return -1;
    }
    return 0;
}

/* passing: the parts are gone when the next merge is read. */
static int queue_merge(struct merge_reader *m, const struct span part[2], bool passing)
{
    if (m->rank > INT32_MAX - BATCH)
        return fail(m->r->err, CLM_ERR_UNSUPPORTED, "%s: model: too many merges", m->r->name);
    for (int i = 0; i < 2; i++) {
        m->text[2 * m->count + i] = part[i].s;
        m->size[2 * m->count + i] = part[i].n;
    }
    m->count++;
    return m->count == BATCH || passing ? add_batch(m) : 0;
}

static size_t count_strings(struct span text)
{
    size_t quotes = 0;

    for (size_t i = 0; i < text.n; i++)
        quotes += text.s[i] == '"';
    return quotes / 2;
}

static bool merges_in_pairs(struct span text)
{
    return text.n > 1 && memchr(text.s + 1, '[', text.n < 100 ? text.n - 1 : 99);
}

static bool lies_in(struct span text, const char *s)
{
    return s >= text.s && s < text.s + text.n;
}

static int read_merges(struct bpe *b, struct span text, struct reader *r)
{
    struct merge_reader m = {.b = b, .r = r, .merged = -2};
    struct bulk_reader items;
    struct span part[2];
    int count, rc;

    if (!text.s)
        return fail(r->err, CLM_ERR_FORMAT, "%s: model: \"merges\" is not a list", r->name);
    items = bulk_start(text, r);
    rc = bpe_pairs_reserve(&b->merges, count_strings(text) / (merges_in_pairs(text) ? 2 : 1),
                           r->err);
    while (!rc && (rc = bulk_next_item(&items, part, &count)) > 0) {
        rc = 0;
        /* The head of an old merges.txt has no rank. */
        if (count == 1 && part[0].n >= 8 && !memcmp(part[0].s, "#version", 8))
            continue;
        if (count == 1 && !cut_merge(part))
            rc = fail(r->err, CLM_ERR_FORMAT, "%s: model: merge %u is not two tokens", r->name,
                      m.rank + (uint32_t)m.count);
        else
            rc = queue_merge(&m, part, !lies_in(text, part[0].s) || !lies_in(text, part[1].s));
    }
    rc = rc ? rc : add_batch(&m);
    rc = rc ? rc : bpe_pairs_finish(&b->merges, r->err);
    bulk_reader_release(&items);
    strbuf_release(&m.joined);
    return rc;
}

static int read_options(struct bpe *b, const json *model, struct reader *r)
{
    struct span unk;
    double dropout = json_real(json_get(model, "dropout"), 0);

    if (dropout != 0)
        return fail(r->err, CLM_ERR_UNSUPPORTED,
                    "%s: model: dropout %g makes encoding random; set it to null", r->name,
                    dropout);
    if (read_string_or(r, model, "unk_token", NULL, &unk) ||
        read_string_or(r, model, "continuing_subword_prefix", "", &b->prefix) ||
        read_string_or(r, model, "end_of_word_suffix", "", &b->suffix) ||
        read_bool_or(r, model, "fuse_unk", false, &b->fuse_unk) ||
        read_bool_or(r, model, "byte_fallback", false, &b->byte_fallback) ||
        read_bool_or(r, model, "ignore_merges", false, &b->ignore_merges))
        return -1;
    b->has_unk = unk.s;
    b->unk = unk.s ? vocab_find(b->vocab, unk.s, unk.n) : -1;
    return 0;
}

int bpe_open(struct bpe *b, const json *model, struct span merges, const struct bpe_pairs *ready,
             const struct vocab *vocab, struct reader *r)
{
    *b = (struct bpe){.vocab = vocab};
    for (int byte = 0; byte < 256; byte++) {
        static const char digits[] = "0123456789ABCDEF";
        char text[] = {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
        char mapped[UTF8_MAX];

        b->fallback_ids[byte] = vocab_find(vocab, text, sizeof text);
        b->byte_ids[byte] =
            vocab_find(vocab, mapped, utf8_encode(byte_level_char((unsigned char)byte), mapped));
    }
    if (read_options(b, model, r) || (!ready && read_merges(b, merges, r))) {
        bpe_close(b);
        return -1;
    }
    if (ready)
        b->merges = *ready;
    return 0;
}

static void fill_char_ids(struct bpe *b)
{
    for (size_t i = 0; i < BPE_CHARACTERS; i++)
        b->char_ids[i] = -1;
    for (size_t e = 0; e < b->vocab->n_entries; e++) {
        const struct vocab_entry *entry = &b->vocab->entries[e];
        const char *text = b->vocab->text + entry->offset;
        size_t *longest = &b->longest[(unsigned char)*text];
        int32_t c;

        *longest = entry->size > *longest ? entry->size : *longest;
        if (entry->size && entry->size <= 3 && utf8_decode(text, entry->size, &c) == entry->size)
            b->char_ids[c] = entry->id;
    }
}

/* Whether a merge takes a symbol that stands for what it does not spell, an unknown one or a byte:
 * such a merge could join any characters. */
static int merges_the_unspelled(const struct bpe *b, bool *found, struct reader *r)
{
    unsigned char *unspelled = mem_zeroed(b->vocab->n_ids + 1, 1);

    if (!unspelled)
        return no_memory(r);
    if (b->unk >= 0)
        unspelled[b->unk] = 1;
    for (int byte = 0; b->byte_fallback && byte < 256; byte++) {
        if (b->fallback_ids[byte] >= 0)
            unspelled[b->fallback_ids[byte]] = 1;
    }
    *found = false;
    for (size_t i = 0; i < b->merges.count; i++)
        *found |= unspelled[b->merges.rules[i].left] | unspelled[b->merges.rules[i].right];
    mem_free(unspelled);
    return 0;
}

static void add_token_neighbours(struct bpe *b, uint32_t id)
{
    size_t n;
    const char *s = vocab_text(b->vocab, (int32_t)id, &n);
    int32_t before = -1, c;

    for (size_t i = 0; i < n;) {
        i += utf8_decode(s + i, n - i, &c);
        if (before >= 0)
            bpe_allow_neighbours(b, before, c);
        before = c;
    }
}

/* A text that is a token as a whole is not cut either, where merges are to be ignored for it. */
static int fill_neighbours(struct bpe *b, struct reader *r)
{
    bool unspelled = false;

    if (b->prefix.n || b->suffix.n || b->ignore_merges)
        return 0;
    if (merges_the_unspelled(b, &unspelled, r) || unspelled)
        return unspelled ? 0 : -1;
    b->neighbours = mem_zeroed(BPE_NEIGHBOUR_WORDS, sizeof *b->neighbours);
    if (!b->neighbours)
        return no_memory(r);
    for (size_t i = 0; i < b->merges.count; i++) {
        if (!i || b->merges.rules[i].merged != b->merges.rules[i - 1].merged)
            add_token_neighbours(b, b->merges.rules[i].merged);
    }
    return 0;
}

static void take_tables(struct bpe *b, const struct bpe_tables *ready)
{
    b->char_ids = ready->char_ids;
    b->limits = ready->limits;
    b->neighbours = ready->neighbours;
    memcpy(b->disturbed, ready->disturbed, sizeof b->disturbed);
    memcpy(b->longest, ready->longest, sizeof b->longest);
}

int bpe_prepare(struct bpe *b, bool raw, const struct bpe_tables *ready, struct reader *r)
{
    b->raw = raw;
    b->whole = mem_zeroed(b->vocab->n_ids ? b->vocab->n_ids : 1, sizeof *b->whole);
    if (!b->whole)
        return no_memory(r);
    if (ready && ready->raw == raw) {
        take_tables(b, ready);
        return 0;
    }
    b->char_ids = mem_alloc(BPE_CHARACTERS * sizeof *b->char_ids);
    if (!b->char_ids)
        return no_memory(r);
    if (raw)
        return bpe_fill_seeds(b, r);
    fill_char_ids(b);
    return fill_neighbours(b, r);
}

void bpe_close(struct bpe *b)
{
    bpe_pairs_release(&b->merges);
    mem_free((void *)b->whole);
    mem_free(b->char_ids);
    mem_free(b->neighbours);
    mem_free(b->limits);
    b->limits = NULL;
    b->neighbours = NULL;
    b->char_ids = NULL;
    b->whole = NULL;
}
