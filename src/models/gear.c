/* models/gear.c: Gear: attention, sliding or full, and gates of convolutions, with norms before and
 * after each block.
 *
 *     x += norm(attention or conv_mixer(norm(x)));  x += norm(mlp(norm(x)))
 */
#include <math.h>
#include <string.h>

#include "models/family.h"

static bool is_conv(config *c, int layer)
{
    const char *const *types;
    int n = config_strings(c, "layer_types", &types);

    return layer < n && strcmp(types[layer], "conv_mixer") == 0;
}

static struct attention_spec attention_of(config *c, const struct spec *s, struct norm_spec norm)
{
    struct attention_spec attention = config_attention_plain(c, s);
    double scalar = config_float_or(c, "query_pre_attn_scalar", attention.head_dim);

    if (!(scalar > 0))
        config_fail(c, "query_pre_attn_scalar", "it is %g; it must be positive", scalar);
    attention.q_norm = attention.k_norm = norm;
    attention.scale = (float)(1 / sqrt(scalar));
    attention.softcap = (float)config_cap_or_zero(c, "attn_logit_softcapping", 0);
    return attention;
}

static struct conv_mixer_spec conv_mixer_of(config *c, const struct attention_spec *a)
{
    return (struct conv_mixer_spec){
        .n_heads = a->n_heads,
        .n_kv_heads = a->n_kv_heads,
        .head_dim = a->head_dim,
        .width = config_int_or(c, "conv_L_cache", 3),
        .bias = a->qkv_bias,
        .q_norm = a->q_norm,
        .k_norm = a->k_norm,
    };
}

static int gear_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "intermediate_size"),
                           .activation = config_activation(c, "hidden_activation", ACT_GELU_TANH),
                           .gated = true};
    struct attention_spec attention;
    struct conv_mixer_spec mixer;
    struct rope_spec full, sliding;

    norm.offset = 1;
    if (config_common(s, c, true, a))
        return -1;
    if (config_bool_or(c, "use_bidirectional_attention", false))
        return config_fail(c, "use_bidirectional_attention", "attention looks back alone");
    attention = attention_of(c, s, norm);
    mixer = conv_mixer_of(c, &attention);
    full = config_rope(c, "full_attention", attention.head_dim, 1000000, a);
    sliding = config_rope_sliding(c, attention.head_dim, a);
    s->embed_scale = (float)sqrt(s->hidden_size);
    s->logit_softcap = (float)config_cap_or_zero(c, "final_logit_softcapping", 0);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        struct layer_spec *l = &s->layers[i];
        bool conv = is_conv(c, i);

        attention.window = conv ? 0 : config_window(c, i, 0);
        attention.rope = attention.window ? sliding : full;
        layer_add(l, conv ? branch_conv_mixer(norm, mixer) : branch_attention(norm, attention))
            ->post_norm = norm;
        layer_add(l, branch_mlp(norm, mlp))->post_norm = norm;
    }
    config_ignore(c, "sliding_window", "conv_L_cache", NULL);
    return 0;
}

static const struct weight_rule gear_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.local_mixer.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.local_mixer.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.local_mixer.{key,value}_conv", KV_CONVS(0)},
    {"model.layers.*.post_attention_layernorm", POST_NORM(0)},
    {"model.layers.*.pre_feedforward_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.post_feedforward_layernorm", POST_NORM(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {"model.embed_scale", IGNORE},                      /* of hidden_size */
    {"model.embed_tokens.embed_scale", IGNORE},
    {NULL, IGNORE},
};

const struct family family_gear = {
    .name = "Gear",
    .model_types = {"gear"},
    .spec = gear_spec,
    .weights = gear_weights,
};
