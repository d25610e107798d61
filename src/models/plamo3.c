/* models/plamo3.c: PLaMo 3: sandwich norms with offsets of their own, most layers slide.
 *
 *     x += norm(attention(norm(x)));  x += norm(mlp(norm(x)))
 *
 * A layer that slides sees window_size positions before its own, as the prompt does in the
 * reference. PLaMo 3 NICT, Preferred Networks 2025
 */
#include <math.h>

#include "models/family.h"

static int plamo3_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c), after_attention, after_mlp;
    struct mlp_spec mlp = config_gated_mlp(c);
    int window = config_int_or(c, "window_size", 2048);
    int every = config_int_or(c, "sliding_window_pattern", 8);
    double local_theta = config_float_or(c, "rope_local_theta", 10000);
    struct attention_spec attention;
    struct rope_spec rope;

    window = config_int_or(c, "sliding_window", window);
    if (every < 1)
        return config_fail(c, "sliding_window_pattern", "it is %d; it must be positive", every);
    if (window < 1 || window == INT32_MAX)
        return config_fail(c, "window_size", "it is %d; it must be positive", window);
    norm.offset = 1;
    after_attention = after_mlp = norm;
    after_attention.offset = 1.0f / 5;
    after_mlp.offset = (float)(1 / pow(5, 1.5));
    if (config_common(s, c, true, a))
        return -1;
    attention = config_attention(c, s, 1000000, a);
    attention.q_norm = attention.k_norm = norm;
    rope = attention.rope;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        bool full = (i + 1) % every == 0;

        attention.window = full ? 0 : window + 1;
        attention.rope = full ? rope : rope_plain(attention.head_dim, local_theta);
        layer_add(&s->layers[i], branch_attention(norm, attention))->post_norm = after_attention;
        layer_add(&s->layers[i], branch_mlp(norm, mlp))->post_norm = after_mlp;
    }
    config_ignore(c, "linear_type", "interleaved_sliding_window", NULL);
    return 0;
}

static const struct weight_rule plamo3_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.layers.*.pre_mixer_norm", PRE_NORM(0)},
    {"model.layers.layers.*.mixer.qkv_proj", ATTENTION_QKV(0)},
    {"model.layers.layers.*.mixer.o_proj", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.layers.*.mixer.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.layers.*.post_mixer_norm", POST_NORM(0)},
    {"model.layers.layers.*.pre_mlp_norm", PRE_NORM(1)},
    {"model.layers.layers.*.mlp.gate_up_proj", MLP_GATE_UP(1)},
    {"model.layers.layers.*.mlp.down_proj", SLOTS(1, ROLE_DOWN_PROJ)},
    {"model.layers.layers.*.post_mlp_norm", POST_NORM(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_plamo3 = {
    .name = "PLaMo 3",
    .model_types = {"plamo3"},
    .spec = plamo3_spec,
    .weights = plamo3_weights,
};
