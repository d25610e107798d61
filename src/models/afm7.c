/* models/afm7.c: AFM 7B: the last layers read the keys and values of the last one that has its own;
 * these are rounded to 8 bits. Queries and keys are normed after they are turned.
 *
 *     x += attention(rms_norm(x));  x += mlp(rms_norm(x))
 *
 * Apple Intelligence Foundation Language Models, arXiv:2507.13575
 */
#include "models/family.h"

static int afm7_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {"vocab_size", "hidden_dim", "num_layers",
                                            "max_position_embeddings", "tie_word_embeddings"};
    struct norm_spec norm = {.kind = NORM_RMS,
                             .eps = (float)config_float_or(c, "rms_norm_eps", 1e-5)};
    int reused = config_int(c, "num_kv_reuse_layers");
    int n_heads = config_int_in(c, "num_heads", 1, 4096);
    double growth = config_float_or(c, "hidden_dim_scale_factor", 3.25);
    struct mlp_spec mlp = {.activation = ACT_SILU, .gated = true};
    struct attention_spec at = {
        .n_heads = n_heads,
        .n_kv_heads = config_int(c, "num_kv_heads"),
        .q_norm = {.kind = NORM_RMS, .eps = 1e-5f},
        .k_norm = {.kind = NORM_RMS, .eps = 1e-5f},
        .qk_norm_after_rope = true,
        .rounded_kv = true,
    };

    if (config_common_named(s, c, &keys, true, a))
        return -1;
    s->tie_by_file = true; /* mlx-lm has no head of its own for it */
    if (reused < 0 || reused >= s->n_layers)
        return config_fail(c, "num_kv_reuse_layers", "it is %d of %d layers", reused, s->n_layers);
    if (!(growth > 0 && growth < 1024))
        return config_fail(c, "hidden_dim_scale_factor", "it is %g", growth);
    s->second_layers = s->n_layers - reused;
    mlp.intermediate_size = (int)(s->hidden_size * growth > 1 << 24 ? 0 : s->hidden_size * growth);
    at.head_dim = s->hidden_size / n_heads;
    at.scale = attention_scale(at.head_dim);
    at.rope = config_rope(c, NULL, at.head_dim, 50000, a);
    at.rope.interleaved = true;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        at.cache_of = i < s->second_layers ? 0 : s->second_layers;
        layer_add(&s->layers[i], branch_attention(norm, at));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    return 0;
}

static const struct weight_rule afm7_weights[] = {
    {"model.embedding", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.qkv_proj", ATTENTION_QKV(0)},
    {"model.layers.*.self_attn.out_proj", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.self_attn.{quant_key_scale,quant_value_scale}", SLOTS(0, ROLE_K_STEP)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.kv_reuse_layers.*.input_layernorm", SECOND_SLOTS(0, ROLE_PRE_NORM)},
    {"model.kv_reuse_layers.*.self_attn.q_proj", SECOND_SLOTS(0, ROLE_Q_PROJ)},
    {"model.kv_reuse_layers.*.self_attn.out_proj", SECOND_SLOTS(0, ROLE_O_PROJ)},
    {"model.kv_reuse_layers.*.self_attn.q_norm", SECOND_SLOTS(0, ROLE_Q_NORM)},
    {"model.kv_reuse_layers.*.post_attention_layernorm", SECOND_SLOTS(1, ROLE_PRE_NORM)},
    {"model.kv_reuse_layers.*.mlp.{gate,up,down}_proj", SECOND_SLOTS(1, ROLE_GATE_PROJ)},
    {"model.output_norm", FINAL_NORM},
    {NULL, IGNORE},
};

const struct family family_afm7 = {
    .name = "AFM 7B",
    .model_types = {"afm7"},
    .spec = afm7_spec,
    .weights = afm7_weights,
};
