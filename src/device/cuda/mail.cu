/* device/cuda/mail.cu: results that come to the host sooner than the end of the stream is told, and
 * while what was queued behind them runs.
 *
 * A kernel writes them to pinned memory, to one of two places in turn, and behind them how often it
 * has done so, which the host watches. */
#include "device/cuda/cuda.h"

#include <atomic>
#include <string.h>

extern "C" {
#include "base/memory.h"
}

enum { MAIL_THREADS = 256, HEADER = 256, LOOKS = 1 << 14 };

struct device_mail {
    /* HEADER bytes that begin with the number of letters so far, then room for two of size bytes */
    char *pinned;
    unsigned *count;   /* the same on the device */
    unsigned expected; /* it has when the last one is there */
    unsigned turns[2]; /* of the device, of the letters in both places */
    uint64_t n_given;  /* of the device when the last one was sent */
    size_t size;
};

static __global__ void __launch_bounds__(MAIL_THREADS)
    mail_kernel(char *pinned, const char *from, size_t size, size_t room, unsigned *count,
                unsigned *turns)
{
    cuda_wait();
    unsigned n = __ldcg(count);
    uint32_t *to = (uint32_t *)(pinned + HEADER + n % 2 * room);

    for (size_t i = threadIdx.x; i < size / 4; i += MAIL_THREADS)
        to[i] = ((const uint32_t *)from)[i];
    __threadfence_system();
    __syncthreads();
    if (threadIdx.x)
        return;
    *count = n + 1;
    *turns = __ldcg(turns) + 1;
    *(volatile unsigned *)pinned = n + 1;
}

struct device_mail *cuda_mail_open(device *d, size_t size, clm_error *err)
{
    struct cuda_device *c = cuda_device_of(d);
    struct device_mail *m = (struct device_mail *)mem_zeroed(1, sizeof *m);

    if (!m)
        return fail_null(err, CLM_ERR_NOMEM, "cuda: no memory for results");
    cuda_use(c);
    m->size = (size + 15) / 16 * 16;
    m->count = (unsigned *)cuda_alloc(d, sizeof *m->count, err);
    if (m->count && cudaHostAlloc((void **)&m->pinned, HEADER + 2 * m->size,
                                  cudaHostAllocDefault) == cudaSuccess) {
        memset(m->pinned, 0, HEADER);
        if (cudaMemset(m->count, 0, sizeof *m->count) == cudaSuccess &&
            cudaDeviceSynchronize() == cudaSuccess)
            return m;
    }
    (void)cudaGetLastError();
    if (m->count)
        fail(err, CLM_ERR_NOMEM, "cuda: no pinned memory for %zu bytes of results", size);
    cuda_mail_close(d, m);
    return NULL;
}

void cuda_mail_close(device *d, struct device_mail *m)
{
    struct cuda_device *c = cuda_device_of(d);

    if (!m)
        return;
    cuda_drain(c);
    cudaFreeHost(m->pinned);
    cuda_release(c, m->count);
    mem_free(m);
}

/* What the device has failed with, once nothing is under way; a letter may have come all the same.
 */
static int tell_failure(struct cuda_device *c, struct device_mail *m, clm_error *err)
{
    cuda_drain(c);
    m->expected = *(const volatile unsigned *)m->pinned;
    cuda_count_turns(c);
    fail(err, c->failure.code, "%s", c->failure.message);
    c->failure = (clm_error){};
    cuda_layer_doubt(c);
    return -1;
}

int cuda_mail_send(device *d, struct device_mail *m, const void *from, size_t size, clm_error *err)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_shape shape = {dim3(1), dim3(MAIL_THREADS), 0, true, false};

    if (size > m->size || size % 4)
        cuda_fail(c, CLM_ERR_ARG, "cuda: results of %zu bytes, not %zu", size, m->size);
    cuda_launch(c, mail_kernel, shape, m->pinned, (const char *)from, size, m->size, m->count,
                cuda_turns(c));
    cuda_flush(c);
    if (c->failure.code)
        return tell_failure(c, m, err);
    m->turns[m->expected++ % 2] = cuda_turn(c);
    m->n_given = c->n_given;
    return 0;
}

/* The n-th letter. */
static bool is_there(const struct device_mail *m, unsigned n)
{
    unsigned seen = *(const volatile unsigned *)m->pinned;

    std::atomic_thread_fence(std::memory_order_acquire);
    return (int)(seen - n) >= 0;
}

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

const void *cuda_mail_await(device *d, struct device_mail *m, bool before, clm_error *err)
{
    struct cuda_device *c = cuda_device_of(d);
    unsigned n = m->expected - before, place = (n - 1) % 2;

    for (int looks = 1; !is_there(m, n) && !c->failure.code; looks++) {
        pause_briefly();
        if (looks % LOOKS)
            continue;
        cudaError_t status = cudaStreamQuery(c->stream);
        if (status == cudaSuccess && !is_there(m, n))
            cuda_fail(c, CLM_ERR_DEVICE, "cuda: results did not come");
        else if (status != cudaSuccess && status != cudaErrorNotReady)
            cuda_check(c, status, "waiting for results");
    }
    if (c->failure.code) {
        tell_failure(c, m, err);
        return NULL;
    }
    cuda_turn_done(c, m->turns[place]);
    if (!before && m->n_given == c->n_given)
        cuda_idle(c);
    return m->pinned + HEADER + place * m->size;
}
