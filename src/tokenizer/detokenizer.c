/* tokenizer/detokenizer.c: ids to text, all at once and one by one.
 *
 * While the decoder is at rest, what an id adds is looked up; else, and where that depends on what
 * comes, its token goes through the decoder. */
#include "tokenizer/decode.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_parts.h"

#define NO_RUN SIZE_MAX
#define AHEAD 8 /* effects are fetched so many ids before they are needed */

const char *tokenizer_decoded(const tokenizer *t, int32_t id, size_t *n, bool *special)
{
    const struct added_token *added = added_by_id(&t->added, id);

    *special = added && added->skipped;
    if (!added)
        return vocab_text(&t->model.vocab, id, n);
    *n = added->decoded.n;
    return added->decoded.s;
}

/* The effect of an id, and its block; NULL with the error. */
static inline const struct effect *find_effect(const tokenizer *t, int32_t id,
                                               const struct effect_block **block, clm_error *err)
{
    static const struct effect absent;
    size_t i = (uint32_t)id;

    *block = NULL;
    if (i >= t->effects.n_ids)
        return &absent;
    *block = atomic_load_explicit(&t->effects.blocks[i / EFFECT_BLOCK], memory_order_acquire);
    if (!*block)
        *block = effects_make_block(t, i / EFFECT_BLOCK, err);
    return *block ? &(*block)->effects[i % EFFECT_BLOCK] : NULL;
}

static inline void fetch_effect(const tokenizer *t, int32_t id)
{
    size_t i = (uint32_t)id;
    const struct effect_block *block;

    if (i >= t->effects.n_ids)
        return;
    block = atomic_load_explicit(&t->effects.blocks[i / EFFECT_BLOCK], memory_order_acquire);
    if (block)
        __builtin_prefetch(&block->effects[i % EFFECT_BLOCK]);
}

int detokenizer_init(struct detokenizer *d, const tokenizer *t, bool skip_special, clm_error *err)
{
    *d = (struct detokenizer){.t = t, .skip_special = skip_special};
    d->state = decode_state_open(&t->decoder, err);
    return d->state ? 0 : -1;
}

void detokenizer_release(struct detokenizer *d)
{
    decode_state_close(d->state);
    *d = (struct detokenizer){0};
}

int detokenizer_add(struct detokenizer *d, int32_t id, struct strbuf *segment, clm_error *err)
{
    const struct effect_block *block;
    const struct effect *effect = find_effect(d->t, id, &block, err);
    size_t n = 0;
    bool special;
    const char *token;

    if (!effect)
        return -1;
    if (effect->kind == EFFECT_NONE || (effect->special && d->skip_special))
        return 0;
    if (effect->kind == EFFECT_TEXT && decode_at_rest(d->state)) {
        effect_add(d->t, id, block, effect, segment);
        return segment->failed ? fail(err, CLM_ERR_NOMEM, "no memory to decode tokens") : 0;
    }
    token = tokenizer_decoded(d->t, id, &n, &special);
    return decode_push(d->state, token, n, segment, err);
}

int detokenizer_finish(struct detokenizer *d, struct strbuf *segment, clm_error *err)
{
    return decode_finish(d->state, segment, err);
}

/* Append what ids add to a text at rest; *done of them, up to the first whose effect is another.
 * The text ends with the last id. */
static int add_effects(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                       struct strbuf *out, size_t *done, clm_error *err)
{
    size_t i, run = NO_RUN;

    for (i = 0; i < n; i++) {
        const struct effect_block *block;
        const struct effect *effect = find_effect(t, ids[i], &block, err);

        if (!effect)
            return -1;
        if (AHEAD < n - i)
            fetch_effect(t, ids[i + AHEAD]);
        if (effect->kind == EFFECT_NONE || (effect->special && skip_special))
            continue;
        if (effect->kind == EFFECT_BYTES) {
            run = run == NO_RUN ? out->size : run;
        } else if (run != NO_RUN) {
            decode_end_run(&t->decoder, out, run);
            run = NO_RUN;
        }
        if (effect->kind == EFFECT_OTHER)
            break;
        effect_add(t, ids[i], block, effect, out);
    }
    if (run != NO_RUN)
        decode_end_run(&t->decoder, out, run);
    *done = i;
    return 0;
}

int tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                     struct strbuf *out, clm_error *err)
{
    struct detokenizer d;
    int rc = detokenizer_init(&d, t, skip_special, err);

    for (size_t i = 0, done; i < n && !rc; i += done) {
        done = 0;
        if (decode_at_rest(d.state))
            rc = add_effects(t, ids + i, n - i, skip_special, out, &done, err);
        if (!done && !rc) {
            rc = detokenizer_add(&d, ids[i], out, err);
            done = 1;
        }
    }
    rc = rc ? rc : detokenizer_finish(&d, out, err);
    detokenizer_release(&d);
    return rc;
}
