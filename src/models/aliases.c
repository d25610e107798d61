/* models/aliases.c: second names that transformers gives keys of a config.json (attribute_map);
 * where a file has one, it counts, whatever the key itself says; for types with a '?' the key comes
 * first. */
#include "models/aliases.h"

#include <string.h>

static const struct {
    const char *types, *alias, *key;
} aliases[] = {
    {"codegen gpt2 gpt_bigcode gptj", "hidden_size", "n_embd"},
    {"codegen gpt2 gpt_bigcode gptj", "max_position_embeddings", "n_positions"},
    {"bloom codegen gpt2 gpt_bigcode gptj", "num_attention_heads", "n_head"},
    {"bloom codegen gpt2 gpt_bigcode gptj", "num_hidden_layers", "n_layer"},
    {"openai-gpt", "hidden_size", "n_embd"},
    {"openai-gpt", "max_position_embeddings", "n_positions"},
    {"openai-gpt", "num_attention_heads", "n_head"},
    {"openai-gpt", "num_hidden_layers", "n_layer"},
    {"gpt_neo", "num_attention_heads", "num_heads"},
    {"gpt_neo", "num_hidden_layers", "num_layers"},
    {"dbrx mpt", "hidden_size", "d_model"},
    {"dbrx mpt", "num_attention_heads", "n_heads"},
    {"dbrx mpt", "num_hidden_layers", "n_layers"},
    {"dbrx", "max_position_embeddings", "max_seq_len"},
    {"exaone?", "num_hidden_layers", "num_layers"},
    {"exaone?", "rms_norm_eps", "layer_norm_epsilon"},
    {"exaone?", "hidden_act", "activation_function"},
    {"lfm3", "rms_norm_eps", "norm_eps"},
    {"recurrent_gemma", "sliding_window", "attention_window_size"},
    {"deepseek_v2", "num_experts", "n_routed_experts"},
    {"axk1 deepseek_v3 deepseek_v32 dots1 glm4_moe glm4_moe_lite glm_moe_dsa longcat_flash "
     "mimo_v2_flash nemotron_h solar_open glm4v_moe_text sarvam_moe sarvam_mla",
     "num_local_experts", "n_routed_experts"},
    {"sarvam_moe sarvam_mla", "num_experts", "n_routed_experts"},
    {"sarvam_moe sarvam_mla", "num_shared_experts", "n_shared_experts"},
    {"sarvam_moe", "use_qkv_bias", "attention_bias"},
    {"bailing_hybrid? flex_olmo hunyuan_v1_moe hy_v3 jamba kolibri1 olmoe kimi_linear?",
     "num_local_experts", "num_experts"},
    {"gpt_oss mellum minimax minimax_m2 mixtral", "num_experts", "num_local_experts"},
    {"ernie4_5_moe ernie4_5_vl_moe_text", "num_experts", "moe_num_experts"},
    {"ernie4_5_moe ernie4_5_vl_moe_text", "num_experts_per_tok", "moe_k"},
    {"hunyuan_v1_moe longcat_flash", "num_experts_per_tok", "moe_topk"},
    {"longcat_flash", "intermediate_size", "ffn_hidden_size"},
    {"longcat_flash", "moe_intermediate_size", "expert_ffn_hidden_size"},
    {"bailing_hybrid? kimi_linear?", "num_experts_per_tok", "num_experts_per_token"},
    {"bailing_hybrid? kimi_linear?", "n_shared_experts", "num_shared_experts"},
    {"bailing_hybrid? kimi_linear?", "n_group", "num_expert_group"},
    {"bailing_hybrid? kimi_linear?", "norm_topk_prob", "moe_renormalize"},
};

/* Whether types list the type, and whether with a '?'. */
static bool is_listed(const char *types, const char *type, bool *key_first)
{
    size_t length = strlen(type);

    for (const char *at = types, *end; *at; at = end + (*end == ' ')) {
        end = at + strcspn(at, " ");
        *key_first = end[-1] == '?';
        if ((size_t)(end - at) - *key_first == length && strncmp(at, type, length) == 0)
            return true;
    }
    return false;
}

void model_aliases(config *c, const char *model_type)
{
    bool key_first;

    for (size_t i = 0; i < COUNT(aliases); i++)
        if (is_listed(aliases[i].types, model_type, &key_first) &&
            !(key_first && config_has(c, aliases[i].key)))
            config_alias(c, aliases[i].alias, aliases[i].key);
}
