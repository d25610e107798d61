/* One thread copies some 6 GB/s out of a mapped file or into fresh memory, the bus takes 55. So
 * each thread of a pool has pinned buffers of its own; pieces come and go in any order. */
#include "device/cuda/carry.h"

#include <string.h>

extern "C" {
#include "base/memory.h"
#include "base/thread.h"
}

enum { PIECE = 2 << 20, N_BUFFERS = 2, MAX_THREADS = 8 };

/* What one thread fills or empties, one buffer while the other may be on its way. */
struct lane {
    char *buffers[N_BUFFERS];
    cudaEvent_t sent[N_BUFFERS];
    int next;
    cudaError_t status; /* the first failure */
};

struct carrier {
    thread_pool *pool;
    int n_lanes;
    char *pinned; /* of all lanes */
    struct lane lanes[MAX_THREADS];
};

struct carriage {
    struct carrier *carrier;
    cudaStream_t stream;
    char *to;
    const char *from;
    size_t size;
    enum cudaMemcpyKind kind;
};

/* One piece to the device, which it is on its way to afterwards, or from it. */
static cudaError_t carry_piece(struct lane *l, const struct carriage *job, size_t at)
{
    bool up = job->kind == cudaMemcpyHostToDevice;
    size_t n = job->size - at < PIECE ? job->size - at : (size_t)PIECE;
    char *buffer = l->buffers[l->next], *to = job->to + at;
    const char *from = job->from + at;
    cudaEvent_t sent = l->sent[l->next];
    cudaError_t status = cudaEventSynchronize(sent);

    l->next = (l->next + 1) % N_BUFFERS;
    if (status == cudaSuccess && up)
        memcpy(buffer, from, n);
    if (status == cudaSuccess)
        status = cudaMemcpyAsync(up ? to : buffer, up ? buffer : from, n, job->kind, job->stream);
    if (status == cudaSuccess)
        status = cudaEventRecord(sent, job->stream);
    if (status != cudaSuccess || up)
        return status;
    status = cudaEventSynchronize(sent);
    if (status == cudaSuccess)
        memcpy(to, buffer, n);
    return status;
}

static void carry_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct carriage *job = (const struct carriage *)ctx;
    struct lane *l = &job->carrier->lanes[thread];

    for (int64_t i = begin; i < end && l->status == cudaSuccess; i++)
        l->status = carry_piece(l, job, (size_t)i * PIECE);
}

/* With a failure kept where it is not complete. */
static void open_lanes(struct cuda_device *c, struct carrier *carrier)
{
    int n = thread_count_default();

    carrier->n_lanes = n < MAX_THREADS ? n : MAX_THREADS;
    carrier->pool = thread_pool_open(carrier->n_lanes, &c->failure);
    if (!carrier->pool)
        return;
    n = carrier->n_lanes * N_BUFFERS;
    cuda_check(c, cudaHostAlloc((void **)&carrier->pinned, (size_t)n * PIECE, cudaHostAllocDefault),
               "pinning memory");
    for (int i = 0; i < n && !c->failure.code; i++) {
        struct lane *l = &carrier->lanes[i / N_BUFFERS];

        l->buffers[i % N_BUFFERS] = carrier->pinned + (size_t)i * PIECE;
        cuda_check(c, cudaEventCreateWithFlags(&l->sent[i % N_BUFFERS], cudaEventDisableTiming),
                   "making an event");
    }
}

static struct carrier *carrier_open(struct cuda_device *c)
{
    struct carrier *carrier = (struct carrier *)mem_zeroed(1, sizeof *carrier);

    if (!carrier) {
        cuda_fail(c, CLM_ERR_NOMEM, "cuda: no memory to copy with");
        return NULL;
    }
    open_lanes(c, carrier);
    if (!c->failure.code)
        return carrier;
    carrier_close(carrier);
    return NULL;
}

void cuda_carry(struct cuda_device *c, struct carrier **carrier, void *to, const void *from,
                size_t size, enum cudaMemcpyKind kind)
{
    struct carriage job = {NULL, cuda_flush(c), (char *)to, (const char *)from, size, kind};

    if (!*carrier && !c->failure.code)
        *carrier = carrier_open(c);
    if (c->failure.code)
        return;
    job.carrier = *carrier;
    thread_pool_for(job.carrier->pool, (int64_t)((size + PIECE - 1) / PIECE), 1, carry_pieces,
                    &job);
    for (int i = 0; i < job.carrier->n_lanes; i++) {
        cuda_check(c, job.carrier->lanes[i].status, "copying");
        job.carrier->lanes[i].status = cudaSuccess;
    }
    if (kind == cudaMemcpyDeviceToHost)
        cuda_drain(c);
}

void carrier_close(struct carrier *c)
{
    if (!c)
        return;
    thread_pool_close(c->pool);
    for (int i = 0; i < c->n_lanes * N_BUFFERS; i++)
        if (c->lanes[i / N_BUFFERS].sent[i % N_BUFFERS])
            cudaEventDestroy(c->lanes[i / N_BUFFERS].sent[i % N_BUFFERS]);
    cudaFreeHost(c->pinned);
    mem_free(c);
}
