/* tokenizer/effects.c: blocks of effects, made as they are needed. */
#include "tokenizer/effects.h"

#include <string.h>

#include "base/memory.h"
#include "tokenizer/tokenizer_parts.h"

static size_t block_count(const struct effects *p)
{
    return (p->n_ids + EFFECT_BLOCK - 1) / EFFECT_BLOCK;
}

int effects_open(struct effects *p, size_t n_ids, clm_error *err)
{
    *p = (struct effects){.n_ids = n_ids};
    p->blocks = mem_zeroed(block_count(p) + 1, sizeof *p->blocks);
    return p->blocks ? 0 : fail(err, CLM_ERR_NOMEM, "no memory to decode %zu tokens", n_ids);
}

void effects_close(struct effects *p)
{
    for (size_t i = 0; p->blocks && i < block_count(p); i++)
        mem_free(atomic_load(&p->blocks[i]));
    mem_free(p->blocks);
    *p = (struct effects){0};
}

struct long_text {
    uint32_t offset; /* in long_texts */
    uint32_t size;   /* more than EFFECT_LONGEST: it is not there */
};

_Static_assert(sizeof(struct effect) == 16, "an effect is a quarter of a line of the cache");
_Static_assert(sizeof(struct long_text) <= sizeof((struct effect){0}.bytes), "it fits an effect");

/* Each time anew, what would take too much memory. */
static void work_out(const tokenizer *t, int32_t id, struct strbuf *out)
{
    struct decode_state *x = decode_state_open(&t->decoder, NULL);
    enum effect_kind kind;
    size_t n;
    bool special;
    const char *token = tokenizer_decoded(t, id, &n, &special);

    out->failed |= !x || decode_alone(x, token, n, out, &kind, NULL);
    decode_state_close(x);
}

void effect_add_long(const tokenizer *t, int32_t id, const struct effect_block *b,
                     const struct effect *effect, struct strbuf *out)
{
    struct long_text where;

    if (effect->size <= sizeof effect->bytes) {
        strbuf_add(out, effect->bytes, effect->size);
        return;
    }
    memcpy(&where, effect->bytes, sizeof where);
    if (where.size > EFFECT_LONGEST)
        work_out(t, id, out);
    else
        strbuf_add(out, b->long_texts + where.offset, where.size);
}

/* text[begin..) is what the effect adds. It stays there if it is neither short nor too long. */
static void take_text(struct effect *effect, struct strbuf *text, size_t begin)
{
    size_t n = text->size - begin;
    bool is_short = n <= sizeof effect->bytes, too_long = n > EFFECT_LONGEST;
    struct long_text where = {.offset = (uint32_t)begin,
                              .size = too_long ? EFFECT_LONGEST + 1 : (uint32_t)n};

    effect->size = is_short ? (uint8_t)n : EFFECT_LONG;
    if (!is_short)
        memcpy(effect->bytes, &where, sizeof where);
    else if (n)
        memcpy(effect->bytes, text->data + begin, n);
    if (is_short || too_long)
        text->size = begin;
}

/* A token that the decoder fails with is left for it to fail with again, when it is asked for. */
static int make_effect(const tokenizer *t, struct decode_state *x, int32_t id,
                       struct effect *effect, struct strbuf *long_texts, clm_error *err)
{
    size_t n, begin = long_texts->size;
    bool special;
    const char *token = tokenizer_decoded(t, id, &n, &special);
    enum effect_kind kind = EFFECT_OTHER;
    clm_error why = {0};

    *effect = (struct effect){0};
    if (!token)
        return 0;
    if (decode_alone(x, token, n, long_texts, &kind, &why)) {
        if (why.code == CLM_ERR_NOMEM)
            return fail(err, why.code, "%s", why.message);
        kind = EFFECT_OTHER;
        long_texts->size = begin;
    }
    effect->kind = (uint8_t)kind;
    effect->special = special;
    take_text(effect, long_texts, begin);
    return 0;
}

static struct effect_block *make_block(const tokenizer *t, struct decode_state *x, size_t first,
                                       clm_error *err)
{
    struct effect effects[EFFECT_BLOCK];
    struct strbuf long_texts = {0};
    struct effect_block *b = NULL;
    int rc = 0;

    for (size_t k = 0; k < EFFECT_BLOCK && !rc; k++)
        rc = make_effect(t, x, (int32_t)(first + k), &effects[k], &long_texts, err);
    if (!rc)
        b = mem_alloc(sizeof *b + long_texts.size);
    if (!rc && !b)
        fail(err, CLM_ERR_NOMEM, "no memory to decode tokens");
    if (b) {
        memcpy(b->effects, effects, sizeof effects);
        if (long_texts.size)
            memcpy(b->long_texts, long_texts.data, long_texts.size);
    }
    strbuf_release(&long_texts);
    return b;
}

const struct effect_block *effects_make_block(const tokenizer *t, size_t block, clm_error *err)
{
    struct decode_state *x = decode_state_open(&t->decoder, err);
    struct effect_block *made, *there = NULL;

    made = x ? make_block(t, x, block * EFFECT_BLOCK, err) : NULL;
    decode_state_close(x);
    if (!made || atomic_compare_exchange_strong(&t->effects.blocks[block], &there, made))
        return made;
    mem_free(made); /* another thread was faster */
    return there;
}
