/* tokenizer/spm.h: tokenizer.model, the file of SentencePiece, a protobuf message.
 *
 * ModelProto                          TrainerSpec (2)             NormalizerSpec (3)
 *   1  pieces: 1 text, 2 score,         3   model_type              2  precompiled_charsmap
 *      3 type                           24  whitespace as suffix    3  add_dummy_prefix
 *   2  trainer_spec                     35  byte_fallback           4  remove_extra_whitespaces
 *   3  normalizer_spec                  40, 41, 42  unk, bos, eos   5  escape_whitespaces
 */
#ifndef TOKENIZER_SPM_H
#define TOKENIZER_SPM_H

#include "base/strbuf.h"
#include "format/json.h"

/**
 * Append the tokenizer.json that says the same as data[0..n). Which special tokens encoding adds is
 * not said by the file but by config, a parsed tokenizer_config.json, or NULL.
 */
int spm_to_json(const uint8_t *data, size_t n, const json *config, const char *name,
                struct strbuf *out, clm_error *err);

#endif
