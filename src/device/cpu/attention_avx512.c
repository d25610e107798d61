/* device/cpu/attention_avx512.c: attention over a chunk of keys for AVX-512 (F, BW, DQ, VL). */
#include "device/cpu/simd_avx512.h"

#define FOR_TILE_ROWS(CASE)                                                                        \
    CASE(1)                                                                                        \
    CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#include "device/cpu/attention_simd.h"

void cpu_attention_kernels_avx512(struct cpu_vector_kernels *k)
{
    simd_attention_kernels(k);
    k->integers = &cpu_int_attention_avx512;
}
