#include "cli/conversation.h"

#include <string.h>

#include "base/memory.h"

const struct option options_template[] = {
    {STRING_OPTION("system-prompt", 0, struct template_args, system, "TEXT",
                   "what the model is told before the conversation, where its chat template has a "
                   "place for that")},
    {STRING_OPTION("chat-template-config", 0, struct template_args, variables, "JSON",
                   "variables of the chat template, such as {\"enable_thinking\": false}")},
    {0},
};

/* What a request says in other ways. */
static const char *const reserved[] = {"messages", "add_generation_prompt",
                                       "continue_final_message"};

static int read_variables(struct chat_template *c, const char *text, clm_error *err)
{
    clm_error problem = {0};

    c->config = json_parse(text, strlen(text), "--chat-template-config", &problem);
    if (!c->config)
        return fail(err, problem.code == CLM_ERR_NOMEM ? CLM_ERR_NOMEM : CLM_ERR_ARG, "%s",
                    problem.message);
    if (json_kind(c->config) != JSON_OBJECT)
        return fail(err, CLM_ERR_ARG,
                    "--chat-template-config must be a JSON object, such as "
                    "{\"enable_thinking\": false}");
    for (size_t i = 0; i < COUNT(reserved); i++)
        if (json_get(c->config, reserved[i]))
            return fail(err, CLM_ERR_ARG, "--chat-template-config cannot set %s", reserved[i]);
    return 0;
}

int chat_template_open(struct chat_template *c, const char *dir, const struct template_args *args,
                       clm_error *err)
{
    clm_error problem = {0};

    if (args->variables && read_variables(c, args->variables, err))
        return -1;
    c->all = chat_templates_open(dir, &problem);
    if (!c->all)
        return problem.code == CLM_ERR_UNSUPPORTED ? 0
                                                   : fail(err, problem.code, "%s", problem.message);
    c->template =
        chat_templates_choose(c->all, NULL, json_size(json_get(c->config, "tools")) > 0, err);
    return c->template ? 0 : -1;
}

void chat_template_close(struct chat_template *c)
{
    chat_templates_close(c->all);
    json_free(c->config);
    *c = (struct chat_template){0};
}

void conversation_add(struct strbuf *messages, const char *role, const char *text, size_t size)
{
    strbuf_addf(messages, "%s{\"role\": \"%s\", \"content\": ", messages->size ? ", " : "", role);
    strbuf_add_json(messages, text ? text : "", size);
    strbuf_add_char(messages, '}');
}

void conversation_add_reply(struct strbuf *messages, const struct strbuf *content,
                            const struct strbuf *reasoning)
{
    strbuf_add_str(messages, messages->size ? ", " : "");
    strbuf_add_str(messages, "{\"role\": \"assistant\", ");
    if (reasoning->size) {
        strbuf_add_str(messages, "\"reasoning_content\": ");
        strbuf_add_json(messages, reasoning->data, reasoning->size);
        strbuf_add_str(messages, ", ");
    }
    strbuf_add_str(messages, "\"content\": ");
    strbuf_add_json(messages, content->data ? content->data : "", content->size);
    strbuf_add_char(messages, '}');
}

/* The model's special tokens, then what the user has set. */
static size_t collect_variables(const struct chat_template *c, struct template_variable *out)
{
    struct json_iter it = json_first(c->config);
    size_t n;
    const struct template_variable *tokens = chat_templates_variables(c->all, &n);

    if (n)
        memcpy(out, tokens, n * sizeof *out);
    while (json_next(&it))
        if (strcmp(it.key, "tools") != 0 && strcmp(it.key, "documents") != 0)
            out[n++] = (struct template_variable){it.key, it.value};
    return n;
}

static int render(const json *messages, const struct chat_template *c, bool go_on,
                  struct strbuf *out, clm_error *err)
{
    struct template_variable *variables;
    struct chat_request request = {
        .messages = messages,
        .tools = json_get(c->config, "tools"),
        .documents = json_get(c->config, "documents"),
        .add_generation_prompt = !go_on,
        .continue_final_message = go_on,
    };
    size_t n;
    int rc;

    chat_templates_variables(c->all, &n);
    variables = mem_alloc((n + json_size(c->config) + 1) * sizeof *variables);
    if (!variables)
        return fail(err, CLM_ERR_NOMEM, "no memory for the variables of the chat template");
    request.variables = variables;
    request.n_variables = collect_variables(c, variables);
    rc = chat_render(c->template, &request, NULL, out, err);
    mem_free(variables);
    return rc;
}

int conversation_render(const struct strbuf *messages, const struct chat_template *c, bool go_on,
                        struct strbuf *out, clm_error *err)
{
    struct strbuf text = {0};
    json *parsed = NULL;
    int rc = -1;

    strbuf_add_char(&text, '[');
    strbuf_add(&text, messages->data ? messages->data : "", messages->size);
    strbuf_add_char(&text, ']');
    if (text.failed || messages->failed)
        fail(err, CLM_ERR_NOMEM, "no memory for the conversation");
    else
        parsed = json_parse(text.data, text.size, "conversation", err);
    if (parsed)
        rc = render(parsed, c, go_on, out, err);
    json_free(parsed);
    strbuf_release(&text);
    return rc;
}
