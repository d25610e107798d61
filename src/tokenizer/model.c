/* tokenizer/model.c: which model it is, its vocabulary, and the two models that are small. */
#include "tokenizer/model.h"

#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"

/* Files of old have no type; what else they say tells. */
static int find_kind(struct model *m, const json *v, struct reader *r)
{
    static const char *const names[] = {"BPE", "Unigram", "WordPiece", "WordLevel"};
    const char *type = json_string(json_get(v, "type"), NULL);

    if (!type) {
        if (json_get(v, "merges"))
            type = "BPE";
        else if (json_kind(json_get(v, "vocab")) == JSON_ARRAY)
            type = "Unigram";
        else if (json_get(v, "continuing_subword_prefix"))
            type = "WordPiece";
        else
            type = "WordLevel";
    }
    for (size_t i = 0; i < COUNT(names); i++) {
        if (!strcmp(type, names[i])) {
            m->kind = (enum model_kind)i;
            return 0;
        }
    }
    return unknown_type(r, type);
}

static int read_vocab_object(struct vocab *vocab, struct span text, struct reader *r)
{
    struct bulk_reader members;
    struct span key;
    int64_t id;
    int rc;

    if (!text.s)
        return fail(r->err, CLM_ERR_FORMAT, "%s: model: \"vocab\" is not an object", r->name);
    /* A member takes some 16 bytes, half of them the token. */
    if (vocab_init(vocab, text.n / 32, text.n / 2, r->name, r->err))
        return -1;
    members = bulk_start(text, r);
    while ((rc = bulk_next_member(&members, &key, &id)) > 0) {
        if (vocab_append(vocab, key.s, key.n, id, r->err)) {
            rc = -1;
            break;
        }
    }
    bulk_reader_release(&members);
    if (rc || vocab_index(vocab, r->err))
        return -1;
    if (vocab->twice < vocab->n_entries) {
        const struct vocab_entry *e = &vocab->entries[vocab->twice];

        return fail(r->err, CLM_ERR_FORMAT, "%s: model: token \"%.*s\" is there twice", r->name,
                    (int)(e->size < 80 ? e->size : 80), vocab->text + e->offset);
    }
    return 0;
}

static int read_vocab_list(struct vocab *vocab, const json *v, struct reader *r)
{
    if (json_kind(v) != JSON_ARRAY)
        return fail(r->err, CLM_ERR_FORMAT, "%s: model: \"vocab\" is not a list", r->name);
    if (vocab_init(vocab, json_size(v), json_size(v) * 8, r->name, r->err))
        return -1;
    for (size_t i = 0; i < json_size(v); i++) {
        size_t n;
        const char *s = json_string(json_at(json_at(v, i), 0), &n);

        if (!s)
            return fail(r->err, CLM_ERR_FORMAT, "%s: model: token %zu is not [text, score]",
                        r->name, i);
        if (vocab_add(vocab, s, n, (int64_t)i, r->err))
            return -1;
        if (vocab->n_entries != i + 1)
            return fail(r->err, CLM_ERR_UNSUPPORTED, "%s: model: token \"%.80s\" is there twice",
                        r->name, s);
    }
    return 0;
}

static int open_wordpiece(struct model *m, const json *v, struct reader *r)
{
    struct wordpiece *w = &m->wordpiece;
    struct span unk;

    if (read_string_or(r, v, "unk_token", m->kind == MODEL_WORDPIECE ? "[UNK]" : "<unk>", &unk) ||
        read_string_or(r, v, "continuing_subword_prefix", "##", &w->prefix) ||
        read_size_or(r, v, "max_input_chars_per_word", 100, &w->longest_word))
        return -1;
    w->unk = vocab_find(&m->vocab, unk.s, unk.n);
    for (size_t e = 0; e < m->vocab.n_entries; e++) {
        if (m->vocab.entries[e].size > w->longest_token)
            w->longest_token = m->vocab.entries[e].size;
    }
    return 0;
}

static int open_vocab(struct model *m, const json *v, const struct bulk *bulk, struct reader *r)
{
    if (m->ready && m->kind != MODEL_BPE)
        return fail(r->err, CLM_ERR_FORMAT, "%s: the snapshot of a BPE model is of another one",
                    r->name);
    if (m->ready)
        m->vocab = m->ready->vocab;
    else if (m->kind == MODEL_UNIGRAM)
        return read_vocab_list(&m->vocab, json_get(v, "vocab"), r);
    else
        return read_vocab_object(&m->vocab, bulk->vocab, r);
    return 0;
}

int text_model_open(struct model *m, const json *v, const struct bulk *bulk,
                    const struct snapshot *ready, struct reader *r)
{
    int rc = -1;

    *m = (struct model){.ready = ready};
    r->part = "model";
    if (json_kind(v) != JSON_OBJECT)
        return fail(r->err, CLM_ERR_FORMAT, "%s: no model: is it a tokenizer.json?", r->name);
    if (find_kind(m, v, r))
        return -1;
    if (open_vocab(m, v, bulk, r))
        goto cleanup;
    if (m->kind == MODEL_BPE)
        rc = bpe_open(&m->bpe, v, bulk->merges, ready ? &ready->merges : NULL, &m->vocab, r);
    else if (m->kind == MODEL_UNIGRAM)
        rc = unigram_open(&m->unigram, v, &m->vocab, r);
    else
        rc = open_wordpiece(m, v, r);

cleanup:
    if (rc)
        text_model_close(m);
    return rc;
}

/* What is not ours is not freed. */
static void give_back(struct model *m)
{
    const struct snapshot *s = m->ready;
    struct bpe *b = &m->bpe;

    if (s && !snapshot_not_lent(s, m->vocab.text))
        m->vocab = (struct vocab){0};
    if (s && !snapshot_not_lent(s, b->merges.slots))
        b->merges = (struct bpe_pairs){0};
    if (s && !snapshot_not_lent(s, b->char_ids)) {
        b->char_ids = NULL;
        b->limits = NULL;
        b->neighbours = NULL;
    }
}

void text_model_close(struct model *m)
{
    give_back(m);
    bpe_close(&m->bpe);
    unigram_close(&m->unigram);
    vocab_release(&m->vocab);
}

bool model_takes_bytes(const struct model *m)
{
    return m->kind == MODEL_BPE && !m->bpe.prefix.n && !m->bpe.suffix.n;
}

int model_prepare(struct model *m, bool raw_bytes, struct reader *r)
{
    r->part = "model";
    return m->kind == MODEL_BPE
               ? bpe_prepare(&m->bpe, raw_bytes, m->ready ? &m->ready->tables : NULL, r)
               : 0;
}

static int add_unknown_word(const struct model *m, struct token_list *out, clm_error *err)
{
    if (m->wordpiece.unk < 0)
        return fail(err, CLM_ERR_FORMAT,
                    "tokenizer: the text needs the unknown token, which the vocabulary lacks");
    token_list_add(out, m->wordpiece.unk);
    return 0;
}

/* The longest token at the beginning of s, which is inside a word unless first. */
static int32_t longest_token(const struct model *m, struct model_scratch *x, const char *s,
                             size_t *n, bool first, clm_error *err)
{
    size_t prefix = first ? 0 : m->wordpiece.prefix.n;

    strbuf_clear(&x->text);
    strbuf_add(&x->text, m->wordpiece.prefix.s, prefix);
    strbuf_add(&x->text, s, *n);
    if (x->text.failed)
        return fail(err, CLM_ERR_NOMEM, "a word of %zu bytes", *n);
    while (*n) {
        int32_t id = vocab_find(&m->vocab, x->text.data, prefix + *n);

        if (id >= 0)
            return id;
        do
            --*n;
        while (*n && (s[*n] & 0xC0) == 0x80);
    }
    return 0;
}

/* The first bytes of s, no more than most and no part of a character. */
static size_t at_most(const char *s, size_t n, size_t most)
{
    if (n <= most)
        return n;
    while (most && (s[most] & 0xC0) == 0x80)
        most--;
    return most;
}

static int wordpiece_encode(const struct model *m, struct model_scratch *x, const char *s, size_t n,
                            struct token_list *out, clm_error *err)
{
    size_t before = out->count, characters = 0;

    for (size_t i = 0; i < n; i++)
        characters += (s[i] & 0xC0) != 0x80;
    if (characters > m->wordpiece.longest_word)
        return add_unknown_word(m, out, err);
    for (size_t at = 0; at < n;) {
        size_t size = at_most(s + at, n - at, m->wordpiece.longest_token);
        int32_t id = longest_token(m, x, s + at, &size, at == 0, err);

        if (id < 0)
            return -1;
        if (!size) {
            out->count = out->count > before ? before : out->count;
            return add_unknown_word(m, out, err);
        }
        token_list_add(out, id);
        at += size;
    }
    return 0;
}

int model_encode(const struct model *m, struct model_scratch *x, const char *s, size_t n,
                 struct token_list *out, clm_error *err)
{
    int32_t id;

    switch (m->kind) {
    case MODEL_BPE:
        return bpe_encode(&m->bpe, &x->bpe, s, n, out, err);
    case MODEL_UNIGRAM:
        return unigram_encode(&m->unigram, &x->unigram, s, n, out, err);
    case MODEL_WORDPIECE:
        return wordpiece_encode(m, x, s, n, out, err);
    case MODEL_WORDLEVEL:
        id = vocab_find(&m->vocab, s, n);
        if (id < 0)
            return add_unknown_word(m, out, err);
        token_list_add(out, id);
        return 0;
    }
    return 0;
}

void model_scratch_release(struct model_scratch *x)
{
    bpe_scratch_release(&x->bpe);
    unigram_scratch_release(&x->unigram);
    strbuf_release(&x->text);
    *x = (struct model_scratch){0};
}
