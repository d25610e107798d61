#include "cli/conversation.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "generate/messages.h"

const struct option options_template[] = {
    {STRING_OPTION("system-prompt", 0, struct template_args, system, "TEXT",
                   "what the model is told before the conversation, where its chat template has a "
                   "place for that")},
    {STRING_OPTION("chat-template-file", 0, struct template_args, file, "FILE",
                   "a chat template in Jinja, in place of the model's")},
    {STRING_OPTION("chat-template-config", 0, struct template_args, variables, "JSON",
                   "variables of the chat template, such as {\"enable_thinking\": false}")},
    {STRING_OPTION("tools", 0, struct template_args, tools, "FILE",
                   "what the model may call: a JSON list of tools, which is given to the chat "
                   "template")},
    {0},
};

const struct option options_replies[] = {
    {STRING_OPTION("tool-parser", 0, struct template_args, parser, "NAME",
                   "how the model writes calls: a name that mlx-lm or docs/tool-calls.md has, or "
                   "none (default: as the model's files tell)")},
    {0},
};

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
    return chat_format_check(c->config, "--chat-template-config", err);
}

static int read_tools(struct chat_template *c, const char *path, clm_error *err)
{
    c->tools = json_get(c->config, "tools");
    if (!path)
        return 0;
    if (c->tools)
        return fail(err, CLM_ERR_ARG,
                    "--tools and --chat-template-config both name tools; give them once");
    c->file = json_parse_file(path, err);
    if (!c->file)
        return -1;
    c->tools = c->file;
    if (json_kind(c->file) != JSON_ARRAY)
        return fail(err, CLM_ERR_FORMAT,
                    "%s holds no JSON list of tools, such as [{\"type\": \"function\", "
                    "\"function\": {\"name\": \"now\"}}]",
                    path);
    return 0;
}

int chat_template_open(struct chat_template *c, const char *dir, const struct template_args *args,
                       clm_error *err)
{
    clm_error problem = {0};

    if ((args->variables && read_variables(c, args->variables, err)) ||
        read_tools(c, args->tools, err))
        return -1;
    c->all = chat_templates_open(dir, args->file, &problem);
    if (!c->all)
        return problem.code == CLM_ERR_UNSUPPORTED ? 0
                                                   : fail(err, problem.code, "%s", problem.message);
    c->template = chat_templates_choose(c->all, NULL, c->tools, err);
    return c->template ? 0 : -1;
}

void chat_template_close(struct chat_template *c)
{
    chat_templates_close(c->all);
    json_free(c->config);
    json_free(c->file);
    *c = (struct chat_template){0};
}

static int unknown_parser(const char *name, clm_error *err)
{
    struct strbuf names = {0};
    const struct tool_syntax *s;

    for (size_t i = 0; (s = syntax_at(i)); i++)
        strbuf_addf(&names, ", %s", s->name);
    fail(err, CLM_ERR_ARG, "--tool-parser %.40s: unknown; choose one of none%s", name,
         names.data ? names.data : "");
    strbuf_release(&names);
    return -1;
}

int conversation_reply_format(struct reply_format *out, const struct template_args *args,
                              const struct chat_template *c, const tokenizer *t, clm_error *err)
{
    if (args->parser && strcmp(args->parser, "none") != 0 && !syntax_by_name(args->parser))
        return unknown_parser(args->parser, err);
    *out = chat_format_replies(c->all, t, args->parser);
    if (args->parser && !strcmp(args->parser, "none"))
        out->syntax = NULL;
    return 0;
}

void conversation_add(struct strbuf *messages, const char *role, const char *text, size_t size)
{
    strbuf_addf(messages, "%s{\"role\": \"%s\", \"content\": ", messages->size ? ", " : "", role);
    strbuf_add_json(messages, text ? text : "", size);
    strbuf_add_char(messages, '}');
}

/* Nine letters and digits, which is what Mistral's templates want of an id. */
static void name_call(struct said *s, struct tool_call *call)
{
    char id[32];
    int n = snprintf(id, sizeof id, "call%05zu", ++s->n_named);

    call->id = mem_alloc((size_t)n + 1);
    if (call->id)
        memcpy(call->id, id, (size_t)n + 1);
    else
        s->calls.failed = true;
}

void said_take(void *said, const struct parse_event *e)
{
    struct said *s = said;

    if (e->kind == PARSE_CONTENT)
        strbuf_add(&s->content, e->text, e->size);
    else if (e->kind == PARSE_REASONING)
        strbuf_add(&s->reasoning, e->text, e->size);
    else
        tool_calls_take(&s->calls, e);
    if (e->kind == PARSE_CALL_END && !s->calls.failed && !s->calls.calls[s->calls.count - 1].id)
        name_call(s, &s->calls.calls[s->calls.count - 1]);
}

void said_clear(struct said *s)
{
    tool_calls_release(&s->calls);
    strbuf_clear(&s->content);
    strbuf_clear(&s->reasoning);
}

void said_release(struct said *s)
{
    tool_calls_release(&s->calls);
    strbuf_release(&s->content);
    strbuf_release(&s->reasoning);
}

bool said_failed(const struct said *s)
{
    return s->content.failed || s->reasoning.failed || s->calls.failed;
}

/* Templates are given the arguments as a value. */
static void add_call(struct strbuf *messages, const struct tool_call *call)
{
    strbuf_add_str(messages, "{\"type\": \"function\", \"id\": ");
    strbuf_add_json(messages, call->id, strlen(call->id));
    strbuf_add_str(messages, ", \"function\": {\"name\": ");
    strbuf_add_json(messages, call->name, call->name_size);
    strbuf_add_str(messages, ", \"arguments\": ");
    messages_add_arguments(messages, call->arguments, call->arguments_size);
    strbuf_add_str(messages, "}}");
}

void conversation_add_reply(struct strbuf *messages, const struct said *s)
{
    strbuf_add_str(messages, messages->size ? ", " : "");
    strbuf_add_str(messages, "{\"role\": \"assistant\", ");
    if (s->reasoning.size) {
        strbuf_add_str(messages, "\"reasoning_content\": ");
        strbuf_add_json(messages, s->reasoning.data, s->reasoning.size);
        strbuf_add_str(messages, ", ");
    }
    for (size_t i = 0; i < s->calls.count; i++) {
        strbuf_add_str(messages, i ? ", " : "\"tool_calls\": [");
        add_call(messages, &s->calls.calls[i]);
    }
    strbuf_add_str(messages, s->calls.count ? "], " : "");
    strbuf_add_str(messages, "\"content\": ");
    strbuf_add_json(messages, s->content.data ? s->content.data : "", s->content.size);
    strbuf_add_char(messages, '}');
}

void conversation_add_result(struct strbuf *messages, const struct tool_call *call,
                             const char *text, size_t size)
{
    strbuf_addf(messages, "%s{\"role\": \"tool\", \"tool_call_id\": ", messages->size ? ", " : "");
    strbuf_add_json(messages, call->id, strlen(call->id));
    strbuf_add_str(messages, ", \"name\": ");
    strbuf_add_json(messages, call->name, call->name_size);
    strbuf_add_str(messages, ", \"content\": ");
    strbuf_add_json(messages, text, size);
    strbuf_add_char(messages, '}');
}

int conversation_render_messages(const json *messages, const struct chat_template *c,
                                 const json *tools, const json *variables, bool go_on,
                                 struct strbuf *out, clm_error *err)
{
    struct chat_values v = {messages, tools, {variables, c->config}, go_on};

    if (chat_format_check(variables, "chat_template_kwargs", err))
        return -1;
    return chat_format_render(c->all, NULL, &v, out, err);
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
        rc = conversation_render_messages(parsed, c, c->tools, NULL, go_on, out, err);
    json_free(parsed);
    strbuf_release(&text);
    return rc;
}
