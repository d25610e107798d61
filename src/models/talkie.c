/* models/talkie.c: Talkie: norms without weights, gains instead, and the embeddings once more after
 * each layer; rope turns backward.
 *
 *     e = norm(embedding);  x = e
 *     x += g attention(norm(x));  x += h mlp(norm(x));  x += s e
 */
#include "models/family.h"

static int talkie_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS,
                             .weightless = true,
                             .eps =
                                 (float)config_float_or(c, "rms_norm_eps", 1.1920928955078125e-07)};
    struct mlp_spec mlp = config_gated_mlp(c);
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = config_attention(c, s, 1000000, a);
    attention.rope.backward = true;
    attention.q_norm = attention.k_norm = norm;
    attention.qk_norm_after_rope = attention.head_gain = true;
    s->embed_norm = s->final_norm = norm;
    s->logit_gain = true;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention))->gain = true;
        layer_add(&s->layers[i], branch_mlp(norm, mlp))->gain = true;
        layer_add(&s->layers[i], branch_of(OP_EMBEDDING, (struct norm_spec){0}))->gain = true;
    }
    return 0;
}

static const struct weight_rule talkie_weights[] = {
    {"model.embed", EMBED_TOKENS},
    {"model.blocks.*.attn.{attn_query,attn_key,attn_value,attn_resid}", ATTENTION(0)},
    {"model.blocks.*.attn.head_gain.head_g", SLOTS(0, ROLE_HEAD_GAIN)},
    {"model.blocks.*.attn_gain.a_g", SLOTS(0, ROLE_GAIN)},
    {"model.blocks.*.mlp.{mlp_gate,mlp_linear,mlp_resid}", MLP(1)},
    {"model.blocks.*.mlp_gain.a_g", SLOTS(1, ROLE_GAIN)},
    {"model.blocks.*.embed_skip.a_g", SLOTS(2, ROLE_GAIN)},
    {"lm_head", LM_HEAD},
    {"lm_head_gain.w_g", SLOTS(-1, ROLE_LOGIT_GAIN)},
    {NULL, IGNORE},
};

const struct family family_talkie = {
    .name = "Talkie",
    .model_types = {"talkie"},
    .spec = talkie_spec,
    .weights = talkie_weights,
};
