/* tokenizer/unigram.c: Viterbi over the tokens that begin at each character.
 *
 * A character that is no token of its own may be the unknown token, at the cost of the worst score
 * less ten. Of equal scores the first one found wins, which is the one that begins earlier.
 */
#include "tokenizer/unigram.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"

#define UNK_PENALTY 10.0

static int reserve(struct unigram_scratch *x, size_t n, clm_error *err)
{
    void *nodes = mem_grow(x->nodes, &x->capacity, n, sizeof *x->nodes);

    if (!nodes)
        return fail(err, CLM_ERR_NOMEM, "a text of %zu bytes", n);
    x->nodes = nodes;
    return 0;
}

void unigram_scratch_release(struct unigram_scratch *x)
{
    mem_free(x->nodes);
    *x = (struct unigram_scratch){0};
}

static void offer(struct unigram_node *node, double score, size_t begin, int32_t id)
{
    if (node->begin < 0 || score > node->score)
        *node = (struct unigram_node){.score = score, .begin = (int32_t)begin, .id = id};
}

static int forward(const struct unigram *u, struct unigram_node *nodes, const char *s, size_t n,
                   clm_error *err)
{
    for (size_t i = 0; i < n;) {
        int32_t c;
        size_t size = utf8_decode(s + i, n - i, &c);
        uint32_t node = 0;
        bool single = false;

        for (size_t k = i; k < n && trie_step(&u->trie, &node, (unsigned char)s[k]); k++) {
            int32_t id = u->trie.ends[node];

            if (id < 0)
                continue;
            offer(&nodes[k + 1], nodes[i].score + u->scores[id], i, id);
            single |= k + 1 - i == size;
        }
        if (!single && u->unk < 0)
            return fail(err, CLM_ERR_FORMAT,
                        "tokenizer: the text needs the unknown token, which the model lacks");
        if (!single)
            offer(&nodes[i + size], nodes[i].score + u->unk_score, i, u->unk);
        i += size;
    }
    return 0;
}

/* The id of a run of unknown characters: its text may happen to be a token, or be told by bytes. */
static void add_unknown(const struct unigram *u, const char *s, size_t n, struct token_list *out)
{
    int32_t id = vocab_find(u->vocab, s, n);
    size_t known = 0;

    while (id < 0 && u->byte_fallback && known < n && u->fallback_ids[(unsigned char)s[known]] >= 0)
        known++;
    if (id < 0 && u->byte_fallback && known == n) {
        for (size_t i = 0; i < n; i++)
            token_list_add(out, u->fallback_ids[(unsigned char)s[i]]);
        return;
    }
    token_list_add(out, id >= 0 ? id : u->unk);
}

/* The path was found from its end; walked back, each node is made to lead forward instead. */
static void write_path(const struct unigram *u, struct unigram_node *nodes, const char *s, size_t n,
                       struct token_list *out)
{
    int32_t end = (int32_t)n, next_end = -1, id = -1;

    while (end >
           0) { /* nodes[begin] takes over the end and the id of the token that begins there */
        int32_t begin = nodes[end].begin, its_id = nodes[end].id;

        nodes[end].begin = next_end;
        nodes[end].id = id;
        next_end = end;
        id = its_id;
        end = begin;
    }
    nodes[0].begin = next_end;
    nodes[0].id = id;
    for (int32_t at = 0; at >= 0 && (size_t)at < n;) {
        int32_t begin = at;

        if (nodes[at].id != u->unk) {
            token_list_add(out, nodes[at].id);
            at = nodes[at].begin;
            continue;
        }
        while ((size_t)at < n && nodes[at].id == u->unk)
            at = nodes[at].begin;
        add_unknown(u, s + begin, (size_t)(at - begin), out);
    }
}

int unigram_encode(const struct unigram *u, struct unigram_scratch *x, const char *s, size_t n,
                   struct token_list *out, clm_error *err)
{
    if (reserve(x, n + 1, err))
        return -1;
    for (size_t i = 0; i <= n; i++)
        x->nodes[i] = (struct unigram_node){.begin = -1};
    if (forward(u, x->nodes, s, n, err))
        return -1;
    write_path(u, x->nodes, s, n, out);
    return 0;
}

static int read_scores(struct unigram *u, const json *list, struct reader *r)
{
    double least = HUGE_VAL;

    u->scores = mem_zeroed(u->vocab->n_ids + 1, sizeof *u->scores);
    if (!u->scores)
        return no_memory(r);
    for (size_t i = 0; i < json_size(list); i++) {
        size_t n;
        const json *item = json_at(list, i);
        const char *s = json_string(json_at(item, 0), &n);
        double score = json_real(json_at(item, 1), (double)NAN);

        if (!isfinite(score))
            return fail(r->err, CLM_ERR_FORMAT, "%s: model: token %zu has no score", r->name, i);
        least = score < least ? score : least;
        u->scores[vocab_find(u->vocab, s, n)] = score;
        if (trie_add(&u->trie, s, n, vocab_find(u->vocab, s, n), r->err))
            return -1;
    }
    u->unk_score = least - UNK_PENALTY;
    return 0;
}

int unigram_open(struct unigram *u, const json *model, const struct vocab *vocab, struct reader *r)
{
    static const char digits[] = "0123456789ABCDEF";
    const json *list;
    size_t unk;

    *u = (struct unigram){.vocab = vocab};
    if (read_array(r, model, "vocab", &list) ||
        read_bool_or(r, model, "byte_fallback", false, &u->byte_fallback) ||
        read_size_or(r, model, "unk_id", SIZE_MAX, &unk))
        return -1;
    if (unk != SIZE_MAX && unk >= json_size(list))
        return fail(r->err, CLM_ERR_FORMAT, "%s: model: unk_id %zu of %zu tokens", r->name, unk,
                    json_size(list));
    u->unk = unk == SIZE_MAX ? -1 : (int32_t)unk;
    for (int byte = 0; byte < 256; byte++) {
        char text[] = {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};

        u->fallback_ids[byte] = vocab_find(vocab, text, sizeof text);
    }
    if (read_scores(u, list, r)) {
        unigram_close(u);
        return -1;
    }
    return 0;
}

void unigram_close(struct unigram *u)
{
    trie_close(&u->trie);
    mem_free(u->scores);
    u->scores = NULL;
}
