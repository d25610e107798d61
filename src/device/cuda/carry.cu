/* One thread copies some 6 GB/s out of a mapped file or into fresh memory, the bus takes 55. So
 * there are several, each with pinned buffers of its own, which take pieces of what there is to
 * copy; pieces come and go in any order. */
#include "device/cuda/carry.h"

#include <pthread.h>
#include <string.h>

extern "C" {
#include "base/memory.h"
#include "base/thread.h"
}

enum { PIECE = 2 << 20, N_BUFFERS = 2, MAX_THREADS = 8 };

struct load {
    char *to;
    const char *from;
    size_t size;
    enum cudaMemcpyKind kind;
};

/* What one thread fills or empties, one buffer while the other may be on its way. */
struct lane {
    struct carrier *carrier;
    thread_task *task;
    char *pinned; /* its buffers, which take a thread 2 ms, all of them 14 */
    char *buffers[N_BUFFERS];
    cudaEvent_t sent[N_BUFFERS];
    int next;
};

struct carrier {
    int gpu;
    cudaStream_t stream;
    int n_lanes;
    struct lane lanes[MAX_THREADS];
    bool waited_for; /* nothing was added since all was done */
    pthread_mutex_t mutex;
    pthread_cond_t more, done;
    /* Of these all threads know, under the mutex: */
    struct load *loads; /* [next, n_loads) are not all on their way, the first from at on */
    size_t n_loads, capacity, next, at;
    int n_busy; /* threads with a piece */
    bool closing;
    cudaError_t status; /* the first failure, after which nothing is taken */
};

/* One piece to the device, which it is on its way to afterwards, or from it. */
static cudaError_t carry_piece(struct lane *l, const struct load *piece)
{
    cudaStream_t stream = l->carrier->stream;
    bool up = piece->kind == cudaMemcpyHostToDevice;
    char *buffer = l->buffers[l->next];
    cudaEvent_t sent = l->sent[l->next];
    cudaError_t status = cudaEventSynchronize(sent);

    l->next = (l->next + 1) % N_BUFFERS;
    if (status == cudaSuccess && up)
        memcpy(buffer, piece->from, piece->size);
    if (status == cudaSuccess)
        status = cudaMemcpyAsync(up ? piece->to : buffer, up ? buffer : piece->from, piece->size,
                                 piece->kind, stream);
    if (status == cudaSuccess)
        status = cudaEventRecord(sent, stream);
    if (status != cudaSuccess || up)
        return status;
    status = cudaEventSynchronize(sent);
    if (status == cudaSuccess)
        memcpy(piece->to, buffer, piece->size);
    return status;
}

static bool is_idle(const struct carrier *c)
{
    return c->next == c->n_loads && !c->n_busy;
}

/* The next piece; there is one. */
static struct load take_piece(struct carrier *c)
{
    const struct load *l = &c->loads[c->next];
    size_t n = l->size - c->at < PIECE ? l->size - c->at : (size_t)PIECE;
    struct load piece = {l->to + c->at, l->from + c->at, n, l->kind};

    c->at += n;
    if (c->at == l->size) {
        c->at = 0;
        c->next++;
    }
    return piece;
}

static cudaError_t open_lane(struct lane *l)
{
    cudaError_t status = cudaSetDevice(l->carrier->gpu);

    if (status == cudaSuccess)
        status =
            cudaHostAlloc((void **)&l->pinned, (size_t)N_BUFFERS * PIECE, cudaHostAllocDefault);
    for (int i = 0; i < N_BUFFERS && status == cudaSuccess; i++) {
        l->buffers[i] = l->pinned + (size_t)i * PIECE;
        status = cudaEventCreateWithFlags(&l->sent[i], cudaEventDisableTiming);
    }
    return status;
}

/* Nothing more is taken after a failure. */
static void keep_status(struct carrier *c, cudaError_t status)
{
    if (status == cudaSuccess)
        return;
    c->status = c->status == cudaSuccess ? status : c->status;
    c->next = c->n_loads;
    c->at = 0;
}

static void run_lane(void *ctx)
{
    struct lane *l = (struct lane *)ctx;
    struct carrier *c = l->carrier;
    cudaError_t opened = open_lane(l);

    pthread_mutex_lock(&c->mutex);
    for (;;) {
        if (is_idle(c))
            pthread_cond_broadcast(&c->done);
        while (c->next == c->n_loads && !c->closing)
            pthread_cond_wait(&c->more, &c->mutex);
        if (c->closing)
            break;
        struct load piece = take_piece(c);

        c->n_busy++;
        pthread_mutex_unlock(&c->mutex);
        cudaError_t status = opened == cudaSuccess ? carry_piece(l, &piece) : opened;

        pthread_mutex_lock(&c->mutex);
        c->n_busy--;
        keep_status(c, status);
    }
    pthread_mutex_unlock(&c->mutex);
}

/* With a failure kept where it is not complete. */
static void open_lanes(struct cuda_device *c, struct carrier *carrier)
{
    int n = thread_count_default();

    carrier->n_lanes = n < MAX_THREADS ? n : MAX_THREADS;
    for (int i = 0; i < carrier->n_lanes && !c->failure.code; i++) {
        carrier->lanes[i].carrier = carrier;
        carrier->lanes[i].task =
            thread_task_start(run_lane, &carrier->lanes[i], i ? NULL : &c->failure);
    }
}

static struct carrier *carrier_open(struct cuda_device *c)
{
    struct carrier *carrier = (struct carrier *)mem_zeroed(1, sizeof *carrier);

    if (!carrier) {
        cuda_fail(c, CLM_ERR_NOMEM, "cuda: no memory to copy with");
        return NULL;
    }
    carrier->gpu = c->index;
    carrier->stream = c->stream;
    carrier->waited_for = true;
    pthread_mutex_init(&carrier->mutex, NULL);
    pthread_cond_init(&carrier->more, NULL);
    pthread_cond_init(&carrier->done, NULL);
    open_lanes(c, carrier);
    if (!c->failure.code)
        return carrier;
    carrier_close(carrier);
    return NULL;
}

/* False without memory. */
static bool add_load(struct carrier *c, const struct load *load)
{
    bool ok = true;

    pthread_mutex_lock(&c->mutex);
    if (c->next == c->n_loads)
        c->next = c->n_loads = 0;
    if (c->n_loads == c->capacity) {
        size_t capacity = 2 * c->capacity + 64;
        struct load *more = (struct load *)mem_resize(c->loads, capacity * sizeof *more);

        ok = more;
        c->loads = ok ? more : c->loads;
        c->capacity = ok ? capacity : c->capacity;
    }
    if (ok && c->status == cudaSuccess)
        c->loads[c->n_loads++] = *load;
    c->waited_for = false;
    pthread_cond_broadcast(&c->more);
    pthread_mutex_unlock(&c->mutex);
    return ok;
}

void cuda_carry_later(struct cuda_device *c, struct carrier **carrier, void *to, const void *from,
                      size_t size)
{
    struct load load = {(char *)to, (const char *)from, size, cudaMemcpyHostToDevice};

    if (!*carrier && !c->failure.code)
        *carrier = carrier_open(c);
    if (!c->failure.code && size && !add_load(*carrier, &load))
        cuda_fail(c, CLM_ERR_NOMEM, "cuda: no memory for a list of copies");
}

bool cuda_carries(const struct carrier *carrier)
{
    return carrier && !carrier->waited_for;
}

void cuda_carry_end(struct cuda_device *c, struct carrier *carrier)
{
    if (!cuda_carries(carrier))
        return;
    pthread_mutex_lock(&carrier->mutex);
    while (!is_idle(carrier))
        pthread_cond_wait(&carrier->done, &carrier->mutex);
    cuda_check(c, carrier->status, "copying");
    carrier->status = cudaSuccess;
    carrier->waited_for = true;
    pthread_mutex_unlock(&carrier->mutex);
}

void cuda_carry(struct cuda_device *c, struct carrier **carrier, void *to, const void *from,
                size_t size, enum cudaMemcpyKind kind)
{
    struct load load = {(char *)to, (const char *)from, size, kind};

    cuda_flush(c);
    if (!*carrier && !c->failure.code)
        *carrier = carrier_open(c);
    if (c->failure.code)
        return;
    if (!add_load(*carrier, &load))
        cuda_fail(c, CLM_ERR_NOMEM, "cuda: no memory for a list of copies");
    cuda_carry_end(c, *carrier);
    if (kind == cudaMemcpyDeviceToHost)
        cuda_drain(c);
}

static void close_lane(struct lane *l)
{
    thread_task_join(l->task);
    for (int i = 0; i < N_BUFFERS; i++)
        if (l->sent[i])
            cudaEventDestroy(l->sent[i]);
    cudaFreeHost(l->pinned);
}

void carrier_close(struct carrier *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->mutex);
    c->closing = true;
    pthread_cond_broadcast(&c->more);
    pthread_mutex_unlock(&c->mutex);
    for (int i = 0; i < c->n_lanes; i++)
        close_lane(&c->lanes[i]);
    pthread_cond_destroy(&c->more);
    pthread_cond_destroy(&c->done);
    pthread_mutex_destroy(&c->mutex);
    mem_free(c->loads);
    mem_free(c);
}
