/* tests/template/test_chat.c: messages as transformers prepares them, and a model's templates. */
#include "testing.h"

#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "template/chat.h"

/* Renders the chat in a JSON object; "go_on": true asks to continue its last message. */
static int render(const char *text, const char *chat, struct strbuf *out, clm_error *err)
{
    template *t = template_parse(text, strlen(text), "t", err);
    json *root = json_parse(chat, strlen(chat), "chat", err);
    struct chat_request request = {
        .messages = json_get(root, "messages"),
        .tools = json_get(root, "tools"),
        .documents = json_get(root, "documents"),
        .add_generation_prompt = json_bool(json_get(root, "prompt"), false),
        .continue_final_message = json_bool(json_get(root, "go_on"), false),
    };
    int rc;

    CHECK(t && root, "%s", err->message);
    strbuf_clear(out);
    rc = chat_render(t, &request, NULL, out, err);
    json_free(root);
    template_close(t);
    return rc;
}

static void expect(const char *text, const char *chat, const char *expected)
{
    struct strbuf out = {0};
    clm_error err = {0};

    CHECK(!render(text, chat, &out, &err), "%s: %s", text, err.message);
    CHECK(!strcmp(out.data ? out.data : "", expected), "%s: got %s, expected %s", text,
          out.data ? out.data : "", expected);
    strbuf_release(&out);
}

static void expect_error(const char *text, const char *chat, int code)
{
    struct strbuf out = {0};
    clm_error err = {0};

    CHECK(render(text, chat, &out, &err) == -1 && err.code == code && !out.size, "%s: %s", chat,
          err.message);
    strbuf_release(&out);
}

static void test_variables(void **state)
{
    (void)state;
    expect(
        "{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}{{ x is defined }}",
        "{\"messages\": []}", "TrueTrueFalseFalse");
    expect("{{ tools }}{{ documents }}{{ add_generation_prompt }}",
           "{\"messages\": [], \"tools\": [{\"a\": 1}], \"documents\": [], \"prompt\": true}",
           "[{'a': 1}][]True");
}

static void test_reasoning(void **state)
{
    (void)state;
    expect("{{ messages | tojson }}", "{\"messages\": [{\"role\": \"a\", \"reasoning\": \"r\"}]}",
           "[{\"thinking\": \"r\", \"role\": \"a\", \"reasoning\": \"r\", "
           "\"reasoning_content\": \"r\"}]");
    expect("{{ messages | tojson }}",
           "{\"messages\": [{\"thinking\": \"t\", \"reasoning_content\": null, \"x\": 1}]}",
           "[{\"thinking\": \"t\", \"reasoning_content\": \"t\", \"x\": 1}]");
    expect("{{ messages | tojson }}", "{\"messages\": [{\"x\": 1, \"thinking\": null}]}",
           "[{\"x\": 1, \"thinking\": null}]");
}

static void test_go_on(void **state)
{
    static const char plain[] = "{% for m in messages %}<{{ m.content }}>{% endfor %}";
    static const char trimmed[] = "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}";
    static const char parts[] = "{% for p in messages[-1].content %}<{{ p.text }}>{% endfor %}";

    (void)state;
    expect(plain,
           "{\"messages\": [{\"content\": \"a\"}, {\"content\": \"Sure, \"}], \"go_on\": true}",
           "<a><Sure, ");
    expect(trimmed, "{\"messages\": [{\"content\": \" Sure, \"}], \"go_on\": true}", "<Sure,");
    expect(parts,
           "{\"messages\": [{\"content\": [{\"text\": \"a\"}, {\"text\": \"b\"}]}],"
           " \"go_on\": true}",
           "<a><b");
    expect_error(plain, "{\"messages\": [{\"content\": null}], \"go_on\": true}", CLM_ERR_ARG);
    expect_error(plain, "{\"messages\": [], \"go_on\": true}", CLM_ERR_ARG);
    expect_error("x", "{\"messages\": [{\"content\": \"a\"}], \"go_on\": true}", CLM_ERR_FORMAT);
}

static void test_refused(void **state)
{
    (void)state;
    expect_error("x", "{\"messages\": [1]}", CLM_ERR_ARG);
    expect_error("x", "{\"messages\": [{\"__float__\": \"NaN\"}]}", CLM_ERR_ARG);
    expect_error("x", "{\"messages\": {}}", CLM_ERR_ARG);
    expect_error("x", "{\"messages\": [], \"tools\": [\"f\"]}", CLM_ERR_ARG);
    expect_error("x", "{\"messages\": [], \"documents\": [null]}", CLM_ERR_ARG);
}

/* ---- the templates of a folder ---- */

static char folder[256];

static void put(const char *name, const char *text)
{
    char path[512];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!text) {
        remove(path);
        return;
    }
    f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && !fclose(f), "%s", path);
}

static void expect_chosen(const char *name, const char *tools_text, const char *expected)
{
    clm_error err = {0};
    chat_templates *all = chat_templates_open(folder, NULL, &err);
    json *tools = tools_text ? json_parse(tools_text, strlen(tools_text), "tools", &err) : NULL;
    const struct template_variable *variables;
    struct strbuf out = {0};
    const template *t;
    size_t n;

    CHECK(all && !tools == !tools_text, "%s", err.message);
    t = chat_templates_choose(all, name, tools, &err);
    CHECK(!t || chat_templates_text(all, t), "no text");
    if (!expected) {
        CHECK(!t && err.code == CLM_ERR_ARG, "%s was found", name);
    } else {
        CHECK(t, "%s", err.message);
        variables = chat_templates_variables(all, &n);
        CHECK(!template_render(t, variables, n, NULL, &out, &err), "%s", err.message);
        CHECK(!strcmp(out.data, expected), "got %s, expected %s", out.data, expected);
    }
    strbuf_release(&out);
    json_free(tools);
    chat_templates_close(all);
}

/* A file in the place of all templates of the folder, even broken ones. */
static void expect_own(const char *name, const char *expected)
{
    clm_error err = {0};
    char path[512];
    chat_templates *all;
    struct strbuf out = {0};
    const struct template_variable *variables;
    size_t n;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    all = chat_templates_open(folder, path, &err);
    CHECK(!all == !expected, "%s", err.message);
    if (!all)
        return;
    variables = chat_templates_variables(all, &n);
    CHECK(!template_render(chat_templates_choose(all, NULL, NULL, &err), variables, n, NULL, &out,
                           &err),
          "%s", err.message);
    CHECK(!strcmp(out.data, expected), "got %s, expected %s", out.data, expected);
    strbuf_release(&out);
    chat_templates_close(all);
}

static void test_folder(void **state)
{
    const char *base = getenv("TMPDIR");
    clm_error err = {0};
    char extra[512];

    (void)state;
    snprintf(folder, sizeof folder, "%s/clm_chat_XXXXXX", base ? base : "/tmp");
    CHECK(mkdtemp(folder), "%s", folder);
    CHECK(!chat_templates_open(folder, NULL, &err) && err.code == CLM_ERR_UNSUPPORTED, "%s",
          err.message);

    put("chat_template.json", "{\"chat_template\": \"old {{ bos_token }}\"}");
    expect_chosen(NULL, "[{}]", "old ");
    put("tokenizer_config.json", "{\"chat_template\": \"one {{ bos_token }}{{ eos_token }}\","
                                 " \"bos_token\": {\"content\": \"<s>\"}, \"pad_token\": null}");
    put("special_tokens_map.json", "{\"eos_token\": \"</s>\", \"bos_token\": \"no\"}");
    expect_chosen(NULL, "[{}]", "one <s></s>");
    put("tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"default\", \"template\": \"D\"},"
        " {\"name\": \"tool_use\", \"template\": \"T\"}, {\"name\": \"rag\", \"template\": "
        "\"R\"}]}");
    expect_chosen(NULL, NULL, "D");
    expect_chosen(NULL, "[]", "T");
    expect_chosen(NULL, "null", "D");
    expect_chosen("rag", "[{}]", "R");
    expect_chosen("none", NULL, NULL);
    put("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"1\"},"
                                 " {\"name\": \"rag\", \"template\": \"2\"}]}");
    expect_chosen("rag", NULL, "2");
    expect_chosen(NULL, NULL, NULL);
    put("chat_template.jinja", "file");
    expect_chosen(NULL, "[{}]", "file");
    snprintf(extra, sizeof extra, "%s/additional_chat_templates", folder);
    CHECK(!mkdir(extra, 0700), "%s", extra);
    put("additional_chat_templates/tool_use.jinja", "more");
    expect_chosen(NULL, "[{}]", "more");
    expect_chosen(NULL, NULL, "file");
    expect_chosen("rag", NULL, NULL);
    put("additional_chat_templates/tool_use.jinja", "{{ broken");
    CHECK(!chat_templates_open(folder, NULL, &err), "a broken template was taken");

    put("own.jinja", "own {{ eos_token }}");
    expect_own("own.jinja", "own </s>");
    put("own.jinja", NULL);
    expect_own("own.jinja", NULL);

    put("additional_chat_templates/tool_use.jinja", NULL);
    rmdir(extra);
    put("chat_template.jinja", NULL);
    put("chat_template.json", NULL);
    put("tokenizer_config.json", NULL);
    put("special_tokens_map.json", NULL);
    CHECK(!rmdir(folder), "%s", folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variables), cmocka_unit_test(test_reasoning),
        cmocka_unit_test(test_go_on),     cmocka_unit_test(test_refused),
        cmocka_unit_test(test_folder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
