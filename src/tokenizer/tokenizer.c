/* tokenizer/tokenizer.c: putting a tokenizer together from the files of a model directory. */
#include "tokenizer/tokenizer.h"

#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "tokenizer/older.h"
#include "tokenizer/tokenizer_config.h"
#include "tokenizer/tokenizer_parts.h"
#include "tokenizer/unicode.h"

void tokenizer_close(tokenizer *t)
{
    if (!t)
        return;
    added_close(&t->added);
    normalizer_close(&t->normalizer);
    pretokenizer_close(&t->pretokenizer);
    text_model_close(&t->model);
    postprocessor_close(&t->postprocessor);
    decoder_close(&t->decoder);
    effects_close(&t->effects);
    snapshot_close(&t->snapshot);
    arena_close(t->memory);
    mem_free(t);
}

static int read_added(tokenizer *t, const json *v, struct reader *r)
{
    int64_t next_id = added_next_id(&t->added, &t->model.vocab);

    r->part = "added_tokens";
    if (json_is_null(v))
        return 0;
    if (json_kind(v) != JSON_ARRAY)
        return fail(r->err, CLM_ERR_FORMAT, "%s: added_tokens is not a list", r->name);
    for (size_t i = 0; i < json_size(v); i++) {
        struct added_token token = {0};

        if (added_token_read(&token, json_at(v, i), r) ||
            added_add(&t->added, &token, &t->model.vocab, &next_id, r))
            return -1;
    }
    return 0;
}

/* Tokens that are searched in normalized text are normalized themselves. */
static int normalize_added(tokenizer *t, struct reader *r)
{
    struct normal_scratch scratch = {0};
    int rc = 0;

    for (size_t i = 0; i < t->added.count && !rc; i++) {
        struct added_token *token = &t->added.tokens[i];
        struct span normal;
        size_t head = 0;

        if (!token->ever_normalized || !t->normalizer.n_stages)
            continue;
        rc = normalize(&t->normalizer, &scratch, token->content.s, token->content.n, &normal, &head,
                       r->err);
        if (!rc) {
            token->normal = span_copy(r, normal.s, normal.n);
            rc = token->normal.s ? 0 : -1;
        }
    }
    normal_scratch_release(&scratch);
    return rc;
}

/* A byte level stage at the end leaves bytes to the model, if that can do with them. */
static bool ends_in_bytes(const tokenizer *t)
{
    const struct pretokenizer *p = &t->pretokenizer;

    return p->n_stages && p->stages[p->n_stages - 1].kind == PRE_BYTE_LEVEL &&
           model_takes_bytes(&t->model);
}

static int build(tokenizer *t, const json *file, const struct bulk *bulk,
                 const struct config_files *files, struct reader *r)
{
    const struct snapshot *ready = t->snapshot.data ? &t->snapshot : NULL;
    bool cleanup = false;

    if (text_model_open(&t->model, json_get(file, "model"), bulk, ready, r) ||
        normalizer_open(&t->normalizer, json_get(file, "normalizer"), t->table, r) ||
        pretokenizer_open(&t->pretokenizer, json_get(file, "pre_tokenizer"), t->table, r) ||
        postprocessor_open(&t->postprocessor, json_get(file, "post_processor"), r) ||
        read_added(t, json_get(file, "added_tokens"), r) ||
        tokenizer_config_read(t, files, &cleanup, r) || normalize_added(t, r) ||
        added_finish(&t->added, r))
        return -1;
    if (decoder_open(&t->decoder, json_get(file, "decoder"), cleanup, r) ||
        effects_open(&t->effects, tokenizer_vocab_size(t), r->err))
        return -1;
    t->pretokenizer.raw_bytes = ends_in_bytes(t);
    return model_prepare(&t->model, t->pretokenizer.raw_bytes, r);
}

/* The snapshot becomes the tokenizer's, or is closed. */
static tokenizer *build_new(const json *file, const struct bulk *bulk, struct snapshot *snapshot,
                            const struct config_files *files, const char *name, clm_error *err)
{
    tokenizer *t = mem_zeroed(1, sizeof *t);
    struct reader r = {.name = name, .part = "tokenizer", .err = err};

    if (t)
        t->memory = arena_open(0);
    if (t && t->memory)
        t->table = arena_array(t->memory, uint8_t, UNICODE_TABLE_SIZE);
    if (t)
        t->snapshot = *snapshot;
    else
        snapshot_close(snapshot);
    if (!t || !t->table) {
        tokenizer_close(t);
        return fail_null(err, CLM_ERR_NOMEM, "%s: no memory for the tokenizer", name);
    }
    unicode_table_fill(t->table);
    r.memory = t->memory;
    if (build(t, file, bulk, files, &r)) {
        tokenizer_close(t);
        return NULL;
    }
    return t;
}

/* From the text of tokenizer.json and the parsed files beside it. */
static tokenizer *build_from_text(const char *text, size_t size, const struct config_files *files,
                                  const char *name, const struct snapshot_place *place,
                                  clm_error *err)
{
    struct snapshot none = {0};
    struct bulk bulk;
    json *file = NULL;
    tokenizer *t = NULL;

    if (!bulk_split(&bulk, text, size, name, err))
        file = json_parse(bulk.rest.data ? bulk.rest.data : "", bulk.rest.size, name, err);
    if (file)
        t = build_new(file, &bulk, &none, files, name, err);
    if (t && place && t->model.kind == MODEL_BPE)
        snapshot_keep(place, text, size, (struct span){bulk.rest.data, bulk.rest.size},
                      &t->model.bpe);
    json_free(file);
    bulk_release(&bulk);
    return t;
}

/* The same from a snapshot; NULL where there is none, or anything is not as it should be. */
static tokenizer *build_from_snapshot(const char *text, size_t size,
                                      const struct config_files *files, const char *name,
                                      const struct snapshot_place *place)
{
    struct bulk none = {0};
    struct snapshot snapshot;
    clm_error ignored = {0};
    json *file;
    tokenizer *t = NULL;

    if (!snapshot_find(&snapshot, place, text, size))
        return NULL;
    file = json_parse(snapshot.rest.s, snapshot.rest.n, name, &ignored);
    if (file)
        t = build_new(file, &none, &snapshot, files, name, &ignored);
    else
        snapshot_close(&snapshot);
    json_free(file);
    return t;
}

tokenizer *tokenizer_parse(const char *text, size_t size, const char *config, size_t config_size,
                           const char *name, clm_error *err)
{
    json *second = config ? json_parse(config, config_size, name, err) : NULL;
    tokenizer *t = NULL;

    if (second || !config)
        t = build_from_text(text, size, &(struct config_files){.config = second}, name, NULL, err);
    json_free(second);
    return t;
}

/* A file that need not be there: 0 and NULL then. */
static int read_optional(json **v, const char *dir, const char *name, clm_error *err)
{
    char path[4096];

    *v = NULL;
    if (file_join(path, sizeof path, dir, name, err))
        return -1;
    if (!file_exists(path))
        return 0;
    *v = json_parse_file(path, err);
    return *v ? 0 : -1;
}

tokenizer *tokenizer_open(const char *dir, const struct log *log, clm_error *err)
{
    return tokenizer_open_kept(dir, &(struct snapshot_place){0}, log, err);
}

bool tokenizer_is_kept(const tokenizer *t)
{
    return t->snapshot.data;
}

tokenizer *tokenizer_open_kept(const char *dir, const struct snapshot_place *place,
                               const struct log *log, clm_error *err)
{
    char path[4096];
    struct file_map file = {0};
    json *config = NULL, *map = NULL, *added = NULL;
    struct config_files files = {0};
    struct strbuf text = {0};
    tokenizer *t = NULL;

    (void)log;
    if (file_join(path, sizeof path, dir, "tokenizer.json", err) ||
        read_optional(&config, dir, "tokenizer_config.json", err) ||
        read_optional(&map, dir, "special_tokens_map.json", err))
        goto cleanup;
    files.config = config;
    files.map = map;
    if (file_exists(path)) {
        if (file_map(&file, path, err))
            goto cleanup;
        t = build_from_snapshot((const char *)file.data, file.size, &files, path, place);
        if (!t)
            t = build_from_text((const char *)file.data, file.size, &files, path, place, err);
    } else {
        if (read_optional(&added, dir, "added_tokens.json", err) ||
            older_files_read(&text, dir, &files, path, sizeof path, err))
            goto cleanup;
        files.added = added;
        t = build_from_text(text.data, text.size, &files, path, NULL, err);
    }

cleanup:
    file_unmap(&file);
    strbuf_release(&text);
    json_free(config);
    json_free(map);
    json_free(added);
    return t;
}

size_t tokenizer_vocab_size(const tokenizer *t)
{
    size_t n = t->model.vocab.n_ids;

    for (size_t i = 0; i < t->added.count; i++) {
        if ((size_t)t->added.tokens[i].id >= n)
            n = (size_t)t->added.tokens[i].id + 1;
    }
    return n;
}

const char *tokenizer_token(const tokenizer *t, int32_t id, size_t *size)
{
    const struct added_token *added = added_by_id(&t->added, id);

    if (!added)
        return vocab_text(&t->model.vocab, id, size);
    if (size)
        *size = added->content.n;
    return added->content.s;
}

int32_t tokenizer_find(const tokenizer *t, const char *token, size_t size)
{
    const struct added_token *added = added_find(&t->added, token, size);

    return added ? added->id : vocab_find(&t->model.vocab, token, size);
}

bool tokenizer_is_special(const tokenizer *t, int32_t id)
{
    const struct added_token *added = added_by_id(&t->added, id);

    return added && added->special;
}

int32_t tokenizer_role(const tokenizer *t, enum token_role role)
{
    return t->roles[role];
}

void tokenizer_fingerprint(const tokenizer *t, char out[FINGERPRINT_SIZE])
{
    struct fingerprint f = {0};
    size_t n = tokenizer_vocab_size(t), size;

    for (size_t id = 0; id < n; id++) {
        const char *token = tokenizer_token(t, (int32_t)id, &size);

        fingerprint_add(&f, token ? token : "", token ? size : 0);
    }
    fingerprint_text(&f, out);
}

const char *tokenizer_tool_parser(const tokenizer *t)
{
    return t->tool_parser;
}
