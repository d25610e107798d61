/* models/plamo.c: PLaMo: attention and feed-forward of one normed x; query heads take the few kv
 * heads in turn.
 *
 *     n = rms_norm(x);  x += attention(n) + down(silu(gate(n)) * up(n))
 *
 * PLaMo-13B, Preferred Networks 2023
 */
#include "models/family.h"

static int plamo_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    int n_heads = config_int_in(c, "num_attention_heads", 1, 4096);
    int shared = config_int_or(c, "n_shared_head", 8);
    struct attention_spec attention;

    if (shared < 1)
        return config_fail(c, "n_shared_head", "it is %d; it must be positive", shared);
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = config_attention(c, s, 10000, a);
    attention.n_kv_heads = (n_heads + shared - 1) / shared;
    attention.tiled = true;
    spec_layers(s, norm, attention, mlp);
    for (int i = 0; i < s->n_layers; i++)
        s->layers[i].branches[1].parallel = s->layers[i].branches[1].shared_norm = true;
    return 0;
}

static const struct weight_rule plamo_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.layers.*.norm", PRE_NORM(0)},
    {"model.layers.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_plamo = {
    .name = "PLaMo",
    .model_types = {"plamo"},
    .spec = plamo_spec,
    .weights = plamo_weights,
};
