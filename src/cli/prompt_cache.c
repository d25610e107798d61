#include "cli/prompt_cache.h"

#include <string.h>

#include "base/fingerprint.h"
#include "base/memory.h"
#include "format/safetensors.h"

/* "" for a model that has none. */
static void print_template(char out[FINGERPRINT_SIZE], const struct chat_template *c)
{
    struct fingerprint f = {0};
    const char *text = c->template ? chat_templates_text(c->all, c->template) : NULL;

    out[0] = '\0';
    if (!text)
        return;
    fingerprint_add(&f, text, strlen(text));
    fingerprint_text(&f, out);
}

struct cache_origin prompt_cache_origin(struct text_identity *id, const struct session *s,
                                        const struct chat_template *c, const char *model)
{
    tokenizer_fingerprint(s->tokenizer, id->tokenizer);
    print_template(id->chat_template, c);
    return (struct cache_origin){
        .model = model ? model : s->dir,
        .tokenizer = id->tokenizer,
        .chat_template = id->chat_template,
    };
}

char *prompt_cache_model(const char *path)
{
    struct safetensors file;
    clm_error ignored = {0};
    char *model = NULL;

    if (safetensors_open(&file, path, &ignored))
        return NULL;
    for (size_t i = 0; i < file.n_metadata && !model; i++)
        if (!strcmp(file.metadata[2 * i], "0.model") && file.metadata[2 * i + 1][0])
            model = mem_strdup(file.metadata[2 * i + 1]);
    safetensors_close(&file);
    return model;
}

kv_seq *prompt_cache_open(const struct session *s, const char *path,
                          const struct cache_origin *origin, clm_error *err)
{
    return path ? cache_file_load(s->engine, path, origin, err)
                : kv_seq_open(engine_cache(s->engine), err);
}
