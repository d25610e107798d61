/* models/apertus.c: Apertus: an ungated feed-forward with xIELU, whose shape is learned.
 *
 *     x += attention(rms_norm(x));  x += down(xielu(up(rms_norm(x))))
 *
 * Apertus, arXiv:2509.14233; xIELU, 2411.13010
 */
#include <string.h>

#include "models/family.h"

static int apertus_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "intermediate_size"),
                           .bias = config_bool_or(c, "mlp_bias", false)};
    bool original = config_by_transformers(c);
    bool later = strncmp(config_string_or(c, "model_type", ""), "apertus1p5", 10) == 0;
    struct attention_spec attention;

    mlp.bias = mlp.bias && !later; /* which has none, whatever the key says */
    mlp.xielu = !original || strcmp(config_string_or(c, "hidden_act", "xielu"), "xielu") == 0;
    if (!mlp.xielu)
        mlp.activation = config_activation(c, "hidden_act", ACT_SILU);
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 12000000, a);
    attention.q_norm = attention.k_norm = norm;
    if (!original) /* mlx-lm has no biases there */
        attention.qkv_bias = attention.o_bias = false;
    if (config_kind(c, "output_vocab_size") == CONFIG_NUMBER) { /* 1.5: the head has no images */
        s->embed_rows = s->vocab_size;
        s->vocab_size = config_int_in(c, "output_vocab_size", 1, s->vocab_size);
    }
    config_ignore(c, "hidden_act", "qk_norm", "post_norm", NULL); /* the same whatever they say */
    spec_layers(s, norm, attention, mlp);
    return 0;
}

static const struct weight_rule apertus_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.attention_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.feedforward_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{up,down}_proj", SLOTS(1, ROLE_UP_PROJ)},
    {"model.layers.*.mlp.act_fn.{alpha_p,alpha_n,beta,eps}", SLOTS(1, ROLE_XIELU_ALPHA_P)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_apertus = {
    .name = "Apertus",
    .model_types = {"apertus", "apertus1p5_text", "apertus1p5"},
    .spec = apertus_spec,
    .weights = apertus_weights,
};
