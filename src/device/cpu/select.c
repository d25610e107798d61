/* device/cpu/select.c: which keys a row attends to, by scores of heads made for it.
 * arXiv:2512.02556 */
#include <math.h>
#include <string.h>

#include "device/cpu/cpu.h"
#include "device/cpu/kv_rows.h"
#include "device/cpu/ops.h"

struct select_call {
    struct cpu_device *d;
    const struct kv_layer *kv;
    const struct kv_sequence *s;
    const tensor *kept, *q, *w;
    int n, n_heads;
    int block_size, n_local; /* of select_blocks */
    const struct pooled_choice *pooled;
    int q_cols, s_cols; /* k_dim and block_tokens, rounded up to panels */
};

/* Room of one row: queries, scores of a block by head, and two lists of all scores, or of the best
 * of all blocks, by head. */
struct select_room {
    float *q, *block, *scores, *rest;
    float *rows; /* of quantised keys */
};

static int round_up(int n, int to)
{
    return (n + to - 1) / to * to;
}

/* The keys that row i of the sequence sees, as far as the cache has them. */
static struct kv_sight sight_of(const struct select_call *call, int i)
{
    return kv_sight_of(call->kv, call->s->position + i, 0);
}

/* How many of the keys [0, n_keys) these are. */
static int count_seen(struct kv_sight sight, int n_keys)
{
    return n_keys - sight.first - (sight.hole_end - sight.hole);
}

/* Is key one of them? Else *end is where the next one is. */
static bool is_seen(struct kv_sight sight, int key, int *end)
{
    *end = key < sight.first ? sight.first : sight.hole_end;
    return key >= sight.first && (key < sight.hole || key >= sight.hole_end);
}

/* What becomes of the scores of keys [key, key + n), by head in room->block. */
typedef void (*scored_fn)(const struct select_call *call, const struct select_room *room,
                          const float *w, int key, int n);

/* One number of each key: the sum over heads. */
static void sum_scores(const struct select_call *call, const struct select_room *room,
                       const float *w, int key, int n)
{
    for (int i = 0; i < n; i++) {
        float sum = 0;

        for (int h = 0; h < call->n_heads; h++)
            sum += w[h] * fmaxf(room->block[(int64_t)h * call->s_cols + i], 0.0f);
        room->scores[key + i] = isnan(sum) ? -INFINITY : sum;
    }
}

/* One number of each block and head: the largest, which begins as -infinity. */
static void keep_largest(const struct select_call *call, const struct select_room *room,
                         const float *w, int key, int n)
{
    (void)w;
    for (int h = 0; h < call->n_heads; h++)
        for (int i = 0; i < n; i++) {
            float *best = &room->scores[(int64_t)(key + i) / call->block_size * call->n_heads + h];
            float score = room->block[(int64_t)h * call->s_cols + i];

            if (score > *best)
                *best = score;
        }
}

/* The scores of those of the keys [0, n_keys) that row i sees, block by block, each number by the
 * same operations wherever the row lies in a batch. */
static void score_keys(const struct select_call *call, const struct select_room *room,
                       const float *w, int i, int n_keys, scored_fn scored)
{
    const struct cpu_vector_kernels *k = &call->d->vector;
    const struct kv_layer *kv = call->kv;
    struct kv_sight sight = sight_of(call, i);

    for (int key = 0, end; key < n_keys; key = end) {
        const struct kv_layer *at = kv_of(kv, call->s, key);
        struct kv_rows rows;
        char *block;
        int place, n;

        if (!is_seen(sight, key, &end))
            continue;
        end = key + kv_stretch(kv, call->s, key);
        end = key < sight.hole && sight.hole < end ? sight.hole : end;
        end = n_keys < end ? n_keys : end;
        n = end - key;
        block = kv_block_of(kv, call->s, key, &place);
        rows = kv_read_keys(k, at, block, 0, place, n, room->rows);
        (call->d->exact ? k->exact_scores
                        : k->scores)[rows.type](room->block, call->s_cols, room->q, call->q_cols,
                                                call->n_heads, rows.data, n, kv->k_dim, NULL);
        scored(call, room, w, key, n);
    }
}

/* As score_keys with sum_scores, and -infinity for keys that the row does not see. */
static void sum_keys(const struct select_call *call, const struct select_room *room, int i,
                     int n_keys)
{
    struct kv_sight sight = sight_of(call, i);
    const float *w = (const float *)call->w->data + (call->s->row + i) * (int64_t)call->w->stride;

    for (int key = 0; key < sight.first; key++)
        room->scores[key] = -INFINITY;
    for (int key = sight.hole; key < sight.hole_end; key++)
        room->scores[key] = -INFINITY;
    score_keys(call, room, w, i, n_keys, sum_scores);
}

/* The n-th largest of m numbers, 1 <= n <= m, in whose order x is left. Hoare's selection. */
static float nth_largest(float *x, int m, int n)
{
    int low = 0, high = m - 1, wanted = n - 1;

    while (low < high) {
        float pivot = x[low + (high - low) / 2];
        int i = low, j = high;

        while (i <= j) {
            while (x[i] > pivot)
                i++;
            while (x[j] < pivot)
                j--;
            if (i <= j) {
                float swapped = x[i];

                x[i++] = x[j];
                x[j--] = swapped;
            }
        }
        if (wanted <= j)
            high = j;
        else if (wanted >= i)
            low = i;
        else
            break;
    }
    return x[wanted];
}

/* Bits of the n best of m scores; of those equal to the last of them the latest. */
static void mark_best(uint32_t *bits, const struct select_room *room, int m, int n)
{
    float least;
    int above = 0;

    memcpy(room->rest, room->scores, (size_t)m * sizeof(float));
    least = nth_largest(room->rest, m, n);
    for (int i = 0; i < m; i++)
        above += room->scores[i] > least;
    for (int i = m - 1; i >= 0; i--) {
        bool equal = room->scores[i] == least && above < n;

        above += equal;
        if (equal || room->scores[i] > least)
            bits[i / 32] |= 1u << i % 32;
    }
}

/* The queries of a row, padded. */
static void load_queries(const struct select_call *call, const struct select_room *room,
                         int64_t row)
{
    const float *q = (const float *)call->q->data + row * call->q->stride;
    int dim = call->kv->k_dim;

    for (int h = 0; h < call->n_heads; h++) {
        float *to = room->q + (int64_t)h * call->q_cols;

        memset(to, 0, (size_t)call->q_cols * sizeof *to);
        memcpy(to, q + (int64_t)h * dim, (size_t)dim * sizeof *to);
    }
}

static void select_row(const struct select_call *call, const struct select_room *room, int i)
{
    int64_t row = call->s->row + i;
    int n_keys = call->s->position + i + 1;
    uint32_t *bits = (uint32_t *)call->kept->data + row * call->kept->stride;

    bool all = count_seen(sight_of(call, i), n_keys) <= call->n;

    memset(bits, all ? 0xFF : 0, (size_t)call->kept->cols * sizeof *bits);
    if (all)
        return;
    load_queries(call, room, row);
    sum_keys(call, room, i, n_keys);
    mark_best(bits, room, n_keys, call->n);
}

/* Of one head: the keys of its n best blocks, whose scores lie in room->scores. */
static void mark_blocks(const struct select_call *call, const struct select_room *room, int head,
                        uint32_t *bits, int n_keys)
{
    int n_blocks = (n_keys - 1) / call->block_size + 1, n_heads = call->n_heads, above = 0;
    float *scores = room->rest + n_blocks, least;

    for (int b = 0; b < n_blocks; b++)
        room->rest[b] = scores[b] =
            n_blocks - b <= call->n_local ? INFINITY : room->scores[(int64_t)b * n_heads + head];
    least = nth_largest(room->rest, n_blocks, call->n);
    for (int b = 0; b < n_blocks; b++)
        above += scores[b] > least;
    for (int b = n_blocks - 1; b >= 0; b--) {
        bool equal = scores[b] == least && above < call->n;
        int64_t first = (int64_t)b * call->block_size;

        above += equal;
        for (int64_t key = first;
             (equal || scores[b] > least) && key < first + call->block_size && key < n_keys; key++)
            bits[key / 32] |= 1u << key % 32;
    }
}

static void select_row_blocks(const struct select_call *call, const struct select_room *room, int i)
{
    int64_t row = call->s->row + i;
    int n_keys = call->s->position + i + 1, n_blocks = (n_keys - 1) / call->block_size + 1;
    int words = call->kept->cols / call->n_heads;
    uint32_t *bits = (uint32_t *)call->kept->data + row * call->kept->stride;

    memset(bits, n_blocks <= call->n ? 0xFF : 0, (size_t)call->kept->cols * sizeof *bits);
    if (n_blocks <= call->n)
        return;
    load_queries(call, room, row);
    for (int64_t b = 0; b < (int64_t)n_blocks * call->n_heads; b++)
        room->scores[b] = -INFINITY;
    score_keys(call, room, NULL, i, n_keys, keep_largest);
    for (int h = 0; h < call->n_heads; h++)
        mark_blocks(call, room, h, bits + (int64_t)h * words, n_keys);
}

/* Bits of the n best of m numbers, those that are equal to the last of them from the first on; each
 * number stands for run bits from i apart + first on, as far as there are n_bits. */
struct bit_runs {
    uint32_t *bits;
    int64_t apart, first, run, n_bits;
};

static void mark_earliest(const struct bit_runs *to, const float *scores, float *rest, int m, int n)
{
    float least;
    int above = 0;

    memcpy(rest, scores, (size_t)m * sizeof *rest);
    least = n < m ? nth_largest(rest, m, n) : -INFINITY;
    for (int i = 0; i < m; i++)
        above += scores[i] > least;
    for (int i = 0; i < m; i++) {
        bool equal = scores[i] == least && above < n;

        above += equal;
        if (!equal && !(scores[i] > least))
            continue;
        for (int64_t b = i * to->apart + to->first;
             b < i * to->apart + to->first + to->run && b < to->n_bits; b++)
            to->bits[b / 32] |= 1u << b % 32;
    }
}

/* The candidates of a row with n_keys pooled keys, of whose scores blocks gets the best. */
static void mark_candidates(const struct pooled_choice *p, const struct select_room *room,
                            uint32_t *candidates, int n_keys)
{
    int n = (n_keys - 1) / p->block_size + 1;
    float *blocks = room->rest + n_keys;
    struct bit_runs to = {candidates, p->block_size, 0, p->block_size, n_keys};

    for (int b = 0; b < n; b++)
        blocks[b] = b == n - 1 ? INFINITY : -INFINITY;
    for (int i = 0; i < n_keys; i++)
        blocks[i / p->block_size] = fmaxf(blocks[i / p->block_size], room->scores[i]);
    mark_earliest(&to, blocks, room->rest, n, p->n_blocks);
}

static void select_row_pooled(const struct select_call *call, const struct select_room *room, int i)
{
    const struct pooled_choice *p = call->pooled;
    int64_t row = call->s->row + i;
    int n_tokens = call->s->position + i + 1, n_keys = n_tokens / p->ratio;
    uint32_t *bits = (uint32_t *)call->kept->data + row * call->kept->stride;
    uint32_t *candidates =
        p->candidates ? (uint32_t *)p->candidates->data + row * p->candidates->stride : NULL;
    struct bit_runs to = {bits, p->ratio, p->ratio - 1, 1, n_tokens};

    memset(bits, 0, (size_t)call->kept->cols * sizeof *bits);
    if (p->n_blocks > 0)
        memset(candidates, 0, (size_t)p->candidates->cols * sizeof *candidates);
    if (n_keys == 0)
        return;
    load_queries(call, room, row);
    sum_keys(call, room, i, n_tokens);
    for (int k = 0; k < n_keys; k++)
        room->scores[k] = room->scores[(int64_t)k * p->ratio + p->ratio - 1];
    if (p->n_blocks > 0)
        mark_candidates(p, room, candidates, n_keys);
    for (int k = 0; k < n_keys && candidates && p->n_blocks == 0; k++)
        if (!(candidates[k / 32] >> k % 32 & 1))
            room->scores[k] = -INFINITY;
    mark_earliest(&to, room->scores, room->rest, n_keys, p->n);
}

static void select_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct select_call *call = ctx;
    size_t longest = (size_t)round_up(call->s->position + (int)end, 16);
    size_t q = (size_t)call->n_heads * (size_t)call->q_cols;
    size_t block = (size_t)round_up(call->n_heads * call->s_cols, 16), scores = longest, rows;
    float *scratch;
    struct select_room room;

    if (call->block_size)
        scores = (longest / (size_t)call->block_size + 1) * (size_t)call->n_heads;
    rows = kv_rows_room(call->kv, call->kv->block_tokens);
    scratch =
        cpu_scratch(call->d, thread, (q + block + scores + 2 * longest + rows) * sizeof(float));
    if (!scratch)
        return;
    room = (struct select_room){scratch, scratch + q, scratch + q + block,
                                scratch + q + block + scores,
                                scratch + q + block + scores + 2 * longest};
    for (int64_t i = begin; i < end; i++)
        if (call->pooled)
            select_row_pooled(call, &room, (int)i);
        else if (call->block_size)
            select_row_blocks(call, &room, (int)i);
        else
            select_row(call, &room, (int)i);
}

static void select_batch(struct cpu_device *c, struct select_call *call,
                         const struct kv_batch *batch)
{
    call->q_cols = round_up(call->kv->k_dim, c->vector.panel);
    call->s_cols = round_up(call->kv->block_tokens, 16 > c->vector.panel ? 16 : c->vector.panel);
    for (int i = 0; i < batch->n_sequences; i++) {
        call->s = &batch->sequences[i];
        thread_pool_for(c->pool, call->s->n_rows, 1, select_range, call);
    }
}

void cpu_select_keys(device *d, tensor *kept, const tensor *q, const tensor *w,
                     const struct kv_layer *kv, const struct kv_batch *batch, int n)
{
    struct cpu_device *c = cpu_device_of(d);
    struct select_call call = {
        .d = c, .kv = kv, .kept = kept, .q = q, .w = w, .n = n, .n_heads = w->cols};

    select_batch(c, &call, batch);
}

void cpu_select_blocks(device *d, tensor *kept, const tensor *q, const struct kv_layer *kv,
                       const struct kv_batch *batch, int n, int block_size, int n_local)
{
    struct cpu_device *c = cpu_device_of(d);
    struct select_call call = {.d = c,
                               .kv = kv,
                               .kept = kept,
                               .q = q,
                               .n = n,
                               .n_heads = q->cols / kv->k_dim,
                               .block_size = block_size,
                               .n_local = n_local};

    select_batch(c, &call, batch);
}

void cpu_select_pooled(device *d, tensor *kept, const tensor *q, const tensor *w,
                       const struct kv_layer *kv, const struct kv_batch *batch,
                       const struct pooled_choice *p)
{
    struct cpu_device *c = cpu_device_of(d);
    struct select_call call = {
        .d = c, .kv = kv, .kept = kept, .q = q, .w = w, .n_heads = w->cols, .pooled = p};

    select_batch(c, &call, batch);
}
