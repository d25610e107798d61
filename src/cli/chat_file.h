/* cli/chat_file.h: a conversation in a file, {"system": "...", "messages": [...]}, and beside it,
 * in FILE.safetensors, what the model remembers of it. */
#ifndef CLI_CHAT_FILE_H
#define CLI_CHAT_FILE_H

#include "cli/chat.h"

/* cache: that too, where the model has read something; model as chosen, or NULL. CLM_ERR_ARG while
 * a call waits for its result. */
int chat_save(const struct chat *c, const char *path, bool cache, const char *model,
              clm_error *err);

/* In place of the conversation, which an error leaves as it is. cache: that too; when only that
 * fails, the conversation is there, to be read anew. */
int chat_load(struct chat *c, const char *path, bool cache, clm_error *err);

#endif
