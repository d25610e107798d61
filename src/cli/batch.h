/* cli/batch.h: many requests from a file of JSON lines, answered in one loop. */
#ifndef CLI_BATCH_H
#define CLI_BATCH_H

#include "cli/batch_job.h"

struct batch_args {
    const char *file; /* "-": standard input; NULL: no batch */
    int size;         /* requests at once; 0: the default */
    bool in_order;
};

extern const struct option options_batch[]; /* for a struct batch_args */

/**
 * Answer every line of the file with a line on standard output, as soon as it is done, or in the
 * order of the file. The file is read as the work goes on. A line that cannot be answered gets an
 * error for an answer.
 *
 * Returns an exit status, or -1 with *err: the file cannot be read, or the output not written.
 */
int batch_run(const struct batch_args *a, const struct batch_rules *rules, clm_error *err);

#endif
