/* cli/batch_job.h: one line of a batch, from JSON to a request to a line of JSON. */
#ifndef CLI_BATCH_JOB_H
#define CLI_BATCH_JOB_H

#include "cli/conversation.h"
#include "cli/sampling.h"
#include "generate/batch_line.h"
#include "generate/scheduler.h"

/* What all lines of a batch have in common. */
struct batch_rules {
    const struct session *session;
    const struct sampling_args *sampling; /* of lines that say nothing else */
    int max_tokens, prefill_step_size;    /* likewise */
    speculation *speculation;             /* NULL: none */
    const struct stop_set *stops;         /* likewise */
    const struct token_list *end_tokens;
    const struct token_list *extra_end_tokens; /* of lines that ignore the model's */
    const struct chat_template *format;        /* without a template messages are refused */
    const struct reply_rules *replies;
    prefix_index *prefixes; /* NULL: none */
    uint64_t seed;          /* of the first line, one more for each that follows */
};

struct batch_job {
    const struct batch_rules *rules;
    long number; /* of the line */
    struct batch_line line;
    sampler *sampler;
    struct reply reply; /* of messages */
    struct said said;   /* the content is the text, of a prompt too */
    struct strbuf logprobs, token;
    bool failed;          /* for want of memory */
    struct strbuf result; /* its line, when done */
    bool done;
    size_t n_evaluated; /* tokens of its text, when done */
    struct batch_job *next;
};

/**
 * Read a line and queue its request, during which the job must stay where it is. A line that is
 * not good is done at once, with a result that says so. NULL without memory.
 */
struct batch_job *batch_job_open(const struct batch_rules *rules, scheduler *s, const char *text,
                                 size_t size, const char *name, long number);

/* A line that could not even be read. */
struct batch_job *batch_job_refuse(const struct batch_rules *rules, long number,
                                   const clm_error *err);
void batch_job_close(struct batch_job *job); /* its request is done, or its scheduler closed */

#endif
