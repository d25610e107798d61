/* tokenizer/encode.c: text to ids: added tokens, normalizer, pre-tokenizer, model, post-processor.
 */
#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/tokenizer_parts.h"

struct encoding {
    const tokenizer *t;
    struct token_list *out;
    clm_error *err;
    struct normal_scratch normal;
    struct pre_scratch pre;
    struct model_scratch model;
    struct added_parts outer; /* tokens found in the raw text */
    struct added_parts inner; /* tokens found in one normalized part of it */
};

static void encoding_release(struct encoding *x)
{
    normal_scratch_release(&x->normal);
    pre_scratch_release(&x->pre);
    model_scratch_release(&x->model);
    mem_free(x->outer.items);
    mem_free(x->inner.items);
}

/* Normalized text without added tokens, whose first head bytes stand for the first character. */
static int encode_words(struct encoding *x, const char *s, size_t n, size_t head)
{
    const struct pieces *pieces;

    if (pretokenize(&x->t->pretokenizer, &x->pre, s, n, head, &pieces, x->err))
        return -1;
    for (size_t i = 0; i < pieces->count; i++) {
        const struct piece *piece = &pieces->items[i];

        if (model_encode(&x->t->model, &x->model, pieces->text.data + piece->begin, piece->size,
                         x->out, x->err))
            return -1;
    }
    return 0;
}

/* Raw text without the added tokens that are not normalized. */
static int encode_part(struct encoding *x, const char *s, size_t n, size_t head)
{
    struct span text;

    if (normalize(&x->t->normalizer, &x->normal, s, n, &text, &head, x->err))
        return -1;
    x->inner.count = 0;
    if (added_split(&x->t->added, true, text.s, text.n, &x->inner, x->err))
        return -1;
    for (size_t i = 0; i < x->inner.count; i++) {
        const struct added_part *part = &x->inner.items[i];

        if (part->token >= 0)
            token_list_add(x->out, x->t->added.tokens[part->token].id);
        else if (encode_words(x, text.s + part->begin, part->end - part->begin,
                              head > part->begin ? head - part->begin : 0))
            return -1;
    }
    return 0;
}

static int encode_text(struct encoding *x, const char *s, size_t n)
{
    int32_t c;
    size_t first = n ? utf8_decode(s, n, &c) : 0;

    x->outer.count = 0;
    if (added_split(&x->t->added, false, s, n, &x->outer, x->err))
        return -1;
    for (size_t i = 0; i < x->outer.count; i++) {
        const struct added_part *part = &x->outer.items[i];

        if (part->token >= 0)
            token_list_add(x->out, x->t->added.tokens[part->token].id);
        else if (encode_part(x, s + part->begin, part->end - part->begin, part->begin ? 0 : first))
            return -1;
    }
    return 0;
}

static int encode_valid(struct encoding *x, const char *s, size_t n, bool add_special)
{
    const struct postprocessor *all = &x->t->postprocessor;
    const struct post_items *p = add_special ? &all->special : &all->plain;
    size_t begin = 0, count = 0;
    bool encoded = false;

    for (size_t i = 0; i < p->count; i++) {
        if (p->items[i] != POST_TEXT) {
            token_list_add(x->out, p->items[i]);
            continue;
        }
        if (!encoded) {
            begin = x->out->count;
            if (encode_text(x, s, n))
                return -1;
            count = x->out->count - begin;
            encoded = true;
            continue;
        }
        for (size_t k = 0; k < count && !x->out->failed; k++)
            token_list_add(x->out, x->out->ids[begin + k]);
    }
    return 0;
}

static int make_valid(struct strbuf *out, const char *s, size_t n, clm_error *err)
{
    for (size_t i = 0; i < n;) {
        int32_t c;
        size_t size = utf8_decode(s + i, n - i, &c);
        char text[UTF8_MAX];

        strbuf_add(out, text, utf8_encode(c, text));
        i += size;
    }
    return out->failed ? fail(err, CLM_ERR_NOMEM, "a text of %zu bytes", n) : 0;
}

int tokenizer_encode(const tokenizer *t, const char *text, size_t size, bool add_special,
                     struct token_list *out, clm_error *err)
{
    struct encoding x = {.t = t, .out = out, .err = err};
    struct strbuf valid = {0};
    size_t before = out->count;
    int rc = 0;

    if (size > INT32_MAX)
        return fail(err, CLM_ERR_ARG, "a text of %zu bytes: the most is 2 GiB", size);
    if (!utf8_valid(text, size)) {
        rc = make_valid(&valid, text, size, err);
        text = valid.data;
        size = valid.size;
    }
    rc = rc ? rc : encode_valid(&x, text, size, add_special);
    if (!rc && out->failed)
        rc = fail(err, CLM_ERR_NOMEM, "the tokens of a text of %zu bytes", size);
    if (rc) {
        out->count = before < out->count ? before : out->count;
        out->failed = false;
    }
    encoding_release(&x);
    strbuf_release(&valid);
    return rc;
}
