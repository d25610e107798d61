/* cli/prompt_cache.h: prompt caches as commands write and read them. */
#ifndef CLI_PROMPT_CACHE_H
#define CLI_PROMPT_CACHE_H

#include <limits.h>

#include "cli/conversation.h"
#include "cli/session.h"
#include "engine/cache_file.h"

/* Fingerprints of what text passes through on its way to a model, and where that lies. */
struct text_identity {
    char tokenizer[FINGERPRINT_SIZE], chat_template[FINGERPRINT_SIZE];
    char folder[PATH_MAX];
};

/* A command's origin of caches; model is what the user named, NULL: nothing. A folder is named so
 * that it is found from anywhere. The result points into *id, to model and to the session. */
struct cache_origin prompt_cache_origin(struct text_identity *id, const struct session *s,
                                        const struct chat_template *c, const char *model);

/* The model that a file was made with, as it was named then; NULL where it does not say. mem_free.
 * Errors of the file come up when it is loaded; *err is that the model is not there. */
char *prompt_cache_model(const char *path, clm_error *err);

/* A sequence for a command: that of the file, or an empty one where path is NULL. origin may be
 * NULL. */
kv_seq *prompt_cache_open(const struct session *s, const char *path,
                          const struct cache_origin *origin, clm_error *err);

#endif
