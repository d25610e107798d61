/* The operations of recurrent mixers with the kernels of every instruction set this processor has:
 * against their formulas in double precision, and bit for bit whatever the batch, the cuts of a
 * sequence into steps and the number of threads. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/number.h"
#include "device/cpu/cpu.h"

#include "device/gaps.h"
#include "testing.h"

#define EPSILON ((double)FLT_EPSILON)
enum { MAX_SEQUENCES = 5, MAX_INPUTS = 8 };

/* Of the parts of mixers in states, in numbers: to vectors, and not. */
static int offset = 3;

/* --- Tensors with gaps between their rows, which must stay as they are. --- */

static float *row_of(const tensor *t, int row)
{
    return (float *)t->data + row * t->stride;
}

/* Numbers to low + (high - low) [0, 1). */
static void spread(const tensor *t, float low, float high)
{
    for (int r = 0; r < t->rows; r++)
        for (int i = 0; i < t->cols; i++)
            row_of(t, r)[i] = low + (high - low) * (row_of(t, r)[i] + 1) / 2;
}

static void check_gaps(const tensor *t, const char *what)
{
    for (int r = 0; r < t->rows; r++)
        for (int i = t->cols; i < t->cols + GAP; i++)
            CHECK(row_of(t, r)[i] == CANARY, "%s: wrote beyond row %d", what, r);
}

static bool same_row(const tensor *a, int row, const tensor *b, int other)
{
    return memcmp(row_of(a, row), row_of(b, other), (size_t)a->cols * sizeof(float)) == 0;
}

/* --- An operation with inputs for some sequences. --- */

struct trial {
    const char *name;
    void (*apply)(device *d, const struct trial *t, tensor *y, const tensor *in,
                  const struct state_batch *batch);
    /* The value at (row, i) of y and the sum of the magnitudes of its terms, for all rows of a
     * sequence and its state in turn. */
    void (*expect)(const struct trial *t, int row, int n_rows, const float *from, double *y,
                   double *size, double *state, double *state_size);
    double terms; /* roundings of one token, in halves of epsilon */
    int in_place; /* the input that y may be, or -1 */
    int state;    /* numbers */
    int cols;     /* of y */
    tensor in[MAX_INPUTS];
    int n_inputs;
    int n_sequences, rows;
    int first[MAX_SEQUENCES], n_rows[MAX_SEQUENCES];
    float *from[MAX_SEQUENCES]; /* [offset + state], or NULL */
    /* of causal_conv, selective_scan, recurrence */
    int width, size;
    enum activation act;
    tensor w[2];
    struct recurrence_params p;
};

static void make_sequences(struct trial *t, int n, int longest)
{
    offset = random_below(2) ? 32 : 3;
    t->n_sequences = n;
    t->rows = 0;
    for (int s = 0; s < n; s++) {
        t->first[s] = t->rows;
        t->n_rows[s] = s == 3 ? 0 : 1 + (int)random_below((size_t)longest);
        t->rows += t->n_rows[s];
    }
}

static void make_states(struct trial *t)
{
    for (int s = 0; s < t->n_sequences; s++) {
        size_t n = (size_t)(offset + t->state);

        t->from[s] = s % 3 == 1 ? NULL : mem_alloc_aligned(n * sizeof(float));
        if (t->from[s])
            random_floats(t->from[s], n);
    }
}

static void free_trial(struct trial *t)
{
    for (int i = 0; i < t->n_inputs; i++)
        mem_free_aligned(t->in[i].data);
    for (int i = 0; i < 2; i++)
        mem_free_aligned(t->w[i].data);
    for (int s = 0; s < t->n_sequences; s++)
        mem_free_aligned(t->from[s]);
}

/* A state to write to, between canaries. */
static float *new_state(const struct trial *t)
{
    size_t n = (size_t)(offset + t->state + GAP);
    float *state = mem_alloc_aligned(n * sizeof *state);

    assert_non_null(state);
    for (size_t i = 0; i < n; i++)
        state[i] = CANARY;
    return state;
}

static void check_state_canaries(const struct trial *t, const float *state)
{
    for (int i = 0; i < offset + t->state + GAP; i++)
        CHECK((offset <= i && i < offset + t->state) || state[i] == CANARY,
              "%s: wrote at %d of a state of %d", t->name, i - offset, t->state);
}

static void apply_rows(device *d, const struct trial *t, tensor *y, int first, int n,
                       const struct state_batch *batch)
{
    tensor in[MAX_INPUTS], part = *y;

    for (int i = 0; i < t->n_inputs; i++) {
        in[i] = t->in[i];
        in[i].data = row_of(&t->in[i], first);
        in[i].rows = n;
    }
    part.data = row_of(y, first);
    part.rows = n;
    t->apply(d, t, &part, in, batch);
}

/* All sequences in one call; states are made. */
static void run_together(device *d, const struct trial *t, tensor *y, float **to)
{
    struct state_sequence sequences[MAX_SEQUENCES];
    struct state_batch batch = {sequences, t->n_sequences, t->rows};

    for (int s = 0; s < t->n_sequences; s++) {
        to[s] = new_state(t);
        sequences[s] = (struct state_sequence){t->first[s], t->n_rows[s], t->from[s], to[s]};
    }
    apply_rows(d, t, y, 0, t->rows, &batch);
    check_gaps(y, t->name);
    for (int s = 0; s < t->n_sequences; s++)
        check_state_canaries(t, to[s]);
}

/* One sequence, cut into steps of up to longest rows, single ones written in place or not; the
 * state at the end. */
static float *run_in_steps(device *d, const struct trial *t, tensor *y, int s, int longest)
{
    float *from = t->from[s], *to = NULL;

    for (int done = 0, n; done < t->n_rows[s]; done += n) {
        float *old = to;
        bool stays;

        n = 1 + (int)random_below((size_t)longest);
        n = n < t->n_rows[s] - done ? n : t->n_rows[s] - done;
        stays = n == 1 && old && random_below(2);
        to = stays ? old : new_state(t);
        struct state_sequence sequence = {0, n, from, to};
        struct state_batch batch = {&sequence, 1, n};
        apply_rows(d, t, y, t->first[s] + done, n, &batch);
        check_state_canaries(t, to);
        from = to;
        if (!stays)
            mem_free_aligned(old);
    }
    return to ? to : new_state(t);
}

static void check_values(const struct trial *t, const tensor *y, float *const *to)
{
    for (int s = 0; s < t->n_sequences; s++) {
        size_t n = (size_t)t->n_rows[s] * (size_t)t->cols, m = (size_t)t->state;
        double *want = mem_zeroed(2 * (n + m) + 1, sizeof *want), *size = want + n;
        double *state = size + n, *state_size = state + m;

        if (t->n_rows[s] > 0)
            t->expect(t, t->first[s], t->n_rows[s], t->from[s] ? t->from[s] + offset : NULL, want,
                      size, state, state_size);
        for (size_t i = 0; i < n; i++) {
            int row = (int)(i / (size_t)t->cols), col = (int)(i % (size_t)t->cols);
            double got = (double)row_of(y, t->first[s] + row)[col];
            double tolerance = (row + 1) * t->terms * EPSILON / 2 * size[i] + (double)FLT_MIN;

            CHECK(fabs(got - want[i]) <= tolerance, "%s, row %d, %d: %.9g, expected %.9g +- %.2g",
                  t->name, row, col, got, want[i], tolerance);
        }
        for (size_t i = 0; i < m && t->n_rows[s] > 0; i++) {
            double got = (double)to[s][offset + (int)i];
            double tolerance =
                t->n_rows[s] * t->terms * EPSILON / 2 * state_size[i] + (double)FLT_MIN;

            CHECK(fabs(got - state[i]) <= tolerance, "%s, state %zu: %.9g, expected %.9g +- %.2g",
                  t->name, i, got, state[i], tolerance);
        }
        for (size_t i = 0; i < m && t->n_rows[s] == 0; i++)
            CHECK(to[s][offset + (int)i] == CANARY, "%s: wrote a state for no rows", t->name);
        mem_free(want);
    }
}

static void check_in_steps(device *d, const struct trial *t, const tensor *y, float *const *to)
{
    tensor other = new_tensor(t->rows, t->cols);

    for (int longest = 1; longest <= 4; longest += 3)
        for (int s = 0; s < t->n_sequences; s++) {
            float *state = run_in_steps(d, t, &other, s, longest);

            for (int r = 0; r < t->n_rows[s]; r++)
                CHECK(same_row(y, t->first[s] + r, &other, t->first[s] + r),
                      "%s, row %d: differs in steps of %d", t->name, r, longest);
            CHECK(memcmp(state, to[s], (size_t)(offset + t->state) * sizeof *state) == 0,
                  "%s: another state after steps of %d", t->name, longest);
            mem_free_aligned(state);
        }
    mem_free_aligned(other.data);
}

static void check_in_place(device *d, struct trial *t, const tensor *y)
{
    tensor *x = &t->in[t->in_place];
    float *to[MAX_SEQUENCES];

    run_together(d, t, x, to);
    for (int r = 0; r < t->rows; r++)
        CHECK(same_row(x, r, y, r), "%s, row %d: differs in place", t->name, r);
    for (int s = 0; s < t->n_sequences; s++)
        mem_free_aligned(to[s]);
}

/* One thread calls for states, two do not, whatever this processor wants: the results are the same
 * bits. */
static device *open_cpu(int n_threads)
{
    clm_error err = {0};
    device *d = device_cpu_open(n_threads, &err);

    CHECK(d, "%s", err.message);
    cpu_device_of(d)->matmul.reading.states = n_threads == 1;
    return d;
}

static void check_trial(struct trial *t)
{
    device *one = open_cpu(1), *two = open_cpu(2);
    tensor y = new_tensor(t->rows, t->cols), other = new_tensor(t->rows, t->cols);
    float *to[MAX_SEQUENCES], *other_to[MAX_SEQUENCES];

    run_together(one, t, &y, to);
    run_together(two, t, &other, other_to);
    for (int r = 0; r < t->rows; r++)
        CHECK(same_row(&y, r, &other, r), "%s, row %d: differs on two threads", t->name, r);
    for (int s = 0; s < t->n_sequences; s++)
        CHECK(memcmp(to[s], other_to[s], (size_t)(offset + t->state) * sizeof **to) == 0,
              "%s: another state on two threads", t->name);
    check_values(t, &y, to);
    check_in_steps(one, t, &y, to);
    if (t->in_place >= 0)
        check_in_place(two, t, &y);
    assert_int_equal(one->ops->sync(one, NULL), 0);
    assert_int_equal(two->ops->sync(two, NULL), 0);
    for (int s = 0; s < t->n_sequences; s++) {
        mem_free_aligned(to[s]);
        mem_free_aligned(other_to[s]);
    }
    mem_free_aligned(y.data);
    mem_free_aligned(other.data);
    one->ops->close(one);
    two->ops->close(two);
    free_trial(t);
}

/* --- causal_conv --- */

static void apply_conv(device *d, const struct trial *t, tensor *y, const tensor *in,
                       const struct state_batch *batch)
{
    d->ops->causal_conv(d, y, &in[0], t->w[0].data, t->w[1].data, t->width, t->act, batch,
                        (size_t)offset * sizeof(float));
}

/* Number c of the input before or among the rows of a sequence. */
static double conv_input(const struct trial *t, int row, int at, int c, const float *from)
{
    if (at >= 0)
        return (double)row_of(&t->in[0], row + at)[c];
    return from ? (double)from[(t->width - 1 + at) * t->cols + c] : 0;
}

static void expect_conv(const struct trial *t, int row, int n_rows, const float *from, double *y,
                        double *size, double *state, double *state_size)
{
    const float *w = t->w[0].data, *bias = t->w[1].data;

    for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < t->cols; c++) {
            double sum = bias ? (double)bias[c] : 0, magnitude = fabs(sum);

            for (int j = 0; j < t->width; j++) {
                double term = (double)w[c * t->width + j] *
                              conv_input(t, row, r - (t->width - 1) + j, c, from);

                sum += term;
                magnitude += fabs(term);
            }
            /* silu is steeper than 1.1 nowhere, and no larger than its argument */
            y[r * t->cols + c] = t->act == ACT_SILU ? sum / (1 + exp(-sum)) : sum;
            size[r * t->cols + c] = 1.1 * magnitude;
        }
    for (int j = 0; j < t->width - 1; j++)
        for (int c = 0; c < t->cols; c++) {
            state[j * t->cols + c] = conv_input(t, row, n_rows - (t->width - 1) + j, c, from);
            state_size[j * t->cols + c] = 0;
        }
}

static void try_conv(int channels, int width, bool bias, enum activation act)
{
    struct trial t = {
        .name = "causal_conv",
        .apply = apply_conv,
        .expect = expect_conv,
        .terms = width + 2 + (act == ACT_SILU ? 6 : 0),
        .in_place = 0,
        .state = (width - 1) * channels,
        .cols = channels,
        .n_inputs = 1,
        .width = width,
        .act = act,
    };

    make_sequences(&t, 1 + (int)random_below(MAX_SEQUENCES), 9);
    make_states(&t);
    t.in[0] = new_tensor(t.rows, channels);
    t.w[0] = new_tensor(1, channels * width);
    if (bias)
        t.w[1] = new_tensor(1, channels);
    check_trial(&t);
}

static void check_convs(void)
{
    static const int channels[] = {1, 7, 8, 16, 31, 64, 255, 256, 257, 600};

    for (size_t i = 0; i < COUNT(channels); i++)
        for (int width = 1; width <= 5; width++)
            try_conv(channels[i], width, width % 2, i % 2 ? ACT_SILU : ACT_NONE);
}

/* --- recurrence --- */

enum { Q, K, V, DECAY, BETA, A, B };

static void apply_recurrence(device *d, const struct trial *t, tensor *y, const tensor *in,
                             const struct state_batch *batch)
{
    struct recurrence_params p = t->p;

    p.q = &in[Q];
    p.k = &in[K];
    p.v = &in[V];
    p.decay = p.decay ? &in[DECAY] : NULL;
    p.beta = p.beta ? &in[BETA] : NULL;
    p.a = p.a ? &in[A] : NULL;
    p.b = p.b ? &in[B] : NULL;
    d->ops->recurrence(d, y, &p, batch, (size_t)offset * sizeof(float));
}

static double decay_of(const struct trial *t, int row, int head, int i)
{
    if (!t->p.decay)
        return t->p.head_decay ? (double)t->p.head_decay[head] : 1;
    return (double)row_of(&t->in[DECAY],
                          row)[t->in[DECAY].cols == t->p.n_heads ? head : head * t->p.key_dim + i];
}

/* One column of S and one number of y for one token; magnitudes in S and the result where absolute.
 */
static double expect_lane(const struct trial *t, int row, int head, int lane, double *S,
                          bool absolute)
{
    const struct recurrence_params *p = &t->p;
    int own = head * p->key_dim, key = head / (p->n_heads / p->n_key_heads) * p->key_dim;
    const float *q = row_of(&t->in[Q], row) + key, *k = row_of(&t->in[K], row) + key;
    const float *a = p->a ? row_of(&t->in[A], row) + own : NULL;
    const float *b = p->b ? row_of(&t->in[B], row) + own : NULL;
    double v = (double)row_of(&t->in[V], row)[head * p->value_dim + lane];
    double beta = p->beta ? (double)row_of(&t->in[BETA], row)[head] : 1, dot = 0, y = 0;
    double skip = p->skip ? (double)p->skip[head] : 0;
#define TERM(x) (absolute ? fabs(x) : (x))

    for (int i = 0; i < p->key_dim; i++)
        if (p->rule == RECUR_RWKV7)
            dot += TERM((double)a[i] * S[i]);
        else if (p->rule == RECUR_DELTA)
            dot += TERM((double)k[i] * decay_of(t, row, head, i) * S[i]);

    double change = beta * v;
    if (p->rule == RECUR_DELTA)
        change = absolute ? beta * (fabs(v) + dot) : beta * (v - dot);
    for (int i = 0; i < p->key_dim; i++) {
        S[i] = TERM(decay_of(t, row, head, i) * S[i]) + TERM((double)k[i] * change);
        if (p->rule == RECUR_RWKV7)
            S[i] += TERM((double)b[i] * dot);
        y += TERM((double)q[i] * S[i]);
    }
    return y + TERM(skip * v);
#undef TERM
}

static void expect_recurrence(const struct trial *t, int row, int n_rows, const float *from,
                              double *y, double *size, double *state, double *state_size)
{
    const struct recurrence_params *p = &t->p;
    double S[2][256];

    for (int head = 0; head < p->n_heads; head++)
        for (int lane = 0; lane < p->value_dim; lane++) {
            int at = head * p->key_dim * p->value_dim + lane;

            for (int i = 0; i < p->key_dim; i++) {
                S[0][i] = from ? (double)from[at + i * p->value_dim] : 0;
                S[1][i] = fabs(S[0][i]);
            }
            for (int r = 0; r < n_rows; r++) {
                int to = r * t->cols + head * p->value_dim + lane;

                y[to] = expect_lane(t, row + r, head, lane, S[0], false);
                size[to] = expect_lane(t, row + r, head, lane, S[1], true);
            }
            for (int i = 0; i < p->key_dim; i++) {
                state[at + i * p->value_dim] = S[0][i];
                state_size[at + i * p->value_dim] = S[1][i];
            }
        }
}

enum decay_kind { DECAY_NONE, DECAY_HEAD, DECAY_ROW, DECAY_KEY, DECAY_KINDS };

static void try_recurrence(enum recurrence_rule rule, int key_dim, int value_dim, int groups,
                           enum decay_kind kind)
{
    int heads = groups * (1 + (int)random_below(3));
    struct trial t = {
        .name = "recurrence",
        .apply = apply_recurrence,
        .expect = expect_recurrence,
        .terms = 2 * key_dim + 10, /* two sums over keys, and what each term is made of */
        .in_place = V,
        .state = heads * key_dim * value_dim,
        .cols = heads * value_dim,
        .n_inputs = 7,
        .p = {.rule = rule,
              .n_heads = heads,
              .n_key_heads = groups,
              .key_dim = key_dim,
              .value_dim = value_dim},
    };
    float reach = 1 / sqrtf((float)key_dim);

    make_sequences(&t, 1 + (int)random_below(MAX_SEQUENCES), 6);
    make_states(&t);
    t.in[Q] = new_tensor(t.rows, groups * key_dim);
    t.in[K] = new_tensor(t.rows, groups * key_dim);
    t.in[V] = new_tensor(t.rows, t.cols);
    t.in[DECAY] = new_tensor(t.rows, kind == DECAY_KEY ? heads * key_dim : heads);
    t.in[BETA] = new_tensor(t.rows, heads);
    t.in[A] = new_tensor(t.rows, heads * key_dim);
    t.in[B] = new_tensor(t.rows, heads * key_dim);
    t.w[0] = new_tensor(1, heads);
    t.w[1] = new_tensor(1, heads);
    spread(&t.in[K], -reach, reach);
    spread(&t.in[A], -reach, reach);
    spread(&t.in[B], -reach, reach);
    spread(&t.in[DECAY], 0, 1);
    spread(&t.in[BETA], 0, 1);
    t.p.decay = kind >= DECAY_ROW ? &t.in[DECAY] : NULL;
    t.p.head_decay = kind == DECAY_HEAD ? t.w[0].data : NULL;
    t.p.beta = random_below(2) || rule == RECUR_DELTA ? &t.in[BETA] : NULL;
    t.p.a = rule == RECUR_RWKV7 ? &t.in[A] : NULL;
    t.p.b = rule == RECUR_RWKV7 ? &t.in[B] : NULL;
    t.p.skip = random_below(2) ? t.w[1].data : NULL;
    check_trial(&t);
}

static void check_recurrences(void)
{
    static const int dims[][2] = {{1, 1},   {3, 5},   {8, 8},   {16, 33},   {31, 64},
                                  {64, 64}, {20, 65}, {128, 7}, {100, 128}, {10, 300}};

    for (enum recurrence_rule rule = RECUR_ADD; rule < RECUR_RULES; rule++)
        for (size_t i = 0; i < COUNT(dims); i++)
            for (enum decay_kind kind = DECAY_NONE; kind < DECAY_KINDS; kind++)
                try_recurrence(rule, dims[i][0], dims[i][1], 1 + (int)random_below(2), kind);
}

/* --- selective_scan --- */

static void apply_selective(device *d, const struct trial *t, tensor *y, const tensor *in,
                            const struct state_batch *batch)
{
    d->ops->selective_scan(d, y, &in[0], &in[1], &in[2], &in[3], t->w[0].data, t->w[1].data, batch,
                           (size_t)offset * sizeof(float));
}

static void expect_selective(const struct trial *t, int row, int n_rows, const float *from,
                             double *y, double *size, double *state, double *state_size)
{
    const float *a = t->w[0].data, *skip = t->w[1].data;

    for (int i = 0; i < t->state; i++) {
        state[i] = from ? (double)from[i] : 0;
        state_size[i] = fabs(state[i]);
    }
    for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < t->cols; c++) {
            double x = (double)row_of(&t->in[0], row + r)[c];
            double dt = (double)row_of(&t->in[1], row + r)[c];
            double sum = skip ? (double)skip[c] * x : 0, magnitude = fabs(sum);

            for (int n = 0; n < t->size; n++) {
                int at = c * t->size + n;
                double B_n = (double)row_of(&t->in[2], row + r)[n];
                double C_n = (double)row_of(&t->in[3], row + r)[n];
                double decay = exp(dt * (double)a[at]);

                state[at] = decay * state[at] + dt * x * B_n;
                state_size[at] = decay * state_size[at] + fabs(dt * x * B_n);
                sum += state[at] * C_n;
                magnitude += state_size[at] * fabs(C_n);
            }
            y[r * t->cols + c] = sum;
            size[r * t->cols + c] = magnitude;
        }
}

static void try_selective(int channels, int size, bool skip)
{
    struct trial t = {
        .name = "selective_scan",
        .apply = apply_selective,
        .expect = expect_selective,
        .terms = size + 16, /* exp: 4, and its argument of at most 8: 8 */
        .in_place = 0,
        .state = channels * size,
        .cols = channels,
        .n_inputs = 4,
        .size = size,
    };

    make_sequences(&t, 1 + (int)random_below(MAX_SEQUENCES), 9);
    make_states(&t);
    t.in[0] = new_tensor(t.rows, channels);
    t.in[1] = new_tensor(t.rows, channels);
    t.in[2] = new_tensor(t.rows, size);
    t.in[3] = new_tensor(t.rows, size);
    t.w[0] = new_tensor(1, channels * size);
    if (skip)
        t.w[1] = new_tensor(1, channels);
    spread(&t.in[1], 0, 1);
    spread(&t.w[0], -8, 0);
    check_trial(&t);
}

static void check_selectives(void)
{
    static const int channels[] = {1, 2, 3, 4, 5, 9, 40, 256, 261};
    static const int size[] = {1, 3, 4, 8, 15, 16, 17, 33};

    for (size_t i = 0; i < COUNT(channels); i++)
        for (size_t j = 0; j < COUNT(size); j++)
            try_selective(channels[i], size[j], (i + j) % 2);
}

/* --- gated_scan --- */

static void apply_gated(device *d, const struct trial *t, tensor *y, const tensor *in,
                        const struct state_batch *batch)
{
    (void)t;
    d->ops->gated_scan(d, y, &in[0], &in[1], batch, (size_t)offset * sizeof(float));
}

static void expect_gated(const struct trial *t, int row, int n_rows, const float *from, double *y,
                         double *size, double *state, double *state_size)
{
    for (int c = 0; c < t->cols; c++) {
        state[c] = from ? (double)from[c] : 0;
        state_size[c] = fabs(state[c]);
        for (int r = 0; r < n_rows; r++) {
            double log_a = (double)row_of(&t->in[1], row + r)[c], a = exp(log_a);
            double x = (double)row_of(&t->in[0], row + r)[c] * sqrt(-expm1(2 * log_a));

            if (r == 0 && !from)
                x = (double)row_of(&t->in[0], row)[c];
            state[c] = a * state[c] + x;
            state_size[c] = a * state_size[c] + fabs(x);
            y[r * t->cols + c] = state[c];
            size[r * t->cols + c] = state_size[c];
        }
    }
}

static void check_gateds(void)
{
    static const int channels[] = {1, 7, 8, 9, 16, 33, 256, 259};

    for (size_t i = 0; i < COUNT(channels); i++) {
        struct trial t = {
            .name = "gated_scan",
            .apply = apply_gated,
            .expect = expect_gated,
            .terms = 16, /* exp: 4, 1 - a^2: 8, root, two products, a sum */
            .in_place = 0,
            .state = channels[i],
            .cols = channels[i],
            .n_inputs = 2,
        };

        make_sequences(&t, 1 + (int)random_below(MAX_SEQUENCES), 9);
        make_states(&t);
        t.in[0] = new_tensor(t.rows, channels[i]);
        t.in[1] = new_tensor(t.rows, channels[i]);
        spread(&t.in[1], i % 2 ? -8 : -0.01f, 0);
        for (int r = 0; r < t.rows; r++)
            row_of(&t.in[1], r)[0] = 0; /* nothing is let go of */
        check_trial(&t);
    }
}

/* --- exponential_gates --- */

static void apply_exponential(device *d, const struct trial *t, tensor *y, const tensor *in,
                              const struct state_batch *batch)
{
    (void)t;
    d->ops->exponential_gates(d, y, &in[0], &in[1], batch, (size_t)offset * sizeof(float));
}

/* Exponents are off by roundings of all that has been added, and what they give likewise. */
static void expect_exponential(const struct trial *t, int row, int n_rows, const float *from,
                               double *y, double *size, double *state, double *state_size)
{
    int n = t->in[0].cols;

    for (int h = 0; h < n; h++) {
        double m = from ? (double)from[h] : 0;

        state_size[h] = fabs(m);
        for (int r = 0; r < n_rows; r++) {
            double i = (double)row_of(&t->in[0], row + r)[h];
            double f = (double)row_of(&t->in[1], row + r)[h];
            double kept = fmin(f, 0) - log1p(exp(-fabs(f))) + m, next = fmax(kept, i);
            double values[] = {exp(kept - next), exp(i - next), exp(-next)};

            state_size[h] += fabs(i) + fabs(f) + 1;
            for (int k = 0; k < 3; k++) {
                y[r * t->cols + k * n + h] = values[k];
                size[r * t->cols + k * n + h] = values[k] * (state_size[h] + 1);
            }
            m = next;
        }
        state[h] = m;
    }
}

static void check_exponentials(void)
{
    static const int heads[] = {1, 4, 9, 33};

    for (size_t i = 0; i < COUNT(heads); i++) {
        struct trial t = {
            .name = "exponential_gates",
            .apply = apply_exponential,
            .expect = expect_exponential,
            .terms = 8,
            .in_place = -1,
            .state = heads[i],
            .cols = 3 * heads[i],
            .n_inputs = 2,
        };

        make_sequences(&t, 1 + (int)random_below(MAX_SEQUENCES), 9);
        make_states(&t);
        t.in[0] = new_tensor(t.rows, heads[i]);
        t.in[1] = new_tensor(t.rows, heads[i]);
        spread(&t.in[0], i % 2 ? -15 : -1, i % 2 ? 15 : 1);
        spread(&t.in[1], -15, 15);
        check_trial(&t);
    }
}

/* --- time_step, add_columns, dot_groups, divide_groups --- */

static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

/* x + bias is rounded, and softplus is no steeper than 1; decay is off by that of its argument. */
static void try_time_step(device *d, int rows, int groups, int n)
{
    const float low = 0.01f, high = 3;
    tensor dt = new_tensor(rows, groups * n), decay = new_tensor(rows, groups * n);
    tensor before = new_tensor(rows, groups * n), bias = new_tensor(1, groups * n);
    tensor a = new_tensor(1, groups);

    spread(&dt, -8, 8);
    spread(&a, -9, 0);
    for (int r = 0; r < rows; r++)
        memcpy(row_of(&before, r), row_of(&dt, r), (size_t)dt.cols * sizeof(float));
    d->ops->time_step(d, &dt, &decay, bias.data, a.data, n, low, high);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < dt.cols; i++) {
            double x = (double)row_of(&before, r)[i] + (double)((float *)bias.data)[i];
            double want = fmax((double)low, fmin((double)high, softplus(x)));
            double got = (double)row_of(&dt, r)[i], rate = (double)((float *)a.data)[i / n];

            CHECK(fabs(got - want) <= EPSILON * (fabs(x) + 3 * want), "dt %d, %d: %g, not %g", r, i,
                  got, want);
            CHECK(fabs((double)row_of(&decay, r)[i] - exp(rate * got)) <=
                      (3 + fabs(rate * got)) * EPSILON * exp(rate * got),
                  "decay %d, %d", r, i);
        }
    check_gaps(&dt, "time_step");
    check_gaps(&decay, "time_step");
    mem_free_aligned(dt.data);
    mem_free_aligned(decay.data);
    mem_free_aligned(before.data);
    mem_free_aligned(bias.data);
    mem_free_aligned(a.data);
}

static void try_dot_groups(device *d, int rows, int groups, int n)
{
    tensor a = new_tensor(rows, groups * n), b = new_tensor(rows, groups * n);
    tensor y = new_tensor(rows, groups), w = new_tensor(1, groups);

    d->ops->dot_groups(d, &y, &a, &b, n);
    d->ops->add_columns(d, &y, w.data);
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < groups; g++) {
            double want = (double)((float *)w.data)[g], size = fabs(want);

            for (int i = g * n; i < (g + 1) * n; i++) {
                double term = (double)row_of(&a, r)[i] * (double)row_of(&b, r)[i];

                want += term;
                size += fabs(term);
            }
            CHECK(fabs((double)row_of(&y, r)[g] - want) <= (n + 2) * EPSILON / 2 * size,
                  "dot_groups %d, %d", r, g);
        }
    check_gaps(&y, "dot_groups");
    mem_free_aligned(a.data);
    mem_free_aligned(b.data);
    mem_free_aligned(y.data);
    mem_free_aligned(w.data);
}

static void try_divide_groups(device *d, int rows, int groups, int n)
{
    const float eps = 0.125f;
    tensor y = new_tensor(rows, groups * n), before = new_tensor(rows, groups * n);
    tensor by = new_tensor(rows, groups), least = new_tensor(rows, groups);

    spread(&least, 0.1f, 1);
    for (int r = 0; r < rows; r++)
        memcpy(row_of(&before, r), row_of(&y, r), (size_t)y.cols * sizeof(float));
    d->ops->divide_groups(d, &y, &by, &least, n, eps);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < y.cols; i++) {
            double divisor =
                fmax(fabs((double)row_of(&by, r)[i / n]), (double)row_of(&least, r)[i / n]) +
                (double)eps;
            double want = (double)row_of(&before, r)[i] / divisor;

            CHECK(fabs((double)row_of(&y, r)[i] - want) <= 2 * EPSILON * fabs(want),
                  "divide_groups %d, %d", r, i);
        }
    check_gaps(&y, "divide_groups");
    mem_free_aligned(y.data);
    mem_free_aligned(before.data);
    mem_free_aligned(by.data);
    mem_free_aligned(least.data);
}

static void check_around(void)
{
    static const int groups[] = {1, 5, 64}, sizes[] = {1, 3, 64};

    for (int threads = 1; threads <= 2; threads++) {
        device *d = open_cpu(threads);

        for (int rows = 0; rows <= 40; rows += 20)
            for (size_t i = 0; i < COUNT(groups); i++)
                for (size_t j = 0; j < COUNT(sizes); j++) {
                    try_time_step(d, rows, groups[i], sizes[j]);
                    try_dot_groups(d, rows, groups[i], sizes[j]);
                    try_divide_groups(d, rows, groups[i], sizes[j]);
                }
        assert_int_equal(d->ops->sync(d, NULL), 0);
        d->ops->close(d);
    }
}

/* --- */

static void for_each_isa(void (*check)(void))
{
    static const unsigned sets[] = {CPU_SCALAR, CPU_AVX2, CPU_AVX2 | CPU_AVX512, CPU_NEON};
    const char *before = getenv("CLM_CPU");
    char *kept = before ? mem_strdup(before) : NULL;
    unsigned here = cpu_isa_detect();

    for (size_t i = 0; i < COUNT(sets); i++) {
        if ((here & sets[i]) != sets[i])
            continue;
        print_message("%s ", cpu_isa_name(sets[i]));
        setenv("CLM_CPU", cpu_isa_name(sets[i]), 1);
        check();
    }
    if (kept)
        setenv("CLM_CPU", kept, 1);
    else
        unsetenv("CLM_CPU");
    mem_free(kept);
    print_message("\n");
}

#define TEST_OF(name)                                                                              \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        for_each_isa(check_##name);                                                                \
    }

TEST_OF(convs)
TEST_OF(recurrences)
TEST_OF(selectives)
TEST_OF(gateds)
TEST_OF(exponentials)
TEST_OF(around)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convs),        cmocka_unit_test(test_recurrences),
        cmocka_unit_test(test_selectives),   cmocka_unit_test(test_gateds),
        cmocka_unit_test(test_exponentials), cmocka_unit_test(test_around),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
