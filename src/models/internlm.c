/* models/internlm.c: InternLM, the first: Llama with biases in attention.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * InternLM Team, 2023
 */
#include <string.h>

#include "models/family.h"

/* rotary, as its configs have it, or what others have. */
static struct rope_spec rope_of(config *c, const struct spec *s, int head_dim, arena *a)
{
    config *rotary = config_object(c, "rotary");
    const char *type = config_string_or(rotary, "type", "origin");
    struct rope_spec r;

    if (!rotary)
        return config_rope(c, NULL, head_dim, 10000, a);
    r = rope_plain(head_dim, config_float_or(rotary, "base", 10000));
    r.factor = config_float_or(rotary, "scaling_factor", 1);
    r.max_positions = s->context_length > 0 ? s->context_length : 2048;
    if (strcmp(type, "dynamic") == 0)
        r.kind = ROPE_DYNAMIC;
    else if (strcmp(type, "origin") != 0)
        config_fail(rotary, "type", "unknown rope type \"%s\"", type);
    return r;
}

static int internlm_spec(struct spec *s, config *c, arena *a)
{
    struct mlp_spec mlp = config_gated_mlp(c);
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_plain(c, s);
    attention.rope = rope_of(c, s, attention.head_dim, a);
    attention.qkv_bias = attention.o_bias = config_bool_or(c, "bias", true);
    spec_layers(s, config_rms_norm(c), attention, mlp);
    return 0;
}

const struct family family_internlm = {
    .name = "InternLM",
    .model_types = {"internlm"},
    .spec = internlm_spec,
    .weights = layout_llama,
};
