/* device/cuda/sums.h: sums over the GPUs of a group that reach each other's memory, by a kernel of
 * clm's own.
 *
 * A kernel that waits for another GPU holds back whatever waits for this one, and the other may be
 * held back by a thread that waits so. What keeps threads and GPUs from waiting for one another in
 * a circle: a thread waits for nothing but what it has given to its own stream, which ends as soon
 * as the others have given as much to theirs. Calls of CUDA that may wait for a GPU under a lock
 * that others need (a kernel that is loaded, memory, making and dropping graphs) find this thread's
 * GPU idle: cuda_quiet comes before them. No GPU has the memory of another but for the boxes of
 * sums.cu, so that they concern one GPU each.
 */
#ifndef DEVICE_CUDA_SUMS_H
#define DEVICE_CUDA_SUMS_H

#include "device/cuda/cuda.h"

struct cuda_sums;

/* NULL where these GPUs do not reach each other's memory, or there is none left: nothing has failed
 * then. Members may be on one GPU, as tests have them. */
struct cuda_sums *cuda_sums_open(struct cuda_device *const *members, int n);
void cuda_sums_close(struct cuda_sums *s); /* NULL is fine; nothing is at work */

/* Whoever waits in a sum waits no more, and has no sum. From any thread. */
void cuda_sums_stop(struct cuda_sums *s);

/* Nothing is at work: all begin with the first sum. */
int cuda_sums_begin(struct cuda_sums *s, clm_error *err);

/* x becomes the sum of all members' in the order of ranks, the same bits on all; queued by each. */
void cuda_sums_add(struct cuda_device *c, struct cuda_sums *s, const tensor *x);

#endif
