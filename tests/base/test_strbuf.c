#include <string.h>

#include "base/memory.h"
#include "base/strbuf.h"

#include "testing.h"

static void test_grows(void **state)
{
    struct strbuf b = {0};
    char want[5000];

    (void)state;
    for (size_t i = 0; i < sizeof want - 1; i++) {
        want[i] = (char)('a' + i % 26);
        strbuf_add_char(&b, want[i]);
        CHECK(b.size == i + 1 && b.data[b.size] == '\0', "i %zu", i);
    }
    want[sizeof want - 1] = '\0';
    assert_string_equal(b.data, want);
    strbuf_clear(&b);
    assert_string_equal(b.data, "");
    strbuf_add_str(&b, "again");
    assert_string_equal(b.data, "again");
    strbuf_release(&b);
    CHECK(!b.data && !b.size && !b.capacity, "released");
    strbuf_release(&b);
    strbuf_clear(&b);
}

static void test_add_kinds(void **state)
{
    struct strbuf b = {0};

    (void)state;
    strbuf_add(&b, "a\0b", 3);
    strbuf_add(&b, NULL, 0);
    strbuf_addf(&b, "%03d|%s", 7, "text");
    strbuf_addf(&b, "%s", "");
    assert_int_equal(b.size, 11);
    assert_memory_equal(b.data, "a\0b007|text", 12);
    strbuf_release(&b);
    strbuf_add(&b, "", 0);
    assert_string_equal(b.data, ""); /* something was added, if of no length */
    strbuf_release(&b);
}

static void test_json(void **state)
{
    static const struct {
        const char *in;
        size_t n;
        const char *out;
    } cases[] = {
        {"", 0, "\"\""},
        {"plain", 5, "\"plain\""},
        {"\"\\/", 3, "\"\\\"\\\\/\""},
        {"\b\f\n\r\t", 5, "\"\\b\\f\\n\\r\\t\""},
        {"a\0\x01\x1f\x7f", 5, "\"a\\u0000\\u0001\\u001f\x7f\""},
        {"\xC3\xA9\xF0\x9F\x90\xB1", 6, "\"\xC3\xA9\xF0\x9F\x90\xB1\""},
        {"\xC2\x85\xE2\x80\xA8\xE2\x80\xA9\xE2\x80\xAA", 11,
         "\"\\u0085\\u2028\\u2029\xE2\x80\xAA\""},
        {"a\xFFz", 3, "\"a\xEF\xBF\xBDz\""},
        {"\xE2\x82", 2, "\"\xEF\xBF\xBD\""},
        {"\xC3\"", 2, "\"\xEF\xBF\xBD\\\"\""},
        {"\xEF\xBF\xBD", 3, "\"\xEF\xBF\xBD\""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct strbuf b = {0};

        strbuf_add_json(&b, cases[i].in, cases[i].n);
        CHECK(!strcmp(b.data, cases[i].out), "case %zu: %s", i, b.data);
        strbuf_release(&b);
    }
}

static void test_failing_allocations(void **state)
{
    char text[3000];

    (void)state;
    memset(text, 'x', sizeof text);
    for (long n = 0;; n++) {
        struct strbuf b = {0};
        bool failed;

        mem_fail_after(n);
        for (int i = 0; i < 3 && !b.failed; i++) {
            strbuf_add(&b, text, sizeof text);
            strbuf_add_json(&b, "\n", 1);
            strbuf_addf(&b, "%d", i);
        }
        failed = mem_fail_after(-1);
        CHECK(failed == b.failed, "n %ld", n);
        if (failed) {
            size_t size = b.size;

            strbuf_add_str(&b, "more");
            CHECK(b.size == size, "n %ld: it goes on after a failure", n);
        }
        strbuf_release(&b);
        if (!failed)
            return;
        CHECK(n < 10, "it fails for ever");
    }
}

static void test_absurd_size(void **state)
{
    struct strbuf b = {0};

    (void)state;
    strbuf_add_str(&b, "text");
    strbuf_add(&b, "", SIZE_MAX - 2);
    CHECK(b.failed, "the sum overflows");
    assert_string_equal(b.data, "text");
    strbuf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows),       cmocka_unit_test(test_add_kinds),
        cmocka_unit_test(test_json),        cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_absurd_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
