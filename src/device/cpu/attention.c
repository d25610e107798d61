/* device/cpu/attention.c: storing keys and values in the paged cache, and attending to them.
 *
 * The work is cut into pieces: some query rows of one sequence, all heads that share one kv head. A
 * piece visits the keys it may see in chunks that begin at multiples of CPU_ATTEND_CHUNK, and keeps
 * per query (a row and a head) the largest score M so far, the sum l of 2^(s - M), and the sum of
 * 2^(s - M) v:
 *
 *     s = q k^T             with scale log2(e) inside q, so that the softmax is in base 2
 *     M' = max(M, max s);  l = l 2^(M - M') + sum 2^(s - M');  acc = acc 2^(M - M') + 2^(s - M') v
 *     y = acc / l           arXiv:1805.02867, arXiv:2205.14135
 *
 * A sink is a key without a value: it begins the softmax with M = sink, l = 1.
 *
 * There are two ways to treat a chunk. Packed: keys and values are turned into f32 panels once and
 * meet all queries of the piece in register tiles; the prompt's way. Direct: they are read from the
 * cache as they lie, once for the few queries there are; then long sequences are also cut into
 * ranges of keys, whose results are put together at the end. Every number comes from the same
 * operations in the same order wherever its row lies in a packed piece, so exact mode uses only
 * this way.
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "device/cpu/cpu.h"
#include "device/cpu/kv_rows.h"
#include "device/cpu/ops.h"

enum {
    CHUNK = CPU_ATTEND_CHUNK,
    PIECE_QUERIES = 96, /* of a packed piece: enough to make packing cheap, few enough for the L2 */
    DIRECT_QUERIES = 16,   /* at most this many queries go the direct way, or one row */
    RANGE = 16 * CHUNK,    /* keys of a range; by position alone, so that threads change nothing */
    STORE_NUMBERS = 16384, /* numbers to store that are worth a thread */
    ATTEND_PRODUCTS = 131072 /* multiplications that are worth a thread */
};

static const float log2_e = 1.44269504088896340736f;

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

static int max_int(int a, int b)
{
    return a > b ? a : b;
}

/* --- kv_store --- */

struct store_call {
    const struct cpu_vector_kernels *kernels;
    const struct kv_layer *kv;
    const struct kv_sequence *sequences;
    const tensor *k, *v;
};

static void store_row(const struct store_call *call, const struct kv_sequence *s, int i)
{
    const struct kv_layer *kv = call->kv;
    const float *k = (const float *)call->k->data + (s->row + i) * call->k->stride;
    const float *v = (const float *)call->v->data + (s->row + i) * call->v->stride;
    int place;
    char *block = kv_block_of(kv, s, s->position + i, &place);

    for (int h = 0; h < kv->n_kv_heads; h++) {
        call->kernels->store[kv->type](kv_head_row(block, kv, kv->k_offset, h, place, kv->k_dim),
                                       k + (int64_t)h * kv->k_dim, kv->k_dim);
        call->kernels->store[kv->type](kv_head_row(block, kv, kv->v_offset, h, place, kv->v_dim),
                                       v + (int64_t)h * kv->v_dim, kv->v_dim);
    }
}

static void store_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct store_call *call = ctx;

    (void)thread;
    for (int64_t i = begin; i < end; i++)
        store_row(call, call->sequences, (int)i);
}

static void store_sequences(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct store_call *call = ctx;

    (void)thread;
    for (int64_t i = begin; i < end; i++)
        for (int row = 0; row < call->sequences[i].n_rows; row++)
            store_row(call, &call->sequences[i], row);
}

void cpu_kv_store(device *d, const struct kv_layer *kv, const struct kv_batch *batch,
                  const tensor *k, const tensor *v)
{
    struct cpu_device *c = cpu_device_of(d);
    struct store_call call = {&c->vector, kv, batch->sequences, k, v};
    int64_t row = (int64_t)kv->n_kv_heads * (kv->k_dim + kv->v_dim);
    int64_t grain = row < STORE_NUMBERS ? STORE_NUMBERS / (row ? row : 1) : 1;

    /* Long prompts row by row, then what is left, single tokens mostly, by sequences. */
    if (batch->n_sequences > 0 && batch->n_rows / batch->n_sequences < 4) {
        thread_pool_for(c->pool, batch->n_sequences, grain, store_sequences, &call);
        return;
    }
    for (int i = 0; i < batch->n_sequences; i++) {
        call.sequences = &batch->sequences[i];
        thread_pool_for(c->pool, call.sequences->n_rows, grain, store_rows, &call);
    }
}

/* --- attend: the pieces --- */

struct piece {
    const struct kv_sequence *s;
    int kv_head;
    int row, n_rows;        /* of the sequence's rows */
    int first_key, end_key; /* what it visits of what its rows may see */
    bool direct;
    int range, n_ranges; /* the pieces of one set of rows follow one another */
    int64_t partial; /* where its queries' results go in partials, if there are several ranges */
};

struct attend_call {
    struct cpu_device *d;
    const struct cpu_vector_kernels *kernels;
    const struct kv_layer *kv;
    const struct attend_params *p;
    const tensor *y, *q;
    int group;            /* query heads of a kv head */
    int k_cols, v_cols;   /* k_dim and v_dim, rounded up to panels */
    struct piece *pieces; /* in the device's shared scratch, as is partials */
    int64_t n_pieces;
    float *partials; /* per query: max, sum, padding to a panel, then v_cols of acc */
    int64_t n_partials;
};

/* Numbers of a query's partial result. */
static int64_t partial_size(const struct attend_call *call)
{
    return call->kernels->panel + call->v_cols;
}

/* The keys that the row at a position may see are [first_visible, position]. */
static int first_visible(const struct attend_call *call, const struct kv_sequence *s, int position)
{
    int first = call->p->window > 0 ? position - call->p->window + 1 : 0;
    int chunk = call->p->chunk > 0 ? position / call->p->chunk * call->p->chunk : 0;
    int64_t kept = (int64_t)s->first_block * call->kv->block_tokens;

    return max_int(max_int(first, chunk), (int)kept);
}

static bool is_direct(const struct attend_call *call, const struct kv_sequence *s)
{
    return !call->d->exact &&
           (s->n_rows == 1 || (int64_t)s->n_rows * call->group <= DIRECT_QUERIES);
}

static int rows_per_piece(const struct attend_call *call, const struct kv_sequence *s)
{
    return is_direct(call, s) ? s->n_rows : max_int(1, PIECE_QUERIES / call->group);
}

/* Where the range that holds key ends, at most end. */
static int next_range(int key, int end)
{
    return min_int(end, (key / RANGE + 1) * RANGE);
}

/* Adds the pieces of rows [row, row + n_rows) for all kv heads; without pieces, only counts them.
 */
static void add_pieces(struct attend_call *call, const struct kv_sequence *s, int row, int n_rows)
{
    bool direct = is_direct(call, s);
    int first = first_visible(call, s, s->position + row), end = s->position + row + n_rows;
    int n_ranges = direct ? (end - 1) / RANGE - first / RANGE + 1 : 1;

    struct piece piece = {
        .s = s, .row = row, .n_rows = n_rows, .direct = direct, .n_ranges = n_ranges};

    for (piece.kv_head = 0; piece.kv_head < call->kv->n_kv_heads; piece.kv_head++) {
        piece.end_key = first;
        for (piece.range = 0; piece.range < n_ranges; piece.range++) {
            piece.first_key = piece.end_key;
            piece.end_key = n_ranges > 1 ? next_range(piece.first_key, end) : end;
            piece.partial = call->n_partials;
            if (n_ranges > 1)
                call->n_partials += (int64_t)n_rows * call->group;
            if (call->pieces)
                call->pieces[call->n_pieces] = piece;
            call->n_pieces++;
        }
    }
}

/* Last rows first: they see most keys, and what is left at the end should be short. */
static void list_pieces(struct attend_call *call, const struct kv_batch *batch)
{
    call->n_pieces = call->n_partials = 0;
    for (int i = 0; i < batch->n_sequences; i++) {
        const struct kv_sequence *s = &batch->sequences[i];
        int rows = s->n_rows > 0 ? rows_per_piece(call, s) : 1;

        for (int row = s->n_rows > 0 ? (s->n_rows - 1) / rows * rows : -1; row >= 0; row -= rows)
            add_pieces(call, s, row, min_int(rows, s->n_rows - row));
    }
}

/* --- attend: one piece --- */

/* The state of a piece, in the scratch of its thread. n_queries = n_rows * group; query i is row
 * i / group, head i % group of the group. */
struct state {
    const struct attend_call *call;
    const struct piece *piece;
    int n_queries;
    int base;         /* position of the chunk that is visited */
    float *q;         /* [n_queries, k_cols], scaled, padded with zeros */
    float *s;         /* [n_queries, CHUNK] */
    float *acc;       /* [n_queries, v_cols] */
    float *max, *sum; /* [n_queries] */
    float *keys;      /* panels; packed pieces only */
    float *values;
};

/* Takes count numbers from a block of scratch, 64-byte aligned; with base NULL only adds up. */
static float *take(float *base, size_t *used, int64_t count)
{
    size_t at = *used;

    *used += (size_t)round_up(count, 16);
    return base ? base + at : NULL;
}

static size_t lay_out(struct state *st, float *base)
{
    const struct attend_call *call = st->call;
    size_t used = 0;

    st->q = take(base, &used, (int64_t)st->n_queries * call->k_cols);
    st->s = take(base, &used, (int64_t)st->n_queries * CHUNK);
    st->acc = take(base, &used, (int64_t)st->n_queries * call->v_cols);
    st->max = take(base, &used, st->n_queries);
    st->sum = take(base, &used, st->n_queries);
    if (!st->piece->direct) {
        st->keys = take(base, &used, (int64_t)call->kv->k_dim * CHUNK);
        st->values = take(base, &used, (int64_t)call->v_cols * CHUNK);
    }
    return used * sizeof(float);
}

static int position_of(const struct state *st, int query)
{
    return st->piece->s->position + st->piece->row + query / st->call->group;
}

static int head_of(const struct state *st, int query)
{
    int in_group = query % st->call->group;

    return st->call->p->tiled ? in_group * st->call->kv->n_kv_heads + st->piece->kv_head
                              : st->piece->kv_head * st->call->group + in_group;
}

static int64_t batch_row(const struct state *st, int query)
{
    return st->piece->s->row + st->piece->row + query / st->call->group;
}

/* The queries, and the softmax before any key. */
static void begin_piece(struct state *st)
{
    const struct attend_call *call = st->call;
    const struct attend_params *p = call->p;
    int dim = call->kv->k_dim;
    float scale = p->softcap > 0 ? p->scale / p->softcap : p->scale * log2_e;
    bool sink_here = p->sinks && st->piece->range == 0;

    for (int i = 0; i < st->n_queries; i++) {
        const float *from = (const float *)call->q->data + batch_row(st, i) * call->q->stride +
                            (int64_t)head_of(st, i) * dim;
        float *to = st->q + (int64_t)i * call->k_cols;

        for (int j = 0; j < call->k_cols; j++)
            to[j] = j < dim ? from[j] * scale : 0.0f;
        st->max[i] = sink_here ? p->sinks[head_of(st, i)] * log2_e : -INFINITY;
        st->sum[i] = sink_here ? 1.0f : 0.0f;
    }
    memset(st->acc, 0, (size_t)st->n_queries * (size_t)call->v_cols * sizeof *st->acc);
}

/* Keys of the chunk, counted from its base. */
struct span {
    int begin, end;
};

/* Those that query may see. */
static struct span visible(const struct state *st, int query)
{
    int position = position_of(st, query);
    int first = max_int(first_visible(st->call, st->piece->s, position), st->piece->first_key);
    int end = min_int(position + 1, st->piece->end_key);

    return (struct span){max_int(first - st->base, 0), min_int(end - st->base, CHUNK)};
}

static bool block_is_seen(const struct attend_params *p, int head, int row_block, int block)
{
    return row_block - block < p->local_blocks ||
           (block + (int64_t)head * p->block_step + 1) % p->block_stride == 0;
}

/* Of the set that the query's head has a share in. */
static const uint32_t *kept_bits(const struct state *st, int query)
{
    const struct attend_params *p = st->call->p;
    int n_sets = p->kept_sets > 1 ? p->kept_sets : 1;
    int set = head_of(st, query) / (p->n_heads / n_sets);

    return (const uint32_t *)p->kept->data + batch_row(st, query) * p->kept->stride +
           (int64_t)set * (p->kept->cols / n_sets);
}

/* Keys that the query does not see are hidden; false when it sees none. */
static bool keep(const struct state *st, int query, float *s, int from, struct span seen)
{
    const struct attend_params *p = st->call->p;
    const tensor *kept = p->kept;
    const uint32_t *bits = kept ? kept_bits(st, query) : NULL;
    int row_block = p->block_size ? position_of(st, query) / p->block_size : 0;
    bool any = false;

    for (int i = seen.begin; i < seen.end; i++) {
        int key = st->base + i;

        if ((!bits || bits[key / 32] >> key % 32 & 1) &&
            (!p->block_size ||
             block_is_seen(p, head_of(st, query), row_block, key / p->block_size)))
            any = true;
        else
            s[i - from] = -INFINITY;
    }
    return any;
}

/* The step of the softmax for one query, over the scores [from, from + n) of a chunk. */
static void soften(struct state *st, int query, int from, int n)
{
    const struct attend_call *call = st->call;
    struct span seen = visible(st, query);
    float *s = st->s + (int64_t)query * CHUNK + from;
    float *acc = st->acc + (int64_t)query * call->v_cols;

    if (seen.begin >= seen.end ||
        ((call->p->kept || call->p->block_size) && !keep(st, query, s, from, seen))) {
        memset(s, 0, (size_t)n * sizeof *s);
        return;
    }
    if (call->p->slopes) {
        float slope = call->p->slopes[head_of(st, query)] * log2_e;
        int ahead = st->base + from - position_of(st, query);

        for (int i = 0; i < n; i++)
            s[i] += slope * (float)(ahead + i);
    }
    if (call->p->softcap > 0)
        call->kernels->cap_scores(s, n, call->p->softcap * log2_e);
    float factor = call->kernels->softmax_step(s, n, seen.begin - from, seen.end - from,
                                               &st->max[query], &st->sum[query]);
    if (factor != 1.0f)
        call->kernels->scale(acc, call->v_cols, factor);
}

/* Calls fn for every stretch of the keys [begin, end) of a chunk that lies in one block. */
typedef void (*stretch_fn)(struct state *st, char *block, int place, int key, int n);

static void for_stretches(struct state *st, struct span keys, stretch_fn fn)
{
    const struct kv_layer *kv = st->call->kv;

    for (int key = keys.begin; key < keys.end;) {
        int place;
        char *block = kv_block_of(kv, st->piece->s, st->base + key, &place);
        int n = min_int(kv->block_tokens - place, keys.end - key);

        fn(st, block, place, key, n);
        key += n;
    }
}

/* --- A chunk, the packed way --- */

static void pack_stretch(struct state *st, char *block, int place, int key, int n)
{
    const struct kv_layer *kv = st->call->kv;
    const struct cpu_vector_kernels *k = st->call->kernels;
    int h = st->piece->kv_head;

    k->pack_keys[kv->type](st->keys, kv_head_row(block, kv, kv->k_offset, h, place, kv->k_dim), key,
                           n, kv->k_dim);
    k->pack_values[kv->type](st->values, kv_head_row(block, kv, kv->v_offset, h, place, kv->v_dim),
                             key, n, kv->v_dim);
}

/* The queries [first, first + n) of a register tile; they see keys between those of the first and
 * of the last of them. Hidden keys have weight 0, which leaves the sums as they are. */
static void packed_tile(struct state *st, int first, int n)
{
    const struct attend_call *call = st->call;
    const struct cpu_vector_kernels *k = call->kernels;
    int panel = k->panel, k_dim = call->kv->k_dim;
    struct span keys = {visible(st, first).begin, visible(st, first + n - 1).end};
    float *s = st->s + (int64_t)first * CHUNK;

    if (keys.begin >= keys.end)
        return;
    int from = keys.begin / panel * panel, to = (int)round_up(keys.end, panel);
    k->product(s + from, CHUNK, st->q + (int64_t)first * call->k_cols, call->k_cols,
               st->keys + (int64_t)from * k_dim, k_dim * panel, n, (to - from) / panel, k_dim,
               false);
    for (int i = first; i < first + n; i++)
        soften(st, i, from, to - from);
    k->product(st->acc + (int64_t)first * call->v_cols, call->v_cols, s + keys.begin, CHUNK,
               st->values + (int64_t)keys.begin * panel, CHUNK * panel, n, call->v_cols / panel,
               keys.end - keys.begin, true);
}

static void packed_chunk(struct state *st, struct span keys)
{
    int rows = st->call->kernels->tile_rows;

    for_stretches(st, keys, pack_stretch);
    for (int i = 0; i < st->n_queries; i += rows)
        packed_tile(st, i, min_int(rows, st->n_queries - i));
}

/* --- A chunk, the direct way --- */

/* The values of the stretch are wanted next, */
static void score_stretch(struct state *st, char *block, int place, int key, int n)
{
    const struct attend_call *call = st->call;
    const struct kv_layer *kv = call->kv;
    int head = st->piece->kv_head;

    call->kernels->scores[kv->type](st->s + key, CHUNK, st->q, call->k_cols, st->n_queries,
                                    kv_head_row(block, kv, kv->k_offset, head, place, kv->k_dim), n,
                                    kv->k_dim,
                                    kv_head_row(block, kv, kv->v_offset, head, place, kv->v_dim));
}

/* and then the keys of the next chunk. */
static void weigh_stretch(struct state *st, char *block, int place, int key, int n)
{
    const struct attend_call *call = st->call;
    const struct kv_layer *kv = call->kv;
    int head = st->piece->kv_head, next = st->base + key + CHUNK;
    const void *ahead = NULL;

    if (next + n <= st->piece->end_key) {
        int next_place;
        char *next_block = kv_block_of(kv, st->piece->s, next, &next_place);

        ahead = kv_head_row(next_block, kv, kv->k_offset, head, next_place, kv->k_dim);
    }
    call->kernels->weigh[kv->type](st->acc, call->v_cols, st->s + key, CHUNK, st->n_queries,
                                   kv_head_row(block, kv, kv->v_offset, head, place, kv->v_dim), n,
                                   kv->v_dim, ahead);
}

static void direct_chunk(struct state *st, struct span keys)
{
    int panel = st->call->kernels->panel;
    int from = keys.begin / panel * panel, to = (int)round_up(keys.end, panel);

    for_stretches(st, keys, score_stretch);
    for (int i = 0; i < st->n_queries; i++)
        soften(st, i, from, to - from);
    for_stretches(st, keys, weigh_stretch);
}

/* --- attend: results --- */

static float *partial_of(const struct attend_call *call, int64_t i)
{
    return call->partials + i * partial_size(call);
}

static float *y_of(const struct state *st, int query)
{
    const struct attend_call *call = st->call;

    return (float *)call->y->data + batch_row(st, query) * call->y->stride +
           (int64_t)head_of(st, query) * call->kv->v_dim;
}

/* acc / sum, of a query that has seen keys with this largest score; 0 of one that has not. */
static void end_query(const struct state *st, int query, float *y, const float *acc, float max,
                      float sum)
{
    const struct attend_call *call = st->call;
    const tensor *log_sums = call->p->log_sums;

    for (int j = 0; j < call->kv->v_dim; j++)
        y[j] = log_sums && sum == 0 ? 0 : acc[j] / sum;
    if (log_sums)
        ((float *)log_sums->data)[batch_row(st, query) * log_sums->stride + head_of(st, query)] =
            sum == 0 ? -INFINITY : (max + log2f(sum)) / log2_e;
}

static void end_piece(struct state *st)
{
    const struct attend_call *call = st->call;

    for (int i = 0; i < st->n_queries; i++) {
        const float *acc = st->acc + (int64_t)i * call->v_cols;

        if (st->piece->n_ranges == 1) {
            end_query(st, i, y_of(st, i), acc, st->max[i], st->sum[i]);
        } else {
            float *partial = partial_of(call, st->piece->partial + i);

            partial[0] = st->max[i];
            partial[1] = st->sum[i];
            memcpy(partial + call->kernels->panel, acc, (size_t)call->v_cols * sizeof *acc);
        }
    }
}

static void attend_piece(const struct attend_call *call, const struct piece *piece, int thread)
{
    struct state st = {.call = call, .piece = piece, .n_queries = piece->n_rows * call->group};
    float *scratch = cpu_scratch(call->d, thread, lay_out(&st, NULL));

    if (!scratch)
        return;
    lay_out(&st, scratch);
    begin_piece(&st);
    st.base = piece->first_key / CHUNK * CHUNK;
    for (; st.base < piece->end_key; st.base += CHUNK) {
        struct span keys = {max_int(piece->first_key - st.base, 0),
                            min_int(piece->end_key - st.base, CHUNK)};

        if (piece->direct)
            direct_chunk(&st, keys);
        else
            packed_chunk(&st, keys);
    }
    end_piece(&st);
}

static void attend_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct attend_call *call = ctx;

    for (int64_t i = begin; i < end; i++)
        attend_piece(call, &call->pieces[i], thread);
}

/* y of one query from the results of n ranges, in order, partials apart. */
static void combine_query(const struct state *st, int query, int64_t partial, int n, int apart)
{
    const struct attend_call *call = st->call;
    float max = -INFINITY, sum = 0, *y = y_of(st, query);
    int dim = call->kv->v_dim;

    for (int i = 0; i < n; i++)
        max = fmaxf(max, partial_of(call, partial + (int64_t)i * apart)[0]);
    memset(y, 0, (size_t)dim * sizeof *y);
    for (int i = 0; i < n; i++) {
        const float *p = partial_of(call, partial + (int64_t)i * apart);
        float factor = p[1] == 0 ? 0 : exp2f(p[0] - max);

        sum += factor * p[1];
        call->kernels->add(y, p + call->kernels->panel, dim, factor);
    }
    end_query(st, query, y, y, max, sum);
}

static void combine_ranges(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct attend_call *call = ctx;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const struct piece *piece = &call->pieces[i];
        struct state st = {.call = call, .piece = piece, .n_queries = piece->n_rows * call->group};

        if (piece->n_ranges > 1 && piece->range == 0)
            for (int query = 0; query < st.n_queries; query++)
                combine_query(&st, query, piece->partial + query, piece->n_ranges, st.n_queries);
    }
}

/* Pieces that one thread should take at a time. */
static int64_t attend_grain(const struct attend_call *call)
{
    double products = 0;

    for (int64_t i = 0; i < call->n_pieces; i++) {
        const struct piece *p = &call->pieces[i];

        products += (double)(p->end_key - p->first_key) * p->n_rows;
    }
    products *= (double)call->group * (call->k_cols + call->v_cols);
    return 1 + (int64_t)(ATTEND_PRODUCTS * (double)call->n_pieces / (products + 1));
}

void cpu_attend(device *d, tensor *y, const tensor *q, const struct kv_layer *kv,
                const struct kv_batch *batch, const struct attend_params *p)
{
    struct cpu_device *c = cpu_device_of(d);
    struct attend_call call = {
        .d = c,
        .kernels = &c->vector,
        .kv = kv,
        .p = p,
        .y = y,
        .q = q,
        .group = p->n_heads / kv->n_kv_heads,
        .k_cols = (int)round_up(kv->k_dim, c->vector.panel),
        .v_cols = (int)round_up(kv->v_dim, c->vector.panel),
    };

    list_pieces(&call, batch);
    size_t pieces_bytes = (size_t)round_up(call.n_pieces * (int64_t)sizeof *call.pieces, 64);
    size_t partials_bytes = (size_t)(call.n_partials * partial_size(&call)) * sizeof *call.partials;
    char *scratch = cpu_scratch(c, thread_pool_size(c->pool), pieces_bytes + partials_bytes);
    if (!scratch)
        return;
    call.pieces = (struct piece *)scratch;
    call.partials = (float *)(scratch + pieces_bytes);
    list_pieces(&call, batch);

    int64_t grain = attend_grain(&call);
    thread_pool_for(c->pool, call.n_pieces, grain, attend_range, &call);
    if (call.n_partials > 0)
        thread_pool_for(c->pool, call.n_pieces, 4 * grain, combine_ranges, &call);
}
