#include "generate/chat_format.h"

#include <string.h>

#include "base/memory.h"

/* What a request says in other ways. */
static const char *const reserved[] = {"messages", "add_generation_prompt",
                                       "continue_final_message"};

int chat_format_check(const json *variables, const char *name, clm_error *err)
{
    for (size_t i = 0; i < COUNT(reserved); i++)
        if (json_get(variables, reserved[i]))
            return fail(err, CLM_ERR_ARG, "%s cannot set %s", name, reserved[i]);
    return 0;
}

/* Appends what is set, but what is in other too. */
static size_t add_variables(const json *set, const json *other, struct template_variable *out,
                            size_t n)
{
    struct json_iter it = json_first(set);

    while (json_next(&it))
        if (strcmp(it.key, "tools") != 0 && strcmp(it.key, "documents") != 0 &&
            !json_get(other, it.key))
            out[n++] = (struct template_variable){it.key, it.value};
    return n;
}

/* The model's special tokens, then what is set; to be freed by mem_free. */
static struct template_variable *collect(const chat_templates *all, const struct chat_values *v,
                                         size_t *n)
{
    const struct template_variable *tokens = chat_templates_variables(all, n);
    size_t most = *n + json_size(v->variables[0]) + json_size(v->variables[1]);
    struct template_variable *out = mem_zeroed(most + 1, sizeof *out);

    if (!out)
        return NULL;
    if (*n)
        memcpy(out, tokens, *n * sizeof *out);
    *n = add_variables(v->variables[1], v->variables[0], out, *n);
    *n = add_variables(v->variables[0], NULL, out, *n);
    return out;
}

static const json *documents(const struct chat_values *v)
{
    const json *given = json_get(v->variables[0], "documents");

    return given ? given : json_get(v->variables[1], "documents");
}

int chat_format_render(const chat_templates *all, const char *name, const struct chat_values *v,
                       struct strbuf *out, clm_error *err)
{
    const template *t = chat_templates_choose(all, name, v->tools, err);
    struct chat_request request = {
        .messages = v->messages,
        .tools = v->tools,
        .documents = documents(v),
        .add_generation_prompt = !v->go_on,
        .continue_final_message = v->go_on,
    };
    struct template_variable *variables;
    int rc;

    if (!t)
        return -1;
    variables = collect(all, v, &request.n_variables);
    if (!variables)
        return fail(err, CLM_ERR_NOMEM, "no memory for the variables of the chat template");
    request.variables = variables;
    rc = chat_render(t, &request, NULL, out, err);
    mem_free(variables);
    return rc;
}

static bool has_token(const void *vocabulary, const char *token)
{
    return tokenizer_find(vocabulary, token, strlen(token)) >= 0;
}

/* The template that shows calls, if any does. */
static const char *template_for_tools(const chat_templates *all)
{
    clm_error none = {0};
    const template *t = chat_templates_choose(all, "tool_use", NULL, &none);

    if (!t)
        t = chat_templates_choose(all, NULL, NULL, &none);
    return t ? chat_templates_text(all, t) : NULL;
}

struct reply_format chat_format_replies(const chat_templates *all, const tokenizer *t,
                                        const char *parser)
{
    struct model_traits traits = {.chat_template = all ? template_for_tools(all) : NULL,
                                  .has_token = has_token,
                                  .vocabulary = t,
                                  .tool_parser = parser ? parser : tokenizer_tool_parser(t)};
    struct reply_format f = reply_format_infer(&traits);

    f.message_end = tokenizer_token(t, tokenizer_role(t, TOKEN_EOS), NULL);
    return f;
}
