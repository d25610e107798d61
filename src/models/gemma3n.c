/* models/gemma3n.c: Gemma 3n: a state of several streams, attention beside a product of low rank,
 * thinned activations, inputs of each layer's own, the last layers reading the cache of earlier
 * ones.
 *
 *     x = predicted stream;  n = norm(x)
 *     x = (x + norm(attention(n)) + n + norm(right(left(n)))) / sqrt(2)
 *     x += norm(mlp(norm(x)));  x = corrected stream
 *     streams but the first += norm(out(gelu(gate(x)) * p))
 *
 * Gemma 3n, Google 2025; AltUp, arXiv:2301.13310; Laurel, 2411.07501
 */
#include <math.h>

#include "models/family.h"

/* The number that a standard normal variable is below with probability p, 0 < p < 1. */
static double normal_quantile(double p)
{
    double low = -40, high = 40;

    for (int i = 0; i < 200; i++) {
        double middle = (low + high) / 2;

        if (0.5 * erfc(-middle / sqrt(2)) < p)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The share of a feed-forward's numbers that are 0. */
static double sparsity_of(config *c, const struct spec *s, int layer)
{
    const double *pattern;
    int n = config_floats(c, "activation_sparsity_pattern", &pattern);

    if (n < 0)
        return s->n_layers > 10 && layer < 10 ? 0.95 : 0;
    if (layer >= n)
        return config_fail(c, "activation_sparsity_pattern",
                           "it has %d entries, too few for layer %d", n, layer);
    if (!(pattern[layer] >= 0 && pattern[layer] < 1))
        return config_fail(c, "activation_sparsity_pattern", "%g is no share below 1",
                           pattern[layer]);
    return pattern[layer];
}

static struct mlp_spec mlp_of(config *c, const struct spec *s, int layer)
{
    struct mlp_spec mlp = {.activation = config_activation(c, "hidden_activation", ACT_GELU_TANH),
                           .gated = true};
    double sparsity = sparsity_of(c, s, layer);
    const int *sizes;
    int n = config_int_or_ints(c, "intermediate_size", &sizes);

    if (n > 1 && layer >= n)
        config_fail(c, "intermediate_size", "it has %d entries, too few for layer %d", n, layer);
    else if (n > 0)
        mlp.intermediate_size = sizes[n > 1 ? layer : 0];
    mlp.thinned = sparsity > 0;
    mlp.thinning = mlp.thinned ? (float)normal_quantile(sparsity) : 0;
    return mlp;
}

static int add_layer(struct spec *s, config *c, int i, int n_own, struct attention_spec at)
{
    struct norm_spec norm = s->final_norm, none = {0};
    struct layer_spec *l = &s->layers[i];
    struct branch_spec *b;

    if (i >= n_own) {
        at.cache_of = spec_kv_source(s, n_own, 1, at.window > 0);
        if (!at.cache_of)
            return config_fail(c, "num_kv_shared_layers", "layer %d has no layer to share with", i);
    }
    layer_add(l, branch_of(OP_ALTUP_PREDICT, none))->replace = true;
    layer_add(l, branch_attention(norm, at))->post_norm = norm;
    b = layer_add(l, branch_of(OP_LOW_RANK, none));
    b->rank = config_int_or(c, "laurel_rank", 64);
    b->post_norm = norm;
    b->parallel = b->shared_norm = true;
    b = layer_add(l, branch_of(OP_NONE, none));
    b->parallel = b->shared_norm = true;
    b = layer_add(l, branch_of(OP_NONE, none));
    b->replace = true;
    b->scale = (float)sqrt(0.5);
    layer_add(l, branch_mlp(norm, mlp_of(c, s, i)))->post_norm = norm;
    layer_add(l, branch_of(OP_ALTUP_CORRECT, none))->replace = true;
    b = layer_add(l, branch_of(OP_LAYER_INPUT, none));
    b->post_norm = norm;
    b->replace = true;
    layer_add(l, branch_of(OP_ALTUP_ADD, none))->replace = true;
    return 0;
}

static void read_altup(struct spec *s, config *c)
{
    s->altup = (struct altup_spec){
        .n = config_int_or(c, "altup_num_inputs", 4),
        .active = config_int_or(c, "altup_active_idx", 0),
        .coef_limit = (float)config_cap(c, "altup_coef_clip", 120),
        .correct_scale = config_bool_or(c, "altup_correct_scale", true),
        .router_norm = s->final_norm,
    };
}

static struct attention_spec read_attention(config *c)
{
    struct attention_spec at = {
        .n_heads = config_int_or(c, "num_attention_heads", 8),
        .n_kv_heads = config_int_or(c, "num_key_value_heads", 2),
        .head_dim = config_int_or(c, "head_dim", 256),
        .scale = 1,
    };

    at.qkv_bias = at.o_bias = config_bool_or(c, "attention_bias", false);
    return at;
}

static int gemma3n_spec(struct spec *s, config *c, arena *a)
{
    int shared = config_int_or(c, "num_kv_shared_layers", 15);
    int window = config_window_size(c, "sliding_window", 512);
    struct attention_spec at = read_attention(c);
    struct rope_spec full = config_rope_parameters(c, at.head_dim, 1000000, false, a);
    struct rope_spec sliding = config_rope_sliding(c, at.head_dim, a);

    s->vocab_size = 262400;
    if (config_common(s, c, true, a))
        return -1;
    s->tie_by_file = true; /* mlx-lm has no head of its own for it */
    if (shared < 0 || shared >= s->n_layers)
        return config_fail(c, "num_kv_shared_layers", "it is %d of %d layers", shared, s->n_layers);
    s->embed_scale = (float)sqrt(s->hidden_size);
    s->logit_softcap = (float)config_cap(c, "final_logit_softcapping", 30);
    s->layer_input_size = config_int_in(c, "hidden_size_per_layer_input", 1, 1 << 24);
    s->layer_input_vocab = config_int_or(c, "vocab_size_per_layer_input", 262144);
    s->final_norm = (struct norm_spec){.kind = NORM_RMS,
                                       .eps = (float)config_float_or(c, "rms_norm_eps", 1e-6)};
    s->layer_input_norm = at.q_norm = at.k_norm = at.v_norm = s->final_norm;
    at.v_norm.weightless = true;
    s->layer_input_activation = config_activation(c, "hidden_activation", ACT_GELU_TANH);
    read_altup(s, c);
    for (int i = 0; i < s->n_layers; i++) {
        at.window = config_window(c, i, (i + 1) % 5 ? window : 0);
        at.rope = at.window ? sliding : full;
        if (add_layer(s, c, i, s->n_layers - shared, at))
            return -1;
    }
    return 0;
}

static const struct weight_rule gemma3n_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.embed_tokens_per_layer", SLOTS(-1, ROLE_LAYER_TABLE)},
    {"model.per_layer_model_projection", SLOTS(-1, ROLE_LAYER_PROJ)},
    {"model.per_layer_projection_norm", SLOTS(-1, ROLE_LAYER_NORM)},
    {"model.altup_projections.#", SLOTS(-1, ROLE_ALTUP_IN)},
    {"model.altup_unembed_projections.#", SLOTS(-1, ROLE_ALTUP_OUT)},
    {"model.layers.*.altup.{router_norm,modality_router,prediction_coefs}",
     SLOTS(0, ROLE_ALTUP_NORM)},
    {"model.layers.*.input_layernorm", PRE_NORM(1)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(1)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(1)},
    {"model.layers.*.post_attention_layernorm", POST_NORM(1)},
    {"model.layers.*.laurel.{linear_left,linear_right}", SLOTS(2, ROLE_LOW_RANK_DOWN)},
    {"model.layers.*.laurel.post_laurel_norm", POST_NORM(2)},
    {"model.layers.*.pre_feedforward_layernorm", PRE_NORM(5)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(5)},
    {"model.layers.*.post_feedforward_layernorm", POST_NORM(5)},
    {"model.layers.*.altup.{correction_coefs,correct_output_scale}", SLOTS(6, ROLE_ALTUP_CORRECT)},
    {"model.layers.*.{per_layer_input_gate,per_layer_projection}", SLOTS(7, ROLE_LAYER_GATE)},
    {"model.layers.*.post_per_layer_input_norm", POST_NORM(7)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_gemma3n = {
    .name = "Gemma 3n",
    .model_types = {"gemma3n", "gemma3n_text"},
    .spec = gemma3n_spec,
    .weights = gemma3n_weights,
};
