/* device/cuda/queue.cu: launches written down, and given to the stream as graphs where they have
 * been before.
 *
 * A list of launches is bytes: for each a struct launch, then the sizes of its arguments, then
 * these. Lists that are equal do the same, whatever the model; so a list that comes again is
 * captured into a graph when it comes the second time, and from then on one call launches it. What
 * differs in a single byte goes to the stream launch by launch, as a prompt does, mostly.
 *
 * Lists end where a call needs the stream, or when they are long enough: the device begins with one
 * while the next is written down. The first after a wait is short, for the device has nothing to do
 * until it comes; each that fills up lets the next be twice as long, for between two graphs it
 * loses some 2 us.
 */
#include "device/cuda/cuda.h"

#include <string.h>

extern "C" {
#include "base/memory.h"
}

enum {
    FIRST_LAUNCHES = 8,
    MOST_LAUNCHES = 256,
    GRAPH_LAUNCHES = 4, /* fewer are not worth a graph */
    MAX_ARGUMENTS = 32,
    N_PLANS = 256,
    MOST_KERNELS = 4096 /* a power of two, well above the number that there are */
};

struct launch {
    const void *kernel;
    unsigned grid[3], block[3];
    unsigned shared, cluster;
    unsigned early, n; /* no room between the members: lists are compared byte by byte */
    size_t size;       /* of all of it, a multiple of 16 */
};

struct list {
    char *bytes;
    size_t size, capacity;
    int n;
};

/* A list that has come up, and its graph if it did again. */
struct plan {
    struct list list;
    cudaGraphExec_t graph;
    bool refused; /* it cannot be captured */
    uint64_t hash, used;
};

struct cuda_queue {
    struct list now;
    uint64_t n_lists; /* given so far */
    size_t last;      /* where the last launch of this list lies */
    int room;         /* launches of this list */
    bool whole;       /* the last launch was such that the next begins when it has ended */
    struct plan plans[N_PLANS];
    uint64_t clock;
    const void *loaded[MOST_KERNELS]; /* of a group: by the hash of their address, or the next */
};

static size_t align16(size_t n)
{
    return (n + 15) / 16 * 16;
}

/* Room for so many bytes more at the end of the list. */
static char *extend(struct list *list, size_t size)
{
    if (list->capacity - list->size < size) {
        size_t capacity = 2 * list->capacity + size;
        char *bytes = (char *)mem_resize(list->bytes, capacity);

        if (!bytes)
            return NULL;
        list->bytes = bytes;
        list->capacity = capacity;
    }
    return list->bytes + list->size;
}

void cuda_queue_add(struct cuda_device *c, const void *kernel, const struct cuda_shape *shape,
                    const void *const *values, const unsigned short *sizes, int n)
{
    struct cuda_queue *q = c->queue;
    struct list *list = &q->now;
    struct launch launch = {
        .kernel = kernel,
        .grid = {shape->grid.x, shape->grid.y, shape->grid.z},
        .block = {shape->block.x, shape->block.y, shape->block.z},
        .shared = shape->shared,
        .cluster = c->arch >= 90 ? shape->cluster : 0,
        .early = 0,
        .n = (unsigned)n,
        .size = 0,
    };
    size_t at = align16(sizeof launch + (size_t)n * sizeof *sizes);

    if (c->failure.code || !launch.grid[0] || !launch.grid[1] || !launch.grid[2])
        return;
    cuda_settle(c);
    launch.early = shape->early && !q->whole;
    if (!launch.early)
        c->stored = NULL;
    q->whole = shape->whole;
    c->n_given++;
    launch.size = at;
    for (int i = 0; i < n; i++)
        launch.size += align16(sizes[i]);

    char *to = n <= MAX_ARGUMENTS ? extend(list, launch.size) : NULL;
    if (!to) {
        cuda_fail(c, CLM_ERR_NOMEM, "cuda: no memory for a launch with %d arguments", n);
        return;
    }
    q->last = list->size;
    memset(to, 0, launch.size);
    memcpy(to, &launch, sizeof launch);
    memcpy(to + sizeof launch, sizes, (size_t)n * sizeof *sizes);
    for (int i = 0; i < n; at += align16(sizes[i]), i++)
        memcpy(to + at, values[i], sizes[i]);
    list->size += launch.size;
    /* What small tensors are uploaded by need not wait for the large ones. */
    if (++list->n < q->room || cuda_arriving(c) || shape->joins)
        return;
    cuda_flush(c);
    q->room = q->room < MOST_LAUNCHES ? 2 * q->room : MOST_LAUNCHES;
}

/* Of more than every kernel may have, with what it has of its own, CUDA wants to be told. */
static void ask_for_shared(struct cuda_device *c, const struct launch *launch)
{
    cudaFuncAttributes own = {};

    cuda_check(c, cudaFuncGetAttributes(&own, launch->kernel), "looking up a kernel");
    if (own.sharedSizeBytes + launch->shared > 48 * 1024)
        cuda_check(c,
                   cudaFuncSetAttribute(launch->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        (int)launch->shared),
                   "asking for shared memory");
}

/* CUDA loads a kernel when it is first launched, and may wait for the GPU then. */
static void load_quietly(struct cuda_device *c, const void *kernel)
{
    const void **loaded = c->queue->loaded;
    unsigned at = (unsigned)(((uintptr_t)kernel / 16 * 0x9E3779B97F4A7C15u) >> 40);
    cudaFuncAttributes own;

    for (int i = 0; i < MOST_KERNELS; i++) {
        const void **place = &loaded[(at + (unsigned)i) % MOST_KERNELS];

        if (*place == kernel)
            return;
        if (!*place) {
            *place = kernel;
            break;
        }
    }
    cuda_quiet(c);
    cuda_check(c, cudaFuncGetAttributes(&own, kernel), "loading a kernel");
}

/* Launches what lies at p; its size. */
static size_t launch_one(struct cuda_device *c, char *p)
{
    struct launch launch;
    unsigned short sizes[MAX_ARGUMENTS];
    void *values[MAX_ARGUMENTS];
    cudaLaunchAttribute attributes[2] = {};
    unsigned n_attributes = 0;
    cudaLaunchConfig_t config = {};

    memcpy(&launch, p, sizeof launch);
    memcpy(sizes, p + sizeof launch, launch.n * sizeof *sizes);

    char *at = p + align16(sizeof launch + launch.n * sizeof *sizes);
    for (unsigned i = 0; i < launch.n; at += align16(sizes[i]), i++)
        values[i] = at;
    if (launch.early && c->arch >= 90) {
        cudaLaunchAttribute *early = &attributes[n_attributes++];

        early->id = cudaLaunchAttributeProgrammaticStreamSerialization;
        early->val.programmaticStreamSerializationAllowed = 1;
    }
    if (launch.cluster > 1) {
        cudaLaunchAttribute *cluster = &attributes[n_attributes++];

        cluster->id = cudaLaunchAttributeClusterDimension;
        cluster->val.clusterDim.x = cluster->val.clusterDim.y = 1;
        cluster->val.clusterDim.z = launch.cluster;
    }
    config.gridDim = dim3(launch.grid[0], launch.grid[1], launch.grid[2]);
    config.blockDim = dim3(launch.block[0], launch.block[1], launch.block[2]);
    config.dynamicSmemBytes = launch.shared;
    config.stream = c->stream;
    config.attrs = attributes;
    config.numAttrs = n_attributes;
    if (c->group)
        load_quietly(c, launch.kernel);
    if (launch.shared > 0)
        ask_for_shared(c, &launch);
    cuda_check(c, cudaLaunchKernelExC(&config, launch.kernel, values), "launching a kernel");
    return launch.size;
}

static void launch_all(struct cuda_device *c, const struct list *list)
{
    for (size_t at = 0; at < list->size && !c->failure.code;)
        at += launch_one(c, list->bytes + at);
}

static uint64_t hash_of(const struct list *list)
{
    uint64_t h = list->size;

    for (size_t at = 0; at < list->size; at += 8) {
        uint64_t word;

        memcpy(&word, list->bytes + at, 8);
        h = (h ^ word) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    return h;
}

static void drop_plan(struct plan *p)
{
    if (p->graph)
        cudaGraphExecDestroy(p->graph);
    mem_free(p->list.bytes);
    *p = (struct plan){};
}

/* The plan of the list, or NULL; then *oldest is one to give up. */
static struct plan *find_plan(struct cuda_queue *q, uint64_t hash, struct plan **oldest)
{
    *oldest = &q->plans[0];
    for (int i = 0; i < N_PLANS; i++) {
        struct plan *p = &q->plans[i];

        if (p->hash == hash && p->list.size == q->now.size &&
            !memcmp(p->list.bytes, q->now.bytes, q->now.size))
            return p;
        if (p->used < (*oldest)->used)
            *oldest = p;
    }
    return NULL;
}

/* The list becomes a plan; without memory it does not, which costs speed alone. */
static void keep_plan(struct cuda_device *c, struct plan *p, uint64_t hash)
{
    struct cuda_queue *q = c->queue;
    struct list copy = {};

    if (p->graph)
        cuda_quiet(c);
    drop_plan(p);
    if (!extend(&copy, q->now.size))
        return;
    memcpy(copy.bytes, q->now.bytes, q->now.size);
    copy.size = q->now.size;
    copy.n = q->now.n;
    *p = (struct plan){copy, NULL, false, hash, q->clock};
}

/* The list's graph, from a capture of its launches; NULL where CUDA will not, with no failure kept:
 * they can be launched one by one. */
static cudaGraphExec_t capture(struct cuda_device *c, const struct list *list)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;

    cuda_quiet(c);
    if (cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
        (void)cudaGetLastError();
        return NULL;
    }
    launch_all(c, list);
    if (cudaStreamEndCapture(c->stream, &graph) != cudaSuccess ||
        cudaGraphInstantiate(&exec, graph, 0) != cudaSuccess) {
        (void)cudaGetLastError();
        exec = NULL;
    }
    /* Else its first launch does this. */
    if (exec && c->group && cudaGraphUpload(exec, c->stream) == cudaSuccess)
        cuda_quiet(c);
    if (graph)
        cudaGraphDestroy(graph);
    return exec;
}

static void give(struct cuda_device *c)
{
    struct cuda_queue *q = c->queue;
    struct plan *plan, *oldest;

    if (q->now.n < GRAPH_LAUNCHES) {
        launch_all(c, &q->now);
        return;
    }
    uint64_t hash = hash_of(&q->now);

    q->clock++;
    plan = find_plan(q, hash, &oldest);
    if (!plan) {
        keep_plan(c, oldest, hash);
        launch_all(c, &q->now);
        return;
    }
    plan->used = q->clock;
    if (!plan->graph && !plan->refused) {
        plan->graph = capture(c, &q->now);
        plan->refused = !plan->graph;
    }
    if (plan->graph)
        cuda_check(c, cudaGraphLaunch(plan->graph, c->stream), "launching a graph");
    else
        launch_all(c, &q->now);
}

cudaStream_t cuda_flush(struct cuda_device *c)
{
    cuda_use(c);
    cuda_arrive(c);
    cuda_settle(c);
    c->n_given++;
    if (c->queue->now.n && !c->failure.code)
        give(c);
    c->queue->now.size = 0;
    c->queue->now.n = 0;
    c->queue->n_lists++;
    return c->stream;
}

bool cuda_queue_take_back(struct cuda_device *c, struct cuda_written first, int n)
{
    struct cuda_queue *q = c->queue;
    struct launch launch;

    if (c->failure.code || first.list != q->n_lists || q->now.n < n || first.at >= q->now.size)
        return false;
    memcpy(&launch, q->now.bytes + first.at, sizeof launch);
    q->now.size = first.at;
    q->now.n -= n;
    q->whole = !launch.early;
    return true;
}

struct cuda_written cuda_queue_last(const struct cuda_device *c)
{
    return (struct cuda_written){c->queue->n_lists, c->queue->last};
}

void *cuda_queue_find(struct cuda_device *c, struct cuda_written w, const void *kernel)
{
    struct cuda_queue *q = c->queue;
    struct launch launch;

    if (w.list != q->n_lists || w.at + sizeof launch > q->now.size)
        return NULL;
    memcpy(&launch, q->now.bytes + w.at, sizeof launch);
    return launch.kernel == kernel
               ? q->now.bytes + w.at + align16(sizeof launch + launch.n * sizeof(unsigned short))
               : NULL;
}

void cuda_drain(struct cuda_device *c)
{
    cuda_check(c, cudaStreamSynchronize(cuda_flush(c)), "waiting for the device");
    cuda_idle(c);
}

void cuda_idle(struct cuda_device *c)
{
    cuda_staging_reset(c);
    c->queue->room = FIRST_LAUNCHES;
    c->queue->whole = false;
    c->stored = NULL;
}

struct cuda_queue *cuda_queue_open(void)
{
    struct cuda_queue *q = (struct cuda_queue *)mem_zeroed(1, sizeof *q);

    if (q)
        q->room = FIRST_LAUNCHES;
    return q;
}

void cuda_queue_close(struct cuda_queue *q)
{
    if (!q)
        return;
    for (int i = 0; i < N_PLANS; i++)
        drop_plan(&q->plans[i]);
    mem_free(q->now.bytes);
    mem_free(q);
}
