/* models/iquestloopcoder.c: IQuest LoopCoder: Llama whose layers are gone through twice. The second
 * time a layer sees the last tokens as they are then, and all tokens as they were the first time;
 * each head mixes the two by a gate.
 *
 *     first:  x += attention(rms_norm(x));  x += mlp(rms_norm(x))
 *     second: x += o(g first(q) + (1 - g) window(q)), g = sigmoid(w_h q_h + b_h);  x += mlp(...)
 */
#include "models/family.h"

static int loopcoder_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    int loops = config_int_or(c, "loop_num", 2), n;
    int window = config_int_or(c, "loop_window_size", 64);
    struct attention_spec at;

    if (loops != 2)
        return config_fail(c, "loop_num", "it is %d; LoopCoder goes through its layers twice",
                           loops);
    if (window < 1)
        return config_fail(c, "loop_window_size", "it is %d; it must be positive", window);
    if (config_common(s, c, false, a))
        return -1;
    n = s->n_layers;
    at = config_attention(c, s, 500000, a);
    at.mix_gate = true;
    if (config_error(c)->code || spec_repeat_layers(s, c, "loop_num", loops, a))
        return -1;
    spec_layers(s, norm, at, mlp);
    for (int i = n; i < s->n_layers; i++) {
        s->layers[i].branches[0].attention.window = window;
        s->layers[i].branches[0].attention.mixed_with = i - n + 1;
    }
    return 0;
}

static const struct weight_rule loopcoder_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.gate_projections.*", SLOTS(0, ROLE_MIX_GATE)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_iquestloopcoder = {
    .name = "IQuest LoopCoder",
    .model_types = {"iquestloopcoder"},
    .spec = loopcoder_spec,
    .weights = loopcoder_weights,
};
