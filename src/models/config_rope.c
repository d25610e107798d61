/* models/config_rope.c: rotary positions as a config.json describes them, in the schema of
 * transformers before and since version 5. */
#include <math.h>
#include <string.h>

#include "models/family.h"

struct rope_spec rope_plain(int head_dim, double theta)
{
    return (struct rope_spec){.kind = ROPE_DEFAULT,
                              .head_dim = head_dim,
                              .dims = head_dim,
                              .theta = theta,
                              .factor = 1,
                              .mscale = 1};
}

static enum rope_kind rope_kind_named(config *c, const char *key, const char *name)
{
    static const struct {
        const char *name;
        enum rope_kind kind;
    } kinds[] = {
        {"default", ROPE_DEFAULT},
        {"mrope", ROPE_DEFAULT}, /* with text alone its three positions are one */
        {"linear", ROPE_LINEAR},
        {"dynamic", ROPE_DYNAMIC},
        {"llama3", ROPE_LLAMA3},
        {"yarn", ROPE_YARN},
        {"deepseek_yarn", ROPE_YARN},
        {"telechat3-yarn", ROPE_YARN},
        {"longrope", ROPE_LONGROPE},
        {"su", ROPE_LONGROPE},
        {"proportional", ROPE_PROPORTIONAL},
    };

    for (size_t i = 0; i < COUNT(kinds); i++)
        if (strcmp(name, kinds[i].name) == 0)
            return kinds[i].kind;
    config_fail(c, key, "unknown rope type \"%s\"", name);
    return ROPE_DEFAULT;
}

/* transformers takes the older key where a file has both. */
static const char *rope_key(config *c)
{
    config *older = config_by_transformers(c) ? config_object(c, "rope_scaling") : NULL;

    if (older && config_key(older, 0))
        return "rope_scaling";
    return config_has(c, "rope_parameters") ? "rope_parameters" : "rope_scaling";
}

/* The type; where two keys say it, transformers takes rope_type, mlx-lm type. */
static const char *type_of(config *c, config *scaling)
{
    bool later = config_by_transformers(c);
    const char *type = config_string_or(scaling, later ? "type" : "rope_type", "default");

    return config_string_or(scaling, later ? "rope_type" : "type", type);
}

/* The length of the context, by the names that families have for it. */
static double longest(config *c, double otherwise)
{
    otherwise = config_float_or(c, "model_max_length", otherwise);
    otherwise = config_float_or(c, "max_seq_len", otherwise);
    return config_float_or(c, "max_position_embeddings", otherwise);
}

/* The length the model was trained at before its rope was stretched: beside the scaling, or at the
 * top. */
static double original_positions(config *c, config *scaling, double otherwise)
{
    const char *key = "original_max_position_embeddings";

    if (config_by_transformers(c))
        otherwise = longest(c, otherwise);
    otherwise = config_float_or(scaling, key, otherwise);
    otherwise = config_float_or(c, key, otherwise);
    if (!(otherwise > 1))
        config_fail(c, key, "it is %g; it must be above 1", otherwise);
    return otherwise;
}

/* Whether yarn's bounds stay unrounded. transformers looks for the key beside the types of layers,
 * not within each; mlx-lm nowhere. */
static bool keeps_bounds(config *c)
{
    config *all = config_object(c, rope_key(c));

    return config_by_transformers(c) && !config_bool_or(all, "truncate", true);
}

static void read_longrope(struct rope_spec *r, config *scaling, arena *a)
{
    const double *factors;
    double *copy;
    int n = config_floats(scaling, "long_factor", &factors);

    config_ignore(scaling, "short_factor", "short_mscale", "long_mscale", NULL);
    if (n != r->dims / 2) {
        config_fail(scaling, "long_factor", "%d numbers; %d pairs of a head turn", n < 0 ? 0 : n,
                    r->dims / 2);
        return;
    }
    copy = arena_array(a, double, (size_t)n + 1);
    for (int i = 0; copy && i < n; i++) {
        copy[i] = factors[i];
        if (!(factors[i] > 0))
            config_fail(scaling, "long_factor", "%g is not positive", factors[i]);
    }
    if (!copy)
        fail(config_error(scaling), CLM_ERR_NOMEM, "rope factors: no memory");
    r->factors = copy;
    r->n_factors = n;
}

/* Hunyuan's dynamic scaling is the same at every length: a larger theta. */
static void read_alpha(struct rope_spec *r, config *scaling)
{
    double alpha = config_float(scaling, "alpha");

    if (!(alpha > 0)) {
        config_fail(scaling, "alpha", "it is %g; it must be positive", alpha);
        return;
    }
    r->kind = ROPE_DEFAULT;
    if (r->dims > 2)
        r->theta *= pow(alpha, r->dims / (r->dims - 2.0));
    config_ignore(scaling, "factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", NULL);
}

/* What the kinds beyond the default ask for. mlx-lm stretches longrope by its long factors whatever
 * the length of the prompt, and clm with it: a cached prefix then never changes its rotation. */
static void read_scaling(struct rope_spec *r, config *c, config *scaling, arena *a)
{
    r->kind = rope_kind_named(scaling, "rope_type", type_of(c, scaling));
    r->max_positions = longest(c, 2048);
    switch (r->kind) {
    case ROPE_NONE:
    case ROPE_DEFAULT:
        config_ignore(scaling, "mrope_section", "mrope_interleaved", NULL);
        return;
    case ROPE_LINEAR:
        r->factor = config_float(scaling, "factor");
        config_ignore(scaling, "long_factor", "short_factor", NULL);
        return;
    case ROPE_DYNAMIC:
        if (config_has(scaling, "alpha")) {
            read_alpha(r, scaling);
            return;
        }
        r->factor = config_float(scaling, "factor");
        config_ignore(scaling, "original_max_position_embeddings", NULL);
        return;
    case ROPE_LLAMA3:
        r->factor = config_float(scaling, "factor");
        r->low_freq_factor = config_float_or(scaling, "low_freq_factor", 1);
        r->high_freq_factor = config_float_or(scaling, "high_freq_factor", 4);
        r->original_max_positions = original_positions(c, scaling, 8192);
        if (!(r->low_freq_factor > 0 && r->high_freq_factor > r->low_freq_factor))
            config_fail(scaling, "high_freq_factor",
                        "it is %g; it must be above low_freq_factor, %g", r->high_freq_factor,
                        r->low_freq_factor);
        return;
    case ROPE_YARN:
        r->factor = config_float(scaling, "factor");
        r->original_max_positions = original_positions(c, scaling, 4096);
        r->beta_fast = config_float_or(scaling, "beta_fast", 32);
        r->beta_slow = config_float_or(scaling, "beta_slow", 1);
        r->mscale = config_float_or(scaling, "mscale", 1);
        r->mscale_all_dim = config_float_or(scaling, "mscale_all_dim", 0);
        r->attention_factor = config_float_or(scaling, "attention_factor", 0);
        /* transformers takes the ratio of both only where it has both. */
        if (r->attention_factor <= 0 && r->factor > 1 && config_by_transformers(c) &&
            (config_float_or(scaling, "mscale", 0) == 0 || r->mscale_all_dim == 0))
            r->attention_factor = 0.1 * log(r->factor) + 1;
        r->no_truncate = keeps_bounds(c);
        config_ignore(scaling, "truncate", NULL);
        if (!(r->beta_fast > 0 && r->beta_slow > 0))
            config_fail(scaling, "beta_fast", "beta_fast and beta_slow must be positive");
        return;
    case ROPE_LONGROPE:
        r->original_max_positions = original_positions(c, scaling, 0);
        r->attention_factor = config_float_or(scaling, "attention_factor", 0);
        if (config_by_transformers(c) && config_has(scaling, "factor"))
            r->max_positions = config_float(scaling, "factor") * r->original_max_positions;
        config_ignore(scaling, "factor", NULL);
        read_longrope(r, scaling, a);
        return;
    case ROPE_PROPORTIONAL:
        r->factor = config_float_or(scaling, "factor", 1);
        return;
    }
}

/* The object of key that describes the rope, or NULL; with one for each type of layer, that of
 * layer_type. */
static config *rope_object(config *c, const char *key, const char *layer_type)
{
    config *all = config_object(c, key);
    const char *each = NULL;
    bool by_type = false;
    config *one;

    for (int i = 0; all && !by_type && (each = config_key(all, i)); i++)
        by_type = config_kind(all, each) == CONFIG_OBJECT;
    if (!by_type)
        return all;
    if (!layer_type)
        layer_type = "full_attention";
    one = config_object(all, layer_type);
    if (!one)
        config_fail(c, key, "it has no entry for \"%s\"", layer_type);
    return one;
}

/* A rope that is proportional is always of a part. */
static bool is_partial(config *c, config *scaling)
{
    return scaling && strcmp(type_of(c, scaling), "proportional") == 0;
}

/* The first part of a head turns. An odd number of it becomes even: one more, whose speeds are
 * those of the odd number, theta^(-2i / dims), in transformers, an error in mlx-lm. Proportional
 * speeds are of the whole head; there transformers leaves one number out, mlx-lm adds one. Whether
 * it was odd. */
static bool turn_part(struct rope_spec *r, config *c, double part, bool proportional)
{
    bool later = config_by_transformers(c);

    if (!(part > 0 && part <= 1)) {
        config_fail(c, "partial_rotary_factor", "it is %g; it must be above 0, and 1 at most",
                    part);
        return false;
    }
    r->dims = (int)(r->head_dim * part);
    if (r->dims % 2 == 0 || r->dims == r->head_dim)
        return false;
    if (proportional) {
        r->dims += later ? -1 : 1;
    } else if (later) {
        r->theta = pow(r->theta, (r->dims + 1.0) / r->dims);
        r->dims++;
    }
    return true;
}

void rope_interleave(struct rope_spec *r, config *c, bool on)
{
    r->interleaved = on && (r->kind != ROPE_LONGROPE || config_by_transformers(c));
}

/* part of a head turns where the scaling does not say; 0: all of it, whatever is said, but with
 * proportional speeds. */
static struct rope_spec read_rope(config *c, config *scaling, int head_dim, double theta,
                                  double part, arena *a)
{
    struct rope_spec r = rope_plain(head_dim, theta);
    bool partial = part != 0, odd;

    if (config_kind(c, "rope_theta") != CONFIG_ARRAY) /* else theta is that of the layer */
        r.theta = config_float_or(c, "rope_theta", theta);
    if (scaling)
        r.theta = config_float_or(scaling, "rope_theta", r.theta);
    if (!partial)
        part = is_partial(c, scaling) ? config_float_or(c, "partial_rotary_factor", 1) : 1;
    if (scaling && (partial || is_partial(c, scaling)))
        part = config_float_or(scaling, "partial_rotary_factor", part);
    odd = turn_part(&r, c, part, is_partial(c, scaling));
    if (scaling)
        read_scaling(&r, c, scaling, a);
    if (odd && (r.kind == ROPE_YARN || r.kind == ROPE_DYNAMIC))
        config_fail(c, "partial_rotary_factor", "it is %g: of %d numbers no even part turns", part,
                    head_dim);
    rope_interleave(&r, c, config_bool_or(c, "rope_traditional", false));
    return r;
}

config *config_rope_object(config *c)
{
    return rope_object(c, rope_key(c), NULL);
}

struct rope_spec config_rope(config *c, const char *layer_type, int head_dim, double theta,
                             arena *a)
{
    return read_rope(c, rope_object(c, rope_key(c), layer_type), head_dim, theta, 0, a);
}

/* The key at the top; a 0 there is an error, too. */
static double said_part(config *c, double otherwise)
{
    double part = config_float_or(c, "partial_rotary_factor", otherwise);

    return part == 0 ? -1 : part;
}

struct rope_spec config_rope_partial(config *c, const char *layer_type, int head_dim, double theta,
                                     arena *a)
{
    return read_rope(c, rope_object(c, rope_key(c), layer_type), head_dim, theta, said_part(c, 1),
                     a);
}

struct rope_spec config_rope_part(config *c, int head_dim, double theta, double part, arena *a)
{
    return read_rope(c, rope_object(c, rope_key(c), NULL), head_dim, theta, said_part(c, part), a);
}

struct rope_spec config_rope_fixed_part(config *c, int head_dim, double theta, double part,
                                        arena *a)
{
    return read_rope(c, rope_object(c, rope_key(c), NULL), head_dim, theta, part, a);
}

struct rope_spec config_rope_parameters(config *c, int head_dim, double theta, bool partial,
                                        arena *a)
{
    const char *key = config_by_transformers(c) ? rope_key(c) : "rope_parameters";

    return read_rope(c, rope_object(c, key, NULL), head_dim, theta, partial ? said_part(c, 1) : 0,
                     a);
}

struct rope_spec config_rope_sliding(config *c, int head_dim, arena *a)
{
    double theta = config_float_or(c, "rope_local_base_freq", 10000);

    if (config_has(c, "rope_parameters"))
        return config_rope(c, "sliding_attention", head_dim, theta, a);
    return rope_plain(head_dim, theta);
}
