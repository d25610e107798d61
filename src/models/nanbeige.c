/* models/nanbeige.c: Nanbeige: Llama whose layers are gone through several times, each time with
 * keys and values of their own, and a norm at the end of each time.
 *
 *     num_loops times: for each layer: x += attention(rms_norm(x)); x += mlp(rms_norm(x))
 *                      x = rms_norm(x)
 */
#include "models/family.h"

static int n_loops(config *c)
{
    const double *weights;
    int n = config_floats(c, "loop_loss_weights", &weights);

    return n > 0 ? n + 1 : config_int_in(c, "num_loops", 1, 64);
}

static int nanbeige_spec(struct spec *s, config *c, arena *a)
{
    static const char *const unknown[] = {"enable_double_loop_split", "loop_share_kv",
                                          "enable_depth_attention"};
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    int loops = n_loops(c), n;
    bool inner_norms = !config_bool_or(c, "skip_loop_final_norm", false);
    struct attention_spec attention;

    for (size_t i = 0; i < COUNT(unknown); i++)
        if (config_bool_or(c, unknown[i], false))
            return config_fail(c, unknown[i], "it is not supported");
    if (config_common(s, c, false, a))
        return -1;
    n = s->n_layers;
    attention = config_attention(c, s, 10000, a);
    if (config_error(c)->code || spec_repeat_layers(s, c, "num_loops", loops, a))
        return -1;
    spec_layers(s, norm, attention, mlp);
    for (int i = n - 1; inner_norms && i < s->n_layers - 1; i += n) {
        struct branch_spec *end = layer_add(&s->layers[i], branch_of(OP_NONE, norm));

        end->replace = end->final_norm = true;
    }
    config_ignore(c, "num_loops", NULL);
    return 0;
}

const struct family family_nanbeige = {
    .name = "Nanbeige, looped",
    .model_types = {"nanbeige"},
    .spec = nanbeige_spec,
    .weights = layout_llama,
};
