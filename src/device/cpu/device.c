/* device/cpu/device.c: opening the CPU as a device: its kernels, its threads, its memory. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "device/cpu/cpu.h"
#include "device/cpu/ops.h"

static void *cpu_alloc(device *d, size_t size, clm_error *err)
{
    void *p = mem_alloc_aligned(size ? size : 1);

    (void)d;
    return p ? p : fail_null(err, CLM_ERR_NOMEM, "cpu: no memory for %zu bytes", size);
}

static void cpu_free(device *d, void *p)
{
    (void)d;
    mem_free_aligned(p);
}

static void cpu_copy(device *d, void *to, const void *from, size_t size)
{
    (void)d;
    if (size)
        memcpy(to, from, size);
}

static const void *cpu_map(device *d, const void *data, size_t size, clm_error *err)
{
    (void)d;
    (void)size;
    (void)err;
    return data;
}

static void cpu_unmap(device *d, const void *data, size_t size)
{
    (void)d;
    (void)data;
    (void)size;
}

/* It has no memory of its own. */
static size_t cpu_available(device *d)
{
    (void)d;
    return 0;
}

static void cpu_describe(const device *d, char *out, size_t size)
{
    snprintf(out, size, "%s, %d threads", device_cpu_isa(d), device_cpu_threads(d));
}

static int cpu_sync(device *d, clm_error *err)
{
    struct cpu_device *c = cpu_device_of(d);
    size_t size = atomic_exchange(&c->scratch_failed, 0);

    if (size)
        fail(&c->failure, CLM_ERR_NOMEM, "cpu: no memory for %zu bytes of scratch", size);
    if (!c->failure.code)
        return 0;
    fail(err, c->failure.code, "%s", c->failure.message);
    c->failure = (clm_error){0};
    return -1;
}

/* The pool, and what each of its threads and their caller work in. */
static int open_threads(struct cpu_device *c, int n_threads, clm_error *err)
{
    c->pool = thread_pool_open(n_threads, err);
    if (!c->pool)
        return -1;
    size_t n = (size_t)thread_pool_size(c->pool) + 1;
    c->scratch = mem_zeroed(n, sizeof *c->scratch);
    c->scratch_size = mem_zeroed(n, sizeof *c->scratch_size);
    if (!c->scratch || !c->scratch_size)
        return fail(err, CLM_ERR_NOMEM, "cpu: no memory to keep track of %zu threads", n - 1);
    return 0;
}

static void close_threads(struct cpu_device *c)
{
    for (int i = 0; c->scratch && i <= thread_pool_size(c->pool); i++)
        mem_free_aligned(c->scratch[i]);
    mem_free(c->scratch);
    mem_free(c->scratch_size);
    thread_pool_close(c->pool);
}

static void cpu_close(device *d)
{
    struct cpu_device *c = cpu_device_of(d);

    if (!c)
        return;
    close_threads(c);
    cpu_group_close(c);
    mem_free(c);
}

static void cpu_set_exact(device *d, bool exact)
{
    cpu_device_of(d)->exact = exact;
}

void *cpu_scratch(struct cpu_device *d, int thread, size_t size)
{
    if (size > d->scratch_size[thread] || !d->scratch[thread]) {
        mem_free_aligned(d->scratch[thread]);
        d->scratch[thread] = mem_alloc_aligned(size ? size : 1);
        d->scratch_size[thread] = d->scratch[thread] ? size : 0;
        if (!d->scratch[thread])
            atomic_store(&d->scratch_failed, size ? size : 1);
    }
    return d->scratch[thread];
}

static const struct device_ops cpu_ops = {
    .name = "cpu",
    .reads_host = true,
    .side_by_side = true,
    .states_stay = true,
    .inputs_by_job = true,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .map = cpu_map,
    .unmap = cpu_unmap,
    .join = cpu_join,
    .all_reduce = cpu_all_reduce,
    .leave = cpu_leave,
    .rejoin = cpu_rejoin,
    .sync = cpu_sync,
    .close = cpu_close,
    .available = cpu_available,
    .describe = cpu_describe,
    .set_exact = cpu_set_exact,
    .measure = cpu_measure,
    .read_speed = cpu_read_speed,
    .embed = cpu_embed,
    .matmul = cpu_matmul,
    .matmul_experts = cpu_matmul_experts,
    .combine_experts = cpu_combine_experts,
    .route = cpu_route,
    .rms_norm = cpu_rms_norm,
    .layer_norm = cpu_layer_norm,
    .add = cpu_add,
    .scale = cpu_scale,
    .scale_columns = cpu_scale_columns,
    .add_columns = cpu_add_columns,
    .scale_rows = cpu_scale_rows,
    .clamp = cpu_clamp,
    .clear = cpu_clear,
    .fill = cpu_fill,
    .scale_groups = cpu_scale_groups,
    .softmax = cpu_softmax,
    .mix_streams = cpu_mix_streams,
    .sinkhorn = cpu_sinkhorn,
    .hadamard = cpu_hadamard,
    .match_size = cpu_match_size,
    .cut_below_spread = cpu_cut_below_spread,
    .round_to = cpu_round_to,
    .round_blocks = cpu_round_blocks,
    .round_floats = cpu_round_floats,
    .glu_alpha = cpu_glu_alpha,
    .xielu = cpu_xielu,
    .zero_experts = cpu_zero_experts,
    .scale_chosen = cpu_scale_chosen,
    .bound_ids = cpu_bound_ids,
    .ngram_ids = cpu_ngram_ids,
    .copy_rows = cpu_copy_rows,
    .temperature = cpu_temperature,
    .activate = cpu_activate,
    .glu = cpu_glu,
    .softcap = cpu_softcap,
    .rope_table = cpu_rope_table,
    .rope = cpu_rope,
    .kv_store = cpu_kv_store,
    .attend = cpu_attend,
    .select_keys = cpu_select_keys,
    .select_blocks = cpu_select_blocks,
    .select_pooled = cpu_select_pooled,
    .causal_conv = cpu_causal_conv,
    .causal_pool = cpu_causal_pool,
    .recurrence = cpu_recurrence,
    .selective_scan = cpu_selective_scan,
    .gated_scan = cpu_gated_scan,
    .time_step = cpu_time_step,
    .dot_groups = cpu_dot_groups,
    .exponential_gates = cpu_exponential_gates,
    .divide_groups = cpu_divide_groups,
    .gather_columns = cpu_gather_columns,
    .gather_rows = cpu_gather_rows,
    .argmax = cpu_argmax,
    .draw = cpu_draw,
};

static int open_device(struct cpu_device *c, int n_threads, clm_error *err)
{
    unsigned allowed;

    if (cpu_isa_limit(&allowed, err))
        return -1;
    c->base.ops = &cpu_ops;
    c->isa = cpu_isa_detect();
    cpu_vector_kernels_init(&c->vector, c->isa);
    cpu_matmul_kernels_init(&c->matmul, c->isa);
    return open_threads(c, n_threads, err);
}

device *device_cpu_open(int n_threads, clm_error *err)
{
    struct cpu_device *c = mem_zeroed(1, sizeof *c);

    if (!c)
        return fail_null(err, CLM_ERR_NOMEM, "cpu: no memory for the device");
    if (open_device(c, n_threads, err)) {
        cpu_close(&c->base);
        return NULL;
    }
    return &c->base;
}

const char *device_cpu_isa(const device *d)
{
    return cpu_isa_name(((const struct cpu_device *)d)->isa);
}

int device_cpu_threads(const device *d)
{
    return thread_pool_size(((const struct cpu_device *)d)->pool);
}

int device_cpu_set_threads(device *d, int n_threads, clm_error *err)
{
    struct cpu_device *c = cpu_device_of(d), fresh = {0};

    if (open_threads(&fresh, n_threads, err)) {
        close_threads(&fresh);
        return -1;
    }
    close_threads(c);
    c->pool = fresh.pool;
    c->scratch = fresh.scratch;
    c->scratch_size = fresh.scratch_size;
    return 0;
}
