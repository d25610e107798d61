/* device/cpu/vector_kernels.c: the table for a set of instruction sets. */
#include "device/cpu/cpu.h"

void cpu_vector_kernels_init(struct cpu_vector_kernels *k, unsigned isa)
{
    cpu_vector_kernels_scalar(k);
#if defined(__x86_64__)
    if (isa & CPU_AVX2)
        cpu_vector_kernels_avx2(k);
#else
    (void)isa;
#endif
}
