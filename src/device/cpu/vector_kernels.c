/* device/cpu/vector_kernels.c: the table for a set of instruction sets. */
#include "device/cpu/cpu.h"

void cpu_vector_kernels_init(struct cpu_vector_kernels *k, unsigned isa)
{
    (void)isa;
    cpu_vector_kernels_scalar(k);
}
