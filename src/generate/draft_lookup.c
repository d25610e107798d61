/* Prompt lookup: which earlier part of a text ends as the text does, and how it went on.
 *
 * For runs of 2 and of 5 tokens a hash table holds the last place where each ends, and every place
 * the one before it with the same hash. A few of them are compared with the end of the text,
 * backwards; the longest agreement counts, the latest of equals.
 */
#include <string.h>

#include "base/memory.h"
#include "generate/drafter.h"

#define LONG_RUN 5
#define SHORT_RUN 2
#define MAX_TRIES 8      /* places compared, of each run */
#define MAX_AGREEMENT 32 /* tokens compared; more do not make a guess better */
#define FIRST_CAPACITY 256

/* Places where runs end. */
struct runs {
    int length;
    int32_t *last;   /* [2 * capacity] by hash: place + 1; 0: none */
    int32_t *before; /* [capacity] by place: the same */
};

struct draft_text {
    struct runs runs[2];
    int capacity; /* of tokens, a power of two */
    int n_indexed;
    bool failed;
};

static uint32_t run_hash(const struct runs *r, const int32_t *end, int capacity)
{
    uint64_t h = 0;

    for (int i = 0; i < r->length; i++)
        h = (h ^ (uint32_t)end[-i]) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32) & (uint32_t)(2 * capacity - 1);
}

static void runs_add(struct runs *r, const int32_t *ids, int place, int capacity)
{
    int32_t *last;

    if (place + 1 < r->length)
        return;
    last = &r->last[run_hash(r, ids + place, capacity)];
    r->before[place] = *last;
    *last = place + 1;
}

static bool runs_resize(struct runs *r, int capacity)
{
    mem_free(r->last);
    mem_free(r->before);
    r->last = mem_zeroed(2 * (size_t)capacity, sizeof *r->last);
    r->before = mem_zeroed((size_t)capacity, sizeof *r->before);
    return r->last && r->before;
}

/* Room for n tokens; what was indexed is to be indexed again after growth. */
static bool text_reserve(draft_text *t, int n)
{
    int capacity = t->capacity ? t->capacity : FIRST_CAPACITY;

    if (n <= t->capacity)
        return true;
    while (capacity < n && capacity <= INT32_MAX / 4)
        capacity *= 2;
    t->n_indexed = 0;
    t->capacity = capacity;
    t->failed =
        capacity < n || !runs_resize(&t->runs[0], capacity) || !runs_resize(&t->runs[1], capacity);
    return !t->failed;
}

/* Index all tokens but the last, where the text's own end is. */
static bool text_index(draft_text *t, const struct draft_job *job)
{
    if (t->failed || !text_reserve(t, job->n_ids))
        return false;
    for (; t->n_indexed < job->n_ids - 1; t->n_indexed++)
        for (int k = 0; k < 2; k++)
            runs_add(&t->runs[k], job->ids, t->n_indexed, t->capacity);
    return true;
}

/* How many tokens up to the place are those up to the end. */
static int agreement(const struct draft_job *job, int place)
{
    const int32_t *a = job->ids + place, *b = job->ids + job->n_ids - 1;
    int most = place + 1 < MAX_AGREEMENT ? place + 1 : MAX_AGREEMENT, n = 0;

    while (n < most && a[-n] == b[-n] && a[-n] >= 0)
        n++;
    return n;
}

/* The place to go on from, -1 without any; *length tokens agree. */
static int find(const draft_text *t, const struct draft_job *job, int *length)
{
    int best = -1;

    *length = SHORT_RUN - 1;
    for (int k = 0; k < 2 && best < 0; k++) {
        const struct runs *r = &t->runs[k];
        int32_t next = 0;

        if (job->n_ids > r->length)
            next = r->last[run_hash(r, job->ids + job->n_ids - 1, t->capacity)];
        for (int tries = 0; next > 0 && tries < MAX_TRIES; tries++) {
            int n = agreement(job, next - 1);

            if (n > *length) {
                *length = n;
                best = next - 1;
            }
            next = r->before[next - 1];
        }
    }
    return best;
}

static int trust_of(int length)
{
    return length >= 16 ? 3 : length >= 8 ? 2 : length >= LONG_RUN ? 1 : 0;
}

static void lookup_look(drafter *d, struct draft_job *job)
{
    draft_text *t = job->text;
    int length, place;

    (void)d;
    if (!text_index(t, job))
        return;
    place = find(t, job, &length);
    if (place < 0)
        return;
    job->trust = trust_of(length);
    /* A part that reaches the end of the text repeats itself. */
    for (int i = 0; i < MAX_DRAFT_TOKENS; i++) {
        int from = place + 1 + i;
        int32_t id = from < job->n_ids ? job->ids[from] : job->drafts[from - job->n_ids];

        if (id < 0)
            break;
        job->drafts[i] = id;
        job->possible = i + 1;
    }
}

static void lookup_propose(drafter *d, struct draft_job *const *jobs, int n)
{
    /* drafter_look has left them there. */
    (void)d;
    (void)jobs;
    (void)n;
}

static draft_text *lookup_open_text(drafter *d, const sampler *s, clm_error *err)
{
    draft_text *t = mem_zeroed(1, sizeof *t);

    (void)d;
    (void)s;
    if (!t)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for drafts");
    t->runs[0].length = LONG_RUN;
    t->runs[1].length = SHORT_RUN;
    return t;
}

static void lookup_close_text(drafter *d, draft_text *t)
{
    (void)d;
    for (int k = 0; k < 2; k++) {
        mem_free(t->runs[k].last);
        mem_free(t->runs[k].before);
    }
    mem_free(t);
}

static void lookup_close(drafter *d)
{
    mem_free(d);
}

drafter *drafter_open_lookup(clm_error *err)
{
    drafter *d = mem_alloc(sizeof *d);

    if (!d)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for drafts");
    *d = (drafter){
        .open_text = lookup_open_text,
        .close_text = lookup_close_text,
        .look = lookup_look,
        .propose = lookup_propose,
        .close = lookup_close,
    };
    return d;
}
