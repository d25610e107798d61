/* models/required.c: keys of config.json that mlx-lm has no default for. */
#include <stddef.h>
#include <string.h>

#include "base/memory.h"
#include "models/defaults.h"

/* But those that the families' code asks for by itself. */
static const struct {
    const char *model_type, *keys;
} required[] = {
    {"afmoe", "layer_types"},
    {"apertus",
     "mlp_bias attention_bias num_key_value_heads max_position_embeddings rope_theta post_norm "
     "qk_norm tie_word_embeddings"},
    {"baichuan_m1", "num_key_value_heads sliding_window_layers"},
    {"bailing_moe",
     "max_position_embeddings num_shared_experts norm_topk_prob num_key_value_heads rope_theta "
     "first_k_dense_replace"},
    {"bailing_moe_linear",
     "max_position_embeddings num_shared_experts norm_topk_prob num_key_value_heads rope_theta "
     "first_k_dense_replace"},
    {"bitnet", "num_key_value_heads"},
    {"dots1", "max_position_embeddings num_key_value_heads first_k_dense_replace n_routed_experts "
              "n_shared_experts norm_topk_prob rope_theta routed_scaling_factor"},
    {"ernie4_5", "max_position_embeddings num_key_value_heads head_dim rope_theta use_bias "
                 "tie_word_embeddings"},
    {"ernie4_5_moe",
     "max_position_embeddings num_key_value_heads rope_theta use_bias tie_word_embeddings"},
    {"exaone", "rope_theta num_key_value_heads"},
    {"exaone4",
     "num_key_value_heads max_position_embeddings rope_theta head_dim tie_word_embeddings "
     "rope_scaling sliding_window sliding_window_pattern"},
    {"exaone_moe",
     "num_key_value_heads head_dim num_shared_experts max_position_embeddings layer_types "
     "is_moe_layer"},
    {"falcon_mamba", "time_step_rank"},
    {"gear", "num_key_value_heads head_dim layer_types"},
    {"gemma", "head_dim num_key_value_heads"},
    {"gemma2", "head_dim num_key_value_heads"},
    {"gemma3n",
     "intermediate_size num_attention_heads head_dim rms_norm_eps vocab_size num_key_value_heads "
     "vocab_size_per_layer_input max_position_embeddings rope_local_base_freq rope_theta "
     "final_logit_softcapping layer_types activation_sparsity_pattern altup_num_inputs "
     "altup_coef_clip altup_correct_scale altup_active_idx laurel_rank"},
    {"glm", "head_dim num_key_value_heads"},
    {"glm4", "attention_bias head_dim num_key_value_heads partial_rotary_factor rope_theta"},
    {"glm4_moe",
     "max_position_embeddings norm_topk_prob n_group head_dim topk_group n_shared_experts "
     "n_routed_experts routed_scaling_factor first_k_dense_replace num_key_value_heads "
     "rope_theta rope_scaling use_qk_norm tie_word_embeddings attention_bias "
     "partial_rotary_factor"},
    {"glm_moe_dsa",
     "num_key_value_heads n_shared_experts n_routed_experts routed_scaling_factor kv_lora_rank "
     "q_lora_rank qk_rope_head_dim v_head_dim qk_nope_head_dim topk_method scoring_func "
     "norm_topk_prob n_group topk_group moe_layer_freq first_k_dense_replace "
     "max_position_embeddings rope_parameters attention_bias"},
    {"gpt2", "n_ctx n_positions layer_norm_epsilon"},
    {"gpt_bigcode", "n_inner n_positions layer_norm_epsilon"},
    {"gpt_neox", "max_position_embeddings layer_norm_eps rotary_emb_base rotary_pct"},
    {"granite", "logits_scaling attention_multiplier embedding_multiplier residual_multiplier "
                "max_position_embeddings num_key_value_heads attention_bias mlp_bias rope_theta"},
    {"granitemoe", "logits_scaling attention_multiplier embedding_multiplier residual_multiplier "
                   "max_position_embeddings num_key_value_heads attention_bias rope_theta"},
    {"granitemoehybrid",
     "max_position_embeddings num_key_value_heads attention_bias embedding_multiplier "
     "attention_multiplier logits_scaling residual_multiplier layer_types"},
    {"helium",
     "num_key_value_heads attention_bias head_dim max_position_embeddings mlp_bias rope_theta "
     "tie_word_embeddings"},
    {"hunyuan", "num_key_value_heads attention_bias moe_topk num_shared_expert use_mixed_mlp_moe "
                "use_qk_norm rope_theta use_cla cla_share_factor"},
    {"hunyuan_v1_dense", "num_key_value_heads"},
    {"iquestloopcoder", "head_dim num_key_value_heads"},
    {"jamba", "num_key_value_heads max_position_embeddings"},
    {"kimi_k3", ""}, /* whose text is of type kimi_linear */
    {"kimi_linear",
     "num_key_value_heads head_dim rope_theta linear_attn_config model_max_length num_experts"},
    {"Klear", "attention_bias mlp_only_layers decoder_sparse_step num_key_value_heads rope_theta "
              "max_position_embeddings"},
    {"lfm2", "num_key_value_heads max_position_embeddings block_dim block_ffn_dim_multiplier"},
    {"lfm2_moe", "num_experts num_key_value_heads max_position_embeddings"},
    {"lille-130m", "block_size n_kv_heads rope_theta"},
    {"llama4", "attention_bias attention_chunk_size head_dim interleave_moe_layer_step "
               "max_position_embeddings num_experts_per_tok num_key_value_heads num_local_experts "
               "rope_scaling rope_theta use_qk_norm"},
    {"llama4_text",
     "num_key_value_heads rope_theta head_dim tie_word_embeddings no_rope_layers use_qk_norm"},
    {"longcat_flash",
     "attention_method zero_expert_type zero_expert_num max_position_embeddings kv_lora_rank "
     "q_lora_rank qk_rope_head_dim qk_nope_head_dim v_head_dim routed_scaling_factor rope_theta "
     "mla_scale_q_lora mla_scale_kv_lora attention_bias"},
    {"longcat_flash_ngram",
     "zero_expert_num max_position_embeddings kv_lora_rank q_lora_rank qk_rope_head_dim "
     "qk_nope_head_dim v_head_dim routed_scaling_factor rope_theta mla_scale_q_lora "
     "mla_scale_kv_lora"},
    {"mamba", "time_step_rank"},
    {"mamba2", "intermediate_size tie_word_embeddings time_step_limit time_step_rank"},
    {"mellum",
     "intermediate_size num_key_value_heads head_dim tie_word_embeddings max_position_embeddings "
     "layer_types"},
    {"mimo", "num_key_value_heads"},
    {"mimo_v2_flash",
     "add_swa_attention_sink_bias add_full_attention_sink_bias n_shared_experts n_routed_experts "
     "routed_scaling_factor topk_method scoring_func norm_topk_prob n_group topk_group "
     "max_position_embeddings partial_rotary_factor"},
    {"minicpm", "num_key_value_heads scale_emb"},
    {"minicpm3", "num_key_value_heads q_lora_rank qk_nope_head_dim qk_rope_head_dim kv_lora_rank "
                 "max_position_embeddings"},
    {"minimax",
     "num_key_value_heads max_position_embeddings shared_intermediate_size rope_theta rotary_dim"},
    {"minimax_m2",
     "num_key_value_heads max_position_embeddings shared_intermediate_size rope_theta rotary_dim"},
    {"ministral3", "num_hidden_layers"},
    {"mistral4",
     "num_key_value_heads n_shared_experts n_routed_experts routed_scaling_factor kv_lora_rank "
     "q_lora_rank norm_topk_prob max_position_embeddings topk_group first_k_dense_replace "
     "n_group qk_rope_head_dim qk_nope_head_dim v_head_dim"},
    {"muse_spark",
     "num_key_value_heads head_dim rms_norm_eps post_norm_eps rope_parameters layer_rope_theta "
     "layer_types final_logit_softcapping output_multiplier num_local_experts "
     "num_experts_per_tok moe_intermediate_size"},
    {"nanbeige", "num_key_value_heads"},
    {"nemotron", "hidden_act norm_eps num_key_value_heads"},
    {"nemotron_h",
     "max_position_embeddings num_key_value_heads attention_bias mamba_proj_bias mlp_bias "
     "use_bias"},
    {"olmo", "d_model mlp_hidden_size vocab_size embedding_size"},
    {"olmo3", "max_position_embeddings sliding_window rope_theta"},
    {"olmo_hybrid",
     "num_key_value_heads max_position_embeddings linear_num_key_heads linear_num_value_heads "
     "linear_key_head_dim linear_value_head_dim linear_conv_kernel_dim linear_allow_neg_eigval "
     "tie_word_embeddings attention_bias"},
    {"phi3small", "dense_attention_every_n_layers layer_norm_epsilon"},
    {"qwen2", "num_key_value_heads"},
    {"qwen3", "num_key_value_heads max_position_embeddings head_dim tie_word_embeddings"},
    {"qwen3_moe",
     "num_experts decoder_sparse_step mlp_only_layers num_key_value_heads head_dim rope_theta "
     "tie_word_embeddings max_position_embeddings norm_topk_prob"},
    {"qwen3_next",
     "num_experts decoder_sparse_step mlp_only_layers rms_norm_eps num_key_value_heads "
     "rope_theta partial_rotary_factor max_position_embeddings head_dim"},
    {"recurrent_gemma",
     "attention_bias conv1d_width logits_soft_cap num_key_value_heads rms_norm_eps rope_theta"},
    {"rwkv7", "norm_eps"},
    {"seed_oss", "num_key_value_heads head_dim"},
    {"solar_open",
     "intermediate_size num_key_value_heads head_dim n_shared_experts n_routed_experts "
     "routed_scaling_factor first_k_dense_replace norm_topk_prob max_position_embeddings "
     "rope_theta tie_word_embeddings partial_rotary_factor"},
    {"spark2_5", "num_key_value_heads head_dim rope_parameters"},
    {"stablelm",
     "num_key_value_heads rope_theta use_qkv_bias partial_rotary_factor layer_norm_eps"},
    {"starcoder2", "num_key_value_heads"},
    {"telechat3", "max_position_embeddings num_key_value_heads rope_theta"},
};

const char *model_required(const char *model_type)
{
    for (size_t i = 0; i < COUNT(required); i++)
        if (strcmp(required[i].model_type, model_type) == 0)
            return required[i].keys;
    return NULL;
}
