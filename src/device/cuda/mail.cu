/* device/cuda/mail.cu: results that come to the host sooner than the end of the stream is told.
 *
 * A kernel writes them to pinned memory, and behind them how often it has done so, which the host
 * watches. */
#include "device/cuda/cuda.h"

#include <atomic>
#include <string.h>

extern "C" {
#include "base/memory.h"
}

enum { MAIL_THREADS = 256, HEADER = 256, LOOKS = 1 << 14 };

struct device_mail {
    char *pinned;    /* HEADER bytes that begin with the number of letters so far, then a letter */
    unsigned *count; /* the same on the device */
    unsigned expected; /* it has when the last one is there */
    uint64_t n_given;  /* of the device when it was sent */
    size_t size;
};

static __global__ void __launch_bounds__(MAIL_THREADS)
    mail_kernel(char *pinned, const char *from, size_t size, unsigned *count)
{
    cuda_wait();
    for (size_t i = threadIdx.x; i < size / 4; i += MAIL_THREADS)
        ((uint32_t *)(pinned + HEADER))[i] = ((const uint32_t *)from)[i];
    __threadfence_system();
    __syncthreads();
    if (threadIdx.x)
        return;
    *count += 1;
    *(volatile unsigned *)pinned = *count;
}

struct device_mail *cuda_mail_open(device *d, size_t size, clm_error *err)
{
    struct cuda_device *c = cuda_device_of(d);
    struct device_mail *m = (struct device_mail *)mem_zeroed(1, sizeof *m);

    if (!m)
        return fail_null(err, CLM_ERR_NOMEM, "cuda: no memory for results");
    cuda_use(c);
    m->size = size;
    m->count = (unsigned *)cuda_alloc(d, sizeof *m->count, err);
    if (m->count &&
        cudaHostAlloc((void **)&m->pinned, HEADER + size, cudaHostAllocDefault) == cudaSuccess) {
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
    cuda_launch(c, mail_kernel, shape, m->pinned, (const char *)from, size, m->count);
    cuda_flush(c);
    if (c->failure.code)
        return tell_failure(c, m, err);
    m->expected++;
    m->n_given = c->n_given;
    return 0;
}

static bool is_there(const struct device_mail *m)
{
    unsigned seen = *(const volatile unsigned *)m->pinned;

    std::atomic_thread_fence(std::memory_order_acquire);
    return seen == m->expected;
}

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

const void *cuda_mail_await(device *d, struct device_mail *m, clm_error *err)
{
    struct cuda_device *c = cuda_device_of(d);

    for (int looks = 1; !is_there(m) && !c->failure.code; looks++) {
        pause_briefly();
        if (looks % LOOKS)
            continue;
        cudaError_t status = cudaStreamQuery(c->stream);
        if (status == cudaSuccess && !is_there(m))
            cuda_fail(c, CLM_ERR_DEVICE, "cuda: results did not come");
        else if (status != cudaSuccess && status != cudaErrorNotReady)
            cuda_check(c, status, "waiting for results");
    }
    if (c->failure.code) {
        tell_failure(c, m, err);
        return NULL;
    }
    if (m->n_given == c->n_given)
        cuda_idle(c);
    return m->pinned + HEADER;
}
