/* tests/generate/oracle.h: a drafter that knows how texts go on, and now and then says otherwise,
 * so that drafts are accepted and rejected at every place. */
#ifndef ORACLE_H
#define ORACLE_H

#include "base/memory.h"
#include "generate/speculation.h"
#include "testing.h"

#define ORACLE_TEXTS 64
#define ORACLE_LENGTH 1200

struct oracle {
    drafter drafter;
    int32_t texts[ORACLE_TEXTS][ORACLE_LENGTH];
    int lengths[ORACLE_TEXTS];
    int n, vocab_size;
    int right_of_8; /* guesses of 8 that are right */
    int open_texts; /* must be 0 at the end */
};

struct draft_text {
    struct oracle *oracle;
};

static draft_text *oracle_open_text(drafter *d, const sampler *s, clm_error *err)
{
    draft_text *t = mem_zeroed(1, sizeof *t);

    (void)s;
    if (!t)
        return fail_null(err, CLM_ERR_NOMEM, "no memory");
    t->oracle = (struct oracle *)d;
    t->oracle->open_texts++;
    return t;
}

static void oracle_close_text(drafter *d, draft_text *t)
{
    ((struct oracle *)d)->open_texts--;
    mem_free(t);
}

/* The known text that begins with the job's, -1: none. */
static int oracle_find(const struct oracle *o, const struct draft_job *job)
{
    for (int i = 0; i < o->n; i++)
        if (o->lengths[i] >= job->n_ids &&
            !memcmp(o->texts[i], job->ids, (size_t)job->n_ids * sizeof(int32_t)))
            return i;
    return -1;
}

static void oracle_look(drafter *d, struct draft_job *job)
{
    (void)d;
    job->trust = (int)random_below(DRAFT_TRUSTS);
    job->possible = (int)random_below(MAX_DRAFT_TOKENS + 1);
}

static void oracle_propose(drafter *d, struct draft_job *const *jobs, int n)
{
    struct oracle *o = (struct oracle *)d;

    for (int k = 0; k < n; k++) {
        int text = oracle_find(o, jobs[k]);

        for (int i = 0; i < jobs[k]->n_drafts; i++) {
            int at = jobs[k]->n_ids + i;
            bool right = text >= 0 && at < o->lengths[text] && (int)random_below(8) < o->right_of_8;

            jobs[k]->drafts[i] =
                right ? o->texts[text][at] : (int32_t)random_below((size_t)o->vocab_size);
        }
    }
}

static void oracle_close(drafter *d)
{
    (void)d; /* the test's own */
}

static inline void oracle_init(struct oracle *o, int vocab_size, int right_of_8)
{
    o->drafter = (drafter){
        .open_text = oracle_open_text,
        .close_text = oracle_close_text,
        .look = oracle_look,
        .propose = oracle_propose,
        .close = oracle_close,
    };
    o->n = o->open_texts = 0;
    o->vocab_size = vocab_size;
    o->right_of_8 = right_of_8;
}

/* Text that will come: prompt [n], then tokens [m]. */
static inline void oracle_add(struct oracle *o, const int32_t *prompt, int n, const int32_t *tokens,
                              int m)
{
    CHECK(o->n < ORACLE_TEXTS && n + m <= ORACLE_LENGTH, "too much for the oracle");
    memcpy(o->texts[o->n], prompt, (size_t)n * sizeof *prompt);
    memcpy(o->texts[o->n] + n, tokens, (size_t)m * sizeof *tokens);
    o->lengths[o->n++] = n + m;
}

#endif
