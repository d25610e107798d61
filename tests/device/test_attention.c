/* attend and kv_store against the formula in double precision, on random paged caches; and, in
 * exact mode, against themselves: however a batch is cut, a row's result has the same bits. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/number.h"
#include "device/cpu/cpu.h"
#include "device/kv_layout.h"

#include "testing.h"

enum { MAX_SEQUENCES = 4, MAX_TOKENS = 2600 };

struct shape {
    enum dtype type;
    int n_heads, n_kv_heads, k_dim, v_dim;
    int block_tokens, slab_shift;
    int window;
    float softcap;
    bool sinks;
    int n_sequences;
    int before[MAX_SEQUENCES]; /* tokens in the cache already */
    int n_rows[MAX_SEQUENCES];
    int chunk;
    bool tiled, slopes;
    int bits, group_size, split; /* split in blocks */
    int n_first, n_last;
    bool aligned;   /* rows in blocks, to what vectors want; else to nothing */
    float outlier;  /* > 1: every 16th number of keys ranges so far instead of 1 */
    int side_shift; /* where there is no GPU */
    bool in_order;  /* blocks of a sequence follow one another */
};

static float key_range(const struct shape *s, int i)
{
    return s->outlier > 1 && i % 16 == 5 ? s->outlier : 1;
}

/* A cache with sequences in it, in the memory of a device, and what was put there. */
struct world {
    struct shape shape;
    device *d;
    struct kv_layer kv, earlier;
    struct attend_params params;
    float sinks[64], slopes[64];
    void *vectors; /* these on the device */
    void **slabs[2], *device_slabs[2];
    int n_slabs;
    int32_t *blocks[MAX_SEQUENCES];
    float *q[MAX_SEQUENCES], *k[MAX_SEQUENCES], *v[MAX_SEQUENCES]; /* rows by position */
    float *kept_k[MAX_SEQUENCES], *kept_v[MAX_SEQUENCES];          /* as the cache has them */
    float *rounded_k[MAX_SEQUENCES], *rounded_v[MAX_SEQUENCES];    /* these to its type */
    struct kv_sequence sequences[MAX_SEQUENCES];
};

static float *floats(size_t n)
{
    float *x = mem_alloc_aligned((n + 1) * sizeof *x);

    assert_non_null(x);
    random_floats(x, n);
    return x;
}

static bool is_cuda(const device *d)
{
    return strcmp(d->ops->name, "cuda") == 0;
}

static void *on_device(device *d, const void *data, size_t size)
{
    clm_error err = {0};
    void *p = d->ops->alloc(d, size, &err);

    CHECK(p, "%s", err.message);
    d->ops->upload(d, p, data, size);
    return p;
}

static float through(float x, enum dtype type)
{
    if (type == DTYPE_F16)
        return f16_to_f32(f32_to_f16(x));
    return type == DTYPE_BF16 ? bf16_to_f32(f32_to_bf16(x)) : x;
}

static int total(const struct shape *s, int sequence)
{
    return s->before[sequence] + s->n_rows[sequence];
}

/* Slabs of garbage: bytes 0xFF read as NaN in every type. */
static void make_pool(struct world *w, struct kv_layer *kv, int pool, int n_blocks)
{
    int per_slab = 1 << w->shape.slab_shift;
    size_t size = (size_t)per_slab * kv->block_bytes;
    char *garbage = mem_alloc_aligned(size);

    w->n_slabs = (n_blocks + per_slab - 1) / per_slab;
    w->slabs[pool] = mem_zeroed((size_t)w->n_slabs, sizeof *w->slabs[pool]);
    assert_non_null(w->slabs[pool]);
    assert_non_null(garbage);
    memset(garbage, 0xFF, size);
    for (int i = 0; i < w->n_slabs; i++)
        w->slabs[pool][i] = on_device(w->d, garbage, size);
    w->device_slabs[pool] =
        on_device(w->d, w->slabs[pool], (size_t)w->n_slabs * sizeof *w->slabs[pool]);
    kv->slabs = w->device_slabs[pool];
    mem_free_aligned(garbage);
}

/* Every sequence gets blocks from all over the pool. */
static void make_blocks(struct world *w)
{
    int n[MAX_SEQUENCES], n_blocks = 0, next = 0;

    for (int i = 0; i < w->shape.n_sequences; i++) {
        n[i] = (total(&w->shape, i) + w->shape.block_tokens - 1) / w->shape.block_tokens;
        n_blocks += n[i];
    }
    int32_t *order = mem_zeroed((size_t)n_blocks + 1, sizeof *order);
    assert_non_null(order);
    for (int i = 0; i < n_blocks; i++) {
        int j = w->shape.in_order ? i : (int)random_below((size_t)i + 1);

        order[i] = order[j];
        order[j] = i;
    }
    for (int i = 0; i < w->shape.n_sequences; i++) {
        w->blocks[i] = mem_zeroed((size_t)n[i] + 1, sizeof **w->blocks);
        assert_non_null(w->blocks[i]);
        for (int j = 0; j < n[i]; j++)
            w->blocks[i][j] = order[next++];
    }
    mem_free(order);
    make_pool(w, &w->kv, 0, n_blocks);
    make_pool(w, &w->earlier, 1, n_blocks);
}

/* Other layers come before and behind. */
static void lay_out(struct kv_layer *kv, bool aligned)
{
    size_t size = dtype_size(kv->type), unit = aligned ? 64 : size;

    kv->k_offset = aligned ? 64 : 3 * size;
    kv->v_offset = aligned ? (kv_keys(kv).end + 63) / 64 * 64 : kv_keys(kv).end + 5 * size;
    kv->block_bytes =
        (kv_values(kv).end >> kv->side_shift) / unit * unit + (aligned ? 128 : 7 * size);
}

/* Rows x [n, dim] of heads of tokens, as the cache has them. */
static float *through_cache(const struct world *w, const float *x, int n_tokens, int dim)
{
    const struct shape *s = &w->shape;
    float *y = floats((size_t)n_tokens * (size_t)(s->n_kv_heads * dim));
    struct cpu_vector_kernels scalar;

    cpu_vector_kernels_scalar(&scalar);
    for (int i = 0; i < n_tokens * s->n_kv_heads; i++) {
        uint8_t codes[520];
        float scales[32], biases[32];
        const struct kv_layer *at = kv_at(&w->kv, i / s->n_kv_heads);
        float *to = y + (int64_t)i * dim;

        memcpy(to, x + (int64_t)i * dim, (size_t)dim * sizeof *to);
        if (!at->bits) {
            for (int j = 0; j < dim; j++)
                to[j] = through(to[j], s->type);
            continue;
        }
        scalar.quantise(codes, scales, biases, to, dim, at->group_size, at->bits);
        for (int j = 0; j <= (dim - 1) / at->group_size; j++) {
            scales[j] = through(scales[j], s->type);
            biases[j] = through(biases[j], s->type);
        }
        scalar.dequantise(to, codes, scales, biases, 1, dim, at->group_size, at->bits);
    }
    return y;
}

static float *rounded(const float *x, size_t n, enum dtype type)
{
    float *y = mem_alloc_aligned(n * sizeof *y);

    assert_non_null(y);
    for (size_t i = 0; i < n; i++)
        y[i] = through(x[i], type);
    return y;
}

static void make_world(struct world *w, const struct shape *s, device *d)
{
    char *vectors;

    *w = (struct world){.shape = *s, .d = d};
    w->kv = (struct kv_layer){
        .type = s->type,
        .n_kv_heads = s->n_kv_heads,
        .k_dim = s->k_dim,
        .v_dim = s->v_dim,
        .block_tokens = s->block_tokens,
        .slab_shift = s->slab_shift,
        .side_shift = is_cuda(d) ? 0 : s->side_shift,
        .n_first = s->n_first,
        .n_last = s->n_last,
    };
    w->earlier = w->kv;
    lay_out(&w->earlier, s->aligned);
    w->kv.bits = s->bits;
    w->kv.group_size = s->group_size;
    w->kv.split = s->split * s->block_tokens;
    w->kv.earlier = &w->earlier;
    lay_out(&w->kv, s->aligned);
    w->params = (struct attend_params){
        .n_heads = s->n_heads,
        .scale = 2.5f / sqrtf((float)s->k_dim),
        .softcap = s->softcap,
        .window = s->window,
        .chunk = s->chunk,
        .tiled = s->tiled,
    };
    random_floats(w->sinks, COUNT(w->sinks));
    for (size_t i = 0; i < COUNT(w->slopes); i++)
        w->slopes[i] = 0.5f / (float)(1 + i % 16);
    w->vectors = vectors = on_device(d, w->sinks, sizeof w->sinks + sizeof w->slopes);
    w->params.sinks = s->sinks ? (const float *)vectors : NULL;
    w->params.slopes = s->slopes ? (const float *)(vectors + sizeof w->sinks) : NULL;
    make_blocks(w);
    for (int i = 0; i < s->n_sequences; i++) {
        size_t n = (size_t)total(s, i);

        w->q[i] = floats(n * (size_t)(s->n_heads * s->k_dim));
        w->k[i] = floats(n * (size_t)(s->n_kv_heads * s->k_dim));
        for (size_t j = 0; j < n * (size_t)(s->n_kv_heads * s->k_dim); j++)
            w->k[i][j] *= key_range(s, (int)(j % (size_t)s->k_dim));
        w->v[i] = floats(n * (size_t)(s->n_kv_heads * s->v_dim));
        w->kept_k[i] = through_cache(w, w->k[i], (int)n, s->k_dim);
        w->kept_v[i] = through_cache(w, w->v[i], (int)n, s->v_dim);
        w->rounded_k[i] = rounded(w->kept_k[i], n * (size_t)(s->n_kv_heads * s->k_dim), s->type);
        w->rounded_v[i] = rounded(w->kept_v[i], n * (size_t)(s->n_kv_heads * s->v_dim), s->type);
    }
}

static void free_world(struct world *w)
{
    for (int p = 0; p < 2; p++) {
        for (int i = 0; i < w->n_slabs; i++)
            w->d->ops->free(w->d, w->slabs[p][i]);
        w->d->ops->free(w->d, w->device_slabs[p]);
        mem_free(w->slabs[p]);
    }
    w->d->ops->free(w->d, w->vectors);
    for (int i = 0; i < w->shape.n_sequences; i++) {
        mem_free(w->blocks[i]);
        mem_free_aligned(w->q[i]);
        mem_free_aligned(w->k[i]);
        mem_free_aligned(w->v[i]);
        mem_free_aligned(w->kept_k[i]);
        mem_free_aligned(w->kept_v[i]);
        mem_free_aligned(w->rounded_k[i]);
        mem_free_aligned(w->rounded_v[i]);
    }
}

/* The table of a sequence whose next row is at position: blocks that no row from there on can see
 * are let go of, and their numbers are nonsense. */
static int32_t *released(const struct world *w, int sequence, int position, int *n_kept,
                         int *n_gone)
{
    const struct shape *s = &w->shape;
    size_t n = (size_t)(total(s, sequence) / s->block_tokens + 1);
    int first = s->n_last > 0   ? position - s->n_last + 1
                : s->window > 0 ? position - s->window + 1
                                : 0;
    int32_t *blocks = mem_zeroed(n, sizeof *blocks);

    assert_non_null(blocks);
    memcpy(blocks, w->blocks[sequence], n * sizeof *blocks);
    *n_kept = (s->n_first + s->block_tokens - 1) / s->block_tokens;
    *n_gone = first > 0 ? first / s->block_tokens - *n_kept : 0;
    if (*n_gone <= 0) {
        *n_gone = 0;
        return blocks;
    }
    memmove(blocks + *n_kept, blocks + *n_kept + *n_gone,
            (n - (size_t)(*n_kept + *n_gone)) * sizeof *blocks);
    for (size_t i = n - (size_t)*n_gone; i < n; i++)
        blocks[i] = INT32_MAX;
    return blocks;
}

struct part {
    int sequence, position, n_rows;
};

static tensor device_rows(device *d, const float *x, int rows, int cols, int stride)
{
    size_t bytes = (size_t)rows * (size_t)stride * sizeof *x;

    return (tensor){on_device(d, x, bytes), DTYPE_F32, rows, cols, stride};
}

/* Stores, and attends unless out is NULL, for some parts in one batch. y of a part goes to
 * out[sequence] by position. */
static void run_parts(device *d, struct world *w, const struct part *parts, int n_parts,
                      float **out)
{
    const struct shape *s = &w->shape;
    struct kv_sequence sequences[MAX_SEQUENCES + 1];
    int32_t *blocks[MAX_SEQUENCES];
    int q_cols = s->n_heads * s->k_dim, k_cols = s->n_kv_heads * s->k_dim;
    int v_cols = s->n_kv_heads * s->v_dim, y_cols = s->n_heads * s->v_dim;
    int n_rows = 0;
    clm_error err = {0};

    for (int i = 0; i < n_parts; i++)
        n_rows += parts[i].n_rows;
    float *q = floats((size_t)n_rows * (size_t)(q_cols + 1)),
          *k = floats((size_t)n_rows * (size_t)k_cols);
    float *v = floats((size_t)n_rows * (size_t)v_cols),
          *y = floats((size_t)n_rows * (size_t)y_cols);
    int row = n_rows; /* the last sequence has the first rows: order is free */

    for (int i = 0; i < n_parts; i++) {
        const struct part *p = &parts[i];
        int n_kept, n_gone;

        row -= p->n_rows;
        int32_t *table = released(w, p->sequence, p->position, &n_kept, &n_gone);

        blocks[i] = on_device(
            d, table, (size_t)(total(s, p->sequence) / s->block_tokens + 1) * sizeof *table);
        mem_free(table);
        sequences[i] = (struct kv_sequence){.row = row,
                                            .n_rows = p->n_rows,
                                            .position = p->position,
                                            .n_gone = n_gone,
                                            .blocks = blocks[i],
                                            .n_kept = n_kept};
        for (int t = 0; t < p->n_rows; t++) {
            int64_t at = p->position + t;

            memcpy(q + (int64_t)(row + t) * (q_cols + 1), w->q[p->sequence] + at * q_cols,
                   (size_t)q_cols * sizeof *q);
            memcpy(k + (int64_t)(row + t) * k_cols, w->k[p->sequence] + at * k_cols,
                   (size_t)k_cols * sizeof *k);
            memcpy(v + (int64_t)(row + t) * v_cols, w->v[p->sequence] + at * v_cols,
                   (size_t)v_cols * sizeof *v);
        }
    }
    sequences[n_parts] = (struct kv_sequence){0}; /* a sequence without rows */
    struct kv_batch batch = {sequences, n_parts + 1, n_rows};
    tensor tq = device_rows(d, q, n_rows, q_cols, q_cols + 1);
    tensor tk = device_rows(d, k, n_rows, k_cols, k_cols);
    tensor tv = device_rows(d, v, n_rows, v_cols, v_cols);
    tensor ty = device_rows(d, y, n_rows, y_cols, y_cols);
    d->ops->kv_store(d, &w->kv, &batch, &tk, &tv);
    if (out)
        d->ops->attend(d, &ty, &tq, &w->kv, &batch, &w->params);
    d->ops->download(d, y, ty.data, (size_t)n_rows * (size_t)y_cols * sizeof *y);
    CHECK(d->ops->sync(d, &err) == 0, "%s", err.message);
    for (int i = 0; out && i < n_parts; i++)
        memcpy(out[parts[i].sequence] + (int64_t)parts[i].position * y_cols,
               y + (int64_t)sequences[i].row * y_cols,
               (size_t)(parts[i].n_rows * y_cols) * sizeof *y);
    for (int i = 0; i < n_parts; i++)
        d->ops->free(d, blocks[i]);
    d->ops->free(d, tq.data);
    d->ops->free(d, tk.data);
    d->ops->free(d, tv.data);
    d->ops->free(d, ty.data);
    mem_free_aligned(q);
    mem_free_aligned(k);
    mem_free_aligned(v);
    mem_free_aligned(y);
}

static void fill_history(device *d, struct world *w)
{
    for (int i = 0; i < w->shape.n_sequences; i++)
        if (w->shape.before[i] > 0)
            run_parts(d, w, &(struct part){i, 0, w->shape.before[i]}, 1, NULL);
}

/* Has the cache let go of key j when the row at position is there? */
static bool is_gone(const struct shape *s, int position, int j)
{
    return s->n_last > 0 && j >= s->n_first && j <= position - s->n_last;
}

/* Which numbers are rounded to the cache's type before they are multiplied, where a device may do
 * so. */
enum rounding { NOTHING, KEYS_AND_VALUES, QUERIES_TOO, ROUNDINGS };

/* y [v_dim] of one row and head by the formula; returns the largest sum_i |q_i k_i| scale, from
 * which the tolerance follows. spread [v_dim], or NULL, gets sum_j p_j^2 (v_j - y)^2: the variance
 * of y for scores of variance 1. */
static double reference(const struct world *w, int sequence, int position, int head,
                        enum rounding rounding, double *y, double *spread)
{
    const struct shape *s = &w->shape;
    int kv_head = s->tiled ? head % s->n_kv_heads : head / (s->n_heads / s->n_kv_heads);
    const float *q = w->q[sequence] + ((int64_t)position * s->n_heads + head) * s->k_dim;
    double sum = 0, largest = 0, max = s->sinks ? (double)w->sinks[head] : -HUGE_VAL;
    const float *keys = rounding == NOTHING ? w->kept_k[sequence] : w->rounded_k[sequence];
    const float *values = rounding == NOTHING ? w->kept_v[sequence] : w->rounded_v[sequence];
    enum dtype of_q = rounding == QUERIES_TOO ? s->type : DTYPE_F32;
    static double scores[MAX_TOKENS];
    int first = s->window > 0 && position >= s->window ? position - s->window + 1 : 0;
    float *query = rounded(q, (size_t)s->k_dim, of_q);

    if (s->chunk && position / s->chunk * s->chunk > first)
        first = position / s->chunk * s->chunk;
    for (int j = first; j <= position; j++) {
        const float *k = keys + ((int64_t)j * s->n_kv_heads + kv_head) * s->k_dim;
        double score = 0, size = 0;

        for (int i = 0; i < s->k_dim; i++) {
            double product = (double)query[i] * (double)k[i];

            score += product;
            size += fabs(product);
        }
        score *= (double)w->params.scale;
        if (s->softcap > 0)
            score = (double)s->softcap * tanh(score / (double)s->softcap);
        if (s->slopes)
            score -= (double)w->slopes[head] * (position - j);
        size += s->slopes ? (double)w->slopes[head] * (position - j) / (double)w->params.scale : 0;
        scores[j] = score;
        if (is_gone(s, position, j))
            continue;
        max = fmax(max, score);
        largest = fmax(largest, size * (double)w->params.scale);
    }
    mem_free_aligned(query);
    for (int i = 0; i < s->v_dim; i++)
        y[i] = 0;
    for (int j = first; j <= position; j++) {
        const float *v = values + ((int64_t)j * s->n_kv_heads + kv_head) * s->v_dim;
        double p = is_gone(s, position, j) ? 0 : exp(scores[j] - max);

        sum += p;
        for (int i = 0; i < s->v_dim; i++)
            y[i] += p * (double)v[i];
    }
    if (s->sinks)
        sum += exp((double)w->sinks[head] - max);
    for (int i = 0; i < s->v_dim; i++)
        y[i] /= sum;
    for (int i = 0; spread && i < s->v_dim; i++)
        spread[i] = 0;
    for (int j = first; spread && j <= position; j++) {
        const float *v = w->kept_v[sequence] + ((int64_t)j * s->n_kv_heads + kv_head) * s->v_dim;
        double p = is_gone(s, position, j) ? 0 : exp(scores[j] - max) / sum;

        for (int i = 0; i < s->v_dim; i++)
            spread[i] += p * p * ((double)v[i] - y[i]) * ((double)v[i] - y[i]);
    }
    return largest;
}

/* A score is off by at most (k_dim + 8) half epsilons of sum |q k| (products, sums, scaling,
 * softcap), a weight relatively by that and some 8 roundings and errors of exp2, and as many as
 * keys in either sum; y is a mean of values within [-1, 1], so it is off by the relative errors of
 * numerator and denominator. Where weights are rounded to halves, each is off by half an epsilon of
 * these, and so is y; a key's number that is rounded the other way, once in a while, adds less.
 * Where all factors are rounded to bf16, within 2^-8, a score is off by 2^-7 sum |q k| besides, and
 * y by twice that, and by 2^-8 each for weights and values. */
static bool row_is_right(const struct world *w, int sequence, int t, int head, const float *got,
                         enum rounding rounding, bool bf16, const char *what, bool say)
{
    const struct shape *s = &w->shape;
    double y[512], size = reference(w, sequence, t, head, rounding, y, NULL);
    double score_error = (s->k_dim + 8) * size;
    double tolerance = 2 * (score_error + 2 * (t + 1) + 16) * (double)FLT_EPSILON / 2;

    if (bf16)
        tolerance += 2 * 0x1p-7 * size + 0x1p-7;
    if (rounding != NOTHING)
        tolerance += 1.5 * (s->type == DTYPE_BF16 ? 0x1p-8 : 0x1p-11);
    for (int i = 0; i < s->v_dim; i++) {
        double g = (double)got[i];

        if (fabs(g - y[i]) <= tolerance)
            continue;
        CHECK(!say, "%s: row %d head %d dim %d: %g, expected %g", what, t, head, i, g, y[i]);
        return false;
    }
    return true;
}

/* halves: a device may round what it multiplies to the cache's type; bf16: or to bf16. */
static void check_rows(const struct world *w, int sequence, const float *got, bool halves,
                       bool bf16, const char *what)
{
    const struct shape *s = &w->shape;
    int last = halves && s->type != DTYPE_F32 ? ROUNDINGS - 1 : NOTHING;

    for (int t = s->before[sequence]; t < total(s, sequence); t++)
        for (int h = 0; h < s->n_heads; h++) {
            const float *y = got + ((int64_t)t * s->n_heads + h) * s->v_dim;
            bool right = false;

            for (int r = NOTHING; r <= last && !right; r++)
                right = row_is_right(w, sequence, t, h, y, (enum rounding)r, bf16, what, r == last);
        }
}

/* The variance of a score whose query and keys are rounded to steps, in which numbers that range
 * further count for more: attention_int.h. Keys lie within their ranges or a little beyond, as
 * codes of a cache can. */
static double score_variance(const struct world *w, int sequence, int position, int head)
{
    const struct shape *s = &w->shape;
    const float *q = w->q[sequence] + ((int64_t)position * s->n_heads + head) * s->k_dim;
    double largest = 0, lanes = 0, sum = 0, lane[2] = {0, 0};

    for (int i = 0; i < s->k_dim; i++) {
        double x = fabs((double)(q[i] * key_range(s, i)));

        if (i % 32 == 0)
            lane[0] = lane[1] = 0;
        lane[i / 2 % 2] += x;
        largest = fmax(largest, x);
        lanes = fmax(lanes, fmax(lane[0], lane[1]));
        sum += x * x;
    }
    double step = fmax(largest / 127, lanes / 512), key_step = 1.1 / 63;

    return (key_step * key_step * sum + step * step * 1.1 * s->k_dim) / 12 *
           (double)w->params.scale * (double)w->params.scale;
}

/* Long sequences are treated in whole numbers. With w the weights of a row and v - y at most 2, the
 * variance of y is at most 4 sum w^2, hence 4, times that of a score; rounding of weights adds up
 * to 2 * 64 * 2^-14 at most, with those of values and of exponentials less than 0.009, and 0.001 in
 * the mean. */
static void check_rounded(const struct world *w, int sequence, const float *got, const char *what)
{
    const struct shape *s = &w->shape;
    double y[512], spread[512], sum = 0, variance = 0;
    int64_t n = 0;

    for (int t = s->before[sequence]; t < total(s, sequence); t++)
        for (int h = 0; h < s->n_heads; h++) {
            double score = score_variance(w, sequence, t, h);

            reference(w, sequence, t, h, NOTHING, y, spread);
            for (int i = 0; i < s->v_dim; i++, n++) {
                double e = (double)got[((int64_t)t * s->n_heads + h) * s->v_dim + i] - y[i];

                CHECK(fabs(e) <= 6 * 2 * sqrt(score) + 0.009,
                      "%s: row %d head %d dim %d: off by %g", what, t, h, i, e);
                sum += e * e;
                variance += score * spread[i] + 0.001 * 0.001;
            }
        }
    CHECK(sum <= variance, "%s: off by %g in the mean, expected %g", what, sqrt(sum / (double)n),
          sqrt(variance / (double)n));
}

static void check_part(const struct world *w, int sequence, float **out, bool exact, bool halves,
                       const char *what)
{
    bool fast_cpu = !exact && !is_cuda(w->d);

    if (fast_cpu && total(&w->shape, sequence) > 1024)
        check_rounded(w, sequence, out[sequence], what);
    else
        check_rows(w, sequence, out[sequence], halves,
                   fast_cpu && w->shape.type != DTYPE_F32 && cpu_device_of(w->d)->vector.paired,
                   what);
}

static float *outputs(const struct world *w, float **out)
{
    for (int i = 0; i < w->shape.n_sequences; i++)
        out[i] = floats((size_t)total(&w->shape, i) * (size_t)(w->shape.n_heads * w->shape.v_dim));
    return out[0];
}

static void free_outputs(const struct world *w, float **out)
{
    for (int i = 0; i < w->shape.n_sequences; i++)
        mem_free_aligned(out[i]);
}

static void run_whole(device *d, struct world *w, float **out)
{
    struct part parts[MAX_SEQUENCES];

    fill_history(d, w);
    for (int i = 0; i < w->shape.n_sequences; i++)
        parts[i] = (struct part){i, w->shape.before[i], w->shape.n_rows[i]};
    run_parts(d, w, parts, w->shape.n_sequences, out);
}

/* Each sequence by itself, in chunks of at most some rows. */
static void run_chunks(device *d, struct world *w, int max_rows, float **out)
{
    fill_history(d, w);
    for (int i = 0; i < w->shape.n_sequences; i++)
        for (int at = w->shape.before[i]; at < total(&w->shape, i);) {
            int left = total(&w->shape, i) - at;
            int n = 1 + (int)random_below((size_t)max_rows);

            n = n < left ? n : left;
            run_parts(d, w, &(struct part){i, at, n}, 1, out);
            at += n;
        }
}

static void compare_bits(const struct world *w, float **a, float **b, const char *what)
{
    int cols = w->shape.n_heads * w->shape.v_dim;

    for (int i = 0; i < w->shape.n_sequences; i++) {
        int64_t from = (int64_t)w->shape.before[i] * cols, n = (int64_t)w->shape.n_rows[i] * cols;

        for (int64_t j = from; j < from + n; j++)
            CHECK(f32_bits(a[i][j]) == f32_bits(b[i][j]), "%s: sequence %d row %d: %a and %a", what,
                  i, (int)(j / cols), (double)a[i][j], (double)b[i][j]);
    }
}

static const struct shape shapes[] = {
    /* One token, one head; then odd sizes of everything. */
    {DTYPE_F32, 1,     1,     4, 4, 1, 0, 0, 0,     false, 1, {0},  {1},
     0,         false, false, 0, 0, 0, 0, 0, false, 0,     0, false},
    {DTYPE_F32, 3,     1,     12, 5, 3, 1, 0, 0,     false, 2, {7, 0}, {5, 9},
     0,         false, false, 0,  0, 0, 0, 0, false, 0,     0, false},
    {DTYPE_F16, 4,     2,     80, 80, 16, 2, 0, 0,     true, 3, {40, 0, 100}, {1, 70, 3},
     0,         false, false, 0,  0,  0,  0, 0, false, 0,    0, false},
    {DTYPE_BF16, 6,     6,     96, 32, 7, 0, 0, 30,    false, 2, {0, 65}, {66, 1},
     0,          false, false, 0,  0,  0, 0, 0, false, 0,     0, false},
    {DTYPE_F16,
     8,
     2,
     64,
     64,
     32,
     3,
     0,
     0,
     false,
     4,
     {300, 0, 17, 63},
     {1, 150, 40, 1},
     0,
     false,
     false,
     0,
     0,
     0,
     0,
     0,
     false,
     0,
     0,
     false},
    /* Windows smaller and larger than a block and a chunk; sinks and caps. */
    {DTYPE_F16, 2,     1,     112, 112, 16, 1, 5, 0,     false, 2, {130, 0}, {1, 40},
     0,         false, false, 0,   0,   0,  0, 0, false, 0,     0, false},
    {DTYPE_BF16, 4,     4,     16, 24, 8, 4, 64, 20,    true, 3, {200, 1, 0}, {20, 1, 130},
     0,          false, false, 0,  0,  0, 0, 0,  false, 0,    0, false},
    {DTYPE_F32, 5,     5,     33, 31, 20, 2, 100, 0,     true, 2, {99, 260}, {3, 50},
     0,         false, false, 0,  0,  0,  0, 0,   false, 0,    0, false},
    {DTYPE_F16, 4,     1,     256, 256, 32, 2, 128, 50,    false, 2, {190, 0}, {2, 30},
     0,         false, false, 0,   0,   0,  0, 0,   false, 0,     0, false},
    /* Many heads on one kv head; long contexts that are cut into ranges. */
    {DTYPE_F16, 40,    1,     64, 48, 16, 5, 0, 0,     true, 2, {70, 5}, {1, 4},
     0,         false, false, 0,  0,  0,  0, 0, false, 0,    0, false},
    {DTYPE_F16, 4,     2, 32, 32, 32, 4, 0,     0, true, 3,    {2500, 1023, 1024}, {1, 3, 1}, 0,
     false,     false, 0, 0,  0,  0,  0, false, 0, 0,    false},
    {DTYPE_BF16, 2,     2,     16, 16, 24, 4, 1100, 0,     false, 2, {2300, 1020}, {2, 6},
     0,          false, false, 0,  0,  0,  0, 0,    false, 0,     0, false},
    /* Chunks, distances that count, heads in turn. */
    {DTYPE_F32, 4,    2,     16, 16, 16, 2, 0, 0,     false, 2, {60, 0}, {30, 200},
     50,        true, false, 0,  0,  0,  0, 0, false, 0,     0, false},
    {DTYPE_F16, 8,    4,    32, 24, 32, 2, 0, 0,     true, 2, {1300, 0}, {1, 70},
     600,       true, true, 0,  0,  0,  0, 0, false, 0,    0, false},
    {DTYPE_BF16, 6,     6,    20, 20, 8, 3, 40, 0,     false, 3, {0, 33, 90}, {80, 1, 3},
     64,         false, true, 0,  0,  0, 0, 0,  false, 0,     0, false},
    /* Quantised, all of it or from a block on. */
    {.type = DTYPE_F16,
     .n_heads = 8,
     .n_kv_heads = 2,
     .k_dim = 64,
     .v_dim = 64,
     .block_tokens = 32,
     .slab_shift = 2,
     .n_sequences = 3,
     .before = {1300, 0, 33},
     .n_rows = {1, 70, 2},
     .bits = 4,
     .group_size = 64},
    {.type = DTYPE_F32,
     .n_heads = 4,
     .n_kv_heads = 4,
     .k_dim = 96,
     .v_dim = 128,
     .block_tokens = 16,
     .slab_shift = 1,
     .sinks = true,
     .n_sequences = 2,
     .before = {100, 0},
     .n_rows = {30, 50},
     .bits = 8,
     .group_size = 32,
     .split = 2},
    /* With the first tokens kept: ranges that begin within what is let go of. */
    {.type = DTYPE_F16,
     .n_heads = 4,
     .n_kv_heads = 1,
     .k_dim = 32,
     .v_dim = 32,
     .block_tokens = 32,
     .slab_shift = 1,
     .n_sequences = 4,
     .before = {2500, 1023, 0, 40},
     .n_rows = {1, 3, 100, 1},
     .n_first = 4,
     .n_last = 60},
    {.type = DTYPE_F32,
     .n_heads = 2,
     .n_kv_heads = 1,
     .k_dim = 16,
     .v_dim = 16,
     .block_tokens = 16,
     .softcap = 3,
     .n_sequences = 2,
     .before = {0, 70},
     .n_rows = {90, 1},
     .n_first = 3,
     .n_last = 20},
    {.type = DTYPE_BF16,
     .n_heads = 4,
     .n_kv_heads = 2,
     .k_dim = 40,
     .v_dim = 40,
     .block_tokens = 8,
     .slab_shift = 1,
     .window = 90,
     .n_sequences = 2,
     .before = {300, 20},
     .n_rows = {5, 130},
     .bits = 8,
     .group_size = 64,
     .split = 3,
     .n_first = 20,
     .n_last = 30},
    /* Long prompts, in whole numbers. */
    {DTYPE_F16, 8,     2,     64, 64, 32, 3, 0, 0,     false, 2, {1100, 980}, {70, 50},
     0,         false, false, 0,  0,  0,  0, 0, false, 0,     0, false},
    {DTYPE_F32, 3,     3,     33, 31, 20, 2, 100, 0,     true, 1, {1050}, {99},
     0,         false, false, 0,  0,  0,  0, 0,   false, 0,    0, false},
    {DTYPE_BF16, 4,    2,    80, 48, 24, 2, 0, 0,     true, 1, {1000}, {90},
     600,        true, true, 0,  0,  0,  0, 0, false, 0,    0, false},
    {DTYPE_F16, 20,    1,     24, 136, 32, 2, 0, 4,     false, 1, {1010}, {50},
     0,         false, false, 0,  0,   0,  0, 0, false, 0,     0, false},
    {.type = DTYPE_F16,
     .n_heads = 4,
     .n_kv_heads = 1,
     .k_dim = 64,
     .v_dim = 32,
     .block_tokens = 16,
     .slab_shift = 2,
     .n_sequences = 1,
     .before = {1100},
     .n_rows = {80},
     .bits = 8,
     .group_size = 32,
     .split = 60,
     .n_first = 4,
     .n_last = 150},
    {.type = DTYPE_F16,
     .n_heads = 4,
     .n_kv_heads = 2,
     .k_dim = 64,
     .v_dim = 64,
     .block_tokens = 32,
     .slab_shift = 1,
     .n_sequences = 1,
     .before = {1000},
     .n_rows = {130},
     .outlier = 15},
};

static void check_shape(device *d1, device *d2, const struct shape *s)
{
    struct world w;
    float *one[MAX_SEQUENCES], *two[MAX_SEQUENCES];

    make_world(&w, s, d1);
    outputs(&w, one);
    outputs(&w, two);
    for (int exact = 0; exact < 2; exact++) {
        bool halves = is_cuda(d1) && !exact;

        d1->ops->set_exact(d1, exact);
        d2->ops->set_exact(d2, exact);
        run_whole(d1, &w, one);
        for (int i = 0; i < s->n_sequences; i++)
            check_part(&w, i, one, exact, halves, exact ? "exact" : "fast");
        run_whole(d2, &w, two);
        compare_bits(&w, one, two, "another number of threads");
        run_chunks(d2, &w, 40, two);
        if (exact) { /* what has the bits of rows that are right is right */
            compare_bits(&w, one, two, "alone, in chunks");
            run_chunks(d1, &w, TEST_IS_SLOW ? 7 : 1, two);
            compare_bits(&w, one, two, "alone, token by token");
        } else {
            for (int i = 0; i < s->n_sequences; i++)
                check_part(&w, i, two, exact, halves, "fast, in chunks");
        }
    }
    free_outputs(&w, one);
    free_outputs(&w, two);
    free_world(&w);
}

/* The GPU, if there is one. */
static void on_cuda(void (*check)(device *d1, device *d2))
{
    clm_error err = {0};
    device *d1 = device_cuda_open(&err), *d2;

    if (!d1) {
        print_message("%s\n", err.message);
        return;
    }
    print_message("cuda\n");
    d2 = device_cuda_open(&err);
    CHECK(d2, "%s", err.message);
    check(d1, d2);
    d1->ops->close(d1);
    d2->ops->close(d2);
}

/* All instruction sets this processor has, one after another. */
static void for_each_isa(void (*check)(device *d1, device *d2))
{
    unsigned sets[] = {CPU_SCALAR, CPU_AVX2, CPU_AVX2 | CPU_AVX512,
                       CPU_AVX2 | CPU_AVX512 | CPU_FP16, CPU_NEON};
    clm_error err = {0};

    for (size_t i = 0; i < COUNT(sets); i++) {
        if ((cpu_isa_detect() & sets[i]) != sets[i])
            continue;
        print_message("%s\n", cpu_isa_name(sets[i]));
        device *d1 = device_cpu_open(1, &err), *d2 = device_cpu_open(2, &err);
        CHECK(d1 && d2, "%s", err.message);
        cpu_vector_kernels_init(&cpu_device_of(d1)->vector, sets[i]);
        cpu_vector_kernels_init(&cpu_device_of(d2)->vector, sets[i]);
        check(d1, d2);
        d1->ops->close(d1);
        d2->ops->close(d2);
    }
}

static void check_shapes(device *d1, device *d2)
{
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (int aligned = 0; aligned <= is_cuda(d1); aligned++) {
            struct shape s = shapes[i];

            s.aligned = aligned;
            check_shape(d1, d2, &s);
        }
}

static void test_shapes(void **state)
{
    (void)state;
    for_each_isa(check_shapes);
    on_cuda(check_shapes);
}

static int one_of(const int *choices, size_t n)
{
    return choices[random_below(n)];
}

static void random_shape(struct shape *s)
{
    static const int dims[] = {4, 8, 12, 15, 16, 17, 31, 32, 48, 64, 80, 96, 100, 128, 192, 256};
    static const int groups[] = {1, 1, 2, 3, 4, 7, 8};
    static const int blocks[] = {1, 5, 8, 16, 32, 64, 100};
    static const int windows[] = {0, 0, 0, 1, 2, 17, 63, 64, 65, 130};

    *s = (struct shape){.type = (enum dtype)random_below(CPU_KV_TYPES)};
    s->n_kv_heads = 1 + (int)random_below(3);
    s->n_heads = s->n_kv_heads * one_of(groups, COUNT(groups));
    s->k_dim = one_of(dims, COUNT(dims));
    s->v_dim = random_below(2) ? s->k_dim : one_of(dims, COUNT(dims));
    s->block_tokens = one_of(blocks, COUNT(blocks));
    s->slab_shift = (int)random_below(4);
    s->side_shift = (int)random_below((size_t)s->slab_shift + 1);
    s->in_order = random_below(2);
    s->window = one_of(windows, COUNT(windows));
    s->softcap = random_below(3) ? 0 : 5;
    s->sinks = random_below(2);
    s->chunk = random_below(3) ? 0 : 1 + (int)random_below(130);
    s->tiled = random_below(2);
    s->slopes = !(s->softcap > 0) && random_below(2);
    if (random_below(2)) {
        s->bits = random_below(2) ? 4 : 8;
        s->group_size = 32 << random_below(3);
        s->split = random_below(2) ? (int)random_below(5) : 0;
    }
    if (random_below(2)) {
        s->n_first = (int)random_below(40);
        s->n_last = 1 + (int)random_below(s->window ? (size_t)s->window : 100);
    }
    s->aligned = random_below(4);
    s->n_sequences = 1 + (int)random_below(MAX_SEQUENCES);
    for (int i = 0; i < s->n_sequences; i++) {
        s->before[i] = random_below(2) ? (int)random_below(150) : 0;
        s->n_rows[i] = random_below(2) ? 1 + (int)random_below(90) : 1;
    }
}

static void check_random_shapes(device *d1, device *d2)
{
    for (int i = 0; i < (is_cuda(d1) ? 100 : TEST_IS_SLOW ? 4 : 12); i++) {
        struct shape s;

        random_shape(&s);
        check_shape(d1, d2, &s);
    }
}

static void test_random_shapes(void **state)
{
    (void)state;
    for_each_isa(check_random_shapes);
    on_cuda(check_random_shapes);
}

/* What a device finds with some keys chosen, by bits or by blocks: y by sequence, and logarithms of
 * all rows. */
static void run_choice(device *d, struct world *w, bool exact, tensor *logs, float **out,
                       float *log_sums)
{
    d->ops->set_exact(d, exact);
    w->params.log_sums = logs;
    run_whole(d, w, out);
    d->ops->download(d, log_sums, logs->data,
                     (size_t)logs->rows * (size_t)logs->cols * sizeof *log_sums);
    w->params.log_sums = NULL;
}

/* Fast kernels of a GPU against its exact ones, which test_cuda_sequences holds against the CPU's.
 * With halves a score is off by 2^-11 sum |q k| scale, at most 2^-11 20 here; a key too many or too
 * few is a hundredth of a denominator at least. */
static void check_choice(device *d, const struct shape *s, int block_size, bool kept)
{
    enum { ROWS = 84, HEADS = 8, WORDS = 4 };
    static float logs[2][ROWS * HEADS];
    static uint32_t bits[ROWS * 2 * WORDS];
    float *out[2][MAX_SEQUENCES];
    tensor of_bits, of_logs;
    struct world w;

    make_world(&w, s, d);
    for (size_t i = 0; i < COUNT(bits); i++)
        bits[i] = (uint32_t)random_below(1u << 16) << 16 | (uint32_t)random_below(1u << 16);
    of_bits = (tensor){on_device(d, bits, sizeof bits), DTYPE_U32, ROWS, 2 * WORDS, 2 * WORDS};
    of_logs = device_rows(d, logs[0], ROWS, HEADS, HEADS);
    fill_history(d, &w);
    w.params.scale = 0.3f;
    w.params.kept = kept ? &of_bits : NULL;
    w.params.kept_sets = 2;
    w.params.block_size = block_size;
    w.params.local_blocks = 1;
    w.params.block_stride = 3;
    w.params.block_step = 1;
    for (int fast = 0; fast < 2; fast++) {
        outputs(&w, out[fast]);
        run_choice(d, &w, !fast, &of_logs, out[fast], logs[fast]);
    }
    for (int i = 0; i < ROWS * HEADS; i++)
        CHECK(fabsf(logs[0][i] - logs[1][i]) <= 0.01f || logs[0][i] == logs[1][i],
              "sum %d: %g, exactly %g", i, (double)logs[1][i], (double)logs[0][i]);
    for (int q = 0; q < s->n_sequences; q++)
        for (int64_t i = (int64_t)s->before[q] * HEADS * s->v_dim;
             i < (int64_t)total(s, q) * HEADS * s->v_dim; i++)
            CHECK(fabsf(out[0][q][i] - out[1][q][i]) <= 0.02f, "number %d of %d: %g, exactly %g",
                  (int)i, q, (double)out[1][q][i], (double)out[0][q][i]);
    for (int fast = 0; fast < 2; fast++)
        free_outputs(&w, out[fast]);
    d->ops->free(d, of_bits.data);
    d->ops->free(d, of_logs.data);
    free_world(&w);
}

static void check_choices(device *d1, device *d2)
{
    struct shape s = {.type = DTYPE_F16,
                      .n_heads = 8,
                      .n_kv_heads = 2,
                      .k_dim = 64,
                      .v_dim = 64,
                      .block_tokens = 32,
                      .slab_shift = 1,
                      .n_sequences = 3,
                      .before = {40, 20, 0},
                      .n_rows = {1, 3, 80},
                      .aligned = true};

    (void)d2;
    check_choice(d1, &s, 0, true);
    check_choice(d1, &s, 8, false);
    check_choice(d1, &s, 8, true);
    s.sinks = true;
    check_choice(d1, &s, 0, true);
}

static void test_choices(void **state)
{
    (void)state;
    on_cuda(check_choices);
}

/* Without memory for scratch the operation does nothing and sync says so, once. */
static void test_no_memory(void **state)
{
    struct shape s = {DTYPE_F16, 2,     1,     16, 16, 8, 1, 0, 0,     false, 1, {0},  {20},
                      0,         false, false, 0,  0,  0, 0, 0, false, 0,     0, false};
    clm_error err = {0};
    device *d = device_cpu_open(1, &err);
    float y[20 * 32] = {0}, q[20 * 32] = {0};
    struct world w;

    (void)state;
    assert_non_null(d);
    make_world(&w, &s, d);
    struct kv_sequence sequence = {.n_rows = 20, .blocks = w.blocks[0]};
    struct kv_batch batch = {&sequence, 1, 20};
    tensor ty = {y, DTYPE_F32, 20, 32, 32}, tq = {q, DTYPE_F32, 20, 32, 32};
    for (long n = 0; n < 2; n++) {
        mem_fail_after(n);
        d->ops->attend(d, &ty, &tq, &w.kv, &batch, &w.params);
        CHECK(mem_fail_after(-1), "allocation %ld did not happen", n);
        assert_int_equal(d->ops->sync(d, &err), -1);
        assert_int_equal(err.code, CLM_ERR_NOMEM);
        err = (clm_error){0};
        assert_int_equal(d->ops->sync(d, &err), 0);
    }
    d->ops->attend(d, &ty, &tq, &w.kv, &batch, &w.params);
    assert_int_equal(d->ops->sync(d, &err), 0);
    free_world(&w);
    d->ops->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_random_shapes),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
