/* tests/testing.h: what every test program needs: cmocka, CHECK, shared goldens, random numbers. */
#ifndef TESTING_H
#define TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* cmocka's macro of this name would swallow fail() of base/error.h. CHECK does what it did. */
#undef fail
#undef fail_msg

/* Sanitizers and emulators (which define this) run kernels some ten times slower: tests that try
 * many sizes then try fewer of them. */
#ifndef TEST_IS_SLOW
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEST_IS_SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TEST_IS_SLOW 1
#endif
#endif
#endif
#ifndef TEST_IS_SLOW
#define TEST_IS_SLOW 0
#endif

/* So does compute-sanitizer, a hundred times: CLM_TEST_SLOW in the environment says so. Tests on a
 * GPU then do as little as launches every kernel. */
static inline bool test_is_slow(void)
{
    return TEST_IS_SLOW || getenv("CLM_TEST_SLOW");
}

/* CHECK(condition, "format", ...): fails the running test with where, what and the message. */
#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            print_error("%s:%d: %s: ", __FILE__, __LINE__, #condition);                            \
            print_error(__VA_ARGS__);                                                              \
            print_error("\n");                                                                     \
            _fail(__FILE__, __LINE__);                                                             \
        }                                                                                          \
    } while (0)

/**
 * The path of rest under the shared goldens (the folder in CLM_SHARED, else ../shared beside the
 * source), or NULL when it is not there. Valid until the fourth call after this one.
 */
static inline const char *shared_path(const char *rest)
{
    static char paths[4][4096];
    static unsigned next;
    const char *shared = getenv("CLM_SHARED");
    char *path = paths[next++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", shared ? shared : CLM_SOURCE_DIR "/../shared", rest);
    return access(path, R_OK) == 0 ? path : NULL;
}

/* At the start of a test that cannot do without the shared goldens. */
#define SKIP_IF_NO_SHARED()                                                                        \
    do {                                                                                           \
        if (!shared_path("goldens")) {                                                             \
            print_message("no shared goldens: set CLM_SHARED to their folder\n");                  \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

/* splitmix64: the same numbers in every run of a program; set the state to begin anew. */
static uint64_t random_state = 0x5EED;

static inline uint64_t random_u64(void)
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* In [0, n), n >= 1. */
static inline size_t random_below(size_t n)
{
    return (size_t)(random_u64() % n);
}

/* Does this process run the next case? Not with CLM_TEST_PART=2/16 in the environment, unless the
 * case is in the third of sixteen parts, which share a program's cases by chance: what a checker
 * makes slow is done by many processes. A case has random numbers of its own, whoever runs it. */
static inline bool next_case(void)
{
    static uint64_t n_cases;
    const char *part = getenv("CLM_TEST_PART");
    unsigned i = 0, n = 1;

    random_state = 0x5EED + (n_cases++ << 40);
    CHECK(!part || (sscanf(part, "%u/%u", &i, &n) == 2 && i < n), "CLM_TEST_PART=%s", part);
    return random_below(n) == i;
}

/* n numbers in [-1, 1), each a multiple of 2^-23. */
static inline void random_floats(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((int32_t)(random_u64() >> 40) - (1 << 23)) * 0x1p-23f;
}

#endif
