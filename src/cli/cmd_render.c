/* cli/cmd_render.c: conversations to the text that a model reads, a JSON line each. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/memory.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/locate.h"
#include "template/chat.h"

#define MAX_VARIABLES 1024

struct render_args {
    const char *model, *file, *name, *now;
    bool raw;
};

struct rendering {
    bool raw;
    const char *name; /* of the template wanted */
    chat_templates *all;
    template *single;
    struct tm now;
    struct template_options options;
    struct strbuf text, raised;
};

/* "2025-03-09T08:05:07" */
static int read_clock(struct rendering *k, const char *text, clm_error *err)
{
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &k->now);
    struct tm day = {.tm_year = k->now.tm_year, .tm_mon = k->now.tm_mon, .tm_mday = k->now.tm_mday};

    timegm(&day); /* makes March of February 30 */
    if (!end || *end || day.tm_mday != k->now.tm_mday)
        return fail(err, CLM_ERR_ARG, "--now %s: expected a time like 2025-03-09T08:05:07", text);
    k->options.now = &k->now;
    return 0;
}

/* Every key of an object as a variable of that name. */
static size_t take_variables(const json *object, struct template_variable *out, size_t n)
{
    struct json_iter it = json_first(object);

    while (n < MAX_VARIABLES && json_next(&it))
        out[n++] = (struct template_variable){it.key, it.value};
    return n;
}

static bool is_chat_key(const char *key)
{
    return !strcmp(key, "messages") || !strcmp(key, "tools") || !strcmp(key, "documents") ||
           !strcmp(key, "add_generation_prompt") || !strcmp(key, "continue_final_message");
}

static int render_chat(struct rendering *k, const json *line, clm_error *err)
{
    struct template_variable all[MAX_VARIABLES];
    struct chat_request request = {
        .messages = json_get(line, "messages"),
        .tools = json_get(line, "tools"),
        .documents = json_get(line, "documents"),
        .add_generation_prompt = json_bool(json_get(line, "add_generation_prompt"), false),
        .continue_final_message = json_bool(json_get(line, "continue_final_message"), false),
        .variables = all,
    };
    struct json_iter it = json_first(line);
    const template *t = k->single;

    if (k->all) {
        size_t n;
        const struct template_variable *tokens = chat_templates_variables(k->all, &n);

        memcpy(all, tokens, n * sizeof *tokens);
        request.n_variables = n;
        t = chat_templates_choose(k->all, k->name, request.tools, err);
        if (!t)
            return -1;
    }
    while (json_next(&it)) {
        if (is_chat_key(it.key))
            continue;
        if (request.n_variables == MAX_VARIABLES)
            return fail(err, CLM_ERR_FORMAT, "more than %d variables", MAX_VARIABLES);
        all[request.n_variables++] = (struct template_variable){it.key, it.value};
    }
    return chat_render(t, &request, &k->options, &k->text, err);
}

static int render_raw(struct rendering *k, const json *line, clm_error *err)
{
    struct template_variable all[MAX_VARIABLES];
    size_t size, n;
    const char *text = json_string(json_get(line, "template"), &size);
    const json *context = json_get(line, "context");
    template *t;
    int rc;

    if (!text && !k->single)
        return fail(err, CLM_ERR_FORMAT, "expected {\"template\": \"...\", \"context\": {...}}");
    if (json_size(context) > MAX_VARIABLES)
        return fail(err, CLM_ERR_FORMAT, "more than %d variables", MAX_VARIABLES);
    n = take_variables(context, all, 0);
    if (!text)
        return template_render(k->single, all, n, &k->options, &k->text, err);
    t = template_parse(text, size, "template", err);
    rc = t ? template_render(t, all, n, &k->options, &k->text, err) : -1;
    template_close(t);
    return rc;
}

/* What the line gives wrong is the answer to it, not the end of the work. */
static int render_line(void *ctx, const json *line, struct strbuf *out, clm_error *err)
{
    struct rendering *k = ctx;
    clm_error problem = {0};
    int rc;

    strbuf_clear(&k->text);
    strbuf_clear(&k->raised);
    rc = k->raw ? render_raw(k, line, &problem) : render_chat(k, line, &problem);
    if (rc && problem.code == CLM_ERR_NOMEM)
        return fail(err, CLM_ERR_NOMEM, "%s", problem.message);
    strbuf_add_str(out, rc ? "{\"error\": " : "{\"text\": ");
    if (!rc)
        strbuf_add_json(out, k->text.data ? k->text.data : "", k->text.size);
    else if (k->raised.size)
        strbuf_add_json(out, k->raised.data, k->raised.size);
    else
        strbuf_add_json(out, problem.message, strlen(problem.message));
    strbuf_add_char(out, '}');
    return 0;
}

static int open_template(struct rendering *k, const struct render_args *a, clm_error *err)
{
    char dir[4096];
    size_t size;
    char *text;

    if (a->file) {
        const char *slash = strrchr(a->file, '/');

        text = file_read(a->file, (size_t)16 << 20, &size, err);
        k->single = text ? template_parse(text, size, slash ? slash + 1 : a->file, err) : NULL;
        mem_free(text);
        return k->single ? 0 : -1;
    }
    if (a->raw)
        return 0;
    if (locate_model(dir, sizeof dir, a->model, err))
        return -1;
    k->all = chat_templates_open(dir, NULL, err);
    return k->all ? 0 : -1;
}

/* A template is one of a model's, a file, or in each line. */
static int check_origin(const struct render_args *a, clm_error *err)
{
    const char *origin = a->file ? "template" : a->raw ? "raw" : NULL;

    if (origin && (a->model || a->name))
        return fail(err, CLM_ERR_ARG, "--%s and --%s exclude each other",
                    a->model ? "model" : "template-name", origin);
    return 0;
}

static int render_run(const void *args, clm_error *err)
{
    const struct render_args *a = args;
    struct rendering k = {.raw = a->raw, .name = a->name};
    int rc = -1;

    k.options.raised = &k.raised;
    if (!check_origin(a, err) && !(a->now && read_clock(&k, a->now, err)) &&
        !open_template(&k, a, err))
        rc = lines_answer(render_line, &k, err);
    chat_templates_close(k.all);
    template_close(k.single);
    strbuf_release(&k.text);
    strbuf_release(&k.raised);
    return rc;
}

static const struct option render_options[] = {
    {STRING_OPTION("model", 'm', struct render_args, model, "MODEL",
                   "the model whose chat template is used: its folder, or org/model[@revision] "
                   "from the local Hugging Face cache")},
    {STRING_OPTION("template", 0, struct render_args, file, "FILE", "the template itself")},
    {STRING_OPTION("template-name", 0, struct render_args, name, "NAME",
                   "which of a model's templates; without it tool_use where a line has tools and "
                   "there is one, else default")},
    {STRING_OPTION("now", 0, struct render_args, now, "TIME",
                   "the time that the template reads, such as 2025-03-09T08:05:07")},
    {FLAG_OPTION("raw", 0, struct render_args, raw,
                 "lines are {\"template\": \"...\", \"context\": {...}}; nothing is added")},
    {0},
};

const struct command command_render = {
    .name = "render",
    .summary = "conversations to text, by a chat template",
    .details =
        "Reads lines {\"messages\": [...], \"tools\": [...], \"add_generation_prompt\": true, ...} "
        "from standard input and answers each with {\"text\": \"...\"} or {\"error\": \"...\"}. "
        "Every other key of a line is a variable of the template.",
    .options = render_options,
    .operands = {.instead = "lines are read from standard input: clm render < FILE"},
    .args_size = sizeof(struct render_args),
    .run = render_run,
};
