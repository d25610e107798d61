/* models/mamba.c: Mamba and Falcon Mamba, which norms B, C and the time step without weights.
 *
 *     x += mamba(rms_norm(x))
 *
 * Mamba, arXiv:2312.00752; Falcon Mamba, 2410.05355
 */
#include <string.h>

#include "models/family.h"

static int mamba_spec_of(struct spec *s, config *c, arena *a)
{
    bool falcon = strcmp(config_string_or(c, "model_type", ""), "falcon_mamba") == 0;
    struct norm_spec norm = {.kind = NORM_RMS, .eps = 1e-5f};
    struct mamba_spec m = {
        .state_size = config_int(c, "state_size"),
        .conv_width = config_int(c, "conv_kernel"),
        .conv_activation = config_activation(c, "hidden_act", ACT_SILU),
        .conv_bias = config_bool(c, "use_conv_bias"),
        .bias = config_bool(c, "use_bias"),
    };

    if (config_common(s, c, true, a))
        return -1;
    m.channels = config_int(c, "intermediate_size");
    m.dt_rank = config_dt_rank(c, "time_step_rank", s->hidden_size);
    if (config_bool_or(c, "use_bcdt_rms", false) || falcon)
        m.bcdt_norm = (struct norm_spec){
            .kind = NORM_RMS,
            .eps = (float)config_float_or(c, "mixer_rms_eps", 1e-6),
            .weightless = true,
        };
    /* mlx-lm has the same eps whatever the config says. */
    if (config_by_transformers(c))
        norm.eps = (float)config_float_or(c, "layer_norm_epsilon", 1e-5);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++)
        layer_add(&s->layers[i], branch_mamba(norm, m));
    config_ignore(c, "expand", "layer_norm_epsilon", "mixer_rms_eps", "time_step_min",
                  "time_step_max", "time_step_floor", "time_step_scale", "time_step_init_scheme",
                  "residual_in_fp32", "rescale_prenorm_residual", "use_mambapy",
                  "use_falcon_mambapy", "use_associative_scan", NULL);
    /* Beside transformers' own keys, published checkpoints repeat the original ones. */
    config_ignore(c, "d_model", "d_inner", "d_state", "n_layer", "d_conv", "dt_rank", "conv_bias",
                  "bias", "ssm_cfg", "rms_norm", "fused_add_norm", "pad_vocab_size_multiple", NULL);
    return 0;
}

static const struct weight_rule mamba_weights[] = {
    {"backbone.embeddings", EMBED_TOKENS},
    {"backbone.layers.*.norm", PRE_NORM(0)},
    {"backbone.layers.*.mixer.in_proj", SSM_XZ(0)},
    {"backbone.layers.*.mixer.conv1d", CONV(0)},
    {"backbone.layers.*.mixer.x_proj", SLOTS(0, ROLE_SSM_BCDT)},
    {"backbone.layers.*.mixer.dt_proj", SLOTS(0, ROLE_SSM_DT)},
    {"backbone.layers.*.mixer.{A_log,D}", SSM_VECTORS(0)},
    {"backbone.layers.*.mixer.out_proj", SLOTS(0, ROLE_SSM_OUT)},
    {"backbone.norm_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_mamba = {
    .name = "Mamba, Falcon Mamba",
    .model_types = {"mamba", "falcon_mamba"},
    .spec = mamba_spec_of,
    .weights = mamba_weights,
};
