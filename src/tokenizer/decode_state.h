/* tokenizer/decode_state.h: what the stages of a decoder remember, for the files that run them. */
#ifndef TOKENIZER_DECODE_STATE_H
#define TOKENIZER_DECODE_STATE_H

#include "tokenizer/decode.h"

struct stage_state {
    size_t count;        /* strip: characters taken off the start; byte fallback: bytes looked at */
    bool started;        /* the first token has come; byte fallback of tokens: a run of bytes has */
    bool broken;         /* byte fallback: the run is no text, whatever follows */
    struct strbuf held;  /* kept back */
    struct strbuf text;  /* what is being passed on */
    struct strbuf other; /* for the steps of a cleanup */
};

struct decode_state {
    const struct decoder *d;
    struct matcher matcher;
    size_t n_stages; /* that tokens go through; those of the decoder, but in decode_alone */
    bool at_rest;    /* see decode_at_rest */
    struct strbuf *out;
    clm_error *err;
    struct stage_state stages[];
};

/* A token, or a fragment of the one token, comes to stage i; 0, or -1 with the error. Without
 * memory a buffer says so, which the callers of all look at in the end. */
int stage_push(struct decode_state *x, size_t i, const char *s, size_t n);
/* What stage i is passing on, or keeps, comes to the next as one token or fragment. */
int stage_push_text(struct decode_state *x, size_t i, const struct strbuf *text);
int stage_push_held(struct decode_state *x, size_t i);

int decode_byte_token(const char *s, size_t n); /* the byte of <0xNN>, or -1 */

/* The stages that bytes go through; stage i is one of the kind. */
int stage_byte_fallback(struct decode_state *x, size_t i, const char *s, size_t n);
int stage_byte_fallback_end(struct decode_state *x, size_t i);
int stage_byte_level(struct decode_state *x, size_t i, const char *s, size_t n);
int stage_byte_level_end(struct decode_state *x, size_t i);
int stage_lossy(struct decode_state *x, size_t i, const char *s, size_t n);
int stage_lossy_end(struct decode_state *x, size_t i);

#endif
