/* tokenizer/older.h: the files that checkpoints had before tokenizer.json. */
#ifndef TOKENIZER_OLDER_H
#define TOKENIZER_OLDER_H

#include "base/strbuf.h"
#include "tokenizer/tokenizer_config.h"

/**
 * Append the tokenizer.json that says the same as the files of a model directory:
 *   tokenizer.model            SentencePiece, or Llama 3's ranks
 *   vocab.json, merges.txt     byte-level BPE, split as GPT-2 or, by its class, Qwen 2
 *   qwen.tiktoken              Qwen 1's ranks
 * files->config is read; what the class that it names has of its own is set in files. path is set
 * to the file that was read, for messages. CLM_ERR_IO where there is none of them.
 */
int older_files_read(struct strbuf *out, const char *dir, struct config_files *files, char *path,
                     size_t path_size, clm_error *err);

#endif
