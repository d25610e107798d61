#include "models/defaults.h"

#include <stddef.h>
#include <string.h>

#include "base/memory.h"

/* What differs from the defaults in the families' code. */
static const struct {
    const char *model_type, *keys;
} of_mlx[] =
    {
        {"cohere", "{\"rope_theta\": 8000000.0}"},
        {"cohere2", "{\"rope_theta\": 50000.0}"},
        {"exaone_moe", "{\"routed_scaling_factor\": 2.5}"},
        {"gemma2", "{\"query_pre_attn_scalar\": 144.0}"},
        {"glm4_moe_lite", "{\"rope_theta\": 1000000.0, \"routed_scaling_factor\": 1.8}"},
},
  of_transformers[] = {
      {"afmoe", "{\"route_scale\": 1.0}"},
      {"bitnet", "{\"rope_theta\": 500000.0}"},
      {"cohere", "{\"rope_theta\": 500000.0}"},
      {"cohere2", "{\"rope_theta\": 10000.0}"},
      {"deepseek_v3", "{\"routed_scaling_factor\": 2.5}"},
      {"dots1", "{\"rope_theta\": 10000.0, \"norm_topk_prob\": false}"},
      {"exaone4", "{\"rope_theta\": 10000.0}"},
      {"exaone_moe", "{\"rope_theta\": 10000.0, \"routed_scaling_factor\": 2.5}"},
      {"falcon_h1", "{\"rope_theta\": 10000.0}"},
      {"glm", "{\"partial_rotary_factor\": 0.5}"},
      {"glm4", "{\"partial_rotary_factor\": 0.5}"},
      {"glm4_moe", "{\"rope_theta\": 10000.0, \"partial_rotary_factor\": 0.5}"},
      {"gpt_bigcode", "{\"activation_function\": \"gelu_pytorch_tanh\"}"},
      {"gpt_neox", "{\"partial_rotary_factor\": 0.25, \"hidden_act\": \"gelu\"}"},
      {"helium", "{\"rope_theta\": 100000.0}"},
      {"jais2", "{\"rope_theta\": 10000.0}"},
      {"kimi_linear", "{\"routed_scaling_factor\": 2.446}"},
      {"longcat_flash", "{\"routed_scaling_factor\": 6.0}"},
      {"ministral3", "{\"rope_theta\": 10000.0}"},
      {"nemotron", "{\"partial_rotary_factor\": 0.5}"},
      {"olmo3", "{\"rope_theta\": 500000.0}"},
      {"persimmon", "{\"rope_theta\": 10000.0, \"partial_rotary_factor\": 0.5}"},
      {"phi", "{\"partial_rotary_factor\": 0.5}"},
      {"phimoe", "{\"rope_theta\": 1000000.0}"},
      {"qwen2", "{\"rope_theta\": 10000.0}"},
      {"qwen2_moe", "{\"rope_theta\": 10000.0}"},
      {"qwen3", "{\"rope_theta\": 10000.0}"},
      {"qwen3_5_moe_text", "{\"rope_theta\": 10000.0}"},
      {"qwen3_5_text", "{\"rope_theta\": 10000.0}"},
      {"qwen3_moe", "{\"rope_theta\": 10000.0}"},
      {"qwen3_next", "{\"rope_theta\": 10000.0, \"norm_topk_prob\": true}"},
      {"recurrent_gemma", "{\"partial_rotary_factor\": 0.5}"},
      {"smollm3", "{\"rope_theta\": 2000000.0}"},
      {"stablelm", "{\"partial_rotary_factor\": 0.25}"},
      {"youtu", "{\"rope_theta\": 10000.0}"},
};

const char *model_defaults(const char *model_type, bool transformers)
{
    for (size_t i = 0; transformers && i < COUNT(of_transformers); i++)
        if (strcmp(of_transformers[i].model_type, model_type) == 0)
            return of_transformers[i].keys;
    for (size_t i = 0; !transformers && i < COUNT(of_mlx); i++)
        if (strcmp(of_mlx[i].model_type, model_type) == 0)
            return of_mlx[i].keys;
    return NULL;
}
