/* device/cpu/attention_avx2.c: attention over a chunk of keys for AVX2 with FMA and F16C. */
#include "device/cpu/simd_avx2.h"

#define FOR_TILE_ROWS(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#include "device/cpu/attention_simd.h"

void cpu_attention_kernels_avx2(struct cpu_vector_kernels *k)
{
    simd_attention_kernels(k);
    k->integers = &cpu_int_attention_avx2;
}
