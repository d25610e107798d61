/* models/nanochat.c: nanochat: norms without weights everywhere, also of embeddings and, after
 * rope, of q and k.
 *
 *     x = norm(wte[token]);  x += attention(norm(x));  x += c_proj(relu(c_fc(norm(x)))^2)
 *
 * Heads turn the other way round than in other models. Karpathy, nanochat, 2025
 */
#include "models/family.h"

static int nanochat_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS,
                             .eps = (float)config_float_or(c, "rms_norm_eps", 1e-5),
                             .weightless = true};
    struct mlp_spec mlp = {
        .intermediate_size = config_int(c, "intermediate_size"),
        .activation = config_activation(c, "hidden_act", ACT_RELU2),
    };
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = config_attention(c, s, 10000, a);
    attention.q_norm = attention.k_norm = norm;
    attention.qk_norm_after_rope = true;
    attention.rope.backward = true;
    s->embed_norm = norm;
    s->logit_softcap = (float)config_cap(c, "final_logit_softcapping", 15);
    spec_layers(s, norm, attention, mlp);
    return 0;
}

static const struct weight_rule nanochat_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.mlp.{fc1,fc2}", SLOTS(1, ROLE_UP_PROJ)},
    {"lm_head", LM_HEAD},
    {"transformer.wte", EMBED_TOKENS},
    {"transformer.h.*.attn.{c_q,c_k,c_v,c_proj}", ATTENTION(0)},
    {"transformer.h.*.mlp.{c_fc,c_proj}", SLOTS(1, ROLE_UP_PROJ)},
    {NULL, IGNORE},
};

const struct family family_nanochat = {
    .name = "nanochat",
    .model_types = {"nanochat"},
    .spec = nanochat_spec,
    .weights = nanochat_weights,
};
