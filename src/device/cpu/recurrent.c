/* device/cpu/recurrent.c: the operations of recurrent mixers. Tokens of a sequence come one after
 * the other; sequences, heads, lanes of heads and channels are cut over the threads.
 */
#include <math.h>
#include <string.h>

#include "device/cpu/cpu.h"
#include "device/cpu/ops.h"
#include "device/cpu/rows.h"

enum { CHANNELS = 256 }; /* treated at once */

static const float *state_from(const struct state_sequence *s, size_t offset)
{
    return s->from ? (const float *)((const char *)s->from + offset) : NULL;
}

static float *state_to(const struct state_sequence *s, size_t offset)
{
    return (float *)((char *)s->to + offset);
}

/* Items per piece, where n_items times as many numbers per row are computed for all rows. */
static int64_t state_grain(const struct state_batch *batch, int64_t work, int64_t numbers)
{
    int64_t n = batch->n_sequences > 0 ? batch->n_sequences : 1;

    return grain(work, (batch->n_rows + n - 1) / n * numbers);
}

/* --- Blocks of channels of sequences. --- */

struct channel_call {
    struct cpu_device *d;
    void (*fn)(const struct channel_call *call, const struct state_sequence *s, int first, int n,
               int thread);
    const struct state_batch *batch;
    size_t offset;
    int channels, n_blocks;
    const tensor *y, *x, *dt, *b, *c; /* dt: log_a of gated_scan */
    const float *w, *bias;            /* of causal_conv */
    const int32_t *positions;         /* of causal_pool, whose gate is b */
    int width;
    enum activation act;
    const float *a, *skip; /* of selective_scan */
};

static void channel_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct channel_call *call = ctx;

    for (int64_t i = begin; i < end; i++) {
        const struct state_sequence *s = &call->batch->sequences[i / call->n_blocks];
        int first = (int)(i % call->n_blocks) * CHANNELS;
        int n = call->channels - first < CHANNELS ? call->channels - first : CHANNELS;

        if (s->n_rows > 0)
            call->fn(call, s, first, n, thread);
    }
}

static void for_channels(device *d, struct channel_call *call, int64_t work, int64_t numbers)
{
    call->d = cpu_device_of(d);
    call->channels = call->x->cols;
    call->n_blocks = (int)(((int64_t)call->channels + CHANNELS - 1) / CHANNELS);
    thread_pool_for_own(call->d->pool, (int64_t)call->batch->n_sequences * call->n_blocks,
                        state_grain(call->batch, work, CHANNELS * numbers), channel_range, call);
}

/* --- Convolution --- */

/* Input number t of the sequence's new ones, or -t from the end of the old. */
static const float *conv_input(const struct channel_call *call, const struct state_sequence *s,
                               int first, int64_t t, const float *zeros)
{
    const float *from = state_from(s, call->offset);

    if (t >= 0)
        return row_of(call->x, s->row + t) + first;
    return from ? from + (call->width - 1 + t) * call->channels + first : zeros;
}

/* [n, width] to [width, n]; a constant width is done with vectors. */
static inline __attribute__((always_inline)) void
transpose(float *restrict to, const float *restrict from, int n, int width)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < width; j++)
            to[(int64_t)j * n + i] = from[(int64_t)i * width + j];
}

/* Of one token. */
static void conv_token(const struct channel_call *call, const struct state_sequence *s, int first,
                       int n)
{
    static const float zeros[CHANNELS];
    const float *from = state_from(s, call->offset);
    float *y = row_of(call->y, s->row) + first;

    call->d->vector.convolve_one(y, state_to(s, call->offset) + first, call->channels,
                                 from ? from + first : zeros, from ? call->channels : 0,
                                 row_of(call->x, s->row) + first,
                                 call->w + (int64_t)first * call->width,
                                 call->bias ? call->bias + first : NULL, n, call->width);
    call->d->vector.activate(y, y, n, call->act);
}

/* Backwards, so that y may be x; the state first, for the same reason. */
static void conv_rows(const struct channel_call *call, const struct state_sequence *s, int first,
                      int n, int thread)
{
    size_t taps = (size_t)call->width * CHANNELS, kept = (size_t)call->width - 1;
    float *w = cpu_scratch(call->d, thread,
                           (taps + CHANNELS) * sizeof *w + (size_t)call->width * sizeof(void *));
    const float *bias = call->bias ? call->bias + first : NULL;

    if (!w)
        return;

    float *zeros = w + taps;
    const float **x = (const float **)(void *)(zeros + CHANNELS);

    memset(zeros, 0, CHANNELS * sizeof *zeros);
    if (call->width == 4) /* as in most models */
        transpose(w, call->w + (int64_t)first * 4, n, 4);
    else
        transpose(w, call->w + (int64_t)first * call->width, n, call->width);
    for (size_t j = 0; j < kept; j++)
        memcpy(state_to(s, call->offset) + j * (size_t)call->channels + first,
               conv_input(call, s, first, (int64_t)j - (int64_t)kept + s->n_rows, zeros),
               (size_t)n * sizeof *w);
    for (int64_t t = s->n_rows - 1; t >= 0; t--) {
        float *y = row_of(call->y, s->row + t) + first;

        for (int j = 0; j < call->width; j++)
            x[j] = conv_input(call, s, first, t - (int64_t)kept + j, zeros);
        call->d->vector.convolve(y, x, w, bias, n, call->width);
        call->d->vector.activate(y, y, n, call->act);
    }
}

static void conv_channels(const struct channel_call *call, const struct state_sequence *s,
                          int first, int n, int thread)
{
    if (s->n_rows == 1)
        conv_token(call, s, first, n);
    else
        conv_rows(call, s, first, n, thread);
}

void cpu_causal_conv(device *d, tensor *y, const tensor *x, const float *w, const float *bias,
                     int width, enum activation act, const struct state_batch *batch, size_t offset)
{
    struct channel_call call = {
        .fn = conv_channels,
        .batch = batch,
        .offset = offset,
        .y = y,
        .x = x,
        .w = w,
        .bias = bias,
        .width = width,
        .act = act,
    };

    /* Weights and state of a single token come from memory: that takes longer than the sums. */
    for_channels(d, &call, LIGHT, 8 * (int64_t)width);
}

/* --- Pooling --- */

/* The last inputs of x and of the gate, which are kept one after the other. */
static const float *pool_input(const struct channel_call *call, const struct state_sequence *s,
                               const tensor *x, int first, int64_t t)
{
    const float *from = state_from(s, call->offset);
    int64_t place = (x == call->b ? call->width - 1 : 0) + call->width - 1 + t;

    if (t >= 0)
        return row_of(x, s->row + t) + first;
    return from ? from + place * call->channels + first : NULL;
}

/* One group of width tokens, the last of them number t. Those before the sequence's first one,
 * which no whole group has, count as nothing. */
static void pool_group(const struct channel_call *call, const struct state_sequence *s, int first,
                       int n, int64_t t, float *sums)
{
    float *y = row_of(call->y, s->row + t) + first, *most = sums + CHANNELS;

    for (int c = 0; c < n; c++)
        most[c] = -INFINITY;
    for (int64_t i = t - call->width + 1; i <= t; i++) {
        const float *gate = pool_input(call, s, call->b, first, i);

        for (int c = 0; gate && c < n; c++)
            most[c] = fmaxf(most[c], gate[c]);
    }
    memset(y, 0, (size_t)n * sizeof *y);
    memset(sums, 0, (size_t)n * sizeof *sums);
    for (int64_t i = t - call->width + 1; i <= t; i++) {
        const float *gate = pool_input(call, s, call->b, first, i);
        const float *x = pool_input(call, s, call->x, first, i);

        for (int c = 0; gate && c < n; c++) {
            float weight = expf(gate[c] - most[c]);

            sums[c] += weight;
            y[c] += weight * x[c];
        }
    }
    for (int c = 0; c < n; c++)
        y[c] /= sums[c];
}

static void keep_inputs(const struct channel_call *call, const struct state_sequence *s,
                        const tensor *x, int first, int n)
{
    int kept = call->width - 1;
    float *to =
        state_to(s, call->offset) + first + (x == call->b ? (int64_t)kept * call->channels : 0);

    for (int j = 0; j < kept; j++) {
        const float *from = pool_input(call, s, x, first, (int64_t)j - kept + s->n_rows);

        if (from)
            memcpy(to + (int64_t)j * call->channels, from, (size_t)n * sizeof *to);
        else
            memset(to + (int64_t)j * call->channels, 0, (size_t)n * sizeof *to);
    }
}

static void pool_channels(const struct channel_call *call, const struct state_sequence *s,
                          int first, int n, int thread)
{
    float sums[2 * CHANNELS];

    (void)thread;
    for (int64_t t = 0; t < s->n_rows; t++)
        if ((call->positions[s->row + t] + 1) % call->width == 0)
            pool_group(call, s, first, n, t, sums);
        else
            memset(row_of(call->y, s->row + t) + first, 0, (size_t)n * sizeof(float));
    keep_inputs(call, s, call->x, first, n);
    keep_inputs(call, s, call->b, first, n);
}

void cpu_causal_pool(device *d, tensor *y, const tensor *x, const tensor *gate,
                     const int32_t *positions, int width, const struct state_batch *batch,
                     size_t offset)
{
    struct channel_call call = {
        .fn = pool_channels,
        .batch = batch,
        .offset = offset,
        .y = y,
        .x = x,
        .b = gate,
        .positions = positions,
        .width = width,
    };

    for_channels(d, &call, HEAVY, 1);
}

/* --- Scans over channels --- */

static void selective_channels(const struct channel_call *call, const struct state_sequence *s,
                               int first, int n, int thread)
{
    int size = call->b->cols;
    int64_t at = (int64_t)first * size;
    const float *from = state_from(s, call->offset);
    float *to = state_to(s, call->offset) + at;

    (void)thread;
    if (!from)
        memset(to, 0, (size_t)n * (size_t)size * sizeof *to);
    from = from ? from + at : to;
    for (int64_t row = s->row; row < (int64_t)s->row + s->n_rows; row++) {
        call->d->vector.selective_step(row_of(call->y, row) + first, to, from,
                                       row_of(call->x, row) + first, row_of(call->dt, row) + first,
                                       call->a + at, call->skip ? call->skip + first : NULL,
                                       row_of(call->b, row), row_of(call->c, row), n, size);
        from = to;
    }
}

void cpu_selective_scan(device *d, tensor *y, const tensor *x, const tensor *dt, const tensor *B,
                        const tensor *C, const float *a, const float *skip,
                        const struct state_batch *batch, size_t offset)
{
    struct channel_call call = {
        .fn = selective_channels,
        .batch = batch,
        .offset = offset,
        .y = y,
        .x = x,
        .dt = dt,
        .b = B,
        .c = C,
        .a = a,
        .skip = skip,
    };

    for_channels(d, &call, HEAVY, B->cols);
}

static void gated_channels(const struct channel_call *call, const struct state_sequence *s,
                           int first, int n, int thread)
{
    const float *from = state_from(s, call->offset);
    size_t size = (size_t)n * sizeof *from;
    int64_t row = s->row, end = row + s->n_rows;

    (void)thread;
    if (from) {
        from += first;
    } else {
        from = row_of(call->y, row) + first;
        memmove(row_of(call->y, row) + first, row_of(call->x, row) + first, size);
        row++;
    }
    for (; row < end; row++) {
        float *y = row_of(call->y, row) + first;

        call->d->vector.gated_step(y, from, row_of(call->x, row) + first,
                                   row_of(call->dt, row) + first, n);
        from = y;
    }
    memcpy(state_to(s, call->offset) + first, from, size);
}

void cpu_gated_scan(device *d, tensor *y, const tensor *x, const tensor *log_a,
                    const struct state_batch *batch, size_t offset)
{
    struct channel_call call = {
        .fn = gated_channels, .batch = batch, .offset = offset, .y = y, .x = x, .dt = log_a};

    for_channels(d, &call, HEAVY, 1);
}

/* --- Matrices: blocks of lanes of the heads of sequences. --- */

struct recurrence_call {
    struct cpu_device *d;
    const tensor *y;
    const struct recurrence_params *p;
    const struct state_batch *batch;
    size_t offset;
    int n_blocks, lanes; /* of a head, of a block */
};

static const float one = 1;

/* What the token of a row brings to a head. */
static struct cpu_recurrence_step step_of(const struct recurrence_params *p, int64_t row, int head,
                                          int lane)
{
    int64_t key = (int64_t)(head / (p->n_heads / p->n_key_heads)) * p->key_dim;
    int64_t own = (int64_t)head * p->key_dim;
    bool by_key = p->decay && p->decay->cols != p->n_heads;
    const float *decay = p->head_decay ? p->head_decay + head : &one;

    if (p->decay)
        decay = row_of(p->decay, row) + (by_key ? own : head);
    return (struct cpu_recurrence_step){
        .q = row_of(p->q, row) + key,
        .k = row_of(p->k, row) + key,
        .a = p->a ? row_of(p->a, row) + own : NULL,
        .b = p->b ? row_of(p->b, row) + own : NULL,
        .decay = decay,
        .decay_step = by_key,
        .key_dim = p->key_dim,
        .beta = p->beta ? row_of(p->beta, row)[head] : 1.0f,
        .skip = p->skip ? p->skip[head] : 0.0f,
        .v = row_of(p->v, row) + (int64_t)head * p->value_dim + lane,
    };
}

/* The first token reads the old state and the last one writes the new; in between the block lies in
 * the thread's own memory, which the nearest cache holds. */
static void recur_lanes(const struct recurrence_call *call, const struct state_sequence *s,
                        int head, int lane, int n, int thread)
{
    static const float zeros[CPU_RECURRENCE_LANES];
    const struct recurrence_params *p = call->p;
    int64_t at = (int64_t)head * p->key_dim * p->value_dim + lane;
    const float *from = state_from(s, call->offset);
    int64_t from_stride = from ? p->value_dim : 0;
    float *block = NULL;

    if (s->n_rows > 1) {
        block =
            cpu_scratch(call->d, thread, (size_t)call->lanes * (size_t)p->key_dim * sizeof *block);
        if (!block)
            return;
    }
    from = from ? from + at : zeros;
    for (int t = 0; t < s->n_rows; t++) {
        bool last = t == s->n_rows - 1;
        float *to = last ? state_to(s, call->offset) + at : block;
        int64_t row = (int64_t)s->row + t;
        struct cpu_recurrence_step step = step_of(p, row, head, lane);

        step.last = last;
        step.ahead = s->n_rows == 1 && s->from && call->d->matmul.reading.states;
        call->d->vector.recurrence[p->rule](
            row_of(call->y, row) + (int64_t)head * p->value_dim + lane, to,
            last ? p->value_dim : call->lanes, from, from_stride, &step, n);
        from = block;
        from_stride = call->lanes;
    }
}

static void recurrence_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct recurrence_call *call = ctx;
    int64_t per_sequence = (int64_t)call->p->n_heads * call->n_blocks;

    for (int64_t i = begin; i < end; i++) {
        int lane = (int)(i % call->n_blocks) * call->lanes;
        int n = call->p->value_dim - lane < call->lanes ? call->p->value_dim - lane : call->lanes;

        recur_lanes(call, &call->batch->sequences[i / per_sequence],
                    (int)(i % per_sequence / call->n_blocks), lane, n, thread);
    }
}

void cpu_recurrence(device *d, tensor *y, const struct recurrence_params *p,
                    const struct state_batch *batch, size_t offset)
{
    struct cpu_device *c = cpu_device_of(d);
    bool single = batch->n_rows <= batch->n_sequences; /* whole heads are read in order */
    int lanes = single ? CPU_RECURRENCE_LANES : c->vector.recurrence_lanes;
    int n_blocks = (p->value_dim + lanes - 1) / lanes;
    struct recurrence_call call = {c, y, p, batch, offset, n_blocks, lanes};

    thread_pool_for_own(
        c->pool, (int64_t)batch->n_sequences * p->n_heads * n_blocks,
        state_grain(batch, LIGHT / 2, (int64_t)p->value_dim / n_blocks * p->key_dim),
        recurrence_range, &call);
}

/* --- Numbers around them --- */

struct time_step_call {
    const struct cpu_vector_kernels *k;
    const tensor *dt, *decay;
    const float *bias, *a;
    int n;
    float low, high;
};

static void time_step_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct time_step_call *call = ctx;
    int cols = call->dt->cols;

    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *dt = row_of(call->dt, t), *decay = row_of(call->decay, t);

        if (call->bias)
            call->k->add(dt, call->bias, cols, 1);
        call->k->activate(dt, dt, cols, ACT_SOFTPLUS);
        for (int i = 0; i < cols; i++) {
            dt[i] = dt[i] < call->low ? call->low : dt[i] > call->high ? call->high : dt[i];
            decay[i] = dt[i] * call->a[i / call->n];
        }
        call->k->activate(decay, decay, cols, ACT_EXP);
    }
}

void cpu_time_step(device *d, tensor *dt, tensor *decay, const float *bias, const float *a, int n,
                   float low, float high)
{
    struct cpu_device *c = cpu_device_of(d);
    struct time_step_call call = {&c->vector, dt, decay, bias, a, n, low, high};

    thread_pool_for(c->pool, dt->rows, grain(HEAVY / 2, dt->cols), time_step_range, &call);
}

struct dot_call {
    const tensor *y, *a, *b;
    int n;
};

static void dot_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct dot_call *call = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int g = 0; g < call->y->cols; g++) {
            const float *a = row_of(call->a, t) + (int64_t)g * call->n;
            const float *b = row_of(call->b, t) + (int64_t)g * call->n;
            float sum = 0;

            for (int i = 0; i < call->n; i++)
                sum += a[i] * b[i];
            row_of(call->y, t)[g] = sum;
        }
}

void cpu_dot_groups(device *d, tensor *y, const tensor *a, const tensor *b, int n)
{
    struct dot_call call = {y, a, b, n};

    thread_pool_for(cpu_device_of(d)->pool, y->rows, grain(LIGHT, (int64_t)y->cols * n), dot_range,
                    &call);
}
