/* models/bailing_linear.c: Ling and Ring with linear attention in most layers: lightning attention
 * beside attention (bailing_moe_linear) or attention to latents (bailing_hybrid), or, in version 3,
 * the delta rule beside attention to latents whose heads are gated.
 *
 *     x += mixer(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of w_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * Ring-linear, arXiv:2510.19338; lightning attention, 2405.17381; Kimi delta attention, 2510.26692
 */
#include <math.h>
#include <string.h>

#include "models/family.h"

enum kind { LINEAR, HYBRID, V3 };

/* Every so many layers, and in those of the last group that is not full, attention is full. */
static bool is_full(config *c, const struct spec *s, int layer)
{
    int group = config_int_in(c, "layer_group_size", 1, 4096);

    return config_layer_is(c, "layer_types", "full_attention", layer,
                           (layer + 1) % group == 0 || layer >= s->n_layers / group * group);
}

/* What remains of each head's state: exp of its slope times a factor that shrinks layer by layer.
 */
static const float *decays_of(config *c, const struct spec *s, int n_heads, enum kind kind,
                              int layer, arena *a)
{
    int place = kind == LINEAR && layer > 0 ? layer - 1 : layer;
    int last = s->n_layers > 1 ? s->n_layers - 1 : 1;
    const float *slopes = config_alibi(c, n_heads, 8, 1 - (double)place / last + 1e-5, a);
    float *decays = slopes ? arena_array(a, float, n_heads) : NULL;

    if (!decays) {
        fail(config_error(c), CLM_ERR_NOMEM, "decays of %d heads: no memory", n_heads);
        return NULL;
    }
    for (int i = 0; i < n_heads; i++)
        decays[i] = expf(-slopes[i]);
    return decays;
}

static struct lightning_spec read_lightning(config *c, const struct spec *s, enum kind kind,
                                            arena *a)
{
    int n_heads = config_int_in(c, "num_attention_heads", 1, 4096);
    int size = s->hidden_size / n_heads;
    int head_dim = kind == HYBRID ? config_int_or(c, "head_dim", size) : size;
    bool normed = config_bool_or(c, "use_qk_norm", kind == HYBRID);
    struct lightning_spec l = {
        .n_heads = n_heads,
        .head_dim = head_dim,
        .qkv_bias = config_bool_or(c, "use_qkv_bias", false),
        .o_bias = config_bool_or(c, "use_bias", false),
        .rope = config_rope_partial(c, NULL, head_dim, 600000, a),
        .scale = attention_scale(head_dim),
        .norm = s->final_norm,
        .norm_groups = config_int(c, "group_norm_size"),
    };

    if (normed)
        l.q_norm = l.k_norm = s->final_norm;
    if (kind == HYBRID) {
        l.rope.interleaved = false;
        l.rope.dims = (int)(head_dim * config_float_or(c, "partial_rotary_factor", 0.5));
    }
    return l;
}

static struct delta_spec read_delta(config *c, const struct spec *s, enum activation conv)
{
    int n_heads = config_int_or(c, "num_attention_heads", 16);
    int head_dim = config_int_or(c, "linear_head_dim", config_int_or(c, "head_dim", 128));
    double bound = config_float_or(c, "kda_lower_bound", -5);

    if (!config_bool_or(c, "no_kda_lora", true))
        config_fail(c, "no_kda_lora", "decays and gates through ranks are not supported");
    if (!config_bool_or(c, "kda_safe_gate", true))
        config_fail(c, "kda_safe_gate", "decays without a lower bound are not supported");
    if (!(bound < 0))
        config_fail(c, "kda_lower_bound", "it is %g; it must be below 0", bound);
    return (struct delta_spec){
        .n_heads = n_heads,
        .n_key_heads = n_heads,
        .key_dim = head_dim,
        .value_dim = head_dim,
        .conv_width = config_int_or(c, "short_conv_kernel_size", 4),
        .conv_activation = conv,
        .convs_apart = true,
        .keywise = true,
        .decay_bound = (float)bound,
        .beta_scale = 1,
        .norm = s->final_norm,
        .gate_activation = ACT_SIGMOID,
    };
}

static struct mla_spec read_mla(config *c, const struct spec *s, enum kind kind, arena *a)
{
    struct mla_spec m = config_mla(c, kind == V3 ? 6000000 : 600000, a);

    if (!config_has(c, "q_lora_rank") && kind == HYBRID)
        m.q_rank = 0;
    if (kind == HYBRID || !config_by_transformers(c))
        m.a_bias = m.o_bias = kind == HYBRID && config_bool_or(c, "use_qkv_bias", false);
    m.q_norm = m.kv_norm = s->final_norm;
    if (m.rope.kind != ROPE_PROPORTIONAL)
        m.rope.dims = m.rope_dim;
    if (kind == V3)
        m.gate = GATE_HEADS;
    if (kind == V3 && !m.rope.interleaved)
        config_fail(c, "rope_interleave", "it must be true");
    return m;
}

static struct attention_spec read_attention(config *c, const struct spec *s, arena *a)
{
    struct attention_spec at = config_attention_partial(c, s, 600000, a);

    at.qkv_bias = config_bool_or(c, "use_qkv_bias", false);
    at.o_bias = config_bool_or(c, "use_bias", false);
    if (config_bool_or(c, "use_qk_norm", false))
        at.q_norm = at.k_norm = s->final_norm;
    return at;
}

static struct moe_spec read_moe(config *c, struct mlp_spec mlp, enum kind kind)
{
    struct moe_spec moe = bailing_moe(c, mlp);

    moe.router.groups_alone = kind != LINEAR;
    if (kind == LINEAR)
        return moe;
    moe.router_bias = kind == V3 || config_bool_or(c, "moe_router_enable_expert_bias", true);
    if (kind == V3) /* of a lone expert too */
        moe.router.normalize = config_bool_or(c, "moe_renormalize", true);
    if (kind == V3 || !config_has(c, "score_function"))
        moe.router.score = ROUTER_SIGMOID;
    if (kind == HYBRID && config_has(c, "moe_shared_expert_intermediate_size") &&
        moe.shared.intermediate_size)
        moe.shared.intermediate_size = config_int(c, "moe_shared_expert_intermediate_size");
    return moe;
}

static enum kind kind_of(config *c)
{
    const char *const *architectures;
    int n = config_strings(c, "architectures", &architectures);
    const char *type = config_string_or(c, "model_type", "");

    if (strcmp(type, "bailing_moe_linear") == 0)
        return LINEAR;
    if (strcmp(type, "bailing_moe_v3") == 0)
        return V3;
    return n > 0 && (strcmp(architectures[0], "BailingMoeV3ForCausalLM") == 0 ||
                     strcmp(architectures[0], "BailingHybridForCausalLM") == 0)
               ? V3
               : HYBRID;
}

static const char v3_defaults[] =
    "{\"vocab_size\": 157184, \"hidden_size\": 1536, \"intermediate_size\": 4608, "
    "\"moe_intermediate_size\": 512, "
    "\"num_hidden_layers\": 24, \"num_attention_heads\": 16, \"num_experts\": 128, "
    "\"num_experts_per_tok\": 8, \"num_shared_experts\": 1, \"n_group\": 8, "
    "\"routed_scaling_factor\": 2.5, \"layer_group_size\": 4, \"q_lora_rank\": 256, "
    "\"rms_norm_eps\": 1e-06, \"max_position_embeddings\": 131072}";

static int bailing_linear_spec(struct spec *s, config *c, arena *a)
{
    enum kind kind = kind_of(c);
    struct mlp_spec mlp;
    int first_sparse = config_int_or(c, "first_k_dense_replace", kind == V3 ? 1 : 0);
    struct lightning_spec lightning = {0};
    struct delta_spec delta = {0};
    struct mla_spec mla = {0};
    struct attention_spec attention = {0};
    struct moe_spec moe;

    if (kind == V3)
        config_defaults(c, v3_defaults);
    if (kind == V3 && !config_has(c, "num_experts_per_token"))
        config_defaults(c, "{\"moe_shared_expert_intermediate_size\": 512}");
    mlp = config_gated_mlp(c);
    mlp.bias = kind != V3 && config_bool_or(c, "use_bias", false);
    if (kind == HYBRID)
        config_require(
            c, "num_key_value_heads num_shared_experts n_group topk_group first_k_dense_replace "
               "rope_theta max_position_embeddings routed_scaling_factor head_dim kv_lora_rank "
               "qk_rope_head_dim qk_nope_head_dim v_head_dim");
    moe = read_moe(c, mlp, kind);
    if (config_common(s, c, false, a))
        return -1;
    s->head_normed = kind == LINEAR && config_bool_or(c, "norm_head", false);
    s->final_norm = config_rms_norm(c);
    s->more_layers = true;
    if (kind == V3)
        delta = read_delta(c, s, mlp.activation);
    else
        lightning = read_lightning(c, s, kind, a);
    if (kind == LINEAR)
        attention = read_attention(c, s, a);
    else
        mla = read_mla(c, s, kind, a);
    for (int i = 0; i < s->n_layers && !config_error(c)->code; i++) {
        struct layer_spec *l = &s->layers[i];

        if (is_full(c, s, i) && kind == LINEAR) {
            layer_add(l, branch_attention(s->final_norm, attention));
        } else if (is_full(c, s, i)) {
            layer_add(l, branch_mla(s->final_norm, mla));
        } else if (kind == V3) {
            layer_add(l, branch_delta(s->final_norm, delta));
        } else {
            lightning.decays = decays_of(c, s, lightning.n_heads, kind, i, a);
            layer_add(l, branch_lightning(s->final_norm, lightning));
        }
        layer_add(l, config_layer_is(c, "mlp_layer_types", "sparse", i, i >= first_sparse)
                         ? branch_moe(s->final_norm, moe)
                         : branch_mlp(s->final_norm, mlp));
    }
    config_ignore(c, "num_nextn_predict_layers", "max_window_layers", "sliding_window",
                  "use_sliding_window", "use_rmsnorm", "rotary_dim", "mtp_loss_scaling_factor",
                  "group_norm_size", "use_qk_norm", "num_key_value_heads", NULL);
    return 0;
}

static const struct weight_rule bailing_linear_weights[] = {
    {"model.word_embeddings", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.attention.query_key_value", ATTENTION_QKV(0)},
    {"model.layers.*.attention.{query,key}_layernorm", ATTENTION_NORMS(0)},
    {"model.layers.*.attention.g_norm", SLOTS(0, ROLE_LIGHTNING_NORM)},
    {"model.layers.*.attention.{q,k,v,g,b,f,o}_proj", ONLY_SLOTS(OP_DELTA, 0, ROLE_DELTA_Q)},
    {"model.layers.*.attention.dense", ONLY_SLOTS(OP_DELTA, 0, ROLE_DELTA_O)},
    {"model.layers.*.attention.{q,k,v}_conv1d", SLOTS(0, ROLE_DELTA_CONV_Q)},
    {"model.layers.*.attention.{A_log,dt_bias,o_norm}", SLOTS(0, ROLE_DELTA_A)},
    {"model.layers.*.attention.{q_a_proj,q_b_proj,kv_a_proj_with_mqa,dense}",
     ONLY_SLOTS(OP_MLA, 0, ROLE_MLA_Q_A)},
    {"model.layers.*.attention.q_proj", SLOTS(0, ROLE_MLA_Q)},
    {"model.layers.*.attention.{q,kv}_a_layernorm", MLA_NORMS(0)},
    {"model.layers.*.attention.kv_b_proj", MLA_KV_B(0)},
    {"model.layers.*.attention.{embed_q,unembed_out}", MLA_HEADS(0)},
    {"model.layers.*.attention.g_proj", SLOTS(0, ROLE_ATTENTION_GATE)},
    {"model.layers.*.attention.dense", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.gate.expert_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.gate.gate_proj", ROUTER(1)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    /* The names that transformers has in memory, and with it adapters. */
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.self_attn.{q,k,v,g,b,f,o}_proj", ONLY_SLOTS(OP_DELTA, 0, ROLE_DELTA_Q)},
    {"model.layers.*.self_attn.forget_gate.f_proj", SLOTS(0, ROLE_DELTA_DECAY)},
    {"model.layers.*.self_attn.{q_a_proj,q_b_proj,kv_a_proj_with_mqa,o_proj}",
     ONLY_SLOTS(OP_MLA, 0, ROLE_MLA_Q_A)},
    {"model.layers.*.self_attn.q_proj", SLOTS(0, ROLE_MLA_Q)},
    {"model.layers.*.self_attn.kv_b_proj", MLA_KV_B(0)},
    {"model.layers.*.self_attn.g_proj", SLOTS(0, ROLE_ATTENTION_GATE)},
    {NULL, IGNORE},
};

const struct family family_bailing_linear = {
    .name = "Ling and Ring, linear attention",
    .model_types = {"bailing_moe_linear", "bailing_hybrid", "bailing_moe_v3"},
    .spec = bailing_linear_spec,
    .weights = bailing_linear_weights,
};
