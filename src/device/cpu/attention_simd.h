/* device/cpu/attention_simd.h: attention over a chunk of keys on vectors, written once for all
 * sets.
 *
 * A file attention_<isa>.c includes its simd_<isa>.h and then this. Loops whose counts are
 * constants are inlined and unrolled, so that the sums of a tile stay in registers.
 */
#ifndef DEVICE_CPU_ATTENTION_SIMD_H
#define DEVICE_CPU_ATTENTION_SIMD_H

#include <math.h>

#include "device/cpu/inline.h"
#include "device/cpu/vector_kernels.h"
#include "device/cpu/vector_math.h"

enum { PANEL = PANEL_VECTORS * VF_LANES };

/* --- Reading the cache; type is a constant where these are used. --- */

INLINE const void *numbers_at(const void *data, int64_t i, enum dtype type)
{
    return type == DTYPE_F32 ? (const void *)((const float *)data + i)
                             : (const void *)((const uint16_t *)data + i);
}

INLINE vf cache_load(const void *p, enum dtype type)
{
    if (type == DTYPE_F16)
        return vf_load_f16(p);
    return type == DTYPE_BF16 ? vf_load_bf16(p) : vf_load(p);
}

/* The first n numbers, 0 < n <= VF_LANES; n is a constant where it matters. */
INLINE vf cache_load_n(const void *p, int n, enum dtype type)
{
    if (n == VF_LANES)
        return cache_load(p, type);
    if (type == DTYPE_F16)
        return vf_load_f16_n(p, n);
    return type == DTYPE_BF16 ? vf_load_bf16_n(p, n) : vf_load_n(p, n);
}

/* --- Packing --- */

/* n of the numbers of VF_LANES keys, to as many columns of their panel. */
INLINE void pack_square(float *to, const void *keys, int dim, int n, enum dtype type)
{
    vf v[VF_LANES];

    for (int j = 0; j < VF_LANES; j++)
        v[j] = cache_load_n(numbers_at(keys, (int64_t)j * dim, type), n, type);
    vf_transpose(v);
    for (int j = 0; j < n; j++)
        vf_store(to + j * PANEL, v[j]);
}

INLINE void pack_key_columns(float *to, const void *keys, int dim, enum dtype type)
{
    int i = 0;

    for (; i + VF_LANES <= dim; i += VF_LANES)
        pack_square(to + (int64_t)i * PANEL, numbers_at(keys, i, type), dim, VF_LANES, type);
    if (i < dim)
        pack_square(to + (int64_t)i * PANEL, numbers_at(keys, i, type), dim, dim - i, type);
}

INLINE void pack_key_column(float *to, const void *key, int dim, enum dtype type)
{
    float part[VF_LANES];

    for (int i = 0; i < dim; i += VF_LANES) {
        int n = dim - i < VF_LANES ? dim - i : VF_LANES;

        vf_store(part, cache_load_n(numbers_at(key, i, type), n, type));
        for (int j = 0; j < n; j++)
            to[(int64_t)(i + j) * PANEL] = part[j];
    }
}

INLINE void pack_keys(float *to, const void *keys, int first, int n_keys, int dim, enum dtype type)
{
    for (int key = 0; key < n_keys;) {
        int j = first + key;
        float *column = to + (int64_t)(j / PANEL) * dim * PANEL + j % PANEL;
        const void *from = numbers_at(keys, (int64_t)key * dim, type);

        if (j % VF_LANES == 0 && n_keys - key >= VF_LANES) {
            pack_key_columns(column, from, dim, type);
            key += VF_LANES;
        } else {
            pack_key_column(column, from, dim, type);
            key++;
        }
    }
}

/* Numbers [i, i + n) of every value, to lanes [i, i + VF_LANES) of its row. */
INLINE void pack_value_lanes(float *to, const void *values, int i, int n, int n_keys, int dim,
                             enum dtype type)
{
    to += (int64_t)(i / PANEL) * CPU_ATTEND_CHUNK * PANEL + i % PANEL;
    for (int key = 0; key < n_keys; key++)
        vf_store(to + (int64_t)key * PANEL,
                 n > 0 ? cache_load_n(numbers_at(values, (int64_t)key * dim + i, type), n, type)
                       : vf_set(0));
}

INLINE void pack_values(float *to, const void *values, int first, int n_keys, int dim,
                        enum dtype type)
{
    int i = 0;

    to += (int64_t)first * PANEL;
    for (; i + VF_LANES <= dim; i += VF_LANES)
        pack_value_lanes(to, values, i, VF_LANES, n_keys, dim, type);
    if (i < dim) {
        pack_value_lanes(to, values, i, dim - i, n_keys, dim, type);
        i += VF_LANES;
    }
    for (; i % PANEL; i += VF_LANES)
        pack_value_lanes(to, values, i, 0, n_keys, dim, type);
}

/* --- Products of packed panels --- */

INLINE void tile_product(float *c, int64_t ldc, const float *a, int64_t lda, const float *b,
                         int depth, bool accumulate, int rows)
{
    vf sum[TILE_ROWS][PANEL_VECTORS];

    for (int r = 0; r < rows; r++)
        for (int v = 0; v < PANEL_VECTORS; v++)
            sum[r][v] = accumulate ? vf_load(c + r * ldc + v * VF_LANES) : vf_set(0);
    for (int k = 0; k < depth; k++) {
        vf column[PANEL_VECTORS];

        for (int v = 0; v < PANEL_VECTORS; v++)
            column[v] = vf_load(b + (int64_t)k * PANEL + v * VF_LANES);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < PANEL_VECTORS; v++)
                sum[r][v] = vf_fma(vf_set(a[r * lda + k]), column[v], sum[r][v]);
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < PANEL_VECTORS; v++)
            vf_store(c + r * ldc + v * VF_LANES, sum[r][v]);
}

static void simd_product(float *c, int ldc, const float *a, int lda, const float *b, int b_stride,
                         int n_rows, int n_panels, int depth, bool accumulate)
{
    for (int p = 0; p < n_panels; p++, c += PANEL, b += b_stride)
        switch (n_rows) {
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        tile_product(c, ldc, a, lda, b, depth, accumulate, n);                                     \
        break;
            FOR_TILE_ROWS(CASE)
#undef CASE
        default:
            break;
        }
}

/* --- Softmax --- */

static void simd_cap_scores(float *s, int n, float cap)
{
    for (int j = 0; j < n; j += VF_LANES)
        vf_store(s + j, vf_mul(vf_set(cap), vf_tanh(vf_load(s + j))));
}

static float simd_softmax_step(float *s, int n, int begin, int end, float *max, float *sum)
{
    for (int j = 0; j < begin; j++)
        s[j] = -INFINITY;
    for (int j = end; j < n; j++)
        s[j] = -INFINITY;

    vf largest = vf_set(*max), total = vf_set(0);
    for (int j = 0; j < n; j += VF_LANES)
        largest = vf_max(largest, vf_load(s + j));
    float new_max = vf_largest(largest);
    vf m = vf_set(new_max);
    for (int j = 0; j < n; j += VF_LANES) {
        vf p = vf_exp2_negative(vf_sub(vf_load(s + j), m));

        total = vf_add(total, p);
        vf_store(s + j, p);
    }
    float factor = *max == new_max ? 1.0f : exp2f(*max - new_max);
    *sum = *sum * factor + vf_sum(total);
    *max = new_max;
    return factor;
}

/* --- Straight from the cache --- */

INLINE void prefetch(const void *p, int n, enum dtype type)
{
    int size = n * (type == DTYPE_F32 ? 4 : 2);

    for (int i = 0; i < size; i += 64)
        __builtin_prefetch((const char *)p + i);
}

/* The part of the scores of rows queries and n_keys keys that comes from n numbers of each. */
INLINE void score_step(vf sum[SCORE_ROWS][4], const float *q, int64_t ldq, const void *keys,
                       int dim, int n, enum dtype type, int rows, int n_keys)
{
    vf key[4];

    for (int j = 0; j < n_keys; j++)
        key[j] = cache_load_n(numbers_at(keys, (int64_t)j * dim, type), n, type);
    for (int r = 0; r < rows; r++) {
        vf query = vf_load(q + r * ldq);

        for (int j = 0; j < n_keys; j++)
            sum[r][j] = vf_fma(query, key[j], sum[r][j]);
    }
}

INLINE void score_block(float *s, int64_t lds, const float *q, int64_t ldq, const void *keys,
                        int dim, enum dtype type, int rows, int n_keys)
{
    vf sum[SCORE_ROWS][4];
    int i = 0;

    for (int r = 0; r < rows; r++)
        for (int j = 0; j < n_keys; j++)
            sum[r][j] = vf_set(0);
    for (; i + VF_LANES <= dim; i += VF_LANES)
        score_step(sum, q + i, ldq, numbers_at(keys, i, type), dim, VF_LANES, type, rows, n_keys);
    if (i < dim)
        score_step(sum, q + i, ldq, numbers_at(keys, i, type), dim, dim - i, type, rows, n_keys);
    for (int r = 0; r < rows; r++)
        if (n_keys == 4)
            vf_store_4_sums(s + r * lds, sum[r]);
        else
            for (int j = 0; j < n_keys; j++)
                s[r * lds + j] = vf_sum(sum[r][j]);
}

/* ahead: where n_keys rows will be read next, or NULL; asked for bit by bit, while this goes on. */
INLINE void score_rows(float *s, int64_t lds, const float *q, int64_t ldq, const void *keys,
                       int n_keys, int dim, enum dtype type, int rows, const void *ahead)
{
    int j = 0;

    for (; j + 4 <= n_keys; j += 4) {
        if (ahead)
            prefetch(numbers_at(ahead, (int64_t)j * dim, type), 4 * dim, type);
        score_block(s + j, lds, q, ldq, numbers_at(keys, (int64_t)j * dim, type), dim, type, rows,
                    4);
    }
    for (; j < n_keys; j++)
        score_block(s + j, lds, q, ldq, numbers_at(keys, (int64_t)j * dim, type), dim, type, rows,
                    1);
}

INLINE void scores(float *s, int lds, const float *q, int ldq, int n_rows, const void *keys,
                   int n_keys, int dim, enum dtype type, const void *ahead)
{
    int r = 0;

    for (; r + SCORE_ROWS <= n_rows; r += SCORE_ROWS)
        score_rows(s + (int64_t)r * lds, lds, q + (int64_t)r * ldq, ldq, keys, n_keys, dim, type,
                   SCORE_ROWS, r == 0 ? ahead : NULL);
    for (; r < n_rows; r++)
        score_rows(s + (int64_t)r * lds, lds, q + (int64_t)r * ldq, ldq, keys, n_keys, dim, type, 1,
                   r == 0 ? ahead : NULL);
}

/* y[r, 0..] += sum_j s[r, j] values[j, 0..] for so many rows and vectors, n numbers of the last
 * one. */
INLINE void weigh_block(float *y, int64_t ldy, const float *s, int64_t lds, const void *values,
                        int n_keys, int dim, enum dtype type, int rows, int vectors, int n,
                        const void *ahead)
{
    vf sum[4][4];

    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sum[r][v] = vf_load(y + r * ldy + v * VF_LANES);
    for (int j = 0; j < n_keys; j++) {
        vf value[4];

        if (ahead)
            prefetch(numbers_at(ahead, (int64_t)j * dim, type), dim, type);
        for (int v = 0; v < vectors; v++)
            value[v] = cache_load_n(numbers_at(values, (int64_t)j * dim + v * VF_LANES, type),
                                    v == vectors - 1 ? n : VF_LANES, type);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++)
                sum[r][v] = vf_fma(vf_set(s[r * lds + j]), value[v], sum[r][v]);
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            vf_store(y + r * ldy + v * VF_LANES, sum[r][v]);
}

INLINE void weigh_rows(float *y, int64_t ldy, const float *s, int64_t lds, const void *values,
                       int n_keys, int dim, enum dtype type, int rows, int vectors,
                       const void *ahead)
{
    int i = 0;

    for (; i + vectors * VF_LANES <= dim; i += vectors * VF_LANES, ahead = NULL)
        weigh_block(y + i, ldy, s, lds, numbers_at(values, i, type), n_keys, dim, type, rows,
                    vectors, VF_LANES, ahead);
    for (; i + VF_LANES <= dim; i += VF_LANES)
        weigh_block(y + i, ldy, s, lds, numbers_at(values, i, type), n_keys, dim, type, rows, 1,
                    VF_LANES, NULL);
    if (i < dim)
        weigh_block(y + i, ldy, s, lds, numbers_at(values, i, type), n_keys, dim, type, rows, 1,
                    dim - i, NULL);
}

INLINE void weigh(float *y, int ldy, const float *s, int lds, int n_rows, const void *values,
                  int n_keys, int dim, enum dtype type, const void *ahead)
{
    int r = 0;

    for (; r + 4 <= n_rows; r += 4, ahead = NULL)
        weigh_rows(y + (int64_t)r * ldy, ldy, s + (int64_t)r * lds, lds, values, n_keys, dim, type,
                   4, 2, ahead);
    for (; r + 2 <= n_rows; r += 2, ahead = NULL)
        weigh_rows(y + (int64_t)r * ldy, ldy, s + (int64_t)r * lds, lds, values, n_keys, dim, type,
                   2, 4, ahead);
    for (; r < n_rows; r++, ahead = NULL)
        weigh_rows(y + (int64_t)r * ldy, ldy, s + (int64_t)r * lds, lds, values, n_keys, dim, type,
                   1, 4, ahead);
}

/* The kernels that read the cache, for one of its types. */
#define FOR_TYPE(suffix, type)                                                                     \
    static void pack_keys_##suffix(float *to, const void *keys, int first, int n_keys, int dim)    \
    {                                                                                              \
        pack_keys(to, keys, first, n_keys, dim, type);                                             \
    }                                                                                              \
    static void pack_values_##suffix(float *to, const void *values, int first, int n_keys,         \
                                     int dim)                                                      \
    {                                                                                              \
        pack_values(to, values, first, n_keys, dim, type);                                         \
    }                                                                                              \
    static void scores_##suffix(float *s, int lds, const float *q, int ldq, int n_rows,            \
                                const void *keys, int n_keys, int dim, const void *ahead)          \
    {                                                                                              \
        scores(s, lds, q, ldq, n_rows, keys, n_keys, dim, type, ahead);                            \
    }                                                                                              \
    static void weigh_##suffix(float *y, int ldy, const float *s, int lds, int n_rows,             \
                               const void *values, int n_keys, int dim, const void *ahead)         \
    {                                                                                              \
        weigh(y, ldy, s, lds, n_rows, values, n_keys, dim, type, ahead);                           \
    }

FOR_TYPE(f32, DTYPE_F32)
FOR_TYPE(f16, DTYPE_F16)
FOR_TYPE(bf16, DTYPE_BF16)

#define SET_TYPE(k, suffix, type)                                                                  \
    do {                                                                                           \
        (k)->pack_keys[type] = pack_keys_##suffix;                                                 \
        (k)->pack_values[type] = pack_values_##suffix;                                             \
        (k)->scores[type] = (k)->exact_scores[type] = scores_##suffix;                             \
        (k)->weigh[type] = weigh_##suffix;                                                         \
    } while (0)

static void simd_attention_kernels(struct cpu_vector_kernels *k)
{
    k->panel = PANEL;
    k->tile_rows = TILE_ROWS;
    k->product = simd_product;
    k->cap_scores = simd_cap_scores;
    k->softmax_step = simd_softmax_step;
    SET_TYPE(k, f32, DTYPE_F32);
    SET_TYPE(k, f16, DTYPE_F16);
    SET_TYPE(k, bf16, DTYPE_BF16);
}

#endif
