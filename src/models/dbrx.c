/* models/dbrx.c: DBRX: clipped q, k and v, layer norms, 4 of 16 experts.
 *
 *     x += attention(layer_norm(x))
 *     x += sum over the k best e of w_e w2_e(silu(w1_e(n)) * v1_e(n)),  n = layer_norm(x)
 *
 * DBRX, Databricks 2024
 */
#include <math.h>
#include <string.h>

#include "models/family.h"

/* Weights are divided by their p-norm: 1 in every checkpoint. */
static bool normalizes(config *ffn)
{
    double p = 1;

    if (config_is_null(ffn, "moe_normalize_expert_weights"))
        return false;
    p = config_float_or(ffn, "moe_normalize_expert_weights", 1);
    if (p != 1)
        config_fail(ffn, "moe_normalize_expert_weights", "a norm of order %g, not 1", p);
    return true;
}

static struct moe_spec read_moe(config *c)
{
    config *ffn = config_object(c, "ffn_config"), *act;
    struct moe_spec moe = {.router = {.score = ROUTER_SOFTMAX_ALL, .scale = 1},
                           .expert = {.activation = ACT_SILU, .gated = true}};

    if (!ffn) {
        config_fail(c, "ffn_config", "it is missing");
        return moe;
    }
    act = config_object(ffn, "ffn_act_fn");
    if (act)
        moe.expert.activation = config_activation(act, "name", ACT_SILU);
    moe.router.n_experts = config_int_or(ffn, "moe_num_experts", 4);
    moe.router.n_experts_per_token = config_int_or(ffn, "moe_top_k", 1);
    moe.router.normalize = normalizes(ffn);
    moe.expert.intermediate_size = config_int_or(ffn, "ffn_hidden_size", 3584);
    config_ignore(ffn, "hidden_size", "model_type", NULL);
    return moe;
}

static int dbrx_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {"vocab_size", "d_model", "n_layers", "max_seq_len",
                                            "tie_word_embeddings"};
    struct norm_spec norm = {.kind = NORM_LAYER, .eps = 1e-5f};
    struct moe_spec moe = read_moe(c);
    config *attn = config_object(c, "attn_config");
    struct attention_spec attention;

    if (!attn)
        return config_fail(c, "attn_config", "it is missing");
    if (config_common_named(s, c, &keys, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = (struct attention_spec){.n_heads = config_int_in(c, "n_heads", 1, 4096)};
    attention.n_kv_heads = config_int_or(attn, "kv_n_heads", 1);
    attention.head_dim = s->hidden_size / attention.n_heads;
    attention.clip_qkv = (float)config_cap(attn, "clip_qkv", 0);
    attention.scale = attention_scale(attention.head_dim);
    attention.rope = rope_plain(attention.head_dim, config_float_or(attn, "rope_theta", 10000));
    if (config_has(c, "rope_parameters") || config_by_transformers(c))
        attention.rope =
            config_rope_parameters(c, attention.head_dim, attention.rope.theta, false, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_moe(norm, moe));
    }
    config_ignore(attn, "model_type", NULL);
    config_ignore(c, "num_key_value_heads", NULL);
    return 0;
}

static const struct weight_rule dbrx_weights[] = {
    {"transformer.wte", EMBED_TOKENS},
    {"transformer.blocks.*.norm_attn_norm.norm_1", PRE_NORM(0)},
    {"transformer.blocks.*.norm_attn_norm.attn.Wqkv", ATTENTION_QKV(0)},
    {"transformer.blocks.*.norm_attn_norm.attn.out_proj", SLOTS(0, ROLE_O_PROJ)},
    {"transformer.blocks.*.norm_attn_norm.norm_2", PRE_NORM(1)},
    {"transformer.blocks.*.ffn.router.layer", ROUTER(1)},
    {"transformer.blocks.*.ffn.experts.mlp.{w1,v1}", SLOTS(1, ROLE_EXPERT_GATE)},
    {"transformer.blocks.*.ffn.experts.mlp.w2", TRANSPOSED_SLOTS(1, ROLE_EXPERT_DOWN)},
    {"transformer.blocks.*.ffn.experts.#.{w1,v1,w2}", EXPERTS(1)},
    {"transformer.norm_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_dbrx = {
    .name = "DBRX",
    .model_types = {"dbrx"},
    .spec = dbrx_spec,
    .weights = dbrx_weights,
};
