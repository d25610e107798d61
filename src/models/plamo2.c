/* models/plamo2.c: PLaMo 2: state spaces with some attention, sandwich norms with offsets of their
 * own. B, C and the time steps are made of the convolved x, which is gated without a norm.
 *
 *     x += norm(mamba2 or attention(norm(x)));  x += norm(mlp(norm(x)))
 *
 * arXiv:2509.04897
 */
#include <math.h>

#include "models/family.h"

/* Every mamba_step-th layer, from the middle of the first on; the last of very few. */
static bool is_attention(const struct spec *s, int layer, int step)
{
    if (s->n_layers <= step / 2)
        return layer == s->n_layers - 1;
    return layer % step == step / 2;
}

static struct mamba2_spec mamba_of(config *c, const struct spec *s, struct norm_spec norm)
{
    norm.offset = 0;
    return (struct mamba2_spec){
        .n_heads = config_int_or(c, "mamba_num_heads", 64),
        .head_dim = config_int_or(c, "hidden_size_per_head", 128),
        .state_size = config_int_or(c, "mamba_d_state", 64),
        .n_groups = 1,
        .conv_width = config_int_or(c, "mamba_d_conv", 4),
        .dt_rank = s->hidden_size / 16 > 64 ? s->hidden_size / 16 : 64,
        .bcdt_norm = norm,
        .dt_low = 0.001f,
        .dt_high = 100,
    };
}

static struct attention_spec attention_of(config *c)
{
    struct norm_spec norm = {.kind = NORM_RMS, .eps = 1e-6f};
    int head_dim = config_int_or(c, "hidden_size_per_head", 128);

    return (struct attention_spec){
        .n_heads = config_int_or(c, "num_attention_heads", 32),
        .n_kv_heads = config_int_or(c, "num_key_value_heads", 4),
        .head_dim = head_dim,
        .q_norm = norm,
        .k_norm = norm,
        .qk_norm_span = QK_NORM_EACH,
        .rope = rope_plain(head_dim, 10000),
        .scale = attention_scale(head_dim),
    };
}

static int plamo2_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {
        .kind = NORM_RMS, .eps = (float)config_float_or(c, "rms_norm_eps", 1e-6), .offset = 1};
    struct norm_spec after_mixer = norm, after_mlp = norm;
    struct mlp_spec mlp = config_gated_mlp(c);
    struct attention_spec attention = attention_of(c);
    struct mamba2_spec mamba;
    bool enabled = config_bool_or(c, "mamba_enabled", true);
    int step = config_int_or(c, "mamba_step", 2);

    if (config_common(s, c, true, a))
        return -1;
    if (enabled && step < 2)
        return config_fail(c, "mamba_step", "it is %d; it must be above 1", step);
    mamba = mamba_of(c, s, norm);
    after_mixer.offset = 1.0f / 5;
    after_mlp.offset = (float)(1 / pow(5, 1.5));
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        struct layer_spec *l = &s->layers[i];
        bool attends = !enabled || is_attention(s, i, step);

        layer_add(l, attends ? branch_attention(norm, attention) : branch_mamba2(norm, mamba))
            ->post_norm = after_mixer;
        layer_add(l, branch_mlp(norm, mlp))->post_norm = after_mlp;
    }
    config_ignore(c, "attention_window_size", "full_attention_idx", "mamba_chunk_size",
                  "linear_type", "use_mamba_kernels", "eval_attention_n_bit", "eval_mlp_n_bit",
                  NULL);
    return 0;
}

static const struct weight_rule plamo2_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.layers.*.pre_mixer_norm", PRE_NORM(0)},
    {"model.layers.layers.*.mixer.in_proj",
     {.kind = TARGET_GROUPED, .branch = 0, .first = ROLE_SSM_Z, .n = 2}},
    {"model.layers.layers.*.mixer.conv1d", CONV(0)},
    {"model.layers.layers.*.mixer.bcdt_proj", SLOTS(0, ROLE_SSM_BCDT)},
    {"model.layers.layers.*.mixer.{B,C,dt}_norm_weight", SLOTS(0, ROLE_SSM_B_NORM)},
    {"model.layers.layers.*.mixer.dt_proj", SLOTS(0, ROLE_SSM_DT)},
    {"model.layers.layers.*.mixer.{A_log,D,dt_bias}", SSM_VECTORS(0)},
    {"model.layers.layers.*.mixer.out_proj", SLOTS(0, ROLE_SSM_OUT)},
    {"model.layers.layers.*.mixer.qkv_proj", ATTENTION_QKV(0)},
    {"model.layers.layers.*.mixer.o_proj", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.layers.*.mixer.{q,k}_weight", ATTENTION_NORMS(0)},
    {"model.layers.layers.*.post_mixer_norm", POST_NORM(0)},
    {"model.layers.layers.*.pre_mlp_norm", PRE_NORM(1)},
    {"model.layers.layers.*.mlp.gate_up_proj", MLP_GATE_UP(1)},
    {"model.layers.layers.*.mlp.down_proj", SLOTS(1, ROLE_DOWN_PROJ)},
    {"model.layers.layers.*.post_mlp_norm", POST_NORM(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_plamo2 = {
    .name = "PLaMo 2",
    .model_types = {"plamo2"},
    .spec = plamo2_spec,
    .weights = plamo2_weights,
};
