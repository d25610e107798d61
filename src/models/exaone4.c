/* models/exaone4.c: EXAONE 4: norms after the blocks; layers that slide turn, those that see
 * everything do not.
 *
 *     x += rms_norm(attention(x));  x += rms_norm(mlp(x))
 *
 * arXiv:2507.11407
 */
#include <string.h>

#include "models/family.h"

/* Whether a layer slides: by layer_types, or by a pattern such as "LLLG" or the number 4. No
 * pattern: all layers see everything, and turn. */
static bool slides(config *c, int layer)
{
    const char *pattern;
    int every;

    if (config_has(c, "layer_types"))
        return config_window(c, layer, 0) > 0;
    if (config_kind(c, "sliding_window_pattern") == CONFIG_STRING) {
        pattern = config_string(c, "sliding_window_pattern");
        return *pattern && pattern[(size_t)layer % strlen(pattern)] == 'L';
    }
    every = config_int_or(c, "sliding_window_pattern", 0);
    return every > 0 && (layer + 1) % every != 0;
}

static int exaone4_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c), none = {0};
    struct mlp_spec mlp = config_gated_mlp(c);
    int window = config_int_or(c, "sliding_window", 0);
    struct attention_spec attention;
    struct rope_spec rope;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 1000000, a);
    attention.q_norm = attention.k_norm = norm;
    rope = attention.rope;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        bool local = slides(c, i) && window > 0;

        attention.window = local ? window : 0;
        attention.rope = rope;
        if (window > 0 && !local)
            attention.rope.kind = ROPE_NONE;
        layer_add(&s->layers[i], branch_attention(none, attention))->post_norm = norm;
        layer_add(&s->layers[i], branch_mlp(none, mlp))->post_norm = norm;
    }
    config_ignore(c, "sliding_window_pattern", NULL);
    return 0;
}

const struct family family_exaone4 = {
    .name = "EXAONE 4",
    .model_types = {"exaone4", "exaone4_5"},
    .spec = exaone4_spec,
    .weights = layout_post_norm,
};
