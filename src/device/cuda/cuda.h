/* device/cuda/cuda.h: what the files of the CUDA device share. C++ as nvcc takes it, used as C with
 * one template.
 *
 * Operations do not launch: cuda_launch writes down the kernel, its shape and its arguments, and
 * what is written down goes to the stream when enough has come together, or when someone waits for
 * results. A step of a model that is the same as one before it, argument by argument, is then one
 * launch of a CUDA graph made of that one (queue.cu). So an operation's arguments must not change
 * with what changes from token to token: positions and the like are read from device memory, where
 * cuda_stage puts them.
 *
 * The first failure stays in the device until sync reports it; after one nothing is launched.
 */
#ifndef DEVICE_CUDA_CUDA_H
#define DEVICE_CUDA_CUDA_H

#include <cuda_runtime.h>

#include "device/cuda/waiting.h"

/* NULL of C is no pointer here. */
#undef fail_null
#define fail_null(...) (fail(__VA_ARGS__), nullptr)

enum { CUDA_TICKETS = 16384 };

struct cuda_queue;
struct cuda_memory;
struct cuda_blas;
struct cuda_group;

struct cuda_device {
    device base;
    cudaStream_t stream;
    bool exact; /* no approximations: f32 throughout, neither tf32 nor halves */
    char name[256];
    int arch;             /* 90 of compute capability 9.0 */
    int n_processors;     /* streaming multiprocessors */
    size_t shared_memory; /* bytes that a block may have at most */
    clm_error failure;
    struct cuda_waiting waiting;
    uint64_t n_given;      /* launches and flushes so far */
    tensor halved;         /* rows that have a copy in bf16, if n_given is still */
    uint64_t halved_at;    /* this: halves.cu */
    uint16_t *halved_to;   /* it lies there */
    void *describe_tensor; /* of the driver, for product_tiles_sm90.cu; NULL: there is none */
    int clusters[2][9];    /* of so many blocks that the GPU holds; 0: not asked yet */
    const void *routed;    /* ids that a launch finds before it lets go, if n_given is still */
    uint64_t routed_at;    /* this: product_stream.cu */
    /* A norm of one row that a launch writes down, which lets go only once the row is there: if
     * n_given is still normed_at. product_block.cu */
    struct cuda_norm normed;
    uint64_t normed_at;
    /* Blocks of the last attention, where it was to few keys; 0: there was none yet; INT_MAX: it
     * was to more. It was the last launch if n_given is still attended_at. attend_few.cu */
    uint64_t attended_at;
    int attended_blocks;
    /* Sequences, on the device, whose rows alone were stored since a launch behind which nothing
     * began early; c itself: those of others, too; NULL: none were. */
    const void *stored;
    struct cuda_queue *queue;   /* queue.cu */
    struct cuda_memory *memory; /* memory.cu */
    struct cuda_blas *blas;     /* blas.cu; NULL: not asked for yet */
    bool no_blas;               /* there is none */
    /* [CUDA_TICKETS] counters, all 0 between operations: by one the last of the blocks that share
     * it finds out that it is the last, and puts it back. */
    unsigned *tickets;
    struct cuda_layer *layer;     /* layer_experts.cu; NULL: nothing was noted yet */
    struct cuda_routers *routers; /* layer_router.cu; NULL: none yet */
    struct cuda_dense *dense;     /* layer_dense.cu; likewise */
    int index;                    /* of the GPUs that CUDA shows */
    bool counted;                 /* among the devices that are open */
    struct cuda_group *group;     /* group.cu; NULL: it is alone */
    int rank;                     /* in it */
};

static inline struct cuda_device *cuda_device_of(device *d)
{
    return (struct cuda_device *)d;
}

static inline void cuda_stored(struct cuda_device *c, const struct kv_sequence *sequences)
{
    c->stored = !c->stored || c->stored == sequences ? (const void *)sequences : (const void *)c;
}

/* What the calling thread asks of CUDA from now on it asks of this GPU. Where a call does not name
 * a stream or an address this comes first; cuda_flush does it too. */
static inline void cuda_use(const struct cuda_device *c)
{
    cudaSetDevice(c->index);
}

/* --- Failures --- */

/* Is this the only device of the process on its GPU, so that a launch whose blocks wait for one
 * another finds room for all of them? */
bool cuda_is_alone(const struct cuda_device *c);

/* Keeps the first failure: what was being done, and what CUDA says. True when this was none. */
bool cuda_check(struct cuda_device *c, cudaError_t status, const char *what);

/* Keeps a failure of the backend's own, as fail() does. */
void cuda_fail(struct cuda_device *c, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- Launches (queue.cu) --- */

/* How a kernel is launched. early: it may begin before the kernels ahead of it have ended, and
 * calls cuda_wait() in every block before it touches anything that these wrote or read. whole: the
 * next one begins when all of this has ended, early or not. Uploads and copies are so: what they
 * write may be read ahead of cuda_wait(), if nothing else writes there. */
struct cuda_shape {
    dim3 grid, block;
    unsigned shared; /* bytes of dynamic shared memory; above 48 KiB it is asked for */
    bool early, whole;
    bool joins;       /* what comes next may take it back */
    unsigned cluster; /* blocks along z that share their memory, on sm_90; 0: each its own */
};

/* sizes in bytes of n arguments at values. An empty grid is no work. */
void cuda_queue_add(struct cuda_device *c, const void *kernel, const struct cuda_shape *shape,
                    const void *const *values, const unsigned short *sizes, int n);

/* A launch that was written down. */
struct cuda_written {
    uint64_t list;
    size_t at;
};

/* The last one; and the first argument of one, which may be changed, as long as it has not gone to
 * the stream: NULL then, or where it is not of this kernel. */
struct cuda_written cuda_queue_last(const struct cuda_device *c);
void *cuda_queue_find(struct cuda_device *c, struct cuda_written w, const void *kernel);

/* The last n launches, of which this was the first, are written down no more; all of them early.
 * False where they have gone to the stream. */
bool cuda_queue_take_back(struct cuda_device *c, struct cuda_written first, int n);

/* Gives all that was written down to the stream, and the stream itself: for library calls, which
 * cannot be written down, and for copies. */
cudaStream_t cuda_flush(struct cuda_device *c);

/* Flushes, waits for all of it, and lets the staged bytes go. */
void cuda_drain(struct cuda_device *c);
void cuda_idle(struct cuda_device *c); /* nothing is queued any more, as somebody has found out */

struct cuda_queue *cuda_queue_open(void); /* NULL without memory */
void cuda_queue_close(struct cuda_queue *q);

template <typename T> struct cuda_exactly {
    typedef T type;
};

/* kernel(args...), in order with everything else. Structs among the arguments are compared byte by
 * byte: begin them with = {}, so that their padding is the same each time. */
template <typename... P>
static inline void cuda_launch(struct cuda_device *c, void (*kernel)(P...),
                               const struct cuda_shape &shape,
                               typename cuda_exactly<P>::type... args)
{
    const void *values[] = {&args..., nullptr};
    const unsigned short sizes[] = {sizeof(P)..., 0};

    cuda_queue_add(c, (const void *)kernel, &shape, values, sizes, (int)sizeof...(P));
}

/* Waits, in an early kernel, for what was queued before it. */
static __device__ __forceinline__ void cuda_wait(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Says that the next kernel, if it is early, may begin now. */
static __device__ __forceinline__ void cuda_let_go(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Of cuBLASLt, if it was asked for; device/cuda/blas.h has the rest. */
void cuda_blas_close(struct cuda_device *c);

/* --- Layers with experts (layer_experts.cu): what was written down last --- */

void cuda_layer_output(struct cuda_device *c, const struct cuda_product *p);
void cuda_layer_router(struct cuda_device *c, const struct matmul_job *job,
                       const struct cuda_norm *norm);
void cuda_layer_gated(struct cuda_device *c, const struct cuda_product *p);

/* Launched with all of these; false: not at all. */
bool cuda_layer_down(struct cuda_device *c, const struct cuda_product *p);
bool cuda_layer_next(struct cuda_device *c, const struct cuda_product *p);
void cuda_layer_close(struct cuda_device *c);

/* What the router makes of the x of the product before it (layer_router.cu): an index, below 0
 * without memory; then its matrix [n_experts, n_in], which is made where it was not yet, or is in
 * doubt, as weights may be others. All of them are forgotten when nothing runs. */
int cuda_layer_find_router(struct cuda_device *c, const struct weight *out,
                           const struct weight *router, const float *norm, float scale);
const float *cuda_layer_make_router(struct cuda_device *c, int i);
void cuda_layer_doubt(struct cuda_device *c);
void cuda_layer_forget(struct cuda_device *c);

/* A result of operations that become one launch, which goes through stages. */
struct cuda_result {
    const tensor *y;
    int stage;
    void **to; /* where the kernel has it; NULL: written in any case */
};

/* Results that later ones lie over are not written; false where some of one stage do.
 * (waiting.cu) */
bool cuda_leave_out(struct cuda_result *results, int n);
/* Likewise those that y lies over, which comes after them all; false where one is written in any
 * case. */
bool cuda_leave_out_under(const struct cuda_result *results, int n, const tensor *y);

/* --- Layers without experts (layer_dense.cu): likewise --- */

/* A product of one row was launched, by codes of 4 bits. */
void cuda_dense_note(struct cuda_device *c, const struct cuda_product *p);

/* Launched with those that were noted; false: not at all. */
bool cuda_dense_down(struct cuda_device *c, const struct cuda_product *p);
bool cuda_dense_next(struct cuda_device *c, const struct cuda_product *p);
void cuda_dense_close(struct cuda_device *c);

/* --- Memory (memory.cu) --- */

/* A device copy of host bytes, 256-byte aligned, for operations queued until the next wait; the
 * host's are read before this returns. The same bytes again are the same copy. NULL after a
 * failure. */
const void *cuda_stage(struct cuda_device *c, const void *data, size_t size);

/* A device copy of host bytes that stays: of tables that are the same at every step. The same bytes
 * again are the same copy. NULL after a failure. */
const void *cuda_keep(struct cuda_device *c, const void *data, size_t size);

/* Host memory to put an argument together in, until the next call. NULL after a failure. */
void *cuda_host_room(struct cuda_device *c, size_t size);

/* Room in device memory, 256-byte aligned, that the next operation may use again: it is for the
 * kernels of one operation alone. NULL after a failure. */
void *cuda_scratch(struct cuda_device *c, size_t size);

/* The same for the rows in bf16 that halves.h tells of, until they are asked for again: two rooms,
 * 0 and 1. */
void *cuda_halves_room(struct cuda_device *c, int which, size_t size);

/* What cuda_map was given is there for what goes to the stream from now on. */
void cuda_arrive(struct cuda_device *c);
bool cuda_arriving(const struct cuda_device *c); /* perhaps it is not there yet */

/* All that was staged may be overwritten: whatever was queued is done. */
void cuda_staging_reset(struct cuda_device *c);

/* How many letters there have been (mail.cu), on the device, where each counts itself. Behind one
 * that was given to the stream what is staged lies apart from what was before, so that the host may
 * go on while that is under way: cuda_turn says which this is, cuda_turn_done is told that it has
 * come. cuda_count_turns: nothing is under way, and perhaps not all have been sent. */
unsigned *cuda_turns(struct cuda_device *c);
unsigned cuda_turn(struct cuda_device *c);
void cuda_turn_done(struct cuda_device *c, unsigned turn);
void cuda_count_turns(struct cuda_device *c);

/* Memory of the device is given back: of one in a group once all of it are idle. */
void cuda_release(struct cuda_device *c, void *p);
void cuda_free_idle(struct cuda_device *c); /* all of it are */

int cuda_memory_open(struct cuda_device *c, clm_error *err);
void cuda_memory_close(struct cuda_device *c);

void *cuda_alloc(device *d, size_t size, clm_error *err);
void cuda_free(device *d, void *p);
void cuda_upload(device *d, void *to, const void *from, size_t size);
void cuda_download(device *d, void *to, const void *from, size_t size);
void cuda_copy(device *d, void *to, const void *from, size_t size);
const void *cuda_map(device *d, const void *data, size_t size, clm_error *err);
void cuda_unmap(device *d, const void *data, size_t size);

/* --- Results (mail.cu) --- */

struct device_mail *cuda_mail_open(device *d, size_t size, clm_error *err);
void cuda_mail_close(device *d, struct device_mail *m);
int cuda_mail_send(device *d, struct device_mail *m, const void *from, size_t size, clm_error *err);
const void *cuda_mail_await(device *d, struct device_mail *m, bool before, clm_error *err);

/* --- Groups (group.cu) --- */

int cuda_join(device *const *ds, int n, clm_error *err);
void cuda_all_reduce(device *d, tensor *x);
void cuda_leave(device *d);
int cuda_rejoin(device *d, clm_error *err);
/* In a group: nothing that was given to the stream is at work any more. Before calls of CUDA that
 * may wait for the GPU: sums.h. */
void cuda_quiet(struct cuda_device *c);
bool cuda_group_left(struct cuda_device *c);  /* one of its group has, and it has not begun anew */
void cuda_group_close(struct cuda_device *c); /* before the device is closed */

/* --- The operations of the table, by the file they are in; contracts in device.h. --- */

/* measure.cu */
void cuda_measure(device *d, struct device_limits *limits, bool (*go_on)(void *ctx), void *ctx);

/* product_tiles_sm90.cu: finds out whether it can be used. */
void cuda_tiles_open(struct cuda_device *c);

/* matmul.cu, experts.cu */
void cuda_embed(device *d, tensor *y, const struct weight *w, const int32_t *ids, float scale);
void cuda_matmul(device *d, const struct matmul_job *jobs, int n_jobs, const tensor *x);
void cuda_matmul_experts(device *d, const struct matmul_job *jobs, int n_jobs, int n_experts,
                         const tensor *x, const tensor *ids);
void cuda_argmax(device *d, int32_t *ids, const tensor *x);
void cuda_draw(device *d, struct drawn *out, const tensor *x, const int32_t *best,
               const struct draw_rule *rules, bool filtered);

/* attend.cu */
void cuda_attend(device *d, tensor *y, const tensor *q, const struct kv_layer *kv,
                 const struct kv_batch *batch, const struct attend_params *p);

/* router.cu */
void cuda_combine_experts(device *d, tensor *y, const tensor *x, const tensor *weights);
void cuda_route(device *d, tensor *ids, tensor *weights, const tensor *logits,
                const struct router_params *p);
void cuda_scale_chosen(device *d, tensor *weights, const tensor *ids, const float *scales);
void cuda_bound_ids(device *d, int32_t *out, const int32_t *ids, int n, int limit);
void cuda_ngram_ids(device *d, int32_t *out, const int32_t *ids, const int32_t *past, int n,
                    int n_past, int n_used, int base, int size);
void cuda_zero_experts(device *d, tensor *ids, tensor *weights, tensor *rest, int n_experts);

/* norm.cu */
void cuda_rms_norm(device *d, tensor *y, const tensor *x, const float *w, int n, float eps);
void cuda_layer_norm(device *d, tensor *y, const tensor *x, const float *w, const float *b, int n,
                     float eps);
void cuda_softmax(device *d, tensor *x);
void cuda_match_size(device *d, tensor *x, const tensor *like, float floor);
void cuda_cut_below_spread(device *d, tensor *x, float factor);
void cuda_round_blocks(device *d, tensor *x, int size, enum block_rounding kind);
void cuda_hadamard(device *d, tensor *x, int n);
void cuda_sinkhorn(device *d, tensor *x, int n, int n_iterations, float eps);
void cuda_dot_groups(device *d, tensor *y, const tensor *a, const tensor *b, int n);

/* vector.cu */
void cuda_add(device *d, tensor *y, const tensor *x, float scale);
void cuda_scale(device *d, tensor *x, float scale);
void cuda_scale_columns(device *d, tensor *x, const float *w);
void cuda_add_columns(device *d, tensor *x, const float *w);
void cuda_scale_rows(device *d, tensor *x, const tensor *w);
void cuda_round_to(device *d, tensor *x, const float *step, float low, float high);
void cuda_round_floats(device *d, tensor *x, enum dtype type);
void cuda_clamp(device *d, tensor *x, float low, float high);
void cuda_clear(device *d, tensor *x);
void cuda_fill(device *d, tensor *x, float value);
void cuda_scale_groups(device *d, tensor *x, const float *w, int n);
void cuda_mix_streams(device *d, tensor *y, const tensor *x, const tensor *coefs, int n);
void cuda_xielu(device *d, tensor *x, const float *const w[4]);
void cuda_copy_rows(device *d, tensor *y, const tensor *x);
void cuda_temperature(device *d, tensor *x, const int32_t *positions, float beta, float length,
                      int offset);
void cuda_activate(device *d, tensor *y, const tensor *x, enum activation act);
void cuda_glu(device *d, tensor *y, const tensor *gate, const tensor *up, enum activation act);
void cuda_glu_alpha(device *d, tensor *y, const tensor *gate, const tensor *up, float alpha,
                    float limit);
void cuda_softcap(device *d, tensor *x, float cap);
void cuda_divide_groups(device *d, tensor *y, const tensor *by, const tensor *floor, int n,
                        float eps);
void cuda_gather_columns(device *d, tensor *y, const tensor *x, const int32_t *order);
void cuda_gather_rows(device *d, tensor *y, const tensor *x, const int32_t *rows);

/* rope.cu, heads.cu */
void cuda_rope_table(device *d, tensor *table, const int32_t *positions, const float *inv_freq,
                     float mscale);
void cuda_rope(device *d, tensor *x, int head_dim, const tensor *table, bool interleaved);
void cuda_kv_store(device *d, const struct kv_layer *kv, const struct kv_batch *batch,
                   const tensor *k, const tensor *v);

/* select.cu */
void cuda_select_keys(device *d, tensor *kept, const tensor *q, const tensor *w,
                      const struct kv_layer *kv, const struct kv_batch *batch, int n);
void cuda_select_blocks(device *d, tensor *kept, const tensor *q, const struct kv_layer *kv,
                        const struct kv_batch *batch, int n, int block_size, int n_local);
void cuda_select_pooled(device *d, tensor *kept, const tensor *q, const tensor *w,
                        const struct kv_layer *kv, const struct kv_batch *batch,
                        const struct pooled_choice *p);

/* recurrent.cu, scan.cu */
void cuda_causal_pool(device *d, tensor *y, const tensor *x, const tensor *gate,
                      const int32_t *positions, int width, const struct state_batch *batch,
                      size_t offset);
void cuda_causal_conv(device *d, tensor *y, const tensor *x, const float *w, const float *bias,
                      int width, enum activation act, const struct state_batch *batch,
                      size_t offset);
void cuda_recurrence(device *d, tensor *y, const struct recurrence_params *p,
                     const struct state_batch *batch, size_t offset);
void cuda_selective_scan(device *d, tensor *y, const tensor *x, const tensor *dt, const tensor *B,
                         const tensor *C, const float *a, const float *skip,
                         const struct state_batch *batch, size_t offset);
void cuda_gated_scan(device *d, tensor *y, const tensor *x, const tensor *log_a,
                     const struct state_batch *batch, size_t offset);
void cuda_time_step(device *d, tensor *dt, tensor *decay, const float *bias, const float *a, int n,
                    float low, float high);
void cuda_exponential_gates(device *d, tensor *y, const tensor *i, const tensor *f,
                            const struct state_batch *batch, size_t offset);

#endif
