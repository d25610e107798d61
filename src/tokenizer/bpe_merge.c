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

#define SMALL 128
#define STRETCH (SMALL / 2)

/* rank[i] and merged[i] are those of symbols i and i + 1. */
struct symbols {
    size_t n, n_at_first;
    uint32_t id[SMALL], rank[SMALL], merged[SMALL];
    uint16_t begin[SMALL]; /* the first of the symbols that it is merged from */
    size_t n_changed;
    uint16_t changed[SMALL]; /* pairs to be looked up */
};

/* Ranks of the changed pairs. The tables are larger than the caches near the core: what all the
 * pairs need of one is asked for before the first of them waits for it. */
static void look_up(const struct bpe_pairs *p, struct symbols *w)
{
    uint64_t hash[SMALL];
    size_t n = 0;

    for (size_t k = 0; k < w->n_changed; k++) {
        size_t i = w->changed[k];

        hash[k] = bpe_pair_hash(w->id[i], w->id[i + 1]);
        bpe_pairs_prefetch_filter(p, hash[k]);
    }
    for (size_t k = 0; k < w->n_changed; k++) {
        size_t i = w->changed[k];

        w->rank[i] = BPE_NO_RANK;
        if (!bpe_pairs_may_have(p, hash[k]))
            continue;
        bpe_pairs_prefetch_slot(p, hash[k]);
        w->changed[n] = (uint16_t)i;
        hash[n++] = hash[k];
    }
    for (size_t k = 0; n > 1 && k < n; k++)
        bpe_pairs_prefetch_rule(p, hash[k]);
    for (size_t k = 0; k < n; k++) {
        size_t i = w->changed[k];
        struct bpe_pair pair = bpe_pairs_find(p, w->id[i], w->id[i + 1], hash[k]);

        w->rank[i] = pair.rank;
        w->merged[i] = pair.merged;
    }
    w->n_changed = 0;
}

/* Two plain loops, which compilers turn into vector code. */
static size_t find_best(const struct symbols *w)
{
    uint32_t least = BPE_NO_RANK;
    size_t at = 0;

    for (size_t i = 0; i + 1 < w->n; i++)
        least = w->rank[i] < least ? w->rank[i] : least;
    while (at + 1 < w->n && w->rank[at] != least)
        at++;
    return at;
}

static void note_change(struct symbols *w, size_t pair)
{
    if (!w->n_changed || w->changed[w->n_changed - 1] != pair)
        w->changed[w->n_changed++] = (uint16_t)pair;
}

static void move_down(struct symbols *w, size_t to, size_t from, size_t n)
{
    memmove(w->id + to, w->id + from, n * sizeof *w->id);
    memmove(w->rank + to, w->rank + from, n * sizeof *w->rank);
    memmove(w->merged + to, w->merged + from, n * sizeof *w->merged);
    memmove(w->begin + to, w->begin + from, n * sizeof *w->begin);
}

/* Whether the symbol just made, the n-th, is in a pair that comes before those of a rank. */
static bool makes_better(const struct bpe *b, const struct symbols *w, size_t n, size_t from,
                         uint32_t rank)
{
    return (n && bpe_find_pair(&b->merges, w->id[n - 1], w->id[n]).rank <= rank) ||
           (from < w->n && bpe_find_pair(&b->merges, w->id[n], w->id[from]).rank <= rank);
}

/* Merge the pair at a place, and then its like behind it until there is a better one. */
static void merge_from(const struct bpe *b, struct symbols *w, size_t at)
{
    uint32_t rank = w->rank[at], merged = w->merged[at];
    size_t n = at, from = at; /* the first n are done, those of from and on are to come */

    while (from < w->n) {
        size_t next;

        w->id[n] = merged;
        w->begin[n] = w->begin[from];
        if (n)
            note_change(w, n - 1);
        from += 2;
        if (from < w->n)
            note_change(w, n);
        for (next = from; next + 1 < w->n && w->rank[next] != rank;)
            next++;
        if (next + 1 >= w->n || makes_better(b, w, n, from, rank))
            next = w->n;
        n++;
        if (next > from)
            move_down(w, n, from, next - from);
        n += next - from;
        from = next;
    }
    w->n = n;
}

static void merge_symbols(const struct bpe *b, struct symbols *w, const uint32_t *ids, size_t n)
{
    w->n = w->n_at_first = n;
    w->n_changed = n - 1;
    for (size_t i = 0; i < n; i++) {
        w->id[i] = ids[i];
        w->begin[i] = w->changed[i] = (uint16_t)i;
    }
    look_up(&b->merges, w);
    while (w->n > 1) {
        size_t best = find_best(w);

        if (w->rank[best] == BPE_NO_RANK)
            break;
        merge_from(b, w, best);
        look_up(&b->merges, w);
    }
}

/* Whether two stretches side by side, left and n - left symbols, come to a token each. */
static bool fit(const struct bpe *b, const uint32_t *ids, size_t left, size_t n)
{
    struct symbols w;

    merge_symbols(b, &w, ids, n);
    return w.n == 2 && w.begin[1] == left;
}

/* A stretch at a time, but for its last token, which could yet grow. False, with nothing added,
 * where the tokens of two stretches do not come to fit. */
static bool merge_stretches(const struct bpe *b, const uint32_t *ids, size_t n,
                            struct token_list *out)
{
    size_t before = out->count, begins[STRETCH], n_begins = 0, at = 0;
    size_t tries = n / STRETCH + 8; /* how often a token may be taken back */
    struct symbols w;

    while (at < n && !out->failed) {
        bool last = n - at <= STRETCH;
        size_t last_begin = n_begins ? begins[n_begins - 1] : 0, keep, end;

        merge_symbols(b, &w, ids + at, last ? n - at : STRETCH);
        keep = last ? w.n : w.n - 1;
        end = at + (w.n > 1 ? w.begin[1] : w.n_at_first);
        if (!keep || (at && !fit(b, ids + last_begin, at - last_begin, end - last_begin))) {
            if (!keep || n_begins <= 1 || !tries--) {
                out->count = before;
                return false;
            }
            at = begins[--n_begins];
            out->count--;
            continue;
        }
        for (size_t i = 0; i < keep; i++) {
            token_list_add(out, (int32_t)w.id[i]);
            begins[i] = at + w.begin[i];
        }
        n_begins = keep;
        at = last ? n : at + w.begin[keep];
    }
    return true;
}

int bpe_merge(const struct bpe *b, uint32_t *ids, size_t n, struct token_list *out, clm_error *err)
{
    if (n == 1) {
        token_list_add(out, (int32_t)ids[0]);
        return 0;
    }
    if (n <= SMALL) {
        struct symbols w;

        merge_symbols(b, &w, ids, n);
        for (size_t i = 0; i < w.n; i++)
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
