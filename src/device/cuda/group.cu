/* device/cuda/group.cu: GPUs that compute one model together, each of which has a thread that
 * queues for it. Where they reach each other's memory, sums are sums.cu's; of three and more the
 * large ones are NCCL's if it is there, which sends less then. Else all of them are NCCL's. It is
 * loaded when a group is made that wants it; each GPU has a communicator of its own.
 *
 * A sum on one GPU waits for the others. So nothing that makes CUDA wait for several GPUs at a time
 * may be done while some are at work: memory is given back once all of them are idle; sums.h has
 * what else there is to mind.
 */
#include "device/cuda/sums.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

extern "C" {
#include "base/memory.h"
}

/* Of nccl.h, whose functions have had these types since NCCL 2.0. */
typedef struct ncclComm *nccl_comm;
enum { NCCL_SUCCESS = 0, NCCL_FLOAT32 = 7, NCCL_SUM = 0 };

/* Functions of NCCL under their own names, without nccl in front. */
struct nccl {
    void *library;
    int (*CommInitAll)(nccl_comm *comms, int n, const int *devices);
    int (*CommDestroy)(nccl_comm comm);
    int (*CommAbort)(nccl_comm comm);
    const char *(*GetErrorString)(int result);
    int (*GroupStart)(void);
    int (*GroupEnd)(void);
    int (*AllReduce)(const void *from, void *to, size_t n, int type, int op, nccl_comm comm,
                     cudaStream_t stream);
    int (*AllGather)(const void *from, void *to, size_t n, int type, nccl_comm comm,
                     cudaStream_t stream);
};

enum { LARGE = 256 << 10 }; /* bytes of a sum of three and more GPUs that NCCL is for */

struct cuda_group {
    struct cuda_sums *sums; /* NULL: NCCL has all of them */
    struct nccl nccl;
    bool with_nccl;
    int n;
    struct cuda_device *members[DEVICE_MAX_GROUP];
    int left; /* atomic: one of them has */
    /* Of each member: held to use its communicator, which is NULL once one of them has left. */
    pthread_mutex_t locks[DEVICE_MAX_GROUP];
    nccl_comm comms[DEVICE_MAX_GROUP];
};

/* --- The library --- */

static void *open_library(void)
{
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);

#ifdef CLM_CUDA_LIBRARIES
    if (!library)
        library = dlopen(CLM_CUDA_LIBRARIES "/libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
#endif
    return library;
}

/* False where the library has no such function. */
template <typename F> static bool find(const struct nccl *n, F *function, const char *name)
{
    *function = (F)dlsym(n->library, name);
    return *function;
}

static int load(struct nccl *n, clm_error *err)
{
    n->library = open_library();
    if (!n->library)
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "cuda: GPUs that do not reach each other's memory need NVIDIA's NCCL, and "
                    "libnccl.so.2 is not in the library path: install it, or set LD_LIBRARY_PATH");
    if (find(n, &n->CommInitAll, "ncclCommInitAll") &&
        find(n, &n->CommDestroy, "ncclCommDestroy") && find(n, &n->CommAbort, "ncclCommAbort") &&
        find(n, &n->GetErrorString, "ncclGetErrorString") &&
        find(n, &n->GroupStart, "ncclGroupStart") && find(n, &n->GroupEnd, "ncclGroupEnd") &&
        find(n, &n->AllReduce, "ncclAllReduce") && find(n, &n->AllGather, "ncclAllGather"))
        return 0;
    return fail(err, CLM_ERR_UNSUPPORTED, "cuda: libnccl.so.2 lacks functions; NCCL 2.4 has them");
}

static int nccl_failed(const struct nccl *n, int result, const char *what, clm_error *err)
{
    return fail(err, CLM_ERR_DEVICE, "cuda: NCCL, %s: %s", what, n->GetErrorString(result));
}

/* --- Making and breaking --- */

/* One sum of n numbers on all, so that NCCL has made its connections before threads wait. */
static int sum_once(struct cuda_group *g, size_t n, clm_error *err)
{
    void *buffers[DEVICE_MAX_GROUP] = {};
    int result = NCCL_SUCCESS, rc = 0;

    for (int i = 0; i < g->n && rc == 0; i++) {
        buffers[i] = cuda_alloc(&g->members[i]->base, n * sizeof(float), err);
        rc = buffers[i] ? 0 : -1;
    }
    if (rc == 0) {
        g->nccl.GroupStart();
        for (int i = 0; i < g->n; i++) {
            cuda_use(g->members[i]);
            g->nccl.AllReduce(buffers[i], buffers[i], n, NCCL_FLOAT32, NCCL_SUM, g->comms[i],
                              g->members[i]->stream);
        }
        result = g->nccl.GroupEnd();
    }
    for (int i = 0; i < g->n; i++) {
        cuda_use(g->members[i]);
        cudaStreamSynchronize(g->members[i]->stream);
        if (buffers[i])
            cudaFree(buffers[i]);
    }
    return result != NCCL_SUCCESS ? nccl_failed(&g->nccl, result, "the first sum", err) : rc;
}

static int connect_nccl(struct cuda_group *g, clm_error *err)
{
    int indices[DEVICE_MAX_GROUP], result;

    for (int i = 0; i < g->n; i++)
        indices[i] = g->members[i]->index;
    result = g->nccl.CommInitAll(g->comms, g->n, indices);
    if (result != NCCL_SUCCESS) {
        for (int i = 0; i < g->n; i++)
            g->comms[i] = NULL;
        return nccl_failed(&g->nccl, result, "connecting GPUs", err);
    }
    return sum_once(g, 1024, err) || sum_once(g, (size_t)4 << 20, err) ? -1 : 0;
}

static void close_group(struct cuda_group *g)
{
    /* Sums that are still queued end at once. */
    for (int i = 0; g->sums && i < g->n; i++) {
        cuda_sums_stop(g->sums);
        cuda_drain(g->members[i]);
    }
    for (int i = 0; i < g->n; i++) {
        if (g->members[i]->group == g)
            g->members[i]->group = NULL;
        if (g->comms[i]) {
            cuda_use(g->members[i]);
            g->nccl.CommDestroy(g->comms[i]);
        }
        pthread_mutex_destroy(&g->locks[i]);
    }
    cuda_sums_close(g->sums);
    if (g->nccl.library)
        dlclose(g->nccl.library);
    mem_free(g);
}

/* What the sums are made by. */
static int connect(struct cuda_group *g, clm_error *err)
{
    clm_error ignored = {};
    bool needed;

    g->sums = cuda_sums_open(g->members, g->n);
    needed = !g->sums;
    if (!needed && g->n == 2)
        return 0;
    g->with_nccl =
        !load(&g->nccl, needed ? err : &ignored) && !connect_nccl(g, needed ? err : &ignored);
    return needed && !g->with_nccl ? -1 : 0;
}

int cuda_join(device *const *ds, int n, clm_error *err)
{
    struct cuda_group *g = (struct cuda_group *)mem_zeroed(1, sizeof *g);

    if (!g)
        return fail(err, CLM_ERR_NOMEM, "cuda: no memory for a group of %d GPUs", n);
    for (; g->n < n; g->n++) {
        if (pthread_mutex_init(&g->locks[g->n], NULL))
            break;
        g->members[g->n] = cuda_device_of(ds[g->n]);
    }
    if (g->n < n ? fail(err, CLM_ERR_NOMEM, "cuda: no locks for a group of %d GPUs", n)
                 : connect(g, err)) {
        close_group(g);
        return -1;
    }
    for (int i = 0; i < n; i++) {
        g->members[i]->group = g;
        g->members[i]->rank = i;
    }
    return 0;
}

void cuda_group_close(struct cuda_device *c)
{
    if (c->group)
        close_group(c->group);
    cuda_free_idle(c);
}

/* Kernels that wait for others end. */
void cuda_leave(device *d)
{
    struct cuda_group *g = cuda_device_of(d)->group;

    if (!g)
        return;
    __atomic_store_n(&g->left, 1, __ATOMIC_SEQ_CST);
    if (g->sums)
        cuda_sums_stop(g->sums);
    for (int i = 0; i < g->n; i++) {
        pthread_mutex_lock(&g->locks[i]);
        if (g->comms[i]) {
            cuda_use(g->members[i]);
            g->nccl.CommAbort(g->comms[i]);
        }
        g->comms[i] = NULL;
        pthread_mutex_unlock(&g->locks[i]);
    }
}

int cuda_rejoin(device *d, clm_error *err)
{
    struct cuda_group *g = cuda_device_of(d)->group;

    if (!g)
        return 0;
    for (int i = 0; i < g->n; i++)
        cuda_free_idle(g->members[i]);
    if (!cuda_group_left(cuda_device_of(d)))
        return 0;
    /* What had been queued of sums ends while they are stopped. */
    for (int i = 0; i < g->n; i++)
        cuda_drain(g->members[i]);
    if ((g->sums && cuda_sums_begin(g->sums, err)) || (g->with_nccl && connect_nccl(g, err)))
        return -1;
    __atomic_store_n(&g->left, 0, __ATOMIC_SEQ_CST);
    return 0;
}

bool cuda_group_left(struct cuda_device *c)
{
    return c->group && __atomic_load_n(&c->group->left, __ATOMIC_SEQ_CST);
}

void cuda_quiet(struct cuda_device *c)
{
    if (c->group)
        cuda_check(c, cudaStreamSynchronize(c->stream), "waiting for the device");
}

/* --- Sums --- */

/* x[i] = parts[0][i] + parts[1][i] + ..., from the first on. */
static __global__ void sum_kernel(float *x, const float *parts, int n_parts, size_t n)
{
    size_t step = (size_t)gridDim.x * blockDim.x;

    cuda_wait();
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        float sum = parts[i];

        for (int p = 1; p < n_parts; p++)
            sum += parts[p * n + i];
        x[i] = sum;
    }
}

static void fail_of_others(struct cuda_device *c)
{
    cuda_fail(c, CLM_ERR_DEVICE, "cuda: another GPU of its group has failed");
}

static int call_nccl(struct cuda_device *c, const float *x, float *to, size_t n, bool gather)
{
    struct cuda_group *g = c->group;
    cudaStream_t stream = cuda_flush(c);
    int result = -1;

    pthread_mutex_lock(&g->locks[c->rank]);
    if (g->comms[c->rank])
        result =
            gather ? g->nccl.AllGather(x, to, n, NCCL_FLOAT32, g->comms[c->rank], stream)
                   : g->nccl.AllReduce(x, to, n, NCCL_FLOAT32, NCCL_SUM, g->comms[c->rank], stream);
    pthread_mutex_unlock(&g->locks[c->rank]);
    if (result < 0)
        fail_of_others(c);
    else if (result != NCCL_SUCCESS)
        nccl_failed(&g->nccl, result, "a sum", &c->failure);
    return result == NCCL_SUCCESS ? 0 : -1;
}

/* NCCL's order of three and more numbers depends on where they lie in x, and so a row's bits on the
 * other rows; where exact results are asked for they are added one after another. */
void cuda_all_reduce(device *d, tensor *x)
{
    struct cuda_device *c = cuda_device_of(d);
    size_t n = (size_t)x->rows * x->cols;
    float *parts;

    if (!c->group || !n || c->failure.code)
        return;
    if (c->group->sums && !(c->group->with_nccl && n * sizeof(float) > LARGE)) {
        if (cuda_group_left(c))
            fail_of_others(c);
        else
            cuda_sums_add(c, c->group->sums, x);
        return;
    }
    if (!c->exact || c->group->n == 2) {
        call_nccl(c, (const float *)x->data, (float *)x->data, n, false);
        return;
    }
    parts = (float *)cuda_scratch(c, c->group->n * n * sizeof *parts);
    if (!parts || call_nccl(c, (const float *)x->data, parts, n, true))
        return;

    size_t blocks = (n + 255) / 256, most = 8 * (size_t)c->n_processors;
    struct cuda_shape shape = {dim3((unsigned)(blocks < most ? blocks : most)), dim3(256), 0, true};
    cuda_launch(c, sum_kernel, shape, (float *)x->data, (const float *)parts, c->group->n, n);
}
