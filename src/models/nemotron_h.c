/* models/nemotron_h.c: Nemotron-H: each layer is one of a state space, attention without positions,
 * a feed-forward and experts.
 *
 *     x += op(rms_norm(x))
 *
 * arXiv:2504.03624; latent experts, Nemotron 3, arXiv:2512.20856
 */
#include <math.h>
#include <string.h>

#include "models/family.h"

/* The layer's kind as hybrid_override_pattern writes it: M, *, - or E. */
static char kind_named(config *c, const char *key, const char *name)
{
    static const struct {
        const char *name;
        char kind;
    } kinds[] = {
        {"M", 'M'},
        {"mamba", 'M'},
        {"linear_attention", 'M'},
        {"conv", 'M'},
        {"*", '*'},
        {"attention", '*'},
        {"full_attention", '*'},
        {"-", '-'},
        {"mlp", '-'},
        {"E", 'E'},
        {"moe", 'E'},
    };

    for (size_t i = 0; i < COUNT(kinds); i++)
        if (strcmp(name, kinds[i].name) == 0)
            return kinds[i].kind;
    config_fail(c, key, "unknown kind of layer \"%s\"", name);
    return 'M';
}

/* The kinds of all layers, one character each; their number sets s->n_layers. NULL when c has
 * failed. */
static char *layer_kinds(struct spec *s, config *c, arena *a)
{
    static const char *const keys[] = {"hybrid_override_pattern", "layers_block_type",
                                       "layer_types"};
    const char *key = keys[0], *pattern = NULL;
    const char *const *names = NULL;
    char *kinds, one[2] = "";
    int n;

    for (size_t i = 0; i < COUNT(keys) && !config_has(c, key); i++)
        key = keys[i];
    if (config_kind(c, key) == CONFIG_STRING || !config_has(c, key)) {
        pattern = config_string(c, key);
        n = (int)strnlen(pattern, 4097);
    } else {
        n = config_strings(c, key, &names);
    }
    config_ignore(c, "num_hidden_layers", keys[0], keys[1], keys[2], NULL);
    if (config_error(c)->code)
        return NULL;
    if (n < 1 || n > 4096) {
        config_fail(c, key, "it names %d layers; it must be 1 to 4096", n);
        return NULL;
    }
    kinds = arena_zeroed(a, (size_t)n + 1, 1);
    for (int i = 0; kinds && i < n; i++) {
        one[0] = pattern ? pattern[i] : '\0';
        kinds[i] = kind_named(c, key, pattern ? one : names[i]);
    }
    if (!kinds)
        fail(config_error(c), CLM_ERR_NOMEM, "%d layers: no memory", n);
    s->n_layers = n;
    return kinds;
}

static struct mamba2_spec state_space(config *c, struct norm_spec norm)
{
    bool original = config_by_transformers(c);
    bool bias = config_bool_or(c, original ? "use_bias" : "mamba_proj_bias", false);
    struct mamba2_spec m = {
        .n_heads = config_int(c, "mamba_num_heads"),
        .head_dim = config_int(c, "mamba_head_dim"),
        .state_size = config_int(c, "ssm_state_size"),
        .n_groups = config_int_in(c, "n_groups", 1, 4096),
        .conv_width = config_int(c, "conv_kernel"),
        .conv_activation = config_activation(c, "mamba_hidden_act", ACT_SILU),
        .conv_bias = config_bool(c, "use_conv_bias"),
        .in_bias = bias,
        .out_bias = bias,
        .norm = norm,
    };

    m.norm_groups = m.n_groups;
    config_time_step_limit(c, &m, 0, HUGE_VAL);
    if (original) {
        m.dt_low = (float)config_float_or(c, "time_step_min", 0.001);
        m.dt_high = INFINITY;
    }
    config_ignore(c, "use_bias", "mamba_proj_bias", "time_step_min", "time_step_max",
                  "time_step_floor", "time_step_rank", "expand", "chunk_size", NULL);
    return m;
}

static struct moe_spec experts(config *c, struct mlp_spec mlp)
{
    struct moe_spec moe = config_moe_noaux(c, mlp);

    moe.expert.bias = false;
    moe.shared.intermediate_size = config_has(c, "n_shared_experts")
                                       ? config_int(c, "moe_shared_expert_intermediate_size")
                                       : 0;
    moe.latent_size = config_int_or(c, "moe_latent_size", 0);
    moe.latent_bias = mlp.bias;
    return moe;
}

static int nemotron_h_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS, .eps = (float)config_float(c, "layer_norm_epsilon")};
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "intermediate_size"),
                           .activation = config_activation(c, "mlp_hidden_act", ACT_RELU2),
                           .bias = config_bool_or(c, "mlp_bias", false)};
    struct mamba2_spec mamba = state_space(c, norm);
    char *kinds = layer_kinds(s, c, a);
    struct attention_spec attention;

    if (!kinds || config_common(s, c, false, a))
        return -1;
    attention = config_attention_plain(c, s);
    if (config_by_transformers(c)) /* which does not read attention_bias */
        attention.qkv_bias = attention.o_bias = false;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        struct layer_spec *l = &s->layers[i];

        if (kinds[i] == 'M')
            layer_add(l, branch_mamba2(norm, mamba));
        else if (kinds[i] == '*')
            layer_add(l, branch_attention(norm, attention));
        else if (kinds[i] == '-')
            layer_add(l, branch_mlp(norm, mlp));
        else
            layer_add(l, branch_moe(norm, experts(c, mlp)));
    }
    config_ignore(c, "n_routed_experts", "n_shared_experts", "num_experts_per_tok", "n_group",
                  "topk_group", "norm_topk_prob", "routed_scaling_factor", "moe_intermediate_size",
                  "moe_shared_expert_intermediate_size", "moe_latent_size", "sliding_window",
                  "rope_theta", "partial_rotary_factor", NULL);
    config_ignore(c, "moe_shared_expert_overlap", "mtp_layers_block_type",
                  "mtp_hybrid_override_pattern", "num_nextn_predict_layers", "num_logits_to_keep",
                  "rescale_prenorm_residual", "residual_in_fp32", "mamba_ssm_cache_dtype",
                  "attention_head_dim", "use_mamba_kernels", NULL);
    return 0;
}

static const struct weight_rule nemotron_h_weights[] = {
    {"backbone.embeddings", EMBED_TOKENS},
    {"backbone.layers.*.norm", PRE_NORM(0)},
    {"backbone.layers.*.mixer.in_proj", SSM_IN(0)},
    {"backbone.layers.*.mixer.conv1d", CONV(0)},
    {"backbone.layers.*.mixer.{A_log,D,dt_bias}", SSM_VECTORS(0)},
    {"backbone.layers.*.mixer.{norm,out_proj}", SSM_NORM_OUT(0)},
    {"backbone.layers.*.mixer.{q,k,v,o}_proj", ATTENTION(0)},
    {"backbone.layers.*.mixer.{up,down}_proj", SLOTS(0, ROLE_UP_PROJ)},
    {"backbone.layers.*.mixer.gate", ROUTER(0)},
    {"backbone.layers.*.mixer.gate.e_score_correction_bias", ROUTER_BIAS(0)},
    {"backbone.layers.*.mixer.switch_mlp.{fc1,fc2}", SLOTS(0, ROLE_EXPERT_UP)},
    {"backbone.layers.*.mixer.experts.#.{up,down}_proj", SLOTS(0, ROLE_EXPERT_UP)},
    {"backbone.layers.*.mixer.experts.{up,down}_proj", SLOTS(0, ROLE_EXPERT_UP)},
    {"backbone.layers.*.mixer.shared_experts.{up,down}_proj", SLOTS(0, ROLE_SHARED_UP)},
    {"backbone.layers.*.mixer.{fc1,fc2}_latent_proj", SLOTS(0, ROLE_LATENT_IN)},
    {"backbone.norm_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"mtp.**", IGNORE}, /* guesses of further tokens */
    {NULL, IGNORE},
};

static const struct weight_prefix nemotron_h_prefixes[] = {{"model.", "backbone."}, {NULL, NULL}};

const struct family family_nemotron_h = {
    .name = "Nemotron-H",
    .model_types = {"nemotron_h"},
    .spec = nemotron_h_spec,
    .weights = nemotron_h_weights,
    .prefixes = nemotron_h_prefixes,
};
