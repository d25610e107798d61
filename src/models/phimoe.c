/* models/phimoe.c: Phi-3.5 MoE: experts chosen by the sparse mixer, layer norms, biases throughout.
 *
 *     x += attention(layer_norm(x))
 *     x += sum over the k chosen e of p_e expert_e(layer_norm(x))
 *
 * arXiv:2404.14219, 2409.12136
 */
#include "models/family.h"

static int phimoe_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "rms_norm_eps", true);
    struct moe_spec moe = config_moe_local(c, 16);
    struct attention_spec attention;
    config *scaling = config_rope_object(c);

    if (config_by_transformers(c))
        moe.router.n_experts_per_token = 2; /* whatever the key says */
    moe.router.score = ROUTER_SPARSE_MIXER;
    moe.router.jitter = (float)config_float_or(c, "router_jitter_noise", 0.01);
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = config_attention(c, s, 10000, a);
    if (attention.rope.kind == ROPE_LONGROPE)
        attention.rope.attention_factor =
            config_float_or(scaling, "long_mscale", attention.rope.attention_factor);
    attention.qkv_bias = attention.o_bias = config_bool_or(c, "attention_bias", true);
    attention.window = config_int_or(c, "sliding_window", 0);
    s->lm_head_bias = config_bool_or(c, "lm_head_bias", true);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_moe(norm, moe));
    }
    config_ignore(c, "original_max_position_embeddings", "input_jitter_noise", NULL);
    return 0;
}

const struct family family_phimoe = {
    .name = "Phi-3.5 MoE",
    .model_types = {"phimoe"},
    .spec = phimoe_spec,
    .weights = layout_moe,
};
