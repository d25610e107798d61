/* models/glm.c: GLM-4 in its two dense forms: interleaved rope, fused gate and up; glm4 norms after
 * the blocks too.
 *
 *     glm     x += attention(rms_norm(x));            x += mlp(rms_norm(x))
 *     glm4    x += norm(attention(rms_norm(x)));      x += norm(mlp(rms_norm(x)))
 *
 * arXiv:2406.12793
 */
#include <string.h>

#include "models/family.h"

static int glm_spec(struct spec *s, config *c, arena *a)
{
    const char *type = config_string_or(c, "model_type", "");
    bool sees = strcmp(type, "glm4v_text") == 0 || strcmp(type, "glm_ocr_text") == 0;
    bool sandwich = strcmp(type, "glm4") == 0 || sees;
    struct norm_spec norm = config_rms_norm(c);
    struct attention_spec attention;

    if (config_common(s, c, !sandwich, a))
        return -1;
    s->tie_by_file |= sandwich; /* mlx-lm reads the head there is */
    attention = config_attention_partial(c, s, 10000, a);
    if (sees) /* whatever the keys say */
        attention.qkv_bias = strcmp(type, "glm4v_text") == 0;
    attention.o_bias = false;
    attention.rope.interleaved = config_bool_or(c, "rope_traditional", true);
    spec_layers(s, norm, attention, config_gated_mlp(c));
    for (int i = 0; i < s->n_layers && sandwich; i++)
        for (int b = 0; b < s->layers[i].n_branches; b++)
            s->layers[i].branches[b].post_norm = norm;
    return 0;
}

static const struct weight_rule glm_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.post_self_attn_layernorm", POST_NORM(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.gate_up_proj", MLP_GATE_UP(1)},
    {"model.layers.*.mlp.down_proj", SLOTS(1, ROLE_DOWN_PROJ)},
    {"model.layers.*.post_mlp_layernorm", POST_NORM(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_glm = {
    .name = "GLM-4",
    .model_types = {"glm", "glm4", "glm4v", "glm4v_text", "glm46v", "glmga", "glm_ocr",
                    "glm_ocr_text"},
    .spec = glm_spec,
    .weights = glm_weights,
};
