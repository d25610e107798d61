/* tokenizer/older.h: the files that checkpoints had before tokenizer.json. */
#ifndef TOKENIZER_OLDER_H
#define TOKENIZER_OLDER_H

#include "base/strbuf.h"
#include "format/json.h"

/**
 * Append the tokenizer.json that says the same as the files of a model directory:
 *   tokenizer.model            SentencePiece, or Llama 3's ranks
 *   vocab.json, merges.txt     byte-level BPE, split as GPT-2 or, by its class, Qwen 2
 *   qwen.tiktoken              Qwen 1's ranks
 * config is the parsed tokenizer_config.json or NULL; path is
 * set to the file that was read, for messages. CLM_ERR_IO where there is none of them.
 */
int older_files_read(struct strbuf *out, const char *dir, const json *config, char *path,
                     size_t path_size, clm_error *err);

#endif
