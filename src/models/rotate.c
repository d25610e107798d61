/* models/rotate.c: matrices whose inputs are turned first: the signs are in the checkpoint, the
 * size of the blocks in config.json, in one record of "modules" for each of them.
 */
#include <string.h>

#include "base/memory.h"
#include "models/pieces.h"

/* Names may have the text's prefix before the path, and end with ".signs". */
static bool is_of(const char *name, const char *path)
{
    static const char prefix[] = "language_model.";
    size_t n = strlen(path);

    if (strncmp(name, prefix, sizeof prefix - 1) == 0)
        name += sizeof prefix - 1;
    return strncmp(name, path, n) == 0 && strcmp(name + n, ".signs") == 0;
}

/* The block of the tensor's record; -1: there is none. */
static int block_of(const struct binder *b, const char *name)
{
    config *record;

    for (int i = 0; (record = config_item(b->m->config, "modules", i)); i++)
        if (is_of(name, config_string_or(record, "path", "")))
            return config_int_or(record, "block", 0);
    return -1;
}

int binder_rotate(struct binder *b, struct nn_rotation *r, const struct checkpoint_tensor *signs,
                  int n_in)
{
    int block = block_of(b, signs->name);
    float *values;

    if (block < 2 || (block & (block - 1)) || n_in % block)
        return fail(
            b->err, CLM_ERR_FORMAT,
            "%s: config.json says blocks of %d for tensor %s; it must be a power of two that "
            "divides %d",
            b->path, block, signs->name, n_in);
    if (signs->n_dims != 1 || signs->shape[0] != n_in)
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s must hold %d signs", b->path,
                    signs->name, n_in);
    values = mem_alloc((size_t)n_in * sizeof *values);
    if (!values)
        return fail(b->err, CLM_ERR_NOMEM, "%s: no memory for %s", b->path, signs->name);
    if (!dtype_to_f32(values, signs->data, signs->type, (size_t)n_in))
        fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s is %s; it must be of floats", b->path,
             signs->name, dtype_name(signs->type));
    for (int i = 0; i < n_in && !b->err->code; i++)
        if (values[i] != 1 && values[i] != -1)
            fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s holds %g; signs are 1 and -1", b->path,
                 signs->name, (double)values[i]);
    if (!b->err->code)
        r->signs = binder_place(b, (const uint8_t *)values, (size_t)n_in * sizeof *values);
    r->block = block;
    mem_free(values);
    return r->signs ? 0 : -1;
}

int binder_check_rotations(const struct binder *b)
{
    config *record;
    int n = 0;

    for (int i = 0; (record = config_item(b->m->config, "modules", i)); i++)
        n += config_int_or(record, "block", 0) > 0;
    if (config_kind(b->m->config, "modules") != CONFIG_ARRAY || n == b->n_signs)
        return 0;
    return fail(
        b->err, CLM_ERR_FORMAT,
        "%s: config.json lists %d matrices with turned inputs, the tensors hold signs of %d",
        b->path, n, b->n_signs);
}
