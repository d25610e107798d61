/* models/baichuan.c: Baichuan and Baichuan 2: those of 7B turn, those of 13B, which name no
 * max_position_embeddings, have ALiBi. The rows of Baichuan 2's head have length 1.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * arXiv:2309.10305; ALiBi, 2108.12409
 */
#include "models/family.h"

static int baichuan_spec(struct spec *s, config *c, arena *a)
{
    struct mlp_spec mlp = config_gated_mlp(c);
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_plain(c, s);
    attention.n_kv_heads = attention.n_heads;
    if (s->context_length > 0)
        attention.rope = config_rope(c, NULL, attention.head_dim, 10000, a);
    else
        attention.slopes = config_alibi(c, attention.n_heads, 8, 1, a);
    if (s->context_length == 0)
        s->context_length = config_int_or(c, "model_max_length", 0);
    s->head_rows_normed = s->vocab_size == 125696; /* what tells Baichuan 2 from the first */
    spec_layers(s, config_rms_norm(c), attention, mlp);
    config_ignore(c, "model_max_length", "z_loss_weight", "gradient_checkpointing", NULL);
    return 0;
}

static const struct weight_rule baichuan_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.W_pack", ATTENTION_QKV(0)},
    {"model.layers.*.self_attn.o_proj", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed */
    {NULL, IGNORE},
};

const struct family family_baichuan = {
    .name = "Baichuan",
    .model_types = {"baichuan"},
    .spec = baichuan_spec,
    .weights = baichuan_weights,
};
