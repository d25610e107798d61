/* tests/device/vector.h: what tests of the row kernels have in common: each runs with those of
 * every instruction set that this processor has. */
#ifndef VECTOR_H
#define VECTOR_H

#include <float.h>
#include <math.h>

#include "base/memory.h"
#include "device/cpu/cpu.h"

#include "testing.h"

#define EPSILON ((double)FLT_EPSILON)

enum { MAX_DIM = 128, CHUNK = CPU_ATTEND_CHUNK };

/* Dimensions of heads, about those that are usual. */
static const int dims[] = {1, 4, 5, 8, 12, 16, 17, 31, 32, 33, 64, 80, 96, 100};

static inline void check_close(float got, double want, double tolerance, const char *what, int n,
                               int i)
{
    CHECK(fabs((double)got - want) <= tolerance, "%s, n %d, i %d: %.9g, expected %.9g within %.2g",
          what, n, i, (double)got, want, tolerance);
}

static inline void for_each_isa(void (*check)(const struct cpu_vector_kernels *k))
{
    static const unsigned sets[] = {CPU_SCALAR, CPU_AVX2, CPU_AVX2 | CPU_AVX512,
                                    CPU_AVX2 | CPU_AVX512 | CPU_FP16, CPU_NEON};

    for (size_t i = 0; i < COUNT(sets); i++) {
        struct cpu_vector_kernels k;

        if ((cpu_isa_detect() & sets[i]) != sets[i])
            continue;
        print_message("%s ", cpu_isa_name(sets[i]));
        cpu_vector_kernels_init(&k, sets[i]);
        check(&k);
    }
    print_message("\n");
}

/* The test that runs check_name. */
#define TEST_OF(name)                                                                              \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        for_each_isa(check_##name);                                                                \
    }

#endif
