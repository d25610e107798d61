/* device/cpu/gemv_avx512.h: integer weights by up to four rows, with VNNI: each weight is read
 * once, at memory's speed.
 *
 *     sum_i x_i (q_i scale + bias) = sum_groups scale step sum_i q_i xq_i + bias step sum_i xq_i
 *
 * x is rounded to xq with a step for each group of the weights: to 8 bits beside weights of 2 to 4,
 * and to 16 beside those of 5 to 8, as 256 times one byte and another, both signed. Weights meet it
 * by chunks, of which a lane of 32 bits sums what belongs to one group, as its neighbours do: it
 * becomes f32 once a chunk. Affine codes of 4 bits are 16 times themselves there, as they are had
 * from bytes by one instruction each then, and steps beside 4 bits a 16th. Prepared, a row of x is
 *
 *     int8 [chunk, x_bytes]  64 numbers of a chunk, and 64, as its codes come out of the weights:
 *                            4 bits: of 128 those at even places, those at odd ones
 *                            3 bits: of 128 four of each eight, the other four
 *                            2 bits: of 256 every fourth, from the first on, from the second, ...
 *                            5, 6, 8 bits: the high bytes of 64, the low ones
 *     float steps, sums      [groups rounded up to BATCH]: the step, and that times the sum of xq
 *
 * Outputs far apart from each other are treated side by side: see gemv_avx2.h. Beside a single row
 * these are two, or four, as the processor wants it: of more than two, one of AMD's loses sight of
 * what is read next, as it does of scales that are called for to the first cache. Those of Intel
 * want these calls, and weights called for twice, to the first cache and, further ahead, to the
 * second.
 *
 * How far reading stays behind memory depends on what is done with a chunk, too. Beside a row or
 * two, affine weights of 4 bits take nine instructions: integer sums do not begin anew with each
 * chunk c of a batch but run on, S_1, S_2, ..., as with f the factors
 *
 *     sum_c f_c (S_c - S_(c-1)) = sum_c (f_c - f_(c+1)) S_c,   f = 0 behind the last
 *
 * and are not converted: begun with the bits of 1.5 2^23 they are, as f32, that and what they
 * should be, while that is within 2^22. Of this 1.5 2^23 f_1 is too much. It costs each chunk a
 * rounding to f or so, where a step of x is 16 f.
 *
 * A single row of x has to stay in the first cache beside the weights that pass through it. Where
 * they are too long for that some outputs are gone through together, a block of numbers of each in
 * turn, and what follows is called for far ahead, in the order in which it lies.
 */
#ifndef DEVICE_CPU_GEMV_AVX512_H
#define DEVICE_CPU_GEMV_AVX512_H

#include <math.h>

#include "device/cpu/matmul_avx512.h"

#define CHUNK 64        /* bytes that are multiplied at a time */
#define BATCH 16        /* groups whose scales are expanded at a time */
#define AHEAD 512       /* bytes of weights; beside a single row see struct cpu_reading */
#define NEAR 1024       /* the same, to the first cache, where others go to the second, */
#define FAR 2048        /* and before that to the second */
#define SCALES 256      /* bytes of scales that are called for ahead, there too */
#define BLOCK 4096      /* numbers of a long row that are treated at a time */
#define BLOCK_OUTPUTS 2 /* that are gone through together, in each place */
#define MAX_ROWS 4
#define UNROLLED 8      /* chunks, at most, of a batch that is not full */
#define OUTPUTS 4       /* side by side, at most */
#define FEW_OUTPUTS 2   /* beside a single row, of some processors */
#define TURNS 4         /* outputs of a place, one after another, whose sums are stored together */
#define RUN_ON 2        /* rows, at most, of which registers hold sums that run on */
#define LIMIT_8 127     /* of xq */
#define LIMIT_16 32512  /* 127 times 256: its nearest multiple of 256 fits, whatever the sign */
#define SMALLEST 1e-30f /* runs that do not get there are taken for zeros */

/* --- x
 * ------------------------------------------------------------------------------------------------
 */

/* A prepared row. */
struct prepared {
    int8_t *chunks;
    float *steps, *sums;
};

INLINE int padded_groups(int n_in, int group_size)
{
    return (n_in / group_size + BATCH - 1) / BATCH * BATCH;
}

/* Numbers of a chunk, bytes of their weights, and of x. */
INLINE int numbers_of(const int bits)
{
    return bits == 2 ? 256 : bits < 5 ? 128 : 64;
}

INLINE int chunk_bytes(const int bits)
{
    return numbers_of(bits) * bits / 8;
}

INLINE size_t x_bytes(const int bits)
{
    return bits == 2 ? 4 * CHUNK : 2 * CHUNK;
}

INLINE size_t chunks_of(int n_in, const int bits)
{
    const int n = numbers_of(bits);

    return (size_t)((n_in + n - 1) / n);
}

INLINE size_t strip_size(int n_in, int group_size, const int bits)
{
    return x_bytes(bits) * chunks_of(n_in, bits) +
           2 * sizeof(float) * (size_t)padded_groups(n_in, group_size);
}

INLINE struct prepared prepared_row(const void *strips, int row, int n_in, int group_size,
                                    const int bits)
{
    int8_t *chunks = (int8_t *)(uintptr_t)strips + (size_t)row * strip_size(n_in, group_size, bits);
    float *steps = (float *)(void *)(chunks + x_bytes(bits) * chunks_of(n_in, bits));

    return (struct prepared){chunks, steps, steps + padded_groups(n_in, group_size)};
}

/* The step of n numbers, a multiple of 16, and what they are multiplied by; not a number where one
 * of them is not finite. As integers NaN > infinity > all numbers. */
INLINE float step_of(const float *x, int n, float limit, float *inverse)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i most = _mm512_setzero_si512();
    float m;

    for (int i = 0; i < n; i += 16)
        most = _mm512_max_epi32(
            most, _mm512_and_si512(magnitude, _mm512_castps_si512(_mm512_loadu_ps(x + i))));
    m = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(most))));
    *inverse = m > SMALLEST ? limit / m : 0;
    if (!(m < INFINITY))
        return NAN;
    return m > SMALLEST ? m / limit : 0;
}

/* n numbers of a chunk from place `at` of it on. */
INLINE void store_numbers(int8_t *chunk, int at, __m512i q, const int bits)
{
    if (bits < 5) { /* in order yet */
        _mm_store_si128((__m128i *)(chunk + at), _mm512_cvtepi32_epi8(q));
        return;
    }
    __m512i high = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(128)), 8);
    __m512i low = _mm512_sub_epi32(q, _mm512_slli_epi32(high, 8));

    _mm_store_si128((__m128i *)(chunk + at), _mm512_cvtepi32_epi8(high));
    _mm_store_si128((__m128i *)(chunk + CHUNK + at), _mm512_cvtepi32_epi8(low));
}

/* 128 numbers in order become those at even places and those at odd ones. */
INLINE void split_places(int8_t *chunk)
{
    __m512i a = _mm512_load_si512(chunk), b = _mm512_load_si512(chunk + CHUNK);
    __m256i odd_a = _mm512_cvtepi16_epi8(_mm512_srli_epi16(a, 8));
    __m256i odd_b = _mm512_cvtepi16_epi8(_mm512_srli_epi16(b, 8));

    _mm256_store_si256((__m256i *)chunk, _mm512_cvtepi16_epi8(a));
    _mm256_store_si256((__m256i *)(chunk + 32), _mm512_cvtepi16_epi8(b));
    _mm256_store_si256((__m256i *)(chunk + 64), odd_a);
    _mm256_store_si256((__m256i *)(chunk + 96), odd_b);
}

/* 128 numbers in order become those whose place, by fours, is even, and the others. */
INLINE void split_fours(int8_t *chunk)
{
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    __m512i a = _mm512_load_si512(chunk), b = _mm512_load_si512(chunk + CHUNK);

    _mm512_store_si512(chunk, _mm512_permutex2var_epi32(a, even, b));
    _mm512_store_si512(chunk + CHUNK, _mm512_permutex2var_epi32(a, odd, b));
}

/* 256 numbers in order become every fourth, from the first on, from the second on, and so on. */
INLINE void split_quarters(int8_t *chunk)
{
    __m512i v[4];

    for (int i = 0; i < 4; i++)
        v[i] = _mm512_load_si512(chunk + i * CHUNK);
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < 4; i++)
            _mm_store_si128((__m128i *)(chunk + k * CHUNK + i * 16),
                            _mm512_cvtepi32_epi8(_mm512_srli_epi32(v[i], (unsigned)(8 * k))));
}

INLINE void prepare(void *strip, const float *x, int n_in, int group_size, const int bits)
{
    const int chunk = numbers_of(bits);
    const size_t x_size = x_bytes(bits);
    struct prepared p = prepared_row(strip, 0, n_in, group_size, bits);
    size_t n_chunks = chunks_of(n_in, bits);
    int g = 0;

    if (n_in % chunk)
        memset(p.chunks + x_size * (n_chunks - 1), 0, x_size);
    for (int i = 0; i < n_in; g++) {
        __m512i sum = _mm512_setzero_si512();
        float inverse, step = step_of(x + i, group_size, bits < 5 ? LIMIT_8 : LIMIT_16, &inverse);

        for (int end = i + group_size; i < end; i += 16) {
            __m512i q =
                _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(inverse)));

            store_numbers(p.chunks + x_size * (size_t)(i / chunk), i % chunk, q, bits);
            sum = _mm512_add_epi32(sum, q);
        }
        p.steps[g] = bits == 4 ? step * (1.0f / 16) : step;
        p.sums[g] = step * (float)_mm512_reduce_add_epi32(sum);
    }
    for (; g < padded_groups(n_in, group_size); g++)
        p.steps[g] = p.sums[g] = 0;
    for (size_t c = 0; bits < 5 && c < n_chunks; c++)
        (bits == 4   ? split_places
         : bits == 3 ? split_fours
                     : split_quarters)(p.chunks + x_size * c);
}

/* --- products */

/* What is multiplied: some rows by outputs whose weights are read side by side. */
struct tile {
    struct prepared x[MAX_ROWS];
    const uint8_t *data[OUTPUTS], *scales[OUTPUTS], *biases[OUTPUTS];
    size_t row_bytes, scale_bytes;
    size_t ahead; /* bytes to what is called for */
};

/* Of outputs by rows: scale times step for each group of a batch. */
struct factors {
    _Alignas(64) float of[OUTPUTS * MAX_ROWS][BATCH];
};

/* For n groups from g on; acc += bias step sum. */
INLINE void expand(__m512 *acc, struct factors *f, const struct tile *t, int g, int n,
                   const enum dtype type, const int rows, const int outputs, const bool to_first)
{
    const bool e2m1 = type == DTYPE_F8_E8M0 || type == DTYPE_F8_E4M3;
    const size_t at = (size_t)g * (type == DTYPE_F32 ? 4 : e2m1 ? 1 : 2);

#pragma GCC unroll 4
    for (int o = 0; o < outputs; o++) {
        __m512 scale = avx512_scales(t->scales[o] + at, n, type), bias;

        if (to_first) {
            _mm_prefetch((const char *)t->scales[o] + at + SCALES, _MM_HINT_T0);
            if (!e2m1)
                _mm_prefetch((const char *)t->biases[o] + at + SCALES, _MM_HINT_T0);
        }
        if (e2m1) {
            bias = _mm512_mul_ps(scale, _mm512_set1_ps(-0.5f * E2M1_ZERO));
            scale = _mm512_mul_ps(scale, _mm512_set1_ps(0.5f * 16));
        } else {
            bias = avx512_scales(t->biases[o] + at, n, type);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m512 *sum = &acc[o * rows + r];

            _mm512_store_ps(f->of[o * rows + r],
                            _mm512_mul_ps(scale, _mm512_load_ps(t->x[r].steps + g)));
            *sum = _mm512_fmadd_ps(bias, _mm512_load_ps(t->x[r].sums + g), *sum);
        }
    }
}

/* The factors for the lanes of chunk c of a batch. */
INLINE __m512 lane_factors(const float *f, int c, const int bits, const int group_size)
{
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const int lanes = group_size * 16 / numbers_of(bits); /* of a group */

    if (lanes >= 16)
        return _mm512_set1_ps(f[c * 16 / lanes]);
    __m512i group = _mm512_srli_epi32(lane, (unsigned)__builtin_ctz((unsigned)lanes));

    return _mm512_permutexvar_ps(_mm512_add_epi32(group, _mm512_set1_epi32(c * (16 / lanes))),
                                 _mm512_load_ps(f));
}

/* Sums of the products of a chunk with a row. */
INLINE __m512i multiply_chunk(const __m512i *codes, const int8_t *x, const int bits)
{
    __m512i sum = _mm512_setzero_si512();

    if (bits < 5) {
#pragma GCC unroll 4
        for (size_t i = 0; i < x_bytes(bits) / CHUNK; i++)
            sum = _mm512_dpbusd_epi32(sum, codes[i], _mm512_load_si512(x + i * CHUNK));
        return sum;
    }
    sum = _mm512_dpbusd_epi32(sum, codes[0], _mm512_load_si512(x));
    return _mm512_dpbusd_epi32(_mm512_slli_epi32(sum, 8), codes[0], _mm512_load_si512(x + CHUNK));
}

/* Bytes 3 i to 3 i + 2 for 32 bits, 5 i to 5 i + 4 for 64, and whatever. */
#define THREE(i) 3 * (i), 3 * (i) + 1, 3 * (i) + 2, 63
#define FIVE(i) 5 * (i), 5 * (i) + 1, 5 * (i) + 2, 5 * (i) + 3, 5 * (i) + 4, 63, 63, 63
#define FROM(f, i) f(i), f(i + 1), f(i + 2), f(i + 3), f(i + 4), f(i + 5), f(i + 6), f(i + 7)
/* Where the 8 codes that a vector is to have of each 64 bits begin there. */
#define PLACES(a, b, c, d, e, f, g, h)                                                             \
    ((long long)(h) << 56 | (long long)(g) << 48 | (long long)(f) << 40 | (long long)(e) << 32 |   \
     (d) << 24 | (c) << 16 | (b) << 8 | (a))

/* Each byte's low 4 bits moved up and its high 4 bits moved down, zeros in their place: matrices
 * of bits, the row of the highest first. */
#define LOW_UP 0x0000000001020408
#define HIGH_DOWN 0x1020408000000000

/* The two halves of bytes: times 16, or for e2m1 as the numbers that they say. */
INLINE void halve(__m512i codes[2], __m512i bytes, const bool e2m1)
{
    const __m512i move = _mm512_set1_epi64(e2m1 ? HIGH_DOWN : LOW_UP);
    const __m512i kept = _mm512_set1_epi8(e2m1 ? 0x0F : (char)0xF0);

    codes[e2m1] = _mm512_gf2p8affine_epi64_epi8(bytes, move, 0);
    codes[!e2m1] = _mm512_and_si512(bytes, kept);
    if (e2m1) {
        codes[0] = avx512_e2m1(codes[0]);
        codes[1] = avx512_e2m1(codes[1]);
    }
}

/* The codes of a chunk from its bytes: 64 a vector, of as many vectors as meet x. */
INLINE void unpack(__m512i *codes, __m512i bytes, const int bits, const bool e2m1)
{
    static const _Alignas(64) uint8_t threes[64] = {FROM(THREE, 0), FROM(THREE, 8)};
    static const _Alignas(64) uint8_t fives[64] = {FROM(FIVE, 0)};
    const __m512i low = _mm512_set1_epi8((char)((1 << bits) - 1));

    if (bits == 8) {
        codes[0] = bytes;
    } else if (bits == 4) {
        halve(codes, bytes, e2m1);
    } else if (bits == 2) {
        codes[0] = _mm512_and_si512(bytes, low);
#pragma GCC unroll 3
        for (unsigned i = 1; i < 4; i++)
            codes[i] = _mm512_and_si512(_mm512_srli_epi16(bytes, 2 * i), low);
    } else {
        const long long places = bits == 3   ? PLACES(0, 3, 6, 9, 32, 35, 38, 41)
                                 : bits == 5 ? PLACES(0, 5, 10, 15, 20, 25, 30, 35)
                                             : PLACES(0, 6, 12, 18, 32, 38, 44, 50);
        const __m512i at = _mm512_set1_epi64(places), later = _mm512_set1_epi8(12);

        bytes = _mm512_permutexvar_epi8(_mm512_load_si512(bits == 5 ? fives : threes), bytes);
        codes[0] = _mm512_and_si512(_mm512_multishift_epi64_epi8(at, bytes), low);
        if (bits == 3)
            codes[1] = _mm512_and_si512(
                _mm512_multishift_epi64_epi8(_mm512_add_epi8(at, later), bytes), low);
    }
}

/* The first n bytes of a chunk, zeros behind them. */
INLINE __m512i load_bytes(const uint8_t *p, int n)
{
    return n == CHUNK ? avx512_now(_mm512_loadu_si512(p))
                      : _mm512_maskz_loadu_epi8(~0ull >> (CHUNK - n), p);
}

/* Calls for what follows a chunk. */
INLINE void call_ahead(const struct tile *t, const uint8_t *p, const bool to_first)
{
    if (to_first) {
        _mm_prefetch((const char *)p + NEAR, _MM_HINT_T0);
        _mm_prefetch((const char *)p + FAR, _MM_HINT_T1);
    } else {
        _mm_prefetch((const char *)p + t->ahead, _MM_HINT_T1);
    }
}

/* Adds the products with chunk c of a batch, of which the first n bytes are there. */
INLINE void add_chunk(__m512 *acc, const struct factors *f, const struct tile *t, size_t first,
                      int c, int n, const int bits, const int group_size, const bool e2m1,
                      const int rows, const int outputs, const bool to_first)
{
    const size_t at = first + (size_t)c;
    const int size = chunk_bytes(bits);

#pragma GCC unroll 4
    for (int o = 0; o < outputs; o++) {
        const uint8_t *p = t->data[o] + at * (size_t)size;
        __m512i codes[4];

        if (n == size)
            call_ahead(t, p, to_first);
        unpack(codes, load_bytes(p, n), bits, e2m1);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m512i sum = multiply_chunk(codes, t->x[r].chunks + x_bytes(bits) * at, bits);
            __m512 *to = &acc[o * rows + r];

            *to = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum),
                                  lane_factors(f->of[o * rows + r], c, bits, group_size), *to);
        }
    }
}

/* Adds what sums of affine codes of 4 bits, running on, make with the chunk at a place of x, of
 * which the first n bytes are there; groups: of the lanes, in the batch; less: by what their
 * factors are more than those of the next chunk. */
INLINE void run_chunk(__m512 *acc, __m512i *sums, const struct factors *less, const struct tile *t,
                      size_t at, __m512i groups, int n, const int rows, const int outputs,
                      const bool to_first)
{
#pragma GCC unroll 4
    for (int o = 0; o < outputs; o++) {
        const uint8_t *p = t->data[o] + at * CHUNK;
        __m512i codes[2];

        if (n == CHUNK)
            call_ahead(t, p, to_first);
        unpack(codes, load_bytes(p, n), 4, false);
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            const int8_t *x = t->x[r].chunks + 2 * CHUNK * at;
            const int s = o * rows + r;

            sums[s] = _mm512_dpbusd_epi32(sums[s], codes[0], _mm512_load_si512(x));
            sums[s] =
                avx512_now(_mm512_dpbusd_epi32(sums[s], codes[1], _mm512_load_si512(x + CHUNK)));
            acc[s] =
                _mm512_fmadd_ps(_mm512_castsi512_ps(sums[s]),
                                _mm512_permutexvar_ps(groups, _mm512_load_ps(less->of[s])), acc[s]);
        }
    }
}

/* What begins sums that run on: the bits of 1.5 2^23. Of a batch a lane gets eight products from
 * each of BATCH chunks at most. */
#define FLOATING 0x4B400000
_Static_assert(BATCH * 8 * 0xF0 * LIMIT_8 < 1 << 22, "they stay f32 of that exponent");

/* The factors less those of n groups on, zeros behind the last; n is 1, 2 or 4, what is shifted by
 * has to be written out. */
INLINE __m512 less_next(__m512 f, const int n)
{
    const __m512i v = _mm512_castps_si512(f), zero = _mm512_setzero_si512();
    __m512i next = n == 1   ? _mm512_alignr_epi32(zero, v, 1)
                   : n == 2 ? _mm512_alignr_epi32(zero, v, 2)
                            : _mm512_alignr_epi32(zero, v, 4);

    return _mm512_sub_ps(f, _mm512_castsi512_ps(next));
}

/* Adds the products of affine codes of 4 bits with n groups from g on, a batch or what is left. */
INLINE void run_batch(__m512 *acc, const struct tile *t, int g, int n, const enum dtype type,
                      const int group_size, const int rows, const int outputs, const bool to_first)
{
    const int lanes = group_size / 8, each = 16 / lanes; /* of a group; groups of a chunk */
    const int bytes = n * group_size / 2;
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i floating = _mm512_set1_epi32(FLOATING);
    __m512i groups = _mm512_srli_epi32(lane, (unsigned)__builtin_ctz((unsigned)lanes));
    __m512i sums[OUTPUTS * RUN_ON];
    size_t at = (size_t)g * (size_t)lanes / 16;
    struct factors f;

    expand(acc, &f, t, g, n, type, rows, outputs, to_first);
#pragma GCC unroll 8
    for (int s = 0; s < outputs * rows; s++) {
        __m512 of = _mm512_load_ps(f.of[s]);

        acc[s] = _mm512_fnmadd_ps(_mm512_castsi512_ps(floating), _mm512_permutexvar_ps(groups, of),
                                  acc[s]);
        _mm512_store_ps(f.of[s], less_next(of, each));
        sums[s] = floating;
    }
    for (int c = 0; c < bytes / CHUNK; c++) {
        run_chunk(acc, sums, &f, t, at++, groups, CHUNK, rows, outputs, to_first);
        groups = _mm512_add_epi32(groups, _mm512_set1_epi32(each));
    }
    if (bytes % CHUNK)
        run_chunk(acc, sums, &f, t, at, groups, bytes % CHUNK, rows, outputs, to_first);
}

/* Adds the products with groups [g, end). g is a multiple of BATCH, as is end but for the last of
 * all. */
INLINE void add_groups(__m512 *acc, const struct tile *t, int g, int end, const enum dtype type,
                       const int bits, const int group_size, const int rows, const int outputs,
                       const bool to_first)
{
    const bool e2m1 = type == DTYPE_F8_E8M0 || type == DTYPE_F8_E4M3;
    const int chunks = BATCH * group_size / numbers_of(bits), size = chunk_bytes(bits);
    size_t first = (size_t)(g / BATCH) * (size_t)chunks;
    struct factors f;

    if (bits == 4 && !e2m1 && rows <= RUN_ON) {
        for (; g + BATCH <= end; g += BATCH)
            run_batch(acc, t, g, BATCH, type, group_size, rows, outputs, to_first);
        if (g < end)
            run_batch(acc, t, g, end - g, type, group_size, rows, outputs, to_first);
        return;
    }
    for (; g + BATCH <= end; g += BATCH, first += (size_t)chunks) {
        expand(acc, &f, t, g, BATCH, type, rows, outputs, to_first);
        for (int c = 0; c < chunks; c++)
            add_chunk(acc, &f, t, first, c, size, bits, group_size, e2m1, rows, outputs, to_first);
    }
    if (g == end)
        return;
    int left = (end - g) * group_size * bits / 8;

    expand(acc, &f, t, g, end - g, type, rows, outputs, to_first);
    if (rows == 1 && chunks <= UNROLLED) { /* of rows of 768 numbers this is all */
#pragma GCC unroll 8
        for (int c = 0; c < UNROLLED; c++)
            if (c < left / size)
                add_chunk(acc, &f, t, first, c, size, bits, group_size, e2m1, rows, outputs,
                          to_first);
    } else {
        for (int c = 0; c < left / size; c++)
            add_chunk(acc, &f, t, first, c, size, bits, group_size, e2m1, rows, outputs, to_first);
    }
    if (left % size)
        add_chunk(acc, &f, t, first, left / size, left % size, bits, group_size, e2m1, rows,
                  outputs, to_first);
}

INLINE __m256 halves(__m512 v)
{
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}

/* A tile of a task's rows, of no outputs yet. */
INLINE struct tile tile_of(const struct cpu_task *task, size_t ahead, const int bits,
                           const int group_size, const int rows)
{
    const struct weight *w = task->w;
    struct tile t = {
        .row_bytes = weight_row_bytes(w),
        .scale_bytes = weight_scale_row_bytes(w),
        .ahead = ahead,
    };

    for (int r = 0; r < rows; r++)
        t.x[r] = prepared_row(task->prepared, r < task->n_rows ? r : task->n_rows - 1, w->n_in,
                              group_size, bits);
    return t;
}

/* The tile of the i-th outputs of all places; the last one of all instead of those behind it. */
INLINE void place_tile(struct tile *t, const struct weight *w, const struct cpu_outputs *outputs,
                       int i, const int places)
{
    for (int o = 0; o < places; o++) {
        int at = i + o * outputs->step;

        if (at >= outputs->end)
            at = outputs->end - 1;
        t->data[o] = (const uint8_t *)w->data + (size_t)at * t->row_bytes;
        t->scales[o] = (const uint8_t *)w->scales + (size_t)at * t->scale_bytes;
        if (w->format == WEIGHT_AFFINE)
            t->biases[o] = (const uint8_t *)w->biases + (size_t)at * t->scale_bytes;
    }
}

/* Of which some may be the same, where there are three: see MULTIPLY. */
INLINE void store_sums(const struct cpu_task *task, const __m512 *acc,
                       const struct cpu_outputs *outputs, int i, const int rows, const int places)
{
    float sums[OUTPUTS * MAX_ROWS];

    for (int s = 0; s < places * rows; s += 4)
        _mm_storeu_ps(sums + s, sums4(halves(acc[s]), halves(acc[s + 1]), halves(acc[s + 2]),
                                      halves(acc[s + 3])));
    for (int o = 0; o < places; o++)
        for (int r = 0; r < rows && i + o * outputs->step < outputs->end; r++) {
            int row = r < task->n_rows ? r : task->n_rows - 1, at = i + o * outputs->step;

            cpu_task_y(task, row)[at] = sums[o * rows + r] + (task->bias ? task->bias[at] : 0);
        }
}

/* The same for n <= TURNS outputs of each place from the i-th on, by a single row. */
INLINE void store_turns(const struct cpu_task *task, __m512 (*acc)[OUTPUTS],
                        const struct cpu_outputs *outputs, int i, int n, const int places)
{
    for (int o = 0; o < places; o++) {
        __m128 sums =
            sums4(halves(acc[0][o]), halves(acc[1][o]), halves(acc[2][o]), halves(acc[3][o]));
        int at = i + o * outputs->step, there = outputs->end - at;
        __mmask8 m = (__mmask8)first_16(n < there ? n : there);
        __m128 bias = _mm_setzero_ps();

        if (m == 0)
            return;
        if (task->bias)
            bias = _mm_maskz_loadu_ps(m, task->bias + at);
        _mm_mask_storeu_ps(cpu_task_y(task, 0) + at, m, _mm_add_ps(sums, bias));
    }
}

/* By a single row. Sums of some outputs are brought together at a time: of short rows that takes
 * as long as the products. */
INLINE void multiply_row(const struct cpu_task *task, const struct cpu_outputs *outputs,
                         const enum dtype type, const int bits, const int group_size,
                         const int places, const bool to_first)
{
    const struct weight *w = task->w;
    struct tile t = tile_of(task, (size_t)task->reading->ahead_row, bits, group_size, 1);

    for (int i = outputs->begin; i < outputs->begin + outputs->n; i += TURNS) {
        int left = outputs->begin + outputs->n - i, n = left < TURNS ? left : TURNS;
        __m512 sums[TURNS][OUTPUTS];

        for (int j = 0; j < n; j++) {
            __m512 acc[OUTPUTS];

#pragma GCC unroll 4
            for (int s = 0; s < OUTPUTS; s++)
                acc[s] = _mm512_setzero_ps();
            place_tile(&t, w, outputs, i + j, places);
            add_groups(acc, &t, 0, w->n_in / group_size, type, bits, group_size, 1, places,
                       to_first);
#pragma GCC unroll 4
            for (int s = 0; s < places; s++)
                sums[j][s] = acc[s];
        }
        for (int j = n; j < TURNS; j++)
            for (int s = 0; s < places; s++)
                sums[j][s] = _mm512_setzero_ps();
        store_turns(task, sums, outputs, i, n, places);
    }
}

INLINE void multiply_rows(const struct cpu_task *task, const struct cpu_outputs *outputs,
                          const enum dtype type, const int bits, const int group_size,
                          const int rows)
{
    const struct weight *w = task->w;
    struct tile t = tile_of(task, AHEAD, bits, group_size, rows);

    for (int i = outputs->begin; i < outputs->begin + outputs->n; i++) {
        __m512 acc[OUTPUTS * MAX_ROWS];

#pragma GCC unroll 16
        for (int s = 0; s < OUTPUTS * rows; s++) /* of what is not there too */
            acc[s] = _mm512_setzero_ps();
        place_tile(&t, w, outputs, i, OUTPUTS);
        add_groups(acc, &t, 0, w->n_in / group_size, type, bits, group_size, rows, OUTPUTS, false);
        store_sums(task, acc, outputs, i, rows, OUTPUTS);
    }
}

/* n outputs of each place, from the i-th on, by a single row: a block of each in turn. Those that
 * follow are called for at the same time, where there are any. */
INLINE void multiply_blocks(const struct cpu_task *task, const struct cpu_outputs *outputs, int i,
                            int n, bool last, const enum dtype type, const int bits,
                            const int group_size)
{
    const struct weight *w = task->w;
    const size_t run = BLOCK * bits / 8;
    const int n_groups = w->n_in / group_size, block = BLOCK / group_size;
    struct tile t = tile_of(task, (size_t)task->reading->ahead_row, bits, group_size, 1);
    __m512 sums[BLOCK_OUTPUTS][OUTPUTS];
    size_t before = 0; /* bytes of these outputs, in the order in which they are multiplied */

    memset(sums, 0, sizeof sums);
    for (int b = 0; b * block < n_groups; b++) {
        int end = n_groups - b * block < block ? n_groups : (b + 1) * block;

        for (int j = 0; j < n; j++) {
            __m512 acc[OUTPUTS];

#pragma GCC unroll 4
            for (int s = 0; s < OUTPUTS; s++)
                acc[s] = sums[j][s];
            if (!last) /* what lies as far behind the begin of the next outputs */
                t.ahead = (size_t)(n - j) * t.row_bytes + before - (size_t)b * run;
            place_tile(&t, w, outputs, i + j, FEW_OUTPUTS);
            add_groups(acc, &t, b * block, end, type, bits, group_size, 1, FEW_OUTPUTS, false);
#pragma GCC unroll 4
            for (int s = 0; s < OUTPUTS; s++)
                sums[j][s] = acc[s];
            before += (size_t)(end - b * block) * (size_t)group_size * (size_t)bits / 8;
        }
    }
    for (int j = 0; j < n; j++)
        store_sums(task, sums[j], outputs, i + j, 1, FEW_OUTPUTS);
}

INLINE void multiply_long(const struct cpu_task *task, const struct cpu_outputs *outputs,
                          const enum dtype type, const int bits, const int group_size)
{
    const int end = outputs->begin + outputs->n;

    for (int i = outputs->begin; i < end; i += BLOCK_OUTPUTS) {
        int n = end - i < BLOCK_OUTPUTS ? end - i : BLOCK_OUTPUTS;

        multiply_blocks(task, outputs, i, n, i + n == end, type, bits, group_size);
    }
}

/* Whether a single row of x would not stay in the first cache. */
static bool is_long(const struct cpu_task *t, const int bits)
{
    size_t x = x_bytes(bits) * chunks_of(t->w->n_in, bits);

    return t->n_rows == 1 && x + FEW_OUTPUTS * weight_row_bytes(t->w) > (size_t)t->reading->cached;
}

INLINE int places_of(const struct cpu_task *t, const int bits)
{
    return t->n_rows > 1 || (t->reading->to_first && !is_long(t, bits)) ? OUTPUTS : FEW_OUTPUTS;
}

/* A function for each format and number of rows (three as four): see gemv_avx2.h. */
#define MULTIPLY_ROWS(name, type, bits, group_size, rows)                                          \
    static __attribute__((noinline)) void name##_##rows(const struct cpu_task *t,                  \
                                                        const struct cpu_outputs *o)               \
    {                                                                                              \
        multiply_rows(t, o, type, bits, group_size, rows);                                         \
    }
#define MULTIPLY(name, type, bits, group_size)                                                     \
    static __attribute__((noinline)) void name##_1(const struct cpu_task *t,                       \
                                                   const struct cpu_outputs *o)                    \
    {                                                                                              \
        multiply_row(t, o, type, bits, group_size, FEW_OUTPUTS, false);                            \
    }                                                                                              \
    static __attribute__((noinline)) void name##_1_first(const struct cpu_task *t,                 \
                                                         const struct cpu_outputs *o)              \
    {                                                                                              \
        multiply_row(t, o, type, bits, group_size, OUTPUTS, true);                                 \
    }                                                                                              \
    MULTIPLY_ROWS(name, type, bits, group_size, 2)                                                 \
    MULTIPLY_ROWS(name, type, bits, group_size, 4)                                                 \
    static __attribute__((noinline)) void name##_long(const struct cpu_task *t,                    \
                                                      const struct cpu_outputs *o)                 \
    {                                                                                              \
        multiply_long(t, o, type, bits, group_size);                                               \
    }                                                                                              \
    static void name(const struct cpu_task *t, const struct cpu_outputs *o)                        \
    {                                                                                              \
        if (is_long(t, bits))                                                                      \
            name##_long(t, o);                                                                     \
        else if (t->n_rows == 1)                                                                   \
            (t->reading->to_first ? name##_1_first : name##_1)(t, o);                              \
        else                                                                                       \
            (t->n_rows == 2 ? name##_2 : name##_4)(t, o);                                          \
    }

#endif
