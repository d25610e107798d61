#include <string.h>

#include "base/error.h"
#include "base/log.h"

#include "testing.h"

static void test_fills_and_returns(void **state)
{
    clm_error err = {0};

    (void)state;
    CHECK(fail(&err, CLM_ERR_IO, "%s: %d", "file", 7) == -1, "fail gives -1");
    assert_int_equal(err.code, CLM_ERR_IO);
    assert_string_equal(err.message, "file: 7");
    CHECK(fail_null(&err, CLM_ERR_IO, "x") == NULL, "fail_null gives NULL");
    CHECK(fail(NULL, CLM_ERR_IO, "nowhere to put it") == -1, "no error object is fine");
}

static void test_first_error_stays(void **state)
{
    clm_error err = {0};

    (void)state;
    fail(&err, CLM_ERR_FORMAT, "first");
    fail(&err, CLM_ERR_NOMEM, "second");
    assert_int_equal(err.code, CLM_ERR_FORMAT);
    assert_string_equal(err.message, "first");
}

static void test_message_is_printable(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"a\nb\tc\x7f", "a?b?c?"},
        {"\x1b[31mred", "?[31mred"},
        {"\xc2\x9b"
         "31m",
         "??31m"}, /* U+009B starts an escape sequence as ESC [ does */
        {"caf\xc3\xa9 \xf0\x9f\x90\xb1", "caf\xc3\xa9 \xf0\x9f\x90\xb1"},
        {"\xff\xc3(", "?"
                      "?("},
        {"\xef\xbf\xbd", "\xef\xbf\xbd"}, /* U+FFFD itself is a character like others */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        clm_error err = {0};

        fail(&err, CLM_ERR_ARG, "%s", cases[i].in);
        CHECK(!strcmp(err.message, cases[i].out), "case %zu: '%s'", i, err.message);
    }
}

static void test_long_message_is_cut_between_characters(void **state)
{
    char text[1200];
    clm_error err = {0};
    size_t n;

    (void)state;
    for (size_t i = 0; i + 2 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa9", 3);
    fail(&err, CLM_ERR_ARG, "%s", text);
    n = strlen(err.message);
    assert_int_equal(n, sizeof err.message - 1);
    assert_int_equal(err.message[n - 1], '?'); /* 499 is odd: half a character was left */
}

struct heard {
    enum log_level level;
    char message[64];
    int n;
};

static void hear(void *ctx, enum log_level level, const char *message)
{
    struct heard *h = ctx;

    h->level = level;
    h->n++;
    snprintf(h->message, sizeof h->message, "%s", message);
}

static void test_log(void **state)
{
    struct heard h = {0};
    struct log log = {hear, &h}, deaf = {0};

    (void)state;
    log_say(&log, LOG_WARNING, "key %s\n", "a\033b");
    assert_int_equal(h.n, 1);
    assert_int_equal(h.level, LOG_WARNING);
    assert_string_equal(h.message, "key a?b?");
    log_say(NULL, LOG_INFO, "x");
    log_say(&deaf, LOG_INFO, "x");
    assert_int_equal(h.n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fills_and_returns),
        cmocka_unit_test(test_first_error_stays),
        cmocka_unit_test(test_message_is_printable),
        cmocka_unit_test(test_long_message_is_cut_between_characters),
        cmocka_unit_test(test_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
