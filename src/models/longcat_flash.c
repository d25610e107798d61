/* models/longcat_flash.c: LongCat Flash: two attentions to latents and two feed-forwards a layer;
 * the experts see what the first feed-forward sees, and their sum arrives at the end of the layer.
 * Some experts return their input.
 *
 *     x += mla_0(norm(x));  n = norm(x);  y = experts(n);  x += mlp_0(n)
 *     x += mla_1(norm(x));  x += mlp_1(norm(x)) + y
 *
 * The lite one has embeddings of neighbours too. arXiv:2509.01322, 2601.21204
 */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "models/family.h"

static struct moe_spec read_moe(config *c, struct mlp_spec mlp)
{
    const char *zero = config_string_or(c, "zero_expert_type", "identity");
    int n_zero = config_int_or(c, "zero_expert_num", 0);
    struct moe_spec moe = {
        .router = {.score = ROUTER_SOFTMAX_ALL,
                   .n_experts = config_int(c, "n_routed_experts"),
                   .n_experts_per_token = config_int(c, "moe_topk"),
                   .normalize = config_bool_or(c, "norm_topk_prob", false),
                   .normalize_eps = 1e-20f,
                   .scale = (float)config_float_or(c, "routed_scaling_factor", 1)},
        .router_bias = true,
        .router_logit_bias = config_bool_or(c, "router_bias", false),
        .expert = mlp,
        .n_zero_experts = n_zero,
    };

    moe.expert.intermediate_size = config_int(c, "expert_ffn_hidden_size");
    if (strcmp(zero, "identity") != 0)
        config_fail(c, "zero_expert_type", "\"%s\" is not known", zero);
    if (n_zero > 65536 || moe.router.n_experts > 65536)
        config_fail(c, "zero_expert_num", "%d are too many", n_zero);
    else
        moe.router.n_experts += n_zero;
    return moe;
}

static struct mla_spec read_mla(config *c, int hidden_size, arena *a)
{
    struct mla_spec mla = config_mla(c, 10000000, a);

    /* mlx-lm's norms of ranks have its default eps, those of transformers 1e-6. */
    if (!config_has(c, "rope_parameters"))
        mla.q_norm.eps = mla.kv_norm.eps = 1e-5f;
    if (config_bool_or(c, "mla_scale_q_lora", true) && mla.q_rank > 0)
        mla.q_scale = (float)sqrt((double)hidden_size / mla.q_rank);
    if (config_bool_or(c, "mla_scale_kv_lora", true) && mla.kv_rank > 0)
        mla.kv_scale = (float)sqrt((double)hidden_size / mla.kv_rank);
    return mla;
}

static void read_ngrams(struct spec *s, config *c)
{
    int ratio = config_int_in(c, "ngram_vocab_size_ratio", 1, INT32_MAX);
    int n = config_int_in(c, "emb_neighbor_num", 2, 16),
        k = config_int_in(c, "emb_split_num", 1, 64);

    s->ngram = (struct ngram_spec){.n = n, .k = k, .dim = s->hidden_size / ((n - 1) * k)};
    if (s->vocab_size > 0 && ratio <= INT32_MAX / 4 / s->vocab_size)
        s->ngram.size = ratio * s->vocab_size;
    else
        config_fail(c, "ngram_vocab_size_ratio", "%d times %d rows are too many", ratio,
                    s->vocab_size);
}

static int longcat_flash_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {"vocab_size", "hidden_size", "num_layers",
                                            "max_position_embeddings", "tie_word_embeddings"};
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "ffn_hidden_size"),
                           .activation = config_activation(c, "hidden_act", ACT_SILU),
                           .gated = true};
    struct moe_spec moe = read_moe(c, mlp);
    struct mla_spec mla;

    if (config_common_named(s, c, &keys, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    if (strcmp(config_string_or(c, "model_type", ""), "longcat_flash_ngram") == 0)
        read_ngrams(s, c);
    mla = read_mla(c, s->hidden_size, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        struct branch_spec *experts;

        layer_add(&s->layers[i], branch_mla(norm, mla));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
        experts = layer_add(&s->layers[i], branch_moe(norm, moe));
        experts->parallel = experts->shared_norm = experts->late = true;
        layer_add(&s->layers[i], branch_mla(norm, mla));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "attention_method", "num_hidden_layers", NULL);
    return 0;
}

#define HALF(i, attention, mlp)                                                                    \
    {"model.layers.*.input_layernorm." i, PRE_NORM(attention)},                                    \
        {"model.layers.*.self_attn." i ".{q_a_proj,q_b_proj,kv_a_proj_with_mqa,o_proj}",           \
         MLA(attention)},                                                                          \
        {"model.layers.*.self_attn." i ".q_proj", SLOTS(attention, ROLE_MLA_Q)},                   \
        {"model.layers.*.self_attn." i ".{q,kv}_a_layernorm", MLA_NORMS(attention)},               \
        {"model.layers.*.self_attn." i ".kv_b_proj", MLA_KV_B(attention)},                         \
        {"model.layers.*.self_attn." i ".{embed_q,unembed_out}", MLA_HEADS(attention)},            \
        {"model.layers.*.post_attention_layernorm." i, PRE_NORM(mlp)},                             \
    {                                                                                              \
        "model.layers.*.mlps." i ".{gate,up,down}_proj", MLP(mlp)                                  \
    }

static const struct weight_rule longcat_flash_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.ngram_embeddings.word_embeddings", EMBED_TOKENS},
    {"model.ngram_embeddings.embedders.#", SLOTS(-1, ROLE_NGRAM_TABLES)},
    {"model.ngram_embeddings.post_projs.#", SLOTS(-1, ROLE_NGRAM_PROJS)},
    HALF("0", 0, 1),
    HALF("1", 3, 4),
    {"model.layers.*.mlp.router.classifier", ROUTER(2)},
    {"model.layers.*.mlp.router.e_score_correction_bias", ROUTER_BIAS(2)},
    {"model.layers.*.mlp.switch_mlp.{gate,up,down}_proj", EXPERTS(2)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(2)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.mtp.**", IGNORE}, /* guesses of further tokens */
    {NULL, IGNORE},
};

const struct family family_longcat_flash = {
    .name = "LongCat Flash, lite too",
    .model_types = {"longcat_flash", "longcat_flash_ngram"},
    .spec = longcat_flash_spec,
    .weights = longcat_flash_weights,
};
