/* device/cpu/vector_kernels.c: the table for a set of instruction sets. */
#include "device/cpu/cpu.h"

void cpu_vector_kernels_init(struct cpu_vector_kernels *k, unsigned isa)
{
    cpu_vector_kernels_scalar(k);
#if defined(__x86_64__)
    if (isa & CPU_AVX2)
        cpu_vector_kernels_avx2(k);
    if (isa & CPU_AVX512)
        cpu_vector_kernels_avx512(k);
#ifdef CLM_FP16
    if (isa & CPU_FP16)
        cpu_attention_kernels_fp16(k);
#endif
#elif defined(__aarch64__)
    if (isa & CPU_NEON)
        cpu_vector_kernels_neon(k);
#else
    (void)isa;
#endif
}
