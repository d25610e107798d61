/* models/jamba.c: Jamba: state spaces with some attention without positions, dense or with experts.
 *
 *     x += mamba or attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)), or the k best experts of that kind,  n = rms_norm(x)
 *
 * arXiv:2403.19887
 */
#include <string.h>

#include "models/family.h"

/* By layers_block_type where that is there, else by period and offset. */
static bool is_attention(config *c, int layer)
{
    const char *const *types;
    int n = config_strings(c, "layers_block_type", &types);
    int period = config_int_in(c, "attn_layer_period", 1, 4096);
    int offset = config_int(c, "attn_layer_offset");

    if (n < 0)
        return layer % period == offset;
    if (layer >= n)
        return config_fail(c, "layers_block_type", "it has %d entries, too few for layer %d", n,
                           layer);
    if (strcmp(types[layer], "mamba") != 0 && strcmp(types[layer], "attention") != 0)
        config_fail(c, "layers_block_type", "layer %d is of the unknown type \"%s\"", layer,
                    types[layer]);
    return strcmp(types[layer], "attention") == 0;
}

/* With a period other than 2, mlx-lm counts from the other side. */
static bool has_experts(config *c, int layer, int n_experts)
{
    int period = config_int_in(c, "expert_layer_period", 1, 4096);
    int offset = config_int(c, "expert_layer_offset");

    if (config_by_transformers(c))
        return n_experts > 1 && layer % period == offset;
    return n_experts > 1 && ((int64_t)layer + offset) % period == 0;
}

static struct mamba_spec mamba_of(config *c, const struct spec *s, struct norm_spec norm)
{
    int expand = config_int_in(c, "mamba_expand", 1, 1024);

    return (struct mamba_spec){
        .channels = s->hidden_size <= INT32_MAX / expand ? expand * s->hidden_size : 0,
        .state_size = config_int(c, "mamba_d_state"),
        .conv_width = config_int(c, "mamba_d_conv"),
        .dt_rank = config_dt_rank(c, "mamba_dt_rank", s->hidden_size),
        .conv_bias = config_bool_or(c, "mamba_conv_bias", true),
        .bias = config_bool_or(c, "mamba_proj_bias", false),
        .bcdt_norm = norm,
    };
}

static int jamba_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct moe_spec moe = {
        .router =
            {
                /* mlx-lm divides the weights by their sum. */
                .score = config_by_transformers(c) ? ROUTER_SOFTMAX_ALL : ROUTER_SOFTMAX_SELECTED,
                .n_experts = config_int(c, "num_experts"),
                .n_experts_per_token = config_int(c, "num_experts_per_tok"),
                .scale = 1,
            },
        .expert = mlp,
    };
    struct attention_spec attention;
    struct mamba_spec mamba;

    if (config_common(s, c, true, a))
        return -1;
    attention = config_attention_plain(c, s);
    mamba = mamba_of(c, s, norm);
    mamba.conv_activation = mlp.activation;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        struct layer_spec *l = &s->layers[i];

        layer_add(l, is_attention(c, i) ? branch_attention(norm, attention)
                                        : branch_mamba(norm, mamba));
        layer_add(l, has_experts(c, i, moe.router.n_experts) ? branch_moe(norm, moe)
                                                             : branch_mlp(norm, mlp));
    }
    config_ignore(c, "mamba_inner_layernorms", "use_mamba_kernels", "use_mambapy",
                  "use_associative_scan", "num_logits_to_keep", "sliding_window",
                  "calc_logits_for_entire_prompt", NULL);
    return 0;
}

static const struct weight_rule jamba_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.mamba.in_proj", SSM_XZ(0)},
    {"model.layers.*.mamba.conv1d", CONV(0)},
    {"model.layers.*.mamba.x_proj", SLOTS(0, ROLE_SSM_BCDT)},
    {"model.layers.*.mamba.dt_proj", SLOTS(0, ROLE_SSM_DT)},
    {"model.layers.*.mamba.{b,c,dt}_layernorm", SLOTS(0, ROLE_SSM_B_NORM)},
    {"model.layers.*.mamba.{A_log,D}", SSM_VECTORS(0)},
    {"model.layers.*.mamba.out_proj", SLOTS(0, ROLE_SSM_OUT)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.pre_ff_layernorm", PRE_NORM(1)},
    {"model.layers.*.feed_forward.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.feed_forward.router", ROUTER(1)},
    {"model.layers.*.feed_forward.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.feed_forward.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.final_layernorm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_jamba = {
    .name = "Jamba",
    .model_types = {"jamba"},
    .spec = jamba_spec,
    .weights = jamba_weights,
};
