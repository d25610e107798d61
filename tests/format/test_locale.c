/* JSON in a program whose locale has a comma in numbers. */
#include "testing.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "base/decimal.h"
#include "base/memory.h"
#include "base/strbuf.h"
#include "base/temporary.h"
#include "format/json.h"
#include "format/json_write.h"

/* One of the system, or else one that is made for the test. */
static bool use_comma(void)
{
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", NULL};
    char command[2200];

    for (int i = 0; names[i]; i++)
        if (setlocale(LC_NUMERIC, names[i]))
            return true;
    temporary_clear();
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s >/dev/null 2>&1",
             temporary_path("de_DE.UTF-8"));
    return system(command) != -1 && !setenv("LOCPATH", temporary_folder, 1) &&
           setlocale(LC_NUMERIC, "de_DE.UTF-8");
}

static void check_written(void)
{
    static const char text[] = "{\"a\": [0.5, -1e-300, 3.0, 1e+22, 123456.75, {\"b\": 0.125}]}";
    static const double numbers[] = {0.1, -2.5e-308, 1e300, 3, -0.0, 1 / 3.0};
    struct strbuf out = {0};
    clm_error err = {0};
    json *root = json_parse(text, strlen(text), "text", &err), *again;
    char digits[DECIMAL_ROOM];

    CHECK(root, "%s", err.message);
    CHECK(json_real(json_at(json_get(root, "a"), 0), 0) == 0.5, "0.5 is read as another number");
    json_write(&out, root);
    again = json_parse(out.data, out.size, "written", &err);
    CHECK(again, "%s: %s", out.data, err.message);
    CHECK(strstr(out.data, "[0.5, ") && strstr(out.data, " 3.0, "), "%s", out.data);
    CHECK(json_real(json_at(json_get(again, "a"), 4), 0) == 123456.75, "%s", out.data);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        decimal_write(digits, numbers[i]);
        CHECK(!strchr(digits, ',') && decimal_parse(digits, strlen(digits)) == numbers[i], "%s",
              digits);
    }
    json_free(again);
    json_free(root);
    strbuf_release(&out);
}

static void test_point(void **state)
{
    (void)state;
    check_written();
}

static void test_comma(void **state)
{
    (void)state;
    if (!use_comma())
        skip();
    CHECK(!strcmp(localeconv()->decimal_point, ","), "no comma, %s", localeconv()->decimal_point);
    check_written();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_point),
        cmocka_unit_test(test_comma),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
