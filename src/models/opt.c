/* models/opt.c: OPT: learned positions, relus.
 *
 *     x += attention(layer_norm(x));  x += fc2(relu(fc1(layer_norm(x))))
 *
 * or, of 350m,
 *
 *     x = layer_norm(x + attention(x));  x = layer_norm(x + fc2(relu(fc1(x))))
 *
 * arXiv:2205.01068
 */
#include "models/family.h"

/* Norms after what a block is added to. The first branch keeps the places of weights apart from
 * those of norms before. */
static void add_normed_after(struct layer_spec *l, struct norm_spec norm,
                             struct attention_spec attention, struct mlp_spec mlp)
{
    struct norm_spec none = {0};

    layer_add(l, branch_of(OP_NONE, none))->replace = true;
    layer_add(l, branch_attention(none, attention));
    layer_add(l, branch_of(OP_NONE, norm))->replace = true;
    layer_add(l, branch_mlp(none, mlp));
    layer_add(l, branch_of(OP_NONE, norm))->replace = true;
}

static int opt_spec(struct spec *s, config *c, arena *a)
{
    bool bias = config_bool_or(c, "enable_bias", true);
    bool affine = config_bool_or(c, "layer_norm_elementwise_affine", true);
    bool before = config_bool_or(c, "do_layer_norm_before", true);
    struct norm_spec norm = {
        .kind = NORM_LAYER, .eps = 1e-5f, .bias = affine, .weightless = !affine};
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "ffn_dim"),
                           .activation = config_activation(c, "activation_function", ACT_RELU),
                           .bias = bias};
    struct attention_spec attention;

    if (config_common(s, c, true, a))
        return -1;
    s->embed_size = config_int_or(c, "word_embed_proj_dim", 0);
    if (s->embed_size == s->hidden_size)
        s->embed_size = 0;
    attention = config_attention(c, s, 10000, a);
    attention.rope = (struct rope_spec){0};
    attention.qkv_bias = attention.o_bias = bias;
    s->position_offset = 2;
    s->n_positions =
        s->context_length > 0 && s->context_length <= 1 << 20 ? s->context_length + 2 : 3;
    if (before)
        spec_layers(s, norm, attention, mlp);
    for (int i = 0; i < s->n_layers && !before; i++)
        add_normed_after(&s->layers[i], norm, attention, mlp);
    if (config_bool_or(c, "_remove_final_layer_norm", false))
        s->final_norm.kind = NORM_NONE;
    return 0;
}

static const struct weight_rule opt_weights[] = {
    {"model.decoder.embed_tokens", EMBED_TOKENS},
    {"model.decoder.{project_in,project_out}", SLOTS(-1, ROLE_EMBED_PROJ)},
    {"model.decoder.embed_positions", SLOTS(-1, ROLE_POSITIONS)},
    {"model.decoder.layers.*.self_attn_layer_norm", ONLY_SLOTS(OP_ATTENTION, 0, ROLE_PRE_NORM)},
    {"model.decoder.layers.*.self_attn.{q_proj,k_proj,v_proj,out_proj}",
     ONLY_SLOTS(OP_ATTENTION, 0, ROLE_Q_PROJ)},
    {"model.decoder.layers.*.final_layer_norm", ONLY_SLOTS(OP_ATTENTION, 1, ROLE_PRE_NORM)},
    {"model.decoder.layers.*.{fc1,fc2}", ONLY_SLOTS(OP_ATTENTION, 1, ROLE_UP_PROJ)},
    {"model.decoder.layers.*.self_attn_layer_norm", PRE_NORM(2)},
    {"model.decoder.layers.*.self_attn.{q_proj,k_proj,v_proj,out_proj}", ATTENTION(1)},
    {"model.decoder.layers.*.final_layer_norm", PRE_NORM(4)},
    {"model.decoder.layers.*.{fc1,fc2}", SLOTS(3, ROLE_UP_PROJ)},
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
    .model_types = {"opt", "blip-2"},
    .spec = opt_spec,
    .weights = opt_weights,
    .prefixes = opt_prefixes,
};
