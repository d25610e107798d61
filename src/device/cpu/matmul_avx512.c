/* device/cpu/matmul_avx512.c: which kernel for which product, where AVX-512 has a better one. */
#include <math.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "device/cpu/cpu.h"
#include "device/cpu/matmul_avx512.h"

#define CHAINS 24 /* independent sums, enough to hide the latency */
#define ROUNDS 4000

static double f32_burst(void)
{
    __m512 sums[CHAINS], f = _mm512_set1_ps(0.5f);

#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++)
        sums[i] = _mm512_set1_ps((float)i);
    for (int n = 0; n < ROUNDS; n++)
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++)
            sums[i] = _mm512_fmadd_ps(sums[i], f, f);
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++)
        __asm__ volatile("" : : "v"(sums[i])); /* wanted */
    return 2.0 * 16 * CHAINS * ROUNDS;
}

static double int8_burst(void)
{
    __m512i sums[CHAINS], a = _mm512_set1_epi8(3);

#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++)
        sums[i] = _mm512_set1_epi32(i);
    for (int n = 0; n < ROUNDS; n++)
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++)
            sums[i] = _mm512_dpbusd_epi32(sums[i], a, a);
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++)
        __asm__ volatile("" : : "v"(sums[i])); /* wanted */
    return 2.0 * 64 * CHAINS * ROUNDS;
}

static double bf16_burst(void)
{
    __m512 sums[CHAINS];
    __m512bh f = (__m512bh)_mm512_set1_epi32(0x3F003F00); /* 1/2 and 1/2 */

#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++)
        sums[i] = _mm512_set1_ps((float)i);
    for (int n = 0; n < ROUNDS; n++)
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++)
            sums[i] = _mm512_dpbf16_ps(sums[i], f, f);
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++)
        __asm__ volatile("" : : "v"(sums[i])); /* wanted */
    return 2.0 * 32 * CHAINS * ROUNDS;
}

/* Rows up to which weights are better unpacked again for every few rows than put into panels. */
#define FEW_BF16 8
#define FEW_F32 12
#define FEW_INTEGER 4
#define LEAST_NIBBLES 4 /* fewer are better by choose_gemv */
#define FEW_NIBBLES AVX512_FEW_ROWS
#define FEW_EXACT 3

/* By a row or a few; NULL: AVX2 has as good a way. */
static const struct cpu_product *choose_gemv(const struct weight *w)
{
    if (w->format == WEIGHT_MXFP4 || w->format == WEIGHT_NVFP4)
        return &avx512_gemv_nibbles;
    if (w->format != WEIGHT_AFFINE)
        return NULL;
    if (w->bits == 4 || w->bits == 8)
        return w->bits == 4 ? &avx512_gemv_nibbles : &avx512_gemv_bytes;
    return w->scale_type == DTYPE_F32 ? NULL : avx512_gemv_bits(w->bits);
}

static bool is_nibbles(const struct weight *w)
{
    return w->format == WEIGHT_MXFP4 || (w->format == WEIGHT_AFFINE && w->bits == 4);
}

/* Whether 32 numbers in a row have one scale, wherever they begin. */
static bool is_fp8_by_32(const struct weight *w)
{
    return w->format == WEIGHT_FP8 && (w->group_size % 32 == 0 || w->group_size >= w->n_in);
}

/* Seconds for an operation, of the best of some bursts. */
static double least_time(double (*burst)(void))
{
    double least = HUGE_VAL;

    for (int i = 0; i < 5; i++) {
        double begin = clock_seconds(), n = burst();

        least = fmin(least, (clock_seconds() - begin) / n);
    }
    return least;
}

/* Products of bf16 are twice as fast as those of f32 on some processors (Zen 4) and half as fast on
 * others (Sapphire Rapids, which has other instructions for them). */
static bool bf16_is_fast(void)
{
    static atomic_int known; /* 1: no, 2: yes */
    int answer = atomic_load_explicit(&known, memory_order_relaxed);

    if (!answer) {
        answer = least_time(bf16_burst) < least_time(f32_burst) ? 2 : 1;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == 2;
}

const struct cpu_product *avx512_choose(const struct weight *w, int n_rows, bool exact)
{
    if (!exact && w->format == WEIGHT_BF16 && n_rows > FEW_BF16 && bf16_is_fast())
        return &avx512_gemm_bf16;
    if (!exact && (w->format <= WEIGHT_BF16 || weight_is_e4m3(w)) && n_rows > FEW_F32)
        return &avx512_gemm_f32;
    if (!exact && is_nibbles(w) && n_rows >= LEAST_NIBBLES && n_rows <= FEW_NIBBLES &&
        w->n_out >= AVX512_FEW_OUTPUTS)
        return &avx512_few;
    if (!exact && is_nibbles(w) && n_rows > FEW_NIBBLES && w->n_in % RUN_SIZE == 0)
        return &avx512_gemm_runs;
    if (!exact && w->format > WEIGHT_BF16 && !weight_is_e4m3(w) && n_rows > FEW_INTEGER)
        return &avx512_gemm_i8;
    if (exact && w->format == WEIGHT_AFFINE && (w->bits == 4 || w->bits == 8) &&
        n_rows <= FEW_EXACT)
        return &avx512_exact_row;
    if (w->format == WEIGHT_BF16 && n_rows == 1 && cpu_is_intel())
        return &avx512_bf16_row;
    if (n_rows == 1 && (w->format == WEIGHT_MXFP8 || is_fp8_by_32(w)))
        return &avx512_e4m3_row;
    if (!exact && n_rows <= FEW_INTEGER && choose_gemv(w))
        return choose_gemv(w);
    return avx2_choose(w, n_rows, exact);
}

void cpu_matmul_kernels_avx512(struct cpu_matmul_kernels *k)
{
    cpu_matmul_kernels_avx2(k);
    k->choose = avx512_choose;
    k->f32_burst = f32_burst;
    k->int8_burst = int8_burst;
    k->bf16_burst = bf16_burst;
}
