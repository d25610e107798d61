/* models/minimax_m3.c: MiniMax M3: heads that choose blocks of keys for others to see, a share
 * each; experts by sigmoid scores with a bias, beside a shared one.
 *
 *     x += attention(norm(x));  x += mlp(norm(x)), or experts(n) + shared(n), n = norm(x)
 *     mlp(n) = down((u + 1) g sigmoid(alpha g)), g = gate(n) and u = up(n) within limits
 */
#include <string.h>

#include "models/family.h"

/* From the object that published configs have, else from the top. */
static int of_sparse(config *c, const char *nested, const char *flat, int otherwise)
{
    config *sparse = config_object(c, "sparse_attention_config");

    otherwise = config_int_or(c, flat, otherwise);
    return sparse ? config_int_or(sparse, nested, otherwise) : otherwise;
}

/* The entry of a list of numbers for a layer. */
static bool listed(config *c, const char *key, const int *items, int n, int layer)
{
    if (layer >= n)
        return config_fail(c, key, "it has %d entries, too few for layer %d", n, layer);
    return items[layer] != 0;
}

static bool chooses_keys(config *c, int layer)
{
    config *sparse = config_object(c, "sparse_attention_config");
    const int *freq;
    int n;

    if (config_has(c, "layer_types"))
        return !config_layer_is(c, "layer_types", "full_attention", layer, false);
    n = config_ints(c, "sparse_attention_freq", &freq);
    if (sparse && config_has(sparse, "sparse_attention_freq"))
        n = config_ints(sparse, "sparse_attention_freq", &freq);
    if (n >= 0)
        return listed(c, "sparse_attention_freq", freq, n, layer);
    return sparse || (config_has(c, "index_block_size") && !config_has(c, "rope_parameters"));
}

static bool has_experts(config *c, int layer)
{
    const int *freq;
    int n = config_ints(c, "moe_layer_freq", &freq);

    if (config_has(c, "mlp_layer_types"))
        return !config_layer_is(c, "mlp_layer_types", "dense", layer, false);
    return n < 0 || listed(c, "moe_layer_freq", freq, n, layer);
}

static struct attention_spec read_attention(config *c, struct norm_spec norm, arena *a)
{
    bool old = !config_has(c, "rope_parameters");
    struct attention_spec at = {
        .n_heads = config_int_or(c, "num_attention_heads", 64),
        .n_kv_heads = config_int_or(c, "num_key_value_heads", 4),
        .head_dim = config_int_or(c, "head_dim", 128),
    };

    at.scale = attention_scale(at.head_dim);
    at.rope = config_rope_partial(c, NULL, at.head_dim, 5000000, a);
    if (old && !config_has(c, "partial_rotary_factor"))
        at.rope.dims = at.head_dim / 2;
    at.rope.dims = old ? config_int_or(c, "rotary_dim", at.rope.dims) : at.rope.dims;
    if (config_bool_or(c, "use_qk_norm", true))
        at.q_norm = at.k_norm = norm;
    config_ignore(c, "rotary_dim", NULL);
    return at;
}

static struct index_spec read_index(config *c, const struct attention_spec *at,
                                    struct norm_spec norm)
{
    struct index_spec index = {
        .topk = of_sparse(c, "sparse_topk_blocks", "index_topk_blocks", 16),
        .n_heads = of_sparse(c, "sparse_num_index_heads", "index_n_heads", 4),
        .dim = of_sparse(c, "sparse_index_dim", "index_head_dim", 128),
        .block_size = of_sparse(c, "sparse_block_size", "index_block_size", 128),
        .local_blocks = of_sparse(c, "sparse_local_block", "index_local_blocks", 1),
        .q_norm = norm,
        .k_norm = norm,
        .rope = at->rope,
    };

    if (index.topk < 1 || index.block_size < 1)
        config_fail(c, "index_topk_blocks", "%d blocks of %d keys; both must be positive",
                    index.topk, index.block_size);
    if (index.local_blocks > index.topk)
        config_fail(c, "index_local_blocks", "%d of them are more than the %d blocks to be chosen",
                    index.local_blocks, index.topk);
    if (index.rope.dims > index.dim)
        index.rope.dims = index.dim;
    return index;
}

static struct moe_spec read_moe(config *c, struct mlp_spec mlp)
{
    struct moe_spec moe = {
        .router = {.score = ROUTER_SIGMOID,
                   .n_experts = config_int_or(c, "num_local_experts", 128),
                   .n_experts_per_token = config_int_or(c, "num_experts_per_tok", 4),
                   .normalize = true,
                   .normalize_eps = 1e-20f,
                   .scale = (float)config_float_or(c, "routed_scaling_factor", 2)},
        .router_bias = true,
        .expert = mlp,
        .shared = mlp,
    };

    moe.expert.intermediate_size = config_int_or(c, "intermediate_size", 3072);
    moe.shared.intermediate_size = config_int_or(c, "shared_intermediate_size", 3072);
    return moe;
}

static int minimax_m3_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS,
                             .eps = (float)config_float_or(c, "rms_norm_eps", 1e-6)};
    struct mlp_spec mlp = {
        .intermediate_size = config_int_or(c, "dense_intermediate_size", 12288),
        .gated = true,
        .alpha = (float)config_float_or(c, "swiglu_alpha", 1.702),
        .limit = (float)config_float_or(c, "swiglu_limit", 7),
    };
    struct moe_spec moe = read_moe(c, mlp);
    struct attention_spec at;
    struct index_spec index, none = {0};

    norm.offset = config_bool_or(c, "use_gemma_norm", true) ? 1 : 0;
    s->vocab_size = 200064;
    if (config_common(s, c, false, a))
        return -1;
    at = read_attention(c, norm, a);
    index = read_index(c, &at, norm);
    s->final_norm = norm;
    s->more_layers = true;
    for (int i = 0; i < s->n_layers; i++) {
        at.index = chooses_keys(c, i) ? index : none;
        layer_add(&s->layers[i], branch_attention(norm, at));
        if (has_experts(c, i))
            layer_add(&s->layers[i], branch_moe(norm, moe));
        else
            layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "hidden_act", "router_jitter_noise", "output_router_logits",
                  "router_aux_loss_coef", "scoring_func", "use_routing_bias", "qk_norm_type",
                  "num_mtp_modules", NULL);
    return 0;
}

/* The names of experts begin alike in all layouts but for the block's. */
#define EXPERT_NAMES(block)                                                                        \
    {"model.layers.*." block ".gate", ROUTER(1)},                                                  \
        {"model.layers.*." block ".switch_mlp.{gate,up,down}_proj", EXPERTS(1)},                   \
        {"model.layers.*." block ".switch_mlp.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},       \
        {"model.layers.*." block ".experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},          \
        {"model.layers.*." block ".experts.down_proj", SLOTS(1, ROLE_EXPERT_DOWN)},                \
        {"model.layers.*." block ".experts.#.{w1,w3,w2}", EXPERTS(1)},                             \
        {"model.layers.*." block ".shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},         \
        {"model.layers.*." block ".shared_experts.gate_up_proj", SPLIT(1, ROLE_SHARED_GATE, 2)},   \
    {                                                                                              \
        "model.layers.*." block ".{gate,up,down}_proj", MLP(1)                                     \
    }

static const struct weight_rule minimax_m3_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.self_attn.{index_q_proj,index_k_proj}", SLOTS(0, ROLE_INDEX_Q)},
    {"model.layers.*.self_attn.{index_k_norm,index_q_norm}", SLOTS(0, ROLE_INDEX_K_NORM)},
    {"model.layers.*.self_attn.indexer.{q_proj,k_proj}", SLOTS(0, ROLE_INDEX_Q)},
    {"model.layers.*.self_attn.indexer.{k_norm,q_norm}", SLOTS(0, ROLE_INDEX_K_NORM)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.block_sparse_moe.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.gate.e_score_correction_bias", ROUTER_BIAS(1)},
    EXPERT_NAMES("block_sparse_moe"),
    EXPERT_NAMES("mlp"),
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"patch_merge_mlp.**", IGNORE}, /* of pictures */
    {NULL, IGNORE},
};

const struct family family_minimax_m3 = {
    .name = "MiniMax M3",
    .model_types = {"minimax_m3_vl", "minimax_m3_vl_text", "minimax_m3"},
    .spec = minimax_m3_spec,
    .weights = minimax_m3_weights,
};
