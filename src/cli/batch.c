#include "cli/batch.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/line_reader.h"
#include "cli/lines.h"
#include "cli/output.h"

/* Lines that are read ahead of those that run, so that none runs out of work; and jobs that are
 * held at most, as the answers of a batch in order wait for the slowest before them. */
#define AHEAD 4
#define DEFAULT_SIZE 32
#define MAX_HELD 4096

const struct option options_batch[] = {
    {STRING_OPTION("batch", 0, struct batch_args, file, "FILE",
                   "answer each line of a file of JSON lines, in the form of OpenAI's batches, "
                   "with a line of JSON, many at a time; - is standard input")},
    {INT_OPTION("batch-size", 0, struct batch_args, size, 1, 1024,
                "with --batch: how many requests to work on at a time (default: 32)")},
    {FLAG_OPTION("in-order", 0, struct batch_args, in_order,
                 "with --batch: write the answers in the order of the file, not as they are "
                 "done")},
    {0},
};

struct batch {
    const struct batch_args *args;
    const struct batch_rules *rules;
    int most; /* requests at once */
    struct line_reader reader;
    scheduler *scheduler;
    struct batch_job *first, **end; /* in the order of the file */
    int n_jobs;
    bool warned; /* of the length of a text, for all of them */
    clm_error *err;
};

static int add_job(struct batch *b, struct batch_job *job)
{
    if (!job)
        return fail(b->err, CLM_ERR_NOMEM, "%s, line %ld: no memory", b->reader.name,
                    b->reader.number);
    *b->end = job;
    b->end = &job->next;
    b->n_jobs++;
    return 0;
}

static int add_line(struct batch *b, const char *text, size_t size)
{
    char name[64];

    if (line_is_blank(text, size)) /* it asks for nothing */
        return 0;
    snprintf(name, sizeof name, "line %ld", b->reader.number);
    return add_job(b, batch_job_open(b->rules, b->scheduler, text, size, name, b->reader.number));
}

static int refuse_line(struct batch *b)
{
    clm_error problem = {0};

    fail(&problem, CLM_ERR_FORMAT, "the line is longer than %zu bytes", LINE_MAX_BYTES);
    return add_job(b, batch_job_refuse(b->rules, b->reader.number, &problem));
}

/* Is there room for one more line? */
static bool wants_more(const struct batch *b)
{
    struct scheduler_load load = scheduler_load(b->scheduler);

    return load.running + load.waiting < b->most + AHEAD && b->n_jobs < MAX_HELD;
}

/* Read what there is and is wanted; without other work wait for a line. 1 at the end. */
static int read_lines(struct batch *b, bool idle)
{
    while (wants_more(b)) {
        const char *text;
        size_t size;
        int rc = 0;

        switch (line_reader_next(&b->reader, idle, &text, &size, b->err)) {
        case LINE_FAILED:
            return -1;
        case LINE_READ:
            rc = add_line(b, text, size);
            break;
        case LINE_TOO_LONG:
            rc = refuse_line(b);
            break;
        case LINE_LATER:
            return 0;
        case LINE_END:
            return 1;
        }
        if (rc)
            return -1;
        idle = false;
    }
    return 0;
}

/* Write what is done and may be written; at an interruption all that is done. */
static int write_results(struct batch *b, bool any_order)
{
    for (struct batch_job **at = &b->first; *at;) {
        struct batch_job *job = *at;

        if (!job->done && !any_order)
            return 0;
        if (!job->done) {
            at = &job->next;
            continue;
        }
        *at = job->next;
        if (b->end == &job->next)
            b->end = at;
        b->n_jobs--;
        b->warned = b->warned || session_warn_length(b->rules->session, job->n_evaluated);
        int rc = output_buffer(&job->result, b->err);

        batch_job_close(job);
        if (rc)
            return -1;
    }
    return 0;
}

static int work(struct batch *b)
{
    bool at_end = false, busy = false;

    while (!at_end || busy || b->first) {
        int rc = at_end ? 1 : read_lines(b, !busy);

        if (rc < 0)
            return -1;
        at_end = rc > 0;
        busy = scheduler_step(b->scheduler);
        if (interrupt_seen())
            return write_results(b, true) ? -1 : STATUS_INTERRUPTED;
        if (write_results(b, !b->args->in_order))
            return -1;
    }
    return STATUS_DONE;
}

int batch_run(const struct batch_args *a, const struct batch_rules *rules, clm_error *err)
{
    struct batch b = {.args = a,
                      .rules = rules,
                      .most = a->size ? a->size : DEFAULT_SIZE,
                      .end = &b.first,
                      .err = err};
    struct scheduler_options o = {.max_running = b.most, .prefixes = rules->prefixes};
    int rc = -1;

    if (line_reader_open(&b.reader, a->file, err))
        return -1;
    b.scheduler = scheduler_open(rules->session->engine, &o, err);
    if (b.scheduler)
        rc = work(&b);
    scheduler_close(b.scheduler);
    while (b.first) {
        struct batch_job *job = b.first;

        b.first = job->next;
        batch_job_close(job);
    }
    line_reader_close(&b.reader);
    return rc;
}
