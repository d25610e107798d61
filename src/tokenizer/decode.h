/* tokenizer/decode.h: the "decoder" of a tokenizer.json, as stages through which tokens flow.
 *
 * Tokenizers applies each decoder to the list of all tokens. Here each stage passes on what it is
 * sure of, and keeps the rest until the next token or the end; decoding a whole text and streaming
 * are the same code. Behind a stage that makes one token of all ("fused"), text comes in fragments
 * of whole characters.
 */
#ifndef TOKENIZER_DECODE_H
#define TOKENIZER_DECODE_H

#include "base/strbuf.h"
#include "tokenizer/pattern.h"

enum decode_kind {
    DECODE_REPLACE,       /* every match becomes content */
    DECODE_BYTE_FALLBACK, /* runs of <0xNN>: text, or U+FFFD for each where they are none */
    DECODE_FUSE,
    DECODE_STRIP,      /* up to start and stop characters content off each end of a token */
    DECODE_BYTE_LEVEL, /* characters are the bytes they stand for; DECODE_LOSSY always follows */
    DECODE_LOSSY,      /* bytes of all tokens as text, what is not UTF-8 as U+FFFD */
    DECODE_METASPACE,  /* the mark is a space; in the first token nothing, if one was prepended */
    DECODE_WORDPIECE,  /* a space before each token but the first, unless it has the prefix */
    DECODE_BPE,        /* the suffix is a space; at the end of the last token nothing */
    DECODE_CTC,        /* neighbours that are equal are one */
    DECODE_JOIN        /* a space between tokens: what having no decoder means */
};

struct decode_stage {
    enum decode_kind kind;
    bool fused;             /* what comes is one token in fragments */
    struct pattern pattern; /* replace */
    struct span content;    /* replace, strip */
    struct span mark;       /* metaspace, wordpiece: prefix, bpe: suffix, ctc: word delimiter */
    struct span pad;        /* ctc */
    size_t start, stop;     /* strip */
    bool drop_first;        /* metaspace */
    bool cleanup;           /* wordpiece, ctc */
};

struct decoder {
    struct decode_stage *stages;
    size_t n_stages;
    size_t bytes_stage; /* the one that alone looks at several tokens, at runs of bytes: those
                           before it act on each token for itself, those after it let all pass but
                           the beginning of the text; n_stages where there is none like that */
};

/* v may be null. cleanup: clean_up_tokenization_spaces of the config, where it applies. */
int decoder_open(struct decoder *d, const json *v, bool cleanup, struct reader *r);
void decoder_close(struct decoder *d);

/* The tokens so far of one text. */
struct decode_state;
struct decode_state *decode_state_open(const struct decoder *d, clm_error *err);
void decode_state_close(struct decode_state *x); /* NULL is fine */
int decode_push(struct decode_state *x, const char *token, size_t n, struct strbuf *out,
                clm_error *err);
/* Append what is left; the state is as new then. */
int decode_finish(struct decode_state *x, struct strbuf *out, clm_error *err);

/**
 * The decoder is at rest when it is past the beginning of the text and keeps nothing back: what a
 * token adds to the text then depends on no other, or it is bytes of a run.
 */
bool decode_at_rest(const struct decode_state *x);

enum effect_kind {
    EFFECT_NONE,  /* nothing at all: there is no token */
    EFFECT_TEXT,  /* this text; the decoder is at rest again */
    EFFECT_BYTES, /* these bytes; decode_end_run makes text of all of the run */
    EFFECT_OTHER  /* that depends on what comes */
};

/* Append what the token would add if the decoder were at rest, nothing for EFFECT_OTHER. For a
 * state that is used for nothing else. */
int decode_alone(struct decode_state *x, const char *token, size_t n, struct strbuf *out,
                 enum effect_kind *kind, clm_error *err);
/* out from begin on are the bytes of a run that has ended, as text follows or nothing: make them
 * text. */
void decode_end_run(const struct decoder *d, struct strbuf *out, size_t begin);

/* The replacements of "cleanup", in order: pairs of what is found and what it becomes. */
#define CLEANUP_COUNT 11
extern const char *const decode_cleanup[CLEANUP_COUNT][2];
#define CLEANUP_DO_NOT 7 /* the place of the one that only decoders have */

#endif
