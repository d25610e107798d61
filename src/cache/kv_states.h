/* cache/kv_states.h: what a sequence remembers of recurrent mixers: one piece of memory after its
 * last token, and the same after a few earlier ones, its snapshots.
 *
 * A step reads a state and writes the next one elsewhere, so that forks share states, a failed step
 * changes none, and a snapshot is a state that was not given back. Or it writes where it reads,
 * which saves memory's time, where nobody else has the state and a point to go back to is near. If
 * such a step fails, the state is lost, and the sequence has to catch up from that point.
 */
#ifndef CACHE_KV_STATES_H
#define CACHE_KV_STATES_H

#include "cache/block_pool.h"

/* Snapshots of a sequence: after the last step that wrote elsewhere, and farther and farther apart
 * behind it. */
#define KV_SNAPSHOTS 4

/* A step that writes where it reads is not as far as this behind a point to go back to. */
#define KV_STEPS_IN_PLACE 16

struct kv_snapshot {
    int length; /* tokens it comes after, at least 1 */
    int32_t block;
};

struct kv_states {
    int32_t now;  /* -1: before any token, all zeros */
    int32_t next; /* where the step at work writes, which may be now; -1: none */
    int length;   /* tokens that now comes after: those of the sequence, unless it was lost */
    int n_snapshots;
    struct kv_snapshot snapshots[KV_SNAPSHOTS + 1]; /* shortest first */
};

void kv_states_init(struct kv_states *s);
void kv_states_release(struct kv_states *s, struct block_pool *p);
void kv_states_share(struct kv_states *to, const struct kv_states *from, struct block_pool *p);

/* May a step write where it reads? The first begun tokens may not be known. */
bool kv_states_may_stay(const struct kv_states *s, const struct block_pool *p, int begun);
/* The step has been done, with n tokens: next is now. */
void kv_states_advance(struct kv_states *s, struct block_pool *p, int n);
/* There was no step: next is given back. */
void kv_states_cancel(struct kv_states *s, struct block_pool *p);
/* The step has failed. */
void kv_states_fail(struct kv_states *s, struct block_pool *p);

/* No more snapshots; false: none was the last owner of its memory. */
bool kv_states_thin(struct kv_states *s, struct block_pool *p);

/* The greatest length up to n that can be gone back to. */
int kv_states_point(const struct kv_states *s, int n);
/* Go back to such a length. */
void kv_states_trim(struct kv_states *s, struct block_pool *p, int n);

#endif
