/* cli/cmd_score.c: how probable given texts are, line by line, as evaluations ask. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/session.h"
#include "generate/logits.h"
#include "generate/score.h"

struct score_args {
    struct model_options model;
    bool per_token;
};

/* A line, and what has been found of it. */
struct scored {
    struct token_list tokens;
    size_t first;    /* token that is foretold */
    int dropped;     /* tokens at the beginning of what was given */
    bool in_windows; /* a text that may be longer than the context */
    bool per_token;
    double sum;
    bool greedy;
    struct strbuf each;
};

struct scoring {
    const struct score_args *args;
    struct session *session;
    struct scored lines[LINES_MOST];
    /* What is evaluated: one text of a line, or its windows one after another. */
    struct score_text *texts;
    int *line_of; /* of each text */
    size_t n_texts, room;
};

/* What is asked */

static int read_ids(struct scored *s, const json *line, clm_error *err)
{
    if (line_ids(&s->tokens, line, "context_ids", err))
        return -1;
    s->first = s->tokens.count;
    if (s->first == 0)
        return fail(err, CLM_ERR_FORMAT, "\"context_ids\" needs one token at least");
    return line_ids(&s->tokens, line, "continuation_ids", err);
}

/* The tokens of both together, cut where those of the context alone end. Spaces at the end of the
 * context belong to the continuation, where tokenizers have them. */
static int read_pair(struct scored *s, const tokenizer *t, const json *line, clm_error *err)
{
    size_t size, more;
    const char *context = json_string(json_get(line, "context"), &size);
    const char *rest = json_string(json_get(line, "continuation"), &more);
    struct strbuf whole = {0};
    int rc;

    if (!context || !rest)
        return fail(err, CLM_ERR_FORMAT,
                    "expected {\"context\": \"...\", \"continuation\": \"...\"} or {\"text\": "
                    "\"...\"}");
    strbuf_add(&whole, context, size);
    strbuf_add(&whole, rest, more);
    while (size > 0 && strchr(" \t\r\n", context[size - 1]) && context[size - 1])
        size--;
    rc = whole.failed ? fail(err, CLM_ERR_NOMEM, "no memory for the text") : 0;
    if (rc == 0)
        rc = tokenizer_encode(t, context, size, true, &s->tokens, err);
    s->first = s->tokens.count;
    token_list_clear(&s->tokens);
    if (rc == 0)
        rc = tokenizer_encode(t, whole.data ? whole.data : "", whole.size, true, &s->tokens, err);
    strbuf_release(&whole);
    if (rc == 0 && s->first == 0)
        return fail(err, CLM_ERR_ARG,
                    "an empty context, and the tokenizer begins no text: give "
                    "the token to begin with in \"context_ids\"");
    return rc;
}

static int read_text(struct scored *s, const tokenizer *t, const json *line, clm_error *err)
{
    size_t size;
    const char *text = json_string(json_get(line, "text"), &size);

    s->in_windows = true;
    s->first = 1;
    return text ? tokenizer_encode(t, text, size, true, &s->tokens, err)
                : fail(err, CLM_ERR_FORMAT, "\"text\" is no string");
}

static int read_line(struct scored *s, const struct scoring *k, const json *line, clm_error *err)
{
    const tokenizer *t = k->session->tokenizer;
    int rc;

    token_list_clear(&s->tokens);
    strbuf_clear(&s->each);
    s->dropped = 0;
    s->sum = 0;
    s->greedy = true;
    s->in_windows = false;
    s->per_token = json_bool(json_get(line, "per_token"), k->args->per_token);
    if (json_get(line, "context_ids"))
        rc = read_ids(s, line, err);
    else if (json_get(line, "text"))
        rc = read_text(s, t, line, err);
    else
        rc = read_pair(s, t, line, err);
    if (rc == 0 && s->tokens.failed)
        rc = fail(err, CLM_ERR_NOMEM, "no memory for the tokens");
    if (s->first > s->tokens.count)
        s->first = s->tokens.count;
    return rc;
}

/* What is evaluated */

static int add_text(struct scoring *k, int line, size_t begin, size_t end, size_t first,
                    clm_error *err)
{
    if (k->n_texts == k->room) {
        size_t room = 2 * k->room + LINES_MOST;
        struct score_text *texts = mem_resize(k->texts, room * sizeof *texts);
        int *line_of;

        k->texts = texts ? texts : k->texts;
        line_of = texts ? mem_resize(k->line_of, room * sizeof *line_of) : NULL;
        if (!line_of)
            return fail(err, CLM_ERR_NOMEM, "no memory for %zu texts", room);
        k->line_of = line_of;
        k->room = room;
    }
    k->texts[k->n_texts] = (struct score_text){k->lines[line].tokens.ids + begin,
                                               (int)(end - begin), (int)(first - begin)};
    k->line_of[k->n_texts] = line;
    return score_check(k->session->engine, &k->texts[k->n_texts++], err);
}

/* A text of any length in windows of the model's context, each of which begins with the last token
 * of the one before; a continuation with as much of its context as there is room for. */
static int add_texts(struct scoring *k, int line, clm_error *err)
{
    struct scored *s = &k->lines[line];
    int context = engine_model(k->session->engine)->spec->context_length;
    size_t n = s->tokens.count, most = (context > 0 ? (size_t)context : (size_t)INT32_MAX - 2) + 1;

    if (s->in_windows) {
        for (size_t begin = 0; begin + 1 < n; begin += most - 1)
            if (add_text(k, line, begin, n - begin < most ? n : begin + most, begin + 1, err))
                return -1;
        return 0;
    }
    if (s->first >= n)
        return 0;
    if (n - s->first >= most)
        return fail(err, CLM_ERR_ARG, "a continuation of %zu tokens; this model takes up to %zu",
                    n - s->first, most - 1);
    s->dropped = n > most ? (int)(n - most) : 0;
    return add_text(k, line, (size_t)s->dropped, n, s->first, err);
}

/* As Python's json writes it. */
static void add_number(struct strbuf *out, double x)
{
    if (isinf(x))
        strbuf_add_str(out, "-Infinity");
    else
        strbuf_addf(out, "%.9g", x);
}

static int add_row(void *ctx, size_t text, int i, const float *logits, int32_t best, clm_error *err)
{
    struct scoring *k = ctx;
    struct scored *s = &k->lines[k->line_of[text]];
    int vocab_size = engine_model(k->session->engine)->spec->vocab_size;
    int32_t token = k->texts[text].tokens[i];
    double logprob = (double)logits[token] - logits_log_sum_exp(logits, vocab_size, logits[best]);

    (void)err;
    s->sum += logprob;
    s->greedy = s->greedy && best == token;
    if (!s->per_token)
        return 0;
    strbuf_addf(&s->each, "%s{\"id\": %d, \"logprob\": ", s->each.size ? ", " : "", (int)token);
    add_number(&s->each, logprob);
    strbuf_addf(&s->each, ", \"greedy\": %s}", best == token ? "true" : "false");
    return 0;
}

static int write_answer(const struct scored *s, struct strbuf *out, clm_error *err)
{
    strbuf_add_str(out, "{\"logprob\": ");
    add_number(out, s->sum);
    strbuf_addf(out, ", \"greedy\": %s, \"tokens\": %zu", s->greedy ? "true" : "false",
                s->tokens.count - s->first);
    if (s->dropped)
        strbuf_addf(out, ", \"dropped\": %d", s->dropped);
    if (s->per_token) {
        strbuf_add_str(out, ", \"per_token\": [");
        strbuf_add(out, s->each.data ? s->each.data : "", s->each.size);
        strbuf_add_char(out, ']');
    }
    strbuf_add_str(out, "}\n");
    return s->each.failed || out->failed ? fail(err, CLM_ERR_NOMEM, "no memory for the answer") : 0;
}

static int take_line(struct scoring *k, int i, const json *line, clm_error *err)
{
    size_t before = k->n_texts;

    if (read_line(&k->lines[i], k, line, err) == 0 && add_texts(k, i, err) == 0)
        return 0;
    k->n_texts = before;
    return -1;
}

/* A bad line is an error after those before it have been answered. */
static int score_lines(void *ctx, const struct line *lines, size_t n, struct strbuf *out,
                       clm_error *err)
{
    struct scoring *k = ctx;
    struct score_sink sink = {.ctx = k, .row = add_row};
    clm_error bad = {0};
    size_t good = 0;

    k->n_texts = 0;
    while (good < n && take_line(k, (int)good, lines[good].value, &bad) == 0)
        good++;
    if (score_texts(k->session->engine, k->texts, k->n_texts, &sink, err))
        return -1;
    for (size_t i = 0; i < good; i++)
        if (write_answer(&k->lines[i], out, err))
            return -1;
    return good == n ? 0
                     : fail(err, bad.code == CLM_ERR_ARG ? CLM_ERR_FORMAT : bad.code, "%s: %s",
                            lines[good].name, bad.message);
}

static int score_run(const void *args, clm_error *err)
{
    const struct score_args *a = args;
    struct session s = {0};
    struct scoring *k = mem_zeroed(1, sizeof *k);
    int rc = -1;

    if (!k)
        return fail(err, CLM_ERR_NOMEM, "no memory to score lines");
    k->args = a;
    k->session = &s;
    if (session_open_text(&s, &a->model, 0, err) == 0)
        rc = lines_answer_together(score_lines, k, err);
    for (size_t i = 0; i < COUNT(k->lines); i++) {
        token_list_release(&k->lines[i].tokens);
        strbuf_release(&k->lines[i].each);
    }
    mem_free(k->texts);
    mem_free(k->line_of);
    mem_free(k);
    session_close(&s);
    return rc;
}

static const struct option score_options[] = {
    {TABLE_OPTION(struct score_args, model, options_running)},
    {FLAG_OPTION("per-token", 0, struct score_args, per_token,
                 "write id, log-probability and whether it is the most probable of each token; a "
                 "line's \"per_token\" comes before it")},
    {0},
};

const struct command command_score = {
    .name = "score",
    .summary = "log-probabilities of texts and continuations",
    .details =
        "Reads JSON lines from standard input: {\"context\": \"...\", \"continuation\": \"...\"}, "
        "{\"context_ids\": [...], \"continuation_ids\": [...]} or {\"text\": \"...\"}, and writes "
        "for each {\"logprob\": X, \"greedy\": true|false, \"tokens\": N}: the sum of the "
        "logarithms of its tokens' probabilities, and whether each is the most probable one. Lines "
        "that are there at once are evaluated together. See docs/scoring.md.",
    .options = score_options,
    .operands = {.instead = "lines are read from standard input: clm score < FILE"},
    .args_size = sizeof(struct score_args),
    .run = score_run,
};
