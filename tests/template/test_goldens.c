/* tests/template/test_goldens.c: every chat template of the shared goldens, and their small cases,
 * against what transformers makes of them; and the project's own cases, made the same way. */
#include "testing.h"

#include <dirent.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/memory.h"
#include "template/chat.h"

#define MAX_VARIABLES 64
#define MAX_SHOWN 5

static const struct tm clock_time = {.tm_year = 125,
                                     .tm_mon = 2,
                                     .tm_mday = 9,
                                     .tm_hour = 8,
                                     .tm_min = 5,
                                     .tm_sec = 7,
                                     .tm_yday = 67};

struct tally {
    const char *name;
    int cases, wrong;
};

static size_t variables_of(const json *object, struct template_variable *out)
{
    struct json_iter it = json_first(object);
    size_t n = 0;

    while (n < MAX_VARIABLES && json_next(&it))
        out[n++] = (struct template_variable){it.key, it.value};
    return n;
}

static bool contains(const char *text, size_t size, const char *part, size_t n)
{
    return !n || memmem(text, size, part, n);
}

/* A case says what is expected, or which error; of raise_exception also the message. */
static bool is_right(const json *c, int rc, const struct strbuf *text, const struct strbuf *raised)
{
    size_t size, n;
    const char *expected = json_string(json_get(c, "expected"), &size);
    const char *error = json_string(json_get(c, "error"), NULL);
    const char *message = json_string(json_get(c, "message"), &n);

    if (expected)
        return !rc && text->size == size && !memcmp(text->data ? text->data : "", expected, size);
    if (!rc || !error || strcmp(error, "TemplateError"))
        return rc && error;
    return contains(raised->data ? raised->data : "", raised->size, message, n);
}

static void judge(struct tally *tally, const json *c, const char *what, int rc,
                  const struct strbuf *text, const struct strbuf *raised, const clm_error *err)
{
    const char *expected = json_string(json_get(c, "expected"), NULL);

    tally->cases++;
    if (is_right(c, rc, text, raised) || tally->wrong++ >= MAX_SHOWN)
        return;
    print_error("%s: %s\n  expected: %s\n  got: %s\n", tally->name, what,
                expected ? expected : json_string(json_get(c, "message"), NULL),
                rc ? err->message : text->data);
}

static void run_raw(struct tally *tally, const json *c, const template *t,
                    const struct template_variable *variables, size_t n, clm_error *err)
{
    struct strbuf text = {0}, raised = {0};
    struct template_options options = {.now = &clock_time, .raised = &raised};
    int rc = t ? template_render(t, variables, n, &options, &text, err) : -1;

    judge(tally, c, json_string(json_get(c, "template"), NULL), rc, &text, &raised, err);
    strbuf_release(&text);
    strbuf_release(&raised);
}

/* {"context": {...}, "cases": [{"template": ..., "expected" or "error": ...}]} */
static void check_cases(const char *path, struct tally *tally)
{
    struct template_variable variables[MAX_VARIABLES];
    clm_error err = {0};
    json *root = json_parse_file(path, &err);
    const json *cases = json_get(root, "cases");
    size_t n = variables_of(json_get(root, "context"), variables);

    CHECK(root, "%s", err.message);
    for (size_t i = 0; i < json_size(cases); i++) {
        const json *c = json_at(cases, i);
        size_t size = 0;
        const char *text = json_string(json_get(c, "template"), &size);
        clm_error problem = {0};
        template *t = template_parse(text, size, "case", &problem);

        CHECK(!t == (problem.code != 0), "%s: %s", text, problem.message);
        run_raw(tally, c, t, variables, n, &problem);
        template_close(t);
    }
    json_free(root);
}

static void run_chat(struct tally *tally, const json *c, const template *t)
{
    struct template_variable variables[MAX_VARIABLES];
    struct strbuf text = {0}, raised = {0};
    struct template_options options = {.now = &clock_time, .raised = &raised};
    struct chat_request request = {
        .messages = json_get(c, "messages"),
        .tools = json_get(c, "tools"),
        .documents = json_get(json_get(c, "extra"), "documents"),
        .add_generation_prompt = json_bool(json_get(c, "add_generation_prompt"), false),
        .variables = variables,
    };
    clm_error err = {0};
    int rc;

    request.n_variables = variables_of(json_get(c, "extra"), variables);
    rc = chat_render(t, &request, &options, &text, &err);
    judge(tally, c, json_string(json_get(c, "name"), NULL), rc, &text, &raised, &err);
    strbuf_release(&text);
    strbuf_release(&raised);
}

/* What the template gives without the preparation of messages. */
static void run_unprepared(struct tally *tally, const json *c, const template *t)
{
    static const char null_text[] = "null";
    const json *raw = json_get(c, "raw"), *extra = json_get(c, "extra");
    struct template_variable variables[MAX_VARIABLES + 4];
    clm_error err = {0};
    json *null = json_parse(null_text, 4, "null", &err);
    size_t n = 0;

    variables[n++] = (struct template_variable){"documents", null};
    n += variables_of(extra, variables + n);
    variables[n++] = (struct template_variable){"messages", json_get(c, "messages")};
    variables[n++] = (struct template_variable){"tools", json_get(c, "tools")};
    variables[n++] =
        (struct template_variable){"add_generation_prompt", json_get(c, "add_generation_prompt")};
    run_raw(tally, raw ? raw : c, t, variables, n, &err);
    json_free(null);
}

static void check_template(const char *jinja, const char *cases_path, struct tally *tally)
{
    clm_error err = {0};
    size_t size;
    char *text = file_read(jinja, (size_t)1 << 20, &size, &err);
    template *t = text ? template_parse(text, size, tally->name, &err) : NULL;
    json *cases = json_parse_file(cases_path, &err);

    CHECK(t && cases, "%s", err.message);
    for (size_t i = 0; i < json_size(cases); i++) {
        run_chat(tally, json_at(cases, i), t);
        run_unprepared(tally, json_at(cases, i), t);
    }
    template_close(t);
    json_free(cases);
    mem_free(text);
}

static void test_templates(void **state)
{
    const char *folder;
    struct dirent *e;
    struct tally all = {.name = "all"};
    DIR *d;

    (void)state;
    SKIP_IF_NO_SHARED();
    folder = shared_path("goldens/templates");
    d = folder ? opendir(folder) : NULL;
    CHECK(d, "goldens/templates cannot be read");
    while ((e = readdir(d))) {
        struct tally one = {.name = e->d_name};
        char jinja[4400], cases[4400];
        const char *dot = strrchr(e->d_name, '.');

        if (!dot || strcmp(dot, ".jinja"))
            continue;
        snprintf(jinja, sizeof jinja, "%s/%s", folder, e->d_name);
        snprintf(cases, sizeof cases, "%s/%.*s.json", folder, (int)(dot - e->d_name), e->d_name);
        check_template(jinja, cases, &one);
        all.cases += one.cases;
        all.wrong += one.wrong;
    }
    closedir(d);
    CHECK(all.cases > 0 && !all.wrong, "%d of %d renderings are wrong", all.wrong, all.cases);
}

static void test_conformance(void **state)
{
    struct tally tally = {.name = "conformance"};

    (void)state;
    SKIP_IF_NO_SHARED();
    check_cases(shared_path("goldens/templates/conformance.json"), &tally);
    CHECK(tally.cases > 0 && !tally.wrong, "%d of %d are wrong", tally.wrong, tally.cases);
}

static void test_own_cases(void **state)
{
    struct tally tally = {.name = "cases"};

    (void)state;
    check_cases(CLM_TEST_DATA "/template/cases.json", &tally);
    CHECK(tally.cases > 500 && !tally.wrong, "%d of %d are wrong", tally.wrong, tally.cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_templates),
        cmocka_unit_test(test_conformance),
        cmocka_unit_test(test_own_cases),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
