/* models/hunyuan_dense.c: Hunyuan dense: Llama with norms on q and k after rope.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 */
#include "models/family.h"

static int hunyuan_dense_spec(struct spec *s, config *c, arena *a)
{
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.o_bias = attention.qkv_bias;
    if (config_bool_or(c, "use_qk_norm", true))
        attention.q_norm = attention.k_norm = config_rms_norm(c);
    attention.qk_norm_after_rope = true;
    spec_layers(s, config_rms_norm(c), attention, mlp);
    config_ignore(c, "pretraining_tp", NULL);
    return 0;
}

const struct family family_hunyuan_dense = {
    .name = "Hunyuan, dense",
    .model_types = {"hunyuan_v1_dense", "hunyuan_vl", "hunyuan_vl_text"},
    .spec = hunyuan_dense_spec,
    .weights = layout_llama,
};
