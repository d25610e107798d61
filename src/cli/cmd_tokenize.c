/* cli/cmd_tokenize.c: text to ids, and ids to text, a JSON line each. */
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/output.h"
#include "cli/prompt.h"
#include "cli/session.h"

struct tokenize_args {
    struct model_options model;
    bool plain;       /* --no-special, --skip-special */
    const char *text; /* in place of lines; NULL: not given */
    struct ids ids;   /* the same of detokenize; n 0: not given */
};

struct tokenize {
    const tokenizer *t;
    bool plain;
    struct token_list ids;
    struct strbuf text, segment;
};

static int add_ids(struct tokenize *k, const char *text, size_t size, struct strbuf *out,
                   clm_error *err)
{
    token_list_clear(&k->ids);
    if (tokenizer_encode(k->t, text, size, !k->plain, &k->ids, err))
        return -1;
    strbuf_add_str(out, "{\"ids\": [");
    for (size_t i = 0; i < k->ids.count; i++)
        strbuf_addf(out, i ? ", %d" : "%d", (int)k->ids.ids[i]);
    strbuf_add_str(out, "]}");
    return k->ids.failed ? fail(err, CLM_ERR_NOMEM, "no memory for ids") : 0;
}

static int tokenize_line(void *ctx, const json *line, struct strbuf *out, clm_error *err)
{
    size_t size;
    const char *text = json_string(json_get(line, "text"), &size);

    if (!text)
        return fail(err, CLM_ERR_FORMAT, "expected {\"text\": \"...\"}");
    return add_ids(ctx, text, size, out, err);
}

/* What a detokenizer gives for each id, and at the end. */
static int add_segments(struct tokenize *k, struct strbuf *out, clm_error *err)
{
    struct detokenizer d = {0};
    int rc = detokenizer_init(&d, k->t, k->plain, err);

    for (size_t i = 0; rc == 0 && i <= k->ids.count; i++) {
        strbuf_clear(&k->segment);
        rc = i < k->ids.count ? detokenizer_add(&d, k->ids.ids[i], &k->segment, err)
                              : detokenizer_finish(&d, &k->segment, err);
        if (i > 0)
            strbuf_add_str(out, ", ");
        strbuf_add_json(out, k->segment.data ? k->segment.data : "", k->segment.size);
    }
    if (rc == 0 && k->segment.failed)
        rc = fail(err, CLM_ERR_NOMEM, "no memory for text");
    detokenizer_release(&d);
    return rc;
}

/* The ids that k has. */
static int add_text(struct tokenize *k, struct strbuf *out, clm_error *err)
{
    strbuf_clear(&k->text);
    if (tokenizer_decode(k->t, k->ids.ids, k->ids.count, k->plain, &k->text, err))
        return -1;
    strbuf_add_str(out, "{\"text\": ");
    strbuf_add_json(out, k->text.data ? k->text.data : "", k->text.size);
    strbuf_add_str(out, ", \"segments\": [");
    if (add_segments(k, out, err))
        return -1;
    strbuf_add_str(out, "]}");
    return k->text.failed ? fail(err, CLM_ERR_NOMEM, "no memory for text") : 0;
}

static int detokenize_line(void *ctx, const json *line, struct strbuf *out, clm_error *err)
{
    struct tokenize *k = ctx;

    token_list_clear(&k->ids);
    return line_ids(&k->ids, line, "ids", err) ? -1 : add_text(k, out, err);
}

/* What the command line gives, answered as a line is. */
static int answer_options(struct tokenize *k, const struct tokenize_args *a, clm_error *err)
{
    struct strbuf given = {0}, out = {0};
    int rc;

    for (int i = 0; i < a->ids.n; i++)
        token_list_add(&k->ids, a->ids.items[i]);
    if (k->ids.failed)
        rc = fail(err, CLM_ERR_NOMEM, "no memory for ids");
    else if (a->text)
        rc = prompt_read(&given, a->text, err) ||
             add_ids(k, given.data ? given.data : "", given.size, &out, err);
    else
        rc = add_text(k, &out, err);
    strbuf_add_char(&out, '\n');
    if (rc == 0)
        rc = output_buffer(&out, err);
    strbuf_release(&given);
    strbuf_release(&out);
    return rc ? -1 : 0;
}

static int run_lines(const struct tokenize_args *a,
                     int (*fn)(void *, const json *, struct strbuf *, clm_error *), clm_error *err)
{
    struct session s = {0};
    struct tokenize k = {.plain = a->plain};
    int rc = session_open_tokenizer(&s, &a->model, err);

    k.t = s.tokenizer;
    if (rc == 0)
        rc = a->text || a->ids.items ? answer_options(&k, a, err) : lines_answer(fn, &k, err);
    token_list_release(&k.ids);
    strbuf_release(&k.text);
    strbuf_release(&k.segment);
    session_close(&s);
    return rc;
}

static int tokenize_run(const void *args, clm_error *err)
{
    return run_lines(args, tokenize_line, err);
}

static int detokenize_run(const void *args, clm_error *err)
{
    return run_lines(args, detokenize_line, err);
}

static const struct option tokenize_options[] = {
    {TABLE_OPTION(struct tokenize_args, model, option_model)},
    {STRING_OPTION("prompt", 'p', struct tokenize_args, text, "TEXT",
                   "the text, in place of lines; - reads all of standard input; \\n and \\t in it "
                   "stand for line ends and tabs")},
    {FLAG_OPTION("no-special", 0, struct tokenize_args, plain,
                 "leave out the tokens that the tokenizer adds around a text, such as the begin "
                 "token")},
    {0},
};

static const struct option detokenize_options[] = {
    {TABLE_OPTION(struct tokenize_args, model, option_model)},
    {IDS_OPTION("tokens", 0, struct tokenize_args, ids, "the ids, in place of lines")},
    {FLAG_OPTION("skip-special", 0, struct tokenize_args, plain, "leave out special tokens")},
    {0},
};

const struct command command_tokenize = {
    .name = "tokenize",
    .summary = "text to token ids",
    .details = "Reads lines {\"text\": \"...\"} from standard input and answers each with "
               "{\"ids\": [...]}.",
    .options = tokenize_options,
    .args_size = sizeof(struct tokenize_args),
    .run = tokenize_run,
};

const struct command command_detokenize = {
    .name = "detokenize",
    .summary = "token ids to text",
    .details =
        "Reads lines {\"ids\": [...]} from standard input and answers each with {\"text\": "
        "\"...\", \"segments\": [...]}: the whole text, and the same as it streams, a segment "
        "for each id and one for the end.",
    .options = detokenize_options,
    .args_size = sizeof(struct tokenize_args),
    .run = detokenize_run,
};
