/* models/deepseek_v41.c: DeepSeek V4.1: a state of several streams, attention to a window and to
 * pooled keys of which an indexer chooses, experts beside a shared one.
 *
 *     x = read(streams);  streams = write(streams, attention(norm(x)))
 *     x = read(streams);  streams = write(streams, experts(norm(x)) + shared(norm(x)))
 *
 * Pooled keys, those of the index, the choice and its candidates are made by some layers and taken
 * by the next that make none.
 */
#include <string.h>

#include "models/family.h"

/* A layer's number among those of a list. */
static bool lists(config *c, const char *key, int layer)
{
    const int *layers;
    int n = config_ints(c, key, &layers);

    for (int i = 0; i < n; i++)
        if (layers[i] == layer)
            return true;
    return false;
}

static int ratio_of(config *c, int layer)
{
    const int *ratios;
    int n = config_ints(c, "compress_ratios", &ratios);

    return layer < n ? ratios[layer] : 0;
}

static struct moe_spec read_moe(config *c)
{
    const char *scores = config_string_or(c, "scoring_func", "sqrtsoftplus");
    double temperature = config_float_or(c, "gate_temp", 1);
    struct mlp_spec mlp = {
        .intermediate_size = config_int_or(c, "moe_intermediate_size", 2304),
        .activation = ACT_SILU,
        .gated = true,
        .limit = (float)config_float_or(c, "swiglu_limit", 10),
        .limit_gate = true,
    };
    struct moe_spec moe = {
        .router =
            {
                .score = ROUTER_SQRT_SOFTPLUS,
                .n_experts = config_int_or(c, "n_routed_experts", 384),
                .n_experts_per_token = config_int_or(c, "num_experts_per_tok", 6),
                .normalize_eps = 1e-20f,
                .scale = (float)config_float_or(c, "routed_scaling_factor", 1.5),
            },
        .router_bias = true,
        .expert = mlp,
        .shared = mlp,
        .router_scale = (float)(1 / temperature),
    };

    moe.router.normalize =
        config_bool_or(c, "norm_topk_prob", true) && moe.router.n_experts_per_token > 1;
    if (strcmp(scores, "sigmoid") == 0)
        moe.router.score = ROUTER_SIGMOID;
    else if (strcmp(scores, "softmax") == 0)
        moe.router.score = ROUTER_SOFTMAX_ALL;
    else if (strcmp(scores, "sqrtsoftplus") != 0)
        config_fail(c, "scoring_func", "unknown scores \"%s\" of experts", scores);
    if (!(temperature > 0))
        config_fail(c, "gate_temp", "it is %g; it must be positive", temperature);
    return moe;
}

/* Of layers with pooled keys; rope_scaling is yarn, whatever its type says. */
static struct rope_spec stretched(config *c, struct rope_spec rope)
{
    config *scaling = config_object(c, "rope_scaling");

    rope.kind = ROPE_YARN;
    rope.theta = config_float_or(c, "compress_rope_theta", 160000);
    rope.factor = config_float_or(scaling, "factor", 1);
    rope.original_max_positions =
        config_float_or(scaling, "original_max_position_embeddings",
                        config_int_or(c, "max_position_embeddings", 1048576));
    rope.beta_fast = config_float_or(scaling, "beta_fast", 32);
    rope.beta_slow = config_float_or(scaling, "beta_slow", 1);
    rope.attention_factor = 1;
    config_ignore(scaling, "type", "rope_type", NULL);
    if (!(rope.original_max_positions >= 1))
        config_fail(scaling, "original_max_position_embeddings", "it is %g; it must be positive",
                    rope.original_max_positions);
    if (!(rope.beta_fast > 0 && rope.beta_slow > 0))
        config_fail(scaling, "beta_fast", "beta_fast and beta_slow must be positive");
    return rope;
}

static struct pooled_spec read_attention(config *c, struct norm_spec norm)
{
    struct pooled_spec p = {
        .n_heads = config_int_or(c, "num_attention_heads", 64),
        .head_dim = config_int_or(c, "head_dim", 512),
        .q_rank = config_int_or(c, "q_lora_rank", 1280),
        .n_groups = config_int_or(c, "o_groups", 8),
        .o_rank = config_int_or(c, "o_lora_rank", 1024),
        .norm = norm,
        .window = config_window_size(c, "sliding_window", 128),
        .index_heads = config_int_or(c, "index_n_heads", 32),
        .index_dim = config_int_or(c, "index_head_dim", 128),
        .topk = config_int_or(c, "index_topk", 512),
    };

    p.scale = attention_scale(p.head_dim);
    p.rope = rope_plain(config_int_or(c, "qk_rope_head_dim", 64),
                        config_float_or(c, "rope_theta", 10000));
    p.rope.interleaved = true;
    return p;
}

/* Layers + 1 that have made last what later ones take; 0: none. */
struct made {
    int keys, index, choice, candidates;
};

static int connect(struct pooled_spec *p, config *c, int layer, struct made *made)
{
    bool marks = config_float_or(c, "candidate_source_layer_id", -1) == layer; /* -1: none */

    p->pools = lists(c, "kv_source_layer_ids", layer);
    p->chooses = lists(c, "index_source_layer_ids", layer);
    if (!p->ratio && (p->pools || p->chooses))
        return config_fail(c, "compress_ratios", "layer %d makes keys, but its ratio is 0", layer);
    if (!p->ratio)
        return 0;
    if (p->pools)
        made->keys = layer + 1;
    if (p->pools && p->chooses)
        made->index = layer + 1;
    if (p->chooses) {
        p->index_of = made->index;
        made->choice = p->index_of ? layer + 1 : 0;
        p->takes_candidates = made->candidates > 0;
        if (marks && p->index_of) {
            p->n_blocks = config_int_or(c, "candidate_topk_blocks", 2048);
            p->block_size = config_int_or(c, "candidate_block_size", 8);
            made->candidates = p->n_blocks ? layer + 1 : made->candidates;
        }
    }
    p->keys_of = made->choice ? made->keys : 0;
    if (p->keys_of && ratio_of(c, made->choice - 1) != p->ratio)
        return config_fail(c, "compress_ratios",
                           "layer %d takes the choice of layer %d, whose ratio is another", layer,
                           made->choice - 1);
    if (p->takes_candidates && ratio_of(c, made->candidates - 1) != p->ratio)
        return config_fail(c, "compress_ratios",
                           "layer %d takes the candidates of layer %d, whose ratio is another",
                           layer, made->candidates - 1);
    return 0;
}

static void read_hyper(struct spec *s, config *c, struct norm_spec norm)
{
    s->hyper = (struct hyper_spec){
        .n = config_has(c, "hc_mult") ? config_int_in(c, "hc_mult", 1, 64) : 4,
        .n_iterations = config_int_or(c, "hc_sinkhorn_iters", 20),
        .eps = (float)config_float_or(c, "hc_eps", 1e-6),
        .norm = norm,
    };
    s->hyper.norm.weightless = true;
}

static void add_layer(struct layer_spec *l, struct norm_spec norm, struct pooled_spec attention,
                      struct moe_spec moe)
{
    struct norm_spec none = {0};

    layer_add(l, branch_of(OP_HYPER_READ, none))->replace = true;
    layer_add(l, branch_pooled(norm, attention))->replace = true;
    layer_add(l, branch_of(OP_HYPER_WRITE, none))->replace = true;
    layer_add(l, branch_of(OP_HYPER_READ, none))->replace = true;
    layer_add(l, branch_moe(norm, moe))->replace = true;
    layer_add(l, branch_of(OP_HYPER_WRITE, none))->replace = true;
}

static int deepseek_v41_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS,
                             .eps = (float)config_float_or(c, "rms_norm_eps", 1e-20)};
    struct pooled_spec attention = read_attention(c, norm);
    struct rope_spec plain = attention.rope, yarn = stretched(c, plain);
    struct moe_spec moe = read_moe(c);
    struct made made = {0};
    const int *engrams;

    if (config_ints(c, "engram_layer_ids", &engrams) > 0)
        return config_fail(c, "engram_layer_ids", "engram memory is not there yet");
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    read_hyper(s, c, norm);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        struct pooled_spec layer = attention;

        layer.ratio = ratio_of(c, i);
        layer.rope = layer.back = layer.ratio ? yarn : plain;
        layer.back.backward = true;
        if (connect(&layer, c, i, &made))
            return -1;
        add_layer(&s->layers[i], norm, layer, moe);
    }
    return 0;
}

static const struct weight_rule deepseek_v41_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.attn_hc.{fn,base,scale}", SLOTS(0, ROLE_HYPER_FN)},
    {"model.layers.*.input_layernorm", PRE_NORM(1)},
    {"model.layers.*.self_attn.{q_a_proj,q_b_proj,kv_proj,o_b_proj}", MLA(1)},
    {"model.layers.*.self_attn.{q_a,kv}_norm", MLA_NORMS(1)},
    {"model.layers.*.self_attn.o_a_proj", SLOTS(1, ROLE_GROUP_PROJ)},
    {"model.layers.*.self_attn.sinks", SLOTS(1, ROLE_SINKS)},
    {"model.layers.*.self_attn.compressor.{kv_proj,gate_proj,kv_norm}", SLOTS(1, ROLE_POOL_KV)},
    {"model.layers.*.self_attn.indexer.q_b_proj", SLOTS(1, ROLE_INDEX_Q)},
    {"model.layers.*.self_attn.indexer.k_proj", SLOTS(1, ROLE_POOL_INDEX_K)},
    {"model.layers.*.self_attn.indexer.{weights_proj,k_norm}", SLOTS(1, ROLE_INDEX_WEIGHTS)},
    {"model.layers.*.ffn_hc.{fn,base,scale}", SLOTS(3, ROLE_HYPER_FN)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(4)},
    {"model.layers.*.mlp.gate.e_score_correction_bias", ROUTER_BIAS(4)},
    {"model.layers.*.mlp.gate", ROUTER(4)},
    {"model.layers.*.mlp.experts.switch_mlp.{gate,up,down}_proj", EXPERTS(4)},
    {"model.layers.*.mlp.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(4)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    /* The names of the published checkpoint. */
    {"embed", EMBED_TOKENS},
    {"layers.*.hc_attn_{fn,base,scale}", SLOTS(0, ROLE_HYPER_FN)},
    {"layers.*.attn_norm", PRE_NORM(1)},
    {"layers.*.attn.{wq_a,wq_b,wkv,wo_b}", MLA(1)},
    {"layers.*.attn.{q,kv}_norm", MLA_NORMS(1)},
    {"layers.*.attn.wo_a", SLOTS(1, ROLE_GROUP_PROJ)},
    {"layers.*.attn.attn_sink", SLOTS(1, ROLE_SINKS)},
    {"layers.*.attn.compressor.{wkv,wgate,norm}", SLOTS(1, ROLE_POOL_KV)},
    {"layers.*.attn.indexer.wq_b", SLOTS(1, ROLE_INDEX_Q)},
    {"layers.*.attn.indexer.wk", SLOTS(1, ROLE_POOL_INDEX_K)},
    {"layers.*.attn.indexer.{weights_proj,k_norm}", SLOTS(1, ROLE_INDEX_WEIGHTS)},
    {"layers.*.hc_ffn_{fn,base,scale}", SLOTS(3, ROLE_HYPER_FN)},
    {"layers.*.ffn_norm", PRE_NORM(4)},
    {"layers.*.ffn.gate.bias", ROUTER_BIAS(4)},
    {"layers.*.ffn.gate.bias_vl", IGNORE}, /* of image tokens */
    {"layers.*.ffn.gate", ROUTER(4)},
    {"layers.*.ffn.experts.#.{w1,w3,w2}", EXPERTS(4)},
    {"layers.*.ffn.shared_experts.{w1,w3,w2}", SHARED_EXPERT(4)},
    {"norm", FINAL_NORM},
    {"head", LM_HEAD},
    {"mtp.**", IGNORE},
    {"vision.**", IGNORE},
    {"aligner.**", IGNORE},
    {"image_**", IGNORE},
    {NULL, IGNORE},
};

const struct family family_deepseek_v41 = {
    .name = "DeepSeek V4.1",
    .model_types = {"deepseek_v41", "deepseek_v41_text"},
    .spec = deepseek_v41_spec,
    .weights = deepseek_v41_weights,
};
