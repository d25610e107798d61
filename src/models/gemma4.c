/* models/gemma4.c: Gemma 4: sandwich norms, sliding layers and full ones with heads of another
 * size, the last layers reading the cache of earlier ones; small ones have inputs of each layer's
 * own, large ones experts beside the feed-forward.
 *
 *     x += norm(attention(norm(x)))
 *     x += norm(mlp(norm(x))), or norm(norm(mlp(norm(x))) + norm(experts(norm(x))))
 *     x += norm(out(gelu(gate(x)) * p));  x *= g
 *
 * Gemma 4, Google 2026
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "models/family.h"

static bool slides(config *c, int layer)
{
    int every = config_int_or(c, "sliding_window_pattern", 5);

    /* transformers makes a last layer that sees everything of any. */
    if (config_by_transformers(c) && layer + 1 == config_int(c, "num_hidden_layers"))
        return false;
    if (!config_has(c, "layer_types"))
        return every < 1 || (layer + 1) % every != 0;
    return config_window(c, layer, 0) > 0;
}

/* What per_layer_config says of the layer, else otherwise. */
static int of_layer(config *c, int layer, const char *key, int otherwise)
{
    config *all = config_object(c, "per_layer_config"), *own;
    char name[16];

    snprintf(name, sizeof name, "%d", layer);
    own = all && config_has(all, name) ? config_object(all, name) : NULL;
    return own ? config_int_or(own, key, otherwise) : otherwise;
}

static struct rope_spec rope_of(config *c, bool sliding, int head_dim, arena *a)
{
    struct rope_spec r;

    if (config_has(c, "rope_parameters"))
        return config_rope(c, sliding ? "sliding_attention" : "full_attention", head_dim, 10000, a);
    r = rope_plain(head_dim, sliding ? 10000 : 1000000);
    if (!sliding) {
        r.kind = ROPE_PROPORTIONAL;
        r.dims = head_dim / 4;
    }
    return r;
}

static struct attention_spec attention_of(config *c, int layer, struct norm_spec norm, arena *a)
{
    bool sliding = slides(c, layer);
    bool keys_twice = !sliding && config_bool_or(c, "attention_k_eq_v", false);
    int head_dim = config_int_or(c, "head_dim", 256);
    int n_kv_heads = config_int_or(c, "num_key_value_heads", 1);
    struct attention_spec at = {.n_heads = config_int_or(c, "num_attention_heads", 8),
                                .q_norm = norm,
                                .k_norm = norm,
                                .v_norm = norm,
                                .scale = 1,
                                .values_are_keys = keys_twice};

    at.v_norm.weightless = true;
    at.qkv_bias = at.o_bias = config_bool_or(c, "attention_bias", false);
    if (!sliding)
        head_dim = config_int_or(c, "global_head_dim", head_dim);
    if (keys_twice)
        n_kv_heads = config_int_or(c, "num_global_key_value_heads", n_kv_heads);
    at.head_dim = of_layer(c, layer, "head_dim", head_dim);
    at.n_kv_heads = of_layer(c, layer, "num_key_value_heads", n_kv_heads);
    at.window = sliding ? config_window_size(c, "sliding_window", 512) : 0;
    at.rope = rope_of(c, sliding, at.head_dim, a);
    return at;
}

static struct moe_spec read_moe(config *c, struct mlp_spec mlp, struct norm_spec norm,
                                int hidden_size)
{
    struct moe_spec moe = {
        .router = {.score = ROUTER_SOFTMAX_SELECTED,
                   .n_experts = config_int(c, "num_experts"),
                   .n_experts_per_token = config_int(c, "top_k_experts"),
                   .scale = 1},
        .expert = mlp,
        .shared = mlp,
        .router_norm = norm,
        .expert_norm = norm,
        .expert_post_norm = norm,
        .shared_post_norm = norm,
        .router_scale = (float)(1 / sqrt(hidden_size)),
        .expert_scales = true,
    };

    moe.expert.intermediate_size = config_int(c, "moe_intermediate_size");
    return moe;
}

static int add_layer(struct spec *s, config *c, int i, int n_own, struct norm_spec norm,
                     struct mlp_spec mlp, arena *a)
{
    struct layer_spec *l = &s->layers[i];
    struct attention_spec at = attention_of(c, i, norm, a);
    struct branch_spec *gain;

    if (i >= n_own) {
        at.cache_of = spec_kv_source(s, n_own, 0, at.window > 0);
        if (!at.cache_of)
            return config_fail(c, "num_kv_shared_layers", "layer %d has no layer to share with", i);
        at.n_kv_heads = s->layers[at.cache_of - 1].branches[0].attention.n_kv_heads;
        if (config_bool_or(c, "use_double_wide_mlp", true) && n_own > 0 &&
            mlp.intermediate_size <= 1 << 23)
            mlp.intermediate_size *= 2;
    }
    layer_add(l, branch_attention(norm, at))->post_norm = norm;
    if (config_bool_or(c, "enable_moe_block", false))
        layer_add(l, branch_moe(norm, read_moe(c, mlp, norm, s->hidden_size)))->post_norm = norm;
    else
        layer_add(l, branch_mlp(norm, mlp))->post_norm = norm;
    if (s->layer_input_size)
        layer_add(l, branch_of(OP_LAYER_INPUT, (struct norm_spec){0}))->post_norm = norm;
    else
        layer_add(l, branch_of(OP_NONE, (struct norm_spec){0}))->scale = 0; /* keeps the place */
    gain = layer_add(l, branch_of(OP_NONE, (struct norm_spec){0}));
    gain->replace = gain->gain = true;
    return 0;
}

static int gemma4_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS,
                             .eps = (float)config_float_or(c, "rms_norm_eps", 1e-6)};
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "intermediate_size"),
                           .activation = config_activation(c, "hidden_activation", ACT_GELU_TANH),
                           .gated = true};
    int shared = config_int_or(c, "num_kv_shared_layers", 0);

    s->vocab_size = 262144;
    if (config_common(s, c, true, a))
        return -1;
    if (shared >= s->n_layers)
        return config_fail(c, "num_kv_shared_layers", "it is %d of %d layers", shared, s->n_layers);
    s->embed_scale = (float)sqrt(s->hidden_size);
    s->logit_softcap = (float)config_cap(c, "final_logit_softcapping", 30);
    s->layer_input_size = config_int_or(c, "hidden_size_per_layer_input", 256);
    s->layer_input_vocab = config_int_or(c, "vocab_size_per_layer_input", s->vocab_size);
    s->layer_input_norm = s->final_norm = norm;
    s->layer_input_activation = mlp.activation;
    for (int i = 0; i < s->n_layers; i++)
        if (add_layer(s, c, i, s->n_layers - shared, norm, mlp, a))
            return -1;
    config_ignore(c, "sliding_window_pattern", "num_experts", "top_k_experts",
                  "moe_intermediate_size", "use_double_wide_mlp", "global_head_dim",
                  "num_global_key_value_heads", "global_partial_rotary_factor",
                  "partial_rotary_factor", NULL);
    if (strcmp(config_string_or(c, "use_bidirectional_attention", ""), "all") == 0)
        return config_fail(c, "use_bidirectional_attention",
                           "a token sees what comes after it: such models make no text");
    return 0;
}

static const struct weight_rule gemma4_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.embed_tokens_per_layer", SLOTS(-1, ROLE_LAYER_TABLE)},
    {"model.per_layer_model_projection", SLOTS(-1, ROLE_LAYER_PROJ)},
    {"model.per_layer_projection_norm", SLOTS(-1, ROLE_LAYER_NORM)},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", POST_NORM(0)},
    {"model.layers.*.pre_feedforward_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.post_feedforward_layernorm", POST_NORM(1)},
    {"model.layers.*.router.proj", ROUTER(1)},
    {"model.layers.*.router.scale", SLOTS(1, ROLE_ROUTER_NORM)},
    {"model.layers.*.router.per_expert_scale", SLOTS(1, ROLE_EXPERT_SCALES)},
    {"model.layers.*.pre_feedforward_layernorm_2", SLOTS(1, ROLE_EXPERT_NORM)},
    {"model.layers.*.post_feedforward_layernorm_2", SLOTS(1, ROLE_EXPERT_POST_NORM)},
    {"model.layers.*.post_feedforward_layernorm_1", SLOTS(1, ROLE_SHARED_POST_NORM)},
    {"model.layers.*.experts.switch_glu.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.experts.down_proj", SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.{per_layer_input_gate,per_layer_projection}", SLOTS(2, ROLE_LAYER_GATE)},
    {"model.layers.*.post_per_layer_input_norm", POST_NORM(2)},
    {"model.layers.*.layer_scalar", SLOTS(3, ROLE_GAIN)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {"vision_embedder.**", IGNORE},
    {"model.vision_embedder.**", IGNORE},
    {NULL, IGNORE},
};

const struct family family_gemma4 = {
    .name = "Gemma 4",
    .model_types = {"gemma4_text", "gemma4", "gemma4_unified", "gemma4_unified_text"},
    .spec = gemma4_spec,
    .weights = gemma4_weights,
};
