#include "generate/score.h"

#include <limits.h>

#include "base/memory.h"
#include "generate/logits.h"

/* Logits are kept for a step at a time: not more than this many bytes of them. */
#define MAX_LOGITS ((size_t)64 << 20)

enum {
    MAX_PARTS = 64,
    MIN_SHARED = 32 /* tokens that texts begin with which are worth a sequence of their own */
};

/* The rows that a step has of one text, or of what some begin with. */
struct part {
    size_t text;
    kv_seq *seq;
    int begin, n; /* tokens read */
    bool ends;    /* the text */
};

struct scoring {
    engine *e;
    const struct score_text *texts;
    size_t n_texts;
    const struct score_sink *sink;
    /* The text to be read next, and how many tokens of it have been read, by seq. */
    struct place {
        size_t next;
        int done;
        kv_seq *seq;
        /* What texts before end begin with: so many tokens, of which done have been read. */
        struct beginning {
            kv_seq *seq; /* NULL: nothing */
            int length, done;
            size_t end;
        } beginning;
    } at;
    bool alone; /* each text is read by itself */
    struct part parts[MAX_PARTS];
    int n_parts, max_parts;
};

/* Rows with logits of a step at most. */
static int max_logits(const struct scoring *s)
{
    size_t row = (size_t)engine_model(s->e)->spec->vocab_size * sizeof(float);
    size_t rows = MAX_LOGITS / row > 0 ? MAX_LOGITS / row : 1;

    return rows < (size_t)engine_max_rows(s->e) ? (int)rows : engine_max_rows(s->e);
}

/* Row i of a text foretells token i + 1. */
static int foretelling(const struct score_text *t, int begin, int n)
{
    int silent = t->first - 1 - begin;

    return n - (silent < 0 ? 0 : silent < n ? silent : n);
}

/* What the next step reads of the next text, within so many rows and rows with logits; 0: nothing
 * more fits. */
static int share(const struct scoring *s, int rows, int logits)
{
    const struct score_text *t = &s->texts[s->at.next];
    int n = t->n - 1 - s->at.done, more;

    n = n < rows ? n : rows;
    more = foretelling(t, s->at.done, n) - logits;
    return more > 0 ? n - more : n;
}

/* Tokens that two texts begin with and of which neither needs logits. */
static int common(const struct score_text *a, const struct score_text *b)
{
    int most = a->first < b->first ? a->first - 1 : b->first - 1, n = 0;

    while (n < most && a->tokens[n] == b->tokens[n])
        n++;
    return n;
}

/* What the next text and those that follow it begin with, if that is worth it. */
static int open_beginning(struct scoring *s, clm_error *err)
{
    size_t next = s->at.next, end = next + 1;
    const struct score_text *t = &s->texts[next];
    int length = !s->alone && end < s->n_texts ? common(t, &s->texts[end]) : 0;

    kv_seq_close(s->at.beginning.seq);
    s->at.beginning = (struct beginning){0};
    if (length < MIN_SHARED)
        return 0;
    while (end < s->n_texts && common(t, &s->texts[end]) >= length)
        end++;
    s->at.beginning = (struct beginning){.length = length, .end = end};
    s->at.beginning.seq = kv_seq_open(engine_cache(s->e), err);
    return s->at.beginning.seq ? 0 : -1;
}

/* The sequence of the next text; it stays NULL where what it begins with is yet to be read. */
static int open_text(struct scoring *s, clm_error *err)
{
    struct beginning *b = &s->at.beginning;

    if (s->at.next >= b->end && open_beginning(s, err))
        return -1;
    if (!b->seq) {
        s->at.seq = kv_seq_open(engine_cache(s->e), err);
    } else if (kv_seq_length(b->seq) == b->length) {
        s->at.seq = kv_seq_fork(b->seq, err);
        s->at.done = b->length;
    } else {
        return 0;
    }
    return s->at.seq ? 0 : -1;
}

static void add_part(struct scoring *s, kv_seq *seq, int begin, int n, bool ends)
{
    s->parts[s->n_parts++] = (struct part){s->at.next, seq, begin, n, ends};
}

/* A part of what the next texts begin with, which they wait for. */
static void add_beginning(struct scoring *s, int rows)
{
    struct beginning *b = &s->at.beginning;
    int n = b->length - b->done < rows ? b->length - b->done : rows;

    if (n > 0)
        add_part(s, b->seq, b->done, n, false);
    b->done += n;
}

/* The parts of a step, the first of them the rest of a text that was begun. */
static int gather(struct scoring *s, clm_error *err)
{
    int rows = engine_max_rows(s->e), logits = max_logits(s);

    s->n_parts = 0;
    while (s->n_parts < s->max_parts && s->at.next < s->n_texts) {
        const struct score_text *t = &s->texts[s->at.next];
        int n;

        if (t->first >= t->n) {
            s->at.next++;
            continue;
        }
        if (!s->at.seq && open_text(s, err))
            return -1;
        if (!s->at.seq) {
            add_beginning(s, rows);
            break;
        }
        n = share(s, rows, logits);
        if (n == 0)
            break;
        add_part(s, s->at.seq, s->at.done, n, s->at.done + n == t->n - 1);
        rows -= n;
        logits -= foretelling(t, s->at.done, n);
        s->at.done += n;
        if (s->at.done == t->n - 1) {
            s->at.next++;
            s->at.done = 0;
            s->at.seq = NULL;
        }
    }
    return 0;
}

static int tell(const struct scoring *s, const struct part *p, const float *logits, clm_error *err)
{
    const struct score_text *t = &s->texts[p->text];
    int vocab_size = engine_model(s->e)->spec->vocab_size, end = p->begin + p->n;

    for (int i = end - foretelling(t, p->begin, p->n); i < end; i++, logits += vocab_size) {
        int32_t best = logits_argmax(logits, vocab_size);

        if (best < 0)
            return fail(err, CLM_ERR_FORMAT,
                        "the model's logits are not finite; its weights may be damaged or of a "
                        "type it cannot run in");
        if (s->sink->row(s->sink->ctx, p->text, i + 1, logits, best, err))
            return -1;
    }
    return 0;
}

static int step(struct scoring *s, clm_error *err)
{
    struct engine_input inputs[MAX_PARTS];
    const float *logits = NULL;
    size_t vocab_size = (size_t)engine_model(s->e)->spec->vocab_size;

    for (int i = 0; i < s->n_parts; i++) {
        const struct part *p = &s->parts[i];
        const struct score_text *t = &s->texts[p->text];

        inputs[i] = (struct engine_input){p->seq, t->tokens + p->begin, p->n,
                                          .n_logits = foretelling(t, p->begin, p->n)};
    }
    if (engine_step(s->e, inputs, s->n_parts, &logits, err))
        return -1;
    for (int i = 0; i < s->n_parts; i++) {
        if (tell(s, &s->parts[i], logits, err))
            return -1;
        if (inputs[i].n_logits)
            logits += (size_t)inputs[i].n_logits * vocab_size;
    }
    if (s->sink->go_on && !s->sink->go_on(s->sink->ctx))
        return fail(err, CLM_ERR_CANCELLED, "stopped");
    return 0;
}

static void close_ended(struct scoring *s)
{
    for (int i = 0; i < s->n_parts; i++)
        if (s->parts[i].ends)
            kv_seq_close(s->parts[i].seq);
    s->n_parts = 0;
}

/* After a step for which the cache had no room: fewer texts at once from now on, or nothing more
 * that several begin with; what was begun for it is forgotten. */
static void take_back(struct scoring *s, struct place before)
{
    kv_seq *beginning = s->at.beginning.seq;

    for (int i = 0; i < s->n_parts; i++)
        if (s->parts[i].seq != before.seq && s->parts[i].seq != beginning)
            kv_seq_close(s->parts[i].seq);
    kv_seq_close(beginning);
    s->alone = s->alone || s->n_parts == 1;
    s->max_parts = s->n_parts > 1 ? s->n_parts / 2 : 1;
    s->n_parts = 0;
    s->at = before;
    s->at.beginning = (struct beginning){0};
}

static int gather_and_step(struct scoring *s, clm_error *err)
{
    struct place before = s->at;
    clm_error inner = {0};
    int rc = gather(s, &inner);

    if (rc == 0 && s->n_parts > 0)
        rc = step(s, &inner);
    if (rc && inner.code == CLM_ERR_FULL && (s->n_parts > 1 || s->at.beginning.seq)) {
        take_back(s, before);
        return 0;
    }
    close_ended(s);
    return rc ? fail(err, inner.code, "%s", inner.message) : 0;
}

int score_check(engine *e, const struct score_text *t, clm_error *err)
{
    const struct spec *spec = engine_model(e)->spec;
    int most = spec->context_length > 0 ? spec->context_length : INT_MAX - 1;

    if (t->n < 1 || t->first < 1 || t->first > t->n)
        return fail(err, CLM_ERR_ARG, "a text of %d tokens to be foretold from number %d on", t->n,
                    t->first);
    if (t->n - 1 > most)
        return fail(err, CLM_ERR_ARG, "a text of %d tokens; this model takes up to %d", t->n,
                    most + 1);
    for (int i = 0; i < t->n; i++)
        if (t->tokens[i] < 0 || t->tokens[i] >= spec->vocab_size)
            return fail(err, CLM_ERR_ARG, "token %d is outside the model's vocabulary of %d",
                        (int)t->tokens[i], spec->vocab_size);
    return 0;
}

int score_texts(engine *e, const struct score_text *texts, size_t n, const struct score_sink *sink,
                clm_error *err)
{
    struct scoring s = {.e = e, .texts = texts, .n_texts = n, .sink = sink, .max_parts = MAX_PARTS};
    int rc = 0;

    for (size_t i = 0; i < n; i++)
        if (score_check(e, &texts[i], err))
            return -1;
    while (rc == 0 && s.at.next < n)
        rc = gather_and_step(&s, err);
    kv_seq_close(s.at.seq);
    kv_seq_close(s.at.beginning.seq);
    return rc;
}
