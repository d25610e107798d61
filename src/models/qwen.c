/* models/qwen.c: Qwen 2, 2.5 and 3, dense and with experts.
 *
 *     x += attention(rms_norm(x))     Qwen 2: biases on q, k, v; Qwen 3: rms_norm of each head's q
 * and k x += mlp(rms_norm(x))           qwen3_moe: a mixture of experts in most layers
 *
 * Qwen2, arXiv:2407.10671; Qwen3, 2505.09388
 */
#include <string.h>

#include "models/family.h"

/* Which layers slide: none unless use_sliding_window; then those that layer_types says, or those
 * from max_window_layers on; with experts, all. */
static int window_of(config *c, bool moe, int layer)
{
    int window = config_int_or(c, "sliding_window", 0);
    int first = config_int_or(c, "max_window_layers", 28);

    if (!config_bool_or(c, "use_sliding_window", false))
        return config_window(c, layer, 0) ? window : 0;
    return config_window(c, layer, moe || layer >= first ? window : 0);
}

static struct moe_spec read_moe(config *c, struct mlp_spec mlp)
{
    struct moe_spec moe = {.expert = mlp};
    const char *type = config_string_or(c, "model_type", "");
    bool always = strncmp(type, "qwen3_vl_moe", 12) == 0 && config_by_transformers(c);
    bool usual = always || strcmp(type, "qwen3_omni_moe_text") == 0;

    moe.expert.intermediate_size = config_int(c, "moe_intermediate_size");
    moe.router = (struct router_params){
        .score = ROUTER_SOFTMAX_ALL,
        .n_experts =
            config_int(c, config_has(c, "num_experts") ? "num_experts" : "num_local_experts"),
        .n_experts_per_token = config_int(c, "num_experts_per_tok"),
        .normalize = config_bool_or(c, "norm_topk_prob", usual) || always,
        .scale = 1,
    };
    config_ignore(c, "num_local_experts", "router_aux_loss_coef", "output_router_logits", NULL);
    return moe;
}

static int qwen_spec(struct spec *s, config *c, arena *a)
{
    const char *type = config_string_or(c, "model_type", "");
    bool qwen2 = strncmp(type, "qwen2", 5) == 0, moe = strstr(type, "moe") != NULL;
    struct norm_spec norm = config_rms_norm(c), none = {0};
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);
    struct moe_spec experts = moe ? read_moe(c, mlp) : (struct moe_spec){0};

    if (config_common(s, c, qwen2, a))
        return -1;
    attention = config_attention_plain(c, s);
    attention.qkv_bias = qwen2 || attention.qkv_bias;
    attention.o_bias = !qwen2 && attention.o_bias;
    attention.q_norm = attention.k_norm = qwen2 ? none : norm;
    attention.rope = moe ? config_rope_parameters(c, attention.head_dim, 1000000, false, a)
                         : config_rope(c, NULL, attention.head_dim, 1000000, a);
    if (strcmp(type, "qwen3") == 0 && !config_has(c, "rope_parameters"))
        config_require(c, "rope_theta");
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = window_of(c, moe, i);
        layer_add(&s->layers[i], branch_attention(norm, attention));
        if (moe && config_layer_is_sparse(c, i))
            layer_add(&s->layers[i], branch_moe(norm, experts));
        else
            layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    return 0;
}

static const struct weight_rule qwen_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.gate_up_proj", TRANSPOSED_SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.experts.down_proj", TRANSPOSED_SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_qwen = {
    .name = "Qwen 2, Qwen 3",
    .model_types = {"qwen2",
                    "qwen3",
                    "qwen3_moe",
                    "qwen2_vl",
                    "qwen2_vl_text",
                    "qwen2_5_vl",
                    "qwen2_5_vl_text",
                    "qwen3_vl",
                    "qwen3_vl_text",
                    "qwen3_vl_moe",
                    "qwen3_vl_moe_text",
                    "qwen2_5_omni",
                    "qwen2_5_omni_thinker",
                    "qwen2_5_omni_text",
                    "qwen3_omni_moe",
                    "qwen3_omni_moe_thinker",
                    "qwen3_omni_moe_text",
                    "qwen2_audio",
                    "qwen3_asr",
                    "fast_vlm",
                    "got_ocr2",
                    "lighton_ocr",
                    "ovis2",
                    "qianfan_ocr",
                    "video_llama_3",
                    "audioflamingo3",
                    "pp_chart2table"},
    .spec = qwen_spec,
    .weights = qwen_weights,
};
