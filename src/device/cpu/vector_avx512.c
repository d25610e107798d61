/* device/cpu/vector_avx512.c: the row kernels for AVX-512 (F, BW, DQ, VL). */
#include "device/cpu/simd_avx512.h"

#include "device/cpu/vector_simd.h"

void cpu_vector_kernels_avx512(struct cpu_vector_kernels *k)
{
    simd_vector_kernels(k);
    cpu_recurrent_kernels_avx512(k);
    cpu_attention_kernels_avx512(k);
}
