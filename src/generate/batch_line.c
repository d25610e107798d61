#include "generate/batch_line.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "generate/logit_bias.h"

/* Numbers that go where the table says. */
struct number {
    const char *key;
    size_t offset; /* in struct batch_line: a double, or an int */
    bool whole;
    double low, high;
};

#define REAL(key, member)                                                                          \
    {                                                                                              \
        key, offsetof(struct batch_line, member), false, -ANY, ANY                                 \
    }
#define WHOLE(key, member, low, high)                                                              \
    {                                                                                              \
        key, offsetof(struct batch_line, member), true, low, high                                  \
    }
#define ANY 1e300

static const struct number numbers[] = {
    WHOLE("max_tokens", max_tokens, 1, INT_MAX),
    WHOLE("max_completion_tokens", max_tokens, 1, INT_MAX),
    {"timeout", offsetof(struct batch_line, timeout), false, 0, 1e9},
    REAL("temperature", sampling.temp),
    REAL("dynatemp_range", sampling.dynatemp_range),
    REAL("dynatemp_exponent", sampling.dynatemp_exponent),
    REAL("top_n_sigma", sampling.top_n_sigma),
    REAL("typical_p", sampling.typical_p),
    REAL("top_p", sampling.top_p),
    REAL("min_p", sampling.min_p),
    WHOLE("min_tokens_to_keep", sampling.min_tokens_to_keep, 1, INT_MAX),
    WHOLE("top_k", sampling.top_k, 0, INT_MAX),
    REAL("xtc_probability", sampling.xtc_probability),
    REAL("xtc_threshold", sampling.xtc_threshold),
    REAL("repetition_penalty", sampling.repetition.value),
    WHOLE("repetition_context_size", sampling.repetition.context, 0, INT_MAX),
    REAL("presence_penalty", sampling.presence.value),
    WHOLE("presence_context_size", sampling.presence.context, 0, INT_MAX),
    REAL("frequency_penalty", sampling.frequency.value),
    WHOLE("frequency_context_size", sampling.frequency.context, 0, INT_MAX),
    REAL("dry_multiplier", sampling.dry.multiplier),
    REAL("dry_base", sampling.dry.base),
    WHOLE("dry_allowed_length", sampling.dry.allowed_length, 0, INT_MAX),
    WHOLE("dry_penalty_last_n", sampling.dry.last_n, -1, INT_MAX),
    WHOLE("mirostat", sampling.mirostat, 0, 2),
    REAL("mirostat_tau", sampling.mirostat_tau),
    REAL("mirostat_eta", sampling.mirostat_eta),
};

/* What changes nothing of what is made here. */
static const char *const harmless[] = {
    "model",
    "user",
    "metadata",
    "store",
    "stream_options",
    "service_tier",
    "prompt_cache_key",
    "safety_identifier",
    "parallel_tool_calls",
};

static int wrong(const char *key, const char *expected, clm_error *err)
{
    return fail(err, CLM_ERR_ARG, "\"%s\" must be %s", key, expected);
}

static int take_number(struct batch_line *l, const struct number *n, const json *v, clm_error *err)
{
    enum json_kind kind = json_kind(v);
    double value = json_real(v, 0);
    void *at = (char *)l + n->offset;

    if (kind != JSON_INT && (kind != JSON_REAL || n->whole))
        return wrong(n->key, n->whole ? "a whole number" : "a number", err);
    if (!(value >= n->low && value <= n->high))
        return fail(err, CLM_ERR_ARG, "\"%s\" must be from %.0f to %.0f, not %g", n->key, n->low,
                    n->high, value);
    if (n->whole)
        *(int *)at = (int)value;
    else
        *(double *)at = value;
    return 0;
}

static int take_ignore_eos(struct batch_line *l, const json *v, clm_error *err)
{
    if (json_kind(v) != JSON_BOOL)
        return wrong("ignore_eos", "true or false", err);
    l->ignore_end_tokens = json_bool(v, false);
    return 0;
}

static int take_seed(struct batch_line *l, const json *v, clm_error *err)
{
    if (json_kind(v) != JSON_INT)
        return wrong("seed", "a whole number", err);
    l->sampling.seed = (uint64_t)json_int(v, 0);
    return 0;
}

static int add_stop(struct batch_line *l, const json *v, clm_error *err)
{
    size_t size;
    const char *text = json_string(v, &size);

    if (!text || size == 0)
        return wrong("stop", "a text that is not empty, or a list of such", err);
    return stop_set_add_text(&l->stops, text, size)
               ? fail(err, CLM_ERR_NOMEM, "no memory for stops")
               : 0;
}

static int take_stop(struct batch_line *l, const json *v, clm_error *err)
{
    if (json_kind(v) != JSON_ARRAY)
        return add_stop(l, v, err);
    for (size_t i = 0; i < json_size(v); i++)
        if (add_stop(l, json_at(v, i), err))
            return -1;
    return 0;
}

static int take_prompt(struct batch_line *l, const json *v, clm_error *err)
{
    l->prompt = json_string(v, &l->prompt_size);
    if (l->prompt)
        return 0;
    if (json_kind(v) != JSON_ARRAY || json_size(v) == 0)
        return wrong("prompt", "a text, or a list of token ids", err);
    for (size_t i = 0; i < json_size(v); i++) {
        int64_t id = json_int(json_at(v, i), -1);

        if (id < 0 || id > INT32_MAX)
            return wrong("prompt", "a text, or a list of token ids", err);
        token_list_add(&l->prompt_ids, (int32_t)id);
    }
    return l->prompt_ids.failed ? fail(err, CLM_ERR_NOMEM, "no memory for the prompt") : 0;
}

static int take_bias(struct batch_line *l, const json *v, clm_error *err)
{
    int n;

    if (logit_bias_read(&l->bias, &n, v, "\"logit_bias\"", err))
        return -1;
    l->sampling.logit_bias = l->bias;
    l->sampling.n_logit_bias = n;
    return 0;
}

/* true and false as chats have it; a number of most likely tokens as completions do. */
static int take_logprobs(struct batch_line *l, const char *key, const json *v, clm_error *err)
{
    int64_t n = json_int(v, -1);

    if (json_kind(v) == JSON_BOOL && strcmp(key, "logprobs") == 0) {
        l->logprobs = json_bool(v, false);
        return 0;
    }
    if (n < 0 || n > MAX_TOP_LOGPROBS)
        return fail(err, CLM_ERR_ARG, "\"%s\" must be a whole number from 0 to %d", key,
                    MAX_TOP_LOGPROBS);
    l->sampling.top_logprobs = (int)n;
    l->logprobs = true;
    return 0;
}

/* Keys of which one value means what is done anyway. */
static int take_fixed(const char *key, const json *v, clm_error *err)
{
    if (strcmp(key, "stream") == 0 || strcmp(key, "echo") == 0)
        return json_kind(v) == JSON_BOOL && !json_bool(v, true)
                   ? 0
                   : fail(err, CLM_ERR_UNSUPPORTED, "\"%s\" of a batch can only be false", key);
    if (strcmp(key, "n") == 0 || strcmp(key, "best_of") == 0)
        return json_int(v, 0) == 1 ? 0
                                   : fail(err, CLM_ERR_UNSUPPORTED,
                                          "\"%s\" can only be 1; give a line for each answer", key);
    if (strcmp(key, "response_format") == 0) {
        const char *text = json_string(json_get(v, "type"), NULL);

        return text && strcmp(text, "text") == 0
                   ? 0
                   : fail(err, CLM_ERR_UNSUPPORTED, "\"response_format\" can only be of type text");
    }
    return fail(err, CLM_ERR_ARG, "\"%s\" is not known", key);
}

static int take_tool_choice(struct batch_line *l, const json *v, clm_error *err)
{
    const char *text = json_string(v, NULL);

    l->no_tools = text && strcmp(text, "none") == 0;
    if (l->no_tools)
        l->tools = NULL;
    else if (!text || strcmp(text, "auto") != 0)
        return fail(err, CLM_ERR_UNSUPPORTED, "\"tool_choice\" can only be auto or none");
    return 0;
}

static int take_list(const json **out, const char *key, const json *v, clm_error *err)
{
    if (json_kind(v) != JSON_ARRAY)
        return wrong(key, "a list", err);
    *out = v;
    return 0;
}

static int take_variables(struct batch_line *l, const json *v, clm_error *err)
{
    if (json_kind(v) != JSON_OBJECT)
        return wrong("chat_template_kwargs", "an object", err);
    l->variables = v;
    return 0;
}

static int take_key(struct batch_line *l, const char *key, const json *v, clm_error *err)
{
    for (size_t i = 0; i < COUNT(harmless); i++)
        if (strcmp(key, harmless[i]) == 0)
            return 0;
    for (size_t i = 0; i < COUNT(numbers); i++)
        if (strcmp(key, numbers[i].key) == 0)
            return take_number(l, &numbers[i], v, err);
    if (strcmp(key, "messages") == 0)
        return take_list(&l->messages, key, v, err);
    if (strcmp(key, "tools") == 0)
        return take_list(&l->tools, key, v, err);
    if (strcmp(key, "prompt") == 0)
        return take_prompt(l, v, err);
    if (strcmp(key, "seed") == 0)
        return take_seed(l, v, err);
    if (strcmp(key, "ignore_eos") == 0)
        return take_ignore_eos(l, v, err);
    if (strcmp(key, "stop") == 0)
        return take_stop(l, v, err);
    if (strcmp(key, "logit_bias") == 0)
        return take_bias(l, v, err);
    if (strcmp(key, "logprobs") == 0 || strcmp(key, "top_logprobs") == 0)
        return take_logprobs(l, key, v, err);
    if (strcmp(key, "chat_template_kwargs") == 0)
        return take_variables(l, v, err);
    if (strcmp(key, "tool_choice") == 0)
        return 0; /* when all tools are known */
    return take_fixed(key, v, err);
}

static int take_body(struct batch_line *l, const json *body, clm_error *err)
{
    struct json_iter it = json_first(body);
    const json *choice = json_get(body, "tool_choice");

    if (json_kind(body) != JSON_OBJECT)
        return wrong("body", "an object", err);
    while (json_next(&it))
        if (it.kind != JSON_NULL && take_key(l, it.key, it.value, err))
            return -1;
    if (json_kind(choice) > JSON_NULL && take_tool_choice(l, choice, err))
        return -1;
    if (!l->messages == (!l->prompt && l->prompt_ids.count == 0))
        return fail(err, CLM_ERR_ARG, "the body must have either \"messages\" or \"prompt\"");
    return stop_set_build(&l->stops) ? fail(err, CLM_ERR_NOMEM, "no memory for stops") : 0;
}

/* What is around the body only has to agree with it. */
static int check_frame(const struct batch_line *l, clm_error *err)
{
    const json *url = json_get(l->root, "url"), *method = json_get(l->root, "method");
    const char *want = l->messages ? "/v1/chat/completions" : "/v1/completions";
    const char *text = json_string(url, NULL);

    if (url && (!text || strcmp(text, want) != 0))
        return fail(err, CLM_ERR_ARG, "\"url\" of a body with %s must be %s",
                    l->messages ? "messages" : "a prompt", want);
    text = json_string(method, NULL);
    if (method && (!text || strcmp(text, "POST") != 0))
        return wrong("method", "POST", err);
    return 0;
}

int batch_line_read(struct batch_line *l, const char *text, size_t size, const char *name,
                    clm_error *err)
{
    const json *body;

    l->root = json_parse(text, size, name, err);
    if (!l->root)
        return -1;
    if (json_kind(l->root) != JSON_OBJECT)
        return fail(err, CLM_ERR_FORMAT, "%s: expected a JSON object", name);
    l->custom_id = json_get(l->root, "custom_id");
    body = json_get(l->root, "body");
    if (!body)
        return fail(err, CLM_ERR_ARG,
                    "there is no \"body\"; a line looks like {\"custom_id\": \"a\", \"body\": "
                    "{\"prompt\": \"Once\", \"max_tokens\": 99}}, or has \"messages\" in place of "
                    "\"prompt\": see docs/generation.md");
    if (take_body(l, body, err))
        return -1;
    return check_frame(l, err);
}

void batch_line_release(struct batch_line *l)
{
    token_list_release(&l->prompt_ids);
    stop_set_release(&l->stops);
    mem_free(l->bias);
    json_free(l->root);
    *l = (struct batch_line){0};
}
