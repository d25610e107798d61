/* models/minimax_01.c: MiniMax-01: lightning attention in most layers, experts in all; what is
 * added to is normed too, and weighed.
 *
 *     n = rms_norm(x);  x = alpha n + beta mixer(n)
 *     n = rms_norm(x);  x = alpha n + beta sum over the k best e of w_e expert_e(n)
 *
 * arXiv:2501.08313; lightning attention, 2405.17381
 */
#include <math.h>
#include <string.h>

#include "models/family.h"

/* Keys of transformers, else those of the original. */
static float factor(config *c, const char *key, const char *original)
{
    return (float)config_float_or(c, key, config_float_or(c, original, 1));
}

/* The sum is of the normed x, and of what a block makes of it. */
static void add_block(struct layer_spec *l, struct branch_spec block, float alpha, float beta)
{
    struct branch_spec *kept = layer_add(l, branch_of(OP_NONE, block.pre_norm));

    kept->replace = true;
    kept->scale = alpha;
    block.parallel = block.shared_norm = true;
    block.scale = beta;
    layer_add(l, block);
}

static bool is_linear(config *c, int layer)
{
    const int *full;
    int n = config_ints(c, "attn_type_list", &full);

    if (n >= 0 && layer >= n)
        return config_fail(c, "attn_type_list", "it has %d entries, too few for layer %d", n,
                           layer);
    return config_layer_is(c, "layer_types", "linear_attention", layer,
                           n >= 0 ? full[layer] == 0 : layer % 2 != 0);
}

/* What remains of each head's state, the less the earlier the layer. */
static const float *decays_of(const struct spec *s, int n_heads, int layer, arena *a)
{
    double slope = 1 - layer / (s->n_layers - 1 + 1e-5) + 1e-5;
    float *decays = arena_array(a, float, n_heads);

    for (int i = 0; decays && i < n_heads; i++)
        decays[i] = (float)exp(-slope * pow(2, -8.0 * (i + 1) / n_heads));
    return decays;
}

static struct attention_spec read_attention(config *c, const struct spec *s, arena *a)
{
    struct attention_spec at = config_attention_plain(c, s);

    at.window = config_int_or(c, "sliding_window", 0);
    at.rope = config_rope(c, NULL, at.head_dim, 1000000, a);
    at.qkv_bias = at.o_bias = false;
    if (strcmp(config_string_or(c, "model_type", ""), "minimax_text_01") == 0)
        at.rope.dims = config_int_or(c, "rotary_dim", at.head_dim);
    return at;
}

static int minimax_01_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct moe_spec moe = config_moe_local(c, 8);
    float linear_alpha = factor(c, "linear_attn_alpha_factor", "layernorm_linear_attention_alpha");
    float linear_beta = factor(c, "linear_attn_beta_factor", "layernorm_linear_attention_beta");
    float full_alpha = factor(c, "full_attn_alpha_factor", "layernorm_full_attention_alpha");
    float full_beta = factor(c, "full_attn_beta_factor", "layernorm_full_attention_beta");
    float mlp_alpha = factor(c, "mlp_alpha_factor", "layernorm_mlp_alpha");
    float mlp_beta = factor(c, "mlp_beta_factor", "layernorm_mlp_beta");
    struct attention_spec attention;
    struct lightning_spec lightning;

    if (!config_bool_or(c, "postnorm", true))
        return config_fail(c, "postnorm", "it must be true");
    if (config_common(s, c, false, a))
        return -1;
    attention = read_attention(c, s, a);
    lightning = (struct lightning_spec){
        .n_heads = attention.n_heads,
        .head_dim = attention.head_dim,
        .activated = true,
        .activation = moe.expert.activation,
        .scale = 1,
        .norm = {.kind = NORM_RMS, .eps = 1e-6f},
        .norm_groups = 1,
    };
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers && !config_error(c)->code; i++) {
        if (is_linear(c, i)) {
            lightning.decays = decays_of(s, lightning.n_heads, i, a);
            if (!lightning.decays)
                return fail(config_error(c), CLM_ERR_NOMEM, "decays of heads: no memory");
            add_block(&s->layers[i], branch_lightning(norm, lightning), linear_alpha, linear_beta);
        } else {
            add_block(&s->layers[i], branch_attention(norm, attention), full_alpha, full_beta);
        }
        add_block(&s->layers[i], branch_moe(norm, moe), mlp_alpha, mlp_beta);
    }
    /* The reference has no shared expert; the weights of one would have no place. */
    config_ignore(c, "shared_intermediate_size", "router_jitter_noise", "router_aux_loss_coef",
                  "output_router_logits", "block_size", "rotary_dim", "shared_moe_mode",
                  "layernorm_epsilon", NULL);
    return 0;
}

static const struct weight_rule minimax_01_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(1)},
    {"model.layers.*.self_attn.qkv_proj", ATTENTION_GROUPED_QKV(1)},
    {"model.layers.*.self_attn.out_proj", SLOTS(1, ROLE_O_PROJ)},
    {"model.layers.*.self_attn.output_gate", SLOTS(1, ROLE_ATTENTION_GATE)},
    {"model.layers.*.self_attn.norm", SLOTS(1, ROLE_LIGHTNING_NORM)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(2)},
    {"model.layers.*.block_sparse_moe.gate", ROUTER(3)},
    {"model.layers.*.block_sparse_moe.experts.#.{w1,w3,w2}", EXPERTS(3)},
    {"model.layers.*.mlp.gate", ROUTER(3)},
    {"model.layers.*.mlp.experts.gate_up_proj", SPLIT(3, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.experts.down_proj", SLOTS(3, ROLE_EXPERT_DOWN)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    /* Computed from the number of heads and of the layer. */
    {"model.layers.*.self_attn.{slope_rate,query_decay,key_decay,diagonal_decay}**", IGNORE},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE},
    {NULL, IGNORE},
};

const struct family family_minimax_01 = {
    .name = "MiniMax-01",
    .model_types = {"minimax_text_01"},
    .spec = minimax_01_spec,
    .weights = minimax_01_weights,
};
