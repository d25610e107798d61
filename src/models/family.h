/* models/family.h: what a family file is made of: a spec function and a table of weight names. */
#ifndef MODELS_FAMILY_H
#define MODELS_FAMILY_H

#include "format/checkpoint.h"
#include "format/config.h"
#include "nn/spec.h"
#include "nn/weights.h"

/* Where the tensors of a pattern go. branch is within the layer that the pattern's '*' names. */
struct weight_target {
    enum {
        TARGET_NONE,
        TARGET_SLOTS,      /* each alternative of the pattern to a role of its own, from first on */
        TARGET_SPLIT,      /* n roles from first on, whose rows lie one after another */
        TARGET_SPLIT_BACK, /* the same, the last role first */
        TARGET_GROUPED, /* of each head in turn a part of every role: q, k and v by head of keys; q
                         * and its gate by head; those of the delta rule by head of keys, of
                         * a state space by head */
        TARGET_QVK_QUARTERS, /* q, v and k of a quarter of the heads, then of the next */
        TARGET_INTERLEAVED,  /* the roles take the rows in turn */
        TARGET_LATENT, /* kv_b_proj: by head, what makes its key of a latent, and what its value */
        TARGET_IGNORE
    } kind;
    int branch;
    enum weight_role first;
    int n;
    const enum weight_role *roles; /* of TARGET_SPLIT, where no step leads from one to the next */
    int step;                      /* from role to role; 0 counts as 1 */
    enum op_kind only;             /* of layers whose first branch is this; OP_NONE: of all */
    bool transposed;               /* matrices are stored [n_in, n_out] */
    bool bias;                     /* the tensor is a bias, whatever its name ends with */
    bool scales;                   /* or the scales of quantised weights */
    bool second;                   /* '*' counts from the spec's second_layers on */
    bool spare;                    /* a norm that layers without experts do without */
    bool leads; /* experts, or rows of a vector, behind those there are: unread */
    bool bare;  /* only of tensors whose name has no last part such as ".weight" */
};

/**
 * A rule. The pattern is a tensor's name without its last part ("weight", "bias", "scales",
 * "biases"):
 * '*' is the number of a layer, '#' the number of an expert, '{a,b,c}' alternatives that go to
 * consecutive roles, and a trailing '**' is anything, dots included. The first rule that matches
 * counts.
 */
struct weight_rule {
    const char *pattern;
    struct weight_target to;
};

#define SLOTS(b, role)                                                                             \
    {                                                                                              \
        .kind = TARGET_SLOTS, .branch = (b), .first = (role)                                       \
    }
#define SPLIT(b, role, parts)                                                                      \
    {                                                                                              \
        .kind = TARGET_SPLIT, .branch = (b), .first = (role), .n = (parts)                         \
    }

#define SPLIT_BACK(b, role, parts)                                                                 \
    {                                                                                              \
        .kind = TARGET_SPLIT_BACK, .branch = (b), .first = (role), .n = (parts)                    \
    }

#define TRANSPOSED_SLOTS(b, role)                                                                  \
    {                                                                                              \
        .kind = TARGET_SLOTS, .branch = (b), .first = (role), .transposed = true                   \
    }
#define TRANSPOSED_SPLIT(b, role, parts)                                                           \
    {                                                                                              \
        .kind = TARGET_SPLIT, .branch = (b), .first = (role), .n = (parts), .transposed = true     \
    }

#define BARE_TRANSPOSED_SLOTS(b, role)                                                             \
    {                                                                                              \
        .kind = TARGET_SLOTS, .branch = (b), .first = (role), .transposed = true, .bare = true     \
    }
#define BARE_TRANSPOSED_SPLIT(b, role, parts)                                                      \
    {                                                                                              \
        .kind = TARGET_SPLIT, .branch = (b), .first = (role), .n = (parts), .transposed = true,    \
        .bare = true                                                                               \
    }

#define SECOND_SLOTS(b, role)                                                                      \
    {                                                                                              \
        .kind = TARGET_SLOTS, .branch = (b), .first = (role), .second = true                       \
    }

#define FIRST_EXPERTS(b)                                                                           \
    {                                                                                              \
        .kind = TARGET_SLOTS, .branch = (b), .first = ROLE_EXPERT_GATE, .leads = true              \
    }
#define FIRST_ROWS(b, role)                                                                        \
    {                                                                                              \
        .kind = TARGET_SPLIT, .branch = (b), .first = (role), .n = 1, .leads = true                \
    }

#define CONV(b) SLOTS(b, ROLE_CONV)
#define KV_CONVS(b) SLOTS(b, ROLE_K_CONV)          /* {k,v} */
#define SHORT_CONV(b) SLOTS(b, ROLE_SHORT_CONV_IN) /* {in,out} */
#define SSM_IN(b) SPLIT(b, ROLE_SSM_Z, 3)          /* z, then x, B and C, then the time step */
#define SSM_XZ(b) SPLIT_BACK(b, ROLE_SSM_Z, 2)     /* x, then z */
#define SSM_VECTORS(b) SLOTS(b, ROLE_SSM_A)        /* {A_log,D,dt_bias} */
#define SSM_NORM_OUT(b) SLOTS(b, ROLE_SSM_NORM)    /* {norm,out_proj} */
#define EMBED_TOKENS SLOTS(-1, ROLE_EMBED_TOKENS)
#define LM_HEAD SLOTS(-1, ROLE_LM_HEAD)
#define FINAL_NORM SLOTS(-1, ROLE_FINAL_NORM)
#define PRE_NORM(b) SLOTS(b, ROLE_PRE_NORM)
#define POST_NORM(b) SLOTS(b, ROLE_POST_NORM)
#define ATTENTION(b) SLOTS(b, ROLE_Q_PROJ)       /* {q,k,v,o} */
#define ATTENTION_NORMS(b) SLOTS(b, ROLE_Q_NORM) /* {q,k} */
#define ATTENTION_QKV(b) SPLIT(b, ROLE_Q_PROJ, 3)
#define ATTENTION_GROUPED_QKV(b)                                                                   \
    {                                                                                              \
        .kind = TARGET_GROUPED, .branch = (b), .first = ROLE_Q_PROJ, .n = 3                        \
    }
#define ATTENTION_Q_GATE(b)                                                                        \
    {                                                                                              \
        .kind = TARGET_GROUPED, .branch = (b), .first = ROLE_Q_PROJ, .n = 2,                       \
        .step = ROLE_ATTENTION_GATE - ROLE_Q_PROJ                                                  \
    }
#define DELTA_GROUPED(b, role, parts)                                                              \
    {                                                                                              \
        .kind = TARGET_GROUPED, .branch = (b), .first = (role), .n = (parts)                       \
    }
#define ONLY_SLOTS(op, b, role)                                                                    \
    {                                                                                              \
        .kind = TARGET_SLOTS, .branch = (b), .first = (role), .only = (op)                         \
    }
#define ONLY_GROUPED_QKV(op, b)                                                                    \
    {                                                                                              \
        .kind = TARGET_GROUPED, .branch = (b), .first = ROLE_Q_PROJ, .n = 3, .only = (op)          \
    }
#define MLA(b) SLOTS(b, ROLE_MLA_Q_A)           /* {q_a,q or q_b,kv_a,o} */
#define MLA_NORMS(b) SLOTS(b, ROLE_MLA_Q_NORM)  /* {q_a,kv_a} */
#define MLA_HEADS(b) SLOTS(b, ROLE_MLA_EMBED_Q) /* {embed_q,unembed_out} */
#define MLA_KV_B(b)                                                                                \
    {                                                                                              \
        .kind = TARGET_LATENT, .branch = (b), .first = ROLE_MLA_EMBED_Q, .n = 2                    \
    }
#define MLP(b) SLOTS(b, ROLE_GATE_PROJ) /* {gate,up,down} */
#define MLP_GATE_UP(b) SPLIT(b, ROLE_GATE_PROJ, 2)
#define MLP_UP_GATE(b)                                                                             \
    {                                                                                              \
        .kind = TARGET_SPLIT_BACK, .branch = (b), .first = ROLE_GATE_PROJ, .n = 2                  \
    }
#define ROUTER(b) SLOTS(b, ROLE_ROUTER)
#define ROUTER_BIAS(b) SLOTS(b, ROLE_ROUTER_BIAS)
#define SHARED_EXPERT(b) SLOTS(b, ROLE_SHARED_GATE) /* {gate,up,down} */
#define EXPERTS(b) SLOTS(b, ROLE_EXPERT_GATE)       /* {gate,up,down}, stacked or by '#' */
#define IGNORE                                                                                     \
    {                                                                                              \
        .kind = TARGET_IGNORE                                                                      \
    }

struct weight_prefix {
    const char *from, *to; /* a name that begins with from begins with to instead */
};

struct family {
    const char *name;            /* "Llama" */
    const char *model_types[32]; /* as config.json says; where it has a text_config with a type that
                                  * another family serves, that one */
    /* Fill s (zeroed) from c; arrays from a. -1 when c has failed. */
    int (*spec)(struct spec *s, config *c, arena *a);
    /* What config.json does not say and the checkpoint does; NULL: nothing. */
    void (*adapt)(struct spec *s, const checkpoint *c);
    /* The family that a config of its types is of, where another has the same name; NULL: this. */
    const struct family *(*choose)(config *c);
    bool reads_text_config;               /* spec gets the whole config.json, not its text_config */
    const struct weight_rule *weights;    /* ends with a NULL pattern */
    const struct weight_prefix *prefixes; /* ends with a NULL from; NULL: none */
};

/* models/config_parts.c: what many families read alike. Nothing needs checking before the end: a
 * config carries its error. */

/* RMS norm with rms_norm_eps; layer norm with the eps of a key. */
struct norm_spec config_rms_norm(config *c);
struct norm_spec config_layer_norm(config *c, const char *key, bool bias);

/* The usual attention: num_attention_heads, num_key_value_heads, head_dim, attention_bias and the
 * rope, scaled by 1 / sqrt(head_dim); after config_common. theta is the default of rope_theta. */
struct attention_spec config_attention(config *c, const struct spec *s, double theta, arena *a);

/* The same where partial_rotary_factor of a head turns. */
struct attention_spec config_attention_partial(config *c, const struct spec *s, double theta,
                                               arena *a);

/* The same without its rope. */
struct attention_spec config_attention_plain(config *c, const struct spec *s);

/* Attention to latents as DeepSeek has it: q_lora_rank (null: none), kv_lora_rank,
 * qk_nope_head_dim, qk_rope_head_dim, v_head_dim, attention_bias, the norms of ranks with eps 1e-6,
 * pairs that turn interleaved, a scale that follows yarn's mscale_all_dim. */
struct mla_spec config_mla(config *c, double theta, arena *a);

/* Queries that grow with their position: llama_4_scaling_beta and original_max_position_embeddings
 * of rope_parameters. */
struct temperature_spec config_temperature(config *c);

/* The usual gated feed-forward: intermediate_size, hidden_act (silu), mlp_bias. */
struct mlp_spec config_gated_mlp(config *c);

/* Experts as Mixtral has them: num_local_experts, or so many; num_experts_per_tok, or 2; each a
 * config_gated_mlp. */
struct moe_spec config_moe_local(config *c, int n_experts);

/* Experts beside a shared one: num_experts, num_experts_per_tok, norm_topk_prob, or as usual has
 * them; moe_intermediate_size and shared_expert_intermediate_size, or 512; hidden_act (silu). */
struct moe_spec config_moe_beside(config *c, struct router_params usual);

/* The size of n shared experts side by side; too many are an error of key, and 0. */
int config_shared_size(config *c, const char *key, int n, int size);

/* Experts as DeepSeek-V3 has them: n_routed_experts (or num_experts, num_shared_experts) by sigmoid
 * scores with a bias, n_group and topk_group, norm_topk_prob, routed_scaling_factor,
 * n_shared_experts. mlp gives the kind of each expert. */
struct moe_spec config_moe_noaux(config *c, struct mlp_spec mlp);

/* topk_method of others than transformers must be "noaux_tc", if it is there. */
void config_noaux_alone(config *c);

/* Where transformers wrote c, experts outside of the groups kept are never chosen; mlx-lm counts
 * them as 0, and does not divide the weight of a lone expert by itself. */
void config_router_origin(const config *c, struct router_params *r);

/* Keys, with spaces between, that must be there, be it as null, unless transformers wrote c. */
void config_require(config *c, const char *keys);

/* Whether config.json is one that transformers wrote: where mlx-lm computes another function than
 * transformers, such a checkpoint gets that of transformers, others that of mlx-lm. */
bool config_by_transformers(const config *c);

/* models/names.c: whether the metadata of the tensors says that torch wrote them ("pt"). */
bool checkpoint_by_torch(const checkpoint *c);

/* Whether it is as published, where files that mlx-lm has converted hold other numbers: by part of
 * a name that those of the one kind or the other have, else by who wrote the tensors. */
bool checkpoint_is_published(const checkpoint *c, const char *own, const char *converted);

/* models/qwen3_next.c, for those that store its weights in another way. */
int qwen3_next_spec(struct spec *s, config *c, arena *a);
void qwen3_next_adapt(struct spec *s, const checkpoint *c);
extern const struct weight_rule layout_qwen3_next[];

/* models/ernie4_5_moe.c, for those that see. */
int ernie4_5_moe_spec(struct spec *s, config *c, arena *a);

/* models/step3p7.c, for models that see, whose text it is. */
int step3p7_spec(struct spec *s, config *c, arena *a);

/* models/granite.c: attention of a layer of Granite SWA, made of that of all: every fourth sees
 * all, all have sinks and may have a theta of their own, 0 for no positions. */
struct attention_spec granite_swa_attention(config *c, struct attention_spec at, int layer);

/* models/bailing_moe.c: experts as Ling has them: num_experts by score_function, groups, a bias of
 * the choice, moe_shared_expert_intermediate_size for each of num_shared_experts. */
struct moe_spec bailing_moe(config *c, struct mlp_spec mlp);

/* models/config_mamba.c: time_step_limit, or low and high where that is not there. */
void config_time_step_limit(config *c, struct mamba2_spec *m, double low, double high);
/* mamba_n_heads, mamba_d_head (also "auto", of mamba_expand times hidden_size), mamba_n_groups,
 * mamba_d_state, mamba_d_conv, mamba_conv_bias and mamba_proj_bias, with a norm of rms_norm_eps
 * over each group and time steps without limits; after config_common. */
struct mamba2_spec config_mamba2(config *c, const struct spec *s);
/* A rank of key, also "auto": hidden_size / 16, rounded up. */
int config_dt_rank(config *c, const char *key, int hidden_size);

/* Whether a layer has experts: not when mlp_only_layers lists it or decoder_sparse_step passes it
 * over. */
bool config_layer_is_sparse(config *c, int layer);

/* All layers alike: attention, then feed-forward, each with a norm before it. */
void spec_layers(struct spec *s, struct norm_spec norm, struct attention_spec attention,
                 struct mlp_spec mlp);

/* cache_of for layers that read the cache of an earlier one: the last of the first n_own whose
 * attention, the given branch of them, slides or not; 0: there is none. */
int spec_kv_source(const struct spec *s, int n_own, int branch, bool sliding);

/* The layers so many times, the later ones with the weights of the first; all empty. key names the
 * number in errors. */
int spec_repeat_layers(struct spec *s, config *c, const char *key, int times, arena *a);

/* models/config_rope.c: the rotary positions of heads of head_dim numbers, from either schema:
 * rope_parameters, or rope_theta with rope_scaling. layer_type picks an object of rope_parameters
 * where it holds one for each type of layer; NULL: the model has one rope. theta is the default of
 * rope_theta. Unknown types are an error. */
struct rope_spec config_rope(config *c, const char *layer_type, int head_dim, double theta,
                             arena *a);

/* The same for families of which partial_rotary_factor of a head turns; in the others neither
 * reference heeds that key, but with the type "proportional". */
struct rope_spec config_rope_partial(config *c, const char *layer_type, int head_dim, double theta,
                                     arena *a);

/* The same of a model with one rope, where it is part if nothing says otherwise; where only the
 * object of the rope may. */
struct rope_spec config_rope_part(config *c, int head_dim, double theta, double part, arena *a);
struct rope_spec config_rope_fixed_part(config *c, int head_dim, double theta, double part,
                                        arena *a);

/* The same for families in which mlx-lm knows no scaling: rope_parameters count, a rope_scaling of
 * the old schema only where transformers wrote c; else it is named in the warning of unused keys.
 */
struct rope_spec config_rope_parameters(config *c, int head_dim, double theta, bool partial,
                                        arena *a);

/* What either schema says of scaling; NULL: nothing. */
config *config_rope_object(config *c);

/* That of Gemma's sliding layers, which no scaling touches: rope_parameters' sliding_attention, or
 * the theta rope_local_base_freq. */
struct rope_spec config_rope_sliding(config *c, int head_dim, arena *a);

/* The slopes of ALiBi for n_heads heads, of which the first power of two at most falls by
 * 2^(-bias_max / n), ...; times scale. arXiv:2108.12409. NULL when c has failed. */
const float *config_alibi(config *c, int n_heads, double bias_max, double scale, arena *a);

/* Unscaled rope over dims numbers of a head. */
struct rope_spec rope_plain(int head_dim, double theta);
/* Pairs lie side by side; not those of longrope unless transformers wrote the file: mlx-lm's
 * longrope does not look at what it is told of that. */
void rope_interleave(struct rope_spec *r, config *c, bool on);

/* 1 / sqrt(head_dim) */
float attention_scale(int head_dim);

/* What numbers are held within, or a soft-cap: otherwise when absent, 0 (none) when null. A 0 in
 * the file is an error, or where the reference takes it for none, none. */
double config_cap(config *c, const char *key, double otherwise);
double config_cap_or_zero(config *c, const char *key, double otherwise);

/* Of sliding layers: otherwise when absent or null; less than 1 is an error. */
int config_window_size(config *c, const char *key, int otherwise);

/* sliding_window where layer_types calls the layer "sliding_attention", 0 for "full_attention";
 * without layer_types: otherwise. */
int config_window(config *c, int layer, int otherwise);

/* Whether the list of names of key calls a layer so; otherwise where there is none. */
bool config_layer_is(config *c, const char *key, const char *name, int layer, bool otherwise);

/* Whether layer_rope_theta says that a layer turns; otherwise where it does not say. */
bool config_layer_turns(config *c, int layer, bool otherwise);

/* The activation named by key; an unknown name is an error. */
enum activation config_activation(config *c, const char *key, enum activation otherwise);

/* vocab_size, hidden_size, num_hidden_layers, max_position_embeddings, tie_word_embeddings (where
 * it is not there, or transformers wrote it as true, a head in the file decides, and tied is for
 * what has no file; a vocab_size that s already has is the default, an n_layers is kept), and the
 * layers, all empty. -1 when c has failed. */
int config_common(struct spec *s, config *c, bool tied, arena *a);

/* The same for families whose config has other names. */
struct config_keys {
    const char *vocab_size, *hidden_size, *n_layers, *context_length, *tie;
};
int config_common_named(struct spec *s, config *c, const struct config_keys *keys, bool tied,
                        arena *a);

/* models/layouts.c: names of Llama's layers (norms before the blocks), and of layers with norms
 * after. */
extern const struct weight_rule layout_llama[], layout_mla[], layout_moe[], layout_post_norm[];

/* models/minimax_01.c and minimax_m2.c: configs of the type minimax may be of either. */
extern const struct family family_minimax_01, family_minimax_m2;

#endif
