/* models/model.c: opening a model: config, spec, weights. */
#include "models/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "device/weight.h"
#include "models/adapter.h"
#include "models/aliases.h"
#include "models/bind.h"
#include "models/defaults.h"
#include "models/family.h"
#include "models/place.h"
#include "models/read_ahead.h"
#include "models/registry.h"
#include "models/share.h"

void *model_alloc(struct model *m, device *d, size_t size, clm_error *err)
{
    void *p = mem_grow(m->owned, &m->owned_capacity, m->n_owned + 1, sizeof *m->owned);

    if (!p)
        return fail_null(err, CLM_ERR_NOMEM, "weights: no memory");
    m->owned = p;
    p = d->ops->alloc(d, size, err);
    if (p)
        m->owned[m->n_owned++] = (struct model_owned){d, p};
    return p;
}

/* What was mapped of a checkpoint is of no use without its file. */
static void unmap(device *d, const checkpoint *c)
{
    for (size_t i = 0; c && i < checkpoint_count(c); i++)
        d->ops->unmap(d, checkpoint_at(c, i)->data, checkpoint_at(c, i)->size);
}

void model_close(struct model *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_owned; i++)
        m->owned[i].dev->ops->free(m->owned[i].dev, m->owned[i].data);
    mem_free(m->owned);
    for (int i = 0; m->nn && i < m->nn->n_parts; i++) {
        unmap(m->nn->parts[i].dev, m->weights);
        unmap(m->nn->parts[i].dev, m->adapter);
    }
    nn_model_release(m->nn);
    for (int i = 0; i < m->n_shares; i++)
        nn_model_release(m->shares[i]);
    checkpoint_close(m->weights);
    checkpoint_close(m->adapter);
    config_close(m->config);
    arena_close(m->memory);
    mem_free(m);
}

static const struct family *find_family(config *c, clm_error *err)
{
    const char *type = config_string(c, "model_type");
    const struct family *f;
    const char *nearest;

    if (config_error(c)->code) {
        config_done(c, err);
        return NULL;
    }
    f = model_family_find(type);
    if (f)
        return f->choose ? f->choose(c) : f;
    nearest = model_type_nearest(type);
    if (nearest)
        return fail_null(
            err, CLM_ERR_UNSUPPORTED,
            "%s: unknown model_type \"%s\"; did you mean \"%s\"? `clm models` lists all",
            config_path(c), type, nearest);
    return fail_null(err, CLM_ERR_UNSUPPORTED,
                     "%s: unknown model_type \"%s\"; `clm models` lists those that are supported",
                     config_path(c), type);
}

/* Experts and latent heads are many and each has a record of its own: their number is not believed
 * before the tensors can hold them, at the least that a weight takes, 2 bits. */
static int check_experts(const struct model *m, clm_error *err)
{
    double bytes = 0;

    for (int i = 0; i < m->spec->n_layers; i++) {
        for (int b = 0; b < m->spec->layers[i].n_branches; b++) {
            const struct branch_spec *branch = &m->spec->layers[i].branches[b];

            if (branch->op == OP_MLA)
                bytes += 0.25 * branch->mla.n_heads * branch->mla.kv_rank *
                         ((double)branch->mla.nope_dim + branch->mla.v_dim);
            if (branch->op == OP_RG_LRU)
                bytes += 0.25 * 2 * branch->rg_lru.channels *
                         ((double)branch->rg_lru.channels / branch->rg_lru.n_heads);
            if (branch->op == OP_MOE)
                bytes += 0.25 * 2 * (branch->moe.router.n_experts - branch->moe.n_zero_experts) *
                         branch->moe.expert.intermediate_size *
                         (branch->moe.latent_size ? branch->moe.latent_size : m->spec->hidden_size);
        }
    }
    if (bytes <= (double)checkpoint_bytes(m->weights))
        return 0;
    return fail(err, CLM_ERR_FORMAT,
                "%s: experts or heads of more than %.0f bytes; the tensors hold %zu bytes in all",
                config_path(m->config), bytes, checkpoint_bytes(m->weights));
}

/* The config of the language model, and its family: of a model that also sees or hears,
 * text_config; where that names no type that is known, the family's own. */
static config *find_text(struct model *m, clm_error *err)
{
    config *text, *whole; /* omni models also speak; what they say a thinker makes */
    const char *type;
    const struct family *f;

    m->family = find_family(m->config, err);
    whole = config_object(m->config, "thinker_config");
    if (!whole)
        whole = m->config;
    text = m->family && !m->family->reads_text_config ? config_object(whole, "text_config") : NULL;
    if (!text)
        return m->family ? m->config : NULL;
    type = config_string_or(text, "model_type", NULL);
    f = type ? model_family_find(type) : NULL;
    if (f)
        m->family = f;
    config_ignore(m->config, "talker_config", "token2wav_config", "code2wav_config",
                  "enable_audio_output", "enable_talker", NULL);
    config_ignore(whole, "vision_config", "audio_config", "tie_word_embeddings",
                  "projector_hidden_act", "vision_feature_layer", "vision_feature_select_strategy",
                  "spatial_merge_size", "multimodal_projector_bias", "mm_tokens_per_image",
                  "image_token_index", "vocab_size", "hidden_size", "image_seq_length",
                  "out_hidden_size", "projector_hidden_size", NULL);
    return text;
}

/* What the new schema leaves out counts as transformers has it, which wrote it; in the old one, as
 * mlx-lm does. Of a model whose config is a part of another's, what is known of the whole's type
 * comes first. */
static void add_defaults(config *root, config *text)
{
    const char *key = "transformers_version";
    long version =
        config_kind(root, key) == CONFIG_STRING ? strtol(config_string(root, key), NULL, 10) : 0;
    bool later = version >= 5 || (version > 0 && config_has(text, "rope_parameters"));
    const char *keys = model_defaults(config_string_or(root, "model_type", ""), later);

    if (text == root && config_object(root, "text_config"))
        text = config_object(root, "text_config");
    if (!keys)
        keys = model_defaults(config_string_or(text, "model_type", ""), later);
    if (keys)
        config_defaults(text, keys);
    keys = text != root && config_by_transformers(root)
               ? model_part_defaults(config_string_or(text, "model_type", ""))
               : NULL;
    if (keys)
        config_defaults(text, keys);
}

/* Likewise. */
static void check_required(config *root, config *text)
{
    const char *keys = model_required(config_string_or(root, "model_type", ""));

    if (!keys)
        keys = model_required(config_string_or(text, "model_type", ""));
    if (keys)
        config_require(text, keys);
}

/* Who adds yarn to a config, as model cards say, leaves max_position_embeddings as it was: that of
 * before it. */
static void stretch_context(struct spec *s)
{
    for (int i = 0; i < s->n_layers && s->context_length > 0; i++)
        for (int b = 0; b < s->layers[i].n_branches; b++) {
            const struct branch_spec *branch = &s->layers[i].branches[b];
            const struct rope_spec *r = branch->op == OP_MLA         ? &branch->mla.rope
                                        : branch->op == OP_ATTENTION ? &branch->attention.rope
                                                                     : NULL;
            double length = r && r->kind == ROPE_YARN ? r->factor * r->original_max_positions : 0;

            if (length > s->context_length && length <= INT32_MAX)
                s->context_length = (int)length;
        }
}

/* m->config is open: spec and structure from it. adapter may be NULL. */
static int describe(struct model *m, struct adapter *adapter, clm_error *err)
{
    config *text = find_text(m, err);

    if (!text)
        return -1;
    m->spec = arena_array(m->memory, struct spec, 1);
    if (!m->spec)
        return fail(err, CLM_ERR_NOMEM, "%s: no memory", config_path(m->config));
    if (config_by_transformers(m->config))
        model_aliases(text, config_string_or(text, "model_type", ""));
    check_required(m->config, text);
    add_defaults(m->config, text);
    m->family->spec(m->spec, text, m->memory);
    m->spec->model_type = config_string(m->config, "model_type");
    config_ignore(m->config, "quantization", "quantization_config", NULL);
    if (m->family->adapt && m->weights && !config_error(m->config)->code)
        m->family->adapt(m->spec, m->weights);
    if (config_done(m->config, err) || spec_check(m->spec, config_path(m->config), err))
        return -1;
    if (m->weights && check_experts(m, err))
        return -1;
    /* The whole's key decides in transformers, which keeps no head that is tied, and none in
     * mlx-lm's Pixtral. */
    if ((text != m->config || config_kind(m->config, "text_config") == CONFIG_OBJECT) &&
        (config_by_transformers(m->config) || strcmp(m->spec->model_type, "pixtral") == 0))
        m->spec->tie_by_file = true;
    if (m->spec->tie_by_file && m->weights)
        m->spec->tie_word_embeddings = !checkpoint_has_head(m->family, m->weights);
    if (adapter && m->spec->tie_word_embeddings && adapter_unties(adapter, m->family)) {
        m->spec->tie_word_embeddings = false;
        adapter->unties = true;
    }
    stretch_context(m->spec);
    m->nn = nn_model_new(m->spec, m->memory, err);
    return m->nn ? 0 : -1;
}

static struct model *new_model(clm_error *err)
{
    struct model *m = mem_zeroed(1, sizeof *m);

    if (m)
        m->memory = arena_open(0);
    if (!m || !m->memory) {
        mem_free(m);
        return fail_null(err, CLM_ERR_NOMEM, "model: no memory");
    }
    return m;
}

static int open_files(struct model *m, const char *path, const struct log *log, clm_error *err)
{
    char name[4096];

    if (!file_is_dir(path))
        return fail(err, CLM_ERR_IO, "%s: %s", path,
                    file_exists(path)
                        ? "a model is a directory with config.json and safetensors files"
                        : "no such file or directory");
    if (file_join(name, sizeof name, path, "config.json", err))
        return -1;
    m->config = config_open(name, log, err);
    if (!m->config)
        return -1;
    m->weights = checkpoint_open(path, log, err);
    return m->weights ? 0 : -1;
}

enum { NORM_ROWS = 256 }; /* of the head at a time */

/* 1 / (length + 1e-7) of each column of a head that stays as it is: quantised, or the embedding. */
static int norm_head(struct model *m, clm_error *err)
{
    const struct weight *w = &m->nn->lm_head.w;
    int n = m->spec->head_normed && !m->head_divided ? w->n_in : 0;
    float *sums = n ? arena_array(m->memory, float, n) : NULL;
    device *d = nn_part_of(m->nn, -1, ROLE_LM_HEAD)->dev;
    void *ids, *rows, *scale;
    float *host;
    int32_t numbers[NORM_ROWS];

    if (!n)
        return 0;
    ids = d->ops->alloc(d, sizeof numbers, err);
    rows = ids ? d->ops->alloc(d, (size_t)NORM_ROWS * (size_t)n * sizeof(float), err) : NULL;
    scale = rows ? model_alloc(m, d, (size_t)n * sizeof(float), err) : NULL;
    host = mem_alloc((size_t)NORM_ROWS * (size_t)n * sizeof(float));
    for (int first = 0; scale && host && sums && first < w->n_out; first += NORM_ROWS) {
        int count = w->n_out - first < NORM_ROWS ? w->n_out - first : NORM_ROWS;
        tensor part = {rows, DTYPE_F32, count, n, n};

        for (int i = 0; i < count; i++)
            numbers[i] = first + i;
        d->ops->upload(d, ids, numbers, sizeof numbers);
        d->ops->embed(d, &part, w, ids, 1);
        d->ops->download(d, host, rows, (size_t)count * (size_t)n * sizeof(float));
        for (int i = 0; i < count * n; i++)
            sums[i % n] += host[i] * host[i];
    }
    for (int i = 0; sums && i < n; i++)
        sums[i] = 1 / (sqrtf(sums[i]) + 1e-7f);
    if (scale && host && sums) {
        d->ops->upload(d, scale, sums, (size_t)n * sizeof(float));
        m->nn->head_scale = scale;
    }
    mem_free(host);
    d->ops->free(d, rows);
    d->ops->free(d, ids);
    return m->nn->head_scale ? 0 : fail(err, CLM_ERR_NOMEM, "norms of the head: no memory");
}

/* What a gate of the residual says of the old state and of what is new. */
static int make_gates(struct model *m, const struct branch_spec *s, struct nn_branch *b, device *d,
                      clm_error *err)
{
    int n = m->spec->hidden_size;
    size_t size = (size_t)n * sizeof(float);
    float *gate = mem_alloc(size), *old = mem_alloc(size);
    void *to[2] = {NULL, NULL};

    if (gate && old) {
        d->ops->download(d, gate, b->raw_gate, size);
        for (int i = 0; i < n; i++) {
            float g = gate[i] / s->gate_temperature;

            gate[i] = 1 / (1 + expf(-g));
            old[i] = sqrtf(fmaxf(1 / (1 + expf(g)) * (1 + gate[i]), 1e-3f));
        }
        for (int i = 0; i < 2; i++)
            to[i] = model_alloc(m, d, size, err);
    }
    if (to[0] && to[1]) {
        d->ops->upload(d, to[0], old, size);
        d->ops->upload(d, to[1], gate, size);
        b->old_gate = to[0];
        b->new_gate = to[1];
    }
    mem_free(gate);
    mem_free(old);
    return b->new_gate ? 0 : fail(err, CLM_ERR_NOMEM, "gates of residuals: no memory");
}

static int finish_gates(struct model *m, clm_error *err)
{
    for (int i = 0; i < m->spec->n_layers; i++)
        for (int j = 0; j < m->nn->layers[i].n_branches; j++) {
            struct nn_branch *b = &m->nn->layers[i].branches[j];

            if (b->spec->gate_temperature == 0 || (b->old_gate && b->new_gate))
                continue;
            if (!b->raw_gate)
                return fail(err, CLM_ERR_FORMAT, "%s: no tensor holds the gate of layer %d",
                            config_path(m->config), i);
            if (make_gates(m, b->spec, b, nn_part_of(m->nn, i, ROLE_RAW_GATE)->dev, err))
                return -1;
        }
    return 0;
}

/* The adapter's config serves until weights are bound, its tensors as long as the model. */
static int open_adapter(struct model *m, struct adapter *a, const char *path, clm_error *err)
{
    if (adapter_open(a, path, m->memory, err))
        return -1;
    m->adapter = a->weights;
    m->adapter_path = a->path;
    m->adapter_kind = adapter_kind_name(a->kind);
    return 0;
}

/* Where the whole model goes: of several devices that compute together to memory of the host. */
static struct model_devices whole_devices(const struct model_devices *where)
{
    if (where->n_group < 2)
        return *where;
    return (struct model_devices){.dev = where->rest ? where->rest : where->dev};
}

static int share_out(struct model *m, const struct model_devices *where, const struct log *log,
                     clm_error *err)
{
    return where->n_group < 2 ? 0 : model_share_out(m, where->group, where->n_group, log, err);
}

struct model *model_open_over(const char *path, const char *adapter_path,
                              const struct model_devices *where, const struct log *log,
                              clm_error *err)
{
    struct model *m = new_model(err);
    struct model_devices whole = whole_devices(where);
    struct adapter a = {0}, *adapter = adapter_path ? &a : NULL;
    int rc;

    if (!m)
        return NULL;
    rc = open_files(m, path, log, err) ||
         (adapter && open_adapter(m, adapter, adapter_path, err)) || describe(m, adapter, err) ||
         model_place(m, &whole, NULL, log, err) ||
         (where->read_ahead &&
          model_read_ahead(m, where->read_ahead, where->read_ahead_ctx, log, err)) ||
         model_bind(m, path, adapter, log, err);
    adapter_close(&a);
    if (rc == 0) {
        nn_model_share(m->nn);
        rc = norm_head(m, err) || finish_gates(m, err) || share_out(m, where, log, err);
    }
    if (rc) {
        model_close(m);
        return NULL;
    }
    return m;
}

struct model *model_open_adapted(const char *path, const char *adapter_path, device *d,
                                 const struct log *log, clm_error *err)
{
    return model_open_over(path, adapter_path, &(struct model_devices){.dev = d}, log, err);
}

struct model *model_open(const char *path, device *d, const struct log *log, clm_error *err)
{
    return model_open_adapted(path, NULL, d, log, err);
}

struct model *model_random_over(const char *config_text, const char *name,
                                struct model_format format, const struct model_devices *where,
                                const struct log *log, clm_error *err)
{
    struct model_devices whole = whole_devices(where);
    struct model *m = new_model(err);
    int rc;

    if (!m)
        return NULL;
    m->config = config_parse(config_text, strlen(config_text), name, log, err);
    rc = !m->config || describe(m, NULL, err) || model_place(m, &whole, &format, log, err) ||
         model_bind_random(m, format, where->read_ahead, where->read_ahead_ctx, err);
    if (rc == 0) {
        nn_model_share(m->nn);
        rc = share_out(m, where, log, err);
    }
    if (rc) {
        model_close(m);
        return NULL;
    }
    return m;
}

struct model *model_random(const char *config_text, const char *name, struct model_format format,
                           device *d, const struct log *log, clm_error *err)
{
    return model_random_over(config_text, name, format, &(struct model_devices){.dev = d}, log,
                             err);
}

struct reading {
    const struct model *m;
    double bytes, products;
    double of_asked; /* of the products */
};

static int add_reading(void *ctx, const struct nn_slot *s)
{
    struct reading *r = ctx;
    double part = 1;

    if (!s->n_in)
        return 0;
    if (s->role == ROLE_EMBED_TOKENS && !r->m->spec->tie_word_embeddings) {
        r->bytes += (double)weight_bytes(s->weight) / s->n_out;
        return 0;
    }
    if (s->role == ROLE_NGRAM_TABLES) {
        for (int e = 0; e < s->n_experts; e++)
            r->bytes += (double)weight_bytes(&s->weight[e]) / s->weight[e].n_out;
        return 0;
    }
    if (s->n_experts && s->layer < 0)
        part = s->n_experts;
    if (s->n_experts && s->layer >= 0) {
        const struct branch_spec *b = &r->m->spec->layers[s->layer].branches[s->branch];

        part = b->op == OP_MOE ? b->moe.router.n_experts_per_token : s->n_experts;
    }
    r->bytes += part * (double)weight_bytes(s->weight);
    r->products += part * s->n_out * s->n_in;
    if (nn_meets_asked(r->m->nn, s))
        r->of_asked += part * s->n_out * s->n_in;
    return 0;
}

size_t model_bytes_per_token(const struct model *m)
{
    struct reading r = {.m = m};

    nn_slots(m->nn, add_reading, &r);
    return (size_t)r.bytes;
}

double model_flops_per_token(const struct model *m)
{
    struct reading r = {.m = m};

    nn_slots(m->nn, add_reading, &r);
    return 2 * r.products;
}

double model_flops_of_asked(const struct model *m)
{
    struct reading r = {.m = m};

    nn_slots(m->nn, add_reading, &r);
    return 2 * r.of_asked;
}
