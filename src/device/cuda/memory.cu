/* device/cuda/memory.cu: device memory, and what goes there and back.
 *
 * Small uploads, and the host arrays that operations are given, are copied to a pinned ring; a
 * kernel takes them from there in its place among the others, so that they are part of a graph:
 * what the ring holds is read when the graph runs. The ring begins anew whenever someone has waited
 * for all that was queued, so that a step finds the same places as the step before; or, behind a
 * letter that is on its way (mail.cu), on its other side, which the kernels find by how many
 * letters there have been: their arguments are the same. Large uploads have carry.cu.
 */
#include "device/cuda/cuda.h"

#include <string.h>

#include "device/cuda/blas.h"
#include "device/cuda/carry.h"

extern "C" {
#include "base/memory.h"
}

enum {
    RING = 1 << 20,
    SMALL = 64 * 1024, /* bytes of an upload that goes through the ring */
    LANDING = 1 << 20, /* of a download that takes one copy */
    ALIGNMENT = 256,
    N_STAGED = 64, /* copies that are remembered */
    N_CHAINS = 1024,
    SLAB = 64 << 20,
    BIG_MODEL = 256 << 20, /* takes long enough to load another library meanwhile */
    COPY_THREADS = 256,
    N_TOGETHER = 8, /* uploads of one launch */
    TOGETHER_THREADS = 512,
    MOST_TOGETHER = 16 * 1024 /* bytes of one of them */
};

/* Uploads that go together, each by a block. */
struct together {
    struct {
        char *to;
        const char *from;
        size_t size;
    } uploads[N_TOGETHER];
    int64_t n;
    const unsigned *turns;
};

/* Bytes of the ring that have a copy on the device. */
struct staged {
    size_t at, size;
};

/* Memory that copies of mapped pieces lie in, one after another; freed with the last of them. */
struct slab {
    struct slab *next;
    char *data;
    size_t used, size;
    int n_views;
};

/* A piece of a mapped file, and its copy. */
struct mapping {
    const void *data;
    size_t size;
    char *view;
    struct slab *slab;
};

/* Bytes that stay, in the chain of their hash, with their copy. */
struct kept {
    struct kept *next;
    size_t size;
    void *copy;
    char data[];
};

/* Device memory that grows. */
struct room {
    void *data;
    size_t size;
};

struct cuda_memory {
    char *ring, *ring_copy; /* [2, RING] pinned, and [RING] on the device */
    unsigned *turns_there;  /* letters so far, on the device */
    unsigned turns, done;   /* the same of those queued, and of those known to have come */
    size_t ring_used;
    struct cuda_written together; /* the last launch of uploads */
    struct staged staged[N_STAGED];
    int n_staged;
    char *landing;           /* pinned */
    struct carrier *carrier; /* carry.cu; NULL: not needed yet */
    void **idle;             /* to be freed when nobody is at work */
    size_t n_idle, idle_capacity;
    struct room scratch, halves[2];
    void *host_room;
    size_t host_size;
    struct kept *kept[N_CHAINS];
    struct mapping *mappings; /* by address, then size */
    size_t n_mappings, capacity;
    size_t mapped; /* bytes so far */
    struct slab *slabs;
};

static size_t aligned(size_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* --- Copying by kernel --- */

/* Both ends 16-byte aligned, or copied byte by byte. */
static __device__ __forceinline__ void copy_bytes(char *to, const char *from, size_t size, size_t i,
                                                  size_t step)
{
    size_t words = ((uintptr_t)to | (uintptr_t)from) % 16 ? 0 : size / 16;

    for (size_t w = i; w < words; w += step)
        ((uint4 *)to)[w] = ((const uint4 *)from)[w];
    for (size_t b = words * 16 + i; b < size; b += step)
        to[b] = from[b];
}

/* From the side of the ring that is at work; turns NULL: it is not the ring. */
static __device__ __forceinline__ const char *at_side(const char *from, const unsigned *turns)
{
    return turns && __ldcg(turns) % 2 ? from + RING : from;
}

static __global__ void copy_kernel(char *to, const char *from, size_t size, const unsigned *turns)
{
    cuda_wait();
    copy_bytes(to, at_side(from, turns), size, (size_t)blockIdx.x * blockDim.x + threadIdx.x,
               (size_t)gridDim.x * blockDim.x);
}

static __global__ void __launch_bounds__(TOGETHER_THREADS) together_kernel(struct together all)
{
    cuda_wait();
    if (blockIdx.x < all.n)
        copy_bytes(all.uploads[blockIdx.x].to, at_side(all.uploads[blockIdx.x].from, all.turns),
                   all.uploads[blockIdx.x].size, threadIdx.x, TOGETHER_THREADS);
}

static void queue_copy(struct cuda_device *c, void *to, const void *from, size_t size,
                       const unsigned *turns)
{
    size_t blocks = (size / 16 + COPY_THREADS - 1) / COPY_THREADS, most = 8 * c->n_processors;
    struct cuda_shape shape = {dim3((unsigned)(blocks < 1      ? 1
                                               : blocks < most ? blocks
                                                               : most)),
                               dim3(COPY_THREADS), 0, true, true};

    if (size)
        cuda_launch(c, copy_kernel, shape, (char *)to, (const char *)from, size, turns);
}

/* One more upload in a launch: as a part of the last one if it goes on from there, or in a block of
 * its own. */
static bool join(struct together *all, char *to, const char *from, size_t size)
{
    size_t last = all->uploads[all->n - 1].size;

    for (int i = 0; i < all->n; i++)
        if (to < all->uploads[i].to + all->uploads[i].size && all->uploads[i].to < to + size)
            return false;
    if (all->uploads[all->n - 1].to + last == to && all->uploads[all->n - 1].from + last == from &&
        last + size <= MOST_TOGETHER) {
        all->uploads[all->n - 1].size += size;
        return true;
    }
    if (all->n == N_TOGETHER)
        return false;
    all->uploads[all->n].to = to;
    all->uploads[all->n].from = from;
    all->uploads[all->n++].size = size;
    return true;
}

/* From the ring. Few bytes join the uploads before them, which saves a launch that nothing can
 * overlap with: where nothing came between, or, staged, if these are still to be given to the
 * stream: nobody asks for what is staged before it is. */
static void queue_upload(struct cuda_device *c, void *to, const void *from, size_t size,
                         bool staged)
{
    struct cuda_memory *m = c->memory;
    struct cuda_shape shape = {dim3(N_TOGETHER), dim3(TOGETHER_THREADS), 0, true, true};
    struct together all = {}, *before;

    if (size > MOST_TOGETHER) {
        queue_copy(c, to, from, size, m->turns_there);
        return;
    }
    if (!staged)
        cuda_settle(c);
    before = (struct together *)cuda_queue_find(c, m->together, (const void *)together_kernel);
    if (before && (staged || cuda_queue_last(c).at == m->together.at) &&
        join(before, (char *)to, (const char *)from, size))
        return;
    all.uploads[0].to = (char *)to;
    all.uploads[0].from = (const char *)from;
    all.uploads[0].size = size;
    all.n = 1;
    all.turns = m->turns_there;
    cuda_launch(c, together_kernel, shape, all);
    m->together = cuda_queue_last(c);
}

/* --- The ring --- */

void cuda_staging_reset(struct cuda_device *c)
{
    c->memory->ring_used = 0;
    c->memory->n_staged = 0;
    c->memory->done = c->memory->turns;
}

unsigned *cuda_turns(struct cuda_device *c)
{
    return c->memory->turns_there;
}

unsigned cuda_turn(struct cuda_device *c)
{
    struct cuda_memory *m = c->memory;

    m->ring_used = 0;
    m->n_staged = 0;
    return ++m->turns;
}

void cuda_turn_done(struct cuda_device *c, unsigned turn)
{
    if ((int)(turn - c->memory->done) > 0)
        c->memory->done = turn;
}

void cuda_count_turns(struct cuda_device *c)
{
    struct cuda_memory *m = c->memory;
    unsigned n;

    if (cudaMemcpy(&n, m->turns_there, sizeof n, cudaMemcpyDeviceToHost) == cudaSuccess)
        m->turns = m->done = n;
    (void)cudaGetLastError();
}

/* What the host finds at a place of the ring. */
static char *ring_at(const struct cuda_memory *m, size_t at)
{
    return m->ring + (m->turns % 2 ? RING : 0) + at;
}

/* Where in the ring the bytes lie; they may be as many as it has. */
static size_t into_ring(struct cuda_device *c, const void *data, size_t size)
{
    struct cuda_memory *m = c->memory;

    /* This side was at work up to the last letter but one. */
    if (m->turns - m->done > 1 || RING - m->ring_used < aligned(size))
        cuda_drain(c);

    size_t at = m->ring_used;
    memcpy(ring_at(m, at), data, size);
    m->ring_used += aligned(size);
    return at;
}

const void *cuda_stage(struct cuda_device *c, const void *data, size_t size)
{
    struct cuda_memory *m = c->memory;

    for (int i = 0; i < m->n_staged; i++)
        if (m->staged[i].size == size && !memcmp(ring_at(m, m->staged[i].at), data, size))
            return m->ring_copy + m->staged[i].at;
    if (size > RING) {
        cuda_fail(c, CLM_ERR_UNSUPPORTED, "cuda: %zu bytes of arguments; %d are the most", size,
                  (int)RING);
        return NULL;
    }

    size_t at = into_ring(c, data, size);
    queue_upload(c, m->ring_copy + at, m->ring + at, aligned(size), true);
    if (m->n_staged < N_STAGED)
        m->staged[m->n_staged++] = (struct staged){at, size};
    return c->failure.code ? NULL : m->ring_copy + at;
}

/* Word by word: a table of experts is looked for at every step. */
static unsigned chain_of(const void *data, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)data;
    uint64_t hash = size, word;

    for (size_t i = 0; i < size; i += sizeof word) {
        word = 0;
        memcpy(&word, bytes + i, size - i < sizeof word ? size - i : sizeof word);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    return (unsigned)(hash % N_CHAINS);
}

const void *cuda_keep(struct cuda_device *c, const void *data, size_t size)
{
    struct kept **chain = &c->memory->kept[chain_of(data, size)], *k;

    for (k = *chain; k; k = k->next)
        if (k->size == size && !memcmp(k->data, data, size))
            return k->copy;
    k = (struct kept *)mem_alloc(sizeof *k + size);
    if (!k) {
        cuda_fail(c, CLM_ERR_NOMEM, "cuda: no memory for a table of %zu bytes", size);
        return NULL;
    }
    k->copy = cuda_alloc(&c->base, size, &c->failure);
    if (!k->copy) {
        mem_free(k);
        return NULL;
    }
    memcpy(k->data, data, size);
    k->size = size;
    k->next = *chain;
    *chain = k;
    cuda_upload(&c->base, k->copy, data, size);
    return k->copy;
}

/* --- Scratch --- */

void *cuda_host_room(struct cuda_device *c, size_t size)
{
    struct cuda_memory *m = c->memory;

    if (size <= m->host_size && m->host_room)
        return m->host_room;
    mem_free(m->host_room);
    m->host_size = 0;
    m->host_room = mem_alloc(aligned(size + 1));
    if (!m->host_room)
        cuda_fail(c, CLM_ERR_NOMEM, "cuda: no memory for %zu bytes of arguments", size);
    else
        m->host_size = aligned(size + 1);
    return m->host_room;
}

static void *room_of(struct cuda_device *c, struct room *room, size_t size)
{
    if (size <= room->size)
        return room->data;
    cuda_drain(c);
    cuda_release(c, room->data);
    room->size = 0;
    room->data = cuda_alloc(&c->base, aligned(size), &c->failure);
    if (room->data)
        room->size = aligned(size);
    return room->data;
}

void *cuda_scratch(struct cuda_device *c, size_t size)
{
    return room_of(c, &c->memory->scratch, size);
}

void *cuda_halves_room(struct cuda_device *c, int which, size_t size)
{
    return room_of(c, &c->memory->halves[which], size);
}

/* --- The table's --- */

void *cuda_alloc(device *d, size_t size, clm_error *err)
{
    void *p = NULL;
    size_t free_bytes = 0, total = 0;

    cuda_use(cuda_device_of(d));
    cuda_quiet(cuda_device_of(d));
    cudaError_t status =
        mem_fails_now() ? cudaErrorMemoryAllocation : cudaMalloc(&p, size ? size : 1);
    if (status == cudaSuccess)
        return p;
    (void)cudaGetLastError();
    cudaMemGetInfo(&free_bytes, &total);
    return fail_null(err, status == cudaErrorMemoryAllocation ? CLM_ERR_NOMEM : CLM_ERR_DEVICE,
                     "cuda: no memory for %zu bytes, %zu of %zu are free: %s", size, free_bytes,
                     total, cudaGetErrorString(status));
}

void cuda_free(device *d, void *p)
{
    struct cuda_device *c = cuda_device_of(d);

    if (!p)
        return;
    cuda_drain(c);
    cuda_layer_doubt(c);
    cuda_release(c, p);
}

/* cudaFree may wait for every GPU that has mapped the memory, while one of these waits for this one
 * in a sum. Without room for the list there is a leak, as the only alternative to that. */
void cuda_release(struct cuda_device *c, void *p)
{
    struct cuda_memory *m = c->memory;

    if (!p)
        return;
    if (!c->group) {
        cuda_check(c, cudaFree(p), "freeing memory");
        return;
    }
    if (m->n_idle == m->idle_capacity) {
        size_t capacity = 2 * m->idle_capacity + 64;
        void **more = (void **)mem_resize(m->idle, capacity * sizeof *m->idle);

        if (!more)
            return;
        m->idle = more;
        m->idle_capacity = capacity;
    }
    m->idle[m->n_idle++] = p;
}

void cuda_free_idle(struct cuda_device *c)
{
    struct cuda_memory *m = c->memory;

    if (!m || !m->n_idle)
        return;
    cuda_drain(c);
    while (m->n_idle > 0)
        cuda_check(c, cudaFree(m->idle[--m->n_idle]), "freeing memory");
}

bool cuda_arriving(const struct cuda_device *c)
{
    return c->memory && cuda_carries(c->memory->carrier);
}

void cuda_arrive(struct cuda_device *c)
{
    if (c->memory)
        cuda_carry_end(c, c->memory->carrier);
}

void cuda_copy(device *d, void *to, const void *from, size_t size)
{
    queue_copy(cuda_device_of(d), to, from, size, NULL);
}

void cuda_upload(device *d, void *to, const void *from, size_t size)
{
    struct cuda_device *c = cuda_device_of(d);

    if (!size)
        return;
    if (size > SMALL)
        cuda_carry(c, &c->memory->carrier, to, from, size, cudaMemcpyHostToDevice);
    else
        queue_upload(c, to, c->memory->ring + into_ring(c, from, size), size, false);
}

/* By way of the landing; the least by a kernel, as part of a graph. */
static void download_small(struct cuda_device *c, void *to, const void *from, size_t size)
{
    char *landing = c->memory->landing;

    if (size <= SMALL) {
        queue_copy(c, landing, from, size, NULL);
    } else {
        cudaStream_t stream = cuda_flush(c);

        if (!c->failure.code)
            cuda_check(c, cudaMemcpyAsync(landing, from, size, cudaMemcpyDeviceToHost, stream),
                       "downloading");
    }
    cuda_drain(c);
    if (!c->failure.code)
        memcpy(to, landing, size);
}

void cuda_download(device *d, void *to, const void *from, size_t size)
{
    struct cuda_device *c = cuda_device_of(d);

    if (!size)
        return;
    if (size <= LANDING)
        download_small(c, to, from, size);
    else
        cuda_carry(c, &c->memory->carrier, to, from, size, cudaMemcpyDeviceToHost);
    if (c->failure.code)
        memset(to, 0, size);
}

/* --- Mapped files --- */

static int compare(const struct mapping *m, const void *data, size_t size)
{
    if (m->data != data)
        return (uintptr_t)m->data < (uintptr_t)data ? -1 : 1;
    return m->size < size ? -1 : m->size > size;
}

/* The first mapping that does not come before this one. */
static size_t find_mapping(const struct cuda_memory *m, const void *data, size_t size)
{
    size_t low = 0, high = m->n_mappings;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare(&m->mappings[middle], data, size) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool mapping_room(struct cuda_memory *m)
{
    size_t capacity = 2 * m->capacity + 64;

    if (m->n_mappings < m->capacity)
        return true;
    struct mapping *more =
        (struct mapping *)mem_resize(m->mappings, capacity * sizeof *m->mappings);
    if (!more)
        return false;
    m->mappings = more;
    m->capacity = capacity;
    return true;
}

static struct slab *open_slab(struct cuda_device *c, size_t size, clm_error *err)
{
    struct slab *s = (struct slab *)mem_zeroed(1, sizeof *s);

    if (!s)
        return fail_null(err, CLM_ERR_NOMEM, "cuda: no memory for a list of weights");
    s->size = size < SLAB ? (size_t)SLAB : aligned(size);
    s->data = (char *)cuda_alloc(&c->base, s->size, err);
    if (!s->data) {
        mem_free(s);
        return NULL;
    }
    s->next = c->memory->slabs;
    c->memory->slabs = s;
    return s;
}

/* The first slab with room for a view, or a new one. */
static struct slab *slab_for(struct cuda_device *c, size_t size, clm_error *err)
{
    for (struct slab *s = c->memory->slabs; s; s = s->next)
        if (s->size - s->used >= aligned(size))
            return s;
    return open_slab(c, size, err);
}

const void *cuda_map(device *d, const void *data, size_t size, clm_error *err)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_memory *m = c->memory;
    size_t at = find_mapping(m, data, size);

    if (at < m->n_mappings && !compare(&m->mappings[at], data, size))
        return m->mappings[at].view;
    if (!mapping_room(m))
        return fail_null(err, CLM_ERR_NOMEM, "cuda: no memory to keep track of %zu weights",
                         m->n_mappings);

    struct slab *slab = slab_for(c, size, err);
    if (!slab)
        return NULL;
    char *view = slab->data + slab->used;
    slab->used += aligned(size);
    slab->n_views++;
    m->mapped += size;
    if (m->mapped >= BIG_MODEL && !c->exact)
        cuda_blas_expect(c);
    cuda_carry_later(c, &m->carrier, view, data, size);
    memmove(m->mappings + at + 1, m->mappings + at, (m->n_mappings - at) * sizeof *m->mappings);
    m->mappings[at] = (struct mapping){data, size, view, slab};
    m->n_mappings++;
    return view;
}

static void drop_view(struct cuda_memory *m, struct slab *s)
{
    struct slab **at = &m->slabs;

    if (--s->n_views > 0)
        return;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    cudaFree(s->data);
    mem_free(s);
}

void cuda_unmap(device *d, const void *data, size_t size)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_memory *m = c->memory;
    const char *end = (const char *)data + size;
    size_t first = find_mapping(m, data, 0), last = first;

    cuda_carry_end(c, m->carrier);
    while (last < m->n_mappings && (const char *)m->mappings[last].data < end)
        last++;
    if (first == last)
        return;
    cuda_drain(c);
    cuda_layer_forget(c);
    for (size_t i = first; i < last; i++)
        drop_view(m, m->mappings[i].slab);
    memmove(m->mappings + first, m->mappings + last, (m->n_mappings - last) * sizeof *m->mappings);
    m->n_mappings -= last - first;
}

/* --- Opening and closing --- */

int cuda_memory_open(struct cuda_device *c, clm_error *err)
{
    struct cuda_memory *m = (struct cuda_memory *)mem_zeroed(1, sizeof *m);

    c->memory = m;
    if (!m)
        return fail(err, CLM_ERR_NOMEM, "cuda: no memory for the device");
    cuda_check(c, cudaHostAlloc((void **)&m->ring, 2 * RING, cudaHostAllocDefault),
               "pinning memory");
    cuda_check(c, cudaMalloc((void **)&m->ring_copy, RING), "taking memory for arguments");
    cuda_check(c, cudaMalloc((void **)&c->tickets, CUDA_TICKETS * sizeof *c->tickets),
               "taking memory for tickets");
    cuda_check(c, cudaMalloc((void **)&m->turns_there, sizeof *m->turns_there),
               "taking memory for a count");
    if (m->turns_there)
        cuda_check(c, cudaMemsetAsync(m->turns_there, 0, sizeof *m->turns_there, c->stream),
                   "clearing a count");
    if (c->tickets)
        cuda_check(c, cudaMemsetAsync(c->tickets, 0, CUDA_TICKETS * sizeof *c->tickets, c->stream),
                   "clearing tickets");
    cuda_check(c, cudaHostAlloc((void **)&m->landing, LANDING, cudaHostAllocDefault),
               "pinning memory");
    return c->failure.code ? fail(err, c->failure.code, "%s", c->failure.message) : 0;
}

void cuda_memory_close(struct cuda_device *c)
{
    struct cuda_memory *m = c->memory;

    if (!m)
        return;
    carrier_close(m->carrier);
    for (size_t i = 0; i < m->n_mappings; i++)
        drop_view(m, m->mappings[i].slab);
    for (int i = 0; i < N_CHAINS; i++)
        for (struct kept *k = m->kept[i], *next; k; k = next) {
            next = k->next;
            cudaFree(k->copy);
            mem_free(k);
        }
    mem_free(m->host_room);
    mem_free(m->idle);
    cudaFree(m->scratch.data);
    cudaFree(m->halves[0].data);
    cudaFree(m->halves[1].data);
    cudaFree(c->tickets);
    cudaFree(m->ring_copy);
    cudaFree(m->turns_there);
    cudaFreeHost(m->ring);
    cudaFreeHost(m->landing);
    mem_free(m->mappings);
    mem_free(m);
    c->memory = NULL;
}
