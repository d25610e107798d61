/* tokenizer/bpe_queue.c: merging a word of any length.
 *
 * The places of a pair are kept together, in order, under the rank of the pair, and only the ranks
 * are in a heap: a text of few different pairs, as hostile ones are, takes linear time, and no text
 * more than n log n.
 */
#include <string.h>

#include "base/memory.h"
#include "tokenizer/bpe_merge.h"

/* Symbols are a list in an array: next, previous; -1 at the ends. */

struct place {
    int32_t at;
    int32_t next; /* in the list of places; -1: the last */
};

/* The places of one pair, which need not be there any more when their turn comes. */
struct bucket {
    uint32_t rank, merged;
    int32_t first, last; /* first is -1 where there are none */
    bool ordered;
    bool queued; /* its rank is in the heap */
};

struct queue {
    const struct bpe *b;
    uint32_t *ids;
    uint32_t *rank_at; /* of the symbol and the next one */
    int32_t *next, *previous;
    struct place *places; /* n at first, and two for each merge */
    struct bucket *buckets;
    uint32_t *bucket_of; /* by the hash of the rank: plus one, 0 is free */
    uint64_t *heap;      /* rank << 32 | bucket */
    size_t n_places, n_buckets, heap_size, mask;
};

static void heap_push(struct queue *q, uint64_t value)
{
    uint64_t *heap = q->heap;
    size_t i = q->heap_size++;

    while (i > 0 && heap[(i - 1) / 2] > value) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = value;
}

static uint64_t heap_pop(struct queue *q)
{
    uint64_t *heap = q->heap, top = heap[0], last = heap[--q->heap_size];
    size_t n = q->heap_size, i = 0, child;

    while ((child = 2 * i + 1) < n) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= last)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

static struct bucket *find_bucket(struct queue *q, struct bpe_pair pair)
{
    size_t i = pair.rank * 0x9E3779B1u >> 7 & q->mask;

    while (q->bucket_of[i]) {
        struct bucket *found = &q->buckets[q->bucket_of[i] - 1];

        if (found->rank == pair.rank)
            return found;
        i = (i + 1) & q->mask;
    }
    q->buckets[q->n_buckets] =
        (struct bucket){.rank = pair.rank, .merged = pair.merged, .first = -1};
    q->bucket_of[i] = (uint32_t)++q->n_buckets;
    return &q->buckets[q->n_buckets - 1];
}

static void enqueue(struct queue *q, struct bucket *bucket)
{
    if (!bucket->queued)
        heap_push(q, (uint64_t)bucket->rank << 32 | (uint64_t)(bucket - q->buckets));
    bucket->queued = true;
}

/* Look at the pair that begins with the symbol at a place. */
static void add_place(struct queue *q, int32_t at)
{
    struct bpe_pair pair = {BPE_NO_RANK, 0};
    struct bucket *bucket;
    int32_t place = (int32_t)q->n_places;

    if (at < 0)
        return;
    if (q->next[at] >= 0)
        pair = bpe_find_pair(&q->b->merges, q->ids[at], q->ids[q->next[at]]);
    q->rank_at[at] = pair.rank;
    if (pair.rank == BPE_NO_RANK)
        return;
    bucket = find_bucket(q, pair);
    q->places[q->n_places++] = (struct place){.at = at, .next = -1};
    if (bucket->first < 0) {
        bucket->first = place;
        bucket->ordered = true;
    } else {
        bucket->ordered &= q->places[bucket->last].at <= at;
        q->places[bucket->last].next = place;
    }
    bucket->last = place;
    enqueue(q, bucket);
}

static int32_t merge_lists(struct place *places, int32_t a, int32_t b)
{
    int32_t first = -1, *end = &first;

    while (a >= 0 && b >= 0) {
        int32_t *least = places[a].at <= places[b].at ? &a : &b;

        *end = *least;
        end = &places[*least].next;
        *least = *end;
    }
    *end = a >= 0 ? a : b;
    return first;
}

/* Merge sort of a list: bin i holds 2^i sorted places, or none. */
static void sort_bucket(struct queue *q, struct bucket *bucket)
{
    int32_t bins[32], place = bucket->first, sorted = -1;

    memset(bins, -1, sizeof bins);
    while (place >= 0) {
        int32_t rest = q->places[place].next;
        size_t i = 0;

        q->places[place].next = -1;
        for (; bins[i] >= 0; i++) {
            place = merge_lists(q->places, bins[i], place);
            bins[i] = -1;
        }
        bins[i] = place;
        place = rest;
    }
    for (size_t i = 0; i < COUNT(bins); i++)
        sorted = merge_lists(q->places, bins[i], sorted);
    bucket->first = sorted;
    for (place = sorted; place >= 0; place = q->places[place].next)
        bucket->last = place;
    bucket->ordered = true;
}

static void merge_at(struct queue *q, int32_t at, uint32_t merged)
{
    int32_t right = q->next[at];

    q->ids[at] = merged;
    q->rank_at[right] = BPE_NO_RANK;
    q->next[at] = q->next[right];
    if (q->next[at] >= 0)
        q->previous[q->next[at]] = at;
    add_place(q, q->previous[at]);
    add_place(q, at);
}

/* Until the bucket is empty, or a lower rank has come up, or places out of order. */
static void merge_bucket(struct queue *q, struct bucket *bucket)
{
    if (!bucket->ordered)
        sort_bucket(q, bucket);
    while (bucket->first >= 0 && bucket->ordered) {
        int32_t at = q->places[bucket->first].at;

        if (q->heap_size && q->heap[0] >> 32 < bucket->rank)
            break;
        bucket->first = q->places[bucket->first].next;
        if (q->rank_at[at] == bucket->rank)
            merge_at(q, at, bucket->merged);
    }
    if (bucket->first >= 0)
        enqueue(q, bucket);
}

/* Everything but the symbols in one piece of memory. */
static void *queue_init(struct queue *q, const struct bpe *b, uint32_t *ids, size_t n)
{
    size_t most = 3 * n, slots = 16;
    char *memory;

    *q = (struct queue){.b = b, .ids = ids};
    if (n > INT32_MAX / 128)
        return NULL;
    while (slots < 2 * most)
        slots *= 2;
    memory = mem_alloc(most * (sizeof *q->heap + sizeof *q->buckets + sizeof *q->places) +
                       slots * sizeof *q->bucket_of + 3 * n * sizeof *q->next);
    if (!memory)
        return NULL;
    q->heap = (uint64_t *)memory;
    q->buckets = (struct bucket *)(q->heap + most);
    q->places = (struct place *)(q->buckets + most);
    q->bucket_of = (uint32_t *)(q->places + most);
    q->rank_at = q->bucket_of + slots;
    q->next = (int32_t *)(q->rank_at + n);
    q->previous = q->next + n;
    q->mask = slots - 1;
    memset(q->bucket_of, 0, slots * sizeof *q->bucket_of);
    return memory;
}

size_t bpe_merge_queue(const struct bpe *b, uint32_t *ids, size_t n, clm_error *err)
{
    struct queue q;
    void *memory = queue_init(&q, b, ids, n);
    size_t kept = 0;

    if (!memory) {
        fail(err, CLM_ERR_NOMEM, "a word of %zu symbols", n);
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        q.next[i] = i + 1 < n ? (int32_t)(i + 1) : -1;
        q.previous[i] = (int32_t)i - 1;
    }
    for (size_t i = 0; i < n; i++)
        add_place(&q, (int32_t)i);
    while (q.heap_size) {
        struct bucket *bucket = &q.buckets[(uint32_t)heap_pop(&q)];

        bucket->queued = false;
        merge_bucket(&q, bucket);
    }
    for (int32_t i = 0; i >= 0; i = q.next[i])
        ids[kept++] = ids[i];
    mem_free(memory);
    return kept;
}
