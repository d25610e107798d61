/* tokenizer/bpe_merge.c: merging words that are short, and long ones a stretch at a time.
 *
 * Up to SMALL symbols are searched for their best pair again after every merge, which for so few
 * is faster than any queue; all places of the best pair are merged in one go.
 *
 * For longer words: let symbols s be cut into stretches that by themselves merge to one token each.
 * The tokens are what all of s merges to if and only if each two neighbouring stretches, by
 * themselves, merge to their two tokens. For as long as no merge has crossed a border, what is done
 * between two borders, and in which order, depends on nothing outside; so the first merge to cross
 * a border would also be done in the two stretches on its sides alone; and the other way round.
 * Hence the tokens that begin a word can be known from its beginning, if what comes next is found
 * to fit; bpe_queue.c is for the rest.
 */
#include "tokenizer/bpe_merge.h"

#include <string.h>

#define SMALL 64
#define NONE ((uint64_t)BPE_NO_RANK << 32)

/* A list of symbols, each at the place of the first of those that it is merged from. */
struct symbols {
    size_t n, count; /* at first, and now */
    uint32_t id[2 * SMALL];
    uint8_t next[2 * SMALL], previous[2 * SMALL]; /* n or more: there is none */
    uint64_t order[2 * SMALL + 1]; /* of the pair that begins here: rank << 32 | place */
    uint32_t merged[2 * SMALL];
};

/* The pairs of all the symbols. The tables are larger than the caches near the core: what all the
 * pairs need of one is asked for before the first of them waits for it. */
static void look_at_all(const struct bpe_pairs *p, struct symbols *w)
{
    uint64_t hash[2 * SMALL];
    uint8_t place[2 * SMALL];
    size_t found = 0;

    for (size_t i = 0; i + 1 < w->n; i++) {
        hash[i] = bpe_pair_hash(w->id[i], w->id[i + 1]);
        bpe_pairs_prefetch_filter(p, hash[i]);
    }
    for (size_t i = 0; i + 1 < w->n; i++) {
        w->order[i] = NONE;
        if (!bpe_pairs_may_have(p, hash[i]))
            continue;
        bpe_pairs_prefetch_slot(p, hash[i]);
        place[found] = (uint8_t)i;
        hash[found++] = hash[i];
    }
    for (size_t k = 0; found > 1 && k < found; k++)
        bpe_pairs_prefetch_rule(p, hash[k]);
    for (size_t k = 0; k < found; k++) {
        size_t i = place[k];
        struct bpe_pair pair = bpe_pairs_find(p, w->id[i], w->id[i + 1], hash[k]);

        w->order[i] = (uint64_t)pair.rank << 32 | i;
        w->merged[i] = pair.merged;
    }
}

static void look_at(const struct bpe_pairs *p, struct symbols *w, size_t i)
{
    struct bpe_pair pair = {BPE_NO_RANK, 0};

    if (w->next[i] < w->n)
        pair = bpe_find_pair(p, w->id[i], w->id[w->next[i]]);
    w->order[i] = (uint64_t)pair.rank << 32 | i;
    w->merged[i] = pair.merged;
}

/* Of the first pair in order; in two halves, neither of which waits for the other. */
static uint64_t find_first(const struct symbols *w)
{
    uint64_t a = NONE, b = NONE;

    for (size_t i = 0; i < w->n; i += 2) {
        a = w->order[i] < a ? w->order[i] : a;
        b = w->order[i + 1] < b ? w->order[i + 1] : b;
    }
    return a < b ? a : b;
}

static void merge_at(const struct bpe_pairs *p, struct symbols *w, size_t i)
{
    size_t right = w->next[i];

    w->id[i] = w->merged[i];
    w->next[i] = w->next[right];
    if (w->next[right] < w->n)
        w->previous[w->next[right]] = (uint8_t)i;
    w->order[right] = NONE;
    w->count--;
    look_at(p, w, i);
    if (w->previous[i] < w->n)
        look_at(p, w, w->previous[i]);
}

/* The next place of the same pair, where no merge before has come up since; or n. */
static size_t next_like(const struct symbols *w, size_t at, uint64_t order)
{
    size_t i = w->next[at], before = w->previous[at];

    if (w->order[at] <= order || (before < w->n && w->order[before] <= order))
        return w->n;
    while (i < w->n && w->order[i] >> 32 != order >> 32)
        i = w->next[i];
    return i;
}

static void merge_symbols(const struct bpe *b, struct symbols *w, const uint32_t *ids, size_t n)
{
    uint64_t first;

    w->n = w->count = n;
    for (size_t i = 0; i < n; i++) {
        w->id[i] = ids[i];
        w->next[i] = (uint8_t)(i + 1);
        w->previous[i] = (uint8_t)(i - 1);
    }
    w->order[n - 1] = w->order[n] = NONE;
    look_at_all(&b->merges, w);
    while ((first = find_first(w)) < NONE) {
        for (size_t i = (uint32_t)first; i < n; i = next_like(w, i, first))
            merge_at(&b->merges, w, i);
    }
}

/* What some symbols are merged to; w.n 0: none were yet. */
struct stretch {
    const uint32_t *ids;
    struct symbols w;
};

/* The same symbols as before come to the same: texts that repeat themselves are long. */
static void merge_stretch(const struct bpe *b, struct stretch *s, const uint32_t *ids, size_t n)
{
    if (s->w.n == n && memcmp(s->ids, ids, n * sizeof *ids) == 0)
        return;
    merge_symbols(b, &s->w, ids, n);
    s->ids = ids;
}

/* Whether two stretches side by side, left and n - left symbols, come to a token each. */
static bool fit(const struct bpe *b, struct stretch *both, const uint32_t *ids, size_t left,
                size_t n)
{
    merge_stretch(b, both, ids, n);
    return both->w.count == 2 && both->w.next[0] == left;
}

/* A stretch at a time, but for its last token, which could yet grow. False, with nothing added,
 * where the tokens of two stretches do not come to fit. */
static bool merge_stretches(const struct bpe *b, const uint32_t *ids, size_t n,
                            struct token_list *out)
{
    size_t before = out->count, begins[SMALL], n_begins = 0, at = 0;
    size_t tries = n / SMALL + 8; /* how often a token may be taken back */
    struct stretch one, both;
    const struct symbols *w = &one.w;

    one.w.n = both.w.n = 0;
    while (at < n && !out->failed) {
        size_t size = n - at < SMALL ? n - at : SMALL;
        size_t kept = n_begins ? begins[n_begins - 1] : 0, i = 0;
        bool last = at + size == n;

        merge_stretch(b, &one, ids + at, size);
        if ((!last && w->count == 1) ||
            (at && !fit(b, &both, ids + kept, at - kept, at - kept + w->next[0]))) {
            if (n_begins <= 1 || !tries--) {
                out->count = before;
                return false;
            }
            at = begins[--n_begins];
            out->count--;
            continue;
        }
        for (n_begins = 0; last ? i < size : w->next[i] < size; i = w->next[i]) {
            token_list_add(out, (int32_t)w->id[i]);
            begins[n_begins++] = at + i;
        }
        at += i;
    }
    return true;
}

int bpe_merge(const struct bpe *b, uint32_t *ids, size_t n, struct token_list *out, clm_error *err)
{
    if (n == 1) {
        token_list_add(out, (int32_t)ids[0]);
        return 0;
    }
    if (n == 2) {
        struct bpe_pair pair = bpe_find_pair(&b->merges, ids[0], ids[1]);
        bool merges = pair.rank != BPE_NO_RANK;

        token_list_add(out, (int32_t)(merges ? pair.merged : ids[0]));
        if (!merges)
            token_list_add(out, (int32_t)ids[1]);
        return 0;
    }
    if (n <= SMALL) {
        struct symbols w;

        merge_symbols(b, &w, ids, n);
        for (size_t i = 0; i < n; i = w.next[i])
            token_list_add(out, (int32_t)w.id[i]);
        return 0;
    }
    if (merge_stretches(b, ids, n, out))
        return 0;
    n = bpe_merge_queue(b, ids, n, err);
    for (size_t i = 0; i < n; i++)
        token_list_add(out, (int32_t)ids[i]);
    return n ? 0 : -1;
}
