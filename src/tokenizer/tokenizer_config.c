/* tokenizer/tokenizer_config.c: what surrounds tokenizer.json. */
#include "tokenizer/tokenizer_config.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

int added_token_read(struct added_token *token, const json *v, struct reader *r)
{
    *token = (struct added_token){0};
    if (read_string(r, v, "content", &token->content) ||
        read_bool_or(r, v, "single_word", false, &token->single_word) ||
        read_bool_or(r, v, "lstrip", false, &token->lstrip) ||
        read_bool_or(r, v, "rstrip", false, &token->rstrip) ||
        read_bool_or(r, v, "special", false, &token->special))
        return -1;
    return read_bool_or(r, v, "normalized", !token->special, &token->normalized);
}

/* A token is given as its text or as an object with it. 1: read, 0: none, -1. */
static int read_role(struct added_token *token, const json *v, struct reader *r)
{
    size_t n;
    const char *s = json_string(v, &n);

    *token = (struct added_token){.special = true};
    if (s) {
        token->content = span_copy(r, s, n);
        return token->content.s ? 1 : -1;
    }
    if (json_kind(v) != JSON_OBJECT)
        return 0;
    if (added_token_read(token, v, r))
        return -1;
    token->special = true;
    return 1;
}

static int add_new(tokenizer *t, const struct added_token *token, int64_t *next_id,
                   struct reader *r)
{
    if (added_find(&t->added, token->content.s, token->content.n))
        return 0;
    return added_add(&t->added, token, &t->model.vocab, next_id, r);
}

static const char *const role_keys[TOKEN_ROLES] = {
    "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"};

static const json *look_up(const struct config_files *f, const char *key)
{
    const json *v = json_get(f->config, key);

    return json_is_null(v) ? json_get(f->map, key) : v;
}

static bool is_token(const json *v, const struct span *content)
{
    size_t n;
    const char *s = json_string(json_kind(v) == JSON_OBJECT ? json_get(v, "content") : v, &n);

    return s && n == content->n && !memcmp(s, content->s, n);
}

static bool is_listed(const json *list, const struct span *content)
{
    for (size_t i = 0; json_kind(list) == JSON_ARRAY && i < json_size(list); i++)
        if (is_token(json_at(list, i), content))
            return true;
    return false;
}

struct numbered {
    int64_t id;
    const json *token;
    const char *text; /* or this [size] */
    size_t size;
};

static int compare_numbered(const void *a, const void *b)
{
    const struct numbered *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

static bool has_role(const struct config_files *f, const struct span *content)
{
    for (size_t i = 0; i < TOKEN_ROLES; i++)
        if (is_token(look_up(f, role_keys[i]), content))
            return true;
    return false;
}

/* {"0": {"content": ...}, ...}: in order of number; but an id that a token has, or gets, is its
 * own. What is said here of a token overrides tokenizer.json, and a token with a role is special.
 */
static int read_added_decoder(tokenizer *t, const struct config_files *f, int64_t *next_id,
                              struct reader *r)
{
    const json *v = json_get(f->config, "added_tokens_decoder");
    struct numbered *list;
    size_t n = 0;
    int rc = 0;

    if (json_kind(v) != JSON_OBJECT)
        return 0;
    list = mem_zeroed(json_size(v) + 1, sizeof *list);
    if (!list)
        return no_memory(r);
    for (struct json_iter it = json_first(v); json_next(&it); n++)
        list[n] = (struct numbered){.id = strtoll(it.key, NULL, 10), .token = it.value};
    qsort(list, n, sizeof *list, compare_numbered);
    for (size_t i = 0; i < n && !rc; i++) {
        struct added_token token;

        rc = added_token_read(&token, list[i].token, r);
        if (!rc) {
            token.special |= has_role(f, &token.content);
            rc = added_add(&t->added, &token, &t->model.vocab, next_id, r);
        }
    }
    mem_free(list);
    return rc;
}

/* {text: id, ...}, before there was an added_tokens_decoder: in order of id as above. */
static int read_added_file(tokenizer *t, const struct config_files *f, int64_t *next_id,
                           struct reader *r)
{
    struct numbered *list;
    size_t n = 0;
    int rc = 0;

    if (json_kind(f->added) != JSON_OBJECT || json_get(f->config, "added_tokens_decoder"))
        return 0;
    list = mem_zeroed(json_size(f->added) + 1, sizeof *list);
    if (!list)
        return no_memory(r);
    for (struct json_iter it = json_first(f->added); json_next(&it); n++)
        list[n] =
            (struct numbered){.id = json_int(it.value, -1), .text = it.key, .size = it.key_size};
    qsort(list, n, sizeof *list, compare_numbered);
    for (size_t i = 0; i < n && !rc; i++) {
        struct added_token token = {.content = span_copy(r, list[i].text, list[i].size)};

        if (list[i].id < 0)
            rc = fail(r->err, CLM_ERR_FORMAT, "%s: added_tokens.json: \"%.80s\" has no id", r->name,
                      list[i].text);
        rc = rc || !token.content.s ? -1 : 0;
        token.special =
            !rc && (has_role(f, &token.content) ||
                    is_listed(look_up(f, "additional_special_tokens"), &token.content) ||
                    is_listed(look_up(f, "extra_special_tokens"), &token.content));
        token.normalized = !token.special;
        rc = rc ? rc : added_add(&t->added, &token, &t->model.vocab, next_id, r);
    }
    mem_free(list);
    return rc;
}

/* The token that a role has where no file names it; a null is a name too. */
static bool has_default(const struct config_files *f, enum token_role role)
{
    bool may = role == TOKEN_EOS || role == TOKEN_UNK || (role == TOKEN_BOS && f->default_bos);

    return may && f->end_of_text && !json_get(f->config, role_keys[role]) &&
           !json_get(f->map, role_keys[role]);
}

static int read_roles(tokenizer *t, const struct config_files *f, int64_t *next_id,
                      struct reader *r)
{
    /* New ids are given in this order. */
    static const enum token_role order[TOKEN_ROLES] = {TOKEN_BOS, TOKEN_EOS, TOKEN_UNK, TOKEN_SEP,
                                                       TOKEN_PAD, TOKEN_CLS, TOKEN_MASK};

    for (size_t i = 0; i < TOKEN_ROLES; i++) {
        struct added_token token = {.special = true};
        int rc = read_role(&token, look_up(f, role_keys[order[i]]), r);

        if (!rc && has_default(f, order[i])) {
            token.content = (struct span){f->end_of_text, strlen(f->end_of_text)};
            rc = 1;
        }
        if (rc < 0 || (rc && add_new(t, &token, next_id, r)))
            return -1;
        if (rc)
            t->roles[order[i]] = tokenizer_find(t, token.content.s, token.content.n);
    }
    return 0;
}

static int wrap(tokenizer *t, const struct config_files *f, struct reader *r)
{
    int32_t bos = t->roles[TOKEN_BOS], eos = t->roles[TOKEN_EOS];

    if (!json_bool(json_get(f->config, "add_bos_token"), false))
        bos = -1;
    if (!json_bool(json_get(f->config, "add_eos_token"), false))
        eos = -1;
    return f->wraps ? postprocessor_wrap(&t->postprocessor, bos, eos, r) : 0;
}

/* additional_special_tokens, as transformers 5 names it extra_special_tokens: a list or named. */
static int read_extra(tokenizer *t, const json *v, int64_t *next_id, struct reader *r)
{
    struct added_token token;
    int rc = 0;

    for (size_t i = 0; json_kind(v) == JSON_ARRAY && i < json_size(v) && rc >= 0; i++) {
        rc = read_role(&token, json_at(v, i), r);
        if (rc > 0)
            rc = add_new(t, &token, next_id, r);
    }
    if (json_kind(v) != JSON_OBJECT)
        return rc < 0 ? -1 : 0;
    for (struct json_iter it = json_first(v); rc >= 0 && json_next(&it);) {
        rc = read_role(&token, it.value, r);
        if (rc > 0)
            rc = add_new(t, &token, next_id, r);
    }
    return rc < 0 ? -1 : 0;
}

static int read_tool_parser(tokenizer *t, const json *v, struct reader *r)
{
    const char *name = json_string(v, NULL);

    t->tool_parser = name ? arena_strdup(t->memory, name) : NULL;
    return name && !t->tool_parser ? no_memory(r) : 0;
}

/* As transformers 5: what spoils the spaces of a BPE's text is asked for by a name that says so. */
static bool wants_cleanup(const json *config, enum model_kind kind)
{
    static const char forced[] =
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";

    return json_bool(json_get(config, "clean_up_tokenization_spaces"), false) &&
           (kind != MODEL_BPE || json_bool(json_get(config, forced), false));
}

int tokenizer_config_read(tokenizer *t, const struct config_files *files, bool *cleanup,
                          struct reader *r)
{
    const json *config = files->config;
    int64_t next_id = added_next_id(&t->added, &t->model.vocab);

    r->part = "tokenizer_config.json";
    for (size_t i = 0; i < TOKEN_ROLES; i++)
        t->roles[i] = -1;
    *cleanup = wants_cleanup(config, t->model.kind);
    if (read_added_decoder(t, files, &next_id, r) || read_added_file(t, files, &next_id, r) ||
        read_roles(t, files, &next_id, r) ||
        read_extra(t, look_up(files, "additional_special_tokens"), &next_id, r) ||
        read_extra(t, look_up(files, "extra_special_tokens"), &next_id, r) || wrap(t, files, r))
        return -1;
    return read_tool_parser(t, json_get(config, "tool_parser_type"), r);
}
