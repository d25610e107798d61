/* cli/bench_concurrent.h: how long it takes to go on with several texts at once. */
#ifndef CLI_BENCH_CONCURRENT_H
#define CLI_BENCH_CONCURRENT_H

#include "cli/bench_meter.h"
#include "engine/engine.h"

/* n more tokens of each of seqs [n_seqs], the most likely ones, in the loop that makes all texts: a
 * repetition of m. CLM_ERR_CANCELLED at an interruption. */
int bench_concurrent(engine *e, kv_seq *const *seqs, int n_seqs, int n, struct bench_meter *m,
                     clm_error *err);

#endif
