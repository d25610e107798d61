/* device/cuda/layer_router.cu: what a router makes of the input of the product before it. Its
 * logits are R N (x + s O a), with R its rows, N the norm's weights, O the output projection, all
 * of which stay what they are: of M = s R N O the router knows its logits from a and x as soon as x
 * + s O a is known itself (layer_experts.cu). The norm's factor comes later, which leaves the order
 * of experts as it is.
 *
 * A matrix is made when a layer is launched for the first time, again when memory was given back in
 * which weights may have been, and is kept until weights are unmapped.
 */
#include "device/cuda/layer_experts.cuh"
#include "device/cuda/weights.cuh"

extern "C" {
#include "base/memory.h"
}

enum { FEW = 4 /* experts of a block */, THREADS = 128, PIECE = 256 };

/* A thread has eight numbers of FEW rows. */
static __global__ void __launch_bounds__(THREADS)
    router_of_kernel(float *to, struct weight out, struct weight router, const float *norm,
                     float scale)
{
    __shared__ float r[FEW][PIECE];
    int first = blockIdx.y * FEW, k = (blockIdx.x * THREADS + threadIdx.x) * 8;
    float sums[FEW][8] = {};

    cuda_begin();
    /* As layer_experts.cu takes them, for the compiler to know. */
    out.format = router.format = WEIGHT_AFFINE;
    out.bits = 4;
    out.group_size = router.group_size = 64;
    for (int from = 0; from < out.n_out; from += PIECE) {
        for (int i = threadIdx.x; i < FEW * PIECE / 8; i += THREADS) {
            int e = first + i / (PIECE / 8), o = from + i % (PIECE / 8) * 8;
            float v[8] = {};

            if (e < router.n_out && o < out.n_out)
                weight_numbers8(v, router, e, o);
#pragma unroll
            for (int j = 0; j < 8; j++)
                r[i / (PIECE / 8)][i % (PIECE / 8) * 8 + j] =
                    v[j] * (norm && o + j < out.n_out ? norm[o + j] * scale : scale);
        }
        __syncthreads();
        for (int o = 0; o < min(out.n_out - from, +PIECE) && k < out.n_in; o++) {
            float v[8];

            weight_numbers8(v, out, from + o, k);
#pragma unroll
            for (int e = 0; e < FEW; e++)
#pragma unroll
                for (int j = 0; j < 8; j++)
                    sums[e][j] = fmaf(r[e][o], v[j], sums[e][j]);
        }
        __syncthreads();
    }
    for (int e = 0; e < FEW; e++)
        if (first + e < router.n_out)
            for (int j = 0; j < 8 && k + j < out.n_in; j++)
                to[(int64_t)(first + e) * out.n_in + k + j] = sums[e][j];
}

struct router_of {
    struct weight out, router;
    const float *norm;
    float scale;
    float *m;
    bool made;
};

struct cuda_routers {
    struct router_of *all;
    int n, capacity, next; /* next: which is likely to be asked for */
};

static bool same_weight(const struct weight *a, const struct weight *b)
{
    return a->data == b->data && a->scales == b->scales && a->biases == b->biases &&
           a->n_out == b->n_out && a->n_in == b->n_in && a->bits == b->bits &&
           a->scale_type == b->scale_type;
}

static bool is_of(const struct router_of *r, const struct weight *out, const struct weight *router,
                  const float *norm, float scale)
{
    return same_weight(&r->out, out) && same_weight(&r->router, router) && r->norm == norm &&
           r->scale == scale;
}

int cuda_layer_find_router(struct cuda_device *c, const struct weight *out,
                           const struct weight *router, const float *norm, float scale)
{
    struct cuda_routers *all = c->routers;

    if (!all)
        all = c->routers = (struct cuda_routers *)mem_zeroed(1, sizeof *all);
    if (!all)
        return -1;
    for (int i = 0; i < all->n; i++) {
        int at = (all->next + i) % all->n;

        if (is_of(&all->all[at], out, router, norm, scale)) {
            all->next = at + 1;
            return at;
        }
    }
    if (all->n == all->capacity) {
        int capacity = 2 * all->capacity + 16;
        void *more = mem_resize(all->all, (size_t)capacity * sizeof *all->all);

        if (!more)
            return -1;
        all->all = (struct router_of *)more;
        all->capacity = capacity;
    }
    struct router_of r = {*out, *router, norm, scale, NULL, false};
    cuda_use(c);
    if (cudaMalloc((void **)&r.m, (size_t)router->n_out * out->n_in * sizeof *r.m) != cudaSuccess) {
        (void)cudaGetLastError();
        return -1;
    }
    all->all[all->n] = r;
    all->next = all->n + 1;
    return all->n++;
}

const float *cuda_layer_make_router(struct cuda_device *c, int i)
{
    struct router_of *r = &c->routers->all[i];
    struct cuda_shape shape = {};

    if (r->made)
        return r->m;
    shape.grid = dim3((unsigned)((r->out.n_in + THREADS * 8 - 1) / (THREADS * 8)),
                      (unsigned)((r->router.n_out + FEW - 1) / FEW));
    shape.block = dim3(THREADS);
    shape.whole = true;
    cuda_launch(c, router_of_kernel, shape, r->m, r->out, r->router, r->norm, r->scale);
    r->made = !c->failure.code;
    return r->m;
}

void cuda_layer_doubt(struct cuda_device *c)
{
    for (int i = 0; c->routers && i < c->routers->n; i++)
        c->routers->all[i].made = false;
}

void cuda_layer_forget(struct cuda_device *c)
{
    struct cuda_routers *all = c->routers;

    if (!all)
        return;
    for (int i = 0; i < all->n; i++)
        cudaFree(all->all[i].m);
    mem_free(all->all);
    mem_free(all);
    c->routers = NULL;
}
