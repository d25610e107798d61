/* engine/prefix_index.h: pasts that are kept because later prompts may begin with them.
 *
 * A radix tree over token ids finds, of all sequences that were put in, the one that goes on
 * farthest from what it has in common with a prompt: attention alone can go back to any token,
 * windows and recurrent mixers to where they have kept what they need (kv_seq_trim_point).
 *
 * What is kept is a fork: blocks are shared with the sequence that it was made of, and with others
 * that went on from it. A block that several kept sequences hold counts once. The bytes of the
 * index are those of all blocks that any of them holds.
 *
 * With a folder (engine/cache_folder.h) what has to go from memory is written there, and found
 * again, by this index or another. Of a file windows and recurrent mixers can go on only at the
 * end.
 */
#ifndef ENGINE_PREFIX_INDEX_H
#define ENGINE_PREFIX_INDEX_H

#include "base/log.h"
#include "engine/engine.h"

typedef struct prefix_index prefix_index;

/* Zero: no bound but that of the cache. What was not used for longest goes first. */
struct prefix_limits {
    size_t max_bytes;      /* of blocks in memory */
    int max_entries;       /* sequences that are kept in memory */
    const char *folder;    /* NULL: none */
    size_t folder_bytes;   /* of its files */
    const struct log *log; /* is told, once, when nothing can be written there; may be NULL */
};

/* For the sequences of one engine, which must outlive it. One thread at a time for both. Errors:
 * CLM_ERR_NOMEM, and those of cache_folder_open. */
prefix_index *prefix_index_open(engine *e, const struct prefix_limits *limits, clm_error *err);
void prefix_index_close(prefix_index *x); /* NULL is fine; writes nothing */

/* Write what is kept to the folder, if there is one, for those who come later. */
void prefix_index_write(prefix_index *x);

/**
 * A sequence to go on with prompt [n], n >= 1, from: it holds the first tokens of it, as many as
 * can be had of what is kept but at most n - 1, so that there is one to evaluate for its logits;
 * none, if nothing fits. It is the caller's and shares its blocks: the pool need not have room.
 *
 * *cut, when cut is not NULL: 0, or a length beyond that of the sequence which the prompt has in
 * common with something kept, but to which no kept sequence could go back. Where evaluation stops
 * there for a moment and the sequence is put in, later prompts with that beginning go on from it.
 *
 * NULL with CLM_ERR_NOMEM.
 */
kv_seq *prefix_index_lookup(prefix_index *x, const int32_t *prompt, int n, int *cut,
                            clm_error *err);

/**
 * Keep what a sequence holds. One that is empty, of tokens that are not known, or larger than the
 * whole index may be is not kept, which is no error. Kept sequences that it can take the place of
 * go. -1 with CLM_ERR_NOMEM: it is not kept.
 */
int prefix_index_insert(prefix_index *x, const kv_seq *s, clm_error *err);

/**
 * Let go of kept sequences, those not used for longest first, until at least so many bytes of
 * blocks are free for others. Those of which others hold all blocks stay, as that would free none;
 * but where there are no others one of them goes too, and whoever shares its last block need not
 * copy it to write there. False: nothing was let go of, nor can be.
 */
bool prefix_index_evict(prefix_index *x, size_t bytes);

/**
 * Keep the past of exactly these tokens, whatever the limits, until it is unpinned as often as it
 * was pinned. CLM_ERR_ARG: the index does not have it, insert it first; CLM_ERR_NOMEM.
 */
int prefix_index_pin(prefix_index *x, const int32_t *tokens, int n, clm_error *err);
void prefix_index_unpin(prefix_index *x, const int32_t *tokens, int n);

struct prefix_stats {
    int entries;  /* in memory */
    size_t bytes; /* of them */
    int files;    /* that are known, of this model */
};
struct prefix_stats prefix_index_stats(const prefix_index *x);

#endif
