/* device/cpu/ops.h: the operations of the CPU's table, by the file they are in; contracts in
 * device.h. */
#ifndef DEVICE_CPU_OPS_H
#define DEVICE_CPU_OPS_H

#include "device/device.h"

/* cpu/vector_ops.c */
void cpu_rms_norm(device *d, tensor *y, const tensor *x, const float *w, int n, float eps);
void cpu_layer_norm(device *d, tensor *y, const tensor *x, const float *w, const float *b, int n,
                    float eps);
void cpu_add(device *d, tensor *y, const tensor *x, float scale);
void cpu_scale(device *d, tensor *x, float scale);
void cpu_scale_columns(device *d, tensor *x, const float *w);
void cpu_add_columns(device *d, tensor *x, const float *w);
void cpu_scale_rows(device *d, tensor *x, const tensor *w);
void cpu_round_floats(device *d, tensor *x, enum dtype type);
void cpu_round_to(device *d, tensor *x, const float *step, float low, float high);
void cpu_glu_alpha(device *d, tensor *y, const tensor *gate, const tensor *up, float alpha,
                   float limit);
void cpu_clamp(device *d, tensor *x, float low, float high);
void cpu_clear(device *d, tensor *x);
void cpu_fill(device *d, tensor *x, float value);
void cpu_scale_groups(device *d, tensor *x, const float *w, int n);
void cpu_softmax(device *d, tensor *x);
void cpu_xielu(device *d, tensor *x, const float *const w[4]);
void cpu_copy_rows(device *d, tensor *y, const tensor *x);
void cpu_temperature(device *d, tensor *x, const int32_t *positions, float beta, float length,
                     int offset);
void cpu_activate(device *d, tensor *y, const tensor *x, enum activation act);
void cpu_glu(device *d, tensor *y, const tensor *gate, const tensor *up, enum activation act);
void cpu_softcap(device *d, tensor *x, float cap);
void cpu_rope_table(device *d, tensor *table, const int32_t *positions, const float *inv_freq,
                    float mscale);
void cpu_rope(device *d, tensor *x, int head_dim, const tensor *table, bool interleaved);
void cpu_gather_columns(device *d, tensor *y, const tensor *x, const int32_t *order);
void cpu_gather_rows(device *d, tensor *y, const tensor *x, const int32_t *rows);
void cpu_argmax(device *d, int32_t *ids, const tensor *x);
void cpu_draw(device *d, struct drawn *out, const tensor *x, const int32_t *best,
              const struct draw_rule *rules, bool filtered);

/* cpu/round_blocks.c */
void cpu_round_blocks(device *d, tensor *x, int size, enum block_rounding kind);

/* cpu/streams.c */
void cpu_mix_streams(device *d, tensor *y, const tensor *x, const tensor *coefs, int n);
void cpu_sinkhorn(device *d, tensor *x, int n, int n_iterations, float eps);
void cpu_hadamard(device *d, tensor *x, int n);
void cpu_match_size(device *d, tensor *x, const tensor *like, float floor);
void cpu_cut_below_spread(device *d, tensor *x, float factor);

/* cpu/kv_store.c */
void cpu_kv_store(device *d, const struct kv_layer *kv, const struct kv_batch *batch,
                  const tensor *k, const tensor *v);

/* cpu/attention.c */
void cpu_attend(device *d, tensor *y, const tensor *q, const struct kv_layer *kv,
                const struct kv_batch *batch, const struct attend_params *p);

/* cpu/select.c */
void cpu_select_keys(device *d, tensor *kept, const tensor *q, const tensor *w,
                     const struct kv_layer *kv, const struct kv_batch *batch, int n);

void cpu_select_blocks(device *d, tensor *kept, const tensor *q, const struct kv_layer *kv,
                       const struct kv_batch *batch, int n, int block_size, int n_local);

void cpu_select_pooled(device *d, tensor *kept, const tensor *q, const tensor *w,
                       const struct kv_layer *kv, const struct kv_batch *batch,
                       const struct pooled_choice *p);

/* cpu/exponential.c */
void cpu_exponential_gates(device *d, tensor *y, const tensor *i, const tensor *f,
                           const struct state_batch *batch, size_t offset);
void cpu_divide_groups(device *d, tensor *y, const tensor *by, const tensor *floor, int n,
                       float eps);

/* cpu/recurrent.c */
void cpu_causal_conv(device *d, tensor *y, const tensor *x, const float *w, const float *bias,
                     int width, enum activation act, const struct state_batch *batch,
                     size_t offset);
void cpu_causal_pool(device *d, tensor *y, const tensor *x, const tensor *gate,
                     const int32_t *positions, int width, const struct state_batch *batch,
                     size_t offset);
void cpu_recurrence(device *d, tensor *y, const struct recurrence_params *p,
                    const struct state_batch *batch, size_t offset);
void cpu_selective_scan(device *d, tensor *y, const tensor *x, const tensor *dt, const tensor *B,
                        const tensor *C, const float *a, const float *skip,
                        const struct state_batch *batch, size_t offset);
void cpu_gated_scan(device *d, tensor *y, const tensor *x, const tensor *log_a,
                    const struct state_batch *batch, size_t offset);
void cpu_time_step(device *d, tensor *dt, tensor *decay, const float *bias, const float *a, int n,
                   float low, float high);
void cpu_dot_groups(device *d, tensor *y, const tensor *a, const tensor *b, int n);

/* cpu/router.c */
void cpu_combine_experts(device *d, tensor *y, const tensor *x, const tensor *weights);
void cpu_scale_chosen(device *d, tensor *weights, const tensor *ids, const float *scales);
void cpu_bound_ids(device *d, int32_t *out, const int32_t *ids, int n, int limit);
void cpu_ngram_ids(device *d, int32_t *out, const int32_t *ids, const int32_t *past, int n,
                   int n_past, int n_used, int base, int size);
void cpu_zero_experts(device *d, tensor *ids, tensor *weights, tensor *rest, int n_experts);
void cpu_route(device *d, tensor *ids, tensor *weights, const tensor *logits,
               const struct router_params *p);

#endif
