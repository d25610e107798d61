#include "device/cpu/matmul_kernels.h"

#include <limits.h>
#include <unistd.h>

#include "device/cpu/cpu.h"

#if defined(__x86_64__)
#define USUAL (32 << 10) /* bytes of a first cache of which nothing is known */

/* As measured on Emerald Rapids; on Zen 3 and Zen 4. */
static struct cpu_reading reading_here(void)
{
    struct cpu_reading r = {
        .ahead_avx2 = 384,
        .ahead_row = 256,
        .first_runs = 0.95,
        .first_runs_short = 0.98,
    };
    long first_cache = 0;

    if (cpu_is_intel())
        r = (struct cpu_reading){
            .ahead_avx2 = 1024,
            .ahead_row = 1024,
            .to_first = true,
            .states = true,
            .first_runs = 0.88,
            .first_runs_short = 0.88,
        };
#ifdef _SC_LEVEL1_DCACHE_SIZE
    first_cache = sysconf(_SC_LEVEL1_DCACHE_SIZE);
#endif
    r.cached = (first_cache > 0 && first_cache <= INT_MAX ? (int)first_cache : USUAL) / 4 * 3;
    return r;
}
#endif

void cpu_matmul_kernels_init(struct cpu_matmul_kernels *k, unsigned isa)
{
    cpu_matmul_kernels_scalar(k);
#if defined(__x86_64__)
    if (isa & CPU_AVX2)
        cpu_matmul_kernels_avx2(k);
    if (isa & CPU_AVX512)
        cpu_matmul_kernels_avx512(k);
#ifdef CLM_AMX
    if (isa & CPU_AMX)
        cpu_matmul_kernels_amx(k);
#endif
    k->reading = reading_here();
#elif defined(__aarch64__)
    if (isa & CPU_NEON)
        cpu_matmul_kernels_neon(k);
#else
    (void)isa;
#endif
}
