/* Whole replies of each layout and syntax, cut into segments in every way: the same events. */
#include "../testing.h"

#include <string.h>

#include "base/memory.h"
#include "parse/reply.h"

static const char tools_text[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"parameters\": "
    "{\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}, \"days\": "
    "{\"type\": "
    "\"integer\"}}}}}, {\"type\": \"function\", \"function\": {\"name\": \"now\"}}]";

/* Events as text: C(content) R(reasoning) and for a call name#id(arguments), or !: it failed. */
struct events {
    struct strbuf text;
    char last;
    size_t call;
};

static void add_text(struct events *e, char kind, const struct parse_event *event)
{
    if (e->last != kind)
        strbuf_addf(&e->text, "%s%c:", e->text.size ? "|" : "", kind);
    e->last = kind;
    strbuf_add(&e->text, event->text, event->size);
}

static void take(void *user, const struct parse_event *event)
{
    struct events *e = user;

    switch (event->kind) {
    case PARSE_CONTENT:
        add_text(e, 'C', event);
        break;
    case PARSE_REASONING:
        add_text(e, 'R', event);
        break;
    case PARSE_CALL_BEGIN:
        e->last = 'T';
        strbuf_addf(&e->text, "%sT:", e->text.size ? "|" : "");
        strbuf_add(&e->text, event->text, event->size);
        if (event->id_size)
            strbuf_addf(&e->text, "#%.*s", (int)event->id_size, event->id);
        CHECK(event->call == e->call, "call %zu, not %zu", event->call, e->call);
        break;
    case PARSE_CALL_ARGUMENTS:
        strbuf_add(&e->text, event->text, event->size);
        break;
    case PARSE_CALL_END:
        if (event->id_size)
            strbuf_addf(&e->text, "#%.*s", (int)event->id_size, event->id);
        e->call++;
        break;
    case PARSE_CALL_FAILED:
        strbuf_addf(&e->text, "!");
        e->last = 'T';
        e->call++;
        break;
    }
}

struct reply_case {
    const char *syntax; /* NULL: none */
    struct thinking thinking;
    enum reply_layout layout;
    bool in_thinking;
    const char *stop, *text, *events;
};

#define THINK                                                                                      \
    {                                                                                              \
        "<think>", "</think>"                                                                      \
    }

#define NO_TAGS                                                                                    \
    {                                                                                              \
        NULL, NULL                                                                                 \
    }

static const struct reply_case cases[] = {
    {NULL, THINK, REPLY_TAGS, false, NULL, "<think>hm</think>hi <b", "R:hm|C:hi <b"},
    {NULL, THINK, REPLY_TAGS, true, NULL, "hm</think>\n\nhi", "R:hm|C:\n\nhi"},
    {NULL, {NULL, NULL}, REPLY_TAGS, false, "END", "a<think>b EN ENDc", "C:a<think>b EN "},
    {"json_tools", THINK, REPLY_TAGS, false, NULL,
     "<think>x</think>y<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n"
     "<tool_call>{\"arguments\": {\"a\": [1, NaN]}, \"name\": \"f\", \"id\": \"7\"}</tool_call>",
     "R:x|C:y|T:now{}|C:\n|T:f{\"a\": [1, null]}#7"},
    {"json_tools", THINK, REPLY_TAGS, false, NULL, "<tool_call>{\"name\": 5}</tool_call>z",
     "!|C:z"},
    {"json_tools", THINK, REPLY_TAGS, false, NULL, "<tool_call>{\"name\": \"f\", \"arg", "T:f!"},
    {"mistral",
     {"[THINK]", "[/THINK]"},
     REPLY_TAGS,
     false,
     NULL,
     "[THINK]a[/THINK]b[TOOL_CALLS]get_weather[CALL_ID]abc123def[ARGS]{\"city\": \"\\u00e9\"}"
     "[TOOL_CALLS]now[ARGS]{}",
     "R:a|C:b|T:get_weather#abc123def{\"city\": \"\\u00e9\"}|T:now{}"},
    {"mistral",
     {NULL, NULL},
     REPLY_TAGS,
     false,
     NULL,
     "[TOOL_CALLS][{\"name\": \"now\", \"arguments\": {}, \"id\": \"123456789\"}]",
     "T:now{}#123456789"},
    {"llama3",
     {NULL, NULL},
     REPLY_TAGS,
     false,
     NULL,
     "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}",
     "T:get_weather{\"city\": \"Oslo\"}"},
    {"llama3",
     {NULL, NULL},
     REPLY_TAGS,
     false,
     NULL,
     "\n{\"type\": \"function\", \"name\": \"now\", \"parameters\": {}}; {\"name\": \"now\", "
     "\"parameters\": {\"a\": 1}}",
     "T:now{}|T:now{\"a\": 1}"},
    {"llama3",
     {NULL, NULL},
     REPLY_TAGS,
     false,
     NULL,
     "{\"name\": \"Bob\", \"age\": 7}",
     "C:{\"name\": \"Bob\", \"age\": 7}"},
    {"llama3", {NULL, NULL}, REPLY_TAGS, false, NULL, "{\"answer\": 42}", "C:{\"answer\": 42}"},
    {"llama3", {NULL, NULL}, REPLY_TAGS, false, NULL, "{\"name\"", "C:{\"name\""},
    {"llama3", {NULL, NULL}, REPLY_TAGS, false, NULL, "[1, 2]", "C:[1, 2]"},
    {"llama3",
     {NULL, NULL},
     REPLY_TAGS,
     false,
     NULL,
     "[get_weather(city='Oslo', days=2), now()]",
     "T:get_weather{\"city\": \"Oslo\", \"days\": 2}|T:now{}"},
    {"llama3", {NULL, NULL}, REPLY_TAGS, false, NULL, "Hello [now()]", "C:Hello [now()]"},
    {"llama3",
     {NULL, NULL},
     REPLY_TAGS,
     false,
     NULL,
     "<|python_tag|>brave_search.call(query=\"x\")",
     "T:brave_search.call{\"query\": \"x\"}"},
    {"llama3",
     {NULL, NULL},
     REPLY_TAGS,
     false,
     NULL,
     "<function=get_weather>{\"city\": \"Oslo\"}</function>",
     "T:get_weather{\"city\": \"Oslo\"}"},
    {"llama4",
     {NULL, NULL},
     REPLY_TAGS,
     false,
     NULL,
     "x<|python_start|>[now(), f(a=[1, {'b': None}])]<|python_end|>y",
     "C:x|T:now{}|T:f{\"a\": [1, {\"b\": null}]}|C:y"},
    {"deepseek_v3", THINK, REPLY_TAGS, true, NULL,
     "a</think>b<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
     "```json\n{\"city\": \"Oslo\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function"
     "<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     "R:a|C:b|T:get_weather{\"city\": \"Oslo\"}|T:now{}"},
    {"deepseek_v3", THINK, REPLY_TAGS, false, NULL,
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
     "<｜tool▁calls▁end｜>",
     "T:now{}"},
    {"deepseek_v32", THINK, REPLY_TAGS, false, NULL,
     "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"get_weather\">\n<｜DSML｜parameter "
     "name=\"city\" string=\"true\"> 5\"</｜DSML｜parameter>\n<｜DSML｜parameter name=\"days\" "
     "string=\"false\">[1]</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
     "C:\n\n|T:get_weather{\"city\": \" 5\\\"\", \"days\": [1]}"},
    {"command_r",
     {"<|START_THINKING|>", "<|END_THINKING|>"},
     REPLY_TAGS,
     false,
     NULL,
     "<|START_THINKING|>a<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", "
     "\"tool_name\": \"now\", \"parameters\": {}},\n{\"tool_call_id\": \"1\", \"tool_name\": "
     "\"f\", "
     "\"parameters\": {\"x\": \"y\"}}\n]<|END_ACTION|>",
     "R:a|T:now#0{}#0|T:f#1{\"x\": \"y\"}#1"},
    {"command_r",
     {NULL, NULL},
     REPLY_TAGS,
     false,
     NULL,
     "<|START_RESPONSE|>hi<|END_RESPONSE|>",
     "C:<|START_RESPONSE|>hi<|END_RESPONSE|>"},
    {"command_r_plus",
     {NULL, NULL},
     REPLY_TAGS,
     false,
     NULL,
     "Action: ```json\n[{\"tool_name\": \"now\", \"parameters\": {}}]\n```",
     "T:now{}"},
    {"apertus",
     {NULL, NULL},
     REPLY_TAGS,
     false,
     NULL,
     "<|tools_prefix|>[{\"get_weather\": {\"city\": \"Oslo\"}}, {\"now\": {}}]<|tools_suffix|>",
     "T:get_weather{\"city\": \"Oslo\"}|T:now{}"},
    {"nemotron", THINK, REPLY_TAGS, false, NULL,
     "<TOOLCALL>[{\"name\": \"now\", \"arguments\": {}}]</TOOLCALL>", "T:now{}"},
    {"qwen3_coder", THINK, REPLY_TAGS, false, NULL,
     "ok<tool_call>\n<function=get_weather>\n<parameter=city>\nO\"slo\n</parameter>\n"
     "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
     "C:ok|T:get_weather{\"city\": \"O\\\"slo\", \"days\": 3}"},
    {"harmony",
     {NULL, NULL},
     REPLY_HARMONY,
     false,
     NULL,
     "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>hi"
     "<|return|>",
     "R:hm|C:hi"},
    {"harmony",
     {NULL, NULL},
     REPLY_HARMONY,
     false,
     NULL,
     "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary "
     "to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Oslo\"}<|call|>",
     "R:hm|T:get_weather{\"city\": \"Oslo\"}"},
    {"harmony",
     {NULL, NULL},
     REPLY_HARMONY,
     false,
     NULL,
     "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.now"
     "<|channel|>commentary json<|message|>{}<|call|>",
     "C:I look.|T:now{}"},
    {"harmony", {NULL, NULL}, REPLY_HARMONY, false, NULL, "plain", "C:plain"},
    {"muse_spark",
     {NULL, NULL},
     REPLY_MUSE,
     false,
     NULL,
     "to=self<|message|>hm<|eom|><|start|>assistant to=now<|message|><atem:function_calls>"
     "<atem:invoke name=\"now\"></atem:invoke></atem:function_calls><|eom|><|start|>assistant "
     "to=user<|message|>hi<|eot|>",
     "R:hm|T:now{}|C:hi"},
    {"kimi_k3",
     {"<|open|>think<|sep|>", "<|close|>think<|sep|>"},
     REPLY_TAGS,
     false,
     NULL,
     "<|open|>think<|sep|>a<|close|>think<|sep|><|open|>tools<|sep|><|open|>call tool=\"f\" "
     "index=\"1\"<|sep|><|open|>argument key=\"k\" type=\"string\"<|sep|>v<|close|>argument<|sep|>"
     "<|close|>call<|sep|><|close|>tools<|sep|>",
     "R:a|T:f{\"k\": \"v\"}"},
    {"hermes", NO_TAGS, REPLY_TAGS, false, NULL,
     "x<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>", "C:x|T:now{}"},
    {"minimax_m2", NO_TAGS, REPLY_TAGS, false, NULL,
     "<minimax:tool_call>\n<invoke name=\"get_weather\">\n<parameter "
     "name=\"city\">7</parameter>\n<parameter "
     "name=\"days\">7</parameter>\n</invoke>\n</minimax:tool_call>y",
     "T:get_weather{\"city\": \"7\", \"days\": 7}|C:y"},
    {"minicpm5", NO_TAGS, REPLY_TAGS, false, NULL,
     "x<function name=\"get_weather\"><param name=\"city\">7</param><param "
     "name=\"days\">7</param></function>y",
     "C:x|T:get_weather{\"city\": \"7\", \"days\": 7}|C:y"},
    {"glm47", NO_TAGS, REPLY_TAGS, false, NULL,
     "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>7</arg_value>\n<arg_key>days</"
     "arg_key>\n<arg_value>7</arg_value>\n</tool_call><tool_call>now\n</tool_call>",
     "T:get_weather{\"city\": \"7\", \"days\": 7}|T:now{}"},
    {"laguna", NO_TAGS, REPLY_TAGS, false, NULL,
     "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Os\"lo</arg_value></tool_call>",
     "T:get_weather{\"city\": \"Os\\\"lo\"}"},
    {"longcat", NO_TAGS, REPLY_TAGS, false, NULL,
     "a<longcat_tool_call>get_weather\n<longcat_arg_key>days</"
     "longcat_arg_key>\n<longcat_arg_value>7</longcat_arg_value>\n</longcat_tool_call>b",
     "C:a|T:get_weather{\"days\": 7}|C:b"},
    {"kimi_k2", NO_TAGS, REPLY_TAGS, false, NULL,
     "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_"
     "begin|>{\"city\": "
     "\"Oslo\"}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}<|"
     "tool_call_end|><|tool_calls_section_end|>",
     "T:get_weather#functions.get_weather:0{\"city\": \"Oslo\"}|T:now#functions.now:1{}"},
    {"gemma4", NO_TAGS, REPLY_TAGS, false, NULL,
     "x<|tool_call>call:get_weather{city:<|\"|>Oslo<|\"|>,days:7}<tool_call|>",
     "C:x|T:get_weather{\"city\":\"Oslo\",\"days\":7}"},
    {"function_gemma", NO_TAGS, REPLY_TAGS, false, NULL,
     "<start_function_call>call:get_weather{city:<escape>Oslo<escape>}<end_function_call>",
     "T:get_weather{\"city\": \"Oslo\"}"},
    {"pythonic", NO_TAGS, REPLY_TAGS, false, NULL,
     "<|tool_call_start|>[get_weather(city=\"Oslo\", days=7), now()]<|tool_call_end|>y",
     "T:get_weather{\"city\": \"Oslo\", \"days\": 7}|T:now{}|C:y"},
    {"deepseek_v4", NO_TAGS, REPLY_TAGS, false, NULL,
     "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"get_weather\">\n<｜DSML｜parameter "
     "name=\"city\" "
     "string=\"true\">Oslo</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
     "T:get_weather{\"city\": \"Oslo\"}"},
};

/* Ways to cut a text: in two, at a place up to its size; byte by byte; and some at random. */
#define RANDOM_WAYS 40

static size_t n_ways(const struct reply_case *c)
{
    return strlen(c->text) + 2 + RANDOM_WAYS;
}

/* The size of the piece at a place of a text of n bytes, cut in this way. */
static size_t piece_at(size_t way, size_t n, size_t at, uint32_t *random)
{
    size_t piece;

    if (way <= n)
        return at < way ? way - at : n - at;
    if (way == n + 1)
        return 1;
    *random = *random * 1664525u + 1013904223u;
    piece = 1 + (*random >> 16) % 24;
    return piece < n - at ? piece : n - at;
}

static void run(const struct reply_case *c, const struct reply_rules *rules, const json *tools,
                size_t way, struct reply *r, struct events *e)
{
    size_t n = strlen(c->text), at = 0;
    uint32_t random = (uint32_t)way;

    reply_start(r, rules, tools, c->in_thinking, take, e);
    while (at < n) {
        size_t piece = piece_at(way, n, at, &random);
        int rc = reply_feed(r, c->text + at, piece);

        at += piece;
        CHECK(rc >= 0, "no memory");
        if (rc)
            break;
    }
    assert_int_equal(reply_finish(r), 0);
}

static void open_rules(const struct reply_case *c, struct stop_set *stops,
                       struct reply_rules *rules)
{
    struct reply_format f = {.syntax = c->syntax ? syntax_by_name(c->syntax) : NULL,
                             .thinking = c->thinking,
                             .layout = c->layout};
    clm_error err = {0};

    *stops = (struct stop_set){0};
    if (c->stop)
        assert_int_equal(stop_set_add_text(stops, c->stop, strlen(c->stop)), 0);
    assert_int_equal(stop_set_build(stops), 0);
    CHECK(!c->syntax || f.syntax, "no syntax %s", c->syntax);
    CHECK(!reply_rules_init(rules, &f, stops, &err), "%s", err.message);
}

static void test_replies(void **state)
{
    json *tools = json_parse(tools_text, strlen(tools_text), "tools", NULL);
    struct reply r = {0}; /* one for all: its memory serves again */

    (void)state;
    assert_non_null(tools);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct reply_rules rules;
        struct stop_set stops;

        open_rules(&cases[i], &stops, &rules);
        for (size_t way = 0; way < n_ways(&cases[i]); way++) {
            struct events e = {0};

            run(&cases[i], &rules, tools, way, &r, &e);
            CHECK(e.text.data && !strcmp(e.text.data, cases[i].events),
                  "case %zu (%s), cut in way %zu:\n%s, not\n%s", i,
                  cases[i].syntax ? cases[i].syntax : "none", way, e.text.data ? e.text.data : "",
                  cases[i].events);
            strbuf_release(&e.text);
        }
        reply_rules_release(&rules);
        stop_set_release(&stops);
    }
    reply_release(&r);
    json_free(tools);
}

static void test_every_syntax_has_a_case(void **state)
{
    (void)state;
    for (size_t i = 0; syntax_at(i); i++) {
        size_t k = 0;

        while (k < COUNT(cases) &&
               (!cases[k].syntax || strcmp(cases[k].syntax, syntax_at(i)->name)))
            k++;
        CHECK(k < COUNT(cases), "no reply in the syntax %s", syntax_at(i)->name);
    }
}

/* What is known is given out at once: the name before the arguments, arguments as they come. */
static void test_early(void **state)
{
    static const struct {
        size_t syntax_case;
        const char *text, *events;
    } parts[] = {
        {3, "a<tool_call>{\"name\": \"now\",", "C:a|T:now"},
        {3, "a<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": \"long te",
         "C:a|T:now{\"a\": \"long te"},
        {3, "ab <think", "C:ab "},
        {6, "[TOOL_CALLS]now[ARGS]{\"x\": [1, 2", "T:now{\"x\": [1, 2"},
    };
    json *tools = json_parse(tools_text, strlen(tools_text), "tools", NULL);

    (void)state;
    for (size_t i = 0; i < COUNT(parts); i++) {
        struct reply_rules rules;
        struct stop_set stops;
        struct reply r = {0};
        struct events e = {0};

        open_rules(&cases[parts[i].syntax_case], &stops, &rules);
        reply_start(&r, &rules, tools, false, take, &e);
        for (size_t k = 0; k < strlen(parts[i].text); k++)
            assert_int_equal(reply_feed(&r, parts[i].text + k, 1), 0);
        assert_string_equal(e.text.data, parts[i].events);
        reply_release(&r);
        reply_rules_release(&rules);
        stop_set_release(&stops);
        strbuf_release(&e.text);
    }
    json_free(tools);
}

static void ignore(void *user, const struct parse_event *event)
{
    (void)user;
    (void)event;
}

/* Whatever allocation fails, the reply says so and gives all back. */
static void test_memory(void **state)
{
    json *tools = json_parse(tools_text, strlen(tools_text), "tools", NULL);

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        bool done = false;

        for (long n = 0; !done; n++) {
            struct reply_rules rules;
            struct stop_set stops;
            struct reply r = {0};
            const char *text = cases[i].text;
            int rc = 0;

            open_rules(&cases[i], &stops, &rules);
            mem_fail_after(n);
            reply_start(&r, &rules, tools, cases[i].in_thinking, ignore, NULL);
            for (size_t at = 0; at < strlen(text) && rc == 0; at += 3)
                rc = reply_feed(&r, text + at, strlen(text + at) < 3 ? strlen(text + at) : 3);
            if (rc >= 0)
                rc = reply_finish(&r);
            done = !mem_fail_after(-1);
            CHECK(done || rc < 0, "case %zu, allocation %ld: not reported", i, n);
            reply_release(&r);
            reply_rules_release(&rules);
            stop_set_release(&stops);
        }
    }
    json_free(tools);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_every_syntax_has_a_case),
        cmocka_unit_test(test_early),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
