/* device/cuda/matmul.cu: which way a product goes, and rows of an embedding.
 *
 * Exact products all go one way, in f32. Of others few rows go through the kernels that read
 * weights at the speed of memory, many to cuBLASLt. Weights of f32 stay f32 everywhere; so do
 * products that are to be careful, those of routers: what these choose should not turn on a
 * rounding.
 */
#include "device/cuda/products.h"

#include <float.h>

#include "device/cuda/rows.cuh"

enum {
    THREADS = 256,
    FEW = 8,          /* rows that no other way is faster for */
    CAREFUL_ROWS = 64 /* of a product in f32 */
};

/* --- Products --- */

/* The norm of more rows is not computed by every block that reads them. */
enum { NORM_ROWS = 4 };

static bool is_aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* May a product write there while its blocks read what they multiply, and write what they must? */
static bool may_write(const struct cuda_product *p, const tensor *y)
{
    const tensor w = {(void *)(uintptr_t)p->norm.w, DTYPE_F32, 1, p->x.cols, p->x.cols};

    return !cuda_overlap(y, &p->x) &&
           (!p->normed || (!cuda_overlap(y, &p->norm.x) && (!p->norm.w || !cuda_overlap(y, &w)))) &&
           (!p->routed ||
            (!cuda_overlap(y, &p->routing.logits) && !cuda_overlap(y, &p->routing.ids) &&
             !cuda_overlap(y, &p->routing.weights)));
}

/* Can the product compute the norm that it is of? */
static bool takes_norm(const struct cuda_product *p, const struct cuda_norm *n)
{
    struct cuda_product both = *p;

    both.normed = true;
    both.norm = *n;
    for (int i = 0; i < p->n_jobs; i++)
        if (!may_write(&both, &p->y[i]))
            return false;
    return cuda_same(&n->y, &p->x) && n->x.rows <= NORM_ROWS && rows_are_wide(&n->x) &&
           rows_are_wide(&n->y) && is_aligned(n->w);
}

/* Can the product find by itself the experts that it is of? */
static bool takes_routing(const struct cuda_product *p, const struct cuda_routing *r)
{
    struct cuda_product both = *p;

    both.routed = true;
    both.routing = *r;
    for (int i = 0; i < p->n_jobs; i++)
        if (!may_write(&both, &p->y[i]))
            return false;
    return p->experts.ids == (const int32_t *)r->ids.data && r->ids.rows == 1 &&
           p->experts.per_row == r->ids.cols && p->y[0].rows == r->ids.cols &&
           p->experts.n_experts == r->p.n_experts && cuda_stream_routes(p, r) &&
           !cuda_overlap(&p->x, &r->ids) && !cuda_overlap(&p->x, &r->weights) &&
           !cuda_overlap(&r->logits, &r->ids) && !cuda_overlap(&r->logits, &r->weights);
}

void cuda_product_start(struct cuda_device *c, struct cuda_product *p)
{
    struct cuda_waiting *w = &c->waiting;

    if (w->kind == CUDA_ROUTING && p->experts.ids && takes_routing(p, &w->routing)) {
        cuda_take(c);
        p->routed = true;
        p->routing = w->routing;
    }

    if (w->kind == CUDA_NORM && !p->experts.ids && takes_norm(p, &w->norm)) {
        cuda_take(c);
        p->normed = true;
        p->norm = w->norm;
    }
    if (p->n_jobs > 2) {
        cuda_launch_product(c, p);
        return;
    }
    cuda_settle(c);
    w->product = *p;
    w->kind = CUDA_PRODUCT;
}

bool cuda_product_combine(struct cuda_device *c, const struct cuda_combination *m)
{
    struct cuda_product *p = &c->waiting.product;

    if (c->waiting.kind != CUDA_PRODUCT || p->n_jobs != 1 || !p->experts.ids || p->routed ||
        p->tail.kind != CUDA_NO_TAIL || !cuda_same(&p->y[0], &m->x) || m->y.rows != 1 ||
        m->weights.cols != m->x.rows || m->y.cols != m->x.cols || cuda_overlap(&m->y, &m->x) ||
        cuda_overlap(&m->y, &m->weights) || cuda_overlap(&m->x, &m->weights) ||
        !may_write(p, &m->y) || !cuda_stream_combines(p))
        return false;
    p->tail.kind = CUDA_TAIL_COMBINE;
    p->tail.y = m->y;
    p->tail.weights = m->weights;
    return true;
}

/* To the product that waits with what its experts answered put together. */
static bool add_combined(struct cuda_device *c, const struct cuda_addition *a)
{
    struct cuda_product *p = &c->waiting.product;

    if (!cuda_same(&p->tail.y, &a->x) || a->y.rows != a->x.rows || a->y.cols != a->x.cols ||
        cuda_overlap(&a->y, &a->x) || cuda_overlap(&a->y, &p->y[0]) ||
        cuda_overlap(&a->y, &p->tail.weights) || !may_write(p, &a->y))
        return false;
    cuda_take(c);
    p->tail.to = a->y;
    p->tail.scale = a->scale;
    cuda_launch_product(c, p);
    return true;
}

bool cuda_product_add(struct cuda_device *c, const struct cuda_addition *a)
{
    struct cuda_product *p = &c->waiting.product;

    if (c->waiting.kind == CUDA_PRODUCT && p->tail.kind == CUDA_TAIL_COMBINE)
        return add_combined(c, a);
    if (c->waiting.kind != CUDA_PRODUCT || p->n_jobs != 1 || p->experts.ids ||
        !cuda_same(&p->y[0], &a->x) || a->y.rows != a->x.rows || a->y.cols != a->x.cols ||
        cuda_overlap(&a->y, &a->x) || !may_write(p, &a->y))
        return false;
    cuda_take(c);
    p->tail = {};
    p->tail.kind = CUDA_TAIL_ADD;
    p->tail.y = a->y;
    p->tail.scale = a->scale;
    cuda_launch_product(c, p);
    return true;
}

bool cuda_product_glu(struct cuda_device *c, const tensor *y, const tensor *gate, const tensor *up,
                      enum activation act)
{
    struct cuda_product *p = &c->waiting.product;

    if (c->waiting.kind != CUDA_PRODUCT || p->n_jobs != 2 || !cuda_same(&p->y[0], gate) ||
        !cuda_same(&p->y[1], up) || gate->cols != up->cols || gate->cols % 8 ||
        y->rows != gate->rows || y->cols != gate->cols || cuda_overlap(y, up) ||
        (!cuda_same(y, gate) && cuda_overlap(y, gate)) || !may_write(p, y))
        return false;
    cuda_take(c);
    p->tail = {};
    p->tail.kind = CUDA_TAIL_GLU;
    p->tail.y = *y;
    p->tail.act = act;
    cuda_launch_product(c, p);
    return true;
}

/* Jobs that are alike, so many rows at a time. */
static void product_in_streams(struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                               const tensor *x, int most)
{
    for (int first = 0, n; first < x->rows; first += n) {
        struct matmul_job parts[CUDA_STREAM_JOBS];
        struct cuda_product product;
        tensor y[CUDA_STREAM_JOBS], some;

        n = x->rows - first < most ? x->rows - first : most;
        some = cuda_some_rows(x, first, n);
        for (int i = 0; i < n_jobs; i++) {
            y[i] = cuda_some_rows(jobs[i].y, first, n);
            parts[i] = (struct matmul_job){&y[i], jobs[i].w, jobs[i].bias};
        }
        cuda_product_of(&product, parts, n_jobs, &some);
        cuda_product_start(c, &product);
    }
}

/* In f32, with the norm that waits where it is of that. */
static void careful_product(struct cuda_device *c, const struct matmul_job *job, const tensor *x)
{
    const struct cuda_waiting *w = &c->waiting;
    struct cuda_product p;
    struct cuda_norm norm = w->norm;

    cuda_product_of(&p, job, 1, x);
    if (x->rows > CAREFUL_ROWS) {
        cuda_product_dense_f32(c, job, x);
    } else if (w->kind == CUDA_NORM && takes_norm(&p, &norm)) {
        cuda_take(c);
        cuda_product_block(c, job, x, &norm);
    } else {
        cuda_product_block(c, job, x, NULL);
    }
}

/* How many of the jobs can go together, the first of them included. */
static int count_alike(const struct cuda_device *c, const struct matmul_job *jobs, int n_jobs)
{
    int n = 1;

    while (n < n_jobs && n < CUDA_STREAM_JOBS && !jobs[n].careful &&
           cuda_stream_rows(c, jobs[n].w) && cuda_stream_alike(jobs[0].w, jobs[n].w))
        n++;
    return n;
}

/* How many of the jobs, of more rows than a few, go together in tiles. */
static int count_tiles(const struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                       const tensor *x)
{
    int n = 0;

    while (x->rows <= cuda_tiles_rows(c) && n < n_jobs && n < CUDA_STREAM_JOBS &&
           !jobs[n].careful && cuda_tiles_suit(jobs[n].w))
        n++;
    return n;
}

/* Rows up to which a weight is read for so few at a time rather than given to cuBLASLt. */
static int few_rows(const struct cuda_device *c, const struct weight *w)
{
    int most = cuda_stream_rows(c, w);

    return w->format <= WEIGHT_BF16 || most < FEW ? FEW : most;
}

static bool is_few(const struct cuda_device *c, const struct weight *w, int n_rows)
{
    return n_rows <= few_rows(c, w);
}

void cuda_matmul(device *d, const struct matmul_job *jobs, int n_jobs, const tensor *x)
{
    struct cuda_device *c = cuda_device_of(d);

    for (int i = 0, n; i < n_jobs && x->rows > 0; i += n) {
        int most = cuda_stream_rows(c, jobs[i].w);

        n = 1;
        if (c->exact) {
            cuda_product_f32(c, &jobs[i], x, NULL);
            continue;
        }
        if (jobs[i].careful) {
            careful_product(c, &jobs[i], x);
            continue;
        }
        if (!is_few(c, jobs[i].w, x->rows)) {
            int tiles = count_tiles(c, jobs + i, n_jobs - i, x);

            if (tiles) {
                struct cuda_product product;

                cuda_product_of(&product, jobs + i, tiles, x);
                product.in_tiles = true;
                cuda_product_start(c, &product);
                n = tiles;
                continue;
            }
            while (i + n < n_jobs && !jobs[i + n].careful && !is_few(c, jobs[i + n].w, x->rows))
                n++;
            if (cuda_product_dense(c, jobs + i, n, x))
                continue;
            n = 1;
        }
        if (most) {
            n = count_alike(c, jobs + i, n_jobs - i);
            product_in_streams(c, jobs + i, n, x, most);
        } else {
            cuda_product_f32(c, &jobs[i], x, NULL);
        }
    }
}

/* --- Rows --- */

static __global__ void __launch_bounds__(THREADS)
    embed_kernel(struct rows y, const struct weight w, const int32_t *ids, float scale)
{
    int k = (int)(blockIdx.x * THREADS + threadIdx.x) * 8;

    cuda_begin();
    if (k >= w.n_in)
        return;
    for (int r = blockIdx.y; r < y.n; r += gridDim.y) {
        float *to = row_at(y, r) + k, v[8];

        weight_numbers8(v, w, ids[r] < 0 ? 0 : ids[r], k);
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (k + i < w.n_in)
                to[i] = scale * v[i];
    }
}

void cuda_embed(device *d, tensor *y, const struct weight *w, const int32_t *ids, float scale)
{
    dim3 grid(blocks_for(w->n_in, 8 * THREADS), grid_rows(y->rows));

    cuda_launch(cuda_device_of(d), embed_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(y), *w,
                ids, scale);
}

/* --- The largest --- */

enum {
    ARGMAX_THREADS = 1024,
    ARGMAX_EACH = 4, /* of a thread, on their way together */
    ARGMAX_COLUMNS = ARGMAX_EACH * ARGMAX_THREADS,
    MAX_ARGMAX_BLOCKS = 32
};

/* A number and its place; what is NaN or +inf counts as +inf at -1. */
struct largest {
    float value;
    int at;
};

/* The better of two, the first on ties. */
static __device__ __forceinline__ struct largest better(struct largest a, struct largest b)
{
    return b.value > a.value || (b.value == a.value && b.at < a.at) ? b : a;
}

static __device__ struct largest warp_largest(struct largest x)
{
    for (int step = WARP / 2; step; step /= 2) {
        struct largest other = {__shfl_xor_sync(0xFFFFFFFF, x.value, step),
                                __shfl_xor_sync(0xFFFFFFFF, x.at, step)};

        x = better(x, other);
    }
    return x;
}

/* Of all threads of the block, in every thread. */
static __device__ struct largest block_largest(struct largest x, struct largest *room)
{
    x = warp_largest(x);
    if (threadIdx.x % WARP == 0)
        room[threadIdx.x / WARP] = x;
    __syncthreads();
    return warp_largest(room[threadIdx.x % WARP]);
}

/* Blocks (b, row) look at every gridDim.x-th piece of a row; parts [rows, gridDim.x] are what they
 * find, which the last of a row puts together. */
static __global__ void argmax_kernel(int32_t *ids, struct rows x, struct largest *parts,
                                     unsigned *tickets)
{
    __shared__ struct largest room[ARGMAX_THREADS / WARP];
    __shared__ bool last;
    struct largest best = {-INFINITY, INT32_MAX};

    cuda_begin();
    const float *row = row_at(x, blockIdx.y);
    int step = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < x.cols; i += ARGMAX_EACH * step) {
        float v[ARGMAX_EACH];

#pragma unroll
        for (int j = 0; j < ARGMAX_EACH; j++)
            v[j] = i + j * step < x.cols ? row[i + j * step] : -INFINITY;
#pragma unroll
        for (int j = 0; j < ARGMAX_EACH; j++)
            best = better(best, v[j] <= FLT_MAX ? (struct largest){v[j], i + j * step}
                                                : (struct largest){INFINITY, -1});
    }
    best = block_largest(best, room);
    if (gridDim.x > 1) {
        if (threadIdx.x == 0) {
            parts[blockIdx.y * gridDim.x + blockIdx.x] = best;
            __threadfence();
            last = atomicAdd(tickets + blockIdx.y, 1u) == gridDim.x - 1;
        }
        __syncthreads();
        if (!last)
            return;
        __threadfence();
        best = (struct largest){-INFINITY, INT32_MAX};
        if (threadIdx.x < gridDim.x) {
            const struct largest *part = parts + blockIdx.y * gridDim.x + threadIdx.x;

            best = (struct largest){__ldcg(&part->value), __ldcg(&part->at)};
        }
        best = block_largest(best, room);
    }
    if (threadIdx.x)
        return;
    ids[blockIdx.y] = best.value > -INFINITY ? best.at : -1;
    if (gridDim.x > 1)
        tickets[blockIdx.y] = 0;
}

void cuda_argmax(device *d, int32_t *ids, const tensor *x)
{
    struct cuda_device *c = cuda_device_of(d);
    unsigned n = blocks_for(x->cols, ARGMAX_COLUMNS);

    n = n > MAX_ARGMAX_BLOCKS ? MAX_ARGMAX_BLOCKS : n;
    for (int first = 0; first < x->rows; first += CUDA_TICKETS) {
        struct rows rows = rows_of(x);
        void *parts;

        rows.data += first * rows.stride;
        rows.n = x->rows - first < CUDA_TICKETS ? x->rows - first : CUDA_TICKETS;
        parts = cuda_scratch(c, (size_t)rows.n * n * sizeof(struct largest));
        cuda_launch(c, argmax_kernel, shape_of(dim3(n, (unsigned)rows.n), dim3(ARGMAX_THREADS), 0),
                    ids + first, rows, (struct largest *)parts, c->tickets);
    }
}
