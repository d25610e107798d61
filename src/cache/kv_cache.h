/* cache/kv_cache.h: what sequences remember: keys and values of attention, in blocks of one pool,
 * states of recurrent mixers, and the tokens themselves.
 *
 * Layers that see equally far back share a group. A group has one pool; a block of it holds
 * KV_BLOCK_TOKENS tokens of every layer of the group. A sequence holds, per group, a table of the
 * blocks it uses. Blocks are counted: forks share them until one of them writes (copy on write). A
 * group with a sliding window lets go of the blocks that no later token can see. Of quantised
 * layers the first tokens may lie in blocks of another pool, as they are. The states of all
 * recurrent mixers of a model are one more block per sequence, see cache/kv_states.h.
 */
#ifndef CACHE_KV_CACHE_H
#define CACHE_KV_CACHE_H

#include "device/device.h"

#define KV_BLOCK_TOKENS 32

struct kv_layer_spec {
    int n_kv_heads, k_dim, v_dim;
    int window; /* 0: everything */
    bool plain; /* never quantised */
};

/* What lies on a second device: the layers from number first on, and state_bytes more of what
 * recurrent mixers remember. */
struct kv_rest {
    device *dev; /* NULL: all lies on one */
    int first;
    size_t state_bytes;
};

/* What another device has of every layer and of the states: other heads of the same tokens. */
struct kv_share {
    device *dev;
    const struct kv_layer_spec *layers; /* [n_layers] with windows as the first device's */
    size_t state_bytes;
};

/* Zero in every field but type means none. */
struct kv_cache_options {
    enum dtype type; /* F32, F16 or BF16 */
    /* Keys and values quantised to 4 or 8 bits in groups of 32, 64 or 128 numbers, or the largest
     * smaller of these that rows are made of; rows that are made of none end with a shorter group.
     * So the tokens from quantised_from on, rounded up to blocks; those before stay as they are. */
    int bits, group_size;
    int quantised_from;
    /* A token sees max_tokens of a sequence at most, the first n_first, fewer than that, and the
     * last, itself included, and what lies between is let go of. Layers with a window see no more
     * of it than without this, and are as they are if the window is shorter. */
    int max_tokens, n_first;
    size_t state_bytes; /* what recurrent mixers remember of a sequence */
    struct kv_rest rest;
    /* [n_shares], fewer than DEVICE_MAX_GROUP; not with a rest. Read by kv_cache_open alone. */
    const struct kv_share *shares;
    int n_shares;
    /* Bounds all blocks together, in use or not; 0: no bound but memory. */
    size_t max_bytes;
};

typedef struct kv_cache kv_cache;
typedef struct kv_sequence_cache kv_seq;
typedef struct kv_map kv_map; /* cache/kv_map.h */

/**
 * A cache for the layers of a model on a device, or on several. Memory is taken as sequences grow,
 * in slabs, and kept until close; only under the bound a pool gives up slabs without use to
 * another. The cache must outlive its sequences. One thread at a time for a cache and all its
 * sequences.
 */
kv_cache *kv_cache_open(device *d, const struct kv_layer_spec *layers, int n_layers,
                        const struct kv_cache_options *options, clm_error *err);
void kv_cache_close(kv_cache *c); /* NULL is fine */

int kv_cache_groups(const kv_cache *c);
int kv_cache_group_of(const kv_cache *c, int layer);
/* Where a layer, and all of its group, lies. */
device *kv_cache_device(const kv_cache *c, int layer);
device *kv_cache_group_device(const kv_cache *c, int group);
/* How device operations find a layer's keys and values; changes when the cache has grown. */
const struct kv_layer *kv_cache_layer(const kv_cache *c, int layer);
/* The same on the device of share number share - 1; 0: the first. */
const struct kv_layer *kv_cache_layer_of(const kv_cache *c, int share, int layer);

const struct kv_cache_options *kv_cache_kind(const kv_cache *c);

size_t kv_cache_bytes_used(const kv_cache *c); /* of blocks that some sequence holds */
size_t kv_cache_bytes_held(const kv_cache *c); /* taken from the device */
/* Of a token of a sequence inside all windows, quantised where the cache is. */
size_t kv_cache_bytes_per_token(const kv_cache *c);
/* Of a sequence of so many tokens, about: it takes whole blocks, and keeps some more. */
double kv_cache_bytes_of(const kv_cache *c, int length);
size_t kv_cache_state_bytes(const kv_cache *c); /* of a sequence, whatever its length */

kv_seq *kv_seq_open(kv_cache *c, clm_error *err);
void kv_seq_close(kv_seq *s); /* NULL is fine */
int kv_seq_length(const kv_seq *s);
/* [length], until the sequence changes; -1: not known, of a past that came from a file. */
const int32_t *kv_seq_tokens(const kv_seq *s);

/* A sequence with the same past, sharing its blocks; NULL with *err. Room that s has reserved stays
 * with s; CLM_ERR_ARG: the states are in that room, to be written in place. */
kv_seq *kv_seq_fork(const kv_seq *s, clm_error *err);

/**
 * Make room for n more tokens at the end: new blocks, and copies of shared ones that would be
 * written. CLM_ERR_FULL (the bound) and CLM_ERR_NOMEM leave the sequence as it was. After success
 * the tokens can be stored and kv_seq_commit be called without any failure.
 */
int kv_seq_reserve(kv_seq *s, int n, clm_error *err);

/* The same for n tokens that an empty sequence is to begin with, all of which will be committed at
 * once: of a window, room for what a continuation sees. Whole blocks of groups that map has need
 * none: they stay in it, and the sequence becomes an owner of it; NULL: there is none. After a
 * failure it can only be closed. */
int kv_seq_reserve_past(kv_seq *s, int n, kv_map *map, clm_error *err);

/* n of the reserved tokens are stored, 0 where there was no step: the length grows, windows let go
 * of what lies behind them and behind the KV_BLOCK_TOKENS tokens before. Room for the others is
 * given back. */
void kv_seq_commit(kv_seq *s, const int32_t *tokens, int n);

/* The step for which there was room has failed after it had begun: as before, but that the states
 * may be lost, where they were to be written in place. */
void kv_seq_fail(kv_seq *s);

/* The states are those after the last token. Else nothing can be appended, until the sequence is
 * trimmed to its trim point; what comes after that has to be evaluated again. */
bool kv_seq_is_whole(const kv_seq *s);

/* Steps of one token keep the state before them, for who goes back often. */
void kv_seq_keep_steps(kv_seq *s);

/* Exchange what two sequences of a cache hold. */
void kv_seq_swap(kv_seq *a, kv_seq *b);

/* The greatest length up to n, 0 <= n <= length, that the sequence can be trimmed to. That is n
 * itself without windows and recurrent mixers. Windows alone: n where n is at most KV_BLOCK_TOKENS
 * behind the greatest length that the sequence, or the one it was forked from, has had since it was
 * empty, and not before the past that it began with. Recurrent mixers: the nearest snapshot; there
 * is one before the last commit, unless this was of one token and there is one KV_STEPS_IN_PLACE
 * tokens before at most. */
int kv_seq_trim_point(const kv_seq *s, int n);

/* The same of a sequence that begins with a past of length tokens, as one from a file does. */
int kv_cache_past_point(const kv_cache *c, int length, int n);

/* Forget all but the first n tokens, and room reserved; -1 with CLM_ERR_ARG where n is not its own
 * trim point (the sequence is left as it was). */
int kv_seq_trim(kv_seq *s, int n, clm_error *err);

/* Let go of what only serves going back, snapshots of states; false: that has freed nothing. */
bool kv_seq_thin(kv_seq *s);

/* The states of a sequence, in device memory: after its last token (NULL: it has none, all zeros),
 * and where a step for which there is room reserved writes the next, which may be the same. Of the
 * cache's device, and of its second one. */
struct kv_state {
    const void *from;
    void *to;
};
struct kv_state kv_seq_state(const kv_seq *s);
struct kv_state kv_seq_rest_state(const kv_seq *s);
struct kv_state kv_seq_share_state(const kv_seq *s, int share); /* as of kv_cache_layer_of */

/* The table of a group, in host memory, reserved tokens included: block number b of the sequence is
 * blocks[b] where b < n_kept, else blocks[b - n_gone]; tokens before n_mapped are in a map, of
 * which mapped are the layers; see struct kv_sequence. */
struct kv_table {
    const int32_t *blocks;
    int n_blocks;
    int n_kept, n_gone;
    int n_mapped;
    const struct kv_layer *mapped;
};
struct kv_table kv_seq_table(const kv_seq *s, int group);

/* Where a token of a layer that is there lies: the block, in device memory, or the first of those
 * that lie side by side, its place there, and what describes them. */
struct kv_place {
    const struct kv_layer *at;
    void *block;
    int place;
};
struct kv_place kv_seq_place(const kv_seq *s, int layer, int position);

/* CLM_ERR_IO: a file that some of a sequence lies in has been changed; it can only be closed. */
int kv_seq_check(const kv_seq *s, clm_error *err);

/* What a sequence shares with others: blocks of so many pools. A block has a number below the limit
 * of its pool. */
int kv_cache_pools(const kv_cache *c);
size_t kv_cache_block_bytes(const kv_cache *c, int pool);
int kv_cache_block_limit(const kv_cache *c, int pool);
int kv_cache_block_refs(const kv_cache *c, int pool, int32_t block); /* sequences that hold it */

/* Call visit for every block that a sequence holds, snapshots included. */
void kv_seq_visit_blocks(const kv_seq *s, void (*visit)(void *ctx, int pool, int32_t block),
                         void *ctx);

#endif
