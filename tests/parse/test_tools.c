/* Tool calls, held against mlx_lm's parsers: whole, and streamed in every possible way. */
#include "../testing.h"

#include "base/memory.h"
#include "parse/syntax.h"
#include "parse_golden.h"

/* Where clm is right and the reference is not, or where JSON has no such value: syntax and text. */
static const struct {
    const char *syntax, *text, *why;
} exceptions[] = {
    {"mistral", "f[CALL_ID]abc[ARGS]{}", "the template writes NAME[CALL_ID]ID[ARGS]"},
    {"kimi_k2", "<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"a\": 1}",
     "the marker is no part of the name"},
};

static bool is_exception(const char *syntax, const char *text)
{
    for (size_t i = 0; i < COUNT(exceptions); i++)
        if (!strcmp(exceptions[i].syntax, syntax) && !strcmp(exceptions[i].text, text))
            return true;
    return false;
}

static json *load(const char *name)
{
    char rest[256];
    clm_error err = {0};
    json *root;

    snprintf(rest, sizeof rest, "goldens/parsing/%s", name);
    root = json_parse_file(shared_path(rest), &err);
    CHECK(root, "%s", err.message);
    return root;
}

/* The calls as text, to be compared: name, id and arguments of each that ended. */
struct record {
    struct strbuf calls, open;
    size_t failed; /* how often a section or call failed */
    size_t open_events;
};

static void record_event(void *user, const struct parse_event *e)
{
    struct record *r = user;

    switch (e->kind) {
    case PARSE_CALL_BEGIN:
        strbuf_clear(&r->open);
        strbuf_addf(&r->open, "%.*s\x1f%.*s\x1f", (int)e->size, e->text, (int)e->id_size,
                    e->id ? e->id : "");
        r->open_events++;
        break;
    case PARSE_CALL_ARGUMENTS:
        CHECK(e->size > 0, "an empty piece");
        strbuf_add(&r->open, e->text, e->size);
        break;
    case PARSE_CALL_END:
        strbuf_addf(&r->open, "\x1f%.*s\n", (int)e->id_size, e->id ? e->id : "");
        strbuf_add(&r->calls, r->open.data, r->open.size);
        break;
    case PARSE_CALL_FAILED:
        r->failed++;
        break;
    default:
        CHECK(0, "an event of another kind");
    }
}

static void record_release(struct record *r)
{
    strbuf_release(&r->calls);
    strbuf_release(&r->open);
}

/* Feeds the text in pieces that end at cut, or byte by byte where cut is SIZE_MAX; with SIZE_MAX-1
 * whole, before the first step. */
#define BYTE_BY_BYTE SIZE_MAX
#define WHOLE (SIZE_MAX - 1)

static void read_in_pieces(const struct tool_syntax *s, const json *tools, struct span text,
                           size_t cut, struct record *out)
{
    struct tool_reader r = {
        .syntax = s, .tools = tools, .out = {.sink = record_event, .user = out}};

    reader_section(&r);
    if (cut == WHOLE) {
        strbuf_add(&r.text, text.at, text.size);
    } else if (cut == BYTE_BY_BYTE) {
        for (size_t i = 0; i < text.size; i++)
            assert_int_equal(reader_feed(&r, text.at + i, 1), 0);
    } else {
        assert_int_equal(reader_feed(&r, text.at, cut), 0);
        assert_int_equal(reader_feed(&r, text.at + cut, text.size - cut), 0);
    }
    assert_int_equal(reader_finish(&r), 0);
    reader_release(&r);
}

/* A stream either gives what the whole text gives, or says that it cannot take back what it gave.
 */
static size_t check_streams(const struct tool_syntax *s, const json *tools, struct span text)
{
    struct record whole = {0};
    size_t refused = 0;

    read_in_pieces(s, tools, text, WHOLE, &whole);
    for (size_t cut = 0; cut <= text.size + 1; cut++) {
        struct record part = {0};
        bool same;

        read_in_pieces(s, tools, text, cut > text.size ? BYTE_BY_BYTE : cut, &part);
        same = part.calls.size == whole.calls.size &&
               (!whole.calls.size || !memcmp(part.calls.data, whole.calls.data, whole.calls.size));
        if (whole.failed)
            CHECK(part.failed, "%s: %s: cut at %zu it does not fail", s->name, text.at, cut);
        else if (!part.failed)
            CHECK(same, "%s: %s: cut at %zu gives\n%s, not\n%s", s->name, text.at, cut,
                  part.calls.data ? part.calls.data : "", whole.calls.data ? whole.calls.data : "");
        refused += !whole.failed && part.failed;
        record_release(&part);
    }
    record_release(&whole);
    return refused;
}

static bool same_call(const struct tool_call *call, const json *expected)
{
    const json *arguments = json_get(expected, "arguments");
    const char *id = json_string(json_get(expected, "id"), NULL);
    struct span name;

    name.at = json_string(json_get(expected, "name"), &name.size);
    if (!name.at || !span_equal((struct span){call->name, call->name_size}, name))
        return false;
    if (id ? !call->id || strcmp(id, call->id) != 0 : call->id != NULL)
        return false;
    return arguments ? same_value((struct span){call->arguments, call->arguments_size}, arguments)
                     : span_is((struct span){call->arguments, call->arguments_size}, "{}");
}

/* A result that is no call, or no list of them, is an error here. */
static bool is_call(const json *v)
{
    return json_kind(json_get(v, "name")) == JSON_STRING;
}

static bool expected_calls(const json *result)
{
    if (json_kind(result) != JSON_ARRAY)
        return is_call(result);
    for (size_t i = 0; i < json_size(result); i++)
        if (!is_call(json_at(result, i)))
            return false;
    return json_size(result) > 0;
}

static bool check_case(const struct tool_syntax *s, const json *c, const json *tools)
{
    struct tool_calls calls;
    const json *result = json_get(c, "result");
    clm_error err = {0};
    struct span text;
    bool list = json_kind(result) == JSON_ARRAY, ok;
    int rc;

    text.at = json_string(json_get(c, "text"), &text.size);
    rc = tool_calls_read(&calls, s, text.at, text.size, tools, &err);
    if (!expected_calls(result)) {
        ok = rc != 0;
    } else {
        ok = rc == 0 && calls.count == (list ? json_size(result) : 1);
        for (size_t i = 0; ok && i < calls.count; i++)
            ok = same_call(&calls.calls[i], list ? json_at(result, i) : result);
    }
    ok = ok || is_exception(s->name, text.at);
    if (!ok)
        print_error("%s: %s\n  gives %s %s %s\n", s->name, text.at,
                    rc            ? err.message
                    : calls.count ? calls.calls[0].name
                                  : "nothing",
                    !rc && calls.count ? calls.calls[0].arguments : "",
                    expected_calls(result) ? "" : "(an error was expected)");
    if (!rc)
        tool_calls_release(&calls);
    return ok;
}

static void test_goldens(void **state)
{
    size_t n_cases = 0, n_wrong = 0, refused = 0, streams = 0;
    json *tools;

    (void)state;
    SKIP_IF_NO_SHARED();
    tools = load("tools.json");
    for (size_t i = 0; syntax_at(i); i++) {
        const struct tool_syntax *s = syntax_at(i);
        char name[128];
        json *cases;

        snprintf(name, sizeof name, "goldens/parsing/tool_%s.json", s->name);
        if (!shared_path(name))
            continue;
        snprintf(name, sizeof name, "tool_%s.json", s->name);
        cases = load(name);
        for (size_t k = 0; k < json_size(cases); k++) {
            const json *c = json_at(cases, k);
            const json *given = json_bool(json_get(c, "tools"), false) ? tools : NULL;
            struct span text;
            size_t no;

            n_wrong += !check_case(s, c, given);
            text.at = json_string(json_get(c, "text"), &text.size);
            no = check_streams(s, given, text);
            refused += no;
            streams += text.size + 2;
            n_cases++;
            if (no && getenv("CLM_VERBOSE"))
                print_message("refused %zu of %zu: %s: %s\n", no, text.size + 2, s->name, text.at);
        }
        json_free(cases);
    }
    json_free(tools);
    print_message("%zu cases, %zu wrong; %zu of %zu streams refused\n", n_cases, n_wrong, refused,
                  streams);
    CHECK(n_cases > 2000 && n_wrong == 0, "%zu of %zu cases are wrong", n_wrong, n_cases);
}

static void ignore_event(void *user, const struct parse_event *e)
{
    (void)user;
    (void)e;
}

/* Each allocation fails in turn: it is reported, as such, and nothing is lost. */
static void check_memory(const struct tool_syntax *s, const json *c, const json *tools)
{
    struct span text;
    bool done = false;

    text.at = json_string(json_get(c, "text"), &text.size);
    for (long n = 0; !done; n++) {
        struct tool_calls calls;
        struct tool_reader r = {.syntax = s, .tools = tools, .out = {.sink = ignore_event}};
        clm_error err = {0};
        int rc, stream = 0;

        mem_fail_after(n);
        rc = tool_calls_read(&calls, s, text.at, text.size, tools, &err);
        done = !mem_fail_after(-1);
        CHECK(done || (rc && err.code == CLM_ERR_NOMEM), "%s: %s: allocation %ld", s->name, text.at,
              n);
        if (!rc)
            tool_calls_release(&calls);
        reader_section(&r);
        mem_fail_after(n);
        for (size_t i = 0; i < text.size && !stream; i++)
            stream = reader_feed(&r, text.at + i, 1);
        if (!stream)
            stream = reader_finish(&r);
        if (mem_fail_after(-1)) {
            done = false;
            CHECK(stream, "%s: %s: allocation %ld of the stream", s->name, text.at, n);
        }
        reader_release(&r);
    }
}

static void test_memory(void **state)
{
    json *tools;

    (void)state;
    SKIP_IF_NO_SHARED();
    tools = load("tools.json");
    for (size_t i = 0; syntax_at(i); i++) {
        char name[128];
        json *cases;

        snprintf(name, sizeof name, "goldens/parsing/tool_%s.json", syntax_at(i)->name);
        if (!shared_path(name))
            continue;
        snprintf(name, sizeof name, "tool_%s.json", syntax_at(i)->name);
        cases = load(name);
        for (size_t k = 0; k < json_size(cases); k += 1 + json_size(cases) / 60)
            check_memory(syntax_at(i), json_at(cases, k), tools);
        json_free(cases);
    }
    json_free(tools);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
