/* device/cpu/recurrent_avx2.c: the steps of recurrent mixers for AVX2 with FMA. */
#include "device/cpu/simd_avx2.h"

#include "device/cpu/recurrent_simd.h"

void cpu_recurrent_kernels_avx2(struct cpu_vector_kernels *k)
{
    simd_recurrent_kernels(k);
}
