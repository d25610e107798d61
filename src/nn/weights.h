/* nn/weights.h: the weights of a model in the shape of its spec, and the list of all their places.
 *
 * The list (nn_slots) is what loading, random weights, inspection and checks walk: a block says
 * once, in nn_*_slots, which weights it has and of what size.
 */
#ifndef NN_WEIGHTS_H
#define NN_WEIGHTS_H

#include "base/arena.h"
#include "nn/spec.h"

#define NN_MAX_PARTS 2 /* devices that a model can be spread over */

/* What an adapter adds to a product: y = gain W x' + b (a x') + bias, x' = in_gain x; what there is
 * of the product's own bias comes after the gain. Of experts all are [n_experts, ...]. Of an
 * embedding a is a table [vocabulary, rank], whose rows are looked up with those of W, gain is of
 * these rows and in_gain of the columns, neither of them in b. */
struct nn_lora {
    struct weight *a, *b; /* [rank, n_in], [n_out, rank] f32 */
    const float *gain;    /* [n_out] in device memory, or NULL */
    const float *in_gain; /* [n_in] likewise; of linears always NULL */
    const float *bias;    /* [n_out] likewise; never with a gain */
};

/* Inputs are multiplied by signs, and blocks of them turned by a Hadamard matrix, before w. Where w
 * is a table of rows, its rows are turned back. */
struct nn_rotation {
    const float *signs; /* [n_in] in device memory; NULL: inputs are as they are */
    int block;
};

struct nn_linear {
    struct weight w;
    const float *bias;    /* [n_out] in device memory, or NULL */
    const int32_t *order; /* [n_in] in device memory: w holds input order[i] at i; NULL: at i */
    const struct nn_lora *lora; /* or NULL */
    struct nn_rotation rotation;
};

struct nn_norm {
    const struct norm_spec *spec;
    const float *w, *b; /* in device memory */
};

struct nn_experts {
    struct weight *w;           /* [n_experts], alike in all but their pointers */
    const float *bias;          /* [n_experts, n_out] or NULL */
    const struct nn_lora *lora; /* or NULL */
};

struct nn_index {
    const struct index_spec *spec;
    int cache_layer, rope;    /* as in nn_attention */
    struct nn_linear q, k;    /* [n_heads dim, ...], [dim, hidden_size] */
    struct nn_linear weights; /* [n_heads, hidden_size], where scores are summed */
    struct nn_norm q_norm, k_norm;
};

struct nn_conv {
    const float *w, *bias; /* [channels, width], [channels] or NULL, in device memory */
};

struct nn_attention {
    const struct attention_spec *spec;
    bool is_share;   /* its heads are a share of the layer's: results are summed over the devices */
    int cache_layer; /* which layer of the cache is this one's */
    int rope;        /* which of the model's tables; -1: none */
    struct nn_linear q_proj, k_proj, v_proj, o_proj;
    struct nn_norm q_norm, k_norm;
    const float *sinks; /* [n_heads] in device memory, or NULL */
    struct nn_linear gate;
    const float *head_gain; /* [n_heads] */
    struct nn_norm v_norm, out_norm, o_norm;
    const float *k_step, *v_step; /* what keys and values are rounded to multiples of, or NULL */
    struct nn_conv k_conv, v_conv;
    int mixed_cache_layer;
    struct nn_experts mix_gate; /* of each head [1, head_dim] */
    struct nn_index index;
};

struct nn_mla {
    const struct mla_spec *spec;
    bool is_share;                     /* as in nn_attention */
    int cache_layer, rope;             /* as in nn_attention */
    struct nn_linear q_a_proj, q_proj; /* with q_rank: q_proj follows q_a_proj and its norm */
    struct nn_linear kv_a_proj;        /* to the latent, then the rotary part */
    struct nn_norm q_norm, kv_norm;
    struct nn_experts
        embed_q; /* of each head [kv_rank, nope_dim]: what its query looks for in latents */
    struct nn_experts unembed; /* of each head [v_dim, kv_rank]: its values from latents */
    struct nn_linear o_proj, gate;
    struct nn_index index;
};

struct nn_pooled {
    const struct pooled_spec *spec;
    int cache_layer;               /* of the window; those that are made here follow it */
    int pooled_layer, index_layer; /* of the pooled keys and those of the index that are read */
    int rope, back;                /* as in nn_attention */
    struct nn_linear q_a_proj, q_proj, kv_proj, o_proj;
    struct nn_norm q_norm, kv_norm;
    const float *sinks;                  /* [n_heads] */
    struct nn_experts group_proj;        /* of each group [o_rank, n_heads head_dim / n_groups] */
    struct nn_linear pool_kv, pool_gate; /* [head_dim, hidden_size] */
    struct nn_norm pool_norm;
    struct nn_linear index_q, index_weights, index_k; /* index_k of pooled keys */
    struct nn_norm index_norm;
};

struct nn_short_conv {
    const struct short_conv_spec *spec;
    struct nn_linear in_proj, out_proj;
    struct nn_conv conv;
};

struct nn_conv_mixer {
    const struct conv_mixer_spec *spec;
    struct nn_linear q_proj, k_proj, v_proj, o_proj;
    struct nn_norm q_norm, k_norm;
    struct nn_conv k_conv, v_conv;
};

struct nn_mlstm {
    const struct mlstm_spec *spec;
    struct nn_linear q_proj, k_proj, v_proj, out_gate; /* of x; out_gate multiplies the result */
    struct nn_linear in_gate, forget_gate;             /* [n_heads, hidden_size] */
    struct nn_norm norm;
    struct nn_linear o_proj;
};

struct nn_mamba {
    const struct mamba_spec *spec;
    struct nn_linear x, z; /* in_proj */
    struct nn_linear bcdt; /* x_proj: what dt reads, B and C */
    struct nn_norm b_norm, c_norm, dt_norm;
    struct nn_linear dt; /* its bias included */
    struct nn_conv conv;
    const float *a, *d; /* -exp(A_log) [channels, state_size], D [channels], in device memory */
    struct nn_linear out_proj;
};

struct nn_mamba2 {
    const struct mamba2_spec *spec;
    struct nn_linear z, x, dt; /* in_proj: the gate; x, B and C; the time step */
    struct nn_linear bcdt;     /* with dt_rank: B, C and what dt reads, of the convolved x */
    struct nn_norm b_norm, c_norm, dt_norm;
    struct nn_conv conv;
    const float *a, *d, *dt_bias; /* -exp(A_log), D, each [n_heads] in device memory */
    struct nn_norm norm;
    struct nn_linear out_proj;
};

struct nn_low_rank {
    struct nn_linear down, up; /* [rank, hidden_size] and back */
};

struct nn_delta {
    const struct delta_spec *spec;
    bool is_share; /* as in nn_attention */
    struct nn_linear q_proj, k_proj, v_proj, beta, o_proj;
    struct nn_low_rank gate, decay; /* without a rank: up alone */
    struct nn_conv conv_q, conv_k, conv_v;
    const float *a, *dt_bias; /* -exp(A_log) [n_heads]; [n_heads or n_heads * key_dim] */
    struct nn_norm norm;
};

struct nn_lightning {
    const struct lightning_spec *spec;
    int rope; /* as in nn_attention */
    struct nn_linear q_proj, k_proj, v_proj, o_proj, gate;
    struct nn_norm q_norm, k_norm, norm;
};

struct nn_rg_lru {
    const struct rg_lru_spec *spec;
    struct nn_linear y_proj, x_proj, out_proj;
    struct nn_conv conv;
    struct nn_experts input_gate, decay_gate; /* of each head [size, size] */
    const float *decay;                       /* [channels] softplus of what is stored */
};

struct nn_rwkv7 {
    const struct rwkv7_spec *spec;
    const float
        *mix[6]; /* [hidden_size] of what makes queries, decays, keys, values, rates, gate */
    struct nn_linear r_proj, k_proj, v_proj, o_proj;
    struct nn_low_rank decay, rate, value, gate;
    const float *key_scale, *key_rate, *bonus; /* [hidden_size] k_k, k_a, r_k */
    struct nn_norm norm;                       /* [n_heads, head_dim] */
};

struct nn_mlp {
    const struct mlp_spec *spec;
    bool is_share; /* its numbers are a share of the block's: as in nn_attention */
    struct nn_linear gate_proj, up_proj, down_proj;
    struct nn_norm inner_norm;
    const float *mix;      /* [hidden_size], of shifted ones */
    const float *xielu[4]; /* a number each: alpha_p, alpha_n, beta, eps */
};

struct nn_moe {
    const struct moe_spec *spec;
    bool is_share; /* of every expert's numbers, as in nn_mlp */
    struct nn_linear router;
    const float *router_bias; /* [n_experts] in device memory, or NULL */
    struct nn_experts gate_proj, up_proj, down_proj;
    struct nn_mlp shared;
    struct nn_linear shared_gate; /* [1, hidden_size] */
    struct nn_norm latent_norm, latent_post_norm, each_norm, router_norm, expert_norm,
        expert_post_norm, shared_post_norm;
    const float *expert_scales;  /* [n_experts] or NULL */
    struct nn_linear shared_mix; /* [2, hidden_size] */
    struct nn_linear latent_in, latent_out;
};

struct nn_layer_input {
    struct nn_linear gate, out; /* [size, hidden_size] and back */
    int layer;
};

/* Of OP_ALTUP_PREDICT the norm, the router and coefs, of OP_ALTUP_CORRECT coefs and scale. */
struct nn_altup {
    struct nn_norm norm;
    struct nn_linear router;         /* [n, hidden_size] */
    const float *coefs;              /* [n n, n], [n, n] */
    const float *scale;              /* [hidden_size] */
    const struct nn_altup *predicts; /* that of the layer, whose router serves both */
};

/* Of OP_HYPER_READ: for each token n numbers to read by next, n to write by, n n to mix by. */
struct nn_hyper {
    struct nn_linear fn;       /* [(2 + n) n, n hidden_size] */
    const float *base, *scale; /* [(2 + n) n], [3] */
    struct nn_norm norm;
};

/* What a mixture weighs its parts by. */
struct nn_residual {
    struct nn_linear proj; /* [1, hidden_size] */
    struct nn_norm norm;
};

struct nn_branch {
    const struct branch_spec *spec;
    struct nn_residual residual; /* of those that mix */
    struct nn_norm pre_norm, post_norm;
    const float *gain;                           /* one number, or NULL */
    const float *old_gate, *new_gate, *raw_gate; /* [hidden_size]: a, b, or what they are made of */
    size_t state; /* where the state of a recurrent mixer lies in that of the model */
    union {
        struct nn_attention attention;
        struct nn_mla mla;
        struct nn_pooled pooled;
        struct nn_short_conv short_conv;
        struct nn_conv_mixer conv_mixer;
        struct nn_mlstm mlstm;
        struct nn_mamba mamba;
        struct nn_mamba2 mamba2;
        struct nn_delta delta;
        struct nn_lightning lightning;
        struct nn_rg_lru rg_lru;
        struct nn_rwkv7 rwkv7;
        struct nn_mlp mlp;
        struct nn_moe moe;
        struct nn_linear linear;
        struct nn_layer_input layer_input;
        struct nn_low_rank low_rank;
        struct nn_altup altup;
        struct nn_hyper hyper;
    };
};

/* Does a branch keep anything of its rows for later ones? */
bool nn_remembers(const struct branch_spec *b);

struct nn_layer {
    int first_cache; /* its layers of the cache are numbered from here on */
    size_t state;    /* where its part of the state begins in that of the model */
    int n_branches;
    struct nn_branch branches[LAYER_MAX_BRANCHES];
};

/* One kind of rotary table, shared by all layers whose spec says the same. */
struct nn_rope {
    struct rope_spec spec;
    /* By part, device memory; NULL for ROPE_DYNAMIC, which differs by sequence */
    const float *inv_freq[NN_MAX_PARTS];
    float mscale;
};

/* Layers [first, end) and all that is theirs, on one device. What comes before the layers is the
 * first part's, what comes after them the last one's. All parts but the last are on devices whose
 * memory is the host's. */
struct nn_part {
    device *dev;
    int first, end;
    int first_cache;           /* their layers of the cache begin here, */
    size_t state, state_bytes; /* and here their state in that of the model, so many bytes */
};

struct nn_model {
    const struct spec *spec;
    int share;       /* number of the device of several that compute the model together */
    int first_logit; /* the head gives those from this one on, as many as it has rows */
    struct nn_part parts[NN_MAX_PARTS];
    int n_parts;
    struct nn_linear embed_tokens, lm_head;   /* tied: lm_head is a copy of embed_tokens */
    struct nn_linear layer_table, layer_proj; /* [vocabulary, layers * size], [.., hidden_size] */
    struct nn_norm layer_norm;                /* [size] */
    const struct nn_lora *tied_lora;          /* of the head where it is tied; or NULL */
    struct nn_linear positions;               /* learned positions */
    struct nn_linear embed_proj, head_proj;   /* with spec->embed_size */
    struct nn_norm embed_norm, final_norm;
    struct nn_residual residual;                 /* of what the head reads, with spec->n_kept */
    struct nn_experts ngram_tables, ngram_projs; /* [(ngram.n - 1) ngram.k] */
    struct nn_experts altup_in, altup_out;       /* [altup.n - 1] of [hidden_size, hidden_size] */
    const float *head_bias;                      /* [vocab_size] of a tied head, or NULL */
    const float *logit_gain;                     /* one number, or NULL */
    const float *head_scale;                     /* [hidden_size]: x is multiplied by it; or NULL */
    struct nn_layer *layers;
    struct nn_rope *ropes;
    int n_ropes;
    int n_cache_layers;
    /* The last branch that remembers anything of its rows, or the first of those parallel to it:
     * what comes behind is computed of the rows alone that somebody asks for. last_layer is -1
     * where nothing is remembered. */
    int last_layer, last_branch;
    size_t state_bytes; /* what recurrent mixers remember of a sequence */
};

/* The places of weights within a branch. The order within a block is that of checkpoints' lists. */
enum weight_role {
    ROLE_EMBED_TOKENS,
    ROLE_POSITIONS,
    ROLE_EMBED_NORM,
    ROLE_LM_HEAD,
    ROLE_HEAD_BIAS, /* of a tied head */
    ROLE_EMBED_PROJ,
    ROLE_HEAD_PROJ,
    ROLE_FINAL_NORM,
    ROLE_PRE_NORM,
    ROLE_POST_NORM,
    ROLE_Q_PROJ,
    ROLE_K_PROJ,
    ROLE_V_PROJ,
    ROLE_O_PROJ,
    ROLE_Q_NORM,
    ROLE_K_NORM,
    ROLE_SINKS,
    ROLE_O_NORM,
    ROLE_INNER_NORM,
    ROLE_ATTENTION_GATE,
    ROLE_HEAD_GAIN,
    ROLE_K_STEP,
    ROLE_V_STEP,
    ROLE_MIX_GATE,
    ROLE_GAIN,
    ROLE_OLD_GATE,
    ROLE_NEW_GATE,
    ROLE_RAW_GATE,
    ROLE_LATENT_NORM,
    ROLE_EACH_NORM,
    ROLE_LAYER_TABLE,
    ROLE_LAYER_PROJ,
    ROLE_LAYER_NORM,
    ROLE_LAYER_GATE,
    ROLE_LAYER_OUT,
    ROLE_NGRAM_TABLES,
    ROLE_NGRAM_PROJS,
    ROLE_ALTUP_IN,
    ROLE_ALTUP_OUT,
    ROLE_ALTUP_NORM,
    ROLE_ALTUP_ROUTER,
    ROLE_ALTUP_PREDICT,
    ROLE_ALTUP_CORRECT,
    ROLE_ALTUP_SCALE,
    ROLE_LOW_RANK_DOWN,
    ROLE_LOW_RANK_UP,
    ROLE_ROUTER_NORM,
    ROLE_EXPERT_NORM,
    ROLE_EXPERT_POST_NORM,
    ROLE_SHARED_POST_NORM,
    ROLE_EXPERT_SCALES,
    ROLE_LOGIT_GAIN,
    ROLE_LINEAR,
    ROLE_XIELU_ALPHA_P,
    ROLE_XIELU_ALPHA_N,
    ROLE_XIELU_BETA,
    ROLE_XIELU_EPS,
    ROLE_MLA_Q_A,
    ROLE_MLA_Q,
    ROLE_MLA_KV_A,
    ROLE_MLA_O,
    ROLE_MLA_Q_NORM,
    ROLE_MLA_KV_NORM,
    ROLE_MLA_EMBED_Q,
    ROLE_MLA_UNEMBED,
    ROLE_GROUP_PROJ,
    ROLE_POOL_KV,
    ROLE_POOL_GATE,
    ROLE_POOL_NORM,
    ROLE_POOL_INDEX_K,
    ROLE_HYPER_FN,
    ROLE_HYPER_BASE,
    ROLE_HYPER_SCALE,
    ROLE_INDEX_Q,
    ROLE_INDEX_K,
    ROLE_INDEX_WEIGHTS,
    ROLE_INDEX_K_NORM,
    ROLE_INDEX_Q_NORM,
    ROLE_CONV,
    ROLE_K_CONV,
    ROLE_V_CONV,
    ROLE_SHORT_CONV_IN,
    ROLE_SHORT_CONV_OUT,
    ROLE_MLSTM_Q,
    ROLE_MLSTM_K,
    ROLE_MLSTM_V,
    ROLE_MLSTM_OUT_GATE,
    ROLE_MLSTM_IN_GATE,
    ROLE_MLSTM_FORGET_GATE,
    ROLE_MLSTM_NORM,
    ROLE_MLSTM_OUT,
    ROLE_SSM_Z,
    ROLE_SSM_X,
    ROLE_SSM_DT,
    ROLE_SSM_BCDT,
    ROLE_SSM_A,
    ROLE_SSM_D,
    ROLE_SSM_DT_BIAS,
    ROLE_SSM_B_NORM,
    ROLE_SSM_C_NORM,
    ROLE_SSM_DT_NORM,
    ROLE_SSM_NORM,
    ROLE_SSM_OUT,
    ROLE_DELTA_Q,
    ROLE_DELTA_K,
    ROLE_DELTA_V,
    ROLE_DELTA_GATE,
    ROLE_DELTA_BETA,
    ROLE_DELTA_DECAY,
    ROLE_DELTA_O,
    ROLE_DELTA_GATE_DOWN,
    ROLE_DELTA_DECAY_DOWN,
    ROLE_DELTA_CONV_Q,
    ROLE_DELTA_CONV_K,
    ROLE_DELTA_CONV_V,
    ROLE_DELTA_A,
    ROLE_DELTA_DT_BIAS,
    ROLE_DELTA_NORM,
    ROLE_LIGHTNING_NORM,
    ROLE_RG_LRU_Y,
    ROLE_RG_LRU_X,
    ROLE_RG_LRU_OUT,
    ROLE_RG_LRU_INPUT_GATE,
    ROLE_RG_LRU_DECAY_GATE,
    ROLE_RG_LRU_DECAY,
    ROLE_RWKV_MIX_R,
    ROLE_RWKV_MIX_W,
    ROLE_RWKV_MIX_K,
    ROLE_RWKV_MIX_V,
    ROLE_RWKV_MIX_A,
    ROLE_RWKV_MIX_G,
    ROLE_RWKV_R,
    ROLE_RWKV_K,
    ROLE_RWKV_V,
    ROLE_RWKV_O,
    ROLE_RWKV_DECAY_DOWN,
    ROLE_RWKV_RATE_DOWN,
    ROLE_RWKV_VALUE_DOWN,
    ROLE_RWKV_GATE_DOWN,
    ROLE_RWKV_DECAY,
    ROLE_RWKV_RATE,
    ROLE_RWKV_VALUE,
    ROLE_RWKV_GATE,
    ROLE_RWKV_KEY_SCALE,
    ROLE_RWKV_KEY_RATE,
    ROLE_RWKV_BONUS,
    ROLE_RWKV_NORM,
    ROLE_MLP_MIX,
    ROLE_RESIDUAL_PROJ,
    ROLE_RESIDUAL_NORM,
    ROLE_LATENT_POST_NORM,
    ROLE_GATE_PROJ,
    ROLE_UP_PROJ,
    ROLE_DOWN_PROJ,
    ROLE_ROUTER,
    ROLE_ROUTER_BIAS,
    ROLE_EXPERT_GATE,
    ROLE_EXPERT_UP,
    ROLE_EXPERT_DOWN,
    ROLE_LATENT_IN,
    ROLE_LATENT_OUT,
    ROLE_SHARED_GATE,
    ROLE_SHARED_UP,
    ROLE_SHARED_DOWN,
    ROLE_SHARED_EXPERT_GATE,
    ROLE_SHARED_MIX,
    ROLE_COUNT
};

const char *weight_role_name(enum weight_role role); /* "q_proj", ... */
bool weight_role_is_table(enum weight_role role);    /* its rows are looked up, not multiplied */

/* What a vector of the model is to the numbers x of the file. */
enum vector_form {
    VECTOR_AS_STORED,
    VECTOR_MINUS_EXP, /* -exp(x) */
    VECTOR_SOFTPLUS,  /* log(1 + exp(x)) */
};

/* One place. A matrix has n_in > 0 and goes to weight[0 .. max(1, n_experts)); a vector has n_in 0
 * and goes to *vector as f32 with offset added. bias is where its bias must go; NULL: it has none.
 */
struct nn_slot {
    int layer, branch; /* -1, -1 outside of layers */
    enum weight_role role;
    int n_out, n_in, n_experts;
    int growth; /* expert e has n_out + e growth rows */
    struct weight *weight;
    const float **vector;
    const float **bias;
    struct nn_rotation *rotation; /* where that of its inputs may go; NULL: there can be none */
    const int32_t **order; /* where the order of its inputs may go; NULL: they must be in order */
    int run, copies; /* each run of so many numbers of a vector stands so many times; 0: once */
    int n_bias;      /* numbers of the bias; 0: n_out */
    const struct nn_lora **lora; /* where what an adapter adds may go; NULL: nothing can */
    float offset;
    enum vector_form form;
    float limit;   /* a vector is held within [-limit, limit]; 0: not */
    bool optional; /* a vector that may stay NULL */
};

typedef int (*nn_slot_fn)(void *ctx, const struct nn_slot *slot);

/* Do only rows meet these weights whose logits are asked for? False of some of mixers that keep
 * states. */
bool nn_meets_asked(const struct nn_model *m, const struct nn_slot *s);

/* Call fn for every place of the model; stops at the first that is not 0 and returns it. */
int nn_slots(struct nn_model *m, nn_slot_fn fn, void *ctx);

/* The structure without weights: layers, expert arrays, cache numbering. The spec must have passed
 * spec_check and outlive the result. NULL with *err. */
struct nn_model *nn_model_new(const struct spec *spec, arena *a, clm_error *err);

/* Can the layers before cut be on another device than those from it on? Not where one of these
 * reads the keys or has the weights of one before, or one before uses the norm of the head. */
bool nn_model_can_cut(const struct nn_model *m, int cut);

/* Where the layers will be, before there are weights: those from cut on, and what comes after all
 * layers, on d, the others on rest. All are on d with cut 0. -1 with *err. */
int nn_model_place(struct nn_model *m, device *d, device *rest, int cut, clm_error *err);

/* Of a weight outside of layers: is it used after them? */
bool nn_role_is_last(enum weight_role role);

/* The part that a weight belongs to; layer -1: outside of layers. */
const struct nn_part *nn_part_of(const struct nn_model *m, int layer, enum weight_role role);

/* Is the head tied to an embedding on another device? Then its weight is another copy. */
bool nn_tied_apart(const struct nn_model *m);

/* Once the weights are there: those that serve twice (tied heads, layers same as others). */
void nn_model_share(struct nn_model *m);

/* Gives back the device memory that nn_model_place took; the rest is the arena's. NULL is fine. */
void nn_model_release(struct nn_model *m);

#endif
