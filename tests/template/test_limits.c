/* tests/template/test_limits.c: bounds hold, errors say where, memory may run out at any point, and
 * threads share a template. */
#include "testing.h"

#include <pthread.h>
#include <string.h>

#include "base/memory.h"
#include "template/chat.h"

static template *parsed(const char *text)
{
    clm_error err = {0};
    template *t = template_parse(text, strlen(text), "t", &err);

    CHECK(t, "%s: %s", text, err.message);
    return t;
}

/* Renders with limits and expects an error of that code. */
static void expect_error(const char *text, struct template_limits limits, int code)
{
    struct template_options options = {.limits = limits};
    struct strbuf out = {0};
    clm_error err = {0};
    template *t = parsed(text);

    strbuf_add_str(&out, "before");
    CHECK(template_render(t, NULL, 0, &options, &out, &err) == -1, "%s", text);
    CHECK(err.code == code, "%s: code %d: %s", text, err.code, err.message);
    CHECK(!strcmp(out.data, "before") && out.size == 6, "%s left: %s", text, out.data);
    strbuf_release(&out);
    template_close(t);
}

static void expect_text(const char *text, struct template_limits limits, const char *expected)
{
    struct template_options options = {.limits = limits};
    struct strbuf out = {0};
    clm_error err = {0};
    template *t = parsed(text);

    CHECK(!template_render(t, NULL, 0, &options, &out, &err), "%s: %s", text, err.message);
    CHECK(!strcmp(out.data, expected), "%s: %s", text, out.data);
    strbuf_release(&out);
    template_close(t);
}

/* What is built piece by piece costs its length, not its square; pieces put to one beginning do not
 * meet. */
static void test_growth(void **state)
{
    const struct template_limits few = {.memory_bytes = (size_t)8 << 20, .steps = 1000000};
    const struct template_limits none = {0};

    (void)state;
    expect_text("{% set ns = namespace(x=[]) %}{% for i in range(20000) %}"
                "{% set ns.x = ns.x + [i] %}{% endfor %}{{ ns.x | length }} {{ ns.x[-1] }}",
                few, "20000 19999");
    expect_text("{% set ns = namespace(x='') %}{% for i in range(20000) %}"
                "{% set ns.x = ns.x ~ 'ab' %}{% endfor %}{{ ns.x | length }}",
                few, "40000");
    expect_text("{% set a = [1, 2, 3] + [4, 5] %}{% set b = a + [6] %}{% set c = a + a %}"
                "{% set d = b + b[:2] %}{% set e = b[:5] + ['x'] %}{{ [a, b, c, d, e] }}",
                none,
                "[[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 1, 2, 3, 4, 5], "
                "[1, 2, 3, 4, 5, 6, 1, 2], [1, 2, 3, 4, 5, 'x']]");
    expect_text(
        "{% set t = 'aé€' * 9 %}{{ t[25] ~ t[26] ~ t[8] ~ t[-2] ~ t[7:10] }}{{ t | length }}", none,
        "é€€éé€a27");
}

static void test_steps(void **state)
{
    const struct template_limits few = {.steps = 100000};

    (void)state;
    expect_error("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
                 few, CLM_ERR_FULL);
    expect_error("{% set ns = namespace(x='a') %}{% for a in range(20) %}"
                 "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{% for i in range(99999) %}"
                 "{{ 'b' in ns.x }}{% endfor %}",
                 few, CLM_ERR_FULL);
    expect_error("{{ range(99999) | list | sort(reverse=true) | map('string') | join }}", few,
                 CLM_ERR_FULL);
    expect_error("{{ dict(**{}.fromkeys(range(999) | map('string'))) | length }}", few,
                 CLM_ERR_FULL);
}

static void test_memory(void **state)
{
    const struct template_limits little = {.memory_bytes = 1 << 20};

    (void)state;
    expect_error("{% set x = 'a' * 100000000 %}", little, CLM_ERR_FULL);
    expect_error("{% set ns = namespace(x='ab') %}{% for a in range(64) %}"
                 "{% set ns.x = ns.x + ns.x %}{% endfor %}",
                 little, CLM_ERR_FULL);
    expect_error("{% set x = [0] * 1000000 %}", little, CLM_ERR_FULL);
    expect_error("{{ range(90000) | list }}", little, CLM_ERR_FULL);
}

static void test_output(void **state)
{
    const struct template_limits small = {.output_bytes = 1000};

    (void)state;
    expect_error("{% for i in range(1000) %}abc{% endfor %}", small, CLM_ERR_FULL);
    expect_error("{% set x %}{% for i in range(1000) %}abc{% endfor %}{% endset %}", small,
                 CLM_ERR_FULL);
    expect_error("{{ 'x' | center(100000) }}", small, CLM_ERR_FULL);
    expect_error("{{ [] | tojson(indent=5) }}{{ [1] | tojson(indent=5000) }}", small, CLM_ERR_FULL);
}

static void test_depth(void **state)
{
    const struct template_limits none = {0};

    (void)state;
    expect_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", none, CLM_ERR_FULL);
    expect_error("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", none, CLM_ERR_FULL);
    expect_error("{% set ns = namespace(x=[]) %}{% for i in range(5000) %}"
                 "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
                 none, CLM_ERR_FULL);
    expect_error("{% set ns = namespace(x=[]) %}{% for i in range(5000) %}"
                 "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
                 none, CLM_ERR_FULL);
    expect_error("{% set ns = namespace(x=[1]) %}{% for i in range(5000) %}"
                 "{% set ns.x = ns.x | map('string') %}{% endfor %}{{ ns.x | list }}",
                 none, CLM_ERR_FULL);
}

/* A deep template is refused while parsing. */
static void test_deep_text(void **state)
{
    static const char *const openings[] = {"{{ (",       "{{ [",   "{{ -",           "{{ not ",
                                           "{% if x %}", "{{ {1:", "{{ 1 if 1 else "};
    (void)state;
    for (size_t i = 0; i < COUNT(openings); i++) {
        struct strbuf text = {0};
        clm_error err = {0};

        strbuf_add_str(&text, openings[i]);
        for (int k = 0; k < 100000; k++)
            strbuf_add_str(&text, openings[i] + (openings[i][1] == '{' ? 3 : 0));
        CHECK(!template_parse(text.data, text.size, "deep", &err), "%s", openings[i]);
        CHECK(err.code == CLM_ERR_FORMAT, "%s: %s", openings[i], err.message);
        strbuf_release(&text);
    }
}

static void test_places(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"a\nb{{ x.y.z }}", "t:2: 'x' is undefined"},
        {"\n\n{% if 1 %}\n{{ none.x.y }}{% endif %}",
         "t:4: 'NoneType object' has no attribute 'x'"},
        {"{{ raise_exception('no ' ~ 1) }}", "t:1: no 1"},
        {"{{ [1].append(2) }}", "t:1: access to attribute 'append' of 'list' object is unsafe."},
        {"{% macro m() %}\n{{ 1 + 'a' }}{% endmacro %}\n{{ m() }}",
         "t:2: unsupported operand type(s) for +: 'int' and 'str'"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct strbuf out = {0};
        clm_error err = {0};
        template *t = parsed(cases[i].text);

        CHECK(template_render(t, NULL, 0, NULL, &out, &err) == -1, "%s", cases[i].text);
        CHECK(!strcmp(err.message, cases[i].message), "got %s, expected %s", err.message,
              cases[i].message);
        strbuf_release(&out);
        template_close(t);
    }
}

static void test_syntax_places(void **state)
{
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"{% if x %}\n\n",
         "t:1: Unexpected end of template"}, /* the newline at the end is dropped */
        {"a\n{{ 1 + }}", "t:2: unexpected"},
        {"\n{% frob %}", "t:2: Encountered unknown tag 'frob'"},
        {"{{ x | frob }}", "t:1: No filter named 'frob'"},
        {"\n\n{{ 'abc }}", "t:3: unexpected char"},
        {"{# a", "t:1: Missing end of comment tag"},
        {"\xff", "t: the template is not UTF-8"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        clm_error err = {0};
        template *t = template_parse(cases[i].text, strlen(cases[i].text), "t", &err);

        CHECK(!t, "%s", cases[i].text);
        CHECK(i == 0 || strstr(err.message, cases[i].part), "got %s, expected %s", err.message,
              cases[i].part);
    }
}

/* ---- memory that runs out ---- */

static const char torture_text[] =
    "{% macro m(a, b=2) %}{{ a }}{{ kwargs }}{{ caller() if caller }}{% endmacro %}"
    "{% set ns = namespace(t='', seen=[]) %}{% for i in [3, 1, 2] if i %}{% set ns.t = ns.t ~ i %}"
    "{% set ns.seen = ns.seen + [i] %}{{ loop.index }}{{ loop.last }}{% endfor %}{{ ns.t }}{{ ns }}"
    "{% call m(1, x=2) %}body{% endcall %}{{ m('a') | upper }}{{ [3, 1] | sort | map('string') | "
    "join }}"
    "{{ {'a': [1, {'b': none}]} | tojson(indent=2) }}{{ 'a,b'.split(',') }}{{ '%5.2f' % 3.14159 }}"
    "{{ '{:>5}'.format('x') }}{{ 2 ** 100 }}{{ people | groupby('age') }}{{ people | "
    "unique(attribute='age') | list "
    "}}"
    "{% set x | trim %} y {% endset %}{% filter upper %}z{{ x }}{% endfilter %}{{ d | dictsort }}"
    "{% for k, v in d.items() recursive %}{{ k }}{% endfor %}{{ strftime_now('%Y') }}{{ u | title "
    "}}"
    "{{ 'é'.upper() }}{{ u | indent(2, true) }}{{ [1, 2, 3] | batch(2) | list }}{{ u[::-1] }}";

static const char torture_input[] =
    "{\"people\": [{\"age\": 3}, {\"age\": 2}], \"d\": {\"b\": 1, \"a\": 2, \"c\": 3, \"e\": 5, "
    "\"f\": 6,"
    "\"g\": 7, \"h\": 8, \"i\": 9, \"j\": 10}, \"u\": \"h\\u00e9llo w\\u00f6rld\\nx\"}";

static void test_out_of_memory(void **state)
{
    clm_error err = {0};
    json *input = json_parse(torture_input, strlen(torture_input), "input", &err);
    struct template_variable variables[8];
    struct json_iter it = json_first(input);
    struct tm now = {.tm_year = 125};
    struct template_options options = {.now = &now};
    struct strbuf expected = {0};
    size_t n = 0;
    bool failed = true;
    template *t = parsed(torture_text);

    (void)state;
    while (json_next(&it))
        variables[n++] = (struct template_variable){it.key, it.value};
    CHECK(!template_render(t, variables, n, &options, &expected, &err), "%s", err.message);
    template_close(t);
    for (long k = 0; failed; k++) {
        struct strbuf out = {0};
        clm_error problem = {0};
        int rc = -1;

        mem_fail_after(k);
        t = template_parse(torture_text, strlen(torture_text), "t", &problem);
        if (t)
            rc = template_render(t, variables, n, &options, &out, &problem);
        failed = mem_fail_after(-1);
        CHECK(failed ? rc == -1 && problem.code == CLM_ERR_NOMEM : rc == 0, "allocation %ld: %d %s",
              k, rc, problem.message);
        CHECK(failed || (out.size == expected.size && !memcmp(out.data, expected.data, out.size)),
              "got %s", out.data);
        template_close(t);
        strbuf_release(&out);
    }
    strbuf_release(&expected);
    json_free(input);
}

/* ---- threads ---- */

struct worker {
    const template *t;
    int rc;
};

static void *render_often(void *arg)
{
    struct worker *w = arg;

    for (int i = 0; i < 200 && !w->rc; i++) {
        struct strbuf out = {0};
        clm_error err = {0};

        w->rc = template_render(w->t, NULL, 0, NULL, &out, &err);
        if (!w->rc && strcmp(out.data, "0:1 0:1 1:2 1:2 "))
            w->rc = 1;
        strbuf_release(&out);
    }
    return NULL;
}

static void test_threads(void **state)
{
    template *t = parsed("{% macro m(x) %}{{ x }}:{{ x + 1 }} {% endmacro %}"
                         "{% for i in range(2) %}{{ m(i) }}{{ m(i) ~ '' }}{% endfor %}");
    struct worker workers[4];
    pthread_t threads[4];

    (void)state;
    for (int i = 0; i < 4; i++) {
        workers[i] = (struct worker){.t = t};
        CHECK(!pthread_create(&threads[i], NULL, render_often, &workers[i]), "thread %d", i);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        CHECK(!workers[i].rc, "thread %d: %d", i, workers[i].rc);
    }
    template_close(t);
}

/* What the walk finds out once or shares between nodes is as if it did not. The texts are Jinja2's.
 */
static void test_shared_work(void **state)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"{% set o = 'o' %}{% for i in [1, 2, 3] %}{{ a }}{{ b }}{{ o }};{% set a = i %}"
         "{% set b = i * 2 %}{% set o = o ~ i %}{{ a }}{{ b }}{{ o }} {% endfor %}{{ o }}",
         "o;12o1 o;24o2 o;36o3 o"},
        {"{% for i in [1, 2] %}{{ a }}{{ b }}{{ c }}{{ d }}{{ e }}{{ f }}{{ g }}.{% set a = 1 %}"
         "{% set b = 2 %}{% set c = 3 %}{% set d = 4 %}{% set e = 5 %}{% set f = 6 %}"
         "{% set g = i %}{{ a }}{{ b }}{{ c }}{{ d }}{{ e }}{{ f }}{{ g }} {% endfor %}",
         ".1234561 .1234562 "},
        {"{% for m in [{'r': 'x'}, {'r': 'y'}, {'r': 2}, {}] %}{% if m.r == 'x' %}1"
         "{% elif m.r == 'y' %}2{% elif m['r'] != 'q' and m.r %}3{% elif m.r == 'z' %}4"
         "{% else %}5{% endif %}{% endfor %}",
         "1235"},
        {"{{ 0 or '' or 'c' or 1 // 0 }}{{ 1 and 'b' and 0 and 1 // 0 }}"
         "{{ 0 and 1 or 2 and 3 }}{{ not 0 or 1 // 0 }}"
         "{{ 1 and not (0 or not 1 or []) and 'e' }}",
         "c03Truee"},
        {"{{ {'k': 'aaaaaaaaaaaaaaa\"'} | tojson }}"
         "{{ ['abcdefg\\n', '\\\\', 'abcd\\x1f', 'abc\\x7f'] | tojson }}",
         "{\"k\": \"aaaaaaaaaaaaaaa\\\"\"}"
         "[\"abcdefg\\n\", \"\\\\\", \"abcd\\u001f\", \"abc\x7f\"]"},
        {"{{ [[1]] | tojson(indent=20) }}",
         "[\n                    [\n                                        1\n"
         "                    ]\n]"},
        {"{{ {}.zz }}{{ {'__a': 1}.zz is defined }}{{ {}['__zz'] is defined }}", "FalseFalse"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        expect_text(cases[i].text, (struct template_limits){0}, cases[i].want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_work),   cmocka_unit_test(test_growth),
        cmocka_unit_test(test_steps),         cmocka_unit_test(test_memory),
        cmocka_unit_test(test_output),        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_deep_text),     cmocka_unit_test(test_places),
        cmocka_unit_test(test_syntax_places), cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
