#include "cli/prompt_cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/fingerprint.h"
#include "base/memory.h"
#include "cli/locate.h"
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

/* Names of the hub stay as they are, and folders that begin at the root. */
static const char *name_model(struct text_identity *id, const struct session *s, const char *model)
{
    const char *name = model ? model : s->dir;

    if (name[0] == '/' || !file_is_dir(name) || !realpath(name, id->folder))
        return name;
    return id->folder;
}

struct cache_origin prompt_cache_origin(struct text_identity *id, const struct session *s,
                                        const struct chat_template *c, const char *model)
{
    tokenizer_fingerprint(s->tokenizer, id->tokenizer);
    print_template(id->chat_template, c);
    return (struct cache_origin){
        .model = name_model(id, s, model),
        .tokenizer = id->tokenizer,
        .chat_template = id->chat_template,
    };
}

char *prompt_cache_model(const char *path, clm_error *err)
{
    struct safetensors file;
    char folder[PATH_MAX];
    clm_error ignored = {0};
    char *model = NULL;

    if (safetensors_open(&file, path, &ignored))
        return NULL;
    for (size_t i = 0; i < file.n_metadata && !model; i++)
        if (!strcmp(file.metadata[2 * i], "0.model") && file.metadata[2 * i + 1][0])
            model = mem_strdup(file.metadata[2 * i + 1]);
    safetensors_close(&file);
    if (model && locate_model(folder, sizeof folder, model, &ignored))
        fail(err, CLM_ERR_IO,
             "%s was made with the model %s, which is not there; name it with --model", path,
             model);
    return model;
}

kv_seq *prompt_cache_open(const struct session *s, const char *path,
                          const struct cache_origin *origin, clm_error *err)
{
    return path ? cache_file_load(s->engine, path, origin, err)
                : kv_seq_open(engine_cache(s->engine), err);
}
