/* models/llama.c: the Llama family (Llama 2 and 3, Mistral; LLaVA and Pixtral around them).
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * LLaMA, arXiv:2302.13971; grouped queries, 2305.13245; rotary, 2104.09864; SwiGLU, 2002.05202;
 * Mistral 7B, 2310.06825.
 */
#include <string.h>

#include "models/family.h"

static int llama_spec(struct spec *s, config *c, arena *a)
{
    bool mistral = strcmp(config_string_or(c, "model_type", ""), "mistral") == 0;
    struct norm_spec norm = config_rms_norm(c);
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);
    /* Mistral slides everywhere; Llama's config may carry the key, but only layer_types gives it a
     * meaning. */
    int window = config_int_or(c, "sliding_window", 0);

    if (config_common(s, c, true, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = config_window(c, i, mistral ? window : 0);
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "pretraining_tp", NULL);
    return 0;
}

const struct family family_llama = {
    .name = "Llama, Mistral",
    .model_types = {"llama", "mistral", "pixtral", "llava", "xverse", "iquestcoder"},
    .spec = llama_spec,
    .weights = layout_llama,
};
