/* device/cuda/sums.cu: sums over GPUs that reach each other's memory, queued as every kernel is: a
 * list goes on behind them, graphs have them, and they and what follows are launched early.
 *
 * Each GPU has a box for each other one, which writes its numbers there. A number is its own sign
 * that it has come (handover.cuh), so that a sum is one way from GPU to GPU; who has read it makes
 * the place EMPTY again. All add in the order of ranks and have the same bits.
 *
 * A box has two sides in turn, cell by cell: a count of a cell's sums on the device says which, so
 * that arguments stay the same. A GPU writes to a side again after the sum between, for which the
 * other one has sent its numbers by a kernel that began its work when the one before had ended,
 * what that made EMPTY with it.
 */
#include "device/cuda/sums.h"

#include "device/cuda/handover.cuh"
#include "device/cuda/rows.cuh"

extern "C" {
#include "base/memory.h"
}

enum {
    THREADS = 256,
    EACH = 4, /* numbers of a thread in a cell */
    CELL = EACH * THREADS,
    ALL_CELLS = 8192, /* of a side of all boxes of a GPU, 32 MiB: a sum of more is several */
    FEW_CELLS = 2,    /* for each processor, up to which a block has one */
    MORE_CELLS = 4,   /* of a block otherwise */
    LOOKS = 1024      /* in vain, some ms in all, until a thread asks whether it is to stop */
};

/* What a member's kernels have of the sums. */
struct boxes {
    float *own;                      /* [n - 1, 2, side], in the order of the others' ranks */
    float *others[DEVICE_MAX_GROUP]; /* [2, side] of each rank's, this member's; own rank: NULL */
    unsigned *turns;                 /* of each cell */
    size_t side;                     /* numbers of a side of a box: of whole MORE_CELLS */
    const unsigned *stop;            /* in the host's memory */
    int n, rank;
};

struct cuda_sums {
    int n;
    struct cuda_device *members[DEVICE_MAX_GROUP];
    cudaMemPool_t pools[DEVICE_MAX_GROUP];
    struct boxes boxes[DEVICE_MAX_GROUP];
    unsigned *stop; /* pinned */
};

/* --- The kernel --- */

/* Numbers of x, of which n are left from here on; the others are 0. */
static __device__ __forceinline__ void load4(float v[EACH], const float *x, int64_t n, bool wide)
{
    if (wide && n >= EACH) {
        float4 all = __ldcg((const float4 *)x);

        v[0] = all.x, v[1] = all.y, v[2] = all.z, v[3] = all.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
        v[i] = i < n ? __ldcg(x + i) : 0;
}

static __device__ __forceinline__ void store4(float *x, const float v[EACH], int64_t n, bool wide)
{
    if (wide && n >= EACH) {
        *(float4 *)x = make_float4(v[0], v[1], v[2], v[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (i < n)
            x[i] = v[i];
}

/* To another GPU. */
static __device__ __forceinline__ void send4(float *to, const float v[EACH])
{
    uint32_t bits[EACH];

#pragma unroll
    for (int i = 0; i < EACH; i++)
        bits[i] = hand_over_bits(v[i]);
    asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(bits[0]),
                 "r"(bits[1]), "r"(bits[2]), "r"(bits[3])
                 : "memory");
}

static __device__ __forceinline__ bool must_stop(const unsigned *stop)
{
    unsigned n;

    asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(n) : "l"(stop) : "memory");
    return n;
}

/* From another GPU, when all four are there, whose places are EMPTY then; false: they need not come
 * any more. */
static __device__ __forceinline__ bool receive4(float v[EACH], float *from, const unsigned *stop)
{
    uint32_t bits[EACH];

#pragma unroll 1
    for (int looks = 1;; looks++) {
        bool missing = false;

        asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(bits[0]), "=r"(bits[1]), "=r"(bits[2]), "=r"(bits[3])
                     : "l"(from)
                     : "memory");
#pragma unroll
        for (int i = 0; i < EACH; i++)
            missing |= bits[i] == EMPTY;
        if (!missing)
            break;
        if (looks % LOOKS == 0 && must_stop(stop))
            return false;
    }
    asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %1, %1, %1};" ::"l"(from), "r"(EMPTY)
                 : "memory");
#pragma unroll
    for (int i = 0; i < EACH; i++)
        v[i] = __uint_as_float(bits[i]);
    return true;
}

/* The sum over all ranks of a thread's numbers v. */
static __device__ __forceinline__ bool add_parts(float v[EACH], const struct boxes &b, size_t at)
{
    float sum[EACH], part[EACH];

    for (int r = 0; r < b.n; r++) {
        if (r == b.rank) {
#pragma unroll
            for (int i = 0; i < EACH; i++)
                part[i] = v[i];
        } else if (!receive4(part, b.own + (size_t)(r - (r > b.rank)) * 2 * b.side + at, b.stop)) {
            return false;
        }
#pragma unroll
        for (int i = 0; i < EACH; i++)
            sum[i] = r == 0 ? part[i] : sum[i] + part[i];
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
        v[i] = sum[i];
    return true;
}

/* to += scale v, from number i of x on, whose rows are as long as to's. */
static __device__ __forceinline__ void add_to(const struct rows &to, float scale,
                                              const float v[EACH], int64_t i, int64_t n, bool wide)
{
    float y[EACH];

    if (wide) {
        float *at = to.n == 1 ? to.data + i : row_at(to, i / to.cols) + i % to.cols;

        load4(y, at, n, true);
#pragma unroll
        for (int j = 0; j < EACH; j++)
            y[j] = y[j] + scale * v[j];
        store4(at, y, n, true);
        return;
    }
#pragma unroll
    for (int j = 0; j < EACH; j++)
        if (j < n) {
            float *at = row_at(to, (i + j) / to.cols) + (i + j) % to.cols;

            *at = *at + scale * v[j];
        }
}

/* Numbers [first, first + n) of x; N cells of a block. wide: all lies so that 16 bytes can be taken
 * at a time. */
template <int N>
static __global__ void __launch_bounds__(THREADS)
    sum_kernel(const __grid_constant__ struct boxes b, float *x, int64_t first, int64_t n,
               struct rows to, float scale, bool wide)
{
    unsigned cell = blockIdx.x * N;
    int64_t i = (int64_t)cell * CELL + EACH * threadIdx.x;
    float v[N][EACH];
    size_t at[N];

    cuda_begin();
#pragma unroll
    for (int j = 0; j < N; j++) {
        unsigned side = __ldcg(b.turns + cell + j) % 2;

        load4(v[j], x + first + i + j * CELL, n - i - j * CELL, wide);
        at[j] = side * b.side + (size_t)(i + j * CELL);
    }
    for (int r = 0; r < b.n; r++)
#pragma unroll
        for (int j = 0; j < N; j++)
            if (r != b.rank && i + j * CELL < n)
                send4(b.others[r] + at[j], v[j]);
    __syncthreads();
    if (threadIdx.x < N && (int64_t)(cell + threadIdx.x) * CELL < n)
        b.turns[cell + threadIdx.x]++;
#pragma unroll
    for (int j = 0; j < N; j++) {
        int64_t left = n - i - j * CELL;

        if (left <= 0 || !add_parts(v[j], b, at[j]))
            return;
        store4(x + first + i + j * CELL, v[j], left, wide);
        if (to.data)
            add_to(to, scale, v[j], first + i + j * CELL, left, wide);
    }
}

/* --- Queueing --- */

static void launch(struct cuda_device *c, const struct cuda_sum *s, const struct rows &to,
                   float scale)
{
    const struct boxes *b = &s->sums->boxes[c->rank];
    int64_t n = (int64_t)s->x.rows * s->x.cols;
    uint64_t both = (uintptr_t)s->x.data | (uintptr_t)to.data;
    bool wide =
        both % 16 == 0 && (!to.data || to.n == 1 || (to.stride % EACH == 0 && to.cols % EACH == 0));

    for (int64_t first = 0, some; first < n; first += some) {
        some = n - first < (int64_t)b->side ? n - first : (int64_t)b->side;

        unsigned cells = blocks_for(some, CELL);
        bool few = cells <= FEW_CELLS * (unsigned)c->n_processors;
        struct cuda_shape shape =
            shape_of(dim3(few ? cells : blocks_for(cells, MORE_CELLS)), dim3(THREADS), 0);

        cuda_launch(c, few ? sum_kernel<1> : sum_kernel<MORE_CELLS>, shape, *b, (float *)s->x.data,
                    first, some, to, scale, wide);
    }
}

void cuda_launch_sum(struct cuda_device *c, const struct cuda_sum *s)
{
    launch(c, s, (struct rows){}, 0);
}

void cuda_sums_add(struct cuda_device *c, struct cuda_sums *s, const tensor *x)
{
    cuda_settle(c);
    c->waiting.sum = (struct cuda_sum){*x, s};
    c->waiting.kind = CUDA_SUM;
}

bool cuda_sum_add(struct cuda_device *c, const struct cuda_addition *a)
{
    const struct cuda_sum s = c->waiting.sum;

    if (c->waiting.kind != CUDA_SUM || !cuda_same(&s.x, &a->x) || a->y.rows != a->x.rows ||
        a->y.cols != a->x.cols || cuda_overlap(&a->y, &a->x))
        return false;
    cuda_take(c);
    launch(c, &s, rows_of(&a->y), a->scale);
    return true;
}

/* --- Opening and closing --- */

static size_t box_bytes(const struct cuda_sums *s)
{
    return (size_t)(s->n - 1) * 2 * s->boxes[0].side * sizeof(float);
}

static size_t turns_bytes(const struct cuda_sums *s)
{
    return s->boxes[0].side / CELL * sizeof(unsigned);
}

/* Memory of a member that all of the others reach; and its kernels, so that none is loaded while
 * others wait for its sums. */
static bool open_box(struct cuda_sums *s, int rank)
{
    struct cuda_device *c = s->members[rank];
    struct boxes *b = &s->boxes[rank];
    struct cudaMemPoolProps props = {};
    cudaFuncAttributes own;

    cuda_use(c);
    props.allocType = cudaMemAllocationTypePinned;
    props.location.type = cudaMemLocationTypeDevice;
    props.location.id = c->index;
    if (cudaMemPoolCreate(&s->pools[rank], &props) != cudaSuccess)
        return false;
    for (int i = 0; i < s->n; i++) {
        cudaMemAccessDesc access = {};
        int can = 0;

        if (s->members[i]->index == c->index)
            continue;
        access.location.type = cudaMemLocationTypeDevice;
        access.location.id = s->members[i]->index;
        access.flags = cudaMemAccessFlagsProtReadWrite;
        if (cudaDeviceCanAccessPeer(&can, s->members[i]->index, c->index) != cudaSuccess || !can ||
            cudaMemPoolSetAccess(s->pools[rank], &access, 1) != cudaSuccess)
            return false;
    }
    b->n = s->n;
    b->rank = rank;
    b->stop = s->stop;
    return cudaMallocFromPoolAsync((void **)&b->own, box_bytes(s), s->pools[rank], c->stream) ==
               cudaSuccess &&
           cudaMallocFromPoolAsync((void **)&b->turns, turns_bytes(s), s->pools[rank], c->stream) ==
               cudaSuccess &&
           cudaStreamSynchronize(c->stream) == cudaSuccess &&
           cudaFuncGetAttributes(&own, sum_kernel<1>) == cudaSuccess &&
           cudaFuncGetAttributes(&own, sum_kernel<MORE_CELLS>) == cudaSuccess;
}

static bool open_all(struct cuda_sums *s)
{
    clm_error ignored = {};

    if (cudaHostAlloc((void **)&s->stop, sizeof *s->stop, cudaHostAllocPortable) != cudaSuccess)
        return false;
    for (int i = 0; i < s->n; i++)
        if (!open_box(s, i))
            return false;
    for (int i = 0; i < s->n; i++)
        for (int r = 0; r < s->n; r++)
            if (r != i)
                s->boxes[i].others[r] =
                    s->boxes[r].own + (size_t)(i - (i > r)) * 2 * s->boxes[r].side;
    return cuda_sums_begin(s, &ignored) == 0;
}

struct cuda_sums *cuda_sums_open(struct cuda_device *const *members, int n)
{
    struct cuda_sums *s = (struct cuda_sums *)mem_zeroed(1, sizeof *s);

    if (!s)
        return NULL;
    s->n = n;
    for (int i = 0; i < n; i++) {
        s->members[i] = members[i];
        s->boxes[i].side = (size_t)(ALL_CELLS / (n - 1) / MORE_CELLS * MORE_CELLS) * CELL;
    }
    if (open_all(s))
        return s;
    (void)cudaGetLastError();
    cuda_sums_close(s);
    return NULL;
}

void cuda_sums_close(struct cuda_sums *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->n; i++) {
        cuda_use(s->members[i]);
        if (s->boxes[i].own)
            cudaFree(s->boxes[i].own);
        if (s->boxes[i].turns)
            cudaFree(s->boxes[i].turns);
    }
    for (int i = 0; i < s->n; i++)
        if (s->pools[i])
            cudaMemPoolDestroy(s->pools[i]);
    cudaFreeHost(s->stop);
    mem_free(s);
}

void cuda_sums_stop(struct cuda_sums *s)
{
    __atomic_store_n(s->stop, 1, __ATOMIC_SEQ_CST);
}

int cuda_sums_begin(struct cuda_sums *s, clm_error *err)
{
    cudaError_t status = cudaSuccess;

    for (int i = 0; i < s->n && status == cudaSuccess; i++) {
        cudaStream_t stream = s->members[i]->stream;

        cuda_use(s->members[i]);
        status = cudaMemsetAsync(s->boxes[i].own, EMPTY & 0xFF, box_bytes(s), stream);
        if (status == cudaSuccess)
            status = cudaMemsetAsync(s->boxes[i].turns, 0, turns_bytes(s), stream);
        if (status == cudaSuccess)
            status = cudaStreamSynchronize(stream);
    }
    if (status != cudaSuccess)
        return fail(err, CLM_ERR_DEVICE, "cuda: connecting GPUs: %s", cudaGetErrorString(status));
    __atomic_store_n(s->stop, 0, __ATOMIC_SEQ_CST);
    return 0;
}
