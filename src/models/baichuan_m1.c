/* models/baichuan_m1.c: Baichuan-M1: keys and values are mixed with those of the token before, some
 * layers slide and have heads of their own number, the rows of the head have length 1.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * arXiv:2502.12671
 */
#include "models/family.h"

static bool slides(config *c, int layer)
{
    const int *layers;
    int n = config_ints(c, "sliding_window_layers", &layers);

    for (int i = 0; i < n; i++)
        if (layers[i] == layer)
            return true;
    return false;
}

static struct attention_spec attention_of(config *c, const struct spec *s, bool sliding)
{
    int n_heads = config_int_in(c, "num_attention_heads", 1, 4096);
    int n_kv_heads = config_int_or(c, "num_key_value_heads", n_heads);
    int own = config_int_or(c, "num_swa_attention_heads", 0);
    int own_kv = config_int_or(c, "num_swa_key_value_heads", 0);
    int window = config_int_in(c, "sliding_window", 1, INT32_MAX), head_dim;

    n_heads = sliding && own > 0 ? own : n_heads;
    head_dim = s->hidden_size / n_heads;
    if (s->hidden_size % n_heads)
        config_fail(c, "hidden_size", "it is %d, no multiple of %d heads", s->hidden_size, n_heads);
    return (struct attention_spec){
        .n_heads = n_heads,
        .n_kv_heads = sliding && own_kv > 0 ? own_kv : n_kv_heads,
        .head_dim = head_dim,
        .rope = rope_plain(head_dim, config_float(c, "rope_theta")),
        .scale = attention_scale(head_dim),
        .window = sliding ? window : 0,
        .kv_conv = config_int_in(c, "conv_window", 2, 2),
    };
}

static int baichuan_m1_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct attention_spec attention[2];

    if (config_common(s, c, false, a))
        return -1;
    if (s->tie_word_embeddings)
        return config_fail(c, "tie_word_embeddings", "this family has a head of its own");
    s->tie_by_file = false;
    s->head_rows_normed = true;
    s->final_norm = norm;
    for (int i = 0; i < 2; i++)
        attention[i] = attention_of(c, s, i == 1);
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention[slides(c, i)]));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    return 0;
}

static const struct weight_rule baichuan_m1_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.W_pack", ATTENTION_QKV(0)},
    {"model.layers.*.self_attn.conv_{k,v}", KV_CONVS(0)},
    {"model.layers.*.self_attn.o_proj", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_baichuan_m1 = {
    .name = "Baichuan-M1",
    .model_types = {"baichuan_m1"},
    .spec = baichuan_m1_spec,
    .weights = baichuan_m1_weights,
};
