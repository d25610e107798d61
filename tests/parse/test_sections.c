/* Sections against the traces of mlx_lm's TextStateMachine: the same states at the same places, and
 * the same text in each; given out as early as there, or earlier. */
#include "../testing.h"

#include <string.h>

#include "base/memory.h"
#include "format/json.h"
#include "parse/sections.h"

/* Names of the states of a machine, by number; one more, for the end, is not in it. */
struct machine {
    struct sections sections;
    const char *names[SECTIONS_MAX_STATES];
    int n_names;
};

static int state_number(struct machine *m, const char *name)
{
    if (!name)
        return SECTIONS_END;
    for (int i = 0; i < m->n_names; i++)
        if (strcmp(m->names[i], name) == 0)
            return i;
    CHECK(m->n_names < SECTIONS_MAX_STATES, "too many states");
    m->names[m->n_names] = name;
    return m->n_names++;
}

static void build(struct machine *m, const json *states)
{
    *m = (struct machine){0};
    for (struct json_iter it = json_first(states); json_next(&it);)
        for (size_t i = 0; i < json_size(it.value); i++) {
            const json *edge = json_at(it.value, i);
            size_t n;
            const char *marker = json_string(json_at(edge, 0), &n);

            assert_int_equal(sections_add(&m->sections, state_number(m, it.key), marker, n,
                                          state_number(m, json_string(json_at(edge, 1), NULL))),
                             0);
        }
    assert_int_equal(sections_build(&m->sections), 0);
}

/* Text by state: pieces of one state in a row are one. An entered state begins a piece. */
struct trace {
    struct strbuf text;
    int last;
    size_t n_text;
};

static void add_piece(struct trace *t, int state, const char *text, size_t n)
{
    if (n && state != t->last)
        strbuf_addf(&t->text, "<%d>", state);
    if (n)
        t->last = state;
    strbuf_add(&t->text, text, n);
    t->n_text += n;
}

static void take(void *user, int state, const char *text, size_t n, bool entered)
{
    if (!entered)
        add_piece(user, state, text, n);
}

static void check_case(struct machine *m, const json *c)
{
    const json *steps = json_get(c, "steps");
    const char *final = json_string(json_get(c, "final_state"), NULL);
    struct trace want = {.last = -2}, got = {.last = -2};
    struct section_place p;
    size_t n;
    const char *text;
    int state = state_number(m, json_string(json_get(c, "initial"), NULL));

    sections_start(&p, &m->sections, state);
    for (size_t i = 0; i < json_size(steps); i++) {
        const json *step = json_at(steps, i), *segments = json_at(step, 1);

        text = json_string(json_at(step, 0), &n);
        assert_int_equal(sections_feed(&p, text, n, take, &got), 0);
        for (size_t k = 0; k < json_size(segments); k++) {
            const json *segment = json_at(segments, k);

            text = json_string(json_at(segment, 1), &n);
            state = state_number(m, json_string(json_at(segment, 0), NULL));
            add_piece(&want, state, text, n);
        }
        assert_int_equal(p.state, state_number(m, json_string(json_at(step, 2), NULL)));
        CHECK(got.n_text >= want.n_text, "step %zu: less text than the reference gives", i);
    }
    sections_flush(&p, take, &got);
    text = json_string(json_get(c, "flush"), &n);
    if (p.state != SECTIONS_END) /* after its end, the reference still returns what followed */
        add_piece(&want, p.state, text, n);
    CHECK(want.text.size == got.text.size &&
              (!got.text.size || !memcmp(want.text.data, got.text.data, got.text.size)),
          "%s, not %s", got.text.data ? got.text.data : "", want.text.data ? want.text.data : "");
    assert_int_equal(p.state, state_number(m, final));
    sections_stop(&p);
    strbuf_release(&want.text);
    strbuf_release(&got.text);
}

static void test_goldens(void **state)
{
    clm_error err = {0};
    json *machines, *cases;

    (void)state;
    SKIP_IF_NO_SHARED();
    machines = json_parse_file(shared_path("goldens/parsing/state_machines.json"), &err);
    cases = json_parse_file(shared_path("goldens/parsing/text_state_machine.json"), &err);
    CHECK(machines && json_size(cases) > 500, "%s", err.message);
    for (size_t i = 0; i < json_size(cases); i++) {
        const json *c = json_at(cases, i);
        struct machine m;

        build(&m, json_get(machines, json_string(json_get(c, "machine"), NULL)));
        check_case(&m, c);
        sections_release(&m.sections);
    }
    json_free(machines);
    json_free(cases);
}

static void test_memory(void **state)
{
    bool done = false;

    (void)state;
    for (long n = 0; !done; n++) {
        struct sections s = {0};
        struct section_place p = {0};
        struct trace t = {0};
        bool failed;

        mem_fail_after(n);
        failed = sections_add(&s, 0, "<think>", 7, 1) || sections_add(&s, 1, "</think>", 8, 0) ||
                 sections_build(&s);
        if (!failed) {
            sections_start(&p, &s, 0);
            failed = sections_feed(&p, "a<think>b</thi", 14, take, &t);
        }
        done = !mem_fail_after(-1);
        CHECK(done != (failed || t.text.failed), "allocation %ld", n);
        sections_stop(&p);
        sections_release(&s);
        strbuf_release(&t.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
