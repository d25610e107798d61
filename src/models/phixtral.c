/* models/phixtral.c: Phixtral: Phi-2 with experts in place of the feed-forward.
 *
 *     n = layer_norm(x);  x += attention(n) + sum over the k best e of softmax(best)_e expert_e(n)
 *
 * Phi-2, Microsoft 2023
 */
#include "models/family.h"

static int phixtral_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {"num_vocab", "model_dim", "num_layers", "n_positions",
                                            "tie_word_embeddings"};
    struct norm_spec norm = {.kind = NORM_LAYER, .eps = 1e-5f, .bias = true};
    struct moe_spec moe = {
        .router = {.score = ROUTER_SOFTMAX_SELECTED,
                   .n_experts = config_int_or(c, "num_local_experts", 4),
                   .n_experts_per_token = config_int_or(c, "num_experts_per_tok", 2),
                   .scale = 1},
        .expert = {.activation = ACT_GELU_TANH, .bias = true},
    };
    struct attention_spec attention = {
        .n_heads = config_int_in(c, "num_heads", 1, 4096), .qkv_bias = true, .o_bias = true};

    if (config_common_named(s, c, &keys, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention.n_kv_heads = attention.n_heads;
    attention.head_dim = s->hidden_size / attention.n_heads;
    attention.scale = attention_scale(attention.head_dim);
    attention.rope = rope_plain(attention.head_dim, 10000);
    attention.rope.dims = config_int_or(c, "rotary_dim", 32);
    moe.expert.intermediate_size = s->hidden_size <= 1 << 20 ? 4 * s->hidden_size : 0;
    s->lm_head_bias = true;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        struct branch_spec *experts;

        layer_add(&s->layers[i], branch_attention(norm, attention));
        experts = layer_add(&s->layers[i], branch_moe(norm, moe));
        experts->parallel = experts->shared_norm = true;
    }
    return 0;
}

static const struct weight_rule phixtral_weights[] = {
    {"transformer.embd.wte", EMBED_TOKENS},
    {"transformer.h.*.ln", PRE_NORM(0)},
    {"transformer.h.*.mixer.Wqkv", ATTENTION_QKV(0)},
    {"transformer.h.*.mixer.out_proj", SLOTS(0, ROLE_O_PROJ)},
    {"transformer.h.*.moe.gate", ROUTER(1)},
    {"transformer.h.*.moe.switch_mlp.{fc1,fc2}", SLOTS(1, ROLE_EXPERT_UP)},
    {"transformer.h.*.moe.mlp.#.{fc1,fc2}", SLOTS(1, ROLE_EXPERT_UP)},
    {"lm_head.ln", FINAL_NORM},
    {"lm_head.linear", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_phixtral = {
    .name = "Phixtral",
    .model_types = {"phixtral", "phi-msft"},
    .spec = phixtral_spec,
    .weights = phixtral_weights,
};
