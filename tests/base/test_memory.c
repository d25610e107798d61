#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "base/memory.h"

#include "testing.h"

static void test_zero_sizes(void **state)
{
    void *blocks[] = {mem_alloc(0), mem_zeroed(0, 8), mem_zeroed(8, 0), mem_resize(NULL, 0)};
    void *aligned = mem_alloc_aligned(0);

    (void)state;
    for (size_t i = 0; i < COUNT(blocks); i++) {
        CHECK(blocks[i], "block %zu of no bytes", i);
        mem_free(blocks[i]);
    }
    CHECK(aligned, "aligned block of no bytes");
    mem_free_aligned(aligned);
    mem_free(NULL);
    mem_free_aligned(NULL);
}

static void test_contents(void **state)
{
    static const char zeros[100];
    char *s = mem_strdup("storyteller");
    char *z = mem_zeroed(10, 10);

    (void)state;
    assert_string_equal(s, "storyteller");
    assert_memory_equal(z, zeros, sizeof zeros);
    s = mem_resize(s, 1000);
    assert_string_equal(s, "storyteller");
    mem_free(s);
    mem_free(z);
}

static void test_aligned(void **state)
{
    (void)state;
    for (size_t n = 1; n < 300; n += 13) {
        char *p = mem_alloc_aligned(n);

        CHECK(p && (uintptr_t)p % 64 == 0, "%zu bytes at %p", n, (void *)p);
        memset(p, 1, n);
        mem_free_aligned(p);
    }
}

static void test_absurd_sizes(void **state)
{
    /* Through a volatile, or the compiler says what it thinks of such calls. */
    volatile size_t huge = SIZE_MAX;

    (void)state;
    CHECK(!mem_zeroed(huge / 2, 3), "the product overflows");
    CHECK(!mem_zeroed(huge / 2 + 1, 1), "larger than any object");
    CHECK(!mem_alloc(huge), "larger than any object");
    CHECK(!mem_resize(NULL, huge), "larger than any object");
    CHECK(!mem_alloc_aligned(huge), "rounding up overflows");
    CHECK(!mem_alloc_aligned(huge - 62), "rounding up overflows");
}

static void *nth(int kind)
{
    switch (kind) {
    case 0:
        return mem_alloc(8);
    case 1:
        return mem_zeroed(2, 8);
    case 2:
        return mem_resize(NULL, 8);
    case 3:
        return mem_strdup("x");
    default:
        return mem_alloc_aligned(8);
    }
}

static void test_fail_after(void **state)
{
    (void)state;
    CHECK(!mem_fail_after(-1), "nothing has failed yet");
    for (int kind = 0; kind < 5; kind++) {
        for (int n = 0; n < 4; n++) {
            mem_fail_after(n);
            for (int i = 0; i < 6; i++) {
                void *p = nth(kind);

                CHECK(!p == (i == n), "kind %d, fail after %d, allocation %d", kind, n, i);
                mem_free(p);
            }
            CHECK(mem_fail_after(-1), "it failed one");
        }
    }
    mem_fail_after(2);
    mem_free(nth(0));
    CHECK(!mem_fail_after(-1), "it did not come to failing");
}

static void test_resize_failure_keeps_the_block(void **state)
{
    char *p = mem_strdup("kept");

    (void)state;
    mem_fail_after(0);
    CHECK(!mem_resize(p, 1000), "should fail");
    mem_fail_after(-1);
    assert_string_equal(p, "kept");
    mem_free(p);
}

static void test_live(void **state)
{
    long before = mem_live();
    void *blocks[5];

    (void)state;
    for (int kind = 0; kind < 5; kind++)
        blocks[kind] = nth(kind);
    CHECK(mem_live() == before + 5, "%ld are live", mem_live() - before);
    blocks[0] = mem_resize(blocks[0], 4000);
    mem_free(NULL);
    mem_free_aligned(NULL);
    mem_fail_after(0);
    CHECK(!mem_alloc(8), "should fail");
    mem_fail_after(-1);
    CHECK(mem_live() == before + 5, "%ld are live", mem_live() - before);
    for (int kind = 0; kind < 4; kind++)
        mem_free(blocks[kind]);
    mem_free_aligned(blocks[4]);
    CHECK(mem_live() == before, "%ld are live", mem_live() - before);
}

static void *allocate_elsewhere(void *arg)
{
    void **p = arg;

    *p = mem_alloc(8);
    return NULL;
}

static void test_fail_after_is_per_thread(void **state)
{
    pthread_t thread;
    void *there = NULL;

    (void)state;
    mem_fail_after(0);
    assert_int_equal(pthread_create(&thread, NULL, allocate_elsewhere, &there), 0);
    pthread_join(thread, NULL);
    CHECK(there, "another thread's allocation failed");
    CHECK(!mem_alloc(8), "this thread's did not");
    CHECK(mem_fail_after(-1), "counted here");
    mem_free(there);
}

static void test_growing(void **state)
{
    size_t capacity = 0, before;
    int *items = NULL, *same;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        before = capacity;
        items = mem_grow(items, &capacity, (size_t)i + 1, sizeof *items);
        CHECK(items && capacity > (size_t)i, "no room for %d", i);
        CHECK(capacity == before || capacity >= 2 * before, "%zu after %zu", capacity, before);
        items[i] = i;
    }
    for (int i = 0; i < 1000; i++)
        CHECK(items[i] == i, "%d became %d", i, items[i]);
    same = mem_grow(items, &capacity, 5000, sizeof *items);
    CHECK(same && capacity == 5000, "room for %zu", capacity);
    items = same;
    mem_fail_after(0);
    CHECK(!mem_grow(items, &capacity, 5001, sizeof *items) && capacity == 5000, "no memory");
    CHECK(mem_fail_after(-1), "it was asked for");
    CHECK(mem_grow(items, &capacity, 5000, sizeof *items) == items, "there is room");
    CHECK(!mem_grow(items, &capacity, SIZE_MAX / 2, sizeof *items) && capacity == 5000, "absurd");
    mem_free(items);
}

static void test_checked_sizes(void **state)
{
    size_t out = 42;

    (void)state;
    CHECK(!size_mul(SIZE_MAX / 2 + 1, 2, &out) && out == 42, "out %zu", out);
    CHECK(!size_add(SIZE_MAX, 1, &out) && out == 42, "out %zu", out);
    CHECK(size_mul(SIZE_MAX / 2, 2, &out) && out == SIZE_MAX - 1, "out %zu", out);
    CHECK(size_add(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX, "out %zu", out);
    CHECK(size_mul(0, SIZE_MAX, &out) && out == 0, "out %zu", out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zero_sizes), cmocka_unit_test(test_contents),
        cmocka_unit_test(test_aligned),    cmocka_unit_test(test_absurd_sizes),
        cmocka_unit_test(test_fail_after), cmocka_unit_test(test_resize_failure_keeps_the_block),
        cmocka_unit_test(test_live),       cmocka_unit_test(test_fail_after_is_per_thread),
        cmocka_unit_test(test_growing),    cmocka_unit_test(test_checked_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
