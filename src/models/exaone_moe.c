/* models/exaone_moe.c: K-EXAONE: layers that slide turn, those that see everything do not; experts
 * chosen by sigmoid scores with a bias.
 *
 *     x += attention(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of w_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * K-EXAONE Technical Report, arXiv:2601.01739
 */
#include <string.h>

#include "models/family.h"

static bool is_sparse(config *c, int layer)
{
    const bool *sparse;
    int n = config_bools(c, "is_moe_layer", &sparse);

    if (n >= 0)
        return layer < n ? sparse[layer]
                         : config_fail(c, "is_moe_layer", "%d entries are too few", n);
    return config_layer_is(c, "mlp_layer_types", "sparse", layer,
                           layer >= config_int_or(c, "first_k_dense_replace", 1));
}

/* Without layer_types, in the new schema, all but every sliding_window_pattern-th (4th). */
static int window_of(config *c, int layer)
{
    int every = config_has(c, "sliding_window_pattern") && config_has(c, "rope_parameters")
                    ? config_int_in(c, "sliding_window_pattern", 1, 4096)
                    : 4;
    bool slides = config_has(c, "rope_parameters") && (layer + 1) % every != 0 &&
                  config_has(c, "sliding_window");

    return config_window(c, layer, slides ? config_window_size(c, "sliding_window", 4096) : 0);
}

static int exaone_moe_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct moe_spec moe = config_moe_noaux(c, mlp);
    struct attention_spec attention;
    struct rope_spec rope;
    bool any_slides =
        config_by_transformers(c) && config_kind(c, "sliding_window") == CONFIG_NUMBER;

    config_noaux_alone(c);
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 1000000, a);
    attention.q_norm = attention.k_norm = norm;
    rope = attention.rope;
    s->final_norm = norm;
    s->more_layers = true;
    for (int i = 0; i < s->n_layers; i++)
        any_slides = any_slides || window_of(c, i) > 0;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = window_of(c, i);
        attention.rope = rope;
        if (any_slides && !attention.window)
            attention.rope.kind = ROPE_NONE;
        layer_add(&s->layers[i], branch_attention(norm, attention));
        if (is_sparse(c, i))
            layer_add(&s->layers[i], branch_moe(norm, moe));
        else
            layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "first_k_dense_replace", "sliding_window_pattern", "sliding_window",
                  "num_nextn_predict_layers", NULL);
    return 0;
}

const struct family family_exaone_moe = {
    .name = "K-EXAONE",
    .model_types = {"exaone_moe"},
    .spec = exaone_moe_spec,
    .weights = layout_moe,
};
