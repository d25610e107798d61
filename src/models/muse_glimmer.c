/* models/muse_glimmer.c: Muse Glimmer: gated attention, sandwich norms, norms without weights on
 * embeddings, q and k; three layers of four slide and turn.
 *
 *     x = norm(embedding)
 *     x += norm(attention(norm(x)) * sigmoid(gate(norm(x))));  x += norm(mlp(norm(x)))
 */
#include "models/family.h"

static int glimmer_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS,
                             .eps = (float)config_float_or(c, "rms_norm_eps", 1e-5)};
    struct norm_spec plain = norm, bare = norm, after;
    struct mlp_spec mlp = config_gated_mlp(c);
    int window = config_window_size(c, "sliding_window", 2048);
    bool later = config_by_transformers(c);
    struct attention_spec attention;
    struct rope_spec rope;

    mlp.activation = config_activation(c, "hidden_activation", mlp.activation);
    bare.weightless = true;
    norm.offset = 1;
    after = norm;
    after.eps = (float)config_float_or(c, "post_norm_eps", 1e-8);
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_plain(c, s);
    attention.n_kv_heads = config_int_or(c, "num_key_value_heads", 2);
    attention.head_dim = config_int_or(c, "head_dim", 128);
    attention.scale = attention_scale(attention.head_dim);
    attention.rope = config_rope(c, NULL, attention.head_dim, later ? 10000 : 500000, a);
    attention.q_norm = attention.k_norm = bare;
    attention.scale *= (float)config_float_or(c, "qk_scale_factor", 3.87);
    attention.gate = GATE_ALL;
    attention.gate_activation = ACT_SIGMOID;
    rope = attention.rope;
    s->embed_norm = bare;
    s->final_norm = plain;
    s->logit_scale = (float)config_float_or(c, "output_multiplier", 0.19611613513818404);
    s->logit_softcap = (float)config_float_or(c, "final_logit_softcapping", 20);
    for (int i = 0; i < s->n_layers; i++) {
        /* transformers counts from the last layer, and turns so whatever slides. */
        bool full = later ? (s->n_layers - 1 - i) % 4 == 0 : (i + 1) % 4 == 0;

        attention.window = config_window(c, i, full ? 0 : window);
        attention.rope = rope;
        if (!config_layer_turns(c, i, later ? !full : attention.window > 0))
            attention.rope.kind = ROPE_NONE;
        layer_add(&s->layers[i], branch_attention(norm, attention))->post_norm = after;
        layer_add(&s->layers[i], branch_mlp(norm, mlp))->post_norm = after;
    }
    return 0;
}

static const struct weight_rule glimmer_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.gate_proj", SLOTS(0, ROLE_ATTENTION_GATE)},
    {"model.layers.*.post_attention_layernorm", POST_NORM(0)},
    {"model.layers.*.pre_feedforward_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.post_feedforward_layernorm", POST_NORM(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.vision_adapter.**", IGNORE},
    {NULL, IGNORE},
};

const struct family family_muse_glimmer = {
    .name = "Muse Glimmer",
    .model_types = {"muse_glimmer"},
    .spec = glimmer_spec,
    .weights = glimmer_weights,
};
