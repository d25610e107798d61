/* models/hunyuan.c: Hunyuan Large and A13B: experts beside a shared feed-forward; norms on q and k
 * after rope; in the large one layers take keys and values, as projected, from the layer before.
 *
 *     x += attention(rms_norm(x))
 *     x += sum over the k best e of softmax(router)_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * arXiv:2411.02265
 */
#include <string.h>

#include "models/family.h"

/* A number for all layers, or a list with one for each. */
static int of_layer(config *c, const char *key, int layer, int otherwise)
{
    const int *items;
    int n = config_int_or_ints(c, key, &items);

    if (n <= 0)
        return otherwise;
    if (config_kind(c, key) != CONFIG_ARRAY)
        return items[0];
    if (layer < n)
        return items[layer];
    config_fail(c, key, "%d entries, too few for layer %d", n, layer);
    return otherwise;
}

static struct moe_spec moe_of(config *c, struct mlp_spec mlp, bool v1, int layer)
{
    struct moe_spec moe = {
        .router =
            {
                .score = ROUTER_SOFTMAX_ALL,
                .n_experts = config_int(c, "num_experts"),
                .n_experts_per_token = of_layer(c, "moe_topk", layer, 1),
                .normalize = v1, /* transformers does, mlx-lm's hunyuan does not */
                .scale = 1,
            },
        .expert = mlp,
        .shared = mlp,
    };
    int shared = of_layer(c, "num_shared_expert", layer, 1);

    moe.expert.intermediate_size =
        of_layer(c, "moe_intermediate_size", layer, mlp.intermediate_size);
    if (shared > 64)
        config_fail(c, "num_shared_expert", "%d are too many", shared);
    else
        moe.shared.intermediate_size = mlp.intermediate_size * shared;
    if (!config_bool_or(c, "use_mixed_mlp_moe", v1))
        moe.shared.intermediate_size = 0;
    return moe;
}

static int hunyuan_spec(struct spec *s, config *c, arena *a)
{
    bool v1 = strcmp(config_string_or(c, "model_type", ""), "hunyuan_v1_moe") == 0;
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    bool shares = config_bool_or(c, "use_cla", false);
    int group = config_int_or(c, "cla_share_factor", 2);
    struct attention_spec attention;

    if (shares && group < 1)
        return config_fail(c, "cla_share_factor", "it is %d; it must be positive", group);
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= !v1; /* mlx-lm's has no head of its own */
    attention = config_attention(c, s, 10000, a);
    if (config_bool_or(c, "use_qk_norm", true))
        attention.q_norm = attention.k_norm = norm;
    attention.qk_norm_after_rope = true;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        if (shares)
            attention.kv_source = i % group ? KV_TAKEN : KV_KEPT;
        layer_add(&s->layers[i], branch_attention(norm, attention));
        if (config_int(c, "num_experts") > 1)
            layer_add(&s->layers[i], branch_moe(norm, moe_of(c, mlp, v1, i)));
        else
            layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "cla_share_factor", "pretraining_tp", "moe_topk", "num_shared_expert",
                  "use_mixed_mlp_moe", "moe_intermediate_size", NULL);
    return 0;
}

static const struct weight_rule hunyuan_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.qkv_proj", ATTENTION_GROUPED_QKV(0)},
    {"model.layers.*.self_attn.{query,key}_layernorm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.gate_and_up_proj", MLP_UP_GATE(1)},
    {"model.layers.*.mlp.gate.wg", ROUTER(1)},
    {"model.layers.*.mlp.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.#.gate_and_up_proj", SPLIT_BACK(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.shared_mlp.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.layers.*.mlp.shared_mlp.gate_and_up_proj", SPLIT_BACK(1, ROLE_SHARED_GATE, 2)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_hunyuan = {
    .name = "Hunyuan, experts",
    .model_types = {"hunyuan", "hunyuan_v1_moe"},
    .spec = hunyuan_spec,
    .weights = hunyuan_weights,
};
