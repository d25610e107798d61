/* models/ernie4_5.c: ERNIE 4.5, dense: Llama with interleaved rope, but in PaddleOCR-VL.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 */
#include <string.h>

#include "models/family.h"

static int ernie4_5_spec(struct spec *s, config *c, arena *a)
{
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 500000, a);
    attention.qkv_bias = attention.o_bias = mlp.bias = config_bool_or(c, "use_bias", false);
    attention.rope.interleaved =
        strcmp(config_string_or(c, "model_type", ""), "paddleocr_vl_text") != 0;
    spec_layers(s, config_rms_norm(c), attention, mlp);
    return 0;
}

const struct family family_ernie4_5 = {
    .name = "ERNIE 4.5",
    .model_types = {"ernie4_5", "paddleocr_vl", "paddleocr_vl_text"},
    .spec = ernie4_5_spec,
    .weights = layout_llama,
};
