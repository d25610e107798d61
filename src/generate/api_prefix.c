/* generate/api_prefix.c: the public interface to what later prompts may begin with. */
#include "base/memory.h"
#include "generate/api.h"

clm_prefix_index *clm_prefix_index_open(clm_engine *e, const clm_prefix_options *options,
                                        clm_error *err)
{
    clm_prefix_options given = options ? *options : (clm_prefix_options){0};
    struct prefix_limits limits = {
        .max_bytes = given.max_bytes,
        .max_entries = given.max_entries,
        .folder = given.folder,
        .folder_bytes = given.folder_bytes,
        .log = &e->model->log,
    };
    clm_prefix_index *x;

    if (given.max_entries < 0)
        return fail_null(err, CLM_ERR_ARG, "a prefix index of %d entries", given.max_entries);
    x = mem_zeroed(1, sizeof *x);
    if (!x)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a prefix index");
    x->owner = e;
    x->index = prefix_index_open(e->engine, &limits, err);
    if (x->index)
        return x;
    mem_free(x);
    return NULL;
}

void clm_prefix_index_close(clm_prefix_index *x)
{
    if (!x)
        return;
    prefix_index_close(x->index);
    mem_free(x);
}

void clm_prefix_index_write(clm_prefix_index *x)
{
    prefix_index_write(x->index);
}

static int check_tokens(const int32_t *tokens, int n, clm_error *err)
{
    return tokens && n > 0 ? 0 : fail(err, CLM_ERR_ARG, "%d tokens; there must be one at least", n);
}

clm_sequence *clm_prefix_index_lookup(clm_prefix_index *x, const int32_t *prompt, int n,
                                      clm_error *err)
{
    if (check_tokens(prompt, n, err))
        return NULL;
    return clm_sequence_of(x->owner, prefix_index_lookup(x->index, prompt, n, NULL, err), err);
}

int clm_prefix_index_insert(clm_prefix_index *x, const clm_sequence *s, clm_error *err)
{
    if (s->owner != x->owner)
        return fail(err, CLM_ERR_ARG, "a sequence of another engine than the prefix index");
    return prefix_index_insert(x->index, s->seq, err);
}

int clm_prefix_index_pin(clm_prefix_index *x, const int32_t *tokens, int n, clm_error *err)
{
    return check_tokens(tokens, n, err) || prefix_index_pin(x->index, tokens, n, err) ? -1 : 0;
}

void clm_prefix_index_unpin(clm_prefix_index *x, const int32_t *tokens, int n)
{
    if (tokens)
        prefix_index_unpin(x->index, tokens, n);
}
