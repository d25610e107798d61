/* cli/logits_batch.h: the logits of several lists of tokens, evaluated together. */
#ifndef CLI_LOGITS_BATCH_H
#define CLI_LOGITS_BATCH_H

#include "cli/session.h"
#include "format/safetensors.h"

/* Rows [n, vocab_size] f32 of a file. */
struct checkpoint_tensor logits_tensor(const char *name, const float *rows, int n, int vocab_size);

/* Lines of {"ids": [...]} in a file, "-" is standard input, to the file out: tensor logits.<i> of
 * line i, counted from 0, has a row for each of its tokens. Empty lines do not count. */
int logits_batch(struct session *s, const char *path, const char *out, clm_error *err);

#endif
