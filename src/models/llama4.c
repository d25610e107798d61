/* models/llama4.c: Llama 4: most layers see a chunk of positions and turn; every fourth sees all,
 * does not turn, and its queries grow with their position; an expert gets its input already
 * weighted.
 *
 *     x += attention(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of expert_e(sigmoid(router)_e n) + shared(n),
 *     n = rms_norm(x)
 *
 * Llama 4, Meta 2025; dense ones without any number of experts in their config: MobileLLM-R1
 */
#include <string.h>

#include "models/family.h"

/* A bool, or a number that counts as one. */
static bool is_on(config *c, const char *key, bool otherwise)
{
    if (config_kind(c, key) == CONFIG_NUMBER)
        return config_int(c, key) != 0;
    return !config_is_null(c, key) && config_bool_or(c, key, otherwise);
}

static bool turns(config *c, int layer)
{
    static const char key[] = "no_rope_layer_interval";
    const int *items;
    int n = config_ints(c, "no_rope_layers", &items);

    if (layer < n)
        return items[layer] != 0;
    return (layer + 1) % (config_has(c, key) ? config_int_in(c, key, 1, 4096) : 4) != 0;
}

/* What layer_types says, or what turns. */
static bool is_chunked(config *c, int layer, bool turning)
{
    const char *const *types;
    int n = config_strings(c, "layer_types", &types);

    if (n < 0)
        return turning;
    if (layer >= n)
        return config_fail(c, "layer_types", "it has %d entries, too few for layer %d", n, layer);
    if (strcmp(types[layer], "chunked_attention") != 0 &&
        strcmp(types[layer], "full_attention") != 0)
        return config_fail(c, "layer_types", "layer %d is of the unknown type \"%s\"", layer,
                           types[layer]);
    return strcmp(types[layer], "chunked_attention") == 0;
}

static bool is_sparse(config *c, int layer, int every)
{
    const int *items;
    int n = config_ints(c, "moe_layers", &items);

    for (int i = 0; i < n; i++)
        if (items[i] == layer)
            return true;
    return n < 0 && every > 0 && layer % every == every - 1;
}

static struct moe_spec read_moe(config *c, struct mlp_spec mlp)
{
    return (struct moe_spec){
        .router = {.score = ROUTER_SIGMOID,
                   .n_experts = config_int_or(c, "num_local_experts", 16),
                   .n_experts_per_token = config_int_or(c, "num_experts_per_tok", 1),
                   .scale = 1},
        .expert = mlp,
        .shared = mlp,
        .scale_input = true,
    };
}

static int llama4_spec(struct spec *s, config *c, arena *a)
{
    bool dense = config_int_or(c, "num_local_experts", 0) == 0;
    struct norm_spec norm = config_rms_norm(c), qk_norm = norm, none = {0};
    struct mlp_spec mlp = config_gated_mlp(c), wide = mlp;
    struct moe_spec moe = read_moe(c, mlp);
    int every = config_int_or(c, "interleave_moe_layer_step", 1);
    bool tuned = !dense && is_on(c, "attn_temperature_tuning", true);
    int chunk = dense ? 0 : config_int_or(c, "attention_chunk_size", 8192);
    bool qk_normed = config_bool_or(c, "use_qk_norm", true);
    struct attention_spec attention;
    struct rope_spec rope;

    wide.intermediate_size = config_int(c, "intermediate_size_mlp");
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= !dense && s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = config_attention(c, s, 500000, a);
    rope_interleave(&attention.rope, c, true);
    attention.qk_norm_after_rope = true;
    qk_norm.weightless = true;
    if (!dense && !config_has(c, "rope_parameters"))
        qk_norm.eps = 1e-6f;
    rope = attention.rope;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        bool turning = turns(c, i);

        attention.rope = rope;
        attention.temperature = (struct temperature_spec){0};
        if (!turning) {
            attention.rope.kind = ROPE_NONE;
            if (tuned)
                attention.temperature =
                    (struct temperature_spec){(float)config_float_or(c, "attn_scale", 0.1),
                                              (float)config_float_or(c, "floor_scale", 8192), 1};
        }
        attention.chunk = is_chunked(c, i, turning) ? chunk : 0;
        attention.q_norm = attention.k_norm = qk_normed && (turning || dense) ? qk_norm : none;
        layer_add(&s->layers[i], branch_attention(norm, attention));
        if (!dense && is_sparse(c, i, every))
            layer_add(&s->layers[i], branch_moe(norm, moe));
        else
            layer_add(&s->layers[i], branch_mlp(norm, wide));
    }
    config_ignore(c, "no_rope_layer_interval", "num_experts_per_tok", "attn_temperature_tuning",
                  "attn_scale", "floor_scale", "attention_chunk_size", "moe_layers",
                  "for_llm_compressor", "cache_implementation", NULL);
    return 0;
}

static const struct weight_rule llama4_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.feed_forward.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.feed_forward.router", ROUTER(1)},
    {"model.layers.*.feed_forward.experts.gate_up_proj",
     BARE_TRANSPOSED_SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.feed_forward.experts.down_proj", BARE_TRANSPOSED_SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.feed_forward.experts.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.feed_forward.shared_expert.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"output", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_llama4 = {
    .name = "Llama 4",
    .model_types = {"llama4", "llama4_text"},
    .spec = llama4_spec,
    .weights = llama4_weights,
};
