/* device/cpu/matmul_avx512.c: which kernel for which product, where AVX-512 has a better one. */
#include "device/cpu/matmul_avx512.h"

/* Rows up to which weights are better unpacked again for every few rows than put into panels. */
#define FEW_DENSE 8
#define FEW_INTEGER 4

static const struct cpu_product *choose(const struct weight *w, int n_rows, bool exact)
{
    struct cpu_matmul_kernels avx2;

    if (!exact && w->format == WEIGHT_BF16 && n_rows > FEW_DENSE)
        return &avx512_gemm_bf16;
    if (!exact && w->format > WEIGHT_BF16 && !weight_is_e4m3(w) && n_rows > FEW_INTEGER)
        return &avx512_gemm_i8;
    cpu_matmul_kernels_avx2(&avx2);
    return avx2.choose(w, n_rows, exact);
}

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

void cpu_matmul_kernels_avx512(struct cpu_matmul_kernels *k)
{
    cpu_matmul_kernels_avx2(k);
    k->choose = choose;
    k->f32_burst = f32_burst;
    k->int8_burst = int8_burst;
    k->bf16_burst = bf16_burst;
}
