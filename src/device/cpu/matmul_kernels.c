#include "device/cpu/matmul_kernels.h"

#include "device/cpu/cpu.h"

void cpu_matmul_kernels_init(struct cpu_matmul_kernels *k, unsigned isa)
{
    cpu_matmul_kernels_scalar(k);
#if defined(__x86_64__)
    if (isa & CPU_AVX2)
        cpu_matmul_kernels_avx2(k);
    if (isa & CPU_AVX512)
        cpu_matmul_kernels_avx512(k);
#elif defined(__aarch64__)
    if (isa & CPU_NEON)
        cpu_matmul_kernels_neon(k);
#else
    (void)isa;
#endif
}
