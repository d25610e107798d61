/* models/deepseek_ocr2.c: the text of DeepSeek-OCR 2: Llama's attention, DeepSeek V2's experts.
 *
 *     x += attention(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of softmax(router)_e expert_e(n) + shared(n),
 *     n = rms_norm(x)
 */
#include <string.h>

#include "models/family.h"

static struct moe_spec read_moe(config *c)
{
    const char *method = config_string_or(c, "topk_method", "greedy");
    struct moe_spec moe = config_moe_noaux(c, config_gated_mlp(c));

    moe.router.score = ROUTER_SOFTMAX_ALL;
    moe.router.normalize = false;
    moe.router.group_by_max = true;
    moe.router_bias = false;
    if (strcmp(method, "greedy") == 0)
        moe.router.n_groups = 1;
    else if (strcmp(method, "group_limited_greedy") != 0)
        config_fail(c, "topk_method", "unknown choice \"%s\" of experts", method);
    return moe;
}

static int deepseek_ocr2_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct moe_spec moe;
    struct attention_spec attention;

    config_alias(c, "num_experts", "n_routed_experts");
    moe = read_moe(c);
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        if (config_layer_is(c, "mlp_layer_types", "sparse", i, true))
            layer_add(&s->layers[i], branch_moe(norm, moe));
        else
            layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "pretraining_tp", NULL);
    return 0;
}

static const struct weight_rule deepseek_ocr2_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.{sam_model,qwen2_model,projector}.**", IGNORE}, /* what sees */
    {"model.view_seperator", IGNORE},
    {NULL, IGNORE},
};

const struct family family_deepseek_ocr2 = {
    .name = "DeepSeek-OCR 2",
    .model_types = {"deepseek_ocr2", "deepseek_ocr2_text"},
    .spec = deepseek_ocr2_spec,
    .weights = deepseek_ocr2_weights,
};
