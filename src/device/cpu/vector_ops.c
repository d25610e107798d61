/* device/cpu/vector_ops.c: the operations that treat rows one by one, cut over the threads. */
#include <math.h>
#include <string.h>

#include "base/number.h"
#include "device/cpu/cpu.h"
#include "device/cpu/ops.h"
#include "device/cpu/rows.h"

enum { SEGMENT = 4096 }; /* long rows are cut, a whole number of vectors each */
enum { ARGMAX_PIECE = 16384, MOST_PIECES = 32 };

/* --- Elementwise: any piece of any row alone. --- */

struct map_call {
    const struct cpu_vector_kernels *k;
    void (*fn)(const struct map_call *call, float *y, const float *a, const float *b, int n);
    const tensor *y, *a, *b; /* b may be missing */
    float scale, low, high;
    const float *factor;
    enum activation act;
    int n_segments; /* of a row */
};

static void map_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct map_call *call = ctx;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i / call->n_segments;
        int column = (int)(i % call->n_segments) * SEGMENT;
        int n = call->y->cols - column < SEGMENT ? call->y->cols - column : SEGMENT;

        call->fn(call, row_of(call->y, row) + column, row_of(call->a, row) + column,
                 call->b ? row_of(call->b, row) + column : NULL, n);
    }
}

static void map(device *d, struct map_call *call, int64_t work)
{
    struct cpu_device *c = cpu_device_of(d);
    int cols = call->y->cols;

    call->k = &c->vector;
    call->n_segments = (int)(((int64_t)cols + SEGMENT - 1) / SEGMENT);
    thread_pool_for(c->pool, (int64_t)call->y->rows * call->n_segments,
                    grain(work, cols < SEGMENT ? cols : SEGMENT), map_range, call);
}

static void map_add(const struct map_call *call, float *y, const float *a, const float *b, int n)
{
    (void)b;
    call->k->add(y, a, n, call->scale);
}

static void map_scale(const struct map_call *call, float *y, const float *a, const float *b, int n)
{
    (void)a;
    (void)b;
    call->k->scale(y, n, call->scale);
}

static void map_activate(const struct map_call *call, float *y, const float *a, const float *b,
                         int n)
{
    (void)b;
    call->k->activate(y, a, n, call->act);
}

static void map_glu(const struct map_call *call, float *y, const float *a, const float *b, int n)
{
    call->k->glu(y, a, b, n, call->act);
}

static void map_softcap(const struct map_call *call, float *y, const float *a, const float *b,
                        int n)
{
    (void)a;
    (void)b;
    call->k->softcap(y, n, call->scale);
}

void cpu_add(device *d, tensor *y, const tensor *x, float scale)
{
    map(d, &(struct map_call){.fn = map_add, .y = y, .a = x, .scale = scale}, LIGHT);
}

void cpu_scale(device *d, tensor *x, float scale)
{
    map(d, &(struct map_call){.fn = map_scale, .y = x, .a = x, .scale = scale}, LIGHT);
}

static void map_scale_columns(const struct map_call *call, float *y, const float *a, const float *b,
                              int n)
{
    (void)call;
    (void)a;
    for (int i = 0; i < n; i++)
        y[i] *= b[i];
}

/* The weights are one row that serves all rows. */
void cpu_scale_columns(device *d, tensor *x, const float *w)
{
    tensor row = {.data = (void *)(uintptr_t)w, .type = DTYPE_F32, .rows = 1, .cols = x->cols};

    map(d, &(struct map_call){.fn = map_scale_columns, .y = x, .a = x, .b = &row}, LIGHT);
}

static void map_add_columns(const struct map_call *call, float *y, const float *a, const float *b,
                            int n)
{
    (void)a;
    call->k->add(y, b, n, 1);
}

void cpu_add_columns(device *d, tensor *x, const float *w)
{
    tensor row = {.data = (void *)(uintptr_t)w, .type = DTYPE_F32, .rows = 1, .cols = x->cols};

    map(d, &(struct map_call){.fn = map_add_columns, .y = x, .a = x, .b = &row}, LIGHT);
}

struct scale_rows_call {
    const struct cpu_vector_kernels *k;
    const tensor *x, *w;
};

static void scale_rows_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct scale_rows_call *call = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++)
        call->k->scale(row_of(call->x, t), call->x->cols, *row_of(call->w, t));
}

void cpu_scale_rows(device *d, tensor *x, const tensor *w)
{
    struct cpu_device *c = cpu_device_of(d);
    struct scale_rows_call call = {&c->vector, x, w};

    thread_pool_for(c->pool, x->rows, grain(LIGHT, x->cols), scale_rows_range, &call);
}

static void map_clamp(const struct map_call *call, float *y, const float *a, const float *b, int n)
{
    (void)a;
    (void)b;
    for (int i = 0; i < n; i++)
        y[i] = y[i] < call->low ? call->low : y[i] > call->high ? call->high : y[i];
}

void cpu_clamp(device *d, tensor *x, float low, float high)
{
    map(d, &(struct map_call){.fn = map_clamp, .y = x, .a = x, .low = low, .high = high}, LIGHT);
}

static void map_clear(const struct map_call *call, float *y, const float *a, const float *b, int n)
{
    (void)call;
    (void)a;
    (void)b;
    memset(y, 0, (size_t)n * sizeof *y);
}

void cpu_clear(device *d, tensor *x)
{
    map(d, &(struct map_call){.fn = map_clear, .y = x, .a = x}, LIGHT);
}

static void map_fill(const struct map_call *call, float *y, const float *a, const float *b, int n)
{
    (void)a;
    (void)b;
    for (int i = 0; i < n; i++)
        y[i] = call->scale;
}

void cpu_fill(device *d, tensor *x, float value)
{
    map(d, &(struct map_call){.fn = map_fill, .y = x, .a = x, .scale = value}, LIGHT);
}

struct row_call {
    const struct cpu_vector_kernels *k;
    const tensor *x;
    const float *w;
    int n;
};

static void scale_groups_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct row_call *call = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int at = 0; at < call->x->cols; at += call->n)
            call->k->scale(row_of(call->x, t) + at, call->n, call->w[at / call->n]);
}

void cpu_scale_groups(device *d, tensor *x, const float *w, int n)
{
    struct cpu_device *c = cpu_device_of(d);
    struct row_call call = {&c->vector, x, w, n};

    thread_pool_for(c->pool, x->rows, grain(LIGHT, x->cols), scale_groups_range, &call);
}

static void softmax_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct row_call *call = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *x = row_of(call->x, t), max = -INFINITY, sum = 0;

        for (int i = 0; i < call->x->cols; i++)
            max = fmaxf(max, x[i]);
        for (int i = 0; i < call->x->cols; i++)
            sum += x[i] = expf(x[i] - max);
        for (int i = 0; i < call->x->cols; i++)
            x[i] /= sum;
    }
}

void cpu_softmax(device *d, tensor *x)
{
    struct cpu_device *c = cpu_device_of(d);
    struct row_call call = {.x = x};

    thread_pool_for(c->pool, x->rows, grain(HEAVY, x->cols), softmax_range, &call);
}

static float softplus(float x)
{
    return fmaxf(x, 0) + log1pf(expf(-fabsf(x)));
}

static void map_xielu(const struct map_call *call, float *y, const float *a, const float *b, int n)
{
    float positive = call->low, negative = call->high, beta = call->scale, eps = *call->factor;

    (void)a;
    (void)b;
    for (int i = 0; i < n; i++)
        y[i] = y[i] > 0 ? positive * y[i] * y[i] + beta * y[i]
                        : (expm1f(fminf(y[i], eps)) - y[i]) * negative + beta * y[i];
}

void cpu_xielu(device *d, tensor *x, const float *const w[4])
{
    struct map_call call = {.fn = map_xielu, .y = x, .a = x};

    call.low = softplus(*w[0]);
    call.high = *w[2] + softplus(*w[1]);
    call.scale = *w[2];
    call.factor = w[3];
    map(d, &call, HEAVY);
}

static void map_round(const struct map_call *call, float *y, const float *a, const float *b, int n)
{
    float step = *call->factor;

    (void)a;
    (void)b;
    for (int i = 0; i < n; i++)
        y[i] = fminf(fmaxf(rintf(y[i] / step), call->low), call->high) * step;
}

void cpu_round_to(device *d, tensor *x, const float *step, float low, float high)
{
    map(d,
        &(struct map_call){
            .fn = map_round, .y = x, .a = x, .factor = step, .low = low, .high = high},
        LIGHT);
}

static void map_bf16(const struct map_call *call, float *y, const float *a, const float *b, int n)
{
    (void)call;
    (void)a;
    (void)b;
    for (int i = 0; i < n; i++)
        y[i] = bf16_to_f32(f32_to_bf16(y[i]));
}

static void map_f16(const struct map_call *call, float *y, const float *a, const float *b, int n)
{
    (void)call;
    (void)a;
    (void)b;
    for (int i = 0; i < n; i++)
        y[i] = f16_to_f32(f32_to_f16(y[i]));
}

void cpu_round_floats(device *d, tensor *x, enum dtype type)
{
    map(d, &(struct map_call){.fn = type == DTYPE_F16 ? map_f16 : map_bf16, .y = x, .a = x}, LIGHT);
}

static void map_glu_alpha(const struct map_call *call, float *y, const float *gate, const float *up,
                          int n)
{
    for (int i = 0; i < n; i++) {
        float g = fminf(gate[i], call->high), u = fminf(fmaxf(up[i], call->low), call->high);

        y[i] = (u + 1) * (g / (1 + expf(-call->scale * g)));
    }
}

void cpu_glu_alpha(device *d, tensor *y, const tensor *gate, const tensor *up, float alpha,
                   float limit)
{
    map(d,
        &(struct map_call){.fn = map_glu_alpha,
                           .y = y,
                           .a = gate,
                           .b = up,
                           .scale = alpha,
                           .low = -limit,
                           .high = limit},
        HEAVY);
}

static void map_copy(const struct map_call *call, float *y, const float *a, const float *b, int n)
{
    (void)call;
    (void)b;
    memcpy(y, a, (size_t)n * sizeof *y);
}

void cpu_copy_rows(device *d, tensor *y, const tensor *x)
{
    map(d, &(struct map_call){.fn = map_copy, .y = y, .a = x}, LIGHT);
}

struct temperature_call {
    const struct cpu_vector_kernels *k;
    const tensor *x;
    const int32_t *positions;
    float beta, length;
    int offset;
};

static void temperature_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct temperature_call *call = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float steps = floorf((float)((int64_t)call->positions[t] + call->offset) / call->length);

        call->k->scale(row_of(call->x, t), call->x->cols, 1.0f + call->beta * logf(1.0f + steps));
    }
}

void cpu_temperature(device *d, tensor *x, const int32_t *positions, float beta, float length,
                     int offset)
{
    struct cpu_device *c = cpu_device_of(d);
    struct temperature_call call = {&c->vector, x, positions, beta, length, offset};

    thread_pool_for(c->pool, x->rows, grain(LIGHT, x->cols), temperature_range, &call);
}

void cpu_activate(device *d, tensor *y, const tensor *x, enum activation act)
{
    map(d, &(struct map_call){.fn = map_activate, .y = y, .a = x, .act = act}, HEAVY);
}

void cpu_glu(device *d, tensor *y, const tensor *gate, const tensor *up, enum activation act)
{
    map(d, &(struct map_call){.fn = map_glu, .y = y, .a = gate, .b = up, .act = act}, HEAVY);
}

void cpu_softcap(device *d, tensor *x, float cap)
{
    map(d, &(struct map_call){.fn = map_softcap, .y = x, .a = x, .scale = cap}, HEAVY);
}

/* --- Norms: any group of any row alone. --- */

struct norm_call {
    const struct cpu_vector_kernels *k;
    const tensor *y, *x;
    const float *w, *b;
    int n, n_groups;
    float eps;
};

static void rms_norm_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct norm_call *call = ctx;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i / call->n_groups, column = i % call->n_groups * call->n;

        call->k->rms_norm(row_of(call->y, row) + column, row_of(call->x, row) + column, call->w,
                          call->n, call->eps);
    }
}

static void layer_norm_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct norm_call *call = ctx;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i / call->n_groups, column = i % call->n_groups * call->n;

        call->k->layer_norm(row_of(call->y, row) + column, row_of(call->x, row) + column, call->w,
                            call->b, call->n, call->eps);
    }
}

static void norm(device *d, struct norm_call *call, range_fn fn)
{
    struct cpu_device *c = cpu_device_of(d);

    if (call->n < 1)
        return;
    call->k = &c->vector;
    call->n_groups = call->x->cols / call->n;
    thread_pool_for(c->pool, (int64_t)call->x->rows * call->n_groups, grain(LIGHT, call->n), fn,
                    call);
}

void cpu_rms_norm(device *d, tensor *y, const tensor *x, const float *w, int n, float eps)
{
    norm(d, &(struct norm_call){.y = y, .x = x, .w = w, .n = n, .eps = eps}, rms_norm_range);
}

void cpu_layer_norm(device *d, tensor *y, const tensor *x, const float *w, const float *b, int n,
                    float eps)
{
    norm(d, &(struct norm_call){.y = y, .x = x, .w = w, .b = b, .n = n, .eps = eps},
         layer_norm_range);
}

/* --- Rotary positions. --- */

struct rope_table_call {
    const tensor *table;
    const int32_t *positions;
    const float *inv_freq;
    float mscale;
};

static void rope_table_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct rope_table_call *call = ctx;
    int n = call->table->cols / 2;

    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int i = 0; i < n; i++) {
            float angle = (float)call->positions[t] * call->inv_freq[i];

            row_of(call->table, t)[i] = call->mscale * cosf(angle);
            row_of(call->table, t)[n + i] = call->mscale * sinf(angle);
        }
}

void cpu_rope_table(device *d, tensor *table, const int32_t *positions, const float *inv_freq,
                    float mscale)
{
    struct rope_table_call call = {table, positions, inv_freq, mscale};

    /* A sine takes the time of some ten exponentials. */
    thread_pool_for(cpu_device_of(d)->pool, table->rows, grain(HEAVY / 8, table->cols),
                    rope_table_range, &call);
}

struct rope_call {
    void (*rotate)(float *x, const float *cos, const float *sin, int n);
    const tensor *x, *table;
    int head_dim;
};

static void rope_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct rope_call *call = ctx;
    int n = call->table->cols / 2, n_heads = call->x->cols / call->head_dim;

    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *cos = row_of(call->table, t);

        for (int h = 0; h < n_heads; h++)
            call->rotate(row_of(call->x, t) + (int64_t)h * call->head_dim, cos, cos + n, n);
    }
}

void cpu_rope(device *d, tensor *x, int head_dim, const tensor *table, bool interleaved)
{
    struct cpu_device *c = cpu_device_of(d);
    struct rope_call call = {
        .rotate = interleaved ? c->vector.rope_pairs : c->vector.rope_halves,
        .x = x,
        .table = table,
        .head_dim = head_dim,
    };

    thread_pool_for(c->pool, x->rows, grain(LIGHT, x->cols), rope_range, &call);
}

/* --- Choosing rows, and numbers of a row. --- */

struct gather_call {
    const tensor *y, *x;
    const int32_t *indices;
};

static void gather_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct gather_call *call = ctx;
    size_t size = dtype_size(call->x->type);

    (void)thread;
    for (int64_t i = begin; i < end; i++)
        memcpy((char *)call->y->data + (size_t)(i * call->y->stride) * size,
               (const char *)call->x->data + (size_t)(call->indices[i] * call->x->stride) * size,
               (size_t)call->y->cols * size);
}

void cpu_gather_rows(device *d, tensor *y, const tensor *x, const int32_t *rows)
{
    struct gather_call call = {y, x, rows};

    if (y->cols > 0)
        thread_pool_for(cpu_device_of(d)->pool, y->rows, grain(LIGHT, y->cols), gather_range,
                        &call);
}

static void gather_columns_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct gather_call *c = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *x = (const float *)c->x->data + t * c->x->stride;
        float *y = (float *)c->y->data + t * c->y->stride;

        for (int i = 0; i < c->y->cols; i++)
            y[i] = x[c->indices[i]];
    }
}

void cpu_gather_columns(device *d, tensor *y, const tensor *x, const int32_t *order)
{
    struct gather_call call = {y, x, order};

    if (y->cols > 0)
        thread_pool_for(cpu_device_of(d)->pool, y->rows, grain(LIGHT, y->cols),
                        gather_columns_range, &call);
}

struct argmax_call {
    const struct cpu_vector_kernels *k;
    int32_t *ids;
    const tensor *x;
    int piece; /* numbers of a piece of a single row */
};

static void argmax_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct argmax_call *call = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++)
        call->ids[t] = call->k->argmax(row_of(call->x, t), call->x->cols);
}

static void argmax_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct argmax_call *call = ctx;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int first = (int)i * call->piece, left = call->x->cols - first;

        call->ids[i] =
            call->k->argmax(row_of(call->x, 0) + first, left < call->piece ? left : call->piece);
    }
}

/* Of what is best in each piece; below 0 if nothing is in one. */
static int32_t best_of_pieces(const int32_t *ids, int n, const float *x, int piece)
{
    int32_t best = ids[0];

    for (int i = 1; i < n && best >= 0; i++)
        if (ids[i] < 0)
            best = -1;
        else if (x[i * piece + ids[i]] > x[best])
            best = i * piece + ids[i];
    return best;
}

void cpu_argmax(device *d, int32_t *ids, const tensor *x)
{
    struct cpu_device *c = cpu_device_of(d);
    struct argmax_call call = {&c->vector, ids, x, 0};
    int32_t of_pieces[MOST_PIECES];
    int n = x->cols / ARGMAX_PIECE;

    if (x->rows != 1 || n < 2) {
        thread_pool_for(c->pool, x->rows, grain(LIGHT, x->cols), argmax_range, &call);
        return;
    }
    n = n < MOST_PIECES ? n : MOST_PIECES;
    call.piece = (x->cols + n - 1) / n;
    n = (x->cols + call.piece - 1) / call.piece;
    call.ids = of_pieces;
    thread_pool_for(c->pool, n, 1, argmax_pieces, &call);
    ids[0] = best_of_pieces(of_pieces, n, row_of(x, 0), call.piece);
    if (ids[0] < 0) /* what is -inf in one piece need not be so in all */
        ids[0] = c->vector.argmax(row_of(x, 0), x->cols);
}
