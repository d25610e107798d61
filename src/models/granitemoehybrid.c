/* models/granitemoehybrid.c: Granite 4: state spaces with some attention, dense or with experts.
 *
 *     x += m mamba2 or attention(rms_norm(x))
 *     x += m (shared(n) + sum over the k best e of softmax(best)_e expert_e(n)),  n = rms_norm(x)
 */
#include <string.h>

#include "models/family.h"

static bool is_attention(config *c, int layer)
{
    const char *const *types;
    const char *key = config_has(c, "layer_types") ? "layer_types" : "layers_block_type";
    int n = config_strings(c, key, &types);
    const char *type = layer < n ? types[layer] : NULL;

    if (n < 0 && config_by_transformers(c)) /* to which all are state spaces then */
        return false;
    if (!type)
        config_fail(c, key, "it has %d entries, too few for layer %d", n < 0 ? 0 : n, layer);
    else if (strcmp(type, "attention") == 0 || strcmp(type, "full_attention") == 0)
        return true;
    else if (strcmp(type, "mamba") != 0 && strcmp(type, "linear_attention") != 0)
        config_fail(c, key, "layer %d is of the unknown type \"%s\"", layer, type);
    return false;
}

static struct attention_spec attention_of(config *c, const struct spec *s, arena *a)
{
    struct attention_spec attention = config_attention_plain(c, s);
    /* Where nothing is said, transformers has no positions and mlx-lm has some. */
    const char *positions =
        config_string_or(c, "position_embedding_type", config_by_transformers(c) ? "nope" : "rope");

    attention.rope = config_rope_parameters(c, attention.head_dim, 10000, false, a);
    if (strcmp(positions, "nope") == 0)
        attention.rope = (struct rope_spec){.kind = ROPE_NONE};
    else if (strcmp(positions, "rope") != 0)
        config_fail(c, "position_embedding_type", "unknown kind of positions \"%s\"", positions);
    attention.scale = (float)config_float_or(c, "attention_multiplier", 1);
    return attention;
}

static struct mamba2_spec mamba_of(config *c, const struct spec *s)
{
    struct mamba2_spec m = config_mamba2(c, s);

    if (!config_by_transformers(c)) {
        m.norm_groups = 1;
        config_time_step_limit(c, &m, 0.001, 100);
    }
    return m;
}

/* The feed-forward that every token goes to, beside experts or alone. */
static struct mlp_spec shared_mlp(config *c, bool beside_experts)
{
    struct mlp_spec mlp = config_gated_mlp(c);

    if (beside_experts || config_by_transformers(c)) {
        mlp.intermediate_size = config_int(c, "shared_intermediate_size");
        mlp.bias = false;
    }
    config_ignore(c, "shared_intermediate_size", NULL);
    return mlp;
}

static struct branch_spec feed_forward(config *c, struct norm_spec norm)
{
    int n_experts = config_int_or(c, "num_local_experts", 0);
    struct mlp_spec shared = shared_mlp(c, n_experts > 0);
    struct moe_spec moe = {
        .router = {.score = ROUTER_SOFTMAX_SELECTED, .n_experts = n_experts, .scale = 1},
        .expert = shared,
        .shared = shared,
    };

    config_ignore(c, "num_experts_per_tok", NULL);
    if (n_experts == 0)
        return branch_mlp(norm, shared);
    moe.router.n_experts_per_token = config_int(c, "num_experts_per_tok");
    moe.expert.intermediate_size = config_int(c, "intermediate_size");
    return branch_moe(norm, moe);
}

static int granitemoehybrid_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    float residual = (float)config_float_or(c, "residual_multiplier", 1);
    double logits = config_float_or(c, "logits_scaling", 1);
    struct branch_spec mixer[2], mlp;

    if (config_common(s, c, true, a))
        return -1;
    if (!(logits > 0))
        return config_fail(c, "logits_scaling", "it is %g; it must be positive", logits);
    mixer[0] = branch_mamba2(norm, mamba_of(c, s));
    mixer[1] = branch_attention(norm, attention_of(c, s, a));
    mlp = feed_forward(c, norm);
    mixer[0].scale = mixer[1].scale = mlp.scale = residual;
    s->embed_scale = (float)config_float_or(c, "embedding_multiplier", 1);
    s->logit_scale = (float)(1 / logits);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], mixer[is_attention(c, i)]);
        layer_add(&s->layers[i], mlp);
    }
    return 0;
}

static const struct weight_rule granitemoehybrid_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.mamba.in_proj", SSM_IN(0)},
    {"model.layers.*.mamba.conv1d", CONV(0)},
    {"model.layers.*.mamba.{A_log,D,dt_bias}", SSM_VECTORS(0)},
    {"model.layers.*.mamba.{norm,out_proj}", SSM_NORM_OUT(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.shared_mlp.input_linear", MLP_GATE_UP(1)},
    {"model.layers.*.shared_mlp.output_linear", SLOTS(1, ROLE_DOWN_PROJ)},
    {"model.layers.*.block_sparse_moe.router.layer", ROUTER(1)},
    {"model.layers.*.block_sparse_moe.router", ROUTER(1)},
    {"model.layers.*.block_sparse_moe.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.block_sparse_moe.input_linear", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.block_sparse_moe.output_linear", SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.block_sparse_moe.experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.block_sparse_moe.experts.down_proj", SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_granitemoehybrid = {
    .name = "Granite 4",
    .model_types = {"granitemoehybrid"},
    .spec = granitemoehybrid_spec,
    .weights = granitemoehybrid_weights,
};
