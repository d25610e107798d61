/* tests/engine/prefixes.h: indexes of prefixes over models of the goldens. */
#ifndef PREFIXES_H
#define PREFIXES_H

#include "base/memory.h"
#include "engine/prefix_index.h"
#include "rig.h"

/* One of each kind of memory: all keys, windows, chunks, latents, states of several kinds beside
 * attention and alone, pooled tokens, embeddings that read the past. */
static const char *const kinds[] = {
    "llama",     "gemma3_text", "llama4",          "gpt_oss",      "deepseek_v3",         "mamba2",
    "falcon_h1", "qwen3_next",  "recurrent_gemma", "deepseek_v41", "longcat_flash_ngram",
};

static inline void open_kind(struct rig *r, const char *name)
{
    char folder[128];
    clm_error err = {0};

    snprintf(folder, sizeof folder, "goldens/models/%s", name);
    CHECK(shared_path(folder), "no %s", folder);
    CHECK(rig_open(r, shared_path(folder), 1, true, &err) == 0, "%s", err.message);
}

static inline prefix_index *open_index(struct rig *r, struct prefix_limits limits)
{
    clm_error err = {0};
    prefix_index *x = prefix_index_open(r->engine, &limits, &err);

    CHECK(x, "%s", err.message);
    return x;
}

static inline kv_seq *lookup(prefix_index *x, const int32_t *prompt, int n, int *cut)
{
    clm_error err = {0};
    kv_seq *s = prefix_index_lookup(x, prompt, n, cut, &err);

    CHECK(s, "%s", err.message);
    CHECK(kv_seq_length(s) < n, "%d of %d tokens", kv_seq_length(s), n);
    CHECK(!memcmp(kv_seq_tokens(s) ? kv_seq_tokens(s) : prompt, prompt,
                  (size_t)kv_seq_length(s) * sizeof *prompt),
          "other tokens");
    return s;
}

static inline void insert(prefix_index *x, const kv_seq *s)
{
    clm_error err = {0};

    CHECK(prefix_index_insert(x, s, &err) == 0, "%s", err.message);
}

static inline void close_all(struct rig *r, prefix_index *x)
{
    prefix_index_close(x);
    CHECK(kv_cache_bytes_used(engine_cache(r->engine)) == 0, "blocks are left");
    rig_close(r);
}

static inline void random_tokens(int32_t *tokens, int n, int vocab_size)
{
    for (int i = 0; i < n; i++)
        tokens[i] = (int32_t)random_below((size_t)vocab_size);
}

#endif
