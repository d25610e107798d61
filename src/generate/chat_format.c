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

/* Conversations whose last message says a word of two, and is a user's or a tool's. */
static const char *const conversations[][2] = {
    {"[{\"role\": \"user\", \"content\": \"query\"}]",
     "[{\"role\": \"user\", \"content\": \"words\"}]"},
#define CALL                                                                                       \
    "[{\"role\": \"user\", \"content\": \"ask\"}, {\"role\": \"assistant\", \"content\": \"\", "   \
    "\"tool_calls\": [{\"type\": \"function\", \"id\": \"call00001\", \"function\": {\"name\": "   \
    "\"look\", \"arguments\": {}}}]}, {\"role\": \"tool\", \"tool_call_id\": \"call00001\", "      \
    "\"name\": \"look\", \"content\": "
    {CALL "\"query\"}]", CALL "\"words\"}]"},
#undef CALL
};

static int render_text(const chat_templates *all, const char *messages, const json *tools,
                       struct strbuf *out)
{
    clm_error none = {0};
    json *list = json_parse(messages, strlen(messages), "messages", &none);
    struct chat_values v = {.messages = list, .tools = tools};
    int rc = list ? chat_format_render(all, NULL, &v, out, &none) : -1;

    json_free(list);
    return rc || out->failed ? -1 : 0;
}

/* Where in text, from begin on, the first tag of thinking stands, or its end. */
static size_t before_tags(const struct thinking *t, const struct strbuf *text, size_t begin)
{
    const char *s = text->data + begin, *start = strstr(s, t->start), *end = strstr(s, t->end);
    const char *first = !end || (start && start < end) ? start : end;

    return first ? (size_t)(first - text->data) : text->size;
}

/* What two conversations have in common at their end, up to a tag, without spaces around it. */
static void find_lead(char *out, size_t size, const struct thinking *t, const struct strbuf *one,
                      const struct strbuf *two)
{
    size_t n = 0, begin, end;

    while (n < one->size && n < two->size &&
           one->data[one->size - n - 1] == two->data[two->size - n - 1])
        n++;
    begin = one->size - n;
    end = before_tags(t, one, begin);
    while (begin < end && strchr(" \t\r\n", one->data[end - 1]))
        end--;
    while (begin < end && strchr(" \t\r\n", one->data[begin]))
        begin++;
    if (end - begin >= size)
        begin = end - size + 1;
    memcpy(out, one->data + begin, end - begin);
    out[end - begin] = '\0';
}

/* A template that refuses these conversations tells nothing. */
static void find_leads(struct message_ends *ends, const struct thinking *t,
                       const chat_templates *all)
{
    json *tools = json_parse("[]", 2, "tools", NULL);

    for (size_t i = 0; i < COUNT(ends->leads); i++) {
        struct strbuf one = {0}, two = {0};
        const json *with = i ? tools : NULL;

        if (render_text(all, conversations[i][0], with, &one) == 0 &&
            render_text(all, conversations[i][1], with, &two) == 0 && one.size && two.size)
            find_lead(ends->leads[i], sizeof ends->leads[i], t, &one, &two);
        strbuf_release(&one);
        strbuf_release(&two);
    }
    json_free(tools);
}

struct reply_format chat_format_replies(const chat_templates *all, const tokenizer *t,
                                        const char *parser)
{
    struct model_traits traits = {.chat_template = all ? template_for_tools(all) : NULL,
                                  .has_token = has_token,
                                  .vocabulary = t,
                                  .tool_parser = parser ? parser : tokenizer_tool_parser(t)};
    struct reply_format f = reply_format_infer(&traits);

    f.ends.token = tokenizer_token(t, tokenizer_role(t, TOKEN_EOS), NULL);
    if (all && f.thinking.start)
        find_leads(&f.ends, &f.thinking, all);
    return f;
}
