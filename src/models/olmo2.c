/* models/olmo2.c: OLMo 2 and 3: norms after the blocks, and over all heads of q and k.
 *
 *     x += rms_norm(attention(x));  x += rms_norm(mlp(x))
 *
 * Three of four layers of OLMo 3 slide; rope is scaled in the others alone. OLMo 2,
 * arXiv:2501.00656
 */
#include <string.h>

#include "models/family.h"

static int olmo2_spec(struct spec *s, config *c, arena *a)
{
    bool slides = strcmp(config_string_or(c, "model_type", ""), "olmo3") == 0;
    struct norm_spec norm = config_rms_norm(c), none = {0};
    struct mlp_spec mlp = config_gated_mlp(c);
    int window = config_window_size(c, "sliding_window", 4096);
    config *rope = config_object(c, "rope_parameters");
    struct rope_spec full, sliding;
    struct attention_spec attention;

    if (config_common(s, c, !slides, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.q_norm = attention.k_norm = norm;
    attention.qk_norm_span = QK_NORM_ALL;
    full = attention.rope;
    sliding = config_rope(c, "sliding_attention", attention.head_dim, 10000, a);
    if (!rope || !config_has(rope, "sliding_attention"))
        sliding = rope_plain(attention.head_dim, sliding.theta);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = slides ? config_window(c, i, (i + 1) % 4 ? window : 0) : 0;
        attention.rope = attention.window ? sliding : full;
        layer_add(&s->layers[i], branch_attention(none, attention))->post_norm = norm;
        layer_add(&s->layers[i], branch_mlp(none, mlp))->post_norm = norm;
    }
    return 0;
}

const struct family family_olmo2 = {
    .name = "OLMo 2, OLMo 3",
    .model_types = {"olmo2", "olmo3"},
    .spec = olmo2_spec,
    .weights = layout_post_norm,
};
