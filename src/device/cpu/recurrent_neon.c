/* device/cpu/recurrent_neon.c: the steps of recurrent mixers for NEON. */
#include "device/cpu/simd_neon.h"

#include "device/cpu/recurrent_simd.h"

void cpu_recurrent_kernels_neon(struct cpu_vector_kernels *k)
{
    simd_recurrent_kernels(k);
}
