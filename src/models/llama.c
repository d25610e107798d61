/* models/llama.c: the Llama family (Llama 2 and 3, Mistral, Ministral, Code World Model; LLaVA and
 * Pixtral around them).
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * LLaMA, arXiv:2302.13971; grouped queries, 2305.13245; rotary, 2104.09864; SwiGLU, 2002.05202;
 * Mistral 7B, 2310.06825.
 */
#include <string.h>

#include "models/family.h"

/* Without layer_types Mistral slides everywhere, Ministral too, Code World Model in all but every
 * fourth layer from the first on; Llama's config may carry the key, but has no use for it. */
static int window_of(config *c, const char *type, int layer)
{
    int window = config_int_or(c, "sliding_window", 0);

    if (strcmp(type, "ministral") == 0 && !config_is_null(c, "sliding_window"))
        window = config_window_size(c, "sliding_window", 4096);
    else if (strcmp(type, "cwm") == 0)
        window = layer % 4 ? config_window_size(c, "sliding_window", 8192) : 0;
    else if (strcmp(type, "mistral") != 0)
        window = 0;
    return config_window(c, layer, window);
}

static int llama_spec(struct spec *s, config *c, arena *a)
{
    const char *type = config_string_or(c, "model_type", "");
    struct norm_spec norm = config_rms_norm(c);
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);
    bool bare;

    if (config_common(s, c, true, a))
        return -1;
    if (strcmp(type, "cwm") == 0 && !config_has(c, "rope_parameters") &&
        !config_has(c, "rope_scaling"))
        return config_fail(c, "rope_parameters", "it is missing");
    attention = config_attention(c, s, strcmp(type, "cwm") == 0 ? 1000000 : 10000, a);
    bare = strcmp(type, "ministral") == 0 ||
           (strcmp(type, "mistral") == 0 && config_by_transformers(c));
    mlp.bias = mlp.bias && !bare; /* whatever the keys say */
    if (bare || strcmp(type, "cwm") == 0)
        attention.qkv_bias = attention.o_bias = false;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = window_of(c, type, i);
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "pretraining_tp", NULL);
    return 0;
}

const struct family family_llama = {
    .name = "Llama, Mistral",
    .model_types = {"llama",         "mistral",         "pixtral",     "llava",
                    "xverse",        "iquestcoder",     "ministral",   "cwm",
                    "llava_next",    "llava_onevision", "internvl",    "idefics3",
                    "smolvlm",       "voxtral",         "deepseek_vl", "deepseek_vl_hybrid",
                    "glmasr",        "idefics2",        "janus",       "llava_next_video",
                    "perception_lm", "video_llava",     "vipllava"},
    .spec = llama_spec,
    .weights = layout_llama,
};
