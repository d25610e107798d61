/* engine/cache_folder.h: prompt cache files in a folder, of at most so many bytes together.
 *
 * Any number of models and processes may share a folder. A file's name says which model it is of,
 * how that keeps its numbers, and of which tokens:
 *
 *     clm-<16 digits: model, exact or not, types of the cache>-<16 digits: tokens>.safetensors
 *
 * Files appear whole (engine/cache_file.h), under a name that the same contents have always, and
 * may go at any time: whoever needs room removes those that were used longest ago, of whatever
 * model, which the times of their last change tell. Files with other names are left alone, those
 * that cannot be read too, until their time has come.
 */
#ifndef ENGINE_CACHE_FOLDER_H
#define ENGINE_CACHE_FOLDER_H

#include "engine/engine.h"

typedef struct cache_folder cache_folder;

/* A file of the engine's model. Its owner is what found has returned, NULL: not to be used. */
struct folder_file {
    char name[64];
    void *owner;
    bool seen;
};

/**
 * The folder for caches of an engine, made where there is none. max_bytes 0: no bound. Errors:
 * CLM_ERR_IO; CLM_ERR_ARG for a model of random weights; CLM_ERR_NOMEM.
 */
cache_folder *cache_folder_open(engine *e, const char *path, size_t max_bytes, clm_error *err);
void cache_folder_close(cache_folder *f); /* NULL is fine */

/* Whom to tell what others have done to the folder. */
struct folder_watch {
    void *ctx;
    /* There is a new file, with the tokens [n]. Returns its owner. */
    void *(*found)(void *ctx, struct folder_file *file, const int32_t *tokens, int n);
    /* A file with this owner, which is not NULL, is no longer there; file is freed after it. */
    void (*gone)(void *ctx, void *owner);
};

/* Tell what is new since the last time. A folder that cannot be read has no files. */
void cache_folder_look(cache_folder *f, const struct folder_watch *w);

/**
 * Write a sequence, whose tokens are known, of about so many bytes, and make room for it before.
 * NULL with CLM_ERR_FULL (larger than the folder may be), or as cache_file_save says.
 */
struct folder_file *cache_folder_save(cache_folder *f, const kv_seq *s, size_t bytes, void *owner,
                                      clm_error *err);

/* As cache_file_load; the file then counts as used. */
kv_seq *cache_folder_load(cache_folder *f, const struct folder_file *file, clm_error *err);

/* A file is not to be used any more, but may be replaced: it has no owner from now on. */
void cache_folder_shun(struct folder_file *file);

/* Remove a file; file is freed. */
void cache_folder_remove(cache_folder *f, struct folder_file *file);

#endif
