/* device/cpu/attention.c: attending to the keys and values in the paged cache.
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
 * There are three ways to treat a chunk. Packed: keys and values are turned into f32 panels once
 * and meet all queries of the piece in register tiles; the prompt's way. Every number comes from
 * the same operations in the same order wherever its row lies, so exact mode uses only this way. In
 * whole numbers, attention_int.c: the same on integers; the long prompt's way. Direct: keys and
 * values are read from the cache as they lie, once for the few queries there are; then long
 * sequences are also cut into ranges of keys, whose results are put together at the end;
 * attention_direct.c.
 *
 * Quantised rows of a block become numbers in the scratch of the thread, as they are needed; the
 * direct way reads their codes, where there are kernels for that.
 *
 * Where the cache has let go of keys behind the first ones, a piece leaves out what its first row
 * no longer sees; keys that only later rows do not see are hidden from these one by one.
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "device/cpu/attention_piece.h"
#include "device/cpu/ops.h"

enum {
    PIECE_QUERIES = 96, /* of a packed piece: enough to make packing cheap, few enough for the L2 */
    INT_NUMBERS = 192,  /* of a query and its sums; larger ones are fewer, for the L2's sake */
    INT_TOKENS = 1024,  /* sequences up to here are treated in f32: it costs them little */
    DIRECT_QUERIES = 16, /* at most this many queries go the direct way, or one row */
    RANGE = 16 * CHUNK,  /* keys of a range; by position alone, so that threads change nothing */
    TURNS = 8,           /* of a thread, where there are many pieces; at the end smaller ones, */
    LAST_TURNS = 2,      /* instead of so many, */
    LAST_PARTS = 4,      /* as many of each */
    TOGETHER_BYTES = 262144,  /* room for states of pieces that are treated together */
    MIN_GROUP = 32,           /* of codes that kernels read as they are */
    LINE_NUMBERS = 16,        /* of a line of a cache */
    ATTEND_PRODUCTS = 131072, /* multiplications that are worth a thread */
    COMBINED_NUMBERS = 16384  /* of partial results that are, too */
};

static const float log2_e = 1.44269504088896340736f;

/* --- attend: the pieces --- */

/* Numbers of a query's partial result. */
static int64_t partial_size(const struct attend_call *call)
{
    return call->kernels->panel + call->v_cols;
}

/* The keys that the row at a position may see. */
static struct kv_sight sight_of(const struct attend_call *call, const struct kv_sequence *s,
                                int position)
{
    const struct kv_layer *kv = call->kv;
    int first = call->p->window > 0 ? position - call->p->window + 1 : 0;
    int chunk = call->p->chunk > 0 ? position / call->p->chunk * call->p->chunk : 0;
    bool all = s->n_kept > 0 || s->n_mapped > 0;
    int64_t held = all ? 0 : (int64_t)s->n_gone * kv->block_tokens;

    return kv_sight_of(kv, position, max_int(max_int(first, chunk), (int)held));
}

static bool is_direct(const struct attend_call *call, const struct kv_sequence *s)
{
    return !call->d->exact &&
           (s->n_rows == 1 || (int64_t)s->n_rows * call->group <= DIRECT_QUERIES);
}

static enum piece_way way_of(const struct attend_call *call, const struct kv_sequence *s)
{
    if (is_direct(call, s))
        return WAY_DIRECT;
    return call->kernels->integers && !call->d->exact && s->position + s->n_rows > INT_TOKENS
               ? WAY_INTEGERS
               : WAY_PACKED;
}

/* Of a piece in whole numbers, for which packing costs more. */
static int int_queries(const struct attend_call *call)
{
    int most = call->kernels->integers->most_queries;

    return min_int(most, most * INT_NUMBERS / (call->k_cols + call->v_cols));
}

static int rows_per_piece(const struct attend_call *call, const struct kv_sequence *s)
{
    switch (way_of(call, s)) {
    case WAY_DIRECT:
        return s->n_rows;
    case WAY_INTEGERS:
        return max_int(1, int_queries(call) / call->group);
    default:
        return max_int(1, PIECE_QUERIES / call->group);
    }
}

/* Where the range that holds key ends, at most end. */
static int next_range(int key, int end)
{
    return min_int(end, (key / RANGE + 1) * RANGE);
}

/* The next key from key on that the piece visits. */
static int skip_hole(const struct piece *p, int key)
{
    return key >= p->hole && key < p->hole_end ? p->hole_end : key;
}

static void add_piece(struct attend_call *call, const struct piece *p)
{
    if (call->pieces)
        call->pieces[call->n_pieces] = *p;
    call->n_pieces++;
}

/* Of the keys [piece.first_key, end) and some heads, those of a range one after another; partial
 * results of a head's ranges follow one another. */
static void add_ranges(struct attend_call *call, const struct piece *all, int end, int head,
                       int end_head)
{
    struct piece piece = *all;
    int n_queries = piece.n_rows * call->group, key = piece.first_key;

    for (piece.range = 0; piece.range < piece.n_ranges; piece.range++) {
        piece.first_key = skip_hole(&piece, key);
        piece.end_key = key = piece.n_ranges > 1 ? next_range(piece.first_key, end) : end;
        for (piece.kv_head = head; piece.kv_head < end_head; piece.kv_head++) {
            piece.partial = call->n_partials;
            if (piece.n_ranges > 1)
                piece.partial +=
                    ((int64_t)piece.kv_head * piece.n_ranges + piece.range) * n_queries;
            add_piece(call, &piece);
        }
    }
}

/* Adds the pieces of rows [row, row + n_rows) for all kv heads; without pieces, only counts them.
 */
static void add_pieces(struct attend_call *call, const struct kv_sequence *s, int row, int n_rows)
{
    struct kv_sight sight = sight_of(call, s, s->position + row);
    int end = s->position + row + n_rows;
    struct piece piece = {.s = s,
                          .row = row,
                          .n_rows = n_rows,
                          .first_key = sight.first,
                          .end_key = end,
                          .hole = sight.hole,
                          .hole_end = sight.hole_end,
                          .way = way_of(call, s),
                          .n_ranges = 1};

    if (piece.way == WAY_DIRECT) {
        int key = next_range(sight.first, end);

        for (key = skip_hole(&piece, key); key < end; piece.n_ranges++)
            key = skip_hole(&piece, next_range(key, end));
    }
    /* Codes are read head by head, by which their kernels gain more than by memory's order. */
    int n_heads = call->kv->n_kv_heads, step = call->kv->bits ? 1 : n_heads;

    for (int head = 0; head < n_heads; head += step)
        add_ranges(call, &piece, end, head, head + step);
    if (piece.n_ranges > 1)
        call->n_partials += (int64_t)n_heads * piece.n_ranges * n_rows * call->group;
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

/* Of 16 bits, that the queries become for kernels->paired. */
static int64_t turned_numbers(const struct state *st)
{
    return 4 * round_up(st->n_queries, 4) * round_up(st->call->kv->k_dim, 32);
}

/* Keys that are treated at once; fewer where the scores of many queries would take much room. */
static int chunk_of(const struct state *st)
{
    switch (st->piece->way) {
    case WAY_DIRECT:
        return st->n_queries <= DIRECT_QUERIES
                   ? (st->call->kv->bits ? CPU_DIRECT_CHUNK / 2 : CPU_DIRECT_CHUNK)
                   : CHUNK;
    case WAY_INTEGERS:
        return st->call->kernels->integers->chunk;
    default:
        return CHUNK;
    }
}

static size_t lay_out(struct state *st, float *base)
{
    const struct attend_call *call = st->call;
    enum piece_way way = st->piece->way;
    size_t used = 0;

    st->chunk = chunk_of(st);
    st->n_held = way == WAY_INTEGERS ? (int)round_up(st->n_queries, CPU_INT_ROWS) : st->n_queries;
    st->q = take(base, &used, (int64_t)st->n_held * call->k_cols);
    st->s =
        take(base, &used, (int64_t)(way == WAY_INTEGERS ? CPU_INT_ROWS : st->n_held) * st->chunk);
    st->acc = take(base, &used, (int64_t)st->n_held * call->v_cols);
    st->max = take(base, &used, st->n_held);
    st->sum = take(base, &used, st->n_held);
    if (way == WAY_INTEGERS)
        attention_int_lay_out(st, base, &used);
    if (way == WAY_DIRECT) {
        st->rounded.words = (int16_t *)take(base, &used, (int64_t)st->n_held * call->k_cols / 2);
        st->rounded.steps = take(base, &used, (int64_t)st->n_held * call->k_cols / MIN_GROUP);
        st->rounded.sums = take(base, &used, (int64_t)st->n_held * call->k_cols / MIN_GROUP);
        if (call->kernels->paired)
            st->turned = (uint16_t *)take(base, &used, turned_numbers(st) / 2);
    }
    if (way == WAY_PACKED) {
        st->keys = take(base, &used, (int64_t)call->kv->k_dim * CHUNK);
        st->values = take(base, &used, (int64_t)call->v_cols * CHUNK);
    }
    st->room = take(base, &used, (int64_t)kv_rows_room(call->kv, st->chunk));
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
    memset(st->acc, 0, (size_t)st->n_held * (size_t)call->v_cols * sizeof *st->acc);
    if (st->piece->way == WAY_INTEGERS)
        attention_int_begin(st);
}

struct span attention_visible(const struct state *st, int query)
{
    const struct piece *p = st->piece;
    int position = position_of(st, query);
    struct kv_sight sight = sight_of(st->call, p->s, position);

    return attention_span(st, max_int(sight.first, p->first_key),
                          min_int(position + 1, p->end_key));
}

/* What lies between them that it may not see. */
static struct span unseen(const struct state *st, int query)
{
    struct kv_sight sight = sight_of(st->call, st->piece->s, position_of(st, query));

    return attention_span(st, sight.hole, sight.hole_end);
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
static bool keep(const struct state *st, int query, float *s, int from, struct span seen,
                 struct span hole)
{
    const struct attend_params *p = st->call->p;
    const tensor *kept = p->kept;
    const uint32_t *bits = kept ? kept_bits(st, query) : NULL;
    int row_block = p->block_size ? position_of(st, query) / p->block_size : 0;
    bool any = false;

    for (int i = seen.begin; i < seen.end; i++) {
        int key = st->base + i;

        if ((i < hole.begin || i >= hole.end) && (!bits || bits[key / 32] >> key % 32 & 1) &&
            (!p->block_size ||
             block_is_seen(p, head_of(st, query), row_block, key / p->block_size)))
            any = true;
        else
            s[i - from] = -INFINITY;
    }
    return any;
}

bool attention_see(const struct state *st, int query, float *s, int from, int n, struct span *seen)
{
    const struct attend_params *p = st->call->p;
    struct span hole = unseen(st, query);

    *seen = attention_visible(st, query);
    if (seen->begin >= seen->end)
        return false;
    if (p->slopes) {
        float slope = p->slopes[head_of(st, query)] * log2_e;
        int ahead = st->base + from - position_of(st, query);

        for (int i = 0; i < n; i++)
            s[i] += slope * (float)(ahead + i);
    }
    if (p->softcap > 0)
        st->call->kernels->cap_scores(s, n, p->softcap * log2_e);
    return !(p->kept || p->block_size || hole.begin < hole.end) ||
           keep(st, query, s, from, *seen, hole);
}

void attention_soften(struct state *st, int query, int from, int n)
{
    const struct attend_call *call = st->call;
    float *s = st->s + (int64_t)query * st->chunk + from;
    struct span seen;

    if (!attention_see(st, query, s, from, n, &seen)) {
        memset(s, 0, (size_t)n * sizeof *s);
        return;
    }
    float factor = call->kernels->softmax_step(s, n, seen.begin - from, seen.end - from,
                                               &st->max[query], &st->sum[query]);
    if (factor != 1.0f)
        call->kernels->scale(st->acc + (int64_t)query * call->v_cols, call->v_cols, factor);
}

/* --- A chunk, the packed way --- */

static void pack_stretch(struct state *st, const struct kv_layer *at, char *block, int place,
                         int key, int n)
{
    const struct cpu_vector_kernels *k = st->call->kernels;
    int h = st->piece->kv_head;
    struct kv_rows rows = kv_read_keys(k, at, block, h, place, n, st->room);

    k->pack_keys[rows.type](st->keys, rows.data, key, n, at->k_dim);
    rows = kv_read_values(k, at, block, h, place, n, st->room);
    k->pack_values[rows.type](st->values, rows.data, key, n, at->v_dim);
}

/* acc += s values over keys [begin, end). */
static void weigh_panels(const struct state *st, int first, int n, int begin, int end)
{
    const struct attend_call *call = st->call;
    const struct cpu_vector_kernels *k = call->kernels;

    if (begin < end)
        k->product(st->acc + (int64_t)first * call->v_cols, call->v_cols,
                   st->s + (int64_t)first * CHUNK + begin, CHUNK,
                   st->values + (int64_t)begin * k->panel, CHUNK * k->panel, n,
                   call->v_cols / k->panel, end - begin, true);
}

/* The queries [first, first + n) of a register tile; they see keys between those of the first and
 * of the last of them. Hidden keys have weight 0, which leaves the sums as they are; what the piece
 * leaves out has no values. */
static void packed_tile(struct state *st, int first, int n)
{
    const struct attend_call *call = st->call;
    const struct cpu_vector_kernels *k = call->kernels;
    int panel = k->panel, k_dim = call->kv->k_dim;
    struct span keys = {attention_visible(st, first).begin,
                        attention_visible(st, first + n - 1).end};
    struct span hole = attention_span(st, st->piece->hole, st->piece->hole_end);
    float *s = st->s + (int64_t)first * CHUNK;

    if (keys.begin >= keys.end)
        return;
    int from = keys.begin / panel * panel, to = (int)round_up(keys.end, panel);
    k->product(s + from, CHUNK, st->q + (int64_t)first * call->k_cols, call->k_cols,
               st->keys + (int64_t)from * k_dim, k_dim * panel, n, (to - from) / panel, k_dim,
               false);
    for (int i = first; i < first + n; i++)
        attention_soften(st, i, from, to - from);
    if (hole.begin >= hole.end)
        hole = (struct span){keys.end, keys.end};
    weigh_panels(st, first, n, keys.begin, min_int(keys.end, hole.begin));
    weigh_panels(st, first, n, max_int(keys.begin, hole.end), keys.end);
}

static void packed_chunk(struct state *st, struct span keys)
{
    int rows = st->call->kernels->tile_rows;

    attention_stretches(st, keys, pack_stretch);
    for (int i = 0; i < st->n_queries; i += rows)
        packed_tile(st, i, min_int(rows, st->n_queries - i));
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

/* How many of n pieces differ in nothing but the head. */
static int alike(const struct piece *p, int64_t n)
{
    int same = 1;

    while (same < n && same < ATTEND_TOGETHER && p->way == WAY_DIRECT && p[same].s == p->s &&
           p[same].row == p->row && p[same].range == p->range)
        same++;
    return same;
}

/* The first of n pieces, and those after it that are treated with it, of which the number is
 * returned. */
static int attend_pieces(const struct attend_call *call, const struct piece *piece, int64_t n,
                         int thread)
{
    struct state states[ATTEND_TOGETHER];

    states[0] = (struct state){.call = call,
                               .piece = piece,
                               .n_queries = piece->n_rows * call->group,
                               .first_head = piece->kv_head};
    size_t bytes = lay_out(states, NULL);
    int most = call->kv->bits ? 1 : max_int(1, (int)(TOGETHER_BYTES / bytes));
    int count = min_int(alike(piece, n), most);
    char *scratch = cpu_scratch(call->d, thread, (size_t)count * bytes);

    if (!scratch)
        return count;
    for (int i = 0; i < count; i++) {
        if (i > 0)
            states[i] = states[0];
        states[i].piece = piece + i;
        states[i].end_head = piece->kv_head + count;
        states[i].next = count < n ? piece + count : NULL;
        lay_out(&states[i], (float *)(scratch + (size_t)i * bytes));
        begin_piece(&states[i]);
    }
    for (int key = piece->first_key; key < piece->end_key;
         key = skip_hole(piece, states->base + states->chunk)) {
        struct span keys;

        for (int i = 0; i < count; i++)
            states[i].base = key / states->chunk * states->chunk;
        keys = attention_span(states, piece->first_key, piece->end_key);
        if (piece->way == WAY_DIRECT)
            attention_direct_chunk(states, count, keys);
        else if (piece->way == WAY_INTEGERS)
            attention_int_chunk(states, keys);
        else
            packed_chunk(states, keys);
    }
    for (int i = 0; i < count; i++)
        end_piece(&states[i]);
    return count;
}

/* The first piece of a turn. */
static int64_t turn_begins(const struct attend_call *call, int64_t turn)
{
    int64_t whole = turn < call->whole_turns ? turn : call->whole_turns;
    int64_t piece = whole * call->turn + (turn - whole) * call->last_turn;

    return piece < call->n_pieces ? piece : call->n_pieces;
}

static void attend_turns(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct attend_call *call = ctx;

    for (int64_t turn = begin; turn < end; turn++) {
        int64_t to = turn_begins(call, turn + 1);

        for (int64_t i = turn_begins(call, turn); i < to;)
            i += attend_pieces(call, &call->pieces[i], to - i, thread);
    }
}

/* y of one query from the results of n ranges, in order, partials apart. */
static void combine_query(const struct state *st, int query, int64_t partial, int n, int apart)
{
    const struct attend_call *call = st->call;
    float max = -INFINITY, sum = 0, *y = y_of(st, query);
    int dim = call->kv->v_dim;

    for (int i = 0; i < n; i++) {
        const float *p = partial_of(call, partial + (int64_t)i * apart);

        max = fmaxf(max, p[0]);
        for (int j = 0; j < dim; j += LINE_NUMBERS) /* another thread has written half of it */
            __builtin_prefetch(p + call->kernels->panel + j);
    }
    memset(y, 0, (size_t)dim * sizeof *y);
    for (int i = 0; i < n; i++) {
        const float *p = partial_of(call, partial + (int64_t)i * apart);
        float factor = p[1] == 0 ? 0 : exp2f(p[0] - max);

        sum += factor * p[1];
        call->kernels->add(y, p + call->kernels->panel, dim, factor);
    }
    end_query(st, query, y, y, max, sum);
}

/* The queries of a set of rows are shared out among its pieces. */
static void combine_ranges(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct attend_call *call = ctx;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const struct piece *piece = &call->pieces[i];
        int n = piece->n_rows * call->group;
        struct state st = {.call = call, .piece = piece, .n_queries = n};
        int64_t first = piece->partial - (int64_t)piece->range * n;

        for (int query = piece->range; piece->n_ranges > 1 && query < n; query += piece->n_ranges)
            combine_query(&st, query, first + query, piece->n_ranges, n);
    }
}

/* Pieces that are worth a thread. */
static int64_t worth_of(const struct attend_call *call)
{
    double products = 0;

    for (int64_t i = 0; i < call->n_pieces; i++) {
        const struct piece *p = &call->pieces[i];

        products += (double)(p->end_key - p->first_key) * p->n_rows;
    }
    products *= (double)call->group * (call->k_cols + call->v_cols);
    return 1 + (int64_t)(ATTEND_PRODUCTS * (double)call->n_pieces / (products + 1));
}

/* A thread takes as many pieces at a time as leave each some turns, for what heads have in common
 * is then read in its order, and fewer at the end, where threads wait for each other. */
static void share_out(struct attend_call *call)
{
    int n_threads = thread_pool_size(call->d->pool);
    int64_t worth = worth_of(call), many = call->n_pieces / (TURNS * n_threads);

    call->turn = worth > many ? worth : many;
    call->last_turn = call->turn / LAST_PARTS > worth ? call->turn / LAST_PARTS : worth;
    call->whole_turns = call->n_pieces / call->turn - LAST_TURNS * n_threads;
    if (call->whole_turns < 0 || call->last_turn == call->turn)
        call->whole_turns = 0;
    call->n_turns =
        call->whole_turns +
        (call->n_pieces - call->whole_turns * call->turn + call->last_turn - 1) / call->last_turn;
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

    share_out(&call);
    thread_pool_for(c->pool, call.n_turns, 1, attend_turns, &call);
    if (call.n_partials > 0)
        thread_pool_for(c->pool, call.n_pieces,
                        call.n_partials * partial_size(&call) < COMBINED_NUMBERS ? call.n_pieces
                                                                                 : call.turn,
                        combine_ranges, &call);
}
