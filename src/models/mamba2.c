/* models/mamba2.c: Mamba-2: layers of state spaces alone.
 *
 *     x += mamba2(rms_norm(x))
 *
 * arXiv:2405.21060
 */
#include <math.h>

#include "models/family.h"

static int mamba2_spec_of(struct spec *s, config *c, arena *a)
{
    bool original = config_by_transformers(c);
    struct norm_spec norm = {.kind = NORM_RMS, .eps = (float)config_float(c, "layer_norm_epsilon")};
    struct norm_spec pre_norm = norm;
    bool bias = config_bool(c, "use_bias");
    struct mamba2_spec m = {
        .n_heads = config_int(c, "num_heads"),
        .head_dim = config_int(c, "head_dim"),
        .state_size =
            config_int(c, config_has(c, "ssm_state_size") ? "ssm_state_size" : "state_size"),
        .n_groups = config_int_in(c, "n_groups", 1, 4096),
        .conv_width = config_int(c, "conv_kernel"),
        .conv_activation = config_activation(c, "hidden_act", ACT_SILU),
        .conv_bias = config_bool(c, "use_conv_bias"),
        .in_bias = bias,
        .out_bias = bias,
        .norm = norm,
    };

    config_time_step_limit(c, &m, 0, HUGE_VAL);
    if (config_common(s, c, false, a))
        return -1;
    if (!original)
        pre_norm.eps = 1e-5f;
    m.norm_groups = original ? m.n_groups : 1;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++)
        layer_add(&s->layers[i], branch_mamba2(pre_norm, m));
    config_ignore(c, "state_size", "intermediate_size", "expand", "time_step_rank", "chunk_size",
                  "time_step_min", "time_step_max", "time_step_floor", "residual_in_fp32",
                  "rescale_prenorm_residual", NULL);
    return 0;
}

static const struct weight_rule mamba2_weights[] = {
    {"backbone.embeddings", EMBED_TOKENS},
    {"backbone.layers.*.norm", PRE_NORM(0)},
    {"backbone.layers.*.mixer.in_proj", SSM_IN(0)},
    {"backbone.layers.*.mixer.conv1d", CONV(0)},
    {"backbone.layers.*.mixer.{A_log,D,dt_bias}", SSM_VECTORS(0)},
    {"backbone.layers.*.mixer.{norm,out_proj}", SSM_NORM_OUT(0)},
    {"backbone.norm_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_mamba2 = {
    .name = "Mamba-2",
    .model_types = {"mamba2"},
    .spec = mamba2_spec_of,
    .weights = mamba2_weights,
};
