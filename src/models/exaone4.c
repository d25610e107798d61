/* models/exaone4.c: EXAONE 4: norms after the blocks; layers that slide turn, those that see
 * everything do not.
 *
 *     x += rms_norm(attention(x));  x += rms_norm(mlp(x))
 *
 * arXiv:2507.11407
 */
#include <string.h>

#include "models/family.h"

/* Layers that slide, which turn, and those beside them that see everything, which do not. */
enum reach { REACH_ALL_TURNING, REACH_ALL, REACH_WINDOW };

/* By layer_types, or by a pattern such as "LLLG" or the number 4. Without a window or a pattern all
 * layers see everything, and turn. */
static enum reach reach_of(config *c, int layer, int window)
{
    const char *pattern;
    int every;
    bool slides;

    if (window <= 0)
        return REACH_ALL_TURNING;
    if (config_has(c, "layer_types"))
        return config_window(c, layer, 0) > 0 ? REACH_WINDOW : REACH_ALL;
    if (config_kind(c, "sliding_window_pattern") == CONFIG_STRING) {
        pattern = config_string(c, "sliding_window_pattern");
        if (!*pattern)
            return REACH_ALL_TURNING;
        slides = pattern[(size_t)layer % strlen(pattern)] == 'L';
    } else {
        every = config_int_or(c, "sliding_window_pattern", 0);
        if (every <= 0)
            return REACH_ALL_TURNING;
        slides = (layer + 1) % every != 0;
    }
    return slides ? REACH_WINDOW : REACH_ALL;
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
        enum reach reach = reach_of(c, i, window);

        attention.window = reach == REACH_WINDOW ? window : 0;
        attention.rope = rope;
        if (reach == REACH_ALL)
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
