#include "models/place.h"

#include "device/weight.h"
#include "models/names.h"
#include "nn/nn.h"

/* Room that is left on the device beside weights and cache, for temporaries and what other programs
 * take meanwhile: this, and this share of what is free. */
#define MARGIN_BYTES ((double)((size_t)768 << 20))
#define MARGIN_SHARE (1.0 / 32)

/* Without a bound of the cache room is left for a text of so many tokens. */
#define ROOM_TOKENS 8192

/* Bytes of weights: before the layers, of each layer, and after them. */
struct sizes {
    double first, last, embedding;
    bool has_head;  /* else the embedding serves */
    double *layers; /* [n_layers] */
};

int model_devices_open(struct model_devices *where, const char *name, int n_threads, int gpu_layers,
                       clm_error *err)
{
    bool counted = gpu_layers != GPU_LAYERS_AUTO && gpu_layers != GPU_LAYERS_ALL;

    *where = (struct model_devices){.gpu_layers = gpu_layers};
    where->dev = gpu_layers == GPU_LAYERS_NONE ? device_cpu_open(n_threads, err)
                                               : device_open(name, n_threads, err);
    if (!where->dev)
        return -1;
    if (where->dev->ops->reads_host && counted && gpu_layers != GPU_LAYERS_NONE)
        return fail(err, CLM_ERR_ARG,
                    "%d layers on a GPU: the device is %s; choose cuda, or leave their number open",
                    gpu_layers, where->dev->ops->name);
    if (where->dev->ops->reads_host || gpu_layers == GPU_LAYERS_ALL)
        return 0;
    where->rest = device_cpu_open(n_threads, err);
    return where->rest ? 0 : -1;
}

int model_devices_open_group(struct model_devices *where, int n, const char *name, int n_threads,
                             clm_error *err)
{
    *where = (struct model_devices){.gpu_layers = GPU_LAYERS_ALL};
    if (device_open_group(where->group, n, name, n_threads, err))
        return -1;
    where->n_group = n;
    where->dev = where->group[0];
    if (n == 1 || where->dev->ops->reads_host)
        return 0;
    where->rest = device_cpu_open(n_threads, err);
    return where->rest ? 0 : -1;
}

void model_devices_close(struct model_devices *where)
{
    if (where->rest)
        where->rest->ops->close(where->rest);
    for (int i = 1; i < where->n_group; i++)
        where->group[i]->ops->close(where->group[i]);
    if (where->dev)
        where->dev->ops->close(where->dev);
    *where = (struct model_devices){0};
}

double model_format_bytes(const struct nn_slot *slot, struct model_format format)
{
    struct weight w = {
        .format = format.format,
        .n_out = slot->n_out,
        .n_in = slot->n_in > 0 ? slot->n_in : 1,
        .bits = format.bits,
        .group_size = format.group_size,
        .scale_type = DTYPE_BF16,
    };
    double copies = slot->n_experts > 0 ? slot->n_experts : 1;

    return copies * (slot->n_in > 0 ? (double)weight_bytes(&w) : 4.0 * slot->n_out);
}

double model_layer_cache_bytes(const struct layer_spec *l, size_t number_size, int length)
{
    double sum = 0;

    for (int b = 0; b < l->n_branches; b++) {
        struct kv_layer_spec kept[NN_MAX_CACHES];
        int n = nn_branch_caches(&l->branches[b], kept);

        sum += (double)branch_state_bytes(&l->branches[b]);
        for (int i = 0; i < n; i++) {
            bool slides = kept[i].window > 0 && kept[i].window < length;

            sum += (double)kept[i].n_kv_heads * ((double)kept[i].k_dim + kept[i].v_dim) *
                   (double)number_size * (slides ? kept[i].window : length);
        }
    }
    return sum;
}

static void add_size(struct sizes *s, int layer, enum weight_role role, double bytes)
{
    if (layer >= 0)
        s->layers[layer] += bytes;
    else if (nn_role_is_last(role))
        s->last += bytes;
    else
        s->first += bytes;
    if (layer < 0 && role == ROLE_EMBED_TOKENS)
        s->embedding += bytes;
    s->has_head |= layer < 0 && role == ROLE_LM_HEAD;
}

static void add_tensors(struct sizes *s, const struct model *m)
{
    for (size_t i = 0; i < checkpoint_count(m->weights); i++) {
        const struct checkpoint_tensor *t = checkpoint_at(m->weights, i);
        struct tensor_place place = tensor_place(m->family, m->spec, t->name);
        int layer = place.layer;

        if (place.to.kind == TARGET_IGNORE || place.to.kind == TARGET_NONE ||
            place.part == PART_UNUSED ||
            (place.to.first == ROLE_LM_HEAD && m->spec->tie_word_embeddings))
            continue;
        if (layer >= 0 && place.to.second)
            layer += m->spec->second_layers;
        if (layer < m->spec->n_layers)
            add_size(s, layer, place.to.first, (double)t->size);
    }
}

struct slot_sizes {
    struct sizes *sizes;
    struct model_format format;
};

static int add_slot(void *ctx, const struct nn_slot *slot)
{
    struct slot_sizes *s = ctx;

    add_size(s->sizes, slot->layer, slot->role, model_format_bytes(slot, s->format));
    return 0;
}

static int measure(struct sizes *s, const struct model *m, const struct model_format *format,
                   clm_error *err)
{
    *s = (struct sizes){.layers = arena_array(m->memory, double, m->spec->n_layers)};
    if (!s->layers)
        return fail(err, CLM_ERR_NOMEM, "a model of %d layers: no memory", m->spec->n_layers);
    if (format)
        nn_slots(m->nn, add_slot, &(struct slot_sizes){s, *format});
    else
        add_tensors(s, m);
    return 0;
}

/* Weights that are on the device with the last n layers; all of them with all layers. */
static double weights_with(const struct model *m, const struct sizes *s, int n)
{
    int n_layers = m->spec->n_layers;
    double sum = s->last;

    if (n == n_layers)
        sum += s->first;
    else if (!s->has_head)
        sum += s->embedding; /* once more, as the head */
    for (int i = n_layers - n; i < n_layers; i++)
        sum += s->layers[i];
    return n > 0 ? sum : 0;
}

/* What the cache takes of the last n layers: their share of the bound, or a text of some length. */
static double cache_with(const struct model *m, const struct model_devices *where, int n)
{
    const struct spec *s = m->spec;
    int length =
        s->context_length > 0 && s->context_length < ROOM_TOKENS ? s->context_length : ROOM_TOKENS;
    double all = 0, part = 0;

    for (int i = 0; i < s->n_layers; i++) {
        double bytes = model_layer_cache_bytes(&s->layers[i], sizeof(uint16_t), length);

        all += bytes;
        part += i >= s->n_layers - n ? bytes : 0;
    }
    return where->cache_bytes && all > 0 ? part / all * (double)where->cache_bytes : part;
}

static bool can_cut(const struct model *m, int n)
{
    return n == 0 || n == m->spec->n_layers || nn_model_can_cut(m->nn, m->spec->n_layers - n);
}

static int as_many_as_fit(const struct model *m, const struct model_devices *where,
                          const struct sizes *s, double free)
{
    int n = m->spec->n_layers;

    while (n > 0 && (!can_cut(m, n) || weights_with(m, s, n) + cache_with(m, where, n) >
                                           free * (1 - MARGIN_SHARE) - MARGIN_BYTES))
        n--;
    return n;
}

static int cannot_cut(const struct model *m, int n, clm_error *err)
{
    int fewer = n, more = n;

    while (!can_cut(m, fewer))
        fewer--;
    while (!can_cut(m, more))
        more++;
    return fail(
        err, CLM_ERR_ARG,
        "%s: its last %d layers share keys, weights or a norm with those before, and cannot "
        "be on another device; %d or %d can",
        config_path(m->config), n, fewer, more);
}

/* How many layers go to where->dev; -1 with *err. */
static int choose(const struct model *m, const struct model_devices *where,
                  const struct model_format *format, const struct log *log, clm_error *err)
{
    device *d = where->dev;
    int n_layers = m->spec->n_layers, n = where->gpu_layers;
    double free = (double)d->ops->available(d), bytes;
    struct sizes s;

    if (free == 0 && (n == GPU_LAYERS_AUTO || !where->rest))
        return n_layers; /* it has no memory of its own */
    if (measure(&s, m, format, err))
        return -1;
    if (!where->rest || n > n_layers)
        n = n_layers;
    else if (n == GPU_LAYERS_AUTO)
        n = as_many_as_fit(m, where, &s, free);
    else if (n == GPU_LAYERS_NONE)
        n = 0;
    if (!can_cut(m, n))
        return cannot_cut(m, n, err);
    bytes = weights_with(m, &s, n);
    if (free > 0 && bytes > free)
        return fail(err, CLM_ERR_NOMEM,
                    "%s: %d of %d layers are %.2f GB of weights, and %s has %.2f GB free; have "
                    "fewer layers there, as automatic choice does, or use the CPU",
                    config_path(m->config), n, n_layers, bytes / 1e9, d->ops->name, free / 1e9);
    if (n < n_layers)
        log_say(log, LOG_INFO,
                "%d of %d layers%s on %s: %.2f GB of weights, %.2f GB were free; the others on %s",
                n, n_layers, n > 0 ? " and the head" : "", d->ops->name, bytes / 1e9, free / 1e9,
                where->rest->ops->name);
    return n;
}

int model_place(struct model *m, const struct model_devices *where,
                const struct model_format *format, const struct log *log, clm_error *err)
{
    int n = choose(m, where, format, log, err);

    if (n < 0)
        return -1;
    return n > 0 ? nn_model_place(m->nn, where->dev, where->rest, m->spec->n_layers - n, err)
                 : nn_model_place(m->nn, where->rest, NULL, 0, err);
}
