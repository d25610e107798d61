/* tokenizer/detokenizer.c: ids to text, all at once and one by one. */
#include "tokenizer/decode.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_parts.h"

/* The text that an id goes into the decoder as, or NULL for one that is left out. */
static const char *decoded_text(const tokenizer *t, int32_t id, bool skip_special, size_t *n)
{
    const struct added_token *added = added_by_id(&t->added, id);

    if (!added)
        return vocab_text(&t->model.vocab, id, n);
    if (skip_special && added->skipped)
        return NULL;
    *n = added->decoded.n;
    return added->decoded.s;
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
    size_t n = 0;
    const char *text = decoded_text(d->t, id, d->skip_special, &n);

    return text ? decode_push(d->state, text, n, segment, err) : 0;
}

int detokenizer_finish(struct detokenizer *d, struct strbuf *segment, clm_error *err)
{
    return decode_finish(d->state, segment, err);
}

int tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                     struct strbuf *out, clm_error *err)
{
    struct detokenizer d;
    int rc = detokenizer_init(&d, t, skip_special, err);

    for (size_t i = 0; i < n && !rc; i++)
        rc = detokenizer_add(&d, ids[i], out, err);
    rc = rc ? rc : detokenizer_finish(&d, out, err);
    detokenizer_release(&d);
    return rc;
}
