/* models/cohere.c: Command R (cohere) and Command R7B (cohere2).
 *
 *     x += attention(n) + mlp(n),  n = layer_norm(x)
 *
 * Three of four layers of cohere2 slide and turn, the fourth sees everything and knows no
 * positions. In cohere_compass rope_parameters says which kinds of layers turn.
 */
#include <string.h>

#include "models/family.h"

static struct attention_spec attention_of(config *c, struct spec *s, struct norm_spec norm,
                                          arena *a)
{
    struct attention_spec attention = config_attention(c, s, 10000, a);

    attention.rope.interleaved = true;
    if (config_bool_or(c, "use_qk_norm", false)) {
        norm.bias = false;
        attention.q_norm = attention.k_norm = norm;
        attention.qk_norm_span = QK_NORM_EACH;
    }
    return attention;
}

static struct rope_spec compass_rope(config *c, int head_dim, bool slides, arena *a)
{
    const char *type = slides ? "sliding_attention" : "full_attention";
    const char *other = slides ? "full_attention" : "sliding_attention";
    config *ropes = config_object(c, "rope_parameters");

    if (ropes && config_kind(ropes, other) == CONFIG_OBJECT &&
        config_kind(ropes, type) != CONFIG_OBJECT)
        return (struct rope_spec){0};
    return config_rope(c, type, head_dim, 10000, a);
}

static int cohere_spec(struct spec *s, config *c, arena *a)
{
    const char *type = config_string_or(c, "model_type", "");
    bool slides = strcmp(type, "cohere2") == 0;
    bool compass = strncmp(type, "cohere_compass", 14) == 0;
    struct norm_spec norm =
        config_layer_norm(c, "layer_norm_eps", config_bool_or(c, "layer_norm_bias", false));
    struct mlp_spec mlp = config_gated_mlp(c);
    int window = config_window_size(c, "sliding_window", 4096);
    int pattern = config_int_or(c, "sliding_window_pattern", 4);
    struct attention_spec attention;

    if (config_common(s, c, true, a))
        return -1;
    s->tie_by_file = true; /* mlx-lm has no head of its own for it */
    attention = compass ? config_attention_plain(c, s) : attention_of(c, s, norm, a);
    s->logit_scale = (float)config_float_or(c, "logit_scale", compass ? 1 : 0.0625);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        struct attention_spec *own =
            &layer_add(&s->layers[i], branch_attention(norm, attention))->attention;
        struct branch_spec *b = layer_add(&s->layers[i], branch_mlp((struct norm_spec){0}, mlp));

        b->parallel = b->shared_norm = true;
        if (slides)
            own->window = config_window(c, i, pattern > 0 && (i + 1) % pattern ? window : 0);
        if (slides && !own->window)
            own->rope.kind = ROPE_NONE;
        if (compass) {
            own->window = config_window(c, i, 0);
            own->rope = compass_rope(c, own->head_dim, own->window > 0, a);
        }
    }
    return 0;
}

static const struct weight_rule cohere_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_cohere = {
    .name = "Command R",
    .model_types = {"cohere", "cohere2", "aya_vision", "cohere2_vision", "cohere_compass_text",
                    "cohere_compass"},
    .spec = cohere_spec,
    .weights = cohere_weights,
};
