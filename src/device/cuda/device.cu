/* device/cuda/device.cu: opening a GPU as a device: what it is, its stream, its table. */
#include "device/cuda/cuda.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

extern "C" {
#include "base/memory.h"
}

enum {
    OLDEST = 80,           /* architecture that kernels are built for */
    NEARLY_NONE = 32 << 20 /* bytes of memory without which CUDA fails in ways of its own */
};

bool cuda_check(struct cuda_device *c, cudaError_t status, const char *what)
{
    if (status == cudaSuccess || c->failure.code)
        return false;
    size_t left = 0, total = 0;
    bool full = cudaMemGetInfo(&left, &total) == cudaSuccess && left < NEARLY_NONE;

    if (full || status == cudaErrorMemoryAllocation)
        fail(&c->failure, CLM_ERR_NOMEM,
             "cuda: %s: %s; %.1f of %.0f MB of the GPU's memory are free: have fewer layers there "
             "(--gpu-layers), or less in its cache (--cache-bytes)",
             what, cudaGetErrorString(status), (double)left / 1e6, (double)total / 1e6);
    else
        fail(&c->failure, CLM_ERR_DEVICE, "cuda: %s: %s", what, cudaGetErrorString(status));
    return true;
}

void cuda_fail(struct cuda_device *c, int code, const char *format, ...)
{
    char message[sizeof c->failure.message];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    fail(&c->failure, code, "%s", message);
}

static size_t cuda_available(device *d)
{
    size_t left = 0, total = 0;

    cuda_use(cuda_device_of(d));
    return cudaMemGetInfo(&left, &total) == cudaSuccess ? left : 0;
}

static void cuda_describe(const device *d, char *out, size_t size)
{
    const struct cuda_device *c = (const struct cuda_device *)d;

    snprintf(out, size, "%s, sm_%d", c->name, c->arch);
}

static int cuda_sync(device *d, clm_error *err)
{
    struct cuda_device *c = cuda_device_of(d);

    cuda_drain(c);
    cuda_check(c, cudaGetLastError(), "running");
    if (cuda_group_left(c))
        cuda_fail(c, CLM_ERR_DEVICE, "cuda: another GPU of its group has failed");
    if (!c->failure.code)
        return 0;
    fail(err, c->failure.code, "%s", c->failure.message);
    c->failure = (clm_error){};
    cuda_layer_doubt(c); /* what was to make it was perhaps not launched */
    return -1;
}

/* Devices that are open, by GPU. */
enum { COUNTED_GPUS = 64 };
static int n_open[COUNTED_GPUS];

static void count_open(struct cuda_device *c, int n)
{
    if (c->index < COUNTED_GPUS)
        __atomic_add_fetch(&n_open[c->index], n, __ATOMIC_SEQ_CST);
    c->counted = n > 0;
}

bool cuda_is_alone(const struct cuda_device *c)
{
    return c->index < COUNTED_GPUS && __atomic_load_n(&n_open[c->index], __ATOMIC_SEQ_CST) == 1;
}

static void cuda_close(device *d)
{
    struct cuda_device *c = cuda_device_of(d);

    if (!c)
        return;
    cuda_use(c);
    if (c->stream)
        cudaStreamSynchronize(c->stream);
    cuda_group_close(c);
    cuda_use(c);
    cuda_layer_close(c);
    cuda_dense_close(c);
    cuda_blas_close(c);
    cuda_memory_close(c);
    cuda_queue_close(c->queue);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    if (c->counted)
        count_open(c, -1);
    mem_free(c);
    (void)cudaGetLastError(); /* else another device of this thread took it for its own */
}

static void cuda_set_exact(device *d, bool exact)
{
    cuda_device_of(d)->exact = exact;
}

static const struct device_ops cuda_ops = {
    .name = "cuda",
    .alloc = cuda_alloc,
    .free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .map = cuda_map,
    .unmap = cuda_unmap,
    .join = cuda_join,
    .all_reduce = cuda_all_reduce,
    .leave = cuda_leave,
    .rejoin = cuda_rejoin,
    .sync = cuda_sync,
    .close = cuda_close,
    .mail_open = cuda_mail_open,
    .mail_close = cuda_mail_close,
    .mail_send = cuda_mail_send,
    .mail_await = cuda_mail_await,
    .available = cuda_available,
    .describe = cuda_describe,
    .set_exact = cuda_set_exact,
    .measure = cuda_measure,
    .embed = cuda_embed,
    .matmul = cuda_matmul,
    .matmul_experts = cuda_matmul_experts,
    .combine_experts = cuda_combine_experts,
    .route = cuda_route,
    .scale_chosen = cuda_scale_chosen,
    .bound_ids = cuda_bound_ids,
    .ngram_ids = cuda_ngram_ids,
    .zero_experts = cuda_zero_experts,
    .rms_norm = cuda_rms_norm,
    .layer_norm = cuda_layer_norm,
    .add = cuda_add,
    .scale = cuda_scale,
    .scale_columns = cuda_scale_columns,
    .add_columns = cuda_add_columns,
    .scale_rows = cuda_scale_rows,
    .round_to = cuda_round_to,
    .round_blocks = cuda_round_blocks,
    .round_floats = cuda_round_floats,
    .clamp = cuda_clamp,
    .clear = cuda_clear,
    .fill = cuda_fill,
    .scale_groups = cuda_scale_groups,
    .mix_streams = cuda_mix_streams,
    .sinkhorn = cuda_sinkhorn,
    .hadamard = cuda_hadamard,
    .match_size = cuda_match_size,
    .cut_below_spread = cuda_cut_below_spread,
    .softmax = cuda_softmax,
    .xielu = cuda_xielu,
    .copy_rows = cuda_copy_rows,
    .temperature = cuda_temperature,
    .activate = cuda_activate,
    .glu = cuda_glu,
    .glu_alpha = cuda_glu_alpha,
    .softcap = cuda_softcap,
    .rope_table = cuda_rope_table,
    .rope = cuda_rope,
    .kv_store = cuda_kv_store,
    .attend = cuda_attend,
    .select_keys = cuda_select_keys,
    .select_blocks = cuda_select_blocks,
    .select_pooled = cuda_select_pooled,
    .causal_pool = cuda_causal_pool,
    .causal_conv = cuda_causal_conv,
    .recurrence = cuda_recurrence,
    .selective_scan = cuda_selective_scan,
    .gated_scan = cuda_gated_scan,
    .time_step = cuda_time_step,
    .exponential_gates = cuda_exponential_gates,
    .divide_groups = cuda_divide_groups,
    .dot_groups = cuda_dot_groups,
    .gather_columns = cuda_gather_columns,
    .gather_rows = cuda_gather_rows,
    .argmax = cuda_argmax,
    .draw = cuda_draw,
};

/* Is there a driver, a GPU, and one that kernels are built for? Its properties then. */
static int look(struct cuda_device *c, clm_error *err)
{
    struct cudaDeviceProp p = {};
    int n = 0;
    cudaError_t status = cudaGetDeviceCount(&n);

    if (status == cudaErrorInsufficientDriver)
        return fail(err, CLM_ERR_DEVICE,
                    "cuda: the NVIDIA driver is missing or older than CUDA %d.%d, which clm was "
                    "built with",
                    CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (status == cudaErrorNoDevice || (status == cudaSuccess && n < 1))
        return fail(err, CLM_ERR_DEVICE, "cuda: there is no GPU that the NVIDIA driver shows");
    if (status != cudaSuccess)
        return fail(err, CLM_ERR_DEVICE, "cuda: asking for a GPU: %s", cudaGetErrorString(status));
    if (c->index >= n)
        return fail(err, CLM_ERR_ARG, "cuda: GPU %d of %d: there are no more that CUDA shows",
                    c->index + 1, n);
    status = cudaGetDeviceProperties(&p, c->index);
    if (status != cudaSuccess)
        return fail(err, CLM_ERR_DEVICE, "cuda: asking what the GPU is: %s",
                    cudaGetErrorString(status));
    c->arch = 10 * p.major + p.minor;
    memcpy(c->name, p.name, sizeof c->name);
    c->n_processors = p.multiProcessorCount;
    c->shared_memory = p.sharedMemPerBlockOptin;
    if (c->arch < OLDEST)
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "cuda: %s is of compute capability %d.%d; 8.0 or more is needed", p.name,
                    p.major, p.minor);
    return 0;
}

static int open_device(struct cuda_device *c, clm_error *err)
{
    c->base.ops = &cuda_ops;
    if (look(c, err))
        return -1;
    count_open(c, 1);
    cuda_use(c);
    cuda_check(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "making a stream");
    if (c->failure.code)
        return fail(err, c->failure.code, "%s", c->failure.message);
    cuda_tiles_open(c);
    c->queue = cuda_queue_open();
    if (!c->queue)
        return fail(err, CLM_ERR_NOMEM, "cuda: no memory for the device");
    return cuda_memory_open(c, err);
}

extern "C" device *device_cuda_open(clm_error *err)
{
    return device_cuda_open_at(0, err);
}

extern "C" device *device_cuda_open_at(int index, clm_error *err)
{
    struct cuda_device *c = (struct cuda_device *)mem_zeroed(1, sizeof *c);

    if (!c)
        return fail_null(err, CLM_ERR_NOMEM, "cuda: no memory for the device");
    c->index = index;
    if (open_device(c, err)) {
        cuda_close(&c->base);
        return NULL;
    }
    return &c->base;
}
