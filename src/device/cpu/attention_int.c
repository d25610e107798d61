/* device/cpu/attention_int.c: a chunk of keys in whole numbers: the way of long prompts.
 *
 * Arithmetic on small integers is two to four times as fast as on f32. What it costs in accuracy is
 * bounded by how numbers are rounded:
 *
 *     q = a qi        8 bits, a step for each query
 *     k = m + b ki    7 bits; m the middle of what each number ranges over in the chunk, and one
 *                     step for the chunk, so that what keys have in common is not rounded
 *     q k = q m + a b sum qi ki
 *     p = 2^-13 pi    weights relative to the greatest one of a query in the chunk
 *     v = c vi        13 bits, a step for each column in the chunk
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
    i->rows = take(base, used, (int64_t)CHUNK * max_int(kv->k_dim, kv->v_dim));
    i->keys = (uint8_t *)take(base, used, CHUNK * k / 4);
    i->middle = take(base, used, kv->k_dim);
    i->values = (int16_t *)take(base, used, (int64_t)CHUNK * call->v_cols / 2);
    i->value_steps = take(base, used, call->v_cols);
    i->weights = (int16_t *)take(base, used, CPU_INT_ROWS * CHUNK / 2);
}

void attention_int_begin(struct state *st)
{
    const struct attend_call *call = st->call;
    int n_more = st->n_held - st->n_queries;

    memset(st->q + (int64_t)st->n_queries * call->k_cols, 0,
           (size_t)n_more * (size_t)call->k_cols * sizeof *st->q);
    for (int i = st->n_queries; i < st->n_held; i++) {
        st->max[i] = -INFINITY;
        st->sum[i] = 0;
    }
    call->kernels->integers->queries(st->ints.q, st->ints.starts, st->ints.steps, st->q,
                                     call->k_cols, st->n_held, call->kv->k_dim);
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

    if (keys.begin > 0 || keys.end < CHUNK || hole.begin < hole.end)
        memset(st->ints.rows, 0, (size_t)CHUNK * (size_t)dim * sizeof *st->ints.rows);
    attention_stretches(st, keys, load);
}

static void pack_chunk(struct state *st, struct span keys)
{
    const struct cpu_int_attention *k = st->call->kernels->integers;
    const struct kv_layer *kv = st->call->kv;
    struct int_state *i = &st->ints;

    load_chunk(st, keys, kv->k_dim, load_keys);
    i->key_step = k->keys(i->keys, i->middle, i->rows, keys.begin, keys.end, kv->k_dim);
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
        float *s = st->s + r * CHUNK;
        struct span seen;

        if (first + r < st->n_queries && attention_see(st, first + r, s, 0, CHUNK, &seen)) {
            hide(s, 0, seen.begin);
            hide(s, seen.end, CHUNK);
        } else {
            hide(s, 0, CHUNK);
        }
    }
}

/* Does every query of the tile see all keys, and as they are? */
static bool sees_all(const struct state *st, int first, struct span seen)
{
    const struct attend_params *p = st->call->p;

    return first + CPU_INT_ROWS <= st->n_queries && !p->slopes && !(p->softcap > 0) && !p->kept &&
           !p->block_size && st->call->kv->n_last == 0 && seen.begin == 0 && seen.end == CHUNK;
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
              i->steps + first, st->q + (int64_t)first * call->k_cols, call->k_cols, i->keys,
              i->middle, i->key_step, call->kv->k_dim);
    if (!sees_all(st, first, (struct span){b.begin, a.end}))
        see_tile(st, first);
    k->softmax(i->weights, st->s, st->max + first, st->sum + first, keep, weights);
    k->weigh(st->acc + (int64_t)first * call->v_cols, call->v_cols, i->weights, keep, weights,
             i->values, i->value_steps, (call->kv->v_dim + CPU_INT_COLS - 1) / CPU_INT_COLS);
}

void attention_int_chunk(struct state *st, struct span keys)
{
    pack_chunk(st, keys);
    for (int first = 0; first < st->n_queries; first += CPU_INT_ROWS)
        int_tile(st, first);
}
