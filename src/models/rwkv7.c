/* models/rwkv7.c: RWKV-7: no attention; layers mix each token with the one before it and with a
 * state.
 *
 *     x += time_mixing(layer_norm(x));  x += value(relu(key(mix(layer_norm(x))))^2)
 *
 * arXiv:2503.14456
 */
#include "models/family.h"

static int rwkv7_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "norm_eps", true);
    struct rwkv7_spec mixing = {
        .head_dim = config_int_in(c, "head_dim", 1, 4096),
        .decay_rank = config_int(c, "decay_low_rank_dim"),
        .rate_rank = config_int(c, "a_low_rank_dim"),
        .gate_rank = config_int(c, "gate_low_rank_dim"),
        .norm = {.kind = NORM_LAYER, .eps = 64e-5f, .bias = true},
    };
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "intermediate_size"),
                           .activation = ACT_RELU2};

    if (config_common(s, c, false, a))
        return -1;
    mixing.n_heads = s->hidden_size / mixing.head_dim;
    mlp.shifted = s->hidden_size;
    s->embed_norm = s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        if (i > 0)
            mixing.value_rank = config_int_in(c, "v_low_rank_dim", 1, 1 << 24);
        layer_add(&s->layers[i], branch_rwkv7(norm, mixing));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "v_low_rank_dim", "attn", "attn_mode", "expand_k", "expand_v", "fuse_norm",
                  "fuse_cross_entropy", "fuse_linear_cross_entropy", "hidden_act", "hidden_ratio",
                  "norm_bias", "norm_first", "num_heads", "use_l2warp", "value_dim", NULL);
    return 0;
}

static const struct weight_rule rwkv7_weights[] = {
    {"model.embeddings", EMBED_TOKENS},
    {"model.layers.0.pre_norm", SLOTS(-1, ROLE_EMBED_NORM)},
    {"model.layers.*.attn_norm", PRE_NORM(0)},
    {"model.layers.*.attn.{x_r,x_w,x_k,x_v,x_a,x_g}", SLOTS(0, ROLE_RWKV_MIX_R)},
    {"model.layers.*.attn.{r,k,v,o}_proj", SLOTS(0, ROLE_RWKV_R)},
    {"model.layers.*.attn.{w,a,v,g}_lora.lora.0", SLOTS(0, ROLE_RWKV_DECAY_DOWN)},
    {"model.layers.*.attn.{w,a,v,g}_lora.lora.2", SLOTS(0, ROLE_RWKV_DECAY)},
    {"model.layers.*.attn.{k_k,k_a,r_k,g_norm}", SLOTS(0, ROLE_RWKV_KEY_SCALE)},
    {"model.layers.*.ffn_norm", PRE_NORM(1)},
    {"model.layers.*.ffn.{key,value}", SLOTS(1, ROLE_UP_PROJ)},
    {"model.layers.*.ffn.x_k", SLOTS(1, ROLE_MLP_MIX)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_rwkv7 = {
    .name = "RWKV-7",
    .model_types = {"rwkv7"},
    .spec = rwkv7_spec,
    .weights = rwkv7_weights,
};
