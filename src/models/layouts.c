/* models/layouts.c: tables of names that several families share. */
#include "models/family.h"

const struct weight_rule layout_llama[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.sinks", SLOTS(0, ROLE_SINKS)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.self_attn.{query,key}_layernorm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_norm1", POST_NORM(0)}, /* of those that have norms behind blocks too */
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.post_norm2", POST_NORM(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {"model.mtp_layers.**", IGNORE},                    /* guesses of further tokens */
    {NULL, IGNORE},
};

const struct weight_rule layout_moe[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.gate.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.experts.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.moe_statics.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.expert_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.gate.expert_bias", ROUTER_BIAS(1)}, /* Sarvam, as published */
    {"model.word_embeddings", EMBED_TOKENS},
    {"model.layers.*.attention.query_key_value", ATTENTION_QKV(0)},
    {"model.layers.*.attention.dense", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.attention.{query,key}_layernorm", ATTENTION_NORMS(0)},
    {"model.layers.*.block_sparse_moe.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.gate.proj", ROUTER(1)},
    {"model.layers.*.mlp.router.gate", ROUTER(1)}, /* Hy3 */
    {"model.layers.*.self_attn.g_proj", SLOTS(0, ROLE_ATTENTION_GATE)},
    {"model.layers.*.self_attn.attention_sink_bias", SLOTS(0, ROLE_SINKS)},
    {"model.layers.*.self_attn.softmax_offset", SLOTS(0, ROLE_SINKS)}, /* Flint */
    {"model.layers.*.block_sparse_moe.gate", ROUTER(1)},
    {"model.layers.*.mlp.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.block_sparse_moe.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.block_sparse_moe.experts.#.{w1,w3,w2}", EXPERTS(1)},
    {"model.layers.*.mlp.shared_expert.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.layers.*.mlp.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.layers.*.mlp.shared_mlp.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.layers.*.mlp.coefficient", SLOTS(1, ROLE_SHARED_MIX)},
    {"model.layers.*.mlp.shared_expert_gate", SLOTS(1, ROLE_SHARED_EXPERT_GATE)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {"mtp.**", IGNORE},                                 /* guesses of further tokens */
    {"model.mtp.**", IGNORE},
    {"model.mtp_block.**", IGNORE},
    {"model.mtp_linear_proj.**", IGNORE},
    {"model.mtp_hidden_norm.**", IGNORE},
    {"model.mtp_emb_norm.**", IGNORE},
    {NULL, IGNORE},
};

const struct weight_rule layout_mla[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q_a_proj,q_b_proj,kv_a_proj_with_mqa,o_proj}", MLA(0)},
    {"model.layers.*.self_attn.q_proj", SLOTS(0, ROLE_MLA_Q)},
    {"model.layers.*.self_attn.{q,kv}_a_layernorm", MLA_NORMS(0)},
    {"model.layers.*.self_attn.kv_b_proj", MLA_KV_B(0)},
    {"model.layers.*.self_attn.{embed_q,unembed_out}", MLA_HEADS(0)},
    {"model.layers.*.self_attn.indexer.{wq_b,wk,weights_proj}", SLOTS(0, ROLE_INDEX_Q)},
    {"model.layers.*.self_attn.indexer.k_norm", SLOTS(0, ROLE_INDEX_K_NORM)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.post_mlp_layernorm", /* A.X K1, whose dense layers hold one unused */
     {.kind = TARGET_SLOTS, .branch = 1, .first = ROLE_POST_NORM, .spare = true}},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.gate.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.experts.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE},            /* computed from rope_theta */
    {"model.layers.*.{embed_tokens,enorm,hnorm,eh_proj}", IGNORE}, /* of layers beyond */
    {"model.layers.*.shared_head.**", IGNORE},
    {NULL, IGNORE},
};

const struct weight_rule layout_post_norm[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", POST_NORM(0)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.post_feedforward_layernorm", POST_NORM(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};
