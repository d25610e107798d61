/* device/cuda/heads.cu: what is done to queries, keys and values head by head between their product
 * and attention: norms and rotations in place, and the store to the cache. One after another they
 * wait, and go in one launch, a warp for each head of each row.
 *
 * Every such operation goes through this kernel, alone or with others, so that exact mode has the
 * same bits either way.
 */
#include "device/cuda/kv_store.cuh"

enum {
    WARPS = 4,
    THREADS = 128,
    KEPT = 256 /* numbers of a head that a warp keeps at hand; larger ones stay where they are */
};

/* One tensor's heads, those of the launch from number first on; steps that are not asked for have
 * no eps or no table. */
struct head_part {
    struct rows x, table;
    const float *w;
    float eps;
    int head_dim, first;
    bool normed, interleaved, stored, values;
};

struct heads {
    struct head_part parts[CUDA_HEAD_PARTS];
    int n_parts, n_heads, n_rows;
};

static __device__ void norm_head(float *x, int n, const float *w, float eps)
{
    int lane = threadIdx.x % WARP;
    float sum = 0;

    for (int i = lane; i < n; i += WARP)
        sum += x[i] * x[i];
    float factor = 1.0f / sqrtf(over_warp(sum, sum_of()) / (float)n + eps);
    for (int i = lane; i < n; i += WARP)
        x[i] = x[i] * factor * (w ? w[i] : 1.0f);
    __syncwarp();
}

/* By a row of the table. */
static __device__ void turn_head(float *x, const float *table, int n, bool interleaved)
{
    for (int i = threadIdx.x % WARP; i < n; i += WARP) {
        float cosine = table[i], sine = table[n + i];
        float *p = x + (interleaved ? 2 * i : i), *q = p + (interleaved ? 1 : n), a = *p, b = *q;

        *p = a * cosine - b * sine;
        *q = a * sine + b * cosine;
    }
    __syncwarp();
}

/* Only numbers that change are written: of a head that is merely turned there may be no others. */
static __global__ void __launch_bounds__(THREADS)
    heads_kernel(const __grid_constant__ struct heads h, const __grid_constant__ struct cuda_kv kv,
                 struct cuda_batch batch)
{
    __shared__ __align__(16) float room[WARPS][KEPT], weights[WARPS][KEPT], turns[WARPS][KEPT];
    int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, t = item / h.n_heads;
    int head = (int)(item % h.n_heads), p = 0, lane = threadIdx.x % WARP;
    struct kv_place place = {};

    cuda_let_go();
    while (p + 1 < h.n_parts && head >= h.parts[p + 1].first)
        p++;
    const struct head_part &part = h.parts[p];
    head -= part.first;
    /* Tables of the cache were uploaded: they are there before anything is waited for. */
    if (part.stored && t < h.n_rows)
        place = kv_place_of(kv, batch, t, head, part.values);
    /* So are the weights of a norm. */
    const float *w = part.w, *table = NULL;
    bool small = part.head_dim <= KEPT;
    if (part.normed && w && small) {
        for (int i = lane; i < part.head_dim; i += WARP)
            weights[threadIdx.x / WARP][i] = w[i];
        w = weights[threadIdx.x / WARP];
    }
    cuda_wait();
    if (t >= h.n_rows)
        return;

    float *x = row_at(part.x, t) + (int64_t)head * part.head_dim, *own = room[threadIdx.x / WARP];
    int n = part.normed ? part.head_dim : part.table.cols;
    if (part.head_dim > KEPT || n == 0)
        own = x;
    if (part.table.cols)
        table = row_at(part.table, t);
    if (own != x) {
        float numbers[KEPT / WARP], table_numbers[KEPT / WARP];

        /* All on their way at the same time. */
#pragma unroll
        for (int j = 0; j < KEPT / WARP; j++) {
            int i = lane + j * WARP;

            numbers[j] = i < (part.stored ? part.head_dim : n) ? x[i] : 0;
            table_numbers[j] = table && i < part.table.cols ? table[i] : 0;
        }
#pragma unroll
        for (int j = 0; j < KEPT / WARP; j++) {
            own[lane + j * WARP] = numbers[j];
            turns[threadIdx.x / WARP][lane + j * WARP] = table_numbers[j];
        }
        table = table ? turns[threadIdx.x / WARP] : NULL;
    }
    __syncwarp();
    if (part.normed)
        norm_head(own, n, w, part.eps);
    if (table)
        turn_head(own, table, part.table.cols / 2, part.interleaved);
    for (int i = lane; own != x && i < n; i += WARP)
        x[i] = own[i];
    if (part.stored)
        kv_put(place, own);
}

/* --- Which go together --- */

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

/* What comes after a step of a tensor, in one launch. */
static bool goes_behind(const struct cuda_heads_part *p, bool norm)
{
    return norm ? !p->normed && !p->table.cols : !p->table.cols;
}

/* Whether a part may join those that wait, of which it reads and writes nothing. */
static bool joins(const struct cuda_heads *h, const tensor *x, const tensor *table)
{
    for (int i = 0; i < h->n; i++)
        if (!apart(&h->parts[i].x, x) || (table && cuda_overlap(&h->parts[i].x, table)) ||
            (h->parts[i].table.cols && cuda_overlap(&h->parts[i].table, x)))
            return false;
    return h->n < CUDA_HEAD_PARTS && (h->n == 0 || h->parts[0].x.rows == x->rows);
}

/* Where to write down a step of the heads of x, behind what waits or alone. */
static struct cuda_heads_part *part_for(struct cuda_device *c, const tensor *x, int head_dim,
                                        const tensor *table)
{
    struct cuda_waiting *w = &c->waiting;
    struct cuda_heads *h = &w->heads;

    bool open = w->kind == CUDA_HEADS && !h->sequences;

    for (int i = 0; open && i < h->n; i++) {
        struct cuda_heads_part *p = &h->parts[i];

        if (cuda_same(&p->x, x) && p->head_dim == head_dim && goes_behind(p, !table))
            return p;
    }
    if (!open || !joins(h, x, table)) {
        cuda_settle(c);
        w->kind = CUDA_HEADS;
        *h = {};
    }
    h->parts[h->n] = {};
    h->parts[h->n].x = *x;
    h->parts[h->n].head_dim = head_dim;
    return &h->parts[h->n++];
}

bool cuda_norm_heads(struct cuda_device *c, const tensor *x, const float *w, int n, float eps)
{
    struct cuda_heads_part *p;

    if (n > CUDA_HEAD_NUMBERS || x->rows < 1 || x->cols < n)
        return false;
    p = part_for(c, x, n, NULL);
    p->normed = true;
    p->w = w;
    p->eps = eps;
    return true;
}

void cuda_rope(device *d, tensor *x, int head_dim, const tensor *table, bool interleaved)
{
    struct cuda_heads_part *p;

    if (table->cols < 2 || x->cols < head_dim || x->rows < 1)
        return;
    p = part_for(cuda_device_of(d), x, head_dim, table);
    p->table = *table;
    p->interleaved = interleaved;
}

/* --- Launching --- */

void cuda_launch_heads(struct cuda_device *c, const struct cuda_heads *waiting)
{
    struct cuda_batch batch = {waiting->sequences, waiting->of_row};
    struct cuda_kv kv = {};
    struct heads h = {};

    if (waiting->sequences)
        kv = cuda_kv_of(&waiting->layer);
    h.n_rows = waiting->parts[0].x.rows;
    for (int i = 0; i < waiting->n; i++) {
        const struct cuda_heads_part *from = &waiting->parts[i];
        struct head_part *p = &h.parts[h.n_parts++];

        p->x = rows_of(&from->x);
        if (from->table.cols)
            p->table = rows_of(&from->table);
        p->w = from->w;
        p->eps = from->eps;
        p->head_dim = from->head_dim;
        p->first = h.n_heads;
        p->normed = from->normed;
        p->interleaved = from->interleaved;
        p->stored = from->stored;
        p->values = from->values;
        h.n_heads += from->x.cols / from->head_dim;
    }
    cuda_launch(c, heads_kernel,
                shape_of(dim3(blocks_for((int64_t)h.n_rows * h.n_heads, WARPS)), dim3(THREADS), 0),
                h, kv, batch);
    if (waiting->sequences)
        cuda_stored(c, waiting->sequences);
}

/* The part of keys or values, with what waits for them, or by itself; false where it cannot go with
 * the others. */
static bool take_stored(struct cuda_heads *h, const tensor *x, int head_dim, bool values)
{
    struct cuda_heads_part *p = NULL;

    for (int i = 0; i < h->n; i++) {
        struct cuda_heads_part *other = &h->parts[i];

        if (cuda_same(&other->x, x) && other->head_dim == head_dim && !other->stored)
            p = other;
        else if ((other->normed || other->table.cols) && !apart(&other->x, x))
            return false;
    }
    if (!p && (h->n == CUDA_HEAD_PARTS || (h->n && h->parts[0].x.rows != x->rows)))
        return false;
    if (!p) {
        p = &h->parts[h->n++];
        *p = {};
        p->x = *x;
        p->head_dim = head_dim;
    }
    p->stored = true;
    p->values = values;
    return true;
}

/* May attention take it along? That is of few rows, a sequence each. */
static bool waits(const struct cuda_device *c, const struct kv_layer *kv,
                  const struct kv_batch *batch)
{
    return !c->exact && c->arch >= 90 && !kv->bits && kv->split == 0 && !kv->parts &&
           batch->n_rows == batch->n_sequences;
}

void cuda_kv_store(device *d, const struct kv_layer *kv, const struct kv_batch *batch,
                   const tensor *k, const tensor *v)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_batch b = cuda_batch_of(c, batch); /* may settle */
    struct cuda_heads h = {};
    tensor keys = *k, values = *v;

    if (batch->n_rows < 1)
        return;
    keys.cols = kv->n_kv_heads * kv->k_dim;
    values.cols = kv->n_kv_heads * kv->v_dim;
    if (c->waiting.kind == CUDA_HEADS && !c->waiting.heads.sequences)
        h = c->waiting.heads;
    if (take_stored(&h, &keys, kv->k_dim, false) && take_stored(&h, &values, kv->v_dim, true)) {
        if (c->waiting.kind == CUDA_HEADS && !c->waiting.heads.sequences)
            cuda_take(c);
    } else {
        h = {};
        take_stored(&h, &keys, kv->k_dim, false);
        take_stored(&h, &values, kv->v_dim, true);
    }
    h.sequences = b.sequences;
    h.of_row = b.of_row;
    h.layer = *kv;
    if (!b.sequences || !waits(c, kv, batch)) {
        cuda_launch_heads(c, &h);
        return;
    }
    cuda_settle(c);
    c->waiting.heads = h;
    c->waiting.kind = CUDA_HEADS;
}
