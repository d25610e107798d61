/* nn/place.c: the layers of a model on one device, or on two. */
#include "base/memory.h"
#include "nn/rope.h"
#include "nn/weights.h"

/* Does a branch use what is of a layer before cut, other than what a pass hands on? */
static bool reaches_back(const struct branch_spec *b, int cut)
{
    int layers[5] = {0}; /* + 1, as the spec has them */

    if (b->op == OP_ATTENTION) {
        layers[0] = b->attention.cache_of;
        layers[1] = b->attention.mixed_with;
    }
    if (b->op == OP_POOLED) {
        layers[2] = b->pooled.keys_of;
        layers[3] = b->pooled.index_of;
    }
    if (b->op == OP_MLA)
        layers[4] = b->mla.index_of;
    for (int i = 0; i < 5; i++)
        if (layers[i] > 0 && layers[i] - 1 < cut)
            return true;
    return false;
}

bool nn_model_can_cut(const struct nn_model *m, int cut)
{
    const struct spec *s = m->spec;

    for (int i = 0; i < s->n_layers; i++) {
        const struct layer_spec *l = &s->layers[i];

        if (i >= cut && l->same_as > 0 && l->same_as - 1 < cut)
            return false;
        for (int b = 0; b < l->n_branches; b++)
            if (i >= cut ? reaches_back(&l->branches[b], cut) : l->branches[b].final_norm)
                return false;
    }
    return true;
}

static int place_ropes(struct nn_model *m, int part, clm_error *err)
{
    device *d = m->parts[part].dev;

    for (int i = 0; i < m->n_ropes; i++) {
        struct nn_rope *r = &m->ropes[i];
        int n = rope_turning(&r->spec) / 2;
        float *speeds;
        void *on_device;

        if (r->spec.kind == ROPE_DYNAMIC)
            continue;
        speeds = mem_alloc((size_t)n * sizeof *speeds);
        if (!speeds)
            return fail(err, CLM_ERR_NOMEM, "rotary angles: no memory for %d numbers", n);
        rope_inv_freq(speeds, &r->spec, 0);
        on_device = d->ops->alloc(d, (size_t)n * sizeof *speeds, err);
        if (on_device)
            d->ops->upload(d, on_device, speeds, (size_t)n * sizeof *speeds);
        mem_free(speeds);
        if (!on_device)
            return -1;
        r->inv_freq[part] = on_device;
    }
    return 0;
}

static int add_part(struct nn_model *m, device *d, int first, int end, clm_error *err)
{
    bool is_last = end == m->spec->n_layers;
    size_t state = m->layers[first].state;

    m->parts[m->n_parts] = (struct nn_part){
        .dev = d,
        .first = first,
        .end = end,
        .first_cache = m->layers[first].first_cache,
        .state = state,
        .state_bytes = (is_last ? m->state_bytes : m->layers[end].state) - state,
    };
    return place_ropes(m, m->n_parts++, err);
}

int nn_model_place(struct nn_model *m, device *d, device *rest, int cut, clm_error *err)
{
    if (cut > 0 && add_part(m, rest, 0, cut, err))
        return -1;
    return add_part(m, d, cut, m->spec->n_layers, err);
}

bool nn_role_is_last(enum weight_role role)
{
    return role == ROLE_LM_HEAD || role == ROLE_HEAD_BIAS || role == ROLE_FINAL_NORM ||
           role == ROLE_HEAD_PROJ || role == ROLE_ALTUP_OUT || role == ROLE_RESIDUAL_PROJ ||
           role == ROLE_RESIDUAL_NORM || role == ROLE_LOGIT_GAIN;
}

const struct nn_part *nn_part_of(const struct nn_model *m, int layer, enum weight_role role)
{
    const struct nn_part *first = &m->parts[0], *last = &m->parts[m->n_parts - 1];

    return (layer < 0 ? nn_role_is_last(role) : layer >= first->end) ? last : first;
}

bool nn_tied_apart(const struct nn_model *m)
{
    return m->spec->tie_word_embeddings && m->n_parts > 1;
}

void nn_model_release(struct nn_model *m)
{
    if (!m)
        return;
    for (int p = 0; p < m->n_parts; p++)
        for (int i = 0; i < m->n_ropes; i++) {
            m->parts[p].dev->ops->free(m->parts[p].dev, (void *)(uintptr_t)m->ropes[i].inv_freq[p]);
            m->ropes[i].inv_freq[p] = NULL;
        }
    m->n_parts = 0;
}
