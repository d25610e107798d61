/* models/phi3small.c: Phi-3 small: most layers see blocks of keys, the last ones and every few,
 * other ones for each head; a gated feed-forward with limits.
 *
 *     x += attention(norm(x));  x += down((u + 1) g sigmoid(1.702 g)), g, u = up(norm(x))
 *
 * arXiv:2404.14219
 */
#include "models/family.h"

/* Tokens of the tokenizer's own that no text has. */
static void read_never(struct spec *s, config *c, arena *a)
{
    static const int usual[][2] = {
        {100256, 100256}, {100258, 100260}, {100264, 100265}, {100267, 100351}};
    const int *ids;
    int n = config_ints(c, "dummy_token_indices", &ids), n_usual = 0;
    int *never = arena_array(a, int, n > 0 ? n : 128);

    for (size_t i = 0; n < 0 && i < COUNT(usual); i++)
        for (int id = usual[i][0]; never && id <= usual[i][1]; id++)
            never[n_usual++] = id;
    for (int i = 0; never && i < n; i++)
        never[i] = ids[i];
    n = n < 0 ? n_usual : n;
    s->never = never;
    for (int i = 0; never && i < n; i++)
        if (never[i] >= 0 && never[i] < s->vocab_size)
            never[s->n_never++] = never[i];
    if (!never)
        fail(config_error(c), CLM_ERR_NOMEM, "tokens without logits: no memory");
}

static struct block_pattern read_blocks(config *c, int n_heads)
{
    struct block_pattern b = {
        .size = config_int_or(c, "blocksparse_block_size", 64),
        .n_local = config_int_or(c, "blocksparse_num_local_blocks", 16),
        .stride = config_int_or(c, "blocksparse_vert_stride", 8),
    };

    if (b.size < 1)
        config_fail(c, "blocksparse_block_size", "it is %d; it must be positive", b.size);
    if (!config_bool_or(c, "blocksparse_homo_head_pattern", false))
        b.step = b.stride > n_heads ? b.stride / n_heads : 1;
    return b;
}

static struct attention_spec read_attention(config *c, int hidden_size)
{
    int n_heads = config_int_in(c, "num_attention_heads", 1, 4096);
    double position_scale = config_float_or(c, "rope_position_scale", 1);
    double multiplier = config_float_or(c, "mup_attn_multiplier", 1);
    struct attention_spec at = {
        .n_heads = n_heads,
        .n_kv_heads = config_int(c, "num_key_value_heads"),
        .head_dim = hidden_size / n_heads,
        .qkv_bias = true,
        .o_bias = true,
        .scale = attention_scale(hidden_size / n_heads),
    };

    at.rope = rope_plain(at.head_dim, config_float_or(c, "rope_embedding_base", 1000000));
    at.rope.kind = ROPE_LINEAR;
    at.rope.factor = 1 / position_scale;
    if (config_bool_or(c, "mup_use_scaling", true))
        at.scale = (float)(multiplier / (at.head_dim > 0 ? at.head_dim : 1));
    return at;
}

static int phi3small_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "layer_norm_epsilon", true);
    struct mlp_spec mlp = {
        .intermediate_size = config_int(c, "ff_intermediate_size"),
        .gated = true,
        .bias = true,
        .alpha = 1.702f,
        .limit = (float)config_float(c, "gegelu_limit"),
    };
    int every = config_int_or(c, "dense_attention_every_n_layers", 2);
    double embedding = config_float_or(c, "mup_embedding_multiplier", 10);
    double width = config_float_or(c, "mup_width_multiplier", 8);
    struct attention_spec at;
    struct block_pattern blocks, none = {0};

    if (config_common(s, c, true, a))
        return -1;
    at = read_attention(c, s->hidden_size);
    blocks = read_blocks(c, at.n_heads);
    if (embedding != 0)
        s->embed_scale = (float)embedding;
    if (width != 0)
        s->logit_scale = (float)(1 / width);
    s->tie_word_embeddings = true;
    s->tie_by_file = false;
    s->final_norm = norm;
    read_never(s, c, a);
    for (int i = 0; i < s->n_layers; i++) {
        at.blocks = every > 0 && (i + 1) % every == 0 ? none : blocks;
        layer_add(&s->layers[i], branch_attention(norm, at));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "hidden_act", "ff_dim_multiplier", "gegelu_pad_to_256",
                  "reorder_and_upcast_attn", "attention_bias", "attention_dropout_prob",
                  "embedding_dropout_prob", "ffn_dropout_prob",
                  "blocksparse_triton_kernel_block_size", "blocksparse_homo_head_pattern", NULL);
    return 0;
}

static const struct weight_rule phi3small_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.query_key_value", ATTENTION_GROUPED_QKV(0)},
    {"model.layers.*.self_attn.dense", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.up_proj",
     {.kind = TARGET_INTERLEAVED, .branch = 1, .first = ROLE_GATE_PROJ, .n = 2}},
    {"model.layers.*.mlp.down_proj", SLOTS(1, ROLE_DOWN_PROJ)},
    {"model.final_layernorm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from the base */
    {NULL, IGNORE},
};

const struct family family_phi3small = {
    .name = "Phi-3 small",
    .model_types = {"phi3small"},
    .spec = phi3small_spec,
    .weights = phi3small_weights,
};
