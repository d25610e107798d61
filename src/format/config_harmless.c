#include "format/config_harmless.h"

#include <stddef.h>
#include <string.h>

#include "base/memory.h"

/*
 * A key is here only when no architecture computes anything else for it: what one family ignores
 * and another needs (sliding_window, hidden_act, ...) is for the family to read or to ignore.
 * '*' at the end or at the beginning stands for anything.
 */
static const char *const harmless[] = {
    /* where the checkpoint comes from, and how it was saved */
    "architectures",
    "auto_map",
    "model_name",
    "model_version",
    "license",
    "language",
    "_name_or_path",
    "name_or_path",
    "_commit_hash",
    "_from_model_config",
    "transformers_version",
    "transformers.js_config",
    "unsloth_*",
    "task_specific_params",
    "finetuning_task",
    "custom_pipelines",
    "tokenizer_class",
    "prefix",
    /* types: the tensors say it themselves */
    "torch_dtype",
    "dtype",
    "params_dtype",
    "bf16",
    "fp16",
    "fp32",
    "use_bfloat16",
    "autocast_kernel_dtype",
    "mamba_ssm_cache_dtype",
    "inference_state_dtype",
    "router_dtype",
    "residual_in_fp32",
    "attention_softmax_in_fp32",
    "scale_attention_softmax_in_fp32",
    "softmax_in_fp32",
    "reorder_and_upcast_attn",
    "norm_reduction_force_float32",
    "fp32_residual_connection",
    /* training */
    "*dropout",
    "*dropout_prob",
    "*dropout_p",
    "*_pdrop",
    "pdrop",
    "layerdrop",
    "*_dropout_rate",
    "initializer_*",
    "*initializer_range",
    "init_*",
    "*_init_std",
    "*init_variance_scale",
    "weight_init",
    "rescale_prenorm_residual",
    "time_step_init_scheme",
    "time_step_floor",
    "time_step_scale",
    "gradient_checkpointing",
    "*aux_loss_coef",
    "*aux_loss_alpha",
    "*router_z_loss*",
    "z_loss*",
    "moe_loss_weight",
    "*jitter_noise",
    "moe_jitter_eps",
    "seq_aux",
    "summary_*",
    "problem_type",
    "id2label",
    "label2id",
    "num_labels",
    "pretraining_tp",
    "tensor_parallel*",
    "ep_size",
    "moe_shared_expert_overlap",
    "train_*",
    "enable_bias_update",
    "label_smoothing",
    "router_bias_update_rate",
    /* heads that predict further tokens: not run */
    "num_nextn_predict_layers",
    "mtp_*",
    "num_mtp_*",
    /* which implementation runs it */
    "use_cache",
    "use_flash_attn",
    "use_flash_attention",
    "flash_attention",
    "*attn_implementation*",
    "attn_impl",
    "init_device",
    "use_cache_quantization",
    "use_cache_kernel",
    "onnx_safe",
    "use_mambapy",
    "use_mamba_kernels",
    "use_associative_scan",
    "chunkwise_kernel",
    "sequence_kernel",
    "step_kernel",
    "return_last_states",
    "max_inference_chunksize",
    "mamba_chunk_size",
    "slow_but_exact",
    "chunk_size_feed_forward",
    "torchscript",
    "pruned_heads",
    "deterministic_flash_attn",
    /* what transformers returns */
    "output_*",
    "return_dict*",
    "num_logits_to_keep",
    "keys_to_ignore_at_inference",
    /* it is a decoder */
    "is_decoder",
    "is_encoder_decoder",
    "add_cross_attention",
    "cross_attention_hidden_size",
    "tie_encoder_decoder",
    "decoder_start_token_id",
    "use_return_dict",
    /* lengths it was trained for */
    "max_position_embeddings",
    "model_max_length",
    "max_seq_len",
    "max_seq_length",
    "max_sequence_length",
    "seq_length",
    "n_positions",
    "n_ctx",
    "max_length",
    "min_length",
    /* tokens: from the tokenizer and generation_config.json, or read where generation starts */
    "*_token_id",
    "*_token_ids",
    "*_token_index",
    "additional_special_tokens",
    /* defaults of generation, as transformers 4 wrote them here */
    "temperature",
    "top_p",
    "typical_p",
    "do_sample",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "early_stopping",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    "max_new_tokens",
    "tf_legacy_loss",
    /* parts for images and sound: text goes past them */
    "vision_*",
    "*vision_config",
    "image_*",
    "audio_*",
    "video_*",
    "mm_*",
    "projector_*",
    "multimodal_projector_bias",
    "spatial_merge_size",
    "visual",
    "visual_*",
    "img_processor",
    "embd_layer",
};

static bool matches(const char *pattern, const char *key)
{
    size_t n = strlen(pattern), size = strlen(key);
    bool open_start = pattern[0] == '*', open_end = pattern[n - 1] == '*';
    const char *fixed = pattern + open_start;
    size_t n_fixed = n - open_start - open_end;

    if (size < n_fixed)
        return false;
    if (open_start && open_end)
        return memmem(key, size, fixed, n_fixed) != NULL;
    if (open_end)
        return !memcmp(key, fixed, n_fixed);
    if (open_start)
        return !memcmp(key + size - n_fixed, fixed, n_fixed);
    return size == n_fixed && !memcmp(key, fixed, n_fixed);
}

bool config_key_is_harmless(const char *key)
{
    for (size_t i = 0; i < COUNT(harmless); i++)
        if (matches(harmless[i], key))
            return true;
    return false;
}
