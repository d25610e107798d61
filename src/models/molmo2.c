/* models/molmo2.c: the text of Molmo 2: Qwen 3 or OLMo 2 under other names.
 *
 *     x += attention(rms_norm(x));  x += mlp(rms_norm(x))
 *     x += rms_norm(attention(x));  x += rms_norm(mlp(x))      with norm_after
 *
 * Clark et al., 2025
 */
#include <string.h>

#include "models/family.h"

/* rope_scaling_layers lists the layers whose rope is scaled: all, if it is not there. */
static bool is_scaled(config *c, int layer)
{
    const int *layers;
    int n = config_ints(c, "rope_scaling_layers", &layers);

    for (int i = 0; i < n; i++)
        if (layers[i] == layer)
            return true;
    return n < 0;
}

static int molmo2_spec(struct spec *s, config *c, arena *a)
{
    const char *qk_norm = config_string_or(c, "qk_norm_type", "qwen3");
    bool after = config_bool_or(c, "norm_after", false);
    struct norm_spec norm, none = {0};
    struct attention_spec attention;
    struct rope_spec scaled, plain;
    struct mlp_spec mlp;

    config_alias(c, "qkv_bias", "attention_bias");
    config_alias(c, "layer_norm_eps", "rms_norm_eps");
    norm = config_rms_norm(c);
    mlp = config_gated_mlp(c);
    if (config_common(s, c, false, a))
        return -1;
    if (strcmp(qk_norm, "qwen3") != 0 && strcmp(qk_norm, "olmo") != 0)
        return config_fail(c, "qk_norm_type", "unknown kind \"%s\"", qk_norm);
    attention = config_attention(c, s, 10000, a);
    attention.o_bias = mlp.bias = false;
    attention.q_norm = attention.k_norm = norm;
    attention.qk_norm_span = strcmp(qk_norm, "olmo") == 0 ? QK_NORM_ALL : QK_NORM_HEAD;
    scaled = attention.rope;
    plain = rope_plain(attention.head_dim, scaled.theta);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        struct layer_spec *l = &s->layers[i];

        attention.rope = is_scaled(c, i) ? scaled : plain;
        if (after) /* keeps the places of weights apart */
            layer_add(l, branch_of(OP_NONE, none))->replace = true;
        layer_add(l, branch_attention(after ? none : norm, attention))->post_norm =
            after ? norm : none;
        layer_add(l, branch_mlp(after ? none : norm, mlp))->post_norm = after ? norm : none;
    }
    config_ignore(c, "additional_vocab_size", NULL); /* of pictures */
    return 0;
}

static const struct weight_rule molmo2_weights[] = {
    {"wte.embedding", EMBED_TOKENS},
    {"wte.new_embedding", IGNORE}, /* of tokens of pictures, beyond the vocabulary */
    {"blocks.*.attn_norm", ONLY_SLOTS(OP_ATTENTION, 0, ROLE_PRE_NORM)},
    {"blocks.*.self_attn.att_proj",
     {.kind = TARGET_SPLIT, .branch = 0, .first = ROLE_Q_PROJ, .n = 3, .only = OP_ATTENTION}},
    {"blocks.*.self_attn.attn_out", ONLY_SLOTS(OP_ATTENTION, 0, ROLE_O_PROJ)},
    {"blocks.*.self_attn.{q,k}_norm", ONLY_SLOTS(OP_ATTENTION, 0, ROLE_Q_NORM)},
    {"blocks.*.ff_norm", ONLY_SLOTS(OP_ATTENTION, 1, ROLE_PRE_NORM)},
    {"blocks.*.mlp.ff_proj",
     {.kind = TARGET_SPLIT_BACK,
      .branch = 1,
      .first = ROLE_GATE_PROJ,
      .n = 2,
      .only = OP_ATTENTION}},
    {"blocks.*.mlp.ff_out", ONLY_SLOTS(OP_ATTENTION, 1, ROLE_DOWN_PROJ)},
    {"blocks.*.attn_norm", POST_NORM(1)},
    {"blocks.*.self_attn.att_proj", ATTENTION_QKV(1)},
    {"blocks.*.self_attn.attn_out", SLOTS(1, ROLE_O_PROJ)},
    {"blocks.*.self_attn.{q,k}_norm", ATTENTION_NORMS(1)},
    {"blocks.*.ff_norm", POST_NORM(2)},
    {"blocks.*.mlp.ff_proj", MLP_UP_GATE(2)},
    {"blocks.*.mlp.ff_out", SLOTS(2, ROLE_DOWN_PROJ)},
    {"ln_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.vision_backbone.**", IGNORE},
    {NULL, IGNORE},
};

static const struct weight_prefix molmo2_prefixes[] = {{"model.transformer.", ""}, {NULL, NULL}};

const struct family family_molmo2 = {
    .name = "Molmo 2",
    .model_types = {"molmo2", "molmo2_text"},
    .spec = molmo2_spec,
    .weights = molmo2_weights,
    .prefixes = molmo2_prefixes,
};
