/* models/gpt_oss.c: gpt-oss: experts with biases and a clamped product, attention sinks, every
 * other layer sliding.
 *
 *     x += attention(rms_norm(x))
 *     x += sum over the k best e of softmax(best)_e expert_e(rms_norm(x))
 *
 * arXiv:2508.10925
 */
#include "models/family.h"

static int gpt_oss_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct moe_spec moe = {
        .router =
            {
                .score = ROUTER_SOFTMAX_SELECTED,
                .n_experts = config_int(c, "num_local_experts"),
                .n_experts_per_token = config_int_or(c, "num_experts_per_tok", 4),
                .scale = 1,
            },
        .router_logit_bias = true,
        .expert =
            {
                .intermediate_size = config_int(c, "intermediate_size"),
                .activation = ACT_SWIGLU_CLAMPED,
                .gated = true,
                .bias = true,
            },
    };
    int window = config_window_size(c, "sliding_window", 128);
    float alpha = (float)config_float_or(c, "swiglu_alpha", 1.702);
    float limit = (float)config_float_or(c, "swiglu_limit", 7);
    struct attention_spec attention;

    if (alpha == 0)
        return config_fail(c, "swiglu_alpha", "it is 0");
    if (!(limit > 0))
        return config_fail(c, "swiglu_limit", "it is %g; it must be positive", (double)limit);
    if (alpha != 1.702f || limit != 7) { /* else the activation has them */
        moe.expert.alpha = alpha;
        moe.expert.limit = limit;
    }
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = config_attention(c, s, 150000, a);
    attention.qkv_bias = attention.o_bias = config_bool_or(c, "attention_bias", true);
    attention.sinks = true;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = config_window(c, i, i % 2 ? 0 : window);
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_moe(norm, moe));
    }
    config_ignore(c, "hidden_act", "experts_per_token", "initial_context_length", NULL);
    return 0;
}

static const struct weight_rule gpt_oss_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.sinks", SLOTS(0, ROLE_SINKS)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.router", ROUTER(1)},
    {"model.layers.*.mlp.experts.gate_up_proj",
     {.kind = TARGET_INTERLEAVED,
      .branch = 1,
      .first = ROLE_EXPERT_GATE,
      .n = 2,
      .transposed = true}},
    {"model.layers.*.mlp.experts.gate_up_proj_bias",
     {.kind = TARGET_INTERLEAVED, .branch = 1, .first = ROLE_EXPERT_GATE, .n = 2, .bias = true}},
    {"model.layers.*.mlp.experts.gate_up_proj_blocks",
     {.kind = TARGET_INTERLEAVED, .branch = 1, .first = ROLE_EXPERT_GATE, .n = 2}},
    {"model.layers.*.mlp.experts.gate_up_proj_scales",
     {.kind = TARGET_INTERLEAVED, .branch = 1, .first = ROLE_EXPERT_GATE, .n = 2, .scales = true}},
    {"model.layers.*.mlp.experts.down_proj", BARE_TRANSPOSED_SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.mlp.experts.down_proj_bias",
     {.kind = TARGET_SLOTS, .branch = 1, .first = ROLE_EXPERT_DOWN, .bias = true}},
    {"model.layers.*.mlp.experts.down_proj_blocks", SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.mlp.experts.down_proj_scales",
     {.kind = TARGET_SLOTS, .branch = 1, .first = ROLE_EXPERT_DOWN, .scales = true}},
    {"model.layers.*.mlp.experts.{gate,up,down}_proj", EXPERTS(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_gpt_oss = {
    .name = "gpt-oss",
    .model_types = {"gpt_oss"},
    .spec = gpt_oss_spec,
    .weights = gpt_oss_weights,
};
