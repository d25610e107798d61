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
                           .xielu = true,
                           .bias = config_bool_or(c, "mlp_bias", false)};
    const char *act = config_string_or(c, "hidden_act", "xielu");
    struct attention_spec attention;

    if (strcmp(act, "xielu") != 0)
        return config_fail(c, "hidden_act", "\"%s\"; Apertus has \"xielu\"", act);
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 12000000, a);
    if (config_bool_or(c, "qk_norm", true))
        attention.q_norm = attention.k_norm = norm;
    if (config_bool_or(c, "post_norm", false))
        return config_fail(c, "post_norm", "norms after the blocks are not known of Apertus");
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
    .model_types = {"apertus"},
    .spec = apertus_spec,
    .weights = apertus_weights,
};
