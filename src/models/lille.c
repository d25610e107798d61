/* models/lille.c: Lille 130M: a small Llama with interleaved rope.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 */
#include <math.h>

#include "models/family.h"

static int lille_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {
        .vocab_size = "vocab_size",
        .hidden_size = "n_embd",
        .n_layers = "n_layer",
        .context_length = "block_size",
        .tie = "tie_word_embeddings",
    };
    struct norm_spec norm = {.kind = NORM_RMS, .eps = (float)config_float(c, "layer_norm_eps")};
    struct attention_spec attention = {.n_heads = config_int_in(c, "n_head", 1, 4096)};
    struct mlp_spec mlp = {.activation = ACT_SILU, .gated = true};

    if (config_common_named(s, c, &keys, true, a))
        return -1;
    s->tie_by_file = true; /* mlx-lm has no head of its own for it */
    attention.n_kv_heads = config_int_or(c, "n_kv_heads", attention.n_heads);
    attention.head_dim = s->hidden_size / attention.n_heads;
    attention.scale = attention_scale(attention.head_dim);
    attention.rope = config_rope(c, NULL, attention.head_dim, 10000, a);
    attention.rope.interleaved = true;
    /* Two thirds of four times the width, to the nearest 256, halves to even. */
    mlp.intermediate_size = 256 * (int)nearbyint(floor(8.0 * s->hidden_size / 3) / 256);
    spec_layers(s, norm, attention, mlp);
    return 0;
}

static const struct weight_rule lille_weights[] = {
    {"transformer.tok_embeddings", EMBED_TOKENS},
    {"transformer.layers.*.attention.norm", PRE_NORM(0)},
    {"transformer.layers.*.attention.qkv_proj", ATTENTION_QKV(0)},
    {"transformer.layers.*.attention.out_proj", SLOTS(0, ROLE_O_PROJ)},
    {"transformer.layers.*.feed_forward.norm", PRE_NORM(1)},
    {"transformer.layers.*.feed_forward.{gate,up,down}_proj", MLP(1)},
    {"transformer.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"transformer.rotary_emb**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_lille = {
    .name = "Lille",
    .model_types = {"lille-130m"},
    .spec = lille_spec,
    .weights = lille_weights,
};
