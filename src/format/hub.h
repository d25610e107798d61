/* format/hub.h: models in the local cache of the Hugging Face hub.
 *
 *     <cache>/models--<org>--<name>/refs/main             the commit of a branch or tag, a hash
 *     <cache>/models--<org>--<name>/snapshots/<commit>/   the model's files
 *
 * <cache> is $HF_HUB_CACHE, $HUGGINGFACE_HUB_CACHE (its older name), $HF_HOME/hub,
 * $XDG_CACHE_HOME/huggingface/hub or
 * ~/.cache/huggingface/hub, the first that is set.
 */
#ifndef FORMAT_HUB_H
#define FORMAT_HUB_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* The cache's folder, which need not exist. */
int hub_cache(char *out, size_t size, clm_error *err);

/* Could this be a name on the hub: "model" or "org/model", of letters, digits, '.', '_' and '-',
 * and perhaps "@" and a revision behind it? */
bool hub_is_name(const char *name);

/* The folder of a model's revision: a branch, a tag, a commit or how only one of them begins;
 * without one that of main, or the newest when the cache names no main. CLM_ERR_IO when the cache
 * does not hold it: the message says how to get it. */
int hub_find(char *out, size_t size, const char *name, clm_error *err);

/**
 * Call fn for every model of the cache that has a snapshot, in order of name: with the folder that
 * its plain name finds, then with each other snapshot as org/name@revision, a branch or tag that is
 * at it or else its commit. Stops at the first result that is not 0 and returns it; a cache that is
 * not there holds no models.
 */
int hub_each(int (*fn)(void *ctx, const char *name, const char *dir), void *ctx, clm_error *err);

#endif
