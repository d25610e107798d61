/* device/cpu/isa.c: which instruction sets this processor, and its operating system, can run. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "device/cpu/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Register state that the operating system saves, from XCR0: SSE and AVX halves; opmask and ZMM;
 * tiles. */
#define XCR0_AVX 0x06u
#define XCR0_AVX512 0xE6u
#define XCR0_AMX 0x60000u

static uint64_t xgetbv(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool has(uint32_t reg, uint32_t bits)
{
    return (reg & bits) == bits;
}

#ifdef CLM_AMX_EMULATED
static bool amx_at_hand(uint64_t state, uint32_t edx7)
{
    (void)state;
    (void)edx7;
    return true;
}
#elif defined(CLM_AMX)
#include <sys/syscall.h>
#include <unistd.h>

/* Linux keeps the tiles from whoever has not asked for them (Documentation/arch/x86/xstate.rst):
 * 8 KB more of each thread's state. */
static bool amx_at_hand(uint64_t state, uint32_t edx7)
{
    const uint32_t amx = 1u << 22 | 1u << 24 | 1u << 25; /* 7.0.edx: of bf16, tiles, of int8 */
    const long request_permission = 0x1023, tile_data = 18;

    return (state & XCR0_AMX) == XCR0_AMX && has(edx7, amx) &&
           syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

/* Intel SDM volume 2, CPUID: leaf 1, and leaf 7 sub-leaves 0 and 1. */
static unsigned detect(void)
{
    const uint32_t fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29; /* 1.ecx */
    const uint32_t avx2 = 1u << 5, bmi2 = 1u << 8;                     /* 7.0.ebx */
    const uint32_t avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* 7.0.ebx: F DQ BW VL */
    const uint32_t bytes = 1u << 1 | 1u << 8 | 1u << 11;               /* 7.0.ecx: VBMI GFNI VNNI */
    const uint32_t bf16 = 1u << 5;                                     /* 7.1.eax */
#ifdef CLM_FP16
    const uint32_t fp16 = 1u << 23; /* 7.0.edx */
#endif
    uint32_t eax, ebx, ecx, edx, ebx7, ecx7, edx7;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !has(ecx, fma | osxsave | avx | f16c))
        return CPU_SCALAR;
    uint64_t state = xgetbv();
    if ((state & XCR0_AVX) != XCR0_AVX || !__get_cpuid_count(7, 0, &eax, &ebx7, &ecx7, &edx7) ||
        !has(ebx7, avx2 | bmi2))
        return CPU_SCALAR;
    if ((state & XCR0_AVX512) != XCR0_AVX512 || !has(ebx7, avx512) || !has(ecx7, bytes) ||
        eax < 1 || !__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) || !has(eax, bf16))
        return CPU_AVX2;
    unsigned isa = CPU_AVX2 | CPU_AVX512;
#ifdef CLM_FP16
    if (has(edx7, fp16))
        isa |= CPU_FP16;
#endif
#ifdef CLM_AMX
    if (amx_at_hand(state, edx7))
        isa |= CPU_AMX;
#endif
    return isa;
}

/* Asked for by products; CPUID is answered by a virtual machine's host, which takes some 20 us. */
bool cpu_is_intel(void)
{
    static atomic_int known; /* 1: no, 2: yes */
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    uint32_t eax, ebx, ecx, edx;

    if (!answer) {
        answer = __get_cpuid(0, &eax, &ebx, &ecx, &edx) && ebx == signature_INTEL_ebx &&
                         ecx == signature_INTEL_ecx && edx == signature_INTEL_edx
                     ? 2
                     : 1;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == 2;
}

#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

static unsigned detect(void)
{
    const unsigned long needed = HWCAP_ASIMD | HWCAP_ASIMDHP | HWCAP_ASIMDDP;

    return (getauxval(AT_HWCAP) & needed) == needed ? CPU_NEON : CPU_SCALAR;
}

#elif defined(__aarch64__) && defined(__APPLE__)

/* Every Apple processor of this kind has dot products and half precision. */
static unsigned detect(void)
{
    return CPU_NEON;
}

#else

static unsigned detect(void)
{
    return CPU_SCALAR;
}

#endif

static const struct {
    const char *name;
    unsigned allowed;
} limits[] = {
    {"scalar", CPU_SCALAR},
    {"avx2", CPU_AVX2},
    {"avx512", CPU_AVX2 | CPU_AVX512},
    {"amx", CPU_AVX2 | CPU_AVX512 | CPU_FP16 | CPU_AMX},
    {"neon", CPU_NEON},
};

int cpu_isa_limit(unsigned *allowed, clm_error *err)
{
    const char *name = getenv("CLM_CPU");

    *allowed = CPU_AVX2 | CPU_AVX512 | CPU_FP16 | CPU_AMX | CPU_NEON;
    if (!name || !*name)
        return 0;
    for (size_t i = 0; i < COUNT(limits); i++)
        if (strcmp(name, limits[i].name) == 0) {
            *allowed = limits[i].allowed;
            return 0;
        }
    return fail(err, CLM_ERR_ARG,
                "CLM_CPU=%s: expected scalar, avx2, avx512, amx or neon; unset it to let "
                "the processor decide",
                name);
}

unsigned cpu_isa_detect(void)
{
    unsigned allowed;

    cpu_isa_limit(&allowed, NULL);
    return detect() & allowed;
}

const char *cpu_isa_name(unsigned isa)
{
    if (isa & CPU_AMX)
        return "amx";
    if (isa & CPU_AVX512)
        return "avx512";
    if (isa & CPU_AVX2)
        return "avx2";
    return isa & CPU_NEON ? "neon" : "scalar";
}
