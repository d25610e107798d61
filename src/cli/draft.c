#include "cli/draft.h"

#include "cli/locate.h"

const struct option options_draft[] = {
    {STRING_OPTION("draft-model", 0, struct draft_args, model, "MODEL",
                   "a smaller model with the same tokenizer, which guesses tokens ahead: the text "
                   "is the same, and comes faster where it guesses well")},
    {FLAG_OPTION("prompt-lookup", 0, struct draft_args, lookup,
                 "guess that a text goes on as it did where it had the same few tokens before; "
                 "for texts that repeat parts of their prompt")},
    {INT_OPTION("num-draft-tokens", 0, struct draft_args, n_tokens, 1, MAX_DRAFT_TOKENS,
                "how many tokens to guess at a time at most (default: as many as measurements say "
                "are worth it)")},
    {0},
};

/* A session of its own, but on the same devices, so that both share its threads. */
static int open_small(struct draft_session *d, const struct draft_args *a,
                      const struct model_options *o, const struct session *session, clm_error *err)
{
    struct model_options small = *o;
    struct engine_options options = model_options_engine(o, 0);
    struct model_devices where = session->devices;

    where.n_group = 0; /* a small model is faster on the first alone */
    if (where.gpu_layers != GPU_LAYERS_ALL)
        where.gpu_layers = GPU_LAYERS_AUTO; /* the option counts the model's */
    where.cache_bytes = 0;
    options.cache_bytes = 0; /* which bounds the model's */
    small.model = a->model;
    if (session_open_tokenizer(&d->small, &small, err) ||
        drafter_check_tokenizers(session->tokenizer, d->small.tokenizer, err))
        return -1;
    d->small.model = model_open_over(d->small.dir, NULL, &where, &cli_log, err);
    if (d->small.model)
        d->small.engine = engine_open(d->small.model, &options, err);
    return d->small.engine ? 0 : -1;
}

int draft_session_open(struct draft_session *d, const struct draft_args *a,
                       const struct model_options *o, const struct session *session, clm_error *err)
{
    struct speculation_options options = {.max_drafts = a->n_tokens};
    drafter *guesses;

    if (a->model && a->lookup)
        return fail(err, CLM_ERR_ARG,
                    "--draft-model and --prompt-lookup both guess; give one of them");
    if (!a->model && !a->lookup && a->n_tokens)
        return fail(err, CLM_ERR_ARG,
                    "--num-draft-tokens needs --draft-model or --prompt-lookup to guess them");
    if (!a->model && !a->lookup)
        return 0;
    if (a->model && open_small(d, a, o, session, err))
        return -1;
    guesses = a->lookup
                  ? drafter_open_lookup(err)
                  : drafter_open_model(d->small.engine, session->model->spec->vocab_size, err);
    if (guesses)
        d->speculation = speculation_open(guesses, &options, err);
    return d->speculation ? 0 : -1;
}

void draft_session_close(struct draft_session *d)
{
    speculation_close(d->speculation);
    session_close(&d->small);
    d->speculation = NULL;
}

void draft_add_statistics(struct strbuf *b, const struct generate_result *r)
{
    double part = r->generated_tokens > 0 ? 100.0 * r->draft_tokens / r->generated_tokens : 0;

    strbuf_addf(b, "Drafts: %d guessed, %d right, %.1f %% of the text", r->drafted_tokens,
                r->draft_tokens, part);
}
