/* models/prism.c: Qwen 3.5 in 2 bits, where the inputs of most matrices are turned by Hadamard
 * matrices first, so that no number stands out.
 */
#include <string.h>

#include "models/family.h"

static void check_pack(config *c)
{
    static const char *const namespaces[] = {"", "mlx-lm-text", "mlx-vlm-qwen3_5"};
    int version = config_int_or(c, "schema_version", 2);
    const char *space = config_string_or(c, "tensor_namespace", "");
    const char *layout = config_string_or(c, "gdn_activation_layout", "grouped");
    config *q = config_object(c, "quantization");

    if (version < 1 || version > 2 || strcmp(space, namespaces[version]) != 0)
        config_fail(c, "schema_version", "unknown schema %d with names of \"%s\"", version, space);
    if (strcmp(layout, "grouped") != 0)
        config_fail(c, "gdn_activation_layout", "unknown layout \"%s\"", layout);
    if (!q || config_int_or(q, "bits", 0) != 2 || config_int_or(q, "group_size", 0) != 128 ||
        strcmp(config_string_or(q, "mode", ""), "affine") != 0)
        config_fail(c, "quantization", "it must be 2 bits in affine groups of 128");
    if (!config_item(c, "modules", 0))
        config_fail(c, "modules", "it must list the matrices");
    config_ignore(c, "vision_config", "image_token_id", "video_token_id", "vision_start_token_id",
                  "vision_end_token_id", "tie_word_embeddings", NULL);
}

static int prism_spec(struct spec *s, config *c, arena *a)
{
    config *text = config_object(c, "text_config");

    check_pack(c);
    return qwen3_next_spec(s, text ? text : c, a);
}

const struct family family_prism = {
    .name = "Prism, Qwen 3.5 in 2 bits",
    .model_types = {"prism_hadamard_qwen35"},
    .spec = prism_spec,
    .adapt = qwen3_next_adapt,
    .reads_text_config = true,
    .weights = layout_qwen3_next,
};
