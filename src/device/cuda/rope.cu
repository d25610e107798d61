/* device/cuda/rope.cu: rotary positions. */
#include "device/cuda/rows.cuh"

enum { THREADS = 128 };

static __global__ void table_kernel(struct rows table, const int32_t *positions,
                                    const float *inv_freq, float mscale)
{
    int n = table.cols / 2, i = blockIdx.x * THREADS + threadIdx.x;

    cuda_begin();
    for (int t = blockIdx.y; i < n && t < table.n; t += gridDim.y) {
        float sine, cosine;

        sincosf(__fmul_rn((float)positions[t], inv_freq[i]), &sine, &cosine);
        row_at(table, t)[i] = mscale * cosine;
        row_at(table, t)[n + i] = mscale * sine;
    }
}

void cuda_rope_table(device *d, tensor *table, const int32_t *positions, const float *inv_freq,
                     float mscale)
{
    dim3 grid(blocks_for(table->cols / 2, THREADS), grid_rows(table->rows));

    cuda_launch(cuda_device_of(d), table_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(table),
                positions, inv_freq, mscale);
}

/* A thread for each pair of a row: of the heads of x, then of those of more, which may have none.
 */
static __global__ void rope_kernel(struct rows x, struct rows more, int head_dim, struct rows table,
                                   bool interleaved)
{
    int n = table.cols / 2, pair = blockIdx.x * THREADS + threadIdx.x;
    int n_heads = x.cols / head_dim, head = pair / n, i = pair % n;
    bool first = head < n_heads;

    cuda_begin();
    if (!first)
        head -= n_heads;
    if (!first && head >= more.cols / head_dim)
        return;
    for (int t = blockIdx.y; t < x.n; t += gridDim.y) {
        float cosine = row_at(table, t)[i], sine = row_at(table, t)[n + i];
        float *row = first ? row_at(x, t) : row_at(more, t);
        float *p = row + (int64_t)head * head_dim + (interleaved ? 2 * i : i);
        float *q = p + (interleaved ? 1 : n), a = *p, b = *q;

        *p = a * cosine - b * sine;
        *q = a * sine + b * cosine;
    }
}

static void rotate(struct cuda_device *c, const struct cuda_rotation *r, const tensor *more)
{
    int n_heads = r->x.cols / r->head_dim + (more ? more->cols / r->head_dim : 0);
    dim3 grid(blocks_for((int64_t)n_heads * (r->table.cols / 2), THREADS), grid_rows(r->x.rows));

    cuda_launch(c, rope_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(&r->x),
                more ? rows_of(more) : (struct rows){}, r->head_dim, rows_of(&r->table),
                r->interleaved);
}

void cuda_settle_rotation(struct cuda_device *c)
{
    struct cuda_rotation r = c->rotation;

    c->rotation.waits = false;
    rotate(c, &r, NULL);
}

/* Do the rows of two tensors share no number? They may be columns of the same rows. */
static bool apart(const tensor *x, const tensor *y)
{
    int64_t ahead = (const float *)y->data - (const float *)x->data;

    if (ahead < 0)
        return apart(y, x);
    if (ahead >= (x->rows - 1) * x->stride + x->cols)
        return true;
    return x->stride == y->stride && ahead % x->stride >= x->cols &&
           ahead % x->stride + y->cols <= x->stride;
}

/* By the same angles, of other numbers? */
static bool goes_along(const struct cuda_rotation *a, const struct cuda_rotation *b)
{
    return a->waits && a->interleaved == b->interleaved && a->head_dim == b->head_dim &&
           a->x.rows == b->x.rows && apart(&a->x, &b->x) && a->table.data == b->table.data &&
           a->table.cols == b->table.cols && a->table.stride == b->table.stride;
}

void cuda_rope(device *d, tensor *x, int head_dim, const tensor *table, bool interleaved)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_rotation r = {true, interleaved, *x, *table, head_dim};

    if (table->cols < 2 || x->cols < head_dim)
        return;
    if (goes_along(&c->rotation, &r)) {
        struct cuda_rotation before = c->rotation;

        c->rotation.waits = false;
        rotate(c, &before, x);
        return;
    }
    cuda_settle(c);
    c->rotation = r;
}
