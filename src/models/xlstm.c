/* models/xlstm.c: xLSTM of matrix memories alone.
 *
 *     x += mlstm(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * xLSTM 7B, arXiv:2503.13427
 */
#include <math.h>

#include "models/family.h"

/* So many times hidden_size, cut to a whole number. */
static int part_of(config *c, const char *key, double otherwise, const struct spec *s)
{
    double n = config_float_or(c, key, otherwise) * s->hidden_size;

    if (!(n >= 1 && n <= 1 << 24))
        return config_fail(c, key, "%g times %d is no size", n / s->hidden_size, s->hidden_size);
    return (int)n;
}

static struct mlstm_spec mlstm_of(config *c, const struct spec *s, float eps, bool bias)
{
    int n_heads = config_int_in(c, "num_heads", 1, 4096);
    int keys = part_of(c, "qk_dim_factor", 0.5, s), values = part_of(c, "v_dim_factor", 1, s);

    if (keys % n_heads || values % n_heads)
        config_fail(c, "num_heads", "%d numbers of keys and %d of values do not divide into %d",
                    keys, values, n_heads);
    return (struct mlstm_spec){
        .n_heads = n_heads,
        .key_dim = keys / n_heads,
        .value_dim = values / n_heads,
        .gate_softcap = (float)config_cap(c, "gate_soft_cap", 15),
        .eps = (float)config_float_or(c, "eps", 1e-6),
        .bias = bias,
        .norm = {.kind = NORM_LAYER, .eps = eps, .bias = bias},
    };
}

static struct mlp_spec mlp_of(config *c, const struct spec *s, bool bias)
{
    int multiple = config_int_in(c, "ffn_round_up_to_multiple_of", 1, 1 << 20);
    double n = config_float_or(c, "ffn_proj_factor", 2.667) * s->hidden_size;

    n = floor((n + multiple - 1) / multiple) * multiple;
    if (!(n >= 1 && n <= 1 << 24))
        config_fail(c, "ffn_proj_factor", "%g is no size of a feed-forward", n);
    return (struct mlp_spec){.intermediate_size = n >= 1 && n <= 1 << 24 ? (int)n : 1,
                             .activation = ACT_SILU,
                             .gated = true,
                             .bias = bias};
}

static int xlstm_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS, .eps = (float)config_float_or(c, "norm_eps", 1e-6)};
    struct config_keys keys = {
        .vocab_size = "vocab_size",
        .hidden_size = config_has(c, "hidden_size") ? "hidden_size" : "embedding_dim",
        .n_layers = config_has(c, "num_hidden_layers") ? "num_hidden_layers" : "num_blocks",
        .context_length = "max_position_embeddings",
        .tie = "tie_word_embeddings",
    };
    bool bias = config_bool_or(c, "use_bias", false);
    struct mlstm_spec mlstm;
    struct mlp_spec mlp;

    if (config_common_named(s, c, &keys, false, a))
        return -1;
    mlstm = mlstm_of(c, s, norm.eps, bias);
    mlp = mlp_of(c, s, bias);
    s->logit_softcap = (float)config_cap(c, "output_logit_soft_cap", 30);
    s->final_norm = norm; /* the one that never has a bias */
    norm.bias = bias;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_mlstm(norm, mlstm));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "embedding_dim", "num_blocks", "weight_mode", "add_out_norm", "chunk_size",
                  "chunkwise_kernel", "sequence_kernel", "step_kernel", "mode",
                  "max_inference_chunksize", "inference_state_dtype", "autocast_kernel_dtype",
                  "return_last_states", "norm_reduction_force_float32", NULL);
    return 0;
}

static const struct weight_rule xlstm_weights[] = {
    {"backbone.embeddings", EMBED_TOKENS},
    {"backbone.blocks.*.norm_mlstm", PRE_NORM(0)},
    {"backbone.blocks.*.mlstm_layer.{q,k,v,ogate_preact,igate_preact,fgate_preact}",
     SLOTS(0, ROLE_MLSTM_Q)},
    {"backbone.blocks.*.mlstm_layer.qkv_opreact", SPLIT(0, ROLE_MLSTM_Q, 4)},
    {"backbone.blocks.*.mlstm_layer.ifgate_preact", SPLIT(0, ROLE_MLSTM_IN_GATE, 2)},
    {"backbone.blocks.*.mlstm_layer.{multihead_norm,out_proj}", SLOTS(0, ROLE_MLSTM_NORM)},
    {"backbone.blocks.*.norm_ffn", PRE_NORM(1)},
    {"backbone.blocks.*.ffn.{proj_up_gate,proj_up,proj_down}", MLP(1)},
    {"backbone.blocks.*.ffn.proj_up_gate_z", MLP_GATE_UP(1)},
    {"backbone.out_norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_xlstm = {
    .name = "xLSTM",
    .model_types = {"xlstm"},
    .spec = xlstm_spec,
    .weights = xlstm_weights,
};
