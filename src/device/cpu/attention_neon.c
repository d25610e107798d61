/* device/cpu/attention_neon.c: attention over a chunk of keys for NEON. */
#include "device/cpu/simd_neon.h"

#define FOR_TILE_ROWS(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#include "device/cpu/attention_simd.h"

void cpu_attention_kernels_neon(struct cpu_vector_kernels *k)
{
    simd_attention_kernels(k);
    k->integers = NULL;
}
