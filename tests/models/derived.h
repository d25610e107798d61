/* tests/models/derived.h: a small checkpoint for any config.json, with the names that its family
 * has for every place of its weights: made of the rules, so that no family needs a list of its own.
 */
#ifndef DERIVED_H
#define DERIVED_H

#include "models/family.h"
#include "models/model.h"
#include "models/names.h"
#include "tiny.h"

enum { DERIVED_MAX_SLOTS = 2048 };

struct derivation {
    const struct model *m;
    struct tiny *t;
    struct nn_slot slots[DERIVED_MAX_SLOTS];
    int n_slots;
};

static inline int derived_collect(void *ctx, const struct nn_slot *s)
{
    struct derivation *d = ctx;

    if (d->n_slots == DERIVED_MAX_SLOTS)
        tiny_die("too many weights");
    d->slots[d->n_slots++] = *s;
    return 0;
}

static inline int derived_alternatives(const char *pattern)
{
    const char *p = strchr(pattern, '{');
    int n = 1;

    for (; p && *p != '}'; p++)
        n += *p == ',';
    return n;
}

/* The role of part i of a rule. */
static inline int derived_role(const struct weight_target *to, int i)
{
    int step = to->step ? to->step : 1;

    return to->roles ? (int)to->roles[i] : (int)to->first + step * i;
}

/* Which alternative or part of the rule the slot is; -1: the rule is not for it. */
static inline int derived_part(const struct derivation *d, const struct weight_rule *r,
                               const struct nn_slot *s)
{
    const struct spec *spec = d->m->spec;
    bool second = spec->second_layers && s->layer >= spec->second_layers;
    int n = r->to.kind == TARGET_SLOTS    ? derived_alternatives(r->pattern)
            : r->to.kind == TARGET_LATENT ? 2
                                          : r->to.n;

    if (r->to.kind == TARGET_NONE || r->to.kind == TARGET_IGNORE || r->to.scales ||
        r->to.branch != s->branch || (strchr(r->pattern, '*') != NULL) != (s->layer >= 0) ||
        (s->layer >= 0 && r->to.second != second) || (strchr(r->pattern, '#') && !s->n_experts))
        return -1;
    if (r->to.only != OP_NONE && spec->layers[s->layer].branches[0].op != r->to.only)
        return -1;
    for (int i = 0; i < n; i++)
        if ((r->to.kind == TARGET_LATENT ? (int)ROLE_MLA_EMBED_Q + i : derived_role(&r->to, i)) ==
            (int)s->role)
            return i;
    return -1;
}

static inline void derived_name(char *out, size_t size, const char *pattern, int layer, int expert,
                                int alternative)
{
    size_t n = 0;

    for (const char *p = pattern; *p && n + 16 < size; p++) {
        if (*p == '*' || *p == '#') {
            n += (size_t)snprintf(out + n, size - n, "%d", *p == '*' ? layer : expert);
        } else if (*p == '{') {
            for (int i = 0; i < alternative; i++)
                p = strchr(p + 1, ',');
            for (p++; *p != ',' && *p != '}'; p++)
                out[n++] = *p;
            p = strchr(p, '}');
        } else {
            out[n++] = *p;
        }
    }
    out[n] = '\0';
}

/* Whether the name that the rule gives leads back to it, not to a rule before it. */
static inline bool derived_leads_back(const struct derivation *d, const struct weight_rule *r,
                                      const struct nn_slot *s, int part)
{
    char name[256];
    struct tensor_place place;
    int layer = s->layer - (r->to.second ? d->m->spec->second_layers : 0);

    derived_name(name, sizeof name - 8, r->pattern, layer, 0, part);
    if (!r->to.bare)
        strcat(name, ".weight");
    place = tensor_place(d->m->family, d->m->spec, name);
    return place.to.kind == r->to.kind && place.to.branch == r->to.branch &&
           place.to.first == r->to.first;
}

/* A rule of the slot's own, for its weight or its bias. */
static inline const struct weight_rule *
derived_own_rule(const struct derivation *d, const struct nn_slot *s, bool bias, int *part)
{
    for (const struct weight_rule *r = d->m->family->weights; r->pattern; r++) {
        *part = derived_part(d, r, s);
        if (*part >= 0 && r->to.kind == TARGET_SLOTS && r->to.bias == bias &&
            derived_leads_back(d, r, s, *part))
            return r;
    }
    return NULL;
}

/* Whether one of those that share a fused tensor has a rule of its own. */
static inline bool derived_overlaps(const struct derivation *d, const struct weight_rule *r,
                                    const struct nn_slot *s, bool bias)
{
    for (int i = 0; i < d->n_slots; i++) {
        const struct nn_slot *other = &d->slots[i];
        int part;

        if (other->layer == s->layer && other->branch == s->branch &&
            derived_part(d, r, other) >= 0 && derived_own_rule(d, other, bias, &part))
            return true;
    }
    return false;
}

/* The rule that a slot's tensors are named by: one of its own, else one that it shares with others
 * that have none either. */
static inline const struct weight_rule *derived_rule(const struct derivation *d,
                                                     const struct nn_slot *s, bool bias, int *part)
{
    const struct weight_rule *own = derived_own_rule(d, s, bias, part);

    for (const struct weight_rule *r = d->m->family->weights; !own && r->pattern; r++) {
        *part = derived_part(d, r, s);
        if (*part >= 0 && r->to.kind != TARGET_SLOTS && r->to.bias == bias &&
            !derived_overlaps(d, r, s, bias))
            return r;
    }
    return own;
}

static inline bool derived_has(const struct tiny *t, const char *module, const char *part)
{
    size_t n = strlen(module);

    for (size_t i = 0; i < t->n_tensors; i++)
        if (!strncmp(t->tensors[i].name, module, n) && !strcmp(t->tensors[i].name + n, part))
            return true;
    return false;
}

/* The rows of all slots that share a fused tensor. */
static inline int derived_rows(const struct derivation *d, const struct weight_rule *r,
                               const struct nn_slot *s)
{
    int rows = 0, part;

    if (r->to.kind == TARGET_SLOTS)
        return s->n_out;
    if (r->to.kind == TARGET_LATENT) {
        const struct mla_spec *m = &d->m->spec->layers[s->layer].branches[s->branch].mla;

        return m->n_heads * (m->nope_dim + m->v_dim);
    }
    for (int i = 0; i < d->n_slots; i++)
        if (d->slots[i].layer == s->layer && d->slots[i].branch == s->branch) {
            part = derived_part(d, r, &d->slots[i]);
            rows += part >= 0 ? d->slots[i].n_out : 0;
        }
    return rows;
}

static inline void derived_add(struct derivation *d, const struct nn_slot *s, bool bias)
{
    int part, layer = s->layer, n_in = bias ? 0 : s->n_in;
    const struct weight_rule *r = derived_rule(d, s, false, &part);
    bool own = bias && (!r || r->to.bare);
    const char *suffix;
    int rows, n;

    if (own)
        r = derived_rule(d, s, true, &part);
    if (!r && s->optional)
        return;
    if (!r)
        tiny_die(weight_role_name(s->role));
    suffix = r->to.bare || own ? "" : bias ? ".bias" : ".weight";
    rows = bias && s->n_bias ? s->n_bias : derived_rows(d, r, s);
    if (r->to.kind == TARGET_LATENT)
        n_in = d->m->spec->layers[layer].branches[s->branch].mla.kv_rank;
    layer -= r->to.second ? d->m->spec->second_layers : 0;
    n = strchr(r->pattern, '#') ? s->n_experts : 1;
    for (int e = 0; e < n; e++) {
        char module[256];
        int stack = n == 1 && r->to.kind != TARGET_LATENT ? s->n_experts : 0;
        int n_out = rows + e * s->growth;

        derived_name(module, sizeof module, r->pattern, layer, e,
                     r->to.kind == TARGET_SLOTS ? part : 0);
        if (derived_has(d->t, module, suffix))
            continue;
        if (strchr(r->pattern, '#'))
            stack = 0;
        if (r->to.transposed && n_in)
            tiny_add(d->t, module, suffix, DTYPE_BF16, stack, n_in, n_out);
        else
            tiny_add(d->t, module, suffix, DTYPE_BF16, stack, n_out, n_in);
    }
}

/* Its tensors, for a config that is in order. */
static inline void tiny_derive(struct tiny *t, const char *config_text, device *dev)
{
    static struct derivation d;
    clm_error err = {0};
    struct model_format format = {.format = WEIGHT_BF16};
    struct model *m = model_random(config_text, "config.json", format, dev, NULL, &err);

    if (!m)
        tiny_die(err.message);
    *t = (struct tiny){.config = mem_strdup(config_text)};
    d = (struct derivation){.m = m, .t = t};
    nn_slots(m->nn, derived_collect, &d);
    for (int i = 0; i < d.n_slots; i++) {
        derived_add(&d, &d.slots[i], false);
        if (d.slots[i].bias)
            derived_add(&d, &d.slots[i], true);
    }
    model_close(m);
}

#endif
