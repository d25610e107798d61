/* models/fingerprint.c: which model this is, found without reading its weights. */
#include <string.h>

#include "base/file.h"
#include "models/model.h"

/* A config is small; the first bytes of a tensor tell those of another training apart. */
#define MAX_CONFIG ((size_t)64 << 20)
#define FIRST_BYTES 64

static void add_tensor(struct fingerprint *f, const struct checkpoint_tensor *t)
{
    int64_t type = t->type;

    fingerprint_add(f, t->name, strlen(t->name));
    fingerprint_add(f, &type, sizeof type);
    fingerprint_add(f, t->shape, (size_t)t->n_dims * sizeof t->shape[0]);
    fingerprint_add(f, t->data, t->size < FIRST_BYTES ? t->size : FIRST_BYTES);
}

static void add_tensors(struct fingerprint *f, const checkpoint *c)
{
    for (size_t i = 0; i < checkpoint_count(c); i++)
        add_tensor(f, checkpoint_at(c, i));
}

static int add_file(struct fingerprint *f, const char *path, clm_error *err)
{
    size_t size;
    char *text = file_read(path, MAX_CONFIG, &size, err);

    if (!text)
        return -1;
    fingerprint_add(f, text, size);
    mem_free(text);
    return 0;
}

static int add_adapter(struct fingerprint *f, const struct model *m, clm_error *err)
{
    char path[4096];

    if (file_join(path, sizeof path, m->adapter_path, "adapter_config.json", err) ||
        add_file(f, path, err))
        return -1;
    add_tensors(f, m->adapter);
    return 0;
}

int model_fingerprint(const struct model *m, char out[FINGERPRINT_SIZE], clm_error *err)
{
    struct fingerprint f = {0};

    out[0] = '\0';
    if (!m->weights)
        return 0;
    if (add_file(&f, config_path(m->config), err))
        return -1;
    add_tensors(&f, m->weights);
    if (m->adapter && add_adapter(&f, m, err))
        return -1;
    fingerprint_text(&f, out);
    return 0;
}
