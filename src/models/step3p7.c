/* models/step3p7.c: what config.json says of the text of Step 3.7, which is Step 3.5 as
 * transformers has it: other defaults, and a schema of its own beside the published one.
 *
 * Step-3.7-Flash, StepFun 2026
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/family.h"

/* A key with a second name, which comes first where a file has both. */
static int either(config *c, const char *second, const char *key, int otherwise)
{
    int value = config_int_or(c, key, otherwise);

    return config_int_or(c, second, value);
}

static double of_layer(config *c, const char *key, int layer, double otherwise)
{
    const double *items;
    int n = config_floats_or_nulls(c, key, &items);

    if (n > 0 && layer >= n)
        config_fail(c, key, "%d entries, too few for layer %d", n, layer);
    return layer < n ? items[layer] : otherwise;
}

/* moe_layers_enum is a text such as "1,2,5", or a list. */
static bool is_enumerated(config *c, int layer)
{
    const char *key = "moe_layers_enum", *text;
    const int *items;
    int n;

    if (config_kind(c, key) == CONFIG_ARRAY) {
        n = config_ints(c, key, &items);
        for (int i = 0; i < n; i++)
            if (items[i] == layer)
                return true;
        return false;
    }
    for (text = config_string_or(c, key, ""); *text;) {
        char *end;
        long item = strtol(text, &end, 10);

        if (end == text || (*end && *end != ','))
            return config_fail(c, key, "\"%s\" is no list of numbers", text);
        if (item == layer)
            return true;
        text = *end ? end + 1 : end;
    }
    return false;
}

static bool is_sparse(config *c, int layer)
{
    return config_layer_is(c, "mlp_layer_types", "sparse", layer,
                           config_has(c, "moe_layers_enum") ? is_enumerated(c, layer) : layer > 2);
}

static struct moe_spec read_moe(config *c, struct mlp_spec mlp)
{
    struct moe_spec moe = {
        .router = {.score = ROUTER_SIGMOID,
                   .n_experts = either(c, "moe_num_experts", "n_routed_experts", 288),
                   .n_experts_per_token = either(c, "moe_top_k", "num_experts_per_tok", 8),
                   .normalize = true,
                   .scale = (float)config_float_or(c, "moe_router_scaling_factor", 1)},
        .router_bias = true,
        .expert = mlp,
        .shared = mlp,
    };

    if (config_has(c, "num_local_experts"))
        moe.router.n_experts = config_int(c, "num_local_experts");
    moe.expert.intermediate_size = config_int_or(c, "moe_intermediate_size", 1280);
    moe.expert.bias = false;
    moe.shared.intermediate_size = either(c, "share_expert_dims", "share_expert_dim", 1280);
    return moe;
}

/* Of a layer, that may have a number of its own; those that slide share another. */
static int heads_of(config *c, int layer, int n_heads, bool slides)
{
    config *layers = config_object(c, "per_layer_config");
    config *other = config_object(c, "attention_other_setting"), *own;
    char key[16];

    if (other) {
        if (config_int_or(other, "num_attention_groups", 0) !=
                config_int_or(c, "num_attention_groups", 0) &&
            config_has(other, "num_attention_groups"))
            config_fail(other, "num_attention_groups", "it differs from that of other layers");
        config_ignore(other, "head_dim", "attention_type", "true_head_dim", NULL);
    }
    if (layers) {
        snprintf(key, sizeof key, "%d", layer);
        own = config_object(layers, key);
        for (int i = 0; own && config_key(own, i); i++)
            if (strcmp(config_key(own, i), "num_attention_heads") != 0)
                config_fail(own, config_key(own, i), "no layer may have its own");
        return own ? config_int_or(own, "num_attention_heads", n_heads) : n_heads;
    }
    if (!slides)
        return n_heads;
    if (other)
        n_heads = config_int_or(other, "num_attention_heads", n_heads);
    return config_int_or(c, "num_sliding_attention_heads", n_heads);
}

/* The published schema has lists for all layers, of which those of one type are alike, and scales
 * layers that see everything. first is the first layer of the type. */
static struct rope_spec published_rope(config *c, bool slides, int first, int head_dim, arena *a)
{
    double theta = config_kind(c, "rope_theta") == CONFIG_ARRAY
                       ? of_layer(c, "rope_theta", first, 10000)
                       : config_float_or(c, "rope_theta", 10000);
    struct rope_spec r =
        slides ? rope_plain(head_dim, theta) : config_rope(c, NULL, head_dim, theta, a);
    double part = of_layer(c, "partial_rotary_factors", first, 1);

    if (!(part > 0 && part <= 1))
        config_fail(c, "partial_rotary_factors", "%g is not above 0, and 1 at most", part);
    else
        r.dims = (int)(head_dim * part);
    return r;
}

static struct rope_spec rope_of(config *c, bool slides, int first, int head_dim, arena *a)
{
    const char *type = slides ? "sliding_attention" : "full_attention";
    config *of_types = config_object(c, "rope_parameters");
    config *scaling = config_object(c, "rope_scaling");

    if (!of_types || !config_key(of_types, 0))
        return published_rope(c, slides, first, head_dim, a);
    if (scaling)
        config_fail(c, "rope_scaling", "there are rope_parameters too");
    if (config_kind(of_types, config_key(of_types, 0)) != CONFIG_OBJECT)
        config_fail(c, "rope_parameters", "it is not of types of layers");
    return config_rope_partial(c, type, head_dim, 10000, a);
}

static struct attention_spec read_attention(config *c, struct norm_spec norm)
{
    bool bias = config_bool_or(c, "attention_bias", false);
    struct attention_spec at = {
        .n_heads = config_int_or(c, "num_attention_heads", 64),
        .n_kv_heads = either(c, "num_attention_groups", "num_key_value_heads", 8),
        .head_dim = config_int_or(c, "head_dim", 128),
        .qkv_bias = bias,
        .o_bias = bias,
        .q_norm = norm,
        .k_norm = norm,
        .gate = GATE_HEADS,
        .gate_activation = ACT_SIGMOID,
    };
    double scalar = config_float_or(c, "query_pre_attn_scalar", at.head_dim);

    if (!(scalar > 0))
        config_fail(c, "query_pre_attn_scalar", "it is %g; it must be positive", scalar);
    at.scale = (float)(1 / sqrt(scalar));
    return at;
}

/* What would make another model of it. */
static void check_fixed(config *c)
{
    static const struct {
        const char *key;
        bool value;
    } fixed[] = {{"use_head_wise_attn_gate", true},
                 {"norm_expert_weight", true},
                 {"use_moe_router_bias", true},
                 {"use_qk_norm", true},
                 {"use_moe", true},
                 {"use_bidirectional_attention", false}};

    for (size_t i = 0; i < COUNT(fixed); i++)
        if (config_bool_or(c, fixed[i].key, fixed[i].value) != fixed[i].value)
            config_fail(c, fixed[i].key, "it can only be %s", fixed[i].value ? "true" : "false");
    if (config_kind(c, "gating") == CONFIG_STRING || !config_bool_or(c, "gating", true))
        config_fail(c, "gating", "it can only be true");
    config_ignore(c, "moe_every_n_layer", "moe_router_activation", "att_impl_type",
                  "num_nextn_predict_layers", "num_mtp_layers", "mtp_layer_types",
                  "mtp_mlp_layer_types", "yarn_only_types", "hidden_act",
                  "num_sliding_attention_heads", "rope_theta", "partial_rotary_factors", NULL);
}

int step3p7_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS,
                             .eps = (float)config_float_or(c, "rms_norm_eps", 1e-5)};
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "intermediate_size"),
                           .activation = ACT_SILU,
                           .gated = true,
                           .bias = config_bool_or(c, "mlp_bias", false)};
    struct moe_spec moe = read_moe(c, mlp);
    struct attention_spec at = read_attention(c, norm);
    int first[2] = {-1, -1}, n_heads = at.n_heads; /* the first layer that sees all, or slides */

    check_fixed(c);
    if (config_common(s, c, false, a))
        return -1;
    s->final_norm = norm;
    s->more_layers = true;
    for (int i = 0; i < s->n_layers && !config_error(c)->code; i++) {
        bool slides;

        at.window = config_window(c, i, 0);
        slides = at.window > 0;
        at.n_heads = heads_of(c, i, n_heads, slides);
        if (first[slides] < 0)
            first[slides] = i;
        at.rope = rope_of(c, slides, first[slides], at.head_dim, a);
        layer_add(&s->layers[i], branch_attention(norm, at));
        mlp.limit = moe.shared.limit = (float)of_layer(c, "swiglu_limits_shared", i, 0);
        moe.expert.limit = (float)of_layer(c, "swiglu_limits", i, 0);
        layer_add(&s->layers[i], is_sparse(c, i) ? branch_moe(norm, moe) : branch_mlp(norm, mlp));
    }
    return 0;
}
