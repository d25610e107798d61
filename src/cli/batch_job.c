#include "cli/batch_job.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "format/json_write.h"
#include "generate/messages.h"

/* The line that is written */

static void begin_result(struct batch_job *job)
{
    strbuf_addf(&job->result, "{\"id\": \"batch_req_%ld\", \"custom_id\": ", job->number);
    json_write(&job->result, job->line.custom_id);
}

static const char *error_name(int code)
{
    switch (code) {
    case CLM_ERR_ARG:
    case CLM_ERR_FORMAT:
        return "invalid_request";
    case CLM_ERR_FULL:
        return "too_long";
    case CLM_ERR_UNSUPPORTED:
        return "unsupported";
    case CLM_ERR_CANCELLED:
        return "cancelled";
    default:
        return "failed";
    }
}

static void write_error(struct batch_job *job, const clm_error *err)
{
    struct strbuf *out = &job->result;

    begin_result(job);
    strbuf_addf(out,
                ", \"response\": null, \"error\": {\"code\": \"%s\", \"line\": %ld, "
                "\"message\": ",
                error_name(err->code), job->number);
    strbuf_add_json(out, err->message, strlen(err->message));
    strbuf_add_str(out, "}}\n");
    job->done = true;
}

static void add_field(struct strbuf *out, const char *before, const struct strbuf *text)
{
    strbuf_add_str(out, before);
    strbuf_add_json(out, text->data ? text->data : "", text->size);
}

static void add_calls(struct strbuf *out, const struct tool_calls *calls)
{
    for (size_t i = 0; i < calls->count; i++) {
        const struct tool_call *c = &calls->calls[i];

        strbuf_add_str(out, i ? ", {\"id\": " : ", \"tool_calls\": [{\"id\": ");
        strbuf_add_json(out, c->id, strlen(c->id));
        strbuf_add_str(out, ", \"type\": \"function\", \"function\": {\"name\": ");
        strbuf_add_json(out, c->name, c->name_size);
        strbuf_add_str(out, ", \"arguments\": ");
        strbuf_add_json(out, c->arguments, c->arguments_size);
        strbuf_add_str(out, "}}");
    }
    if (calls->count)
        strbuf_add_char(out, ']');
}

static void add_choice(struct strbuf *out, const struct batch_job *job,
                       const struct generate_result *r)
{
    const struct said *said = &job->said;
    bool calls = r->finish == FINISH_STOP && said->calls.count > 0;

    strbuf_add_str(out, "{\"index\": 0, ");
    if (job->line.messages) {
        add_field(out, "\"message\": {\"role\": \"assistant\", \"content\": ", &said->content);
        if (said->reasoning.size)
            add_field(out, ", \"reasoning_content\": ", &said->reasoning);
        add_calls(out, &said->calls);
        strbuf_add_char(out, '}');
    } else {
        add_field(out, "\"text\": ", &said->content);
    }
    strbuf_add_str(out, ", \"logprobs\": ");
    if (job->line.logprobs)
        strbuf_addf(out, "{\"content\": [%s]}", job->logprobs.data ? job->logprobs.data : "");
    else
        strbuf_add_str(out, "null");
    strbuf_addf(out, ", \"finish_reason\": \"%s\"}",
                calls ? "tool_calls" : finish_reason_name(r->finish));
}

static void write_answer(struct batch_job *job, const struct generate_result *r)
{
    struct strbuf *out = &job->result;
    const char *model = job->rules->session->dir;

    job->n_evaluated = (size_t)r->prompt_tokens + (size_t)r->generated_tokens;
    job->n_evaluated -= r->generated_tokens > 0; /* the last is not */
    begin_result(job);
    strbuf_addf(out,
                ", \"response\": {\"status_code\": 200, \"request_id\": \"req_%ld\", \"body\": "
                "{\"id\": \"req_%ld\", \"object\": \"%s\", \"created\": %lld, \"model\": ",
                job->number, job->number,
                job->line.messages ? "chat.completion" : "text_completion", (long long)time(NULL));
    strbuf_add_json(out, model, strlen(model));
    strbuf_add_str(out, ", \"choices\": [");
    add_choice(out, job, r);
    strbuf_addf(out,
                "], \"usage\": {\"prompt_tokens\": %d, \"completion_tokens\": %d, "
                "\"total_tokens\": %d, \"prompt_tokens_details\": {\"cached_tokens\": %d}",
                r->prompt_tokens, r->generated_tokens, r->prompt_tokens + r->generated_tokens,
                r->cached_tokens);
    if (job->rules->speculation)
        strbuf_addf(out,
                    ", \"completion_tokens_details\": {\"accepted_prediction_tokens\": %d, "
                    "\"rejected_prediction_tokens\": %d}",
                    r->draft_tokens, r->drafted_tokens - r->draft_tokens);
    strbuf_add_str(out, "}}}, \"error\": null}\n");
    job->done = true;
}

/* Log-probabilities; JSON has no infinity, a probability of 0 is null. */

static void add_logprob(struct batch_job *job, int32_t token, float logprob)
{
    struct strbuf *out = &job->logprobs;

    strbuf_clear(&job->token);
    tokenizer_decode(job->rules->session->tokenizer, &token, 1, false, &job->token, NULL);
    strbuf_addf(out, "{\"id\": %d", (int)token);
    add_field(out, ", \"token\": ", &job->token);
    if (isfinite(logprob))
        strbuf_addf(out, ", \"logprob\": %.6g", (double)logprob);
    else
        strbuf_add_str(out, ", \"logprob\": null");
}

static void add_logprobs(struct batch_job *job, const struct generated *g)
{
    struct strbuf *out = &job->logprobs;

    strbuf_add_str(out, out->size ? ", " : "");
    add_logprob(job, g->token, g->logprob);
    strbuf_add_str(out, ", \"top_logprobs\": [");
    for (int i = 0; i < g->n_top; i++) {
        strbuf_add_str(out, i ? ", " : "");
        add_logprob(job, g->top[i].token, g->top[i].logprob);
        strbuf_add_char(out, '}');
    }
    strbuf_add_str(out, "]}");
}

/* From tokens to an answer */

/* A call that cannot be read is a part of the text. */
static void take_part(void *ctx, const struct parse_event *e)
{
    struct batch_job *job = ctx;

    if (e->kind == PARSE_CALL_FAILED)
        strbuf_add(&job->said.content, e->raw, e->raw_size);
    said_take(&job->said, e);
}

static bool take_token(void *ctx, const struct generated *g)
{
    struct batch_job *job = ctx;

    if (job->line.logprobs)
        add_logprobs(job, g);
    if (!job->line.messages)
        strbuf_add(&job->said.content, g->text, g->size);
    else if (reply_feed(&job->reply, g->text, g->size) < 0)
        job->failed = true;
    job->failed |= said_failed(&job->said) || job->logprobs.failed || job->token.failed;
    return !job->failed;
}

static void take_done(void *ctx, const struct generate_result *r, const clm_error *err)
{
    static const clm_error no_memory = {CLM_ERR_NOMEM, "no memory for the answer"};
    struct batch_job *job = ctx;

    if (job->line.messages && reply_finish(&job->reply))
        job->failed = true;
    if (err)
        write_error(job, err);
    else if (job->failed || said_failed(&job->said))
        write_error(job, &no_memory);
    else
        write_answer(job, r);
}

/* From a line to a request */

static int read_messages(struct batch_job *job, struct token_list *prompt, clm_error *err)
{
    const struct batch_rules *rules = job->rules;
    struct batch_line *l = &job->line;
    const json *last = json_at(l->messages, json_size(l->messages) - 1);
    const char *role = json_string(json_get(last, "role"), NULL);
    struct strbuf text = {0};
    json *messages;
    int rc;

    if (!rules->format->template)
        return fail(err, CLM_ERR_ARG,
                    "there is no chat template for \"messages\"; give a \"prompt\", or "
                    "--chat-template-file");
    if (json_size(l->messages) == 0)
        return fail(err, CLM_ERR_ARG, "\"messages\" is empty");
    if (!l->tools && !l->no_tools)
        l->tools = rules->format->tools;
    messages = messages_for_template(l->messages, err);
    if (!messages)
        return -1;
    rc = conversation_render_messages(messages, rules->format, l->tools, l->variables,
                                      role && strcmp(role, "assistant") == 0, &text, err);
    json_free(messages);
    if (rc == 0)
        rc = tokenizer_encode(rules->session->tokenizer, text.data ? text.data : "", text.size,
                              false, prompt, err);
    if (rc == 0)
        reply_start(&job->reply, rules->replies, l->tools,
                    thinking_is_open(&rules->replies->format.thinking, &rules->replies->format.ends,
                                     text.data ? text.data : "", text.size),
                    take_part, job);
    strbuf_release(&text);
    return rc;
}

static int read_prompt(struct batch_job *job, struct token_list *prompt, clm_error *err)
{
    struct batch_line *l = &job->line;

    if (l->messages)
        return read_messages(job, prompt, err);
    if (l->prompt)
        return tokenizer_encode(job->rules->session->tokenizer, l->prompt, l->prompt_size, true,
                                prompt, err);
    *prompt = l->prompt_ids;
    l->prompt_ids = (struct token_list){0};
    return 0;
}

static int submit(struct batch_job *job, scheduler *s, const struct token_list *prompt,
                  clm_error *err)
{
    const struct batch_rules *rules = job->rules;
    const struct batch_line *l = &job->line;
    struct request_options o = {
        .prompt = prompt->ids,
        .n_prompt = prompt->count,
        .tokenizer = rules->session->tokenizer,
        .generate = {.max_tokens = l->max_tokens,
                     .prefill_step_size = rules->prefill_step_size,
                     .timeout = l->timeout,
                     .end_tokens =
                         l->ignore_end_tokens ? rules->extra_end_tokens : rules->end_tokens,
                     .stops = l->stops.n_texts ? &l->stops : rules->stops,
                     .speculation = rules->speculation,
                     .ctx = job,
                     .token = take_token},
        .ctx = job,
        .done = take_done,
    };

    if (prompt->failed)
        return fail(err, CLM_ERR_NOMEM, "no memory for the tokens of the prompt");
    job->sampler = sampling_open_sampler(rules->sampling, &l->sampling, rules->session,
                                         rules->end_tokens, err);
    o.sampler = job->sampler;
    return job->sampler && scheduler_submit(s, &o, err) ? 0 : -1;
}

static int start(struct batch_job *job, scheduler *s, const char *text, size_t size,
                 const char *name, clm_error *err)
{
    struct batch_line *l = &job->line;
    struct token_list prompt = {0};
    int rc;

    *l = (struct batch_line){.sampling = job->rules->sampling->sampler,
                             .max_tokens = job->rules->max_tokens};
    l->sampling.seed = job->rules->seed + (uint64_t)(job->number - 1);
    if (batch_line_read(l, text, size, name, err))
        return -1;
    l->sampling.logprobs = l->logprobs;
    rc = read_prompt(job, &prompt, err);
    if (rc == 0)
        rc = submit(job, s, &prompt, err);
    token_list_release(&prompt);
    return rc;
}

static struct batch_job *new_job(const struct batch_rules *rules, long number)
{
    struct batch_job *job = mem_zeroed(1, sizeof *job);

    if (job) {
        job->rules = rules;
        job->number = number;
    }
    return job;
}

struct batch_job *batch_job_open(const struct batch_rules *rules, scheduler *s, const char *text,
                                 size_t size, const char *name, long number)
{
    struct batch_job *job = new_job(rules, number);
    clm_error err = {0};

    if (job && start(job, s, text, size, name, &err))
        write_error(job, &err);
    return job;
}

struct batch_job *batch_job_refuse(const struct batch_rules *rules, long number,
                                   const clm_error *err)
{
    struct batch_job *job = new_job(rules, number);

    if (job)
        write_error(job, err);
    return job;
}

void batch_job_close(struct batch_job *job)
{
    if (!job)
        return;
    batch_line_release(&job->line);
    sampler_close(job->sampler);
    reply_release(&job->reply);
    said_release(&job->said);
    strbuf_release(&job->logprobs);
    strbuf_release(&job->token);
    strbuf_release(&job->result);
    mem_free(job);
}
