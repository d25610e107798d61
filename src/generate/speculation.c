#include "generate/speculation.h"

#include "base/clock.h"
#include "base/memory.h"
#include "generate/draft_pace.h"

struct drafting {
    speculation *speculation;
    draft_text *text;
    struct draft_odds odds;
    struct draft_job job;
    bool was_wrong; /* in the last step */
};

struct speculation {
    drafter *drafter;
    struct speculation_options o;
    struct draft_pace pace;
    /* In the plan at hand: */
    double guess_seconds;
    int read; /* tokens, of struct paced_step */
    int prompt_rows;
};

speculation *speculation_open(drafter *d, const struct speculation_options *o, clm_error *err)
{
    speculation *s = mem_zeroed(1, sizeof *s);

    if (!s) {
        drafter_close(d);
        return fail_null(err, CLM_ERR_NOMEM, "no memory for drafts");
    }
    s->drafter = d;
    s->o = o ? *o : (struct speculation_options){0};
    if (s->o.max_drafts <= 0 || s->o.max_drafts > MAX_DRAFT_TOKENS)
        s->o.max_drafts = MAX_DRAFT_TOKENS;
    return s;
}

void speculation_close(speculation *s)
{
    if (!s)
        return;
    drafter_close(s->drafter);
    mem_free(s);
}

drafting *speculation_begin(speculation *s, const sampler *chooser, clm_error *err)
{
    drafting *d = mem_zeroed(1, sizeof *d);

    if (!d)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for drafts");
    d->speculation = s;
    d->job.sampler = chooser;
    d->text = d->job.text = drafter_open_text(s->drafter, chooser, err);
    if (!d->text) {
        speculation_end(d);
        return NULL;
    }
    return d;
}

void speculation_end(drafting *d)
{
    if (!d)
        return;
    drafter_close_text(d->speculation->drafter, d->text);
    mem_free(d);
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* What could be guessed of the texts. */
static void look(speculation *s, struct speculation_text *texts, struct paced_text *paced, int n)
{
    static const struct draft_odds none;

    for (int i = 0; i < n; i++) {
        drafting *d = texts[i].drafting;

        texts[i].drafts = NULL;
        texts[i].n_drafts = 0;
        paced[i] = (struct paced_text){.odds = &none, .rows = texts[i].rows};
        if (!d)
            continue;
        s->pace.goes_back |= d->was_wrong && texts[i].rows > 1;
        d->was_wrong = false;
        d->job.ids = texts[i].ids;
        d->job.n_ids = texts[i].n_ids;
        drafter_look(s->drafter, &d->job);
        paced[i].odds = &d->odds;
        paced[i].trust = d->job.trust;
        paced[i].behind = d->job.behind;
        paced[i].tail = d->job.tail;
        paced[i].left = texts[i].max_drafts;
        paced[i].possible = least(d->job.possible, least(texts[i].max_drafts, s->o.max_drafts));
    }
}

/* All that could be guessed, as far as there is room for it. */
static void plan_all(struct paced_text *texts, int n, int room)
{
    for (int i = 0; i < n; i++)
        room -= texts[i].rows;
    for (int i = 0; i < n; i++) {
        texts[i].n_drafts = least(texts[i].possible, room > 0 ? room : 0);
        texts[i].whole = true;
        room -= texts[i].n_drafts;
    }
}

/* Ask the drafter for what was planned. */
static void propose(speculation *s, struct speculation_text *texts, const struct paced_text *paced,
                    int n)
{
    struct draft_job *jobs[PACE_ROWS];
    int n_jobs = 0;

    for (int i = 0; i < n; i++) {
        drafting *d = texts[i].drafting;

        if (paced[i].n_drafts <= 0)
            continue;
        d->job.n_drafts = paced[i].n_drafts;
        d->job.whole = paced[i].whole;
        jobs[n_jobs++] = &d->job;
        s->read += paced[i].reads;
    }
    drafter_propose(s->drafter, jobs, n_jobs);
    for (int i = 0; i < n; i++) {
        if (paced[i].n_drafts <= 0)
            continue;
        texts[i].drafts = texts[i].drafting->job.drafts;
        texts[i].n_drafts = texts[i].drafting->job.n_drafts;
    }
}

void speculation_plan(speculation *s, struct speculation_text *texts, int n, int prompt_rows,
                      int most_rows)
{
    struct paced_text paced[PACE_ROWS];
    double begin = clock_seconds();

    s->guess_seconds = 0;
    s->read = 0;
    s->prompt_rows = prompt_rows;
    if (n < 1 || n > PACE_ROWS) {
        for (int i = 0; i < n; i++)
            texts[i].n_drafts = 0;
        return;
    }
    look(s, texts, paced, n);
    if (s->o.always)
        plan_all(paced, n, most_rows - prompt_rows);
    else
        draft_pace_plan(&s->pace, paced, n, prompt_rows, most_rows - prompt_rows);
    propose(s, texts, paced, n);
    s->guess_seconds = clock_seconds() - begin;
}

void speculation_learn(speculation *s, const struct speculation_text *texts, int n, double seconds)
{
    struct paced_step step = {.n_texts = n,
                              .prompt_rows = s->prompt_rows,
                              .read = s->read,
                              .guess_seconds = s->guess_seconds,
                              .step_seconds = seconds};

    for (int i = 0; i < n; i++) {
        const struct speculation_text *t = &texts[i];

        step.rows += t->rows + t->n_drafts;
        step.n_tokens += t->n_tokens;
        step.depth = t->n_drafts > step.depth ? t->n_drafts : step.depth;
        if (t->n_drafts <= 0)
            continue;
        draft_odds_learn(&t->drafting->odds, t->drafting->job.trust, t->n_drafts, t->n_right);
        draft_odds_learn(&s->pace.odds, t->drafting->job.trust, t->n_drafts, t->n_right);
        t->drafting->was_wrong = t->n_right < t->n_drafts;
    }
    draft_pace_learn(&s->pace, &step);
}
