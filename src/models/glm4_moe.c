/* models/glm4_moe.c: GLM 4.5, dots.llm1 and Solar Open: experts chosen by sigmoid scores with a
 * bias, in groups, beside shared ones; the first layers are dense.
 *
 *     x += attention(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of w_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * GLM-4.5, arXiv:2508.06471; dots.llm1, 2506.05767; the router, DeepSeek-V3, 2412.19437
 */
#include <string.h>

#include "models/family.h"

static int glm4_moe_spec(struct spec *s, config *c, arena *a)
{
    const char *type = config_string_or(c, "model_type", "");
    bool dots = strcmp(type, "dots1") == 0;
    struct norm_spec norm = config_rms_norm(c);
    int first_sparse = config_int_or(c, "first_k_dense_replace", 0);
    struct mlp_spec mlp = {.gated = true,
                           .activation = config_activation(c, "hidden_act", ACT_SILU)};
    struct moe_spec moe = config_moe_noaux(c, mlp);
    struct attention_spec attention;

    if (!dots)
        config_noaux_alone(c);
    if (first_sparse > 0)
        mlp.intermediate_size = config_int(c, "intermediate_size");
    if (config_common(s, c, false, a))
        return -1;
    /* mlx-lm reads the head there is. */
    s->tie_by_file |= !dots;
    attention = config_attention_plain(c, s);
    if (dots && !config_by_transformers(c)) { /* mlx-lm has biases elsewhere */
        attention.qkv_bias = false;
        mlp.bias = moe.shared.bias = config_bool_or(c, "mlp_bias", false);
    }
    attention.rope = dots ? config_rope(c, NULL, attention.head_dim, 1000000, a)
                          : config_rope_parameters(c, attention.head_dim, 1000000, true, a);
    attention.o_bias = dots && attention.qkv_bias;
    if (config_bool_or(c, "use_qk_norm", dots) &&
        !(strcmp(type, "solar_open") == 0 && config_by_transformers(c)))
        attention.q_norm = attention.k_norm = norm;
    s->final_norm = norm;
    s->more_layers = true;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = dots ? config_window(c, i, 0) : 0;
        layer_add(&s->layers[i], branch_attention(norm, attention));
        if (i < first_sparse)
            layer_add(&s->layers[i], branch_mlp(norm, mlp));
        else
            layer_add(&s->layers[i], branch_moe(norm, moe));
    }
    config_ignore(c, "intermediate_size", "num_nextn_predict_layers", "max_window_layers",
                  "sliding_window", NULL);
    return 0;
}

const struct family family_glm4_moe = {
    .name = "GLM 4.5, dots.llm1, Solar Open",
    .model_types = {"glm4_moe", "dots1", "solar_open", "glm4v_moe", "glm4v_moe_text", "sarvam_moe"},
    .spec = glm4_moe_spec,
    .weights = layout_moe,
};
