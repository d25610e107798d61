/* cli/bench.h: the tests of clm bench, how they are timed and what their rows say. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "cli/bench_meter.h"
#include "cli/progress.h"
#include "cli/session.h"
#include "generate/rng.h"

enum bench_kind {
    BENCH_PROMPT,
    BENCH_GENERATION,
    BENCH_BOTH, /* a prompt and what is generated behind it */
    BENCH_TEXTS /* texts generated at a time, each behind a prompt of its own */
};

struct bench_test {
    enum bench_kind kind;
    int prompt, generate; /* tokens */
    int depth;            /* tokens that the sequence holds already */
    int texts;
};

/* What tests run on, and what their rows say of it. */
struct bench_setup {
    const char *model; /* a shape's name or a folder */
    struct session *session;
    int bits, group_size; /* of random weights; 0: a checkpoint's own, bf16 has no groups */
    bool exact;
    const char *cache_type;
    int kv_bits; /* 0: not quantised */
    int chunk;   /* tokens of a prompt at a time; 0: the engine's choice */
    int repetitions;
    bool no_limits;              /* what the machine can do is not measured */
    struct device_limits limits; /* the best of those measured */
};

/* What came of a test. */
struct bench_row {
    struct bench_test test;
    double *speeds; /* [n] tokens per second of each repetition, ascending */
    int n;
    double read;  /* bytes per second that could be read between the steps of the median one */
    double bytes; /* read per token: weights and cache */
    double flops; /* per token */
};

/* Runs tests of one setup, one after another. */
struct bench_runner {
    const struct bench_setup *setup;
    struct rng rng;
    int32_t *tokens; /* as many as any test has in its prompt or depth, and 1 */
    kv_seq *base;    /* what tests go on from; NULL: none yet */
    struct bench_meter meter;
};

/* The machine's best so far in setup->limits: what another program takes away for a moment is not
 * part of it.
 * -1 with CLM_ERR_CANCELLED after Ctrl-C. */
int bench_measure_limits(struct bench_setup *setup, clm_error *err);

/* Gives back what tests of a setup have left for those after them. */
void bench_runner_close(struct bench_runner *b);

/**
 * Time a test: row->test and row->speeds, with room for all repetitions, are the caller's, the
 * rest is filled in. CLM_ERR_CANCELLED after Ctrl-C.
 */
int bench_measure(struct bench_runner *b, struct bench_row *row, struct progress *progress,
                  clm_error *err);

enum bench_format { BENCH_TABLE, BENCH_CSV, BENCH_JSON, BENCH_JSONL, BENCH_MARKDOWN };
extern const char *const bench_formats[]; /* their names, ends with NULL */

/* Writes rows to standard output as they come. */
struct bench_writer {
    enum bench_format format;
    bool begun;
};

/* Rows of one setup; what is written in the end closes a list. */
int bench_write(struct bench_writer *w, const struct bench_setup *setup,
                const struct bench_row *rows, int n, clm_error *err);
int bench_write_end(struct bench_writer *w, clm_error *err);

#endif
