/* device/cpu/attention_int.c: a chunk of keys in whole numbers: the way of long prompts.
 *
 * Arithmetic on small integers is two to four times as fast as on f32. What it costs in accuracy is
 * bounded by how numbers are rounded:
 *
 *     q = a qi / d    8 bits, a step for each query
 *     k = m + b ki d  7 bits, with VNNI 8; m the middle of what each number ranges over in the
 *                     chunk, and one step for it, so that what keys have in common is not rounded
 *     d               what each number of keys ranges over in one chunk of the piece: some range
 *                     ten times as far as others, which would be left with few steps
 *     q k = q m + a b sum qi ki
 *     p = u pi        weights relative to the greatest one of a query in the chunk: 13 bits, with
 *                     VNNI 16 or the upper 8 of them
 *     v = c vi        13 bits, with VNNI 8, a step for each column in the chunk
 *
 * q m, once for a query and chunk, and all that is added up from chunk to chunk, is f32. The sum of
 * the weights is that of the rounded ones.
 */
#include <math.h>
#include <string.h>

#include "device/cpu/attention_piece.h"

static int k_numbers(const struct state *st)
{
    return (int)round_up(st->call->kv->k_dim, CPU_INT_BLOCK);
}

void attention_int_lay_out(struct state *st, float *base, size_t *used)
{
    const struct attend_call *call = st->call;
    const struct kv_layer *kv = call->kv;
    struct int_state *i = &st->ints;
    int64_t k = k_numbers(st), n = st->n_held;

    i->q = (int8_t *)take(base, used, n * k / 4);
    i->starts = (int32_t *)take(base, used, n * k / CPU_INT_BLOCK);
    i->steps = take(base, used, n);
    i->offsets = take(base, used, n);
    i->balance = take(base, used, kv->k_dim);
    i->rows = take(base, used, (int64_t)st->chunk * max_int(kv->k_dim, kv->v_dim));
    i->keys = (uint8_t *)take(base, used, st->chunk * k / 4);
    i->middle = take(base, used, kv->k_dim);
    i->values = take(base, used, (int64_t)st->chunk * call->v_cols / 2);
    i->value_steps = take(base, used, call->v_cols);
    i->weights = take(base, used, CPU_INT_ROWS * st->chunk / 2);
}

/* --- Keys and values --- */

static void load_rows(const struct state *st, struct kv_rows rows, int key, int n, int dim)
{
    st->call->kernels->load[rows.type](st->ints.rows + (int64_t)key * dim, rows.data, n * dim);
}

static void load_keys(struct state *st, const struct kv_layer *at, char *block, int place, int key,
                      int n)
{
    int head = st->piece->kv_head;

    load_rows(st, kv_read_keys(st->call->kernels, at, block, head, place, n, st->room), key, n,
              at->k_dim);
}

static void load_values(struct state *st, const struct kv_layer *at, char *block, int place,
                        int key, int n)
{
    int head = st->piece->kv_head;

    load_rows(st, kv_read_values(st->call->kernels, at, block, head, place, n, st->room), key, n,
              at->v_dim);
}

/* The rows of a chunk, zeros where there is none. */
static void load_chunk(struct state *st, struct span keys, int dim, stretch_fn load)
{
    struct span hole = attention_span(st, st->piece->hole, st->piece->hole_end);

    if (keys.begin > 0 || keys.end < st->chunk || hole.begin < hole.end)
        memset(st->ints.rows, 0, (size_t)st->chunk * (size_t)dim * sizeof *st->ints.rows);
    attention_stretches(st, keys, load);
}

/* 1 / d. d is at least a sixteenth of the largest one: other chunks may range further. */
static void find_balance(float *balance, const float *rows, struct span keys, int dim)
{
    float largest = 0;

    for (int i = 0; i < dim; i++) {
        float low = rows[keys.begin * dim + i], high = low;

        for (int j = keys.begin + 1; j < keys.end; j++) {
            low = fminf(low, rows[j * dim + i]);
            high = fmaxf(high, rows[j * dim + i]);
        }
        balance[i] = high - low;
        largest = fmaxf(largest, high - low);
    }
    bool ranges = largest > 1e-20f && largest < 1e20f; /* far from where quotients overflow */

    for (int i = 0; i < dim; i++)
        balance[i] = ranges ? 1 / fmaxf(balance[i], largest / 16) : 1;
}

/* By the chunk that holds the last keys of the piece but few: the queries are made for it. */
static void balance_queries(struct state *st)
{
    const struct piece *p = st->piece;
    int dim = st->call->kv->k_dim;
    float *balance = st->ints.balance;

    st->base = max_int(p->first_key, p->end_key - st->chunk / 2) / st->chunk * st->chunk;
    struct span keys = attention_span(st, p->first_key, p->end_key);

    load_chunk(st, keys, dim, load_keys);
    find_balance(balance, st->ints.rows, keys, dim);
    for (int i = 0; i < st->n_queries; i++)
        for (int j = 0; j < dim; j++)
            st->q[(int64_t)i * st->call->k_cols + j] /= balance[j];
}

void attention_int_begin(struct state *st)
{
    const struct attend_call *call = st->call;
    int n_more = st->n_held - st->n_queries;

    balance_queries(st);
    memset(st->q + (int64_t)st->n_queries * call->k_cols, 0,
           (size_t)n_more * (size_t)call->k_cols * sizeof *st->q);
    for (int i = st->n_queries; i < st->n_held; i++) {
        st->max[i] = -INFINITY;
        st->sum[i] = 0;
    }
    call->kernels->integers->queries(st->ints.q, st->ints.starts, st->ints.steps, st->q,
                                     call->k_cols, st->n_held, call->kv->k_dim);
}

static void pack_chunk(struct state *st, struct span keys)
{
    const struct cpu_int_attention *k = st->call->kernels->integers;
    const struct kv_layer *kv = st->call->kv;
    struct int_state *i = &st->ints;

    load_chunk(st, keys, kv->k_dim, load_keys);
    i->key_step = k->keys(i->keys, i->middle, i->rows, i->balance, keys.begin, keys.end, kv->k_dim);
    k->offsets(i->offsets, st->q, st->call->k_cols, st->n_held, i->middle, kv->k_dim);
    load_chunk(st, keys, kv->v_dim, load_values);
    k->values(i->values, i->value_steps, i->rows, kv->v_dim);
}

/* --- A tile of queries --- */

static void hide(float *s, int begin, int end)
{
    for (int i = begin; i < end; i++)
        s[i] = -INFINITY;
}

/* The scores of CPU_INT_ROWS queries from first on, the last of which may be none. */
static void see_tile(struct state *st, int first)
{
    for (int r = 0; r < CPU_INT_ROWS; r++) {
        float *s = st->s + r * st->chunk;
        struct span seen;

        if (first + r < st->n_queries && attention_see(st, first + r, s, 0, st->chunk, &seen)) {
            hide(s, 0, seen.begin);
            hide(s, seen.end, st->chunk);
        } else {
            hide(s, 0, st->chunk);
        }
    }
}

/* Does every query of the tile see all keys, and as they are? */
static bool sees_all(const struct state *st, int first, struct span seen)
{
    const struct attend_params *p = st->call->p;

    return first + CPU_INT_ROWS <= st->n_queries && !p->slopes && !(p->softcap > 0) && !p->kept &&
           !p->block_size && st->call->kv->n_last == 0 && seen.begin == 0 && seen.end == st->chunk;
}

static void int_tile(struct state *st, int first)
{
    const struct attend_call *call = st->call;
    const struct cpu_int_attention *k = call->kernels->integers;
    const struct int_state *i = &st->ints;
    int n = k_numbers(st), last = min_int(first + CPU_INT_ROWS, st->n_queries) - 1;
    struct span a = attention_visible(st, first), b = attention_visible(st, last);
    float keep[CPU_INT_ROWS], weights[CPU_INT_ROWS];

    if (a.begin >= b.end)
        return;
    k->scores(st->s, i->q + (int64_t)first * n, i->starts + (int64_t)first * (n / CPU_INT_BLOCK),
              i->steps + first, i->offsets + first, i->keys, i->key_step, call->kv->k_dim);
    if (!sees_all(st, first, (struct span){b.begin, a.end}))
        see_tile(st, first);
    int parts = k->softmax(i->weights, st->s, st->max + first, st->sum + first, keep, weights);
    k->weigh(st->acc + (int64_t)first * call->v_cols, call->v_cols, i->weights, parts, keep,
             weights, i->values, i->value_steps,
             (call->kv->v_dim + CPU_INT_COLS - 1) / CPU_INT_COLS);
}

void attention_int_chunk(struct state *st, struct span keys)
{
    pack_chunk(st, keys);
    for (int first = 0; first < st->n_queries; first += CPU_INT_ROWS)
        int_tile(st, first);
}
