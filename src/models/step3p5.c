/* models/step3p5.c: Step 3.5: sliding layers with head counts and a rope of their own, attention
 * gated per head, experts chosen by sigmoid scores with a bias beside a shared one; products may be
 * clamped.
 *
 *     x += attention(rms_norm(x)) * sigmoid(gate(rms_norm(x)))
 *     x += mlp(n), or sum over the k best e of w_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * The published files hold w - 1 in every norm. Step-3.5-Flash, StepFun 2026
 */
#include <stdlib.h>
#include <string.h>

#include "models/family.h"

/* Entry of a list for each layer; otherwise where there is none. */
static double of_layer(config *c, const char *key, int layer, double otherwise)
{
    const double *items;
    int n = config_floats_or_nulls(c, key, &items);

    return layer < n ? items[layer] : otherwise;
}

/* moe_layers_enum is a text such as "1,2,5"; without it all layers but the first. */
static bool is_sparse(config *c, int layer)
{
    const char *text = config_string_or(c, "moe_layers_enum", "");
    bool any = *text;

    while (*text) {
        char *end;
        long n = strtol(text, &end, 10);

        if (end == text)
            return config_fail(c, "moe_layers_enum", "\"%s\" is no number", text);
        if (n == layer)
            return true;
        text = *end == ',' ? end + 1 : end;
    }
    return !any && layer > 0;
}

static struct rope_spec rope_of(config *c, int layer, int head_dim, arena *a)
{
    const char *const *types, *const *scaled;
    int n = config_strings(c, "layer_types", &types);
    int n_scaled = config_strings(c, "yarn_only_types", &scaled);
    const char *type = layer < n ? types[layer] : "full_attention";
    double theta = config_kind(c, "rope_theta") == CONFIG_ARRAY
                       ? of_layer(c, "rope_theta", layer, 10000)
                       : config_float_or(c, "rope_theta", 10000);
    bool scales = n_scaled <= 0;
    struct rope_spec r;

    for (int i = 0; i < n_scaled; i++)
        scales = scales || strcmp(scaled[i], type) == 0;
    r = scales ? config_rope(c, NULL, head_dim, theta, a) : rope_plain(head_dim, theta);
    r.dims = (int)(head_dim * of_layer(c, "partial_rotary_factors", layer, 1));
    return r;
}

static struct moe_spec read_moe(config *c, struct mlp_spec mlp)
{
    struct moe_spec moe = {
        .router = {.score = ROUTER_SIGMOID,
                   .n_experts = config_int_or(c, "moe_num_experts", 288),
                   .n_experts_per_token = config_int_or(c, "moe_top_k", 8),
                   .normalize = config_bool_or(c, "norm_expert_weight", true),
                   .normalize_eps = 1e-20f,
                   .scale = (float)config_float_or(c, "moe_router_scaling_factor", 3)},
        .router_bias = true,
        .expert = mlp,
        .shared = mlp,
    };

    moe.expert.intermediate_size = config_int_or(c, "moe_intermediate_size", 1280);
    moe.shared.intermediate_size = config_int_or(c, "share_expert_dim", 1280);
    return moe;
}

static struct attention_spec attention_of(config *c, int layer, struct norm_spec norm, arena *a)
{
    int window = config_window_size(c, "sliding_window", 512);
    config *other = config_object(c, "attention_other_setting"), *heads = c;
    struct attention_spec at = {.q_norm = norm, .k_norm = norm, .gate_activation = ACT_SIGMOID};

    at.window = config_window(c, layer, layer % 2 ? 0 : window);
    if (at.window && other)
        heads = other;
    at.n_heads = config_int_in(heads, "num_attention_heads", 1, 4096);
    at.n_kv_heads = config_int(heads, "num_attention_groups");
    at.head_dim = config_int_in(c, "head_dim", 1, 4096);
    at.scale = attention_scale(at.head_dim);
    at.rope = rope_of(c, layer, at.head_dim, a);
    if (config_bool_or(c, "use_head_wise_attn_gate", true))
        at.gate = GATE_HEADS;
    if (other)
        config_ignore(other, "head_dim", "attention_type", "true_head_dim", NULL);
    return at;
}

static int step_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS,
                             .eps = (float)config_float_or(c, "rms_norm_eps", 1e-5)};
    struct mlp_spec mlp;
    struct moe_spec moe;

    if (config_root_has(c, "text_config"))
        return step3p7_spec(s, c, a);
    mlp = config_gated_mlp(c);
    moe = read_moe(c, mlp);
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file = true; /* mlx-lm reads the head there is */
    s->final_norm = norm;
    s->more_layers = true;
    for (int i = 0; i < s->n_layers && !config_error(c)->code; i++) {
        float limit = (float)of_layer(c, "swiglu_limits_shared", i, 0);

        layer_add(&s->layers[i], branch_attention(norm, attention_of(c, i, norm, a)));
        mlp.limit = moe.shared.limit = limit;
        moe.expert.limit = (float)of_layer(c, "swiglu_limits", i, 0);
        layer_add(&s->layers[i], is_sparse(c, i) ? branch_moe(norm, moe) : branch_mlp(norm, mlp));
    }
    config_ignore(c, "use_moe", "moe_every_n_layer", "use_qk_norm", "moe_router_activation",
                  "use_moe_router_bias", "att_impl_type", "num_nextn_predict_layers", NULL);
    return 0;
}

/* Files as published name the experts "moe" and hold w - 1. */
static void step_adapt(struct spec *s, const checkpoint *c)
{
    if (!checkpoint_is_published(c, ".moe.", ".mlp.switch_mlp."))
        return;
    s->final_norm.offset = 1;
    for (int i = 0; i < s->n_layers; i++) {
        struct branch_spec *b = s->layers[i].branches;

        b[0].pre_norm.offset = b[1].pre_norm.offset = 1;
        b[0].attention.q_norm.offset = b[0].attention.k_norm.offset = 1;
    }
}

static const struct weight_rule step_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.self_attn.g_proj", SLOTS(0, ROLE_ATTENTION_GATE)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.gate.gate", ROUTER(1)},
    {"model.layers.*.mlp.gate.router_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.share_expert.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.layers.*.moe.gate", ROUTER(1)},
    {"model.layers.*.moe.router_bias", ROUTER_BIAS(1)},
    {"model.layers.*.moe.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.share_expert.{gate,up,down}_proj", SHARED_EXPERT(1)},
    /* The names that transformers has in memory, and with it adapters. */
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.experts.down_proj", SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.mlp.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.{eh_proj,enorm,hnorm}", IGNORE}, /* guesses of further tokens */
    {"model.layers.*.shared_head.**", IGNORE},
    {"model.layers.*.transformer.**", IGNORE},
    {NULL, IGNORE},
};

const struct family family_step3p5 = {
    .name = "Step 3.5, Step 3.7",
    .model_types = {"step3p5", "step3p7"},
    .spec = step_spec,
    .adapt = step_adapt,
    .weights = step_weights,
};
