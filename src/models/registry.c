/* models/registry.c: which family serves which model_type. */
#include <limits.h>
#include <string.h>

#include "base/distance.h"
#include "models/family.h"
#include "models/model.h"
#include "models/registry.h"

static const struct family *const families[] = {
    &family_afm7,          &family_afmoe,
    &family_apertus,       &family_arcee,
    &family_bailing_moe,   &family_bamba,
    &family_bloom,         &family_codegen,
    &family_cohere,        &family_dbrx,
    &family_deepseek,      &family_deepseek_v3,
    &family_ernie4_5,      &family_ernie4_5_moe,
    &family_exaone,        &family_exaone4,
    &family_exaone_moe,    &family_falcon,
    &family_flex_olmo,     &family_gemma,
    &family_gemma2,        &family_gemma3,
    &family_gemma3n,       &family_gemma4,
    &family_glm,           &family_glm4_moe,
    &family_gpt2,          &family_gpt_bigcode,
    &family_gpt_neox,      &family_gpt_oss,
    &family_gptj,          &family_granite,
    &family_granitemoe,    &family_granitemoehybrid,
    &family_helium,        &family_hunyuan,
    &family_hunyuan_dense, &family_internlm2,
    &family_internlm3,     &family_iquestloopcoder,
    &family_jais2,         &family_klear,
    &family_laguna,        &family_lfm2,
    &family_lille,         &family_llama,
    &family_llama4,        &family_longcat_flash,
    &family_mamba2,        &family_mellum,
    &family_mimo,          &family_mimo_v2_flash,
    &family_minicpm,       &family_minicpm3,
    &family_minimax_m2,    &family_minimax_m3,
    &family_ministral3,    &family_mixtral,
    &family_mpt,           &family_muse_glimmer,
    &family_nanbeige,      &family_nanochat,
    &family_nemotron,      &family_nemotron_h,
    &family_nemotron_nas,  &family_olmo,
    &family_olmo2,         &family_olmoe,
    &family_openelm,       &family_opt,
    &family_persimmon,     &family_phi,
    &family_phi3,          &family_phi3small,
    &family_phimoe,        &family_phixtral,
    &family_plamo,         &family_plamo3,
    &family_qwen,          &family_qwen1,
    &family_qwen2_moe,     &family_seed_oss,
    &family_smollm3,       &family_spark2_5,
    &family_stablelm,      &family_starcoder2,
    &family_step3p5,       &family_talkie,
    &family_telechat3,     &family_vaultgemma,
    &family_youtu,
};

const struct family *model_family(int i)
{
    return i >= 0 && (size_t)i < COUNT(families) ? families[i] : NULL;
}

const struct family *model_family_find(const char *model_type)
{
    for (size_t i = 0; i < COUNT(families); i++)
        for (size_t t = 0; t < COUNT(families[i]->model_types) && families[i]->model_types[t]; t++)
            if (strcmp(families[i]->model_types[t], model_type) == 0)
                return families[i];
    return NULL;
}

const char *model_type_nearest(const char *model_type)
{
    const char *best = NULL;
    int least = INT_MAX;

    for (size_t i = 0; i < COUNT(families); i++) {
        for (size_t t = 0; t < COUNT(families[i]->model_types) && families[i]->model_types[t];
             t++) {
            int d = edit_distance(model_type, families[i]->model_types[t]);

            if (d < least) {
                least = d;
                best = families[i]->model_types[t];
            }
        }
    }
    return best && least <= 1 + (int)strlen(best) / 3 ? best : NULL;
}
