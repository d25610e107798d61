/* models/config_parts.c: the parts of a config.json that many families share, in the schema of
 * transformers before and since version 5. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "models/defaults.h"
#include "models/family.h"

struct norm_spec config_rms_norm(config *c)
{
    double otherwise = model_norm_eps(config_string_or(c, "model_type", ""));
    double eps = otherwise > 0 && config_by_transformers(c)
                     ? config_float_or(c, "rms_norm_eps", otherwise)
                     : config_float(c, "rms_norm_eps");

    return (struct norm_spec){.kind = NORM_RMS, .eps = (float)eps};
}

struct norm_spec config_layer_norm(config *c, const char *key, bool bias)
{
    return (struct norm_spec){
        .kind = NORM_LAYER, .eps = (float)config_float_or(c, key, 1e-5), .bias = bias};
}

struct attention_spec config_attention_plain(config *c, const struct spec *s)
{
    int n_heads = config_int_in(c, "num_attention_heads", 1, 4096);
    int head_dim = config_int_or(c, "head_dim", s->hidden_size / n_heads);
    bool bias = config_bool_or(c, "attention_bias", false);

    return (struct attention_spec){
        .n_heads = n_heads,
        .n_kv_heads = config_int_or(c, "num_key_value_heads", n_heads),
        .head_dim = head_dim,
        .qkv_bias = bias,
        .o_bias = bias,
        .scale = attention_scale(head_dim),
    };
}

struct attention_spec config_attention(config *c, const struct spec *s, double theta, arena *a)
{
    struct attention_spec attention = config_attention_plain(c, s);

    attention.rope = config_rope(c, NULL, attention.head_dim, theta, a);
    return attention;
}

struct attention_spec config_attention_partial(config *c, const struct spec *s, double theta,
                                               arena *a)
{
    struct attention_spec attention = config_attention_plain(c, s);

    attention.rope = config_rope_partial(c, NULL, attention.head_dim, theta, a);
    return attention;
}

struct temperature_spec config_temperature(config *c)
{
    config *rope = config_rope_object(c);
    struct temperature_spec t = {0};

    if (!rope || !config_has(rope, "llama_4_scaling_beta"))
        return t;
    t.beta = (float)config_float(rope, "llama_4_scaling_beta");
    t.length = (float)config_float(rope, "original_max_position_embeddings");
    config_ignore(rope, "max_position_embeddings", NULL);
    return t;
}

/* Yarn's correction of the scores, squared because queries and keys would both have it; with
 * scaling of any type, in mlx-lm with the default one too. */
static double yarn_scale(config *c, const struct rope_spec *r)
{
    config *scaling = config_rope_object(c);
    double factor = r->factor, all = r->kind == ROPE_YARN ? r->mscale_all_dim : 0;

    if (r->kind != ROPE_YARN && scaling &&
        (r->kind != ROPE_DEFAULT || !config_by_transformers(c))) {
        factor = config_float_or(scaling, "factor", 1);
        all = config_float_or(scaling, "mscale_all_dim", 0);
    }
    return factor > 1 && all != 0 ? pow(0.1 * all * log(factor) + 1, 2) : 1;
}

struct mla_spec config_mla(config *c, double theta, arena *a)
{
    bool bias = config_bool_or(c, "attention_bias", false), interleaved;
    struct norm_spec norm = {.kind = NORM_RMS, .eps = 1e-6f};
    struct mla_spec m = {
        .n_heads = config_int_in(c, "num_attention_heads", 1, 4096),
        .q_rank = config_is_null(c, "q_lora_rank") ? 0 : config_int_or(c, "q_lora_rank", 1536),
        .kv_rank = config_int_or(c, "kv_lora_rank", 512),
        .nope_dim = config_int_or(c, "qk_nope_head_dim", 128),
        .rope_dim = config_int_or(c, "qk_rope_head_dim", 64),
        .v_dim = config_int_or(c, "v_head_dim", 128),
        .a_bias = bias,
        .o_bias = bias,
        .q_norm = norm,
        .kv_norm = norm,
        .q_scale = 1,
        .kv_scale = 1,
    };

    m.rope = config_rope(c, NULL, m.rope_dim, theta, a);
    interleaved = config_bool_or(c, "rope_traditional", true);
    rope_interleave(&m.rope, c, config_bool_or(c, "rope_interleave", interleaved));
    m.scale = (float)(yarn_scale(c, &m.rope) / sqrt((double)m.nope_dim + m.rope_dim));
    config_ignore(c, "num_key_value_heads", "head_dim", "qk_head_dim", NULL);
    return m;
}

struct mlp_spec config_gated_mlp(config *c)
{
    return (struct mlp_spec){
        .intermediate_size = config_int(c, "intermediate_size"),
        .activation = config_activation(c, "hidden_act", ACT_SILU),
        .gated = true,
        .bias = config_bool_or(c, "mlp_bias", false),
    };
}

struct moe_spec config_moe_local(config *c, int n_experts)
{
    return (struct moe_spec){
        .router = {.score = ROUTER_SOFTMAX_SELECTED,
                   .n_experts = config_int_or(c, "num_local_experts", n_experts),
                   .n_experts_per_token = config_int_or(c, "num_experts_per_tok", 2),
                   .scale = 1},
        .expert = config_gated_mlp(c),
    };
}

struct moe_spec config_moe_beside(config *c, struct router_params usual)
{
    struct mlp_spec mlp = {.activation = config_activation(c, "hidden_act", ACT_SILU),
                           .gated = true};
    struct moe_spec moe = {.router = usual, .expert = mlp, .shared = mlp};

    moe.router.n_experts = config_int_or(c, "num_experts", usual.n_experts);
    moe.router.n_experts_per_token =
        config_int_or(c, "num_experts_per_tok", usual.n_experts_per_token);
    moe.router.normalize = config_bool_or(c, "norm_topk_prob", usual.normalize);
    moe.router.scale = 1;
    moe.expert.intermediate_size = config_int_or(c, "moe_intermediate_size", 512);
    moe.shared.intermediate_size = config_int_or(c, "shared_expert_intermediate_size", 512);
    return moe;
}

int config_shared_size(config *c, const char *key, int n, int size)
{
    if (n == 0 || size <= (1 << 24) / n)
        return n * size;
    config_fail(c, key, "%d of %d numbers are too many", n, size);
    return 0;
}

struct moe_spec config_moe_noaux(config *c, struct mlp_spec mlp)
{
    bool other = !config_has(c, "n_routed_experts");
    int shared = config_int_or(c, other ? "num_shared_experts" : "n_shared_experts", 0);
    int size = config_int(c, "moe_intermediate_size");
    struct moe_spec moe = {
        .router =
            {
                .score = ROUTER_SIGMOID,
                .n_experts = config_int(c, other ? "num_experts" : "n_routed_experts"),
                .n_experts_per_token = config_int(c, "num_experts_per_tok"),
                .n_groups = config_int_or(c, "n_group", 1),
                .n_groups_kept = config_int_or(c, "topk_group", 1),
                .normalize = config_bool_or(c, "norm_topk_prob", true),
                .normalize_eps = 1e-20f,
                .scale = (float)config_float_or(c, "routed_scaling_factor", 1),
            },
        .router_bias = true,
        .expert = mlp,
        .shared = mlp,
    };

    moe.shared.intermediate_size = config_shared_size(c, "n_shared_experts", shared, size);
    moe.expert.intermediate_size = size;
    config_router_origin(c, &moe.router);
    config_ignore(c, "topk_method", "scoring_func", NULL); /* sigmoid to both references */
    return moe;
}

void config_noaux_alone(config *c)
{
    const char *method = config_string_or(c, "topk_method", "noaux_tc");

    if (strcmp(method, "noaux_tc") != 0 && !config_by_transformers(c))
        config_fail(c, "topk_method", "unknown choice \"%s\" of experts", method);
}

void config_router_origin(const config *c, struct router_params *r)
{
    if (config_by_transformers(c))
        r->groups_alone = true;
    else if (r->n_experts_per_token == 1)
        r->normalize = false;
}

bool config_by_transformers(const config *c)
{
    return config_root_has(c, "transformers_version") || config_has(c, "transformers_version");
}

void config_require(config *c, const char *keys)
{
    char key[64];
    size_t n;

    for (; *keys && !config_by_transformers(c); keys += n + (keys[n] == ' ')) {
        n = strcspn(keys, " ");
        snprintf(key, sizeof key, "%.*s", (int)n, keys);
        if (!config_has(c, key) && !config_is_null(c, key))
            config_fail(c, key, "it is missing");
    }
}

bool config_layer_is_sparse(config *c, int layer)
{
    const int *dense;
    int n_dense = config_ints(c, "mlp_only_layers", &dense);
    int step = config_int_or(c, "decoder_sparse_step", 1);

    if (step < 1)
        return config_fail(c, "decoder_sparse_step", "it is %d; it must be positive", step);
    for (int i = 0; i < n_dense; i++)
        if (dense[i] == layer)
            return false;
    return (layer + 1) % step == 0;
}

void spec_layers(struct spec *s, struct norm_spec norm, struct attention_spec attention,
                 struct mlp_spec mlp)
{
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
}

int spec_kv_source(const struct spec *s, int n_own, int branch, bool sliding)
{
    for (int i = n_own - 1; i >= 0; i--)
        if ((s->layers[i].branches[branch].attention.window > 0) == sliding)
            return i + 1;
    return 0;
}

int spec_repeat_layers(struct spec *s, config *c, const char *key, int times, arena *a)
{
    struct layer_spec *layers;

    if (times < 1 || s->n_layers > 4096 / times)
        return config_fail(c, key, "%d times %d layers are too many", times, s->n_layers);
    layers = arena_array(a, struct layer_spec, (size_t)s->n_layers * (size_t)times);
    if (!layers)
        return fail(config_error(c), CLM_ERR_NOMEM, "the specification of %d layers: no memory",
                    s->n_layers * times);
    for (int i = s->n_layers; i < s->n_layers * times; i++)
        layers[i].same_as = i % s->n_layers + 1;
    s->layers = layers;
    s->n_layers *= times;
    return 0;
}

float attention_scale(int head_dim)
{
    return (float)(1 / sqrt(head_dim > 0 ? head_dim : 1));
}

const float *config_alibi(config *c, int n_heads, double bias_max, double scale, arena *a)
{
    int n = n_heads > 0 && n_heads <= 4096 ? n_heads : 1, power = 1;
    float *slopes = arena_array(a, float, n);

    if (!slopes) {
        fail(config_error(c), CLM_ERR_NOMEM, "slopes of %d heads: no memory", n);
        return NULL;
    }
    while (2 * power <= n)
        power *= 2;
    /* Heads beyond the power of two take every other slope of twice as many. */
    for (int i = 0; i < n; i++)
        slopes[i] =
            (float)(scale * (i < power
                                 ? pow(2, -bias_max * (i + 1) / power)
                                 : pow(2, -bias_max * (2 * (i - power) + 1) / (2.0 * power))));
    return slopes;
}

double config_cap_or_zero(config *c, const char *key, double otherwise)
{
    return config_is_null(c, key) ? 0 : config_float_or(c, key, otherwise);
}

double config_cap(config *c, const char *key, double otherwise)
{
    double cap = config_cap_or_zero(c, key, otherwise);

    if (cap == 0 && config_kind(c, key) == CONFIG_NUMBER)
        config_fail(c, key, "it is 0, which nothing passes; null stands for none");
    return cap;
}

int config_window_size(config *c, const char *key, int otherwise)
{
    int window = config_int_or(c, key, otherwise);

    if (window < 1)
        config_fail(c, key, "it is %d; a window has 1 token or more", window);
    return window;
}

int config_window(config *c, int layer, int otherwise)
{
    const char *const *types;
    int n = config_strings(c, "layer_types", &types);

    if (n < 0)
        return otherwise;
    if (layer >= n) {
        config_fail(c, "layer_types", "it has %d entries, too few for layer %d", n, layer);
        return 0;
    }
    if (strcmp(types[layer], "full_attention") == 0)
        return 0;
    if (strcmp(types[layer], "sliding_attention") == 0)
        return config_int_in(c, "sliding_window", 1, INT32_MAX);
    config_fail(c, "layer_types", "layer %d is of the unknown type \"%s\"", layer, types[layer]);
    return 0;
}

bool config_layer_is(config *c, const char *key, const char *name, int layer, bool otherwise)
{
    const char *const *types;
    int n = config_strings(c, key, &types);

    if (n < 0)
        return otherwise;
    if (layer >= n)
        return config_fail(c, key, "it has %d entries, too few for layer %d", n, layer);
    return strcmp(types[layer], name) == 0;
}

bool config_layer_turns(config *c, int layer, bool otherwise)
{
    const double *theta;
    int n = config_floats(c, "layer_rope_theta", &theta);

    return layer < n ? theta[layer] != 0 : otherwise;
}

enum activation config_activation(config *c, const char *key, enum activation otherwise)
{
    static const struct {
        const char *name;
        enum activation activation;
    } known[] = {
        {"silu", ACT_SILU},           {"swish", ACT_SILU},
        {"gelu", ACT_GELU},           {"gelu_new", ACT_GELU_TANH},
        {"gelu_fast", ACT_GELU_TANH}, {"gelu_pytorch_tanh", ACT_GELU_TANH},
        {"relu", ACT_RELU},           {"relu2", ACT_RELU2},
    };
    const char *name = config_string_or(c, key, NULL);

    if (!name)
        return otherwise;
    for (size_t i = 0; i < COUNT(known); i++)
        if (strcmp(name, known[i].name) == 0)
            return known[i].activation;
    config_fail(c, key, "unknown activation \"%s\"", name);
    return otherwise;
}

int config_common_named(struct spec *s, config *c, const struct config_keys *keys, bool tied,
                        arena *a)
{
    s->vocab_size = s->vocab_size > 0 ? config_int_or(c, keys->vocab_size, s->vocab_size)
                                      : config_int(c, keys->vocab_size);
    s->hidden_size = config_int_in(c, keys->hidden_size, 1, 1 << 24);
    s->n_layers = s->n_layers > 0 ? s->n_layers : config_int_in(c, keys->n_layers, 1, 4096);
    s->context_length = config_int_or(c, keys->context_length, 0);
    s->tie_by_file = !config_has(c, keys->tie) ||
                     (config_bool_or(c, keys->tie, false) && config_by_transformers(c));
    s->tie_word_embeddings = config_bool_or(c, keys->tie, tied);
    s->embed_scale = 1;
    s->logit_scale = 1;
    if (config_error(c)->code)
        return -1;
    s->layers = arena_array(a, struct layer_spec, s->n_layers);
    if (!s->layers)
        return fail(config_error(c), CLM_ERR_NOMEM, "the specification of %d layers: no memory",
                    s->n_layers);
    return 0;
}

int config_common(struct spec *s, config *c, bool tied, arena *a)
{
    static const struct config_keys keys = {
        .vocab_size = "vocab_size",
        .hidden_size = "hidden_size",
        .n_layers = "num_hidden_layers",
        .context_length = "max_position_embeddings",
        .tie = "tie_word_embeddings",
    };

    return config_common_named(s, c, &keys, tied, a);
}
