/* models/mixtral.c: Mixtral: Mistral with a mixture of experts in place of the feed-forward.
 *
 *     x += attention(rms_norm(x))
 *     x += sum over the 2 best experts e of softmax(router)_e w2_e(silu(w1_e(n)) * w3_e(n)),  n =
 * rms_norm(x)
 *
 * arXiv:2401.04088
 */
#include "models/family.h"

static int mixtral_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct attention_spec attention;
    struct moe_spec moe = config_moe_local(c, 8);

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_plain(c, s);
    attention.window = config_int_or(c, "sliding_window", 0);
    attention.rope = config_rope_parameters(c, attention.head_dim, 1000000, false, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_moe(norm, moe));
    }
    config_ignore(c, "router_jitter_noise", "router_aux_loss_coef", "output_router_logits", NULL);
    return 0;
}

static const struct weight_rule mixtral_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.block_sparse_moe.gate", ROUTER(1)},
    {"model.layers.*.block_sparse_moe.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.block_sparse_moe.experts.#.{w1,w3,w2}", EXPERTS(1)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.experts.down_proj", SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_mixtral = {
    .name = "Mixtral",
    .model_types = {"mixtral"},
    .spec = mixtral_spec,
    .weights = mixtral_weights,
};
