/* models/olmo_hybrid.c: Olmo Hybrid: layers with the delta rule, normed before; now and then one
 * with attention, normed after.
 *
 *     x += delta(rms_norm(x));      x += mlp(rms_norm(x))
 *     x += rms_norm(attention(x));  x += rms_norm(mlp(x))
 *
 * Gated delta net, arXiv:2412.06464
 */
#include <string.h>

#include "models/family.h"

static bool is_linear(config *c, int layer)
{
    const char *const *types;
    int n = config_strings(c, "layer_types", &types);

    if (n < 0)
        return layer % 4 != 3;
    if (layer >= n)
        return config_fail(c, "layer_types", "it has %d entries, too few for layer %d", n, layer);
    if (strcmp(types[layer], "linear_attention") != 0 &&
        strcmp(types[layer], "full_attention") != 0)
        return config_fail(c, "layer_types", "layer %d is of the unknown type \"%s\"", layer,
                           types[layer]);
    return strcmp(types[layer], "linear_attention") == 0;
}

static struct delta_spec read_delta(config *c, const struct attention_spec *at, int hidden_size)
{
    int n_key_heads = config_has(c, "linear_num_key_heads")
                          ? config_int_in(c, "linear_num_key_heads", 1, 4096)
                          : at->n_heads;
    int key_dim = config_int_or(c, "linear_key_head_dim", (int)(0.75 * hidden_size / n_key_heads));

    return (struct delta_spec){
        .n_heads = config_int_or(c, "linear_num_value_heads", at->n_heads),
        .n_key_heads = n_key_heads,
        .key_dim = key_dim,
        .value_dim = config_int_or(c, "linear_value_head_dim", 2 * key_dim),
        .conv_width = config_int_or(c, "linear_conv_kernel_dim", 4),
        .convs_apart = true,
        .beta_scale = config_bool_or(c, "linear_allow_neg_eigval", true) ? 2 : 1,
        .norm = {.kind = NORM_RMS, .eps = (float)config_float_or(c, "layer_norm_epsilon", 1e-5)},
        .gate_activation = ACT_SILU,
    };
}

/* A theta of null turns nothing. */
static struct rope_spec read_rope(config *c, int head_dim, arena *a)
{
    config *parameters = config_object(c, "rope_parameters");

    if (parameters ? config_is_null(parameters, "rope_theta")
                   : config_is_null(c, "rope_theta") ||
                         (config_by_transformers(c) && !config_has(c, "rope_theta")))
        return (struct rope_spec){.kind = ROPE_NONE};
    return config_rope_parameters(c, head_dim, 10000, false, a);
}

static int olmo_hybrid_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c), none = {0};
    struct mlp_spec mlp = config_gated_mlp(c);
    struct attention_spec attention;
    struct delta_spec delta;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_plain(c, s);
    attention.q_norm = attention.k_norm = norm;
    attention.qk_norm_span = QK_NORM_ALL;
    attention.rope = read_rope(c, attention.head_dim, a);
    delta = read_delta(c, &attention, s->hidden_size);
    delta.conv_activation = mlp.activation;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers && !config_error(c)->code; i++) {
        struct layer_spec *l = &s->layers[i];

        if (is_linear(c, i)) {
            layer_add(l, branch_delta(norm, delta));
            layer_add(l, branch_mlp(norm, mlp));
        } else {
            layer_add(l, branch_attention(none, attention))->post_norm = norm;
            layer_add(l, branch_mlp(none, mlp))->post_norm = norm;
        }
    }
    config_ignore(c, "linear_a_log_min", "linear_a_log_max", "linear_dt_min", "linear_dt_max",
                  "linear_dt_init_floor", "linear_use_gate", NULL);
    return 0;
}

static const struct weight_rule olmo_hybrid_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.attention_layer_norm", PRE_NORM(0)},
    {"model.layers.*.feedforward_layer_norm", ONLY_SLOTS(OP_DELTA, 1, ROLE_PRE_NORM)},
    {"model.layers.*.feedforward_layer_norm", POST_NORM(0)}, /* as transformers calls both */
    {"model.layers.*.linear_attn.{q,k,v,g,b,a,o}_proj", SLOTS(0, ROLE_DELTA_Q)},
    {"model.layers.*.linear_attn.{q,k,v}_conv1d", SLOTS(0, ROLE_DELTA_CONV_Q)},
    {"model.layers.*.linear_attn.conv1d", SPLIT(0, ROLE_DELTA_CONV_Q, 3)},
    {"model.layers.*.linear_attn.{A_log,dt_bias,o_norm}", SLOTS(0, ROLE_DELTA_A)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", ONLY_SLOTS(OP_DELTA, 1, ROLE_PRE_NORM)},
    {"model.layers.*.post_attention_layernorm", POST_NORM(0)},
    {"model.layers.*.post_feedforward_layernorm", POST_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_olmo_hybrid = {
    .name = "Olmo Hybrid",
    .model_types = {"olmo_hybrid"},
    .spec = olmo_hybrid_spec,
    .weights = olmo_hybrid_weights,
};
