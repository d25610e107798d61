/* The syntax of calls and the tags of thinking, as mlx_lm infers them; and what it does not know.
 */
#include "../testing.h"

#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "format/json.h"
#include "parse/reply.h"

static bool in_list(const void *vocabulary, const char *token)
{
    for (size_t i = 0; i < json_size(vocabulary); i++)
        if (strcmp(json_string(json_at(vocabulary, i), NULL), token) == 0)
            return true;
    return false;
}

static json *load(const char *path)
{
    clm_error err = {0};
    json *v = json_parse_file(shared_path(path), &err);

    CHECK(v, "%s", err.message);
    return v;
}

static char *read_template(const char *name)
{
    char path[512];
    struct file_map map;
    clm_error err = {0};
    char *text;

    snprintf(path, sizeof path, "goldens/templates/%s", name);
    CHECK(!file_map(&map, shared_path(path), &err), "%s", err.message);
    text = mem_alloc(map.size + 1);
    assert_non_null(text);
    memcpy(text, map.data, map.size);
    text[map.size] = '\0';
    file_unmap(&map);
    return text;
}

static void test_reference(void **state)
{
    json *cases;

    (void)state;
    SKIP_IF_NO_SHARED();
    cases = load("goldens/parsing/infer_tool_parser.json");
    for (size_t i = 0; i < json_size(cases); i++) {
        const json *c = json_at(cases, i);
        const char *want = json_string(json_get(c, "parser"), NULL);
        const char *file = json_string(json_get(c, "template_file"), NULL);
        char *text = file ? read_template(file) : NULL;
        struct model_traits m = {.chat_template =
                                     file ? text : json_string(json_get(c, "template"), NULL),
                                 .has_token = in_list,
                                 .vocabulary = json_get(c, "vocab")};
        const struct tool_syntax *s = syntax_infer(&m);

        if (want || !file)
            CHECK((s != NULL) == (want != NULL) && (!s || !strcmp(s->name, want)),
                  "%zu: %s, not %s", i, s ? s->name : "none", want ? want : "none");
        mem_free(text);
    }
    json_free(cases);
}

/* Templates that mlx_lm has no parser for, or does not recognise without the vocabulary. */
static void test_more(void **state)
{
    static const struct {
        const char *file, *syntax, *think;
    } cases[] = {
        {"Apertus-8B-Instruct.jinja", "apertus", "<|inner_prefix|>"},
        {"Cohere2MoE.jinja", "command_r", "<|START_THINKING|>"},
        {"CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja", "command_r", "<|START_THINKING|>"},
        {"Kimi-K3.jinja", "kimi_k3", NULL},
        {"NVIDIA-Nemotron-Nano-v2.jinja", "nemotron", "<think>"},
        {"Reka-Edge.jinja", "json_tools", "<think>"},
        {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", "deepseek_v3", "<think>"},
        {"deepseek-ai-DeepSeek-V3.2.jinja", "deepseek_v32", "<think>"},
        {"deepseek-ai-DeepSeek-V4-Flash-0731.jinja", "deepseek_v4", "<think>"},
        {"meta-llama-Llama-3.2-3B-Instruct.jinja", "llama3", NULL},
        {"google-gemma-2-2b-it.jinja", NULL, NULL},
        {"microsoft-Phi-3.5-mini-instruct.jinja", NULL, NULL},
        {"llama-cpp-rwkv-world.jinja", NULL, "<think>"},
    };

    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *text = read_template(cases[i].file);
        struct reply_format f = reply_format_infer(&(struct model_traits){.chat_template = text});
        const char *syntax = f.syntax ? f.syntax->name : "none";

        CHECK(!strcmp(syntax, cases[i].syntax ? cases[i].syntax : "none"), "%s: %s", cases[i].file,
              syntax);
        CHECK((f.thinking.start != NULL) == (cases[i].think != NULL) &&
                  (!cases[i].think || !strcmp(f.thinking.start, cases[i].think)),
              "%s: thinks after %s", cases[i].file,
              f.thinking.start ? f.thinking.start : "nothing");
        mem_free(text);
    }
}

static void test_thinking(void **state)
{
    json *cases;

    (void)state;
    SKIP_IF_NO_SHARED();
    cases = load("goldens/parsing/infer_thinking.json");
    for (size_t i = 0; i < json_size(cases); i++) {
        const json *c = json_at(cases, i);
        struct thinking t = thinking_infer(
            &(struct model_traits){.has_token = in_list, .vocabulary = json_get(c, "vocab")});
        const char *start = json_string(json_get(c, "think_start"), NULL);
        const char *end = json_string(json_get(c, "think_end"), NULL);

        CHECK((t.start != NULL) == (start != NULL), "case %zu", i);
        if (start)
            CHECK(!strcmp(t.start, start) && !strcmp(t.end, end), "case %zu: %s", i, t.start);
    }
    json_free(cases);
}

static void test_open(void **state)
{
    static const struct {
        const char *prompt;
        bool open;
    } cases[] = {{"", false},
                 {"hello <think>\n", true},
                 {"<think></think>\n", false},
                 {"<think>a</think> <think>", true},
                 {"</think>", false},
                 {"<thin", false}};
    struct thinking t = {"<think>", "</think>"}, none = {0};
    struct message_ends unknown = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t n = strlen(cases[i].prompt);

        assert_int_equal(thinking_is_open(&t, &unknown, cases[i].prompt, n), cases[i].open);
        assert_false(thinking_is_open(&none, &unknown, cases[i].prompt, n));
    }
}

/* What was said of a tag before does not open a section. */
static void test_open_in_message(void **state)
{
    struct thinking t = {"<think>", "</think>"};
    const char *asked = "user: what is <think>?<end>\nassistant: ";
    const char *begun = "user: what is </think>?<end>\nassistant: <think>\nwell";
    struct message_ends ends[] = {{.token = "<end>"},
                                  {.leads = {"assistant:"}},
                                  {.leads = {"", "<end>\nassistant:"}},
                                  {"nowhere", {"tool:", "assistant:"}}};

    (void)state;
    for (size_t i = 0; i < COUNT(ends); i++) {
        assert_false(thinking_is_open(&t, &ends[i], asked, strlen(asked)));
        assert_true(thinking_is_open(&t, &ends[i], begun, strlen(begun)));
    }
}

/* What the files name goes before what the template shows; an unknown name does not. */
static void test_named(void **state)
{
    struct model_traits m = {.chat_template = "[TOOL_CALLS]", .tool_parser = "glm47"};

    (void)state;
    assert_string_equal(syntax_infer(&m)->name, "glm47");
    m.tool_parser = "nonsense";
    assert_string_equal(syntax_infer(&m)->name, "mistral");
    m.tool_parser = NULL;
    assert_string_equal(syntax_infer(&m)->name, "mistral");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),       cmocka_unit_test(test_more),
        cmocka_unit_test(test_thinking),        cmocka_unit_test(test_open),
        cmocka_unit_test(test_open_in_message), cmocka_unit_test(test_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
