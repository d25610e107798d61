#include "generate/end_tokens.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/generation_config.h"

static void add_ids(struct token_list *out, const int *ids, int n)
{
    for (int i = 0; i < n; i++)
        token_list_add(out, ids[i]);
}

/* eos_token_id of config.json, in wrappers that of the text model inside. */
static int add_from_config(struct token_list *out, const char *dir, clm_error *err)
{
    char path[PATH_MAX];
    const int *ids;
    config *c, *text;
    int n, rc;

    if (file_join(path, sizeof path, dir, "config.json", err))
        return -1;
    if (!file_exists(path))
        return 0;
    c = config_open(path, NULL, err);
    if (!c)
        return -1;
    text = config_has(c, "eos_token_id") ? NULL : config_object(c, "text_config");
    n = config_int_or_ints(text ? text : c, "eos_token_id", &ids);
    add_ids(out, ids, n);
    rc = config_done(c, err);
    config_close(c);
    return rc;
}

int end_tokens_load(struct token_list *out, const char *dir, const tokenizer *t, clm_error *err)
{
    struct generation_config g;
    int32_t own = tokenizer_role(t, TOKEN_EOS);
    int rc = 0;

    if (generation_config_open(&g, dir, err))
        return -1;
    add_ids(out, g.eos_token_ids, g.n_eos_token_ids);
    if (g.n_eos_token_ids == 0)
        rc = add_from_config(out, dir, err);
    generation_config_close(&g);
    if (own >= 0)
        token_list_add(out, own);
    if (out->failed)
        return fail(err, CLM_ERR_NOMEM, "no memory for the end tokens");
    return rc;
}

int end_tokens_add(struct token_list *out, const tokenizer *t, const char *token, clm_error *err)
{
    char *end;
    long long id;

    errno = 0;
    id = strtoll(token, &end, 10);
    if (end == token || *end || errno)
        id = tokenizer_find(t, token, strlen(token));
    if (id < 0 || id > INT32_MAX || !tokenizer_token(t, (int32_t)id, NULL))
        return fail(err, CLM_ERR_ARG, "\"%s\" is not a token of this model", token);
    token_list_add(out, (int32_t)id);
    return out->failed ? fail(err, CLM_ERR_NOMEM, "no memory for the end tokens") : 0;
}

int end_tokens_for_xtc(struct token_list *out, const tokenizer *t,
                       const struct token_list *end_tokens, clm_error *err)
{
    if (tokenizer_encode(t, "\n", 1, true, out, err))
        return -1;
    for (size_t i = 0; i < end_tokens->count; i++)
        token_list_add(out, end_tokens->ids[i]);
    return out->failed ? fail(err, CLM_ERR_NOMEM, "no memory for the end tokens") : 0;
}

bool end_tokens_have(const struct token_list *list, int32_t id)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->ids[i] == id)
            return true;
    return false;
}
