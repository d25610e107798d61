/* tokenizer/added.c: finding added tokens with a trie, walked anew from each possible beginning. */
#include "tokenizer/added.h"

#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/unicode.h"

int64_t added_next_id(const struct added *a, const struct vocab *vocab)
{
    int64_t most = -1, n = (int64_t)vocab->n_entries;

    for (size_t i = 0; i < a->count; i++) {
        if (a->tokens[i].id > most)
            most = a->tokens[i].id;
    }
    return most >= 0 && (most >= n || n == 0) ? most + 1 : n;
}

static int reserve(struct added *a, struct reader *r)
{
    void *tokens = mem_grow(a->tokens, &a->capacity, a->count + 1, sizeof *a->tokens);

    if (!tokens)
        return no_memory(r);
    a->tokens = tokens;
    return 0;
}

int added_add(struct added *a, const struct added_token *token, const struct vocab *vocab,
              int64_t *next_id, struct reader *r)
{
    const struct added_token *known = added_find(a, token->content.s, token->content.n);
    int64_t id;

    if (!token->content.n)
        return 0;
    if (known) {
        struct added_token *same = &a->tokens[known - a->tokens];
        bool special = same->special || token->special;
        bool normalized = same->ever_normalized || token->normalized;

        id = same->id;
        *same = *token;
        same->id = (int32_t)id;
        same->special = special;
        same->ever_normalized = normalized;
        return 0;
    }
    id = vocab_find(vocab, token->content.s, token->content.n);
    if (id < 0)
        id = (*next_id)++;
    if (id > INT32_MAX)
        return fail(r->err, CLM_ERR_UNSUPPORTED, "%s: more than 2^31 tokens", r->name);
    if (reserve(a, r) ||
        vocab_add(&a->index, token->content.s, token->content.n, (int64_t)a->count, r->err) ||
        pair_map_set(&a->by_id, (uint32_t)id, 0, (uint32_t)a->count, 0, r->err))
        return -1;
    a->tokens[a->count] = *token;
    a->tokens[a->count].ever_normalized = token->normalized;
    a->tokens[a->count++].id = (int32_t)id;
    return 0;
}

int added_finish(struct added *a, struct reader *r)
{
    for (size_t i = 0; i < a->count; i++) {
        struct added_token *token = &a->tokens[i];
        const struct added_token *named;

        token->decoded = token->normal.s ? token->normal : token->content;
        if (!token->normalized || !token->normal.s)
            token->normal = token->content;
        if (!token->normal.n)
            return fail(r->err, CLM_ERR_UNSUPPORTED,
                        "%s: the normalizer leaves nothing of added token \"%.80s\"", r->name,
                        token->content.s);
        /* Whether it is left out is decided by the text that would be written. */
        named = added_find(a, token->decoded.s, token->decoded.n);
        token->skipped = named && named->special;
        if (trie_add(token->normalized ? &a->normalized : &a->raw, token->normal.s, token->normal.n,
                     (int32_t)i, r->err))
            return -1;
    }
    return 0;
}

void added_close(struct added *a)
{
    mem_free(a->tokens);
    vocab_release(&a->index);
    pair_map_release(&a->by_id);
    trie_close(&a->raw);
    trie_close(&a->normalized);
    *a = (struct added){0};
}

const struct added_token *added_by_id(const struct added *a, int32_t id)
{
    const struct pair_slot *slot = id < 0 ? NULL : pair_map_find(&a->by_id, (uint32_t)id, 0);

    return slot ? &a->tokens[slot->a] : NULL;
}

const struct added_token *added_find(const struct added *a, const char *s, size_t n)
{
    int32_t place = vocab_find(&a->index, s, n);

    return place < 0 ? NULL : &a->tokens[place];
}

static int add_part(struct added_parts *out, size_t begin, size_t end, int32_t token,
                    clm_error *err)
{
    if (out->count == out->capacity) {
        void *items = mem_grow(out->items, &out->capacity, out->count + 1, sizeof *out->items);

        if (!items)
            return fail(err, CLM_ERR_NOMEM, "a text of %zu parts", out->count);
        out->items = items;
    }
    out->items[out->count++] = (struct added_part){.begin = begin, .end = end, .token = token};
    return 0;
}

/* The character that ends at s + at, at > 0; its beginning goes to *begin. */
static int32_t character_before(const char *s, size_t at, size_t *begin)
{
    size_t i = at - 1;
    int32_t c;

    while (i > 0 && at - i < UTF8_MAX && (s[i] & 0xC0) == 0x80)
        i--;
    utf8_decode(s + i, at - i, &c);
    *begin = i;
    return c;
}

static bool is_single_word(const char *s, size_t n, size_t begin, size_t end)
{
    int32_t c;
    size_t unused;

    if (begin > 0 && unicode_is_word(character_before(s, begin, &unused)))
        return false;
    if (end == n)
        return true;
    utf8_decode(s + end, n - end, &c);
    return !unicode_is_word(c);
}

static size_t spaces_before(const char *s, size_t at)
{
    size_t begin;

    while (at > 0 && unicode_is_space(character_before(s, at, &begin)))
        at = begin;
    return at;
}

static size_t spaces_after(const char *s, size_t n, size_t at)
{
    int32_t c;

    while (at < n) {
        size_t size = utf8_decode(s + at, n - at, &c);

        if (!unicode_is_space(c))
            break;
        at += size;
    }
    return at;
}

int added_split(const struct added *a, bool normalized, const char *s, size_t n,
                struct added_parts *out, clm_error *err)
{
    const struct trie *t = normalized ? &a->normalized : &a->raw;
    size_t done = 0;

    for (size_t i = 0; i < n && (i = trie_next_begin(t, s, i, n)) < n;) {
        const struct added_token *token;
        size_t length, begin = i, end;
        int32_t place = -1;

        length = trie_longest(t, s + i, n - i, &place);
        if (!length) {
            i++;
            continue;
        }
        token = &a->tokens[place];
        i = end = begin + length;
        if (token->single_word && !is_single_word(s, n, begin, end))
            continue;
        if (token->lstrip) {
            begin = spaces_before(s, begin);
            begin = begin > done ? begin : done;
        }
        if (token->rstrip)
            end = spaces_after(s, n, end);
        if (done < begin && add_part(out, done, begin, -1, err))
            return -1;
        /* One that lies in the spaces an earlier one took along is dropped, if it reaches out to
         * the left for spaces itself: nothing is left of it. */
        if (begin < end && add_part(out, begin, end, place, err))
            return -1;
        done = end;
    }
    return done < n ? add_part(out, done, n, -1, err) : 0;
}
