/* models/opt.c: OPT: learned positions, relus.
 *
 *     x += attention(layer_norm(x));  x += fc2(relu(fc1(layer_norm(x))))
 *
 * arXiv:2205.01068
 */
#include "models/family.h"

static int opt_spec(struct spec *s, config *c, arena *a)
{
    bool bias = config_bool_or(c, "enable_bias", true);
    bool affine = config_bool_or(c, "layer_norm_elementwise_affine", true);
    struct norm_spec norm = {
        .kind = NORM_LAYER, .eps = 1e-5f, .bias = affine, .weightless = !affine};
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "ffn_dim"),
                           .activation = config_activation(c, "activation_function", ACT_RELU),
                           .bias = bias};
    struct attention_spec attention;

    if (!config_bool_or(c, "do_layer_norm_before", true))
        return config_fail(c, "do_layer_norm_before", "norms after the blocks are not supported");
    if (config_common(s, c, true, a))
        return -1;
    if (config_int_or(c, "word_embed_proj_dim", s->hidden_size) != s->hidden_size)
        return config_fail(c, "word_embed_proj_dim", "embeddings of another size than the layers");
    attention = config_attention(c, s, 10000, a);
    attention.rope = (struct rope_spec){0};
    attention.qkv_bias = attention.o_bias = bias;
    s->position_offset = 2;
    s->n_positions =
        s->context_length > 0 && s->context_length <= 1 << 20 ? s->context_length + 2 : 3;
    spec_layers(s, norm, attention, mlp);
    if (config_bool_or(c, "_remove_final_layer_norm", false))
        s->final_norm.kind = NORM_NONE;
    return 0;
}

static const struct weight_rule opt_weights[] = {
    {"model.decoder.embed_tokens", EMBED_TOKENS},
    {"model.decoder.embed_positions", SLOTS(-1, ROLE_POSITIONS)},
    {"model.decoder.layers.*.self_attn_layer_norm", PRE_NORM(0)},
    {"model.decoder.layers.*.self_attn.{q_proj,k_proj,v_proj,out_proj}", ATTENTION(0)},
    {"model.decoder.layers.*.final_layer_norm", PRE_NORM(1)},
    {"model.decoder.layers.*.{fc1,fc2}", SLOTS(1, ROLE_UP_PROJ)},
    {"model.decoder.final_layer_norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

static const struct weight_prefix opt_prefixes[] = {
    {"decoder.", "model.decoder."},
    {NULL, NULL},
};

const struct family family_opt = {
    .name = "OPT",
    .model_types = {"opt"},
    .spec = opt_spec,
    .weights = opt_weights,
    .prefixes = opt_prefixes,
};
