/* models/ernie4_5_moe.c: ERNIE 4.5 with experts: interleaved rope, experts beside shared ones.
 *
 *     x += attention(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of w_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * ERNIE 4.5 Technical Report, Baidu 2025
 */
#include <string.h>

#include "models/family.h"

/* The least or greatest of a number or a list of them. */
static int bound(config *c, const char *key, int otherwise, bool least)
{
    const int *items;
    int n = config_int_or_ints(c, key, &items);
    int value = n > 0 ? items[0] : otherwise;

    for (int i = 1; i < n; i++)
        if (least ? items[i] < value : items[i] > value)
            value = items[i];
    return value;
}

/* A number, or the first of a list, which is that of text where the model sees, too. */
static int first_of(config *c, const char *key, int otherwise)
{
    const int *items;

    return config_int_or_ints(c, key, &items) > 0 ? items[0] : otherwise;
}

static struct moe_spec read_moe(config *c, struct mlp_spec mlp)
{
    const char *scores = config_string_or(c, "moe_gate_act", "softmax");
    int shared = config_int_or(c, "moe_num_shared_experts", 0);
    struct moe_spec moe = {
        .router =
            {
                .score = strcmp(scores, "sigmoid") == 0 ? ROUTER_SIGMOID : ROUTER_SOFTMAX_ALL,
                .n_experts = config_kind(c, "moe_num_experts") == CONFIG_ARRAY
                                 ? first_of(c, "moe_num_experts", 1)
                                 : config_int(c, "moe_num_experts"),
                .n_experts_per_token = config_int_or(c, "moe_k", 1),
                .normalize = true,
                .normalize_floor = (float)config_float_or(c, "moe_norm_min", 1e-12),
                .scale = 1,
            },
        .router_bias = true,
        .router_bias_optional = true,
        .expert = mlp,
        .shared = mlp,
    };
    int size = first_of(c, "moe_intermediate_size", 0);

    if (strcmp(scores, "sigmoid") != 0 && strcmp(scores, "softmax") != 0)
        config_fail(c, "moe_gate_act", "unknown scores \"%s\" of experts", scores);
    if (size > 0)
        moe.expert.intermediate_size = size;
    moe.shared.intermediate_size =
        config_shared_size(c, "moe_num_shared_experts", shared, moe.expert.intermediate_size);
    config_ignore(c, "moe_capacity", "moe_use_aux_free", NULL);
    return moe;
}

int ernie4_5_moe_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct moe_spec moe;
    struct attention_spec attention;
    int first = bound(c, "moe_layer_start_index", 0, true), last;
    int every = config_int_in(c, "moe_layer_interval", 1, 4096);

    mlp.bias = config_bool_or(c, "use_bias", false);
    moe = read_moe(c, mlp);
    if (config_common(s, c, true, a))
        return -1;
    if (mlp.bias &&
        config_by_transformers(c)) { /* mlx-lm's experts have biases, and its head none */
        s->lm_head_bias = true;
        moe.expert.bias = false;
    }
    last = bound(c, "moe_layer_end_index", s->n_layers - 1, false);
    attention = config_attention(c, s, 500000, a);
    attention.qkv_bias = attention.o_bias = mlp.bias;
    attention.rope.interleaved = true;
    s->final_norm = norm;
    s->more_layers = true;
    for (int i = 0; i < s->n_layers; i++) {
        bool sparse = (i + 1) % every == 0 && i >= first && i <= last;

        layer_add(&s->layers[i], branch_attention(norm, attention));
        if (config_layer_is(c, "mlp_layer_types", "sparse", i, sparse))
            layer_add(&s->layers[i], branch_moe(norm, moe));
        else
            layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    return 0;
}

const struct family family_ernie4_5_moe = {
    .name = "ERNIE 4.5, experts",
    .model_types = {"ernie4_5_moe"},
    .spec = ernie4_5_moe_spec,
    .weights = layout_moe,
};
