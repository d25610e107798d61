#include "generate/dry.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/memory.h"

int dry_init(struct dry *d, const struct dry_options *o, int vocab_size, clm_error *err)
{
    const struct dry_breakers *b = &o->breakers;
    size_t n = (size_t)vocab_size;

    *d = (struct dry){.o = *o, .vocab_size = vocab_size};
    d->o.breakers = (struct dry_breakers){0};
    d->first = mem_zeroed(n, sizeof *d->first);
    d->longest = mem_zeroed(n, sizeof *d->longest);
    d->o.breakers.items = mem_zeroed((size_t)b->n + 1, sizeof *b->items);
    for (size_t i = 0; i < b->tails.count; i++)
        token_list_add(&d->o.breakers.tails, b->tails.ids[i]);
    if (!d->first || !d->longest || !d->o.breakers.items || d->o.breakers.tails.failed)
        return fail(err, CLM_ERR_NOMEM, "no memory for DRY with %d tokens", vocab_size);
    if (b->n > 0)
        memcpy(d->o.breakers.items, b->items, (size_t)b->n * sizeof *b->items);
    d->o.breakers.n = b->n;
    for (int i = b->n - 1; i >= 0; i--)
        if (b->items[i].head >= 0 && b->items[i].head < vocab_size)
            d->first[b->items[i].head] = i + 1;
    return 0;
}

void dry_release(struct dry *d)
{
    dry_breakers_release(&d->o.breakers);
    mem_free(d->first);
    mem_free(d->longest);
    mem_free(d->repeats);
    *d = (struct dry){0};
}

/* Of history [n], the token i before its last. */
static int32_t from_end(const int32_t *history, size_t n, int i)
{
    return history[n - 1 - (size_t)i];
}

static bool has_token(const struct dry *d, int32_t token)
{
    return token >= 0 && token < d->vocab_size;
}

/* How many tokens the longest breaker has that begins with the token i before the last; 0: none
 * begins there. */
static int breaker_at(const struct dry *d, const int32_t *history, size_t n, int i)
{
    const struct dry_breakers *b = &d->o.breakers;
    int32_t head = from_end(history, n, i);
    int longest = 0, at = has_token(d, head) ? d->first[head] : 0;

    for (; at > 0 && at <= b->n && b->items[at - 1].head == head; at++) {
        const struct dry_breaker *item = &b->items[at - 1];
        bool same = item->n_tail <= i;

        for (int k = 0; same && k < item->n_tail; k++)
            same = b->tails.ids[item->tail + k] == from_end(history, n, i - 1 - k);
        if (same && item->n_tail + 1 > longest)
            longest = item->n_tail + 1;
    }
    return longest;
}

/* How many of the last tokens come after the last breaker. */
static int unbroken(const struct dry *d, const int32_t *history, size_t n, int window)
{
    for (int i = 0; i < window; i++) {
        int length = breaker_at(d, history, n, i);

        if (length > 0)
            return i + 1 - length;
    }
    return window;
}

static bool is_breaker(const struct dry *d, int32_t token)
{
    const struct dry_breakers *b = &d->o.breakers;

    for (int at = d->first[token]; at > 0 && at <= b->n && b->items[at - 1].head == token; at++)
        if (b->items[at - 1].n_tail == 0)
            return true;
    return false;
}

/* repeats[k], 0 < k < window: how many tokens the end of the history has in common with the end of
 * what is left of it without its last k; both within the window. The Z-function of the tokens read
 * backwards: linear time (Gusfield, Algorithms on Strings, 1.4). */
static void count_repeats(int *repeats, const int32_t *history, size_t n, int window)
{
    int begin = 0, end = 0; /* of the match that reaches farthest back */

    for (int k = 1; k < window; k++) {
        int length = 0;

        if (k < end)
            length = repeats[k - begin] < end - k ? repeats[k - begin] : end - k;
        while (k + length < window &&
               from_end(history, n, length) == from_end(history, n, k + length))
            length++;
        repeats[k] = length;
        if (k + length > end) {
            begin = k;
            end = k + length;
        }
    }
}

/* A float's largest exponent of the base: higher ones would overflow. */
static double penalty_of(const struct dry_options *o, int length)
{
    int limit = o->base > 1.000001 ? (int)(log((double)FLT_MAX) / log(o->base)) : 0;
    int exponent = length - o->allowed_length;

    if (limit > 0 && exponent > limit)
        exponent = limit;
    return fmin(o->multiplier * pow(o->base, exponent), (double)FLT_MAX / 4);
}

/* The token after each repetition gets the length of the longest one, and one more. */
static void note_longest(struct dry *d, const int32_t *history, size_t n, int window, int limit)
{
    for (int k = 1; k < window; k++) {
        int length = d->repeats[k] < limit ? d->repeats[k] : limit;
        int32_t next = from_end(history, n, k - 1);

        if (length >= d->o.allowed_length && has_token(d, next) && d->longest[next] <= length)
            d->longest[next] = length + 1;
    }
}

int dry_apply(struct dry *d, float *logits, const int32_t *history, size_t n, clm_error *err)
{
    size_t most = d->o.last_n < 0 ? INT32_MAX : (size_t)d->o.last_n;
    int window = (int)(n < most ? n : most), limit;

    if (window <= d->o.allowed_length)
        return 0;
    limit = unbroken(d, history, n, window);
    if (limit < d->o.allowed_length)
        return 0;
    if ((size_t)window > d->capacity) {
        size_t capacity = (size_t)window + (size_t)window / 2;
        int *grown = mem_resize(d->repeats, capacity * sizeof *grown);

        if (!grown)
            return fail(err, CLM_ERR_NOMEM, "no memory for DRY over %d tokens", window);
        d->repeats = grown;
        d->capacity = capacity;
    }
    count_repeats(d->repeats, history, n, window);
    note_longest(d, history, n, window, limit);
    for (int i = 0; i < window; i++) {
        int32_t t = from_end(history, n, i);

        if (!has_token(d, t) || d->longest[t] == 0)
            continue;
        if (!is_breaker(d, t))
            logits[t] -= (float)penalty_of(&d->o, d->longest[t] - 1);
        d->longest[t] = 0;
    }
    return 0;
}
