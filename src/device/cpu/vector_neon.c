/* device/cpu/vector_neon.c: the row kernels for NEON. */
#include "device/cpu/simd_neon.h"

#include "device/cpu/vector_simd.h"

void cpu_vector_kernels_neon(struct cpu_vector_kernels *k)
{
    simd_vector_kernels(k);
    cpu_recurrent_kernels_neon(k);
    cpu_attention_kernels_neon(k);
}
