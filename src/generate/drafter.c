#include "generate/drafter.h"

#include <string.h>

draft_text *drafter_open_text(drafter *d, const sampler *s, clm_error *err)
{
    return d->open_text(d, s, err);
}

void drafter_close_text(drafter *d, draft_text *t)
{
    if (t)
        d->close_text(d, t);
}

void drafter_look(drafter *d, struct draft_job *job)
{
    job->trust = job->possible = job->behind = job->n_drafts = 0;
    d->look(d, job);
}

void drafter_propose(drafter *d, struct draft_job *const *jobs, int n)
{
    if (n > 0)
        d->propose(d, jobs, n);
}

void drafter_close(drafter *d)
{
    if (d)
        d->close(d);
}

static bool same_token(const tokenizer *a, const tokenizer *b, int32_t id)
{
    size_t sizes[2];
    const char *x = tokenizer_token(a, id, &sizes[0]), *y = tokenizer_token(b, id, &sizes[1]);

    return x && y ? sizes[0] == sizes[1] && memcmp(x, y, sizes[0]) == 0 : x == y;
}

int drafter_check_tokenizers(const tokenizer *model, const tokenizer *draft, clm_error *err)
{
    size_t n = tokenizer_vocab_size(model), n_draft = tokenizer_vocab_size(draft);
    size_t most = n > n_draft ? n : n_draft;

    for (size_t i = 0; i < most; i++) {
        const char *x, *y;

        if (same_token(model, draft, (int32_t)i))
            continue;
        x = tokenizer_token(model, (int32_t)i, NULL);
        y = tokenizer_token(draft, (int32_t)i, NULL);
        return fail(err, CLM_ERR_ARG,
                    "the draft model's tokenizer is another one: token %zu is \"%.40s\", and "
                    "\"%.40s\" of the model; give a draft model of the same family",
                    i, y ? y : "(none)", x ? x : "(none)");
    }
    return 0;
}
