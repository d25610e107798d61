/* cache/kv_states.h: what a sequence remembers of recurrent mixers: one piece of memory after its
 * last token, and the same after a few earlier ones, its snapshots.
 *
 * A state is never written once it is there: a step reads it and writes the next one elsewhere. So
 * forks share states, a failed step changes none, and a snapshot is a state that was not given
 * back.
 */
#ifndef CACHE_KV_STATES_H
#define CACHE_KV_STATES_H

#include "cache/block_pool.h"

/* Snapshots of a sequence: after the last step but one, and farther and farther apart behind it. */
#define KV_SNAPSHOTS 4

struct kv_snapshot {
    int length; /* tokens it comes after, at least 1 */
    int32_t block;
};

struct kv_states {
    int32_t now;  /* -1: before any token, all zeros */
    int32_t next; /* where the step at work writes; -1: none */
    int n_snapshots;
    struct kv_snapshot snapshots[KV_SNAPSHOTS + 1]; /* shortest first */
};

void kv_states_init(struct kv_states *s);
void kv_states_release(struct kv_states *s, struct block_pool *p);
void kv_states_share(struct kv_states *to, const struct kv_states *from, struct block_pool *p);

/* The step has been done, by a sequence that had length tokens: next is now. */
void kv_states_advance(struct kv_states *s, struct block_pool *p, int length);
/* The step has failed: next is given back. */
void kv_states_cancel(struct kv_states *s, struct block_pool *p);

/* No more snapshots; false: none was the last owner of its memory. */
bool kv_states_thin(struct kv_states *s, struct block_pool *p);

/* The greatest length up to n that a sequence of length tokens can go back to. */
int kv_states_point(const struct kv_states *s, int length, int n);
/* Go back to such a length. */
void kv_states_trim(struct kv_states *s, struct block_pool *p, int length, int n);

#endif
