/* device/cpu/recurrent_avx512.c: the steps of recurrent mixers for AVX-512. */
#include "device/cpu/simd_avx512.h"

#include "device/cpu/recurrent_simd.h"

void cpu_recurrent_kernels_avx512(struct cpu_vector_kernels *k)
{
    simd_recurrent_kernels(k);
}
