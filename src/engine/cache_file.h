/* engine/cache_file.h: what a sequence remembers, in a file: mlx-lm's prompt caches.
 *
 * A safetensors file as mlx_lm.models.cache.save_prompt_cache writes it. Names say where a number
 * belongs: entry of the list of caches, then place within its state. Metadata say
 *
 *     0.<key>       what the writer has to say: "model", ...
 *     1.<entry>     the class of each entry
 *     2.<i>.0, .1   names of tensors that stand for something else: a number, a text, nothing
 *
 * Files of clm say more: in metadata by which model, tokenizer and chat template they were made,
 * and in a tensor behind the last entry, where mlx-lm does not look, the tokens.
 */
#ifndef ENGINE_CACHE_FILE_H
#define ENGINE_CACHE_FILE_H

#include "engine/engine.h"

/* What the engine does not know of where a cache comes from. NULL: not known, or not to be
 * compared. */
struct cache_origin {
    const char *model;         /* as the user names it; never compared */
    const char *tokenizer;     /* fingerprints of these */
    const char *chat_template; /* "" where the model has none */
    /* Whoever writes the file replaces it whole: a new time of its last change changes nothing. */
    bool replaced_whole;
};

/* Metadata of clm: the first token that is quantised, where that is not the first of all. */
#define CACHE_QUANTIZED_FROM "0.clm_quantized_from"

/* How the caches of a file keep keys and values, as a cache of the model that goes on as they do
 * would have it: bits, group_size, quantised_from, max_tokens and n_first; zeros where they say
 * nothing, or nothing that can be read. */
struct kv_cache_options cache_file_kind(const struct model *m, const char *path);

/**
 * Write a sequence to a file, whole or not at all. Keys and values have the type of the cache, so
 * that what is loaded into one of the same type continues bit by bit.
 *
 * Errors: CLM_ERR_ARG (an empty sequence), CLM_ERR_UNSUPPORTED (a kind of model that files cannot
 * hold), CLM_ERR_IO, CLM_ERR_NOMEM.
 */
int cache_file_save(engine *e, const kv_seq *s, const char *path, const struct cache_origin *o,
                    clm_error *err);

/**
 * A sequence with what a file holds, by clm or by mlx-lm: KVCache, RotatingKVCache, ChunkedKVCache,
 * QuantizedKVCache, ArraysCache and CacheList of these. Numbers become those of the cache's type.
 * Tokens that the file does not tell are -1.
 *
 * Errors: CLM_ERR_FORMAT (damaged, of a model of other sizes, or made by another model, tokenizer
 * or chat template), CLM_ERR_UNSUPPORTED (a kind of cache that clm does not have), CLM_ERR_IO,
 * CLM_ERR_FULL, CLM_ERR_NOMEM.
 */
kv_seq *cache_file_load(engine *e, const char *path, const struct cache_origin *o, clm_error *err);
/* The same from memory; name stands for the path in messages. */
kv_seq *cache_file_parse(engine *e, const void *data, size_t size, const char *name,
                         const struct cache_origin *o, clm_error *err);

/* The tokens [*n] that a file tells, to be freed by mem_free; nothing else in it is looked at. NULL
 * with CLM_ERR_FORMAT (it tells none, or is damaged), CLM_ERR_IO, CLM_ERR_NOMEM. */
int32_t *cache_file_tokens(engine *e, const char *path, int *n, clm_error *err);

#endif
