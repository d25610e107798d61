/* tokenizer/effects.h: what each id adds to a text, worked out once by the decoder and remembered.
 *
 * The memory is filled in blocks of ids, when one of the block is first asked for, by any thread:
 * opening a tokenizer costs nothing then, and one that only encodes never has it. All blocks take
 * 16 bytes an id, and the texts that are longer. */
#ifndef TOKENIZER_EFFECTS_H
#define TOKENIZER_EFFECTS_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "base/strbuf.h"
#include "tokenizer/decode.h"

#define EFFECT_BLOCK 128
#define EFFECT_LONG UINT8_MAX
#define EFFECT_LONGEST 4096 /* bytes of a text that is remembered */

struct effect {
    uint8_t kind;    /* enum effect_kind */
    uint8_t special; /* left out with special tokens */
    uint8_t size;    /* EFFECT_LONG: bytes has where the text lies in its block, and its size */
    char bytes[13];
};

struct effect_block {
    struct effect effects[EFFECT_BLOCK];
    char long_texts[];
};

struct effects {
    size_t n_ids;
    struct effect_block *_Atomic *blocks; /* NULL until made */
};

struct tokenizer;

int effects_open(struct effects *p, size_t n_ids, clm_error *err);
void effects_close(struct effects *p); /* a zeroed one is fine */

/* The block of an id below n_ids; NULL with the error where memory is short. */
const struct effect_block *effects_make_block(const struct tokenizer *t, size_t block,
                                              clm_error *err);

/* Append the text or the bytes of an effect; the second is for those that nothing need be looked up
 * or allocated for, and knows when to call the first. */
void effect_add_long(const struct tokenizer *t, int32_t id, const struct effect_block *b,
                     const struct effect *effect, struct strbuf *out);

static inline void effect_add(const struct tokenizer *t, int32_t id, const struct effect_block *b,
                              const struct effect *effect, struct strbuf *out)
{
    if (effect->size > sizeof effect->bytes || out->capacity - out->size <= sizeof effect->bytes) {
        effect_add_long(t, id, b, effect, out);
        return;
    }
    memcpy(out->data + out->size, effect->bytes, sizeof effect->bytes);
    out->size += effect->size;
    out->data[out->size] = '\0';
}

#endif
