#include "device/cpu/matmul_kernels.h"

#include "device/cpu/cpu.h"

#if defined(__x86_64__)
/* Measured on Emerald Rapids, whose first caches are of 48 KB as all since Ice Lake; on Zen 3 and
 * Zen 4. */
static const struct cpu_reading intel_reading = {1024, 2048, true, 36 << 10};
static const struct cpu_reading other_reading = {384, 256, false, 24 << 10};
#endif

void cpu_matmul_kernels_init(struct cpu_matmul_kernels *k, unsigned isa)
{
    cpu_matmul_kernels_scalar(k);
#if defined(__x86_64__)
    if (isa & CPU_AVX2)
        cpu_matmul_kernels_avx2(k);
    if (isa & CPU_AVX512)
        cpu_matmul_kernels_avx512(k);
    k->reading = cpu_is_intel() ? intel_reading : other_reading;
#elif defined(__aarch64__)
    if (isa & CPU_NEON)
        cpu_matmul_kernels_neon(k);
#else
    (void)isa;
#endif
}
