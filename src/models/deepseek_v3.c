/* models/deepseek_v3.c: DeepSeek V2 and V3 and those built like them: attention to latents, experts
 * beside shared ones, the first layers dense.
 *
 *     x += mla(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of w_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * V2 weighs experts by a softmax, of the groups with the best experts; V3 by sigmoids, chosen with
 * a bias; Mistral 4 as V2, of the groups with the best two experts.
 *
 * A.X K1 is V3 with a norm behind its experts.
 *
 * V3.2 and GLM 5 see but the keys that an indexer finds, in GLM 5 perhaps that of a layer before.
 *
 * DeepSeek-V2, arXiv:2405.04434; V3, 2412.19437; V3.2, 2512.02556; Kimi K2, 2507.20534
 */
#include <string.h>

#include "models/family.h"

enum kind { V2, V3, MISTRAL4 };

/* V2's router: no bias; weights are not divided by their sum. */
static void soften_router(config *c, struct moe_spec *moe, enum kind kind)
{
    const char *method = config_string_or(c, "topk_method", "greedy");

    moe->router.score = ROUTER_SOFTMAX_ALL;
    moe->router_bias = false;
    if (kind == MISTRAL4) {
        moe->router.normalize = config_bool_or(c, "norm_topk_prob", true);
        return;
    }
    moe->router.normalize = false;
    moe->router.group_by_max = true;
    if (strcmp(method, "group_limited_greedy") == 0)
        return;
    moe->router.n_groups = 1;
    if (strcmp(method, "greedy") != 0 && strcmp(method, "gready") != 0)
        config_fail(c, "topk_method", "unknown choice \"%s\" of experts", method);
}

static struct moe_spec read_moe(config *c, struct mlp_spec mlp, enum kind kind)
{
    struct moe_spec moe;

    if (kind == V2)
        config_ignore(c, "norm_topk_prob", NULL);
    moe = config_moe_noaux(c, mlp);
    if (kind == V3)
        config_noaux_alone(c);
    else
        soften_router(c, &moe, kind);
    return moe;
}

/* Which keys a row sees is chosen by heads made for it. */
static void read_index(struct mla_spec *mla, config *c, bool interleaved)
{
    mla->index = (struct index_spec){
        .topk = config_int_in(c, "index_topk", 1, 1 << 24),
        .n_heads = config_int(c, "index_n_heads"),
        .dim = config_int(c, "index_head_dim"),
        .k_norm = {.kind = NORM_LAYER,
                   .eps = config_by_transformers(c) ? 1e-6f : 1e-5f,
                   .bias = true},
        .rope = mla->rope,
    };
    rope_interleave(&mla->index.rope, c, config_bool_or(c, "indexer_rope_interleave", interleaved));
}

/* GLM 5: whether a layer sees the keys that the one before it saw. */
static bool is_shared(config *c, int layer)
{
    const char *pattern = NULL;
    int every = config_int_or(c, "index_topk_freq", 1);
    int from = config_int_or(c, "index_skip_topk_offset", 2);
    bool shared;

    if (config_kind(c, "index_topk_pattern") == CONFIG_STRING)
        pattern = config_string_or(c, "index_topk_pattern", "");
    if (pattern && (size_t)layer >= strlen(pattern))
        return config_fail(c, "index_topk_pattern", "it is too short for layer %d", layer);
    shared =
        pattern ? pattern[layer] == 'S' : layer >= from && every > 1 && (layer - from + 1) % every;
    if (!pattern)
        shared = config_layer_is(c, "index_topk_pattern", "shared", layer, shared);
    shared = config_layer_is(c, "indexer_types", "shared", layer, shared);
    if (shared && layer == 0)
        config_fail(c, "indexer_types", "the first layer has no other before it to share with");
    return shared;
}

/* In the new schema it says how many numbers of a head turn, or how many a head has. */
static void check_head_dim(config *c, const struct mla_spec *mla)
{
    int head_dim = config_int_or(c, "head_dim", mla->rope_dim);

    if (config_by_transformers(c) && config_has(c, "rope_parameters") &&
        head_dim != mla->rope_dim && head_dim != mla->nope_dim + mla->rope_dim)
        config_fail(c, "head_dim", "it is %d, qk_rope_head_dim %d", head_dim, mla->rope_dim);
}

/* As mlp_layer_types says, else from first_k_dense_replace on, every moe_layer_freq-th, which
 * Mistral 4 does not have. */
static bool is_sparse(config *c, enum kind kind, int layer)
{
    int first = config_int_or(c, "first_k_dense_replace", 0);
    int every = kind == MISTRAL4 ? 1 : config_int_or(c, "moe_layer_freq", 1);

    if (every < 1)
        return config_fail(c, "moe_layer_freq", "it is %d; it must be positive", every);
    return config_layer_is(c, "mlp_layer_types", "sparse", layer,
                           layer >= first && layer % every == 0);
}

static int deepseek_spec(struct spec *s, config *c, arena *a)
{
    const char *type = config_string_or(c, "model_type", "");
    enum kind kind = strncmp(type, "deepseek_v2", 11) == 0 ? V2
                     : strcmp(type, "mistral4") == 0       ? MISTRAL4
                                                           : V3;
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = {.gated = true,
                           .activation = config_activation(c, "hidden_act", ACT_SILU)};
    bool sparse = config_has(c, "n_routed_experts");
    bool later = kind == MISTRAL4 && config_has(c, "rope_parameters");
    struct moe_spec moe = {0};
    struct mla_spec mla;
    int indexed = 0; /* the last layer with an index, + 1 */

    if (sparse)
        moe = read_moe(c, mlp, kind);
    moe.router_bias_optional = strcmp(type, "axk1") == 0;
    if (kind == V2)
        mlp.bias = moe.shared.bias = config_bool_or(c, "mlp_bias", false);
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file = true; /* mlx-lm reads the head there is */
    mla = config_mla(c, later && !config_by_transformers(c) ? 100000 : 10000, a);
    if (kind == MISTRAL4 && config_is_null(c, "rope_interleave") && !config_by_transformers(c))
        rope_interleave(&mla.rope, c, true); /* mlx-lm takes it for left out */
    check_head_dim(c, &mla);
    if (kind == V2 && !config_by_transformers(c) && config_has(c, "rope_scaling") &&
        mla.rope.kind != ROPE_YARN)
        return config_fail(c, "rope_scaling",
                           "its type must be \"yarn\", which mlx-lm takes it for");
    if (strcmp(type, "glm4_moe_lite") == 0)
        mla.q_norm = mla.kv_norm = norm;
    mla.temperature = config_temperature(c);
    if (strcmp(type, "deepseek_v32") == 0 || strcmp(type, "glm_moe_dsa") == 0)
        read_index(&mla, c, strcmp(type, "glm_moe_dsa") == 0);
    s->final_norm = norm;
    s->more_layers = true;
    for (int i = 0; i < s->n_layers; i++) {
        struct mla_spec own = mla;

        if (strcmp(type, "glm_moe_dsa") == 0 && is_shared(c, i)) {
            own.index = (struct index_spec){0};
            own.index_of = indexed;
        } else {
            indexed = i + 1;
        }
        layer_add(&s->layers[i], branch_mla(norm, own));
        if (sparse && is_sparse(c, kind, i)) {
            struct branch_spec *experts = layer_add(&s->layers[i], branch_moe(norm, moe));

            if (strcmp(type, "axk1") == 0)
                experts->post_norm = norm;
        } else {
            mlp.intermediate_size = config_int(c, "intermediate_size");
            layer_add(&s->layers[i], branch_mlp(norm, mlp));
        }
    }
    config_ignore(c, "intermediate_size", "num_nextn_predict_layers", "pretraining_tp", "mlp_bias",
                  "ep_size", "moe_intermediate_size", "n_shared_experts", "rope_scaling", NULL);
    return 0;
}

const struct family family_deepseek_v3 = {
    .name = "DeepSeek V2, V3 and V3.2, GLM 5, Kimi K2, GLM 4.7 Flash, Mistral 4, A.X K1",
    .model_types = {"deepseek_v3", "sarvam_mla", "deepseek_v2", "kimi_k2", "kimi_k25", "kimi_vl",
                    "joyai_llm_flash", "glm4_moe_lite", "mistral4", "deepseek_v32", "glm_moe_dsa",
                    "axk1"},
    .spec = deepseek_spec,
    .weights = layout_mla,
};
