/* models/mimo_v2_flash.c: MiMo V2 Flash: values smaller than keys, sliding layers with head counts,
 * a rope and sinks of their own, experts chosen by sigmoid scores with a bias.
 *
 *     x += attention(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of w_e expert_e(n),  n = rms_norm(x)
 *
 * MiMo-V2-Flash, arXiv:2601.02780
 */
#include "models/family.h"

/* Entry of a list of 0s and 1s for each layer. */
static bool flag_of(config *c, const char *key, int layer)
{
    const int *items;
    int n = config_ints(c, key, &items);

    return layer < n ? items[layer] == 1
                     : config_fail(c, key, "it has no entry for layer %d", layer);
}

/* transformers counts the token itself beside the sliding_window_size before it. */
static int window_of(config *c)
{
    if (!config_has(c, "sliding_window_size") && config_by_transformers(c))
        return config_window_size(c, "sliding_window", 129);
    return config_int_in(c, "sliding_window_size", 1, INT32_MAX - 1) + config_by_transformers(c);
}

/* In the new schema sliding layers have twice the kv heads and always sinks, and each type of layer
 * a rope of its own. */
static struct attention_spec attention_of(config *c, bool slides, arena *a)
{
    bool later = config_has(c, "rope_parameters"), own = slides && !later;
    double part = config_float_or(c, "partial_rotary_factor", 1);
    struct attention_spec at = {
        .n_heads =
            config_int_in(c, own ? "swa_num_attention_heads" : "num_attention_heads", 1, 4096),
        .n_kv_heads =
            config_int_in(c, own ? "swa_num_key_value_heads" : "num_key_value_heads", 1, 4096),
        .head_dim = config_int_in(c, own ? "swa_head_dim" : "head_dim", 1, 4096),
        .v_dim = config_int_in(c, own ? "swa_v_head_dim" : "v_head_dim", 1, 4096),
        .v_scale = (float)config_cap_or_zero(c, "attention_value_scale", later ? 0.707 : 0),
        .window = slides ? window_of(c) : 0,
        .sinks = config_bool_or(
            c, slides ? "add_swa_attention_sink_bias" : "add_full_attention_sink_bias", false),
    };

    at.scale = attention_scale(at.head_dim);
    if (later) {
        at.n_kv_heads *= slides ? 2 : 1;
        at.qkv_bias = config_bool_or(c, "attention_bias", false);
        at.sinks = slides;
        at.rope = config_rope_partial(c, slides ? "sliding_attention" : "full_attention",
                                      at.head_dim, slides ? 10000 : 5000000, a);
        return at;
    }
    at.rope = rope_plain(at.head_dim, config_float(c, slides ? "swa_rope_theta" : "rope_theta"));
    if (!(part > 0 && part <= 1))
        config_fail(c, "partial_rotary_factor", "it is %g; it must be above 0, and 1 at most",
                    part);
    else
        at.rope.dims = (int)(part * at.head_dim);
    return at;
}

/* Whether the older of two keys says what layers are. Where neither is there, transformers has
 * those of the published model. */
static bool is_by(config *c, const char *older, const char *newer)
{
    return !config_has(c, newer) && (config_has(c, older) || !config_by_transformers(c));
}

static bool layer_slides(config *c, int layer)
{
    if (is_by(c, "hybrid_layer_pattern", "layer_types"))
        return flag_of(c, "hybrid_layer_pattern", layer);
    return config_layer_is(c, "layer_types", "sliding_attention", layer,
                           layer > 0 && (layer + 1) % 6 != 0);
}

static bool has_experts(config *c, int layer)
{
    if (is_by(c, "moe_layer_freq", "mlp_layer_types"))
        return flag_of(c, "moe_layer_freq", layer);
    return config_layer_is(c, "mlp_layer_types", "sparse", layer, layer > 0);
}

static int mimo_spec(struct spec *s, config *c, arena *a)
{
    bool later = config_has(c, "rope_parameters");
    struct norm_spec norm = {.kind = NORM_RMS};
    struct mlp_spec mlp = config_gated_mlp(c);
    struct moe_spec moe = config_moe_noaux(c, mlp);
    struct attention_spec full = attention_of(c, false, a), sliding = attention_of(c, true, a);

    norm.eps = later ? config_rms_norm(c).eps : (float)config_float(c, "layernorm_epsilon");
    config_noaux_alone(c);
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    s->final_norm = norm;
    s->more_layers = true;
    for (int i = 0; i < s->n_layers; i++) {
        bool slides = layer_slides(c, i);

        layer_add(&s->layers[i], branch_attention(norm, slides ? sliding : full));
        layer_add(&s->layers[i], has_experts(c, i) ? branch_moe(norm, moe) : branch_mlp(norm, mlp));
    }
    config_ignore(c, "attention_bias", "attention_chunk_size", "sliding_window", "rope_scaling",
                  "hybrid_block_size", "hybrid_layer_pattern", "moe_layer_freq",
                  "layernorm_epsilon", NULL);
    return 0;
}

const struct family family_mimo_v2_flash = {
    .name = "MiMo V2 Flash",
    .model_types = {"mimo_v2_flash"},
    .spec = mimo_spec,
    .weights = layout_moe,
};
