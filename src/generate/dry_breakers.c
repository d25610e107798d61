#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "generate/dry.h"

/* llama.cpp's: of a breaker no more counts. */
#define MAX_BYTES 40
#define MAX_TAIL 20

const char *const dry_default_breakers[DRY_DEFAULT_BREAKERS] = {"\n", ":", "\"", "*"};

/* Breakers as they are found, in room that doubles. */
struct building {
    struct dry_breakers *out;
    size_t capacity;
    const tokenizer *t;
    struct token_list tokens;
    clm_error *err;
};

void dry_breakers_release(struct dry_breakers *b)
{
    mem_free(b->items);
    token_list_release(&b->tails);
    *b = (struct dry_breakers){0};
}

static int no_memory(clm_error *err)
{
    return fail(err, CLM_ERR_NOMEM, "no memory for sequence breakers");
}

static bool has(const struct dry_breakers *b, int32_t head, const int32_t *tail, int n)
{
    for (int i = b->n - 1; i >= 0; i--) {
        const struct dry_breaker *item = &b->items[i];

        if (item->head == head && item->n_tail == n &&
            (n == 0 || memcmp(b->tails.ids + item->tail, tail, (size_t)n * sizeof *tail) == 0))
            return true;
        if (item->head < head) /* in order until the texts' own tokens come */
            break;
    }
    return false;
}

static int add(struct building *g, int32_t head, const int32_t *tail, int n)
{
    struct dry_breakers *b = g->out;
    void *items;

    if (n > MAX_TAIL)
        n = MAX_TAIL;
    if (has(b, head, tail, n))
        return 0;
    items = mem_grow(b->items, &g->capacity, (size_t)b->n + 1, sizeof *b->items);
    if (!items)
        return no_memory(g->err);
    b->items = items;
    b->items[b->n++] = (struct dry_breaker){head, (int)b->tails.count, n};
    for (int i = 0; i < n; i++)
        token_list_add(&b->tails, tail[i]);
    return b->tails.failed ? no_memory(g->err) : 0;
}

static int encode(struct building *g, const char *text, size_t size)
{
    token_list_clear(&g->tokens);
    if (tokenizer_encode(g->t, text, size, false, &g->tokens, g->err))
        return -1;
    return g->tokens.failed ? no_memory(g->err) : 0;
}

/* The token of the given text, if it holds a breaker or ends with the beginning of one. */
static int try_token(struct building *g, int32_t id, const struct strbuf *token, const char *text,
                     size_t size)
{
    if (size == 0 || token->size == 0)
        return 0;
    if (memmem(token->data, token->size, text, size))
        return add(g, id, NULL, 0);
    for (size_t part = 1; part < size && part <= token->size; part++) {
        if (memcmp(token->data + token->size - part, text, part) != 0)
            continue;
        if (encode(g, text + part, size - part) || add(g, id, g->tokens.ids, (int)g->tokens.count))
            return -1;
    }
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct dry_breaker *x = a, *y = b;

    if (x->head != y->head)
        return x->head < y->head ? -1 : 1;
    return (x->tail > y->tail) - (x->tail < y->tail);
}

static int build(struct building *g, const char *const *texts, int n)
{
    struct strbuf token = {0};
    int rc = 0;

    for (size_t id = 0; id < tokenizer_vocab_size(g->t) && rc == 0; id++) {
        int32_t one = (int32_t)id;

        strbuf_clear(&token);
        rc = tokenizer_decode(g->t, &one, 1, false, &token, g->err);
        if (rc == 0 && token.failed)
            rc = no_memory(g->err);
        for (int i = 0; i < n && rc == 0; i++)
            rc = try_token(g, one, &token, texts[i], strnlen(texts[i], MAX_BYTES));
    }
    /* Tokens that are no whole characters have no text that could be compared. */
    for (int i = 0; i < n && rc == 0; i++) {
        rc = encode(g, texts[i], strnlen(texts[i], MAX_BYTES));
        if (rc == 0 && g->tokens.count > 0)
            rc = add(g, g->tokens.ids[0], g->tokens.ids + 1, (int)g->tokens.count - 1);
    }
    strbuf_release(&token);
    return rc;
}

int dry_breakers_build(struct dry_breakers *b, const tokenizer *t, const char *const *texts, int n,
                       clm_error *err)
{
    struct building g = {.out = b, .t = t, .err = err};
    int rc;

    *b = (struct dry_breakers){0};
    rc = build(&g, texts, n);
    token_list_release(&g.tokens);
    if (rc)
        dry_breakers_release(b);
    else if (b->n > 0)
        qsort(b->items, (size_t)b->n, sizeof *b->items, compare);
    return rc;
}
