/* nn/spec.h: an architecture as data: layers of residual branches, and the numbers inside each
 * block.
 *
 *     x += scale * post_norm(op(pre_norm(x)))        for each branch of each layer, in order
 *
 * A family file fills these from its config.json; everything that runs a model reads them. Strings
 * and arrays live in the arena of the model.
 */
#ifndef NN_SPEC_H
#define NN_SPEC_H

#include "device/device.h"

enum norm_kind { NORM_NONE, NORM_RMS, NORM_LAYER };

struct norm_spec {
    enum norm_kind kind;
    float eps;
    float offset;     /* added to the stored weight: 1 where checkpoints hold w - 1 */
    bool bias;        /* added at the end; with NORM_RMS of whole rows only */
    bool weightless;  /* nothing is stored: all weights are 1 */
    bool scale_first; /* NORM_RMS of the numbers times their weights */
    bool rounded;     /* the result is rounded to bfloat16 */
};

enum rope_kind {
    ROPE_NONE,        /* no positions here */
    ROPE_DEFAULT,     /* theta^(-2i / dims) */
    ROPE_LINEAR,      /* positions divided by factor */
    ROPE_DYNAMIC,     /* theta grows with the length of the sequence beyond max_positions */
    ROPE_LLAMA3,      /* long wavelengths divided by factor, a smooth step between */
    ROPE_YARN,        /* arXiv:2309.00071 */
    ROPE_LONGROPE,    /* a factor per pair, arXiv:2402.13753 */
    ROPE_PROPORTIONAL /* exponents over the whole head, the pairs beyond dims do not turn */
};

struct rope_spec {
    enum rope_kind kind;
    int head_dim;
    int dims;         /* the first dims of a head turn; even */
    bool interleaved; /* pairs (2i, 2i + 1); else (i, i + dims / 2) */
    bool backward;    /* by negative angles */
    double theta;
    double factor;
    double max_positions, original_max_positions;
    double low_freq_factor, high_freq_factor;            /* llama3 */
    double beta_fast, beta_slow, mscale, mscale_all_dim; /* yarn */
    double attention_factor; /* multiplies cos and sin when > 0, else the kind's own formula */
    const double *factors;   /* [dims / 2] longrope, which are n_factors */
    int n_factors;
    bool no_truncate; /* yarn: keep the bounds of the ramp unrounded */
};

/* What a norm of queries and keys spans. */
enum qk_norm_span {
    QK_NORM_HEAD, /* each head alone, all with the same weights [head_dim] */
    QK_NORM_EACH, /* each head alone, with weights of its own [n_heads, head_dim] */
    QK_NORM_ALL   /* all heads of a token at once, weights [n_heads * head_dim] */
};

/* Queries at position p are multiplied by 1 + beta log(1 + floor((p + offset) / length)); beta 0:
 * not.
 */
struct temperature_spec {
    float beta, length;
    int offset;
};

/* What multiplies the result of attention: act(linear(x)), a number per head or per number. */
enum attention_gate { GATE_NONE, GATE_HEADS, GATE_ALL };

/* Keys and values as projected: of the layer itself; kept for later layers too; those last kept. */
enum kv_source { KV_OWN, KV_KEPT, KV_TAKEN };

/* Heads that see only some blocks of keys: those of the last n_local blocks, the row's own among
 * them, and every stride-th, another one for each head: block b of head h where (b + h step + 1) %
 * stride is 0. */
struct block_pattern {
    int size, n_local, stride, step; /* size 0: all blocks */
};

/* Heads made for choosing which keys a row sees. Their scores are summed, with weights of each row,
 * and the best topk keys are seen by all heads. arXiv:2512.02556 */
struct index_spec {
    int topk; /* 0: there are none, all keys are seen */
    int n_heads, dim;
    struct norm_spec q_norm, k_norm;
    struct rope_spec rope; /* over the first rope.dims of dim numbers */
    /* Or each chooses for its share of the attention's heads topk blocks of so many keys, by the
     * best key in each; the last local_blocks are among them. 0: not */
    int block_size, local_blocks;
};

struct attention_spec {
    int n_heads, n_kv_heads, head_dim;
    int v_dim; /* of values; 0: head_dim */
    bool qkv_bias, o_bias;
    struct norm_spec q_norm, k_norm;
    enum qk_norm_span qk_norm_span;
    bool qk_norm_after_rope;
    float clip_qkv; /* q, k and v are held within [-clip_qkv, clip_qkv]; 0: not */
    bool qkv_apart; /* a fused matrix holds all of q, then k, then v, whatever its rule says */
    bool clip_last; /* after the norms of q and k, which then come before the rope */
    struct rope_spec rope;
    float scale;   /* of q k^T */
    float softcap; /* 0: none */
    int window;    /* 0: all that came before */
    bool sinks;    /* a learned logit per head joins the denominator */
    struct temperature_spec temperature;
    int chunk; /* sees only the tokens of its own chunk of so many positions; 0: all */
    const float
        *slopes; /* [n_heads] scores fall by this with each position of distance; NULL: not */
    bool tiled;  /* head h reads kv head h % n_kv_heads, not h / (n_heads / n_kv_heads) */
    enum attention_gate gate;
    enum activation gate_activation;
    bool gate_bias;
    bool head_gain; /* each head's queries, normed and turned, are multiplied by a weight */
    struct norm_spec v_norm;   /* of each head's values, without weights */
    struct norm_spec out_norm; /* of each head's result, before the gate, without weights */
    float v_scale;             /* of values; 0 counts as 1 */
    bool values_are_keys;      /* there is no v_proj: values are the keys as projected */
    enum kv_source kv_source;
    int kv_conv; /* keys and values as projected pass convolutions of so many tokens, with a filter
                  * for each kv head; 0: not */
    struct norm_spec o_norm; /* of all heads' results at once, before o_proj */
    int cache_of; /* reads the cache of layer cache_of - 1 and writes none; 0: has its own */
    struct block_pattern blocks;
    struct index_spec index;
    bool rounded_kv; /* keys and values are rounded to 256 multiples of a weight each */
    /* The result is g y' + (1 - g) y, where y' is what the same queries find in the whole cache of
     * layer mixed_with - 1, and g = sigmoid(w_h q_h + b_h); 0: it is y. */
    int mixed_with;
    bool mix_gate; /* it has the weights of g, for itself or for layers that are same_as it */
};

/* Attention to latent vectors, of which each head makes its own keys and values. Keys are split:
 * part of them comes from the latent, part is rotary and shared by all heads. arXiv:2405.04434 */
struct mla_spec {
    int n_heads;
    int q_rank; /* queries are made through so many numbers, normed; 0: straight */
    int kv_rank;
    int nope_dim, rope_dim, v_dim;
    bool a_bias, q_bias,
        o_bias; /* of the projections to ranks, of straight queries, of the output */
    struct norm_spec q_norm, kv_norm;
    float q_scale, kv_scale; /* of queries, and of the latent after its norm */
    struct rope_spec rope;   /* over rope_dim numbers */
    struct index_spec index;
    int index_of; /* layer + 1 before it whose choice of keys it sees too; 0: its own, if any */
    float scale;
    struct temperature_spec temperature;
    enum attention_gate gate; /* sigmoid(linear(x)) */
};

/* Attention to the last keys of a window and to pooled ones, each made of ratio tokens, in one
 * softmax. Keys serve as values too, and are turned back in what is found. Pooled keys are made by
 * some layers, of which heads made for it choose, and read by later ones. DeepSeek-V4.1 */
struct pooled_spec {
    int n_heads, head_dim;
    int q_rank;            /* queries are made through so many numbers, normed */
    int n_groups, o_rank;  /* the result is made of o_rank numbers of each of n_groups shares of the
                            * heads */
    struct norm_spec norm; /* of ranks, keys, pooled keys and keys of the index */
    struct rope_spec rope, back; /* over the last rope.dims numbers; the same backward */
    float scale;
    int window;
    int ratio;                  /* tokens of a pooled key; 0: none are seen */
    bool pools;                 /* makes pooled keys */
    bool chooses;               /* which are seen, here and in later layers that do not choose */
    int keys_of, index_of;      /* layers + 1 whose pooled keys are read, or scored in the index; 0:
                                 * none, and then none are seen */
    int index_heads, index_dim; /* of those that choose, as topk */
    int topk;
    int n_blocks,
        block_size;        /* it marks the best blocks of pooled keys for later choices; 0: not */
    bool takes_candidates; /* it chooses among what has been marked */
};

struct mlp_spec {
    int intermediate_size;
    enum activation activation;
    bool gated; /* down(act(gate(x)) * up(x)), else down(act(up(x))) */
    bool bias;
    float gate_scale; /* gated: of what act reads; 0 counts as 1 */
    float limit;      /* gated: act(gate) is held below it, up within [-limit, limit]; 0: not */
    bool limit_gate;  /* limit holds what act reads, not what it gives */
    float alpha; /* gated: (u + 1) g sigmoid(alpha g), g held below limit, u within it; 0: not */
    /* Gated: situ tanh(g / situ) sigmoid(g) stands for act(g), and situ_up tanh(u / situ_up) for u;
     * 0: not. */
    float situ, situ_up;
    bool thinned; /* gated: act reads max(0, g - (mean + thinning deviation)) of its row g */
    float thinning;
    struct norm_spec inner_norm; /* of what down reads; not of experts */
    int shifted; /* hidden_size: reads x + mix (the token before's x - x), with weights mix; 0: x */
    bool xielu;  /* its activation is xIELU, with weights of its own; not gated. arXiv:2411.13010 */
};

struct moe_spec {
    struct router_params router; /* its bias is a weight: router_bias says whether there is one */
    bool router_bias;            /* added to scores for the choice alone */
    bool router_bias_optional;   /* some checkpoints have none */
    bool router_logit_bias;      /* a bias of the router's product itself */
    struct mlp_spec expert;      /* each of router.n_experts */
    struct mlp_spec shared;      /* one that every token goes to; intermediate_size 0: none */
    bool shared_gate;            /* its result is multiplied by sigmoid(w x) */
    bool shared_mix;     /* the experts' and its result are weighted by softmax(w x + b), [2] */
    bool scale_input;    /* experts get x times their weight, and are summed as they are */
    int n_zero_experts;  /* the last of router.n_experts: each gives x itself */
    float logit_softcap; /* of the router's logits; 0: none */
    /* Where experts have a norm of their own: they and the router, each by its norm, read what the
     * branch's norm reads; the shared one reads its result. Answers are normed before they are
     * added. */
    struct norm_spec router_norm, expert_norm, expert_post_norm, shared_post_norm;
    float router_scale;                /* of the router's logits; 0 counts as 1 */
    bool expert_scales;                /* weights are multiplied by one of each expert */
    struct norm_spec latent_norm;      /* of what is made of x */
    struct norm_spec latent_post_norm; /* of what the experts give, before it is made to x */
    struct norm_spec each_norm;        /* of each expert's answer */
    int latent_size; /* experts read and write so many numbers, made of x and made to it; 0: x */
    bool latent_bias;
};

/* A convolution between two gates: out(c * conv(b * x)), where in(x) gives b, c and x of so many
 * channels. LFM2, arXiv:2511.23404 */
struct short_conv_spec {
    int channels, width;
    bool bias; /* of in, out and the convolution */
};

/* A gate of convolutions: out(sigmoid(q * conv(k)) * conv(v)), with queries, keys and values as
 * attention has them. Gear */
struct conv_mixer_spec {
    int n_heads, n_kv_heads, head_dim;
    int width;
    bool bias;                       /* of all projections and both convolutions */
    struct norm_spec q_norm, k_norm; /* of each head, before the convolution */
};

/* A state space of scalar decays: what in(x) gives are a gate z, the parts x, B and C, which pass a
 * convolution, and a time step of each head. Mamba-2, arXiv:2405.21060 */
struct mamba2_spec {
    int n_heads, head_dim, state_size;
    int n_groups; /* of heads that share B and C */
    int conv_width;
    enum activation conv_activation;
    bool conv_bias, in_bias, out_bias;
    int dt_rank; /* B, C and the time step are made of the convolved x, the latter through so many
                  * numbers, each with a norm of its own; 0: not. PLaMo 2 */
    struct norm_spec bcdt_norm;
    float dt_low, dt_high;            /* time steps are held within */
    float z_scale, x_scale;           /* of the parts before the convolution; 0 counts as 1 */
    float b_scale, c_scale, dt_scale; /* the same */
    struct norm_spec norm;            /* of the result, with weights for each of its numbers */
    int norm_groups;                  /* each normed by itself */
    bool norm_before_gate;            /* norm(y) silu(z), else norm(y silu(z)) */
};

/* A memory C of keys and values whose gates are exponential, read by queries and divided by what it
 * has of them: y = C q / max(|n q|, 1). mLSTM, arXiv:2405.04517 */
struct mlstm_spec {
    int n_heads, key_dim, value_dim;
    float gate_softcap;    /* of both gates before they act; 0: none */
    float eps;             /* added to the divisor */
    bool bias;             /* of all projections; those of the two gates always have one */
    struct norm_spec norm; /* of the result of each head, with weights for each of its numbers */
};

/* A state space with decays for each channel. in(x) gives x and a gate z; B, C and the time step
 * are made of the convolved x, the latter through dt_rank numbers. Mamba, arXiv:2312.00752 */
struct mamba_spec {
    int channels, state_size; /* of x; of each channel */
    int dt_rank;
    int conv_width;
    enum activation conv_activation;
    bool conv_bias, bias;       /* bias: of in and out */
    struct norm_spec bcdt_norm; /* of B, C and what makes the time step, each for itself */
};

/* The delta rule: what a state finds for a key is corrected towards its value. Queries, keys and
 * values pass a convolution of their own; queries and keys have length 1. Gated delta net,
 * arXiv:2412.06464; Kimi delta attention, 2510.26692 */
struct delta_spec {
    int n_heads;     /* of values */
    int n_key_heads; /* of queries and keys, each serving n_heads / n_key_heads of values */
    int key_dim, value_dim;
    int conv_width;
    enum activation conv_activation;
    bool convs_apart;          /* their states are arrays of their own in mlx-lm's cache files */
    bool keywise;              /* each number of a key decays by itself, else a head as a whole */
    int decay_rank, gate_rank; /* made through so many numbers; 0: straight */
    /* What remains is exp(bound sigmoid(exp(A_log) (a + dt_bias))) where the bound is below 0, else
     * exp(-exp(A_log) softplus(a + dt_bias)). */
    float decay_bound;
    float beta_scale;                /* of sigmoid(b), the share of a correction */
    struct norm_spec norm;           /* of what each head finds */
    enum activation gate_activation; /* of what multiplies it */
};

/* Linear attention whose heads forget by fixed factors: S = decay S + k (x) v, y = S^T q. The
 * result is normed and gated by sigmoid(gate(x)). Lightning attention, arXiv:2405.17381 */
struct lightning_spec {
    int n_heads, head_dim;
    bool qkv_bias, o_bias;
    bool activated; /* queries, keys and values, by activation */
    enum activation activation;
    struct norm_spec q_norm, k_norm; /* of each head */
    struct rope_spec rope;
    float scale;           /* of queries */
    const float *decays;   /* [n_heads] */
    struct norm_spec norm; /* of the result, with weights for each of its numbers */
    int norm_groups;       /* each normed by itself */
};

/* out(act(y(x)) * lru(conv(x'))), x' of so many channels, where the gates of the recurrent unit are
 * products of each head's channels alone. Griffin, arXiv:2402.19427 */
struct rg_lru_spec {
    int channels, n_heads;
    int conv_width;
    enum activation activation;
};

/* Time mixing of RWKV-7, arXiv:2503.14456. The ranks are of what makes the decay, the rate in
 * context, the share of the first layer's values (0: this is the first), and the gate. */
struct rwkv7_spec {
    int n_heads, head_dim;
    int decay_rank, rate_rank, value_rank, gate_rank;
    struct norm_spec norm; /* of what each head finds, with weights of its own */
};

enum op_kind {
    OP_NONE, /* the input as it is */
    OP_ATTENTION,
    OP_MLA,
    OP_POOLED,
    OP_SHORT_CONV,
    OP_CONV_MIXER,
    OP_MLSTM,
    OP_MAMBA,
    OP_MAMBA2,
    OP_DELTA,
    OP_LIGHTNING,
    OP_RG_LRU,
    OP_RWKV7,
    OP_MLP,
    OP_MOE,
    OP_LAYER_INPUT,   /* out(gelu(gate(x)) * the layer's own input, made of the tokens) */
    OP_LINEAR,        /* [hidden_size, hidden_size] */
    OP_EMBEDDING,     /* the embeddings with which the first layer began */
    OP_LOW_RANK,      /* up(down(x)) through rank numbers */
    OP_ALTUP_PREDICT, /* the active one of the streams, all of them predicted from each other */
    OP_ALTUP_CORRECT, /* the same, all of them corrected by what x adds to the prediction */
    OP_ALTUP_ADD,     /* x, after adding it to all streams but the first */
    OP_HYPER_READ,    /* a mixture of the streams */
    OP_HYPER_WRITE    /* x, after the streams have become mixtures of them and it */
};

struct branch_spec {
    struct norm_spec pre_norm, post_norm;
    enum op_kind op;
    float scale;
    float in_scale;  /* of what the op reads; 0 counts as 1 */
    bool parallel;   /* reads what the branch before it read, not its result */
    bool late;       /* its result is added at the end of the layer */
    bool mixes;      /* reads a mixture of x and what has been kept of it, by weights of its own */
    bool keeps;      /* x is kept, as it is before */
    bool final_norm; /* pre_norm is that of the model's end */
    bool replace;    /* x = scale * post_norm(op(pre_norm(x))), without the old x; not parallel */
    bool gain;       /* the result is multiplied by a weight, one number */
    /* x = a x + b y of the result y, with weights a and b of each number: where checkpoints have a
     * gate g instead, b = sigmoid(g / t), a = sqrt(max(sigmoid(-g / t) (1 + b), 0.001)) with the
     * temperature t. 0: x += y. Not parallel. */
    float gate_temperature;
    bool
        shared_norm; /* parallel, and normed as the branch before it was: pre_norm is not its own */
    union {
        struct attention_spec attention;
        struct mla_spec mla;
        struct pooled_spec pooled;
        struct short_conv_spec short_conv;
        struct conv_mixer_spec conv_mixer;
        struct mlstm_spec mlstm;
        struct mamba_spec mamba;
        struct mamba2_spec mamba2;
        struct delta_spec delta;
        struct lightning_spec lightning;
        struct rg_lru_spec rg_lru;
        struct rwkv7_spec rwkv7;
        struct mlp_spec mlp;
        struct moe_spec moe;
        int rank;         /* of OP_LOW_RANK */
        bool linear_bias; /* of OP_LINEAR */
    };
};

#define LAYER_MAX_BRANCHES 10

struct layer_spec {
    int n_branches;
    struct branch_spec branches[LAYER_MAX_BRANCHES];
    int same_as; /* its weights are those of layer same_as - 1, branch by branch; 0: has its own */
    bool left_out; /* computes nothing, whatever the checkpoint holds of it */
};

/* The state is several streams, of which layers compute one. arXiv:2301.13310 */
struct altup_spec {
    int n;            /* 0: the state is one stream */
    int active;       /* the one that is computed */
    float coef_limit; /* coefficients' weights are held within [-coef_limit, coef_limit]; 0: not */
    bool correct_scale; /* what OP_ALTUP_CORRECT gives is multiplied by weights */
    struct norm_spec router_norm;
};

/* The state is several streams, which layers read and write by mixtures that they make of them.
 * arXiv:2409.19606, 2512.24880 */
struct hyper_spec {
    int n;            /* 0: the state is one stream */
    int n_iterations; /* of making the mixture of streams doubly stochastic */
    float eps;
    struct norm_spec norm; /* of all streams of a token at once, without weights */
};

/* Embeddings also of the token with those before it: of every number of them up to n - 1, k tables,
 * indexed by the tokens as the digits of a number, modulo the table's length. */
struct ngram_spec {
    int n, k; /* n 0: there are none */
    int size; /* table i of (n - 1) k, those of pairs first, has size + 2 i + 1 rows */
    int dim;  /* of dim numbers, each with a projection to hidden_size */
};

struct spec {
    const char *model_type;
    int vocab_size, hidden_size, n_layers;
    bool more_layers; /* checkpoints may hold layers beyond, that guess further tokens: left out */
    int context_length; /* positions the model was made for; 0: the config does not say */
    struct layer_spec *layers;
    struct norm_spec final_norm;
    bool tie_word_embeddings;
    bool tie_by_file; /* tied unless the checkpoint has a head, whatever tie_word_embeddings is */
    bool lm_head_bias;
    bool head_normed;      /* the columns of the head are divided by their lengths */
    bool head_rows_normed; /* the rows of the head, if not quantised, are divided by theirs */
    bool logit_gain;       /* logits are multiplied by a weight, one number */
    int embed_rows;        /* the checkpoint's embedding may have so many, of which the first
                            * vocab_size serve; 0: it has as many as the vocabulary */
    int embed_size;      /* numbers of embeddings, which a projection makes x of, and that the head
                          * reads, made of x by another; 0: hidden_size */
    float embed_scale;   /* multiplies embeddings */
    float logit_scale;   /* multiplies logits, before the soft-cap */
    float logit_softcap; /* 0: none */
    const int *never;    /* [n_never] tokens whose logits are -infinity */
    int n_never;
    int second_layers;     /* the layer that names of a second list of layers count from */
    int n_positions;       /* learned positions: rows of their table; 0: none */
    int layer_input_size;  /* numbers of each layer's own input; 0: none */
    int layer_input_vocab; /* rows of their table; further tokens count as token 0 */
    struct norm_spec layer_input_norm;
    enum activation layer_input_activation; /* of what multiplies it */
    struct altup_spec altup;
    struct hyper_spec hyper;
    int n_kept;                     /* branches that keep x; the head reads a mixture then */
    struct norm_spec residual_norm; /* of what is weighed for mixtures */
    struct ngram_spec ngram;
    int position_offset; /* position p has row p + position_offset */
    struct norm_spec embed_norm;
};

/* Append a branch; a layer holds at most LAYER_MAX_BRANCHES. Returns it, for what differs from the
 * usual. */
struct branch_spec *layer_add(struct layer_spec *l, struct branch_spec b);

/* Branches in their usual form: norm before, scale 1, no norm after. */
struct branch_spec branch_attention(struct norm_spec pre_norm, struct attention_spec attention);
struct branch_spec branch_mla(struct norm_spec pre_norm, struct mla_spec mla);
struct branch_spec branch_pooled(struct norm_spec pre_norm, struct pooled_spec pooled);
struct branch_spec branch_short_conv(struct norm_spec pre_norm, struct short_conv_spec short_conv);
struct branch_spec branch_conv_mixer(struct norm_spec pre_norm, struct conv_mixer_spec conv_mixer);
struct branch_spec branch_mlstm(struct norm_spec pre_norm, struct mlstm_spec mlstm);
struct branch_spec branch_mamba(struct norm_spec pre_norm, struct mamba_spec mamba);
struct branch_spec branch_mamba2(struct norm_spec pre_norm, struct mamba2_spec mamba2);
struct branch_spec branch_delta(struct norm_spec pre_norm, struct delta_spec delta);
struct branch_spec branch_lightning(struct norm_spec pre_norm, struct lightning_spec lightning);
struct branch_spec branch_rg_lru(struct norm_spec pre_norm, struct rg_lru_spec rg_lru);
struct branch_spec branch_rwkv7(struct norm_spec pre_norm, struct rwkv7_spec rwkv7);
struct branch_spec branch_mlp(struct norm_spec pre_norm, struct mlp_spec mlp);
struct branch_spec branch_of(enum op_kind op, struct norm_spec pre_norm); /* that need no numbers */
struct branch_spec branch_moe(struct norm_spec pre_norm, struct moe_spec moe);

/* Channels of its convolution: x, and B and C where they are not made of it. */
int mamba2_channels(const struct mamba2_spec *m);

/* Bytes of what a recurrent mixer remembers of a sequence, whatever its length; 0 for all else.
 * SIZE_MAX where that is no size. */
size_t branch_state_bytes(const struct branch_spec *b);

/* -1 with *err unless every number is in range and fits the others (heads divide, dims are even,
 * ...); config is the path of the file that they come from. */
int spec_check(const struct spec *s, const char *config, clm_error *err);

#endif
