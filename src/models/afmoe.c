/* models/afmoe.c: Trinity: gated attention, sandwich norms, layers that slide turn and the others
 * do not, experts chosen by sigmoid scores with a bias.
 *
 *     x += norm(attention(norm(x)) * sigmoid(gate(norm(x))))
 *     x += norm(mlp(n)), or norm(sum over the k best e of w_e expert_e(n) + shared(n)),  n =
 * norm(x)
 *
 * Arcee Trinity, 2025
 */
#include <math.h>
#include <string.h>

#include "models/family.h"

static struct moe_spec read_moe(config *c, struct mlp_spec mlp)
{
    const char *scores = config_string_or(c, "score_func", "sigmoid");
    int size = config_int_in(c, "moe_intermediate_size", 1, 1 << 18);
    int shared = config_int_or(c, "num_shared_experts", 1);
    struct moe_spec moe = {
        .router =
            {
                .score = strcmp(scores, "sigmoid") == 0 ? ROUTER_SIGMOID : ROUTER_SOFTMAX_ALL,
                .n_experts = config_int_or(c, "num_experts", 128),
                .n_experts_per_token = config_int_or(c, "num_experts_per_tok", 8),
                .n_groups = config_int_or(c, "n_group", 1),
                .n_groups_kept = config_int_or(c, "topk_group", 1),
                .normalize = config_bool_or(c, "route_norm", true),
                .scale = (float)config_float_or(c, "route_scale", 2.826),
            },
        .router_bias = true,
        .expert = mlp,
        .shared = mlp,
    };

    if (strcmp(scores, "sigmoid") != 0 && strcmp(scores, "softmax") != 0)
        config_fail(c, "score_func", "unknown scores \"%s\" of experts", scores);
    if (shared > 64)
        config_fail(c, "num_shared_experts", "%d are too many", shared);
    config_router_origin(c, &moe.router);
    moe.expert.intermediate_size = size;
    moe.shared.intermediate_size = size * (shared <= 64 ? shared : 1);
    return moe;
}

static int afmoe_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct moe_spec moe = read_moe(c, mlp);
    int n_dense = config_int_or(c, "num_dense_layers", 2);
    struct attention_spec attention;
    struct rope_spec rope;
    int window = config_window_size(c, "sliding_window", 1024);
    int every = config_has(c, "global_attn_every_n_layers")
                    ? config_int_in(c, "global_attn_every_n_layers", 1, 4096)
                    : 4;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.q_norm = attention.k_norm = norm;
    attention.gate = GATE_ALL;
    attention.gate_activation = ACT_SIGMOID;
    rope = attention.rope;
    if (config_bool_or(c, "mup_enabled", true))
        s->embed_scale = (float)sqrt(s->hidden_size);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = config_window(c, i, (i + 1) % every ? window : 0);
        attention.rope = rope;
        if (!attention.window)
            attention.rope.kind = ROPE_NONE;
        layer_add(&s->layers[i], branch_attention(norm, attention))->post_norm = norm;
        layer_add(&s->layers[i], i < n_dense ? branch_mlp(norm, mlp) : branch_moe(norm, moe))
            ->post_norm = norm;
    }
    config_ignore(c, "num_expert_groups", "num_limited_groups", "load_balance_coeff", NULL);
    return 0;
}

static const struct weight_rule afmoe_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.self_attn.gate_proj", SLOTS(0, ROLE_ATTENTION_GATE)},
    {"model.layers.*.post_attention_layernorm", POST_NORM(0)},
    {"model.layers.*.pre_mlp_layernorm", PRE_NORM(1)},
    {"model.layers.*.post_mlp_layernorm", POST_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.router.gate", ROUTER(1)},
    {"model.layers.*.mlp.expert_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.experts.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_afmoe = {
    .name = "Trinity",
    .model_types = {"afmoe"},
    .spec = afmoe_spec,
    .weights = afmoe_weights,
};
