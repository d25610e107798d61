/* tests/neon/cmocka.h: as much of cmocka as the kernel tests use, for processors that are emulated
 * and have no library of that name. A failed check ends the program. */
#ifndef TESTS_NEON_CMOCKA_H
#define TESTS_NEON_CMOCKA_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*fn)(void **state);
};

#define cmocka_unit_test(fn)                                                                       \
    {                                                                                              \
#fn, fn                                                                                    \
    }

#define print_message(...) (printf(__VA_ARGS__), fflush(stdout))
#define print_error(...) fprintf(stderr, __VA_ARGS__)

static inline void _fail(const char *file, int line)
{
    fprintf(stderr, "%s:%d: failed\n", file, line);
    exit(1);
}

#define assert_true(c) ((c) ? (void)0 : _fail(__FILE__, __LINE__))
#define assert_false(c) assert_true(!(c))
#define assert_non_null(p) assert_true((p) != NULL)
#define assert_null(p) assert_true((p) == NULL)
#define assert_int_equal(a, b) assert_true((intmax_t)(a) == (intmax_t)(b))
#define assert_string_equal(a, b) assert_true(strcmp((a), (b)) == 0)
#define assert_memory_equal(a, b, n) assert_true(memcmp((a), (b), (n)) == 0)

static jmp_buf cmocka_skipped;

static inline void skip(void)
{
    longjmp(cmocka_skipped, 1);
}

static inline int cmocka_run(const struct CMUnitTest *tests, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        void *state = NULL;

        printf("%s: ", tests[i].name);
        fflush(stdout);
        if (setjmp(cmocka_skipped)) {
            printf("skipped\n");
            continue;
        }
        tests[i].fn(&state);
        printf("passed\n");
    }
    return 0;
}

#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    cmocka_run(tests, sizeof(tests) / sizeof((tests)[0]))

#endif
