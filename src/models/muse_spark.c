/* models/muse_spark.c: Muse Spark: gated attention whose heads are normed, residuals with gates,
 * experts that read and write fewer numbers, each answer normed.
 *
 *     x = norm(embedding)
 *     x = a x + b norm(o(norm(attention(n)) sigmoid(gate(n)))),  n = norm(x)
 *     x = a x + b norm(post(sum of w_e norm(expert_e(norm(pre(n)))))), n = norm(x);  or a plain mlp
 *
 * transformers' files hold norms' weights less 1, gates of residuals and heads turned by halves;
 * those that mlx-lm writes hold what the model uses, and heads turned by pairs.
 */
#include <string.h>

#include "models/family.h"

static struct moe_spec read_moe(config *c, struct norm_spec norm, struct norm_spec after)
{
    struct moe_spec moe = {
        .router = {.score = ROUTER_SIGMOID,
                   .n_experts = config_int_or(c, "num_local_experts", 256),
                   .n_experts_per_token = config_int_or(c, "num_experts_per_tok", 8),
                   .normalize = true,
                   .normalize_eps = 1e-15f,
                   .scale = (float)config_float_or(c, "routed_scaling_factor", 1)},
        .router_bias = true,
        .router_scale = (float)config_float_or(c, "output_multiplier", 0.1767766952966369),
        .expert = {.intermediate_size = config_int_or(c, "moe_intermediate_size", 4096),
                   .activation = config_activation(c, "hidden_act", ACT_SILU),
                   .gated = true},
        .latent_size = config_int_in(c, "moe_hidden_size", 1, 1 << 24),
        .latent_norm = norm,
        .each_norm = after,
    };

    if (config_int_or(c, "num_shared_experts", 0))
        config_fail(c, "num_shared_experts", "Muse Spark has none");
    return moe;
}

static struct attention_spec read_attention(config *c, struct spec *s, struct norm_spec norm,
                                            arena *a)
{
    struct attention_spec at = config_attention(c, s, 500000, a);

    norm.weightless = true;
    at.q_norm = at.k_norm = at.out_norm = s->embed_norm = norm;
    at.scale *= (float)config_float_or(c, "qk_scale_factor", 5.4730064863875);
    at.gate = GATE_ALL;
    at.gate_activation = ACT_SIGMOID;
    return at;
}

static int muse_spark_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS,
                             .eps = (float)config_float_or(c, "rms_norm_eps", 1e-5)};
    struct norm_spec bare = {.kind = NORM_RMS,
                             .eps = (float)config_float_or(c, "post_norm_eps", 1e-8),
                             .weightless = true};
    struct norm_spec after = {.kind = NORM_RMS, .eps = bare.eps, .scale_first = true};
    float temperature = (float)config_float_or(c, "residual_gate_temperature", 0.3);
    int window = config_window_size(c, "sliding_window", 2048);
    struct mlp_spec mlp = {.intermediate_size = config_int_or(c, "intermediate_size", 16384),
                           .activation = config_activation(c, "hidden_act", ACT_SILU),
                           .gated = true};
    struct moe_spec moe = read_moe(c, norm, after);
    struct attention_spec at;
    struct rope_spec rope;

    if (!(temperature > 0))
        return config_fail(c, "residual_gate_temperature", "it is %g; it must be positive",
                           (double)temperature);
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    at = read_attention(c, s, norm, a);
    rope = at.rope;
    s->final_norm = norm;
    s->logit_scale = moe.router_scale;
    s->logit_softcap = (float)config_float_or(c, "final_logit_softcapping", 20);
    for (int i = 0; i < s->n_layers; i++) {
        struct layer_spec *l = &s->layers[i];

        at.window = config_window(c, i, (s->n_layers - 1 - i) % 4 ? window : 0);
        at.rope = rope;
        if (!config_layer_turns(c, i, (s->n_layers - 1 - i) % 4 != 0))
            at.rope.kind = ROPE_NONE;
        layer_add(l, branch_attention(norm, at))->post_norm = bare;
        layer_add(l, config_layer_is(c, "mlp_layer_types", "sparse", i, true)
                         ? branch_moe(norm, moe)
                         : branch_mlp(norm, mlp))
            ->post_norm = after;
        l->branches[0].gate_temperature = l->branches[1].gate_temperature = temperature;
    }
    return 0;
}

static bool is_converted(const checkpoint *c)
{
    for (size_t i = 0; i < checkpoint_count(c); i++)
        if (strstr(checkpoint_at(c, i)->name, ".add_attn_alpha"))
            return true;
    return false;
}

static void muse_spark_adapt(struct spec *s, const checkpoint *c)
{
    bool converted = is_converted(c);
    float offset = converted ? 0 : 1;

    /* mlx-lm rounds what the first attention and the head read, whatever the weights' type. */
    s->layers[0].branches[0].pre_norm.rounded = s->final_norm.rounded = converted;
    for (int i = 0; i < s->n_layers; i++) {
        struct branch_spec *b = s->layers[i].branches;

        b[0].attention.rope.interleaved = converted;
        b[0].pre_norm.offset = b[1].pre_norm.offset = b[1].post_norm.offset = offset;
        if (b[1].op == OP_MOE)
            b[1].moe.latent_norm.offset = b[1].moe.each_norm.offset = offset;
    }
}

static const enum weight_role fused[] = {ROLE_Q_PROJ, ROLE_K_PROJ, ROLE_V_PROJ,
                                         ROLE_ATTENTION_GATE};

static const struct weight_rule muse_spark_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.qkvg_proj",
     {.kind = TARGET_SPLIT, .branch = 0, .first = ROLE_Q_PROJ, .n = 4, .roles = fused}},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.gate_proj", SLOTS(0, ROLE_ATTENTION_GATE)},
    {"model.layers.*.{add_attn_alpha,add_attn_beta}", SLOTS(0, ROLE_OLD_GATE)},
    {"model.layers.*.post_attention_residual_gate.gate", SLOTS(0, ROLE_RAW_GATE)},
    {"model.layers.*.pre_feedforward_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.gate.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.{pre_expert_proj,post_expert_proj}", SLOTS(1, ROLE_LATENT_IN)},
    {"model.layers.*.mlp.pre_expert_norm", SLOTS(1, ROLE_LATENT_NORM)},
    {"model.layers.*.mlp.experts.post_expert_norm", SLOTS(1, ROLE_EACH_NORM)},
    {"model.layers.*.mlp.experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.experts.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.post_feedforward_layernorm", POST_NORM(1)},
    {"model.layers.*.{add_ffn_alpha,add_ffn_beta}", SLOTS(1, ROLE_OLD_GATE)},
    {"model.layers.*.post_feedforward_residual_gate.gate", SLOTS(1, ROLE_RAW_GATE)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.vision_adapter.**", IGNORE},
    {"model.vision_projection.**", IGNORE},
    {NULL, IGNORE},
};

const struct family family_muse_spark = {
    .name = "Muse Spark",
    .model_types = {"muse_spark", "muse_spark_text"},
    .spec = muse_spark_spec,
    .adapt = muse_spark_adapt,
    .weights = muse_spark_weights,
};
