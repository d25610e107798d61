#include <string.h>

#include "base/arena.h"

#include "testing.h"

static bool all_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static void test_zeroed_and_aligned(void **state)
{
    arena *a = arena_open(256);

    (void)state;
    for (int round = 0; round < 3; round++) {
        size_t mark = arena_mark(a);

        for (size_t n = 0; n < 700; n += 31) {
            unsigned char *p = arena_zeroed(a, n, 1);

            CHECK(p && (uintptr_t)p % 64 == 0, "%zu bytes at %p", n, (void *)p);
            CHECK(all_zero(p, n), "round %d: %zu bytes are not zero", round, n);
            memset(p, 0xA5, n);
        }
        arena_rewind(a, mark);
        assert_int_equal(arena_used(a), 0);
    }
    arena_close(a);
    arena_close(NULL);
}

static void test_pieces_do_not_overlap(void **state)
{
    enum { N = 300 };
    unsigned char *pieces[N];
    size_t sizes[N];
    arena *a = arena_open(1000);

    (void)state;
    for (int i = 0; i < N; i++) {
        sizes[i] = random_below(2000);
        pieces[i] = arena_zeroed(a, sizes[i], 1);
        memset(pieces[i], i & 0xFF, sizes[i]);
    }
    for (int i = 0; i < N; i++)
        for (size_t j = 0; j < sizes[i]; j++)
            CHECK(pieces[i][j] == (i & 0xFF), "piece %d, byte %zu", i, j);
    arena_close(a);
}

static void test_rewind_keeps_what_is_older(void **state)
{
    arena *a = arena_open(128);
    char *old = arena_strdup(a, "older");
    size_t mark = arena_mark(a);
    char *first = arena_zeroed(a, 1000, 1);
    size_t inner = arena_mark(a);
    char *again;

    (void)state;
    arena_zeroed(a, 5000, 1);
    arena_rewind(a, inner);
    assert_int_equal(arena_mark(a), inner);
    strcpy(first, "first");
    arena_rewind(a, mark);
    assert_int_equal(arena_mark(a), mark);
    assert_string_equal(old, "older");
    again = arena_zeroed(a, 1000, 1);
    CHECK(all_zero((unsigned char *)again, 1000), "memory given out again is zeroed again");
    assert_string_equal(old, "older");
    arena_close(a);
}

/* A loop that takes and rewinds the same amounts must come to rest: no allocation after a while. */
static void test_steady_state_allocates_nothing(void **state)
{
    static const size_t sizes[] = {10, 5000, 300, 70000, 64, 20000};
    arena *a = arena_open(1024);

    (void)state;
    for (int round = 0; round < 20; round++) {
        size_t mark = arena_mark(a);

        /* Each piece counts once for itself: one more would be a chunk. */
        if (round >= 2)
            mem_fail_after((long)COUNT(sizes));
        for (size_t i = 0; i < COUNT(sizes); i++)
            CHECK(arena_zeroed(a, sizes[(i + (size_t)round) % COUNT(sizes)], 1), "round %d", round);
        CHECK(!mem_fail_after(-1), "round %d took a new chunk", round);
        arena_rewind(a, mark);
    }
    arena_close(a);
}

static void test_used_and_peak(void **state)
{
    arena *a = arena_open(0);

    (void)state;
    assert_int_equal(arena_used(a), 0);
    arena_zeroed(a, 100, 1);
    assert_int_equal(arena_used(a), 128);
    arena_zeroed(a, 1000000, 1);
    assert_int_equal(arena_peak(a), 128 + 1000000);
    arena_rewind(a, 128);
    assert_int_equal(arena_used(a), 128);
    assert_int_equal(arena_peak(a), 128 + 1000000);
    arena_close(a);
}

static void test_strings(void **state)
{
    arena *a = arena_open(0);

    (void)state;
    assert_string_equal(arena_strdup(a, ""), "");
    assert_string_equal(arena_strndup(a, "abcdef", 3), "abc");
    assert_memory_equal(arena_strndup(a, "a\0b", 3), "a\0b", 4);
    assert_string_equal(arena_printf(a, "%d-%s", 12, "x"), "12-x");
    arena_close(a);
}

static void test_overflow(void **state)
{
    arena *a = arena_open(0);

    (void)state;
    CHECK(!arena_zeroed(a, SIZE_MAX, 2), "product");
    CHECK(!arena_zeroed(a, SIZE_MAX, 1), "rounding");
    CHECK(!arena_zeroed(a, SIZE_MAX - 127, 1), "header");
    CHECK(!arena_strndup(a, "", SIZE_MAX), "the NUL");
    CHECK(arena_array(a, int, 5), "it goes on working");
    arena_close(a);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    mem_fail_after(0);
    CHECK(!arena_open(0), "no arena");
    for (long n = 0;; n++) {
        arena *a = arena_open(64);
        bool ok;

        mem_fail_after(n);
        ok = arena_zeroed(a, 100, 1) && arena_strdup(a, "x") && arena_printf(a, "%d", 1);
        CHECK(mem_fail_after(-1) == !ok, "n %ld", n);
        CHECK(arena_strdup(a, "still works"), "n %ld", n);
        arena_close(a);
        if (ok) {
            assert_int_equal(n, 6); /* three pieces, each in a chunk of its own */
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zeroed_and_aligned),
        cmocka_unit_test(test_pieces_do_not_overlap),
        cmocka_unit_test(test_rewind_keeps_what_is_older),
        cmocka_unit_test(test_steady_state_allocates_nothing),
        cmocka_unit_test(test_used_and_peak),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_failing_allocations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
