/* tokenizer/postprocess.h: what a "post_processor" puts around the tokens of a text. */
#ifndef TOKENIZER_POSTPROCESS_H
#define TOKENIZER_POSTPROCESS_H

#include "tokenizer/reader.h"

#define POST_TEXT (-1) /* in the place of an id: the tokens of the text */

/* Ids and POST_TEXT in order. */
struct post_items {
    int32_t *items;
    size_t count;
};

struct postprocessor {
    struct post_items special, plain; /* with special tokens and without */
};

int postprocessor_open(struct postprocessor *p, const json *v, struct reader *r);
/* In place of what it has: these around the text; -1 is none. */
int postprocessor_wrap(struct postprocessor *p, int32_t bos, int32_t eos, struct reader *r);
void postprocessor_close(struct postprocessor *p);

#endif
