#include "cli/memory_need.h"

#include <string.h>

#include "base/available.h"
#include "models/family.h"
#include "models/place.h"
#include "nn/nn.h"

static double memory_of_cache(const struct spec *s, size_t number_size, int length)
{
    double sum = 0;

    for (int l = 0; l < s->n_layers; l++)
        sum += model_layer_cache_bytes(&s->layers[l], number_size, length);
    return sum;
}

struct need {
    struct model_format format;
    double bytes;
};

static int add_slot(void *ctx, const struct nn_slot *slot)
{
    struct need *n = ctx;

    n->bytes += model_format_bytes(slot, n->format);
    return 0;
}

/* The spec of a config, in the arena. */
static int read_spec(struct spec *s, config *c, arena *a, clm_error *err)
{
    const char *type = config_string(c, "model_type");
    const struct family *f = config_error(c)->code ? NULL : model_family_find(type);

    if (f)
        f->spec(s, c, a);
    if (config_done(c, err))
        return -1;
    if (!f)
        return fail(err, CLM_ERR_UNSUPPORTED, "%s: unknown model_type %s", config_path(c), type);
    return spec_check(s, config_path(c), err);
}

static int compare(const struct model_devices *where, double weights, double cache,
                   const char *name, clm_error *err)
{
    double own = (double)where->dev->ops->available(where->dev);
    double available = own + (own == 0 || where->rest ? (double)memory_available() : 0);
    double need = weights + cache;

    /* Activations, tokenizer and the program itself are small beside the weights: a tenth covers
     * them. */
    if (available == 0 || 1.1 * need <= available)
        return 0;
    return fail(err, CLM_ERR_NOMEM,
                "%s needs %.1f GB of memory for weights and %.1f GB for the cache, and %.1f GB are "
                "available; use fewer --bits, or --layers",
                name, weights / 1e9, cache / 1e9, available / 1e9);
}

int memory_need_check(const char *config_text, const char *name, struct model_format format,
                      const struct model_devices *where, int length, clm_error *err)
{
    struct need need = {.format = format};
    struct spec spec = {0};
    struct nn_model *nn = NULL;
    arena *a = arena_open(0);
    config *c = a ? config_parse(config_text, strlen(config_text), name, NULL, err) : NULL;
    int rc = -1;

    if (!a)
        fail(err, CLM_ERR_NOMEM, "no memory for the shape");
    if (!c || read_spec(&spec, c, a, err))
        goto cleanup;
    nn = nn_model_new(&spec, a, err);
    if (!nn)
        goto cleanup;
    nn_slots(nn, add_slot, &need);
    rc = compare(where, need.bytes, memory_of_cache(&spec, sizeof(float), length), name, err);

cleanup:
    config_close(c);
    arena_close(a);
    return rc;
}
