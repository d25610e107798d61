/* device/cpu/vector_avx2.c: the row kernels for AVX2 with FMA and F16C. */
#include "device/cpu/simd_avx2.h"

#include "device/cpu/vector_simd.h"

void cpu_vector_kernels_avx2(struct cpu_vector_kernels *k)
{
    simd_vector_kernels(k);
    cpu_recurrent_kernels_avx2(k);
    cpu_attention_kernels_avx2(k);
    cpu_kv_codes_kernels_avx2(k);
}
