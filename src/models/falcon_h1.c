/* models/falcon_h1.c: Falcon-H1: a state space and attention side by side, multipliers everywhere.
 *
 *     x += ssm_out mamba2(ssm_in n) + attention_out attention(attention_in n),  n = rms_norm(x)
 *     x += m1 down(silu(m0 gate(n)) * up(n)),  n = rms_norm(x)
 *
 * Files that mlx-lm has converted hold the multipliers in their weights, but for those that it does
 * not know: of keys, and of what values are made of. arXiv:2507.22448
 */
#include <math.h>
#include <string.h>

#include "models/family.h"

/* Absent, a multiplier is 1 to transformers; mlx-lm has those of one model. */
static float multiplier(config *c, const char *key, double mlx)
{
    double m = config_float_or(c, key, config_by_transformers(c) ? 1 : mlx);

    if (m == 0)
        config_fail(c, key, "it is 0, which nothing passes");
    return (float)m;
}

static void read_multipliers(config *c, const char *key, const double *mlx, float *out, int n)
{
    const double *given;
    int n_given = config_floats(c, key, &given);

    if (n_given >= 0 && n_given != n) {
        config_fail(c, key, "%d numbers; it must be %d", n_given, n);
        return;
    }
    for (int i = 0; i < n; i++) {
        out[i] = (float)(n_given == n ? given[i] : config_by_transformers(c) ? 1 : mlx[i]);
        if (out[i] == 0)
            config_fail(c, key, "number %d is 0, which nothing passes", i);
    }
}

static struct branch_spec mamba_of(config *c, const struct spec *s, struct norm_spec norm)
{
    static const double defaults[] = {0.3535533905932738, 0.25, 0.3535533905932738, 0.5,
                                      0.3535533905932738};
    bool original = config_by_transformers(c);
    struct mamba2_spec m = config_mamba2(c, s);
    struct branch_spec b;
    float parts[5] = {0};
    int size = config_int_or(c, "mamba_d_ssm", m.n_heads * m.head_dim);

    if (config_kind(c, "mamba_d_head") != CONFIG_NUMBER)
        m.head_dim = size / m.n_heads;
    if (size != m.n_heads * m.head_dim)
        config_fail(c, "mamba_d_ssm", "it is %d; %d heads of %d are %d", size, m.n_heads,
                    m.head_dim, m.n_heads * m.head_dim);
    read_multipliers(c, "ssm_multipliers", defaults, parts, 5);
    m.z_scale = parts[0];
    m.x_scale = parts[1];
    m.b_scale = parts[2];
    m.c_scale = parts[3];
    m.dt_scale = parts[4];
    m.out_bias = config_bool_or(c, "projectors_bias", false);
    m.norm_before_gate = config_bool_or(c, "mamba_norm_before_gate", original);
    m.norm_groups = original ? m.n_groups : 1;
    if (!config_bool_or(c, "mamba_rms_norm", false))
        m.norm.kind = NORM_NONE;
    if (!original) {
        m.dt_low = 0;
        m.dt_high = INFINITY;
    }
    b = branch_mamba2(norm, m);
    b.in_scale = multiplier(c, "ssm_in_multiplier", 1.25);
    b.scale = multiplier(c, "ssm_out_multiplier", 0.23570226039551587);
    return b;
}

static struct branch_spec attention_of(config *c, const struct spec *s, struct norm_spec norm,
                                       arena *a)
{
    struct attention_spec attention = config_attention(c, s, 1e11, a);
    float in = multiplier(c, "attention_in_multiplier", 1);
    float keys = multiplier(c, "key_multiplier", 0.390625);
    struct branch_spec b;

    if (config_by_transformers(c))
        attention.scale *= keys;
    else if (in != 0)
        attention.v_scale = 1 / in; /* of values it leaves out the multiplier */
    b = branch_attention(norm, attention);
    b.in_scale = in;
    b.scale = multiplier(c, "attention_out_multiplier", 0.9375);
    b.parallel = b.shared_norm = true;
    return b;
}

static struct branch_spec mlp_of(config *c, struct norm_spec norm)
{
    static const double defaults[] = {0.8838834764831844, 0.5859375};
    struct mlp_spec mlp = config_gated_mlp(c);
    struct branch_spec b;
    float parts[2] = {0};

    read_multipliers(c, "mlp_multipliers", defaults, parts, 2);
    mlp.gate_scale = parts[0];
    b = branch_mlp(norm, mlp);
    b.scale = parts[1];
    return b;
}

static int falcon_h1_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct branch_spec branches[3];

    if (config_common(s, c, !config_by_transformers(c), a))
        return -1;
    branches[0] = mamba_of(c, s, norm);
    branches[1] = attention_of(c, s, norm, a);
    branches[2] = mlp_of(c, norm);
    s->embed_scale = multiplier(c, "embedding_multiplier", 5.656854249492381);
    s->logit_scale = multiplier(c, "lm_head_multiplier", 0.0390625);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++)
        for (int b = 0; b < 3; b++)
            layer_add(&s->layers[i], branches[b]);
    config_ignore(c, "mamba_use_mlp", "mlp_expansion_factor", "num_logits_to_keep", NULL);
    return 0;
}

/* As mlx-lm has it: filters [channels, width, 1], not [channels, 1, width]. Those of width 1 do not
 * tell, and mlx-lm takes them for converted and leaves the weights: they are what the one who wrote
 * config.json takes them for. */
static bool is_converted(const struct spec *s, const checkpoint *c)
{
    const struct branch_spec *b = s->layers[0].branches;

    if (b[0].mamba2.conv_width == 1)
        return b[1].attention.v_scale != 0;
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        const struct checkpoint_tensor *t = checkpoint_at(c, i);

        if (strstr(t->name, ".conv1d.weight") && t->n_dims == 3)
            return t->shape[2] <= t->shape[1];
    }
    return false;
}

static void falcon_h1_adapt(struct spec *s, const checkpoint *c)
{
    if (!is_converted(s, c))
        return;
    s->logit_scale =
        s->tie_word_embeddings && s->embed_scale != 0 ? s->logit_scale / s->embed_scale : 1;
    s->embed_scale = 1;
    for (int i = 0; i < s->n_layers; i++) {
        struct branch_spec *b = s->layers[i].branches;
        struct mamba2_spec *m = &b[0].mamba2;
        struct attention_spec *attention = &b[1].attention;

        m->z_scale = m->x_scale = m->b_scale = m->c_scale = m->dt_scale = 1;
        attention->v_scale = attention->v_scale != 0 ? 0 : b[1].in_scale;
        b[2].mlp.gate_scale = 1;
        for (int j = 0; j < 3; j++)
            b[j].scale = b[j].in_scale = 1;
    }
}

static const struct weight_rule falcon_h1_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.mamba.in_proj", SSM_IN(0)},
    {"model.layers.*.mamba.conv1d", CONV(0)},
    {"model.layers.*.mamba.{A_log,D,dt_bias}", SSM_VECTORS(0)},
    {"model.layers.*.mamba.{norm,out_proj}", SSM_NORM_OUT(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(1)},
    {"model.layers.*.pre_ff_layernorm", PRE_NORM(2)},
    {"model.layers.*.feed_forward.{gate,up,down}_proj", MLP(2)},
    {"model.final_layernorm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_falcon_h1 = {
    .name = "Falcon-H1",
    .model_types = {"falcon_h1"},
    .spec = falcon_h1_spec,
    .adapt = falcon_h1_adapt,
    .weights = falcon_h1_weights,
};
