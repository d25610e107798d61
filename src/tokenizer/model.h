/* tokenizer/model.h: the "model" of a tokenizer.json, which turns a piece of text into ids. */
#ifndef TOKENIZER_MODEL_H
#define TOKENIZER_MODEL_H

#include "tokenizer/bpe.h"
#include "tokenizer/snapshot.h"
#include "tokenizer/unigram.h"

enum model_kind { MODEL_BPE, MODEL_UNIGRAM, MODEL_WORDPIECE, MODEL_WORDLEVEL };

/* WordPiece: the longest token first, those inside a word with a prefix. WordLevel: whole words. */
struct wordpiece {
    struct span prefix;
    size_t longest_word;  /* in characters; a longer one is unknown */
    size_t longest_token; /* in bytes */
    int32_t unk;          /* -1: the vocabulary lacks it */
};

struct model {
    enum model_kind kind;
    const struct snapshot *ready; /* what has the tables of vocab and bpe; NULL: they are ours */
    struct vocab vocab;
    struct bpe bpe;
    struct unigram unigram;
    struct wordpiece wordpiece;
};

struct model_scratch {
    struct bpe_scratch bpe;
    struct unigram_scratch unigram;
    struct strbuf text;
};

/* v is the "model" object; what was cut out of it is in bulk, or, read already, in ready, which
 * then must outlive m; else NULL. */
int text_model_open(struct model *m, const json *v, const struct bulk *bulk,
                    const struct snapshot *ready, struct reader *r);
void text_model_close(struct model *m); /* a zeroed one is fine */

/* Whether the model can take words as bytes that are meant in the byte-level alphabet; and the
 * decision, before the first model_encode. */
bool model_takes_bytes(const struct model *m);
int model_prepare(struct model *m, bool raw_bytes, struct reader *r);

/* s[0..n) is not empty. A failed allocation of out is left to the caller to notice. */
int model_encode(const struct model *m, struct model_scratch *scratch, const char *s, size_t n,
                 struct token_list *out, clm_error *err);
void model_scratch_release(struct model_scratch *scratch);

#endif
