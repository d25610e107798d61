/* The row kernels of every instruction set this processor has, against the formulas in double
 * precision, at sizes around the vector width, unaligned, with canaries around what may be written.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/number.h"
#include "device/cpu/cpu.h"

#include "device/vector.h"
#include "testing.h"

enum { MAX_N = 1100 };
#define CANARY 12345.678f

static const int sizes[] = {1,  2,  3,  4,  5,  7,  8,  9,  12, 15,  16,  17,  23,
                            24, 31, 32, 33, 47, 63, 64, 65, 80, 127, 128, 129, MAX_N};

/* Room for MAX_N numbers (and as many again) behind a canary, at any alignment of a float. */
struct buffer {
    float data[2 * MAX_N + 32];
};

static float *place(struct buffer *b, int offset)
{
    for (size_t i = 0; i < COUNT(b->data); i++)
        b->data[i] = CANARY;
    return b->data + 8 + offset;
}

static void check_canaries(const struct buffer *b, const float *x, int n, const char *what)
{
    int begin = (int)(x - b->data);

    for (int i = 0; i < (int)COUNT(b->data); i++)
        CHECK((begin <= i && i < begin + n) || b->data[i] == CANARY, "%s, n %d: wrote at %d", what,
              n, i - begin);
}

/* --- Norms --- */

/* Two sums of n squares, each within n/2 epsilons, halved by the root; five roundings. */
static void check_rms_norm(const struct cpu_vector_kernels *k, int n, int offset, bool weighted)
{
    struct buffer bx, bw, by;
    float *x = place(&bx, offset), *w = place(&bw, 3 - offset), *y = place(&by, 1);
    double sum = 0, tolerance = ((double)n / 2 + 5) * EPSILON;

    random_floats(x, (size_t)n);
    random_floats(w, (size_t)n);
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    double factor = 1 / sqrt(sum / n + 1e-5);
    k->rms_norm(y, x, weighted ? w : NULL, n, 1e-5f);
    for (int i = 0; i < n; i++) {
        double want = (double)x[i] * factor * (weighted ? (double)w[i] : 1);

        check_close(y[i], want, tolerance * fabs(want), "rms_norm", n, i);
    }
    check_canaries(&by, y, n, "rms_norm");
    k->rms_norm(x, x, weighted ? w : NULL, n, 1e-5f);
    CHECK(memcmp(x, y, (size_t)n * sizeof *x) == 0, "rms_norm, n %d: differs in place", n);
    check_canaries(&bx, x, n, "rms_norm in place");
}

/* The mean is off by n/2 epsilons of the mean magnitude, which moves x - mean and the variance; the
 * rest as above. */
static void check_layer_norm(const struct cpu_vector_kernels *k, int n, int offset, bool weighted)
{
    struct buffer bx, bw, bb, by;
    float *x = place(&bx, offset), *w = place(&bw, 2), *b = place(&bb, 3 - offset),
          *y = place(&by, 1);
    double sum = 0, squares = 0, magnitude = 0;

    random_floats(x, (size_t)n);
    random_floats(w, (size_t)n);
    random_floats(b, (size_t)n);
    for (int i = 0; i < n; i++) {
        sum += (double)x[i];
        magnitude += fabs((double)x[i]) / n;
    }
    for (int i = 0; i < n; i++)
        squares += ((double)x[i] - sum / n) * ((double)x[i] - sum / n);
    double factor = 1 / sqrt(squares / n + 1e-3);
    k->layer_norm(y, x, weighted ? w : NULL, weighted ? b : NULL, n, 1e-3f);
    for (int i = 0; i < n; i++) {
        double normal = ((double)x[i] - sum / n) * factor;
        double want = weighted ? normal * (double)w[i] + (double)b[i] : normal;
        double mean_error = ((double)n / 2 + 1) * EPSILON * magnitude * factor;
        double tolerance = 2 * mean_error + ((double)n / 2 + 6) * EPSILON * fabs(normal) +
                           EPSILON * fabs(want) + fabs(normal) * mean_error;

        check_close(y[i], want, tolerance, "layer_norm", n, i);
    }
    check_canaries(&by, y, n, "layer_norm");
    k->layer_norm(x, x, weighted ? w : NULL, weighted ? b : NULL, n, 1e-3f);
    CHECK(memcmp(x, y, (size_t)n * sizeof *x) == 0, "layer_norm, n %d: differs in place", n);
}

static void check_norms(const struct cpu_vector_kernels *k)
{
    for (size_t s = 0; s < COUNT(sizes); s++)
        for (int offset = 0; offset < 4; offset++) {
            check_rms_norm(k, sizes[s], offset, offset % 2);
            check_layer_norm(k, sizes[s], offset, offset % 2);
        }
}

/* --- Elementwise --- */

static void check_add_scale(const struct cpu_vector_kernels *k)
{
    struct buffer bx, by;

    for (size_t s = 0; s < COUNT(sizes); s++)
        for (int offset = 0; offset < 4; offset++) {
            int n = sizes[s];
            float *x = place(&bx, offset), *y = place(&by, 3 - offset), before[MAX_N];

            random_floats(x, (size_t)n);
            random_floats(y, (size_t)n);
            memcpy(before, y, (size_t)n * sizeof *y);
            k->add(y, x, n, 0.7f);
            for (int i = 0; i < n; i++) { /* one or two roundings */
                double product = (double)0.7f * (double)x[i], want = (double)before[i] + product;

                check_close(y[i], want, EPSILON / 2 * (fabs(product) + fabs(want)) * 1.01, "add", n,
                            i);
            }
            check_canaries(&by, y, n, "add");
            memcpy(before, x, (size_t)n * sizeof *x);
            k->scale(x, n, 0.7f);
            for (int i = 0; i < n; i++)
                CHECK(x[i] == before[i] * 0.7f, "scale, n %d, i %d", n, i);
            check_canaries(&bx, x, n, "scale");
        }
}

static double exact_activation(double x, enum activation act)
{
    double u;

    switch (act) {
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * erfc(-x * M_SQRT1_2);
    case ACT_GELU_TANH:
        u = sqrt(2 / M_PI) * (x + (double)0.044715f * x * x * x);
        return x / (1 + exp(-2 * u)); /* = x (1 + tanh(u)) / 2 */
    case ACT_RELU:
        return fmax(x, 0);
    case ACT_RELU2:
        return fmax(x, 0) * fmax(x, 0);
    case ACT_SIGMOID:
        return 1 / (1 + exp(-x));
    case ACT_NONE:
        return x;
    case ACT_SOFTPLUS:
        return fmax(x, 0) + log1p(exp(-fabs(x)));
    case ACT_EXP:
        return fmin(exp(x), 0x1p128);
    case ACT_TANH:
        return tanh(x);
    default:
        return (double)NAN;
    }
}

/* Relative errors in epsilons. exp: 2, see vector_math.h, then a sum and a quotient. The exponent
 * of gelu_tanh is a rounded polynomial (3 epsilons) and its error is multiplied by its size. gelu:
 * exp, three products and a quotient of half an epsilon each, and a polynomial in t whose terms are
 * at most 2.5 times its value: 2.5 (from the 9 steps, most of them small), t itself 1, the fit 0.5.
 * A result that should be below 2^-125 times x may be anything as small. */
static double activation_tolerance(double x, enum activation act)
{
    double u = sqrt(2 / M_PI) * fabs(x + 0.044715 * x * x * x),
           want = fabs(exact_activation(x, act));

    switch (act) {
    case ACT_SILU:
        return 3 * EPSILON * want + ldexp(fabs(x), -124);
    case ACT_SOFTPLUS:
        return 3 * EPSILON * want + 0x1p-124;
    case ACT_SIGMOID:
        return 3 * EPSILON * want + 0x1p-124;
    case ACT_EXP: /* held a little below 2^128 */
        return want < 0x1.fffp127 ? 3 * EPSILON * want + 0x1p-124 : 0x1p-15 * want;
    case ACT_TANH:
        return 3 * EPSILON * want;
    case ACT_GELU:
        return 8 * EPSILON * want + ldexp(fabs(x), -124);
    case ACT_GELU_TANH:
        return (3 + 3 * 2 * u) * EPSILON * want + ldexp(fabs(x), -124);
    default:
        return EPSILON / 2 * want + (double)FLT_MIN;
    }
}

/* n numbers of all magnitudes from 1e-6 to 120 with either sign, and special ones. */
static void spread(float *x, int n)
{
    static const float special[] = {0.0f,    -0.0f, 120.0f, -120.0f, 13.3f,   -13.3f, 0.625f,
                                    -0.625f, 88.8f, -88.8f, 1e-30f,  -1e-30f, 3e4f,   -3e4f};

    for (int i = 0; i < n; i++) {
        double magnitude = 1e-6 * pow(1.2e8, (double)(random_u64() >> 11) * 0x1p-53);

        x[i] = (float)(random_below(2) ? magnitude : -magnitude);
        if (random_below(20) == 0)
            x[i] = special[random_below(COUNT(special))];
    }
}

static void check_activation(const struct cpu_vector_kernels *k, enum activation act, int n,
                             int offset)
{
    static const char *names[] = {"silu",    "gelu", "gelu_tanh", "relu", "relu2",
                                  "sigmoid", "none", "softplus",  "exp",  "tanh"};
    struct buffer bx, bu, by;
    float *x = place(&bx, offset), *up = place(&bu, 3 - offset), *y = place(&by, 1), first[MAX_N];

    spread(x, n);
    random_floats(up, (size_t)n);
    k->activate(y, x, n, act);
    for (int i = 0; i < n; i++)
        check_close(y[i], exact_activation((double)x[i], act),
                    activation_tolerance((double)x[i], act), names[act], n, i);
    check_canaries(&by, y, n, names[act]);
    memcpy(first, y, (size_t)n * sizeof *y);

    /* Each number has its result wherever it lies. */
    k->activate(y, x + n / 2, n - n / 2, act);
    for (int i = n / 2; i < n; i++)
        CHECK(f32_bits(y[i - n / 2]) == f32_bits(first[i]), "%s depends on the place", names[act]);

    k->glu(y, x, up, n, act);
    for (int i = 0; i < n; i++)
        CHECK(y[i] == first[i] * up[i], "glu %s, n %d, i %d", names[act], n, i);
    check_canaries(&by, y, n, names[act]);
    k->glu(up, x, up, n, act);
    CHECK(memcmp(up, y, (size_t)n * sizeof *y) == 0, "glu %s, n %d: differs in place", names[act],
          n);
    check_canaries(&bu, up, n, names[act]);
    k->activate(x, x, n, act);
    CHECK(memcmp(x, first, (size_t)n * sizeof *x) == 0, "%s, n %d: differs in place", names[act],
          n);
    check_canaries(&bx, x, n, names[act]);
}

/* Of glu alone: the exponent is a product rounded once, of at most 12 where it is negative, and the
 * sigmoid is within 3 epsilons; the sum and two products add half an epsilon each. */
static void check_swiglu_clamped(const struct cpu_vector_kernels *k, int n, int offset)
{
    struct buffer bg, bu, by;
    float *gate = place(&bg, offset), *up = place(&bu, 3 - offset), *y = place(&by, 1);

    spread(gate, n);
    spread(up, n);
    k->glu(y, gate, up, n, ACT_SWIGLU_CLAMPED);
    for (int i = 0; i < n; i++) {
        double g = fmin((double)gate[i], 7), u = fmax(-7, fmin((double)up[i], 7));
        double z = (double)1.702f * g, want = (u + 1) * g / (1 + exp(-z));

        check_close(y[i], want,
                    (5 + fabs(z)) * EPSILON * fabs(want) + ldexp(fabs((u + 1) * g), -124),
                    "swiglu_clamped", n, i);
    }
    check_canaries(&by, y, n, "swiglu_clamped");
    k->glu(gate, gate, up, n, ACT_SWIGLU_CLAMPED);
    CHECK(memcmp(gate, y, (size_t)n * sizeof *y) == 0, "swiglu_clamped, n %d: differs in place", n);
    check_canaries(&bg, gate, n, "swiglu_clamped");
}

static void check_activations(const struct cpu_vector_kernels *k)
{
    for (int round = 0; round < 20; round++)
        for (size_t s = 0; s < COUNT(sizes); s++) {
            for (enum activation act = ACT_SILU; act <= ACT_TANH; act++)
                check_activation(k, act, sizes[s], round % 4);
            check_swiglu_clamped(k, sizes[s], round % 4);
        }
}

/* tanh itself: where it is 1 - 2 / (e^2x + 1), x > 5/8, the error of exp and two roundings count
 * less than half, then a rounding; below, the fit and three roundings, most of them of small terms.
 * The quotient by the cap and the product add one epsilon. */
static void check_softcap(const struct cpu_vector_kernels *k)
{
    struct buffer bx;

    for (int round = 0; round < 20; round++)
        for (size_t s = 0; s < COUNT(sizes); s++) {
            int n = sizes[s];
            float *x = place(&bx, round % 4), before[MAX_N], cap = round % 2 ? 30.0f : 1.0f;

            spread(x, n);
            memcpy(before, x, (size_t)n * sizeof *x);
            k->softcap(x, n, cap);
            for (int i = 0; i < n; i++) {
                double want = (double)cap * tanh((double)before[i] / (double)cap);

                check_close(x[i], want, 3.5 * EPSILON * fabs(want), "softcap", n, i);
            }
            check_canaries(&bx, x, n, "softcap");
            memcpy(x, before, (size_t)n * sizeof *x);
            k->cap_scores(x, n / k->panel * k->panel, 2.5f);
            for (int i = 0; i < n / k->panel * k->panel; i++) {
                double want = 2.5 * tanh((double)before[i]);

                check_close(x[i], want, 3 * EPSILON * fabs(want), "cap_scores", n, i);
            }
        }
}

/* --- Rotation, conversion, argmax --- */

static void check_rope(const struct cpu_vector_kernels *k, int n, int offset, bool pairs)
{
    struct buffer bx, bc, bs;
    float *x = place(&bx, offset), *cosines = place(&bc, 1), *sines = place(&bs, 2),
          before[2 * MAX_N];

    random_floats(x, (size_t)(2 * n));
    random_floats(cosines, (size_t)n);
    random_floats(sines, (size_t)n);
    memcpy(before, x, (size_t)(2 * n) * sizeof *x);
    (pairs ? k->rope_pairs : k->rope_halves)(x, cosines, sines, n);
    for (int i = 0; i < n; i++) {
        int at = pairs ? 2 * i : i, other = pairs ? 2 * i + 1 : i + n;
        double a = (double)before[at], b = (double)before[other];
        double c = (double)cosines[i], s = (double)sines[i];

        /* Two products and a sum, each rounded. */
        check_close(x[at], a * c - b * s, EPSILON * (fabs(a * c) + fabs(b * s)), "rope", n, at);
        check_close(x[other], a * s + b * c, EPSILON * (fabs(a * s) + fabs(b * c)), "rope", n,
                    other);
    }
    check_canaries(&bx, x, 2 * n, "rope");
}

static void check_ropes(const struct cpu_vector_kernels *k)
{
    for (size_t s = 0; s < COUNT(sizes); s++)
        for (int offset = 0; offset < 4; offset++) {
            check_rope(k, sizes[s], offset, false);
            check_rope(k, sizes[s], offset, true);
        }
}

static bool same(float a, float b)
{
    return f32_bits(a) == f32_bits(b) || (isnan(a) && isnan(b));
}

/* Every 16-bit number, in pieces of odd sizes. */
static void check_loads(const struct cpu_vector_kernels *k)
{
    static uint16_t from[1 << 16];
    struct buffer b;

    for (int i = 0; i < 1 << 16; i++)
        from[i] = (uint16_t)i;
    for (int at = 0, s = 0; at < 1 << 16; s++) {
        int n = sizes[s % (int)COUNT(sizes)];
        float *to = place(&b, s % 4);

        n = n < (1 << 16) - at ? n : (1 << 16) - at;
        for (enum dtype type = DTYPE_F16; type <= DTYPE_BF16; type++) {
            k->load[type](to, from + at, n);
            for (int i = 0; i < n; i++)
                CHECK(same(to[i], type == DTYPE_F16 ? f16_to_f32(from[at + i])
                                                    : bf16_to_f32(from[at + i])),
                      "%s 0x%04X", dtype_name(type), at + i);
            check_canaries(&b, to, n, "load");
        }
        at += n;
    }
}

/* Any bits, and ties between two neighbours of the smaller type. */
static void check_stores(const struct cpu_vector_kernels *k)
{
    struct buffer bx;
    uint16_t to[MAX_N + 2];

    for (int round = 0; round < 200; round++) {
        int n = sizes[round % (int)COUNT(sizes)];
        float *x = place(&bx, round % 4);

        for (int i = 0; i < n; i++)
            x[i] = bits_f32((uint32_t)random_u64() & (random_below(2) ? 0xFFFFFFFFu : 0xFFFFF000u));
        for (int i = 0; i < n; i += 5)
            x[i] = bits_f32((0x38000000u + (uint32_t)random_below(0x10000000u)) & 0xFFFFF000u);
        for (enum dtype type = DTYPE_F16; type <= DTYPE_BF16; type++) {
            memset(to, 0xA5, sizeof to);
            k->store[type](to + 1, x, n);
            for (int i = 0; i < n; i++) {
                float clipped = fminf(fmaxf(x[i], -65504.0f), 65504.0f);
                uint16_t want = type == DTYPE_F16 ? f32_to_f16(clipped) : f32_to_bf16(x[i]);
                float got_f32 = type == DTYPE_F16 ? f16_to_f32(to[i + 1]) : bf16_to_f32(to[i + 1]);

                CHECK(isnan(x[i]) ? isnan(got_f32) : to[i + 1] == want,
                      "%s of %a: 0x%04X, expected 0x%04X", dtype_name(type), (double)x[i],
                      to[i + 1], want);
            }
            CHECK(to[0] == 0xA5A5 && to[n + 1] == 0xA5A5, "store, n %d: wrote outside", n);
        }
    }
}

static void check_argmax(const struct cpu_vector_kernels *k)
{
    struct buffer b;

    for (int round = 0; round < 2000; round++) {
        int n = sizes[round % (int)COUNT(sizes)], best = 0;
        float *x = place(&b, round % 4);

        for (int i = 0; i < n; i++)
            x[i] = -1.0f - (float)random_below(round % 3 ? 5 : 100000);
        for (int i = 0; i < n; i++)
            best = x[i] > x[best] ? i : best;
        int got = k->argmax(x, n);
        CHECK(got == best, "n %d: %d, expected %d", n, got, best);
        for (int i = 0; i < n; i++)
            x[i] = i == best ? -FLT_MAX : -INFINITY;
        got = k->argmax(x, n);
        CHECK(got == best, "n %d of -inf but for one: %d, expected %d", n, got, best);
        x[best] = -INFINITY;
        got = k->argmax(x, n);
        CHECK(got == -1, "n %d of -inf: %d", n, got);
        for (int i = 0; i < n; i++)
            x[i] = (float)i;
        x[random_below((size_t)n)] = round % 2 ? NAN : INFINITY;
        got = k->argmax(x, n);
        CHECK(got == -1, "n %d with what is not finite: %d", n, got);
    }
}

/* --- Attention over a chunk --- */

/* numbers [n, dim] of a type, and what they are as f32 */
static void random_numbers(void *to, float *values, enum dtype type, int n)
{
    random_floats(values, (size_t)n);
    for (int i = 0; i < n; i++)
        if (type == DTYPE_F32) {
            ((float *)to)[i] = values[i];
        } else {
            uint16_t h = type == DTYPE_F16 ? f32_to_f16(values[i]) : f32_to_bf16(values[i]);

            ((uint16_t *)to)[i] = h;
            values[i] = type == DTYPE_F16 ? f16_to_f32(h) : bf16_to_f32(h);
        }
}

static void check_pack(const struct cpu_vector_kernels *k, enum dtype type, int dim, int first,
                       int n)
{
    static float cache[CHUNK * MAX_DIM], values[CHUNK * MAX_DIM], got[CHUNK * MAX_DIM * 2];
    int padded = (dim + k->panel - 1) / k->panel * k->panel;

    random_numbers(cache, values, type, n * dim);
    for (size_t i = 0; i < COUNT(got); i++)
        got[i] = CANARY;
    k->pack_keys[type](got, cache, first, n, dim);
    for (int j = first; j < first + n; j++)
        for (int i = 0; i < dim; i++) {
            float *at = &got[(j / k->panel * dim + i) * k->panel + j % k->panel];

            CHECK(*at == values[(j - first) * dim + i], "pack_keys: dim %d, key %d, %d", dim, j, i);
            *at = CANARY;
        }
    for (size_t i = 0; i < COUNT(got); i++)
        CHECK(got[i] == CANARY, "pack_keys: dim %d, keys [%d, +%d): wrote at %zu", dim, first, n,
              i);
    k->pack_values[type](got, cache, first, n, dim);
    for (int j = first; j < first + n; j++)
        for (int i = 0; i < padded; i++) {
            float *at = &got[(i / k->panel * CHUNK + j) * k->panel + i % k->panel];

            CHECK(*at == (i < dim ? values[(j - first) * dim + i] : 0),
                  "pack_values: dim %d, key %d, %d", dim, j, i);
            *at = CANARY;
        }
    for (size_t i = 0; i < COUNT(got); i++)
        CHECK(got[i] == CANARY, "pack_values: dim %d, keys [%d, +%d): wrote at %zu", dim, first, n,
              i);
}

static void check_packs(const struct cpu_vector_kernels *k)
{
    for (size_t d = 0; d < COUNT(dims); d++)
        for (int round = 0; round < 30; round++) {
            int first = (int)random_below(CHUNK),
                n = 1 + (int)random_below((size_t)(CHUNK - first));

            check_pack(k, (enum dtype)(round % CPU_KV_TYPES), dims[d], round ? first : 0,
                       round ? n : CHUNK);
        }
}

/* depth products and as many sums, each rounded: depth + 1 half epsilons of the sum of magnitudes.
 */
static void check_product(const struct cpu_vector_kernels *k, int n_rows, int n_panels, int depth,
                          bool accumulate)
{
    static float a[16 * MAX_DIM], b[CHUNK * MAX_DIM], before[16 * (CHUNK + 1)], c[16 * (CHUNK + 1)];
    int lda = depth + 3, ldc = CHUNK + 1, n = n_panels * k->panel;

    random_floats(a, COUNT(a));
    random_floats(b, COUNT(b));
    random_floats(before, COUNT(before));
    memcpy(c, before, sizeof c);
    k->product(c, ldc, a, lda, b, depth * k->panel, n_rows, n_panels, depth, accumulate);
    for (int r = 0; r < 16; r++)
        for (int j = 0; j < ldc; j++) {
            const float *column = b + j / k->panel * depth * k->panel + j % k->panel;
            double want = accumulate ? (double)before[r * ldc + j] : 0, size = fabs(want);

            if (r >= n_rows || j >= n) {
                CHECK(c[r * ldc + j] == before[r * ldc + j], "product: wrote at %d, %d", r, j);
                continue;
            }
            for (int i = 0; i < depth; i++) {
                want += (double)a[r * lda + i] * (double)column[i * k->panel];
                size += fabs((double)a[r * lda + i] * (double)column[i * k->panel]);
            }
            check_close(c[r * ldc + j], want, (depth + 1) * EPSILON / 2 * size, "product", depth,
                        j);
        }
}

static void check_products(const struct cpu_vector_kernels *k)
{
    CHECK(k->panel <= CHUNK && CHUNK % k->panel == 0 && k->tile_rows <= 16, "panel %d", k->panel);
    for (int rows = 1; rows <= k->tile_rows; rows++)
        for (int panels = 1; panels <= CHUNK / k->panel; panels++)
            for (int round = 0; round < 6; round++)
                check_product(k, rows, panels, dims[random_below(COUNT(dims))], round % 2);
}

/* A power of two is within 2 epsilons, its exponent (one rounding of a number up to 60) within 60 *
 * ln(2) / 2 epsilons; the sum within n / 2 more. */
static void check_softmax(const struct cpu_vector_kernels *k, int n, int begin, int end,
                          float start)
{
    float s[CHUNK + 1], before[CHUNK], max = start, sum = start > -INFINITY ? 1.5f : 0;
    double want_max = (double)start, want_sum = 0, tolerance = (2 + 60 * M_LN2 / 2 + 1) * EPSILON;

    random_floats(before, (size_t)n);
    for (int j = 0; j < n; j++)
        before[j] = before[j] * 30 + (float)random_below(2) * -200;
    for (int j = 0; j < n; j++)
        s[j] = begin <= j && j < end ? before[j] : j % 2 ? NAN : 1000;
    s[n] = CANARY;
    for (int j = begin; j < end; j++)
        want_max = (double)before[j] > want_max ? (double)before[j] : want_max;
    float factor = k->softmax_step(s, n, begin, end, &max, &sum);
    for (int j = 0; j < n; j++) {
        double want = begin <= j && j < end ? exp2((double)before[j] - want_max) : 0;

        want_sum += want;
        check_close(s[j], want, tolerance * want + 0x1p-125, "softmax_step", n, j);
        CHECK((begin <= j && j < end) || s[j] == 0, "softmax_step: key %d of [%d, %d)", j, begin,
              end);
    }
    double want_factor = exp2((double)start - want_max);
    want_sum += want_factor * (start > -INFINITY ? 1.5 : 0);
    CHECK((double)max == want_max && s[n] == CANARY, "softmax_step: max %g", (double)max);
    check_close(factor, want_factor, tolerance * want_factor + 0x1p-125, "softmax factor", n, 0);
    check_close(sum, want_sum, (tolerance + n * EPSILON / 2) * want_sum, "softmax sum", n, 0);
}

static void check_softmaxes(const struct cpu_vector_kernels *k)
{
    for (int n = k->panel; n <= CHUNK; n += k->panel)
        for (int round = 0; round < 100; round++) {
            int begin = (int)random_below((size_t)n),
                end = begin + 1 + (int)random_below((size_t)(n - begin));

            check_softmax(k, n, begin, end,
                          round % 3 == 0 ? -INFINITY : (float)random_below(60) - 30);
        }
}

/* The rows of n keys cut into stretches. */
static int cut(struct cpu_stretch *parts, const void *cache, int n, int dim)
{
    int n_parts = 0;

    for (int at = 0; at < n; at += parts[n_parts++].n) {
        bool last = n_parts == CPU_STRETCHES - 1;
        const char *rows = (const char *)cache + (size_t)at * (size_t)dim * 2;
        int left = n - at;

        parts[n_parts] = (struct cpu_stretch){rows, n_parts % 2 ? cache : NULL, at,
                                              last ? left : 1 + (int)random_below((size_t)left)};
    }
    return n_parts;
}

/* Of one stretch, or of many at once. */
static void direct_scores(const struct cpu_vector_kernels *k, enum dtype type, bool many, float *s,
                          int lds, const float *q, int ldq, int rows, const void *cache, int n,
                          int dim)
{
    static uint16_t turned[4 * 16 * MAX_DIM];
    struct cpu_paired_queries queries = {q, ldq, rows, turned};
    struct cpu_stretch parts[CPU_STRETCHES];

    if (many) {
        k->paired->turn(turned, q, ldq, rows, dim, type);
        k->paired->scores[type](s, lds, &queries, parts, cut(parts, cache, n, dim), dim);
    } else {
        k->scores[type](s, lds, q, ldq, rows, cache, n, dim, rows % 2 ? cache : NULL);
    }
}

static void direct_weigh(const struct cpu_vector_kernels *k, enum dtype type, bool many, float *y,
                         int ldy, const float *s, int lds, int rows, const void *cache, int n,
                         int dim)
{
    struct cpu_stretch parts[CPU_STRETCHES];

    if (many)
        k->paired->weigh[type](y, ldy, s, lds, rows, parts, cut(parts, cache, n, dim), dim);
    else
        k->weigh[type](y, ldy, s, lds, rows, cache, n, dim, rows % 2 ? cache : NULL);
}

static void check_direct(const struct cpu_vector_kernels *k, enum dtype type, int dim, int rows,
                         int n, bool many)
{
    static float cache[CHUNK * MAX_DIM], values[CHUNK * MAX_DIM], q[16 * MAX_DIM];
    static float s[16 * (CHUNK + 1)], y[16 * MAX_DIM], before[16 * MAX_DIM];
    int padded = (dim + k->panel - 1) / k->panel * k->panel, lds = CHUNK + 1;
    bool bf16 = k->paired && type != DTYPE_F32;   /* both factors within 2^-8, and what is */
    double factors = bf16 ? 0x1p-7 + 0x1p-16 : 0; /* below 2^-14 may count as nothing */
    double nothing = bf16 ? 0x1p-14 : 0;

    random_numbers(cache, values, type, n * dim);
    random_floats(q, COUNT(q));
    random_floats(before, COUNT(before));
    for (int r = 0; r < rows; r++)
        for (int i = dim; i < padded; i++)
            q[r * padded + i] = before[r * padded + i] = 0;
    memcpy(y, before, sizeof y);
    for (size_t i = 0; i < COUNT(s); i++)
        s[i] = CANARY;
    direct_scores(k, type, many, s, lds, q, padded, rows, cache, n, dim);
    for (int r = 0; r < 16; r++)
        for (int j = 0; j < lds; j++) {
            double want = 0, size = 0, small = 0;

            for (int i = 0; r < rows && j < n && i < dim; i++) {
                if (fabsf(values[j * dim + i]) < 0x1p-14f)
                    small += fabs((double)q[r * padded + i]) * nothing;
                want += (double)q[r * padded + i] * (double)values[j * dim + i];
                size += fabs((double)q[r * padded + i] * (double)values[j * dim + i]);
            }
            if (r < rows && j < n)
                check_close(s[r * lds + j], want,
                            ((dim + 1) * EPSILON / 2 + factors) * size + small, "scores", dim, j);
            else
                CHECK(s[r * lds + j] == CANARY, "scores: wrote at %d, %d of %d, %d", r, j, rows, n);
        }
    random_floats(s, COUNT(s));
    direct_weigh(k, type, many, y, padded, s, lds, rows, cache, n, dim);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < padded; i++) {
            double want = (double)before[r * padded + i], size = fabs(want), small = 0;

            for (int j = 0; j < n && i < dim; j++) {
                if (fabsf(values[j * dim + i]) < 0x1p-14f)
                    small += fabs((double)s[r * lds + j]) * nothing;
                want += (double)s[r * lds + j] * (double)values[j * dim + i];
                size += fabs((double)s[r * lds + j] * (double)values[j * dim + i]);
            }
            check_close(y[r * padded + i], want, ((n + 1) * EPSILON / 2 + factors) * size + small,
                        "weigh", dim, i);
        }
    CHECK(memcmp(y + rows * padded, before + rows * padded,
                 (size_t)(16 * MAX_DIM - rows * padded) * sizeof *y) == 0,
          "weigh: wrote after %d rows of %d", rows, dim);
}

/* What is not a number, or infinite, stays visible. */
static void check_direct_nan(const struct cpu_vector_kernels *k, enum dtype type, float bad,
                             bool many)
{
    float values[5 * 40], q[4 * 64] = {0}, s[4 * CHUNK], y[4 * 64] = {0};
    uint16_t cache[5 * 40];

    random_numbers(cache, values, type, 5 * 40);
    cache[3 * 40 + 33] = type == DTYPE_F16 ? f32_to_f16(bad) : f32_to_bf16(bad);
    for (int r = 0; r < 4; r++)
        for (int i = 0; i < 40; i++)
            q[r * 64 + i] = 1;
    direct_scores(k, type, many, s, CHUNK, q, 64, 4, cache, 5, 40);
    for (int r = 0; r < 4; r++)
        for (int j = 0; j < 5; j++) {
            CHECK((bool)isfinite(s[r * CHUNK + j]) == (j != 3), "scores: %g, row %d key %d",
                  (double)bad, r, j);
            s[r * CHUNK + j] = 0.25f;
        }
    direct_weigh(k, type, many, y, 64, s, CHUNK, 4, cache, 5, 40);
    for (int r = 0; r < 4; r++)
        for (int i = 0; i < 40; i++)
            CHECK((bool)isfinite(y[r * 64 + i]) == (i != 33), "weigh: %g, row %d dim %d",
                  (double)bad, r, i);
}

enum { ATTEND_KEYS = 100, ATTEND_DIM = 160 };

/* Keys, values, queries and what there is before. */
struct attended {
    float keys[ATTEND_KEYS * ATTEND_DIM], values[ATTEND_KEYS * ATTEND_DIM], q[8 * ATTEND_DIM];
    uint16_t key_cache[ATTEND_KEYS * ATTEND_DIM], value_cache[ATTEND_KEYS * ATTEND_DIM];
    float acc[8 * ATTEND_DIM], max[8], sum[8];
    struct cpu_stretch key_parts[CPU_STRETCHES], value_parts[CPU_STRETCHES];
    int n_parts;
};

static void make_attended(struct attended *a, enum dtype type, int k_dim, int v_dim, int n,
                          bool begun)
{
    random_numbers(a->key_cache, a->keys, type, n * k_dim);
    random_numbers(a->value_cache, a->values, type, n * v_dim);
    random_floats(a->q, COUNT(a->q));
    random_floats(a->acc, COUNT(a->acc));
    a->n_parts = cut(a->key_parts, a->key_cache, n, k_dim);
    for (int i = 0; i < a->n_parts; i++) {
        struct cpu_stretch part = a->key_parts[i];

        part.rows = a->value_cache + (size_t)part.at * (size_t)v_dim;
        a->value_parts[i] = part;
    }
    for (int r = 0; r < 8; r++) {
        a->max[r] = begun ? (float)random_below(40) - 20 : -INFINITY;
        a->sum[r] = begun ? 1.5f : 0;
    }
    if (!begun)
        memset(a->acc, 0, sizeof a->acc);
}

static bool attend_at_once(const struct cpu_vector_kernels *k, struct attended *a, enum dtype type,
                           int rows, int k_dim, int v_dim)
{
    static uint16_t turned[4 * 8 * ATTEND_DIM];
    struct cpu_paired_queries q = {a->q, k_dim, rows, turned};

    k->at_once[type]->turn(turned, a->q, k_dim, rows, k_dim, type);
    return k->at_once[type]->attend(a->acc, ATTEND_DIM, a->max, a->sum, &q, a->key_parts,
                                    a->value_parts, a->n_parts, k_dim, v_dim);
}

/* 2^(score - max) of a key is off by as much as its score, and by 2^-8 as bf16; the sum of all by
 * what each is. Numbers below 2^-14 may count as nothing. */
static void check_attend(const struct cpu_vector_kernels *k, enum dtype type, int rows, int k_dim,
                         int v_dim, int n)
{
    static struct attended before, a;

    make_attended(&before, type, k_dim, v_dim, n, random_below(2));
    a = before;
    CHECK(attend_at_once(k, &a, type, rows, k_dim, v_dim), "attend: %d by %d", k_dim, v_dim);
    for (int r = 0; r < rows; r++) {
        double p[ATTEND_KEYS], off[ATTEND_KEYS], sum, sum_off = 0, most = (double)before.max[r];
        double first = exp2((double)before.max[r] - (double)a.max[r]);

        sum = before.sum[r] > 0 ? first * (double)before.sum[r] : 0;
        for (int j = 0; j < n; j++) {
            double score = 0, size = 0;

            for (int i = 0; i < k_dim; i++) {
                double one = (double)before.q[r * k_dim + i] * (double)before.keys[j * k_dim + i];

                score += one;
                size += fabs(one) * 0x1p-7 + fabs((double)before.q[r * k_dim + i]) * 0x1p-14;
            }
            p[j] = exp2(score - (double)a.max[r]);
            off[j] = p[j] * (exp2(size + 0x1p-12) - 1 + 0x1p-8);
            most = score - size > most ? score - size : most;
            sum += p[j];
            sum_off += off[j];
        }
        CHECK(most <= (double)a.max[r] + 9, "attend: max %g of %g", (double)a.max[r], most);
        check_close(a.sum[r], sum, sum_off + sum * 0x1p-16, "attend sum", n, r);
        for (int i = 0; i < v_dim; i++) {
            double want = before.sum[r] > 0 ? first * (double)before.acc[r * ATTEND_DIM + i] : 0;
            double size = fabs(want) * 0x1p-16;

            for (int j = 0; j < n; j++) {
                double value = (double)before.values[j * v_dim + i];

                want += p[j] * value;
                size += off[j] * fabs(value) + (p[j] + off[j]) * (fabs(value) * 0x1p-8 + 0x1p-14);
            }
            check_close(a.acc[r * ATTEND_DIM + i], want, size, "attend", v_dim, i);
        }
        for (int i = v_dim; i < ATTEND_DIM; i++)
            CHECK(a.acc[r * ATTEND_DIM + i] == before.acc[r * ATTEND_DIM + i],
                  "attend: wrote at %d", i);
    }
    CHECK(memcmp(a.max + rows, before.max + rows, (size_t)(8 - rows) * sizeof *a.max) == 0,
          "attend: wrote after %d rows", rows);
}

/* Nothing changes where some number is not finite. */
static void check_attend_nan(const struct cpu_vector_kernels *k, enum dtype type, float bad)
{
    static struct attended before, a;
    uint16_t bits = type == DTYPE_F16 ? f32_to_f16(bad) : f32_to_bf16(bad);

    make_attended(&before, type, 64, 96, ATTEND_KEYS, true);
    if (random_below(2))
        before.key_cache[random_below((size_t)(ATTEND_KEYS * 64))] = bits;
    else
        before.value_cache[random_below((size_t)(ATTEND_KEYS * 96))] = bits;
    for (int i = 0; i < before.n_parts; i++) {
        before.key_parts[i].ahead = before.value_parts[i].ahead = NULL;
        before.key_parts[i].rows = before.key_cache + before.key_parts[i].at * 64;
        before.value_parts[i].rows = before.value_cache + before.value_parts[i].at * 96;
    }
    a = before;
    if (type == DTYPE_F16)
        CHECK(!attend_at_once(k, &a, type, 8, 64, 96), "attend: %g", (double)bad);
    CHECK(memcmp(&a, &before, sizeof a) == 0, "attend: changed something");
}

/* Where sums may be too large for f16, what comes out is right or nothing has changed. */
static void check_attend_large(const struct cpu_vector_kernels *k, bool keys)
{
    static struct attended before, a;
    uint16_t *cache = keys ? before.key_cache : before.value_cache;
    bool done;

    make_attended(&before, DTYPE_F16, 64, 64, ATTEND_KEYS, false);
    for (int j = 0; j < ATTEND_KEYS; j++)
        for (int i = 0; i < 64; i++)
            cache[j * 64 + i] = f32_to_f16(60000);
    for (int i = 0; i < 4 * 64; i++)
        before.q[i] = keys ? 1.0f : 0.0f;
    a = before;
    done = attend_at_once(k, &a, DTYPE_F16, 4, 64, 64);
    for (int r = 0; r < 4 && done; r++) {
        CHECK(!keys || (double)a.max[r] >= 64 * 59000.0, "attend: max %g", (double)a.max[r]);
        for (int i = 0; i < 64 && !keys; i++)
            check_close(a.acc[r * ATTEND_DIM + i] / a.sum[r], 60000, 60000 * 0x1p-7, "attend", r,
                        i);
    }
    CHECK(done || memcmp(&a, &before, sizeof a) == 0, "attend: changed something");
}

static void check_attends(const struct cpu_vector_kernels *k)
{
    for (enum dtype type = DTYPE_F16; type <= DTYPE_BF16; type++)
        for (int round = 0; round < 400; round++) {
            int rows = 3 + (int)random_below(2) + 4 * (int)random_below(2);
            int k_dim = 32 * (1 + (int)random_below(ATTEND_DIM / 32));
            int v_dim = 32 * (1 + (int)random_below(ATTEND_DIM / 32));

            check_attend(k, type, rows, round % 3 ? k_dim : 64, round % 3 ? v_dim : 64,
                         1 + (int)random_below(ATTEND_KEYS));
            check_attend_nan(k, type, round % 3 ? (float)(round % 3 - 1.5) * INFINITY : NAN);
        }
    check_attend_large(k, true);
    check_attend_large(k, false);
}

static void check_directs(const struct cpu_vector_kernels *k)
{
    if (k->paired)
        check_attends(k);
    for (enum dtype type = DTYPE_F16; type <= DTYPE_BF16; type++)
        for (int many = 0; many <= (k->paired != NULL); many++) {
            check_direct_nan(k, type, NAN, many);
            check_direct_nan(k, type, INFINITY, many);
            check_direct_nan(k, type, -INFINITY, many);
        }
    for (size_t d = 0; d < COUNT(dims); d++)
        for (int rows = 1; rows <= 9; rows++)
            for (enum dtype type = DTYPE_F32; type <= DTYPE_BF16; type++) {
                check_direct(k, type, dims[d], rows, 1 + (int)random_below(CHUNK), false);
                if (k->paired && type != DTYPE_F32 && rows >= 3)
                    check_direct(k, type, dims[d], rows, 1 + (int)random_below(CHUNK), true);
            }
}

/* --- Attention straight from codes --- */

enum { CODE_ROWS = 7 };

/* Rows of codes, and the numbers that they are. */
struct coded {
    uint8_t codes[CHUNK * MAX_DIM];
    float scales[CHUNK * MAX_DIM / 32], biases[CHUNK * MAX_DIM / 32], numbers[CHUNK * MAX_DIM];
};

static void make_coded(struct coded *c, int n, int dim, int group, int bits)
{
    random_floats(c->scales, COUNT(c->scales));
    random_floats(c->biases, COUNT(c->biases));
    for (size_t i = 0; i < COUNT(c->codes); i++)
        c->codes[i] = (uint8_t)random_below(256);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < dim; i++) {
            int at = j * dim + i, g = i / group * n + j;
            int code = bits == 4 ? c->codes[at / 2] >> at % 2 * 4 & 15 : c->codes[at];

            c->numbers[at] = c->scales[g] / 16 * (float)code + c->biases[g];
        }
    for (size_t i = 0; i < COUNT(c->scales); i++)
        c->scales[i] /= 16;
}

/* Queries are off by half of 1/32767 of the largest one. */
static void check_score_codes(const struct cpu_vector_kernels *k, const struct coded *c,
                              const struct cpu_codes *keys, const float *q, int rows, int n)
{
    static int16_t words[CODE_ROWS * MAX_DIM];
    static float s[CODE_ROWS * CHUNK];
    float steps[CODE_ROWS * MAX_DIM / 32], sums[CODE_ROWS * MAX_DIM / 32];
    struct cpu_rounded r = {words, steps, sums};
    int dim = keys->dim;

    for (size_t i = 0; i < COUNT(s); i++)
        s[i] = CANARY;
    k->round_queries(&r, q, MAX_DIM, rows, dim, keys->group, keys->bits);
    k->score_codes(s, CHUNK, &r, rows, keys, n);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < CHUNK; j++) {
            double want = 0, size = 0, scale = 0;

            for (int d = 0; d < dim && j < n; d++) {
                double scaled = (double)keys->scales[d / keys->group * n + j];

                want += (double)q[i * MAX_DIM + d] * (double)c->numbers[j * dim + d];
                size += fabs((double)q[i * MAX_DIM + d]) *
                        (fabs(scaled) * 255 + fabs((double)keys->biases[d / keys->group * n + j]));
                scale += fabs(scaled) * 255;
            }
            if (j < n)
                check_close(s[i * CHUNK + j], want, dim * EPSILON * size + 0.51 * scale / 32767,
                            "score_codes", dim, j);
            else
                CHECK(s[i * CHUNK + j] == CANARY, "score_codes: wrote at %d of %d", j, n);
        }
}

static void check_weigh_codes(const struct cpu_vector_kernels *k, const struct coded *c,
                              const struct cpu_codes *values, int rows, int n)
{
    static float s[CODE_ROWS * CHUNK], y[CODE_ROWS * MAX_DIM], before[CODE_ROWS * MAX_DIM];
    int dim = values->dim;

    random_floats(s, COUNT(s));
    random_floats(before, COUNT(before));
    memcpy(y, before, sizeof y);
    k->weigh_codes(y, MAX_DIM, s, CHUNK, rows, values, n);
    for (int i = 0; i < CODE_ROWS * MAX_DIM; i++) {
        double want = (double)before[i], size = fabs(want);

        for (int j = 0; j < n && i / MAX_DIM < rows && i % MAX_DIM < dim; j++) {
            double weight = (double)s[i / MAX_DIM * CHUNK + j];
            int g = i % MAX_DIM / values->group * n + j;

            want += weight * (double)c->numbers[j * dim + i % MAX_DIM];
            size += fabs(weight) *
                    (255 * fabs((double)values->scales[g]) + fabs((double)values->biases[g]));
        }
        check_close(y[i], want, (n + 2) * EPSILON * size, "weigh_codes", dim, i % MAX_DIM);
    }
}

static void check_coded(const struct cpu_vector_kernels *k)
{
    static struct coded c;
    static float q[CODE_ROWS * MAX_DIM];

    for (int turn = 0; k->score_codes && turn < 60; turn++) {
        int group = 32 << random_below(3), n = 1 + (int)random_below(CHUNK);
        int dim = group * (1 + (int)random_below((size_t)(MAX_DIM / group)));
        int bits = random_below(2) ? 4 : 8, rows = 1 + (int)random_below(CODE_ROWS);
        struct cpu_codes codes = {.codes = c.codes,
                                  .scales = c.scales,
                                  .biases = c.biases,
                                  .dim = dim,
                                  .group = group,
                                  .bits = bits,
                                  .ahead = turn % 2 ? c.codes : NULL};

        make_coded(&c, n, dim, group, bits);
        random_floats(q, COUNT(q));
        check_score_codes(k, &c, &codes, q, rows, n);
        check_weigh_codes(k, &c, &codes, rows, n);
    }
}

TEST_OF(norms)
TEST_OF(add_scale)
TEST_OF(activations)
TEST_OF(softcap)
TEST_OF(ropes)
TEST_OF(loads)
TEST_OF(stores)
TEST_OF(argmax)
TEST_OF(packs)
TEST_OF(products)
TEST_OF(softmaxes)
TEST_OF(directs)
TEST_OF(coded)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms),       cmocka_unit_test(test_add_scale),
        cmocka_unit_test(test_activations), cmocka_unit_test(test_softcap),
        cmocka_unit_test(test_ropes),       cmocka_unit_test(test_loads),
        cmocka_unit_test(test_stores),      cmocka_unit_test(test_argmax),
        cmocka_unit_test(test_packs),       cmocka_unit_test(test_products),
        cmocka_unit_test(test_softmaxes),   cmocka_unit_test(test_directs),
        cmocka_unit_test(test_coded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
