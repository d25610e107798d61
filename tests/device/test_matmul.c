/* Matrix products on the CPU: every instruction set of this machine, every format, against a sum in
 * double of the weights as weight_row_f32 defines them. */
#include "testing.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/number.h"
#include "device/cpu/cpu.h"

#define CANARY 12345.678f
#define MAX_FORMATS 64

static const char *const isa_names[] = {"scalar", "avx2", "avx512", "neon", "amx"};

static bool in_tiles; /* the device opened last computes many rows by AMX */

/* NULL where this machine has not got it. */
static device *open_isa(const char *isa, int n_threads)
{
    clm_error err = {0};
    device *d;

    setenv("CLM_CPU", isa, 1);
    d = device_cpu_open(n_threads, &err);
    CHECK(d, "%s", err.message);
    in_tiles = strcmp(device_cpu_isa(d), "amx") == 0;
    if (strcmp(device_cpu_isa(d), isa) == 0)
        return d;
    d->ops->close(d);
    return NULL;
}

/* --- weights
 * ---------------------------------------------------------------------------------------- */

static int all_formats(struct weight *formats)
{
    static const int bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    int n = 0;

    formats[n++] = (struct weight){.format = WEIGHT_F32};
    formats[n++] = (struct weight){.format = WEIGHT_F16};
    formats[n++] = (struct weight){.format = WEIGHT_BF16};
    for (size_t b = 0; b < COUNT(bits); b++)
        for (size_t g = 0; g < COUNT(groups); g++)
            formats[n++] = (struct weight){
                .format = WEIGHT_AFFINE,
                .bits = bits[b],
                .group_size = groups[g],
                .scale_type = (enum dtype[]){DTYPE_F32, DTYPE_F16, DTYPE_BF16}[(b + g) % 3]};
    formats[n++] = (struct weight){.format = WEIGHT_MXFP4, .bits = 4, .group_size = 32};
    formats[n++] = (struct weight){.format = WEIGHT_NVFP4, .bits = 4, .group_size = 16};
    formats[n++] = (struct weight){.format = WEIGHT_MXFP8, .bits = 8, .group_size = 32};
    formats[n++] = (struct weight){
        .format = WEIGHT_FP8, .bits = 8, .group_size = 128, .scale_rows = 128, .scale_row = 127};
    formats[n++] =
        (struct weight){.format = WEIGHT_FP8, .bits = 8, .group_size = 5, .scale_rows = 1};
    return n;
}

static const char *describe(const struct weight *w)
{
    static char text[100];

    snprintf(text, sizeof text, "%s [%d, %d] %d bits, group %d, scales %s",
             weight_format_name(w->format), w->n_out, w->n_in, w->bits, w->group_size,
             dtype_name(w->scale_type));
    return text;
}

static void put_float(uint8_t *p, size_t i, float f, enum dtype type)
{
    uint16_t h = type == DTYPE_F16 ? f32_to_f16(f) : f32_to_bf16(f);

    if (type == DTYPE_F32)
        memcpy(p + 4 * i, &f, 4);
    else
        memcpy(p + 2 * i, &h, 2);
}

static float random_float(void)
{
    float f;

    random_floats(&f, 1);
    return f;
}

static void fill_data(const struct weight *w, uint8_t *data, size_t size)
{
    if (w->format <= WEIGHT_BF16) {
        enum dtype type = (enum dtype[]){DTYPE_F32, DTYPE_F16, DTYPE_BF16}[w->format];

        for (size_t i = 0; i < size / dtype_size(type); i++)
            put_float(data, i, random_float(), type);
        return;
    }
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)random_u64();
        if (weight_is_e4m3(w) && (data[i] & 0x7F) == 0x7F)
            data[i] ^= 1; /* no NaN */
    }
}

/* Biases near the middle of the codes, as quantising leaves them: products then do not cancel by
 * far. */
static void fill_scales(const struct weight *w, uint8_t *scales, uint8_t *biases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float s = 0.01f * (1.5f + random_float());

        if (w->format == WEIGHT_NVFP4)
            scales[i] = (uint8_t)(0x10 + random_below(0x30));
        else if (w->format == WEIGHT_FP8)
            put_float(scales, i, s, DTYPE_F32);
        else if (w->format != WEIGHT_AFFINE)
            scales[i] = (uint8_t)(120 + random_below(5));
        else {
            put_float(scales, i, s, w->scale_type);
            put_float(biases, i, -s * (float)(1 << w->bits) * (0.5f + 0.1f * random_float()),
                      w->scale_type);
        }
    }
}

/* Random, at odd addresses, ending where the memory ends (so that a sanitizer sees what reads
 * beyond). */
static struct weight random_weight(struct weight w, int n_out, int n_in)
{
    w.n_out = n_out;
    w.n_in = n_in;

    size_t size = (size_t)n_out * weight_row_bytes(&w),
           n = (size_t)n_out * weight_scale_row_bytes(&w);
    uint8_t *data = malloc(size + 1), *scales = malloc(n + 1), *biases = malloc(n + 1);

    assert_true(data && scales && biases);
    w.data = data + 1;
    w.scales = scales + 1;
    w.biases = biases + 1;
    fill_data(&w, data + 1, size);
    if (w.group_size)
        fill_scales(&w, scales + 1, biases + 1,
                    (size_t)n_out * (size_t)((n_in + w.group_size - 1) / w.group_size));
    return w;
}

static void free_weight(struct weight *w)
{
    free((uint8_t *)w->data - 1);
    free((uint8_t *)w->scales - 1);
    free((uint8_t *)w->biases - 1);
}

/* --- activations
 * ------------------------------------------------------------------------------------ */

static tensor new_tensor(int rows, int cols, int stride)
{
    tensor t = {malloc(((size_t)rows * (size_t)stride + 1) * sizeof(float)), DTYPE_F32, rows, cols,
                stride};

    assert_non_null(t.data);
    for (int64_t i = 0; i <= (int64_t)rows * stride; i++)
        ((float *)t.data)[i] = CANARY;
    return t;
}

static float *row_of(const tensor *t, int r)
{
    return (float *)t->data + r * t->stride;
}

/* What lies between and behind the rows is as new_tensor left it. */
static void check_canaries(const tensor *t, const char *what)
{
    for (int r = 0; r < t->rows; r++)
        for (int64_t i = t->cols; i < t->stride; i++)
            CHECK(row_of(t, r)[i] == CANARY, "%s: wrote behind row %d", what, r);
    CHECK(((float *)t->data)[t->rows * t->stride] == CANARY, "%s: wrote past the end", what);
}

/* Ordinary rows, with a scale of their own, an outlier here and there, and a row of zeros. */
static void fill_rows(tensor *x)
{
    for (int r = 0; r < x->rows; r++) {
        float scale = r % 5 == 3 ? 0 : ldexpf(1, (int)random_below(9) - 4);

        for (int i = 0; i < x->cols; i++)
            row_of(x, r)[i] = scale * random_float() * (random_below(50) ? 1 : 20);
    }
}

/* Whole numbers up to 127, which every 16 numbers reach: x in 8 bits is exact. */
static void fill_rows_whole(tensor *x)
{
    for (int r = 0; r < x->rows; r++)
        for (int i = 0; i < x->cols; i++)
            row_of(x, r)[i] =
                i % 16 == 5 ? (random_below(2) ? 127 : -127) : (float)random_below(255) - 127;
}

/* --- what must come out
 * ------------------------------------------------------------------------------ */

enum accuracy { EXACT, WHOLE, INT8 };

/* The error that y = sum x w may have.
 *
 * Sums: 64 terms in each of 8 lanes of a block of 512, the lanes, the blocks: a chain of 64 + 8 + n
 * / 512 additions, and with them the roundings of q * scale + bias, of bias and of two scales, each
 * of at most half an epsilon of sum |x| times the largest that q * scale, bias or w get, 3 max |w|.
 * INT8: x to within half of max |x| / 127 of its group; for any group that is at most the maximum
 * of all. WHOLE: x is what 8 bits can say; kernels may take 16, and be off by half of max |x| /
 * 32767. */
static double tolerance(const float *x, const float *w, int n, enum accuracy accuracy)
{
    double sum = 0, max_w = 0, step = 0, error = 0;

    for (int g = 0; g < n; g += 128) {
        double max_x = 0, group_w = 0;

        for (int i = g; i < n && i < g + 128; i++) {
            sum += fabs((double)x[i]);
            max_x = fmax(max_x, fabs((double)x[i]));
            max_w = fmax(max_w, fabs((double)w[i]));
            group_w += fabs((double)w[i]);
        }
        step = accuracy == EXACT ? 0 : accuracy == WHOLE ? max_x / 32767 : max_x / 127;
        error += group_w * step / 2;
    }
    return error + (80 + n / 512.0) * 0.5 * (double)FLT_EPSILON * sum * 3 * max_w + 1e-30;
}

/* What rounding weights adds to that: kernels for more than 16 rows may take weights of 4 bits to
 * within half of 1/127 of the largest magnitude that the groups of 512 of them can say, here at
 * most 1.5 max |w|. */
static double rounded_weights(const float *x, const float *w, int n)
{
    double error = 0;

    for (int run = 0; run < n; run += 512) {
        double sum = 0, max_w = 0;

        for (int i = run; i < n && i < run + 512; i++) {
            sum += fabs((double)x[i]);
            max_w = fmax(max_w, fabs((double)w[i]));
        }
        error += sum * 1.5 * max_w / 127 / 2;
    }
    return error;
}

/* The same by AMX, which takes all weights in bf16: to within 2^-9 of themselves, where x is off by
 * as much again at most. */
static double weights_in_bf16(const float *x, const float *w, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += fabs((double)x[i] * (double)w[i]);
    return sum * (1 + 1 / 512.0) / 512;
}

static void check_output(const tensor *y, int row, const struct weight *w, const float *bias,
                         const float *x, enum accuracy accuracy, const char *what)
{
    float *values = malloc((size_t)w->n_in * sizeof *values);

    assert_non_null(values);
    for (int o = 0; o < w->n_out; o++) {
        double want = bias ? (double)bias[o] : 0, got = (double)row_of(y, row)[o], limit;

        weight_row_f32(values, w, o);
        for (int i = 0; i < w->n_in; i++)
            want += (double)x[i] * (double)values[i];
        limit = tolerance(x, values, w->n_in, accuracy) + (double)FLT_EPSILON * fabs(want);
        if (accuracy != EXACT && w->bits && in_tiles)
            limit += weights_in_bf16(x, values, w->n_in);
        else if (accuracy != EXACT && w->bits == 4 && w->format != WEIGHT_NVFP4 && y->rows > 16)
            limit += rounded_weights(x, values, w->n_in);
        CHECK(fabs(got - want) <= limit,
              "%s: %s: row %d of %d, output %d: %.9g, not %.9g within %.3g", what, describe(w), row,
              y->rows, o, got, want, limit);
    }
    free(values);
}

static bool has_group(const struct weight *w)
{
    return w->format > WEIGHT_BF16 && w->format != WEIGHT_FP8;
}

/* x may be rounded to bf16 for weights that are, or that AMX takes so: to within 2^-9 of itself,
 * which INT8 allows. */
static enum accuracy accuracy_of(const struct weight *w, enum accuracy a)
{
    if (w->format == WEIGHT_FP8)
        return in_tiles ? a : EXACT;
    return has_group(w) || w->format == WEIGHT_BF16 ? a : EXACT;
}

static void check_product(device *d, const struct weight *format, int n_out, int n_in, int rows,
                          enum accuracy accuracy)
{
    struct weight w = random_weight(*format, n_out, n_in);
    tensor x = new_tensor(rows, n_in, n_in + (int)random_below(3));
    tensor y = new_tensor(rows, n_out, n_out + (int)random_below(3));
    float *bias = random_below(2) ? malloc((size_t)n_out * sizeof *bias) : NULL;
    const char *what = device_cpu_isa(d);

    if (bias)
        random_floats(bias, (size_t)n_out);
    if (accuracy == WHOLE)
        fill_rows_whole(&x);
    else
        fill_rows(&x);
    d->ops->set_exact(d, accuracy == EXACT);
    d->ops->matmul(d, &(struct matmul_job){.y = &y, .w = &w, .bias = bias}, 1, &x);
    assert_int_equal(d->ops->sync(d, NULL), 0);
    check_canaries(&y, describe(&w));
    for (int r = 0; r < rows; r++)
        check_output(&y, r, &w, bias, row_of(&x, r), accuracy_of(&w, accuracy), what);
    free_weight(&w);
    free(x.data);
    free(y.data);
    free(bias);
}

static int random_n_in(const struct weight *w)
{
    static const int odd[] = {1, 7, 8, 31, 65, 509, 515, 1030};

    if (!has_group(w))
        return odd[random_below(COUNT(odd))];
    return w->group_size *
           (1 + (int)random_below(random_below(4) ? 10 : (size_t)(2200 / w->group_size)));
}

static void check_products(device *d)
{
    static const int rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 33};
    struct weight formats[MAX_FORMATS];
    int n = all_formats(formats);

    for (int f = 0; f < n; f++)
        for (size_t r = TEST_IS_SLOW ? (size_t)f % 4 : 0; r < COUNT(rows);
             r += TEST_IS_SLOW ? 4 : 1)
            for (int accuracy = EXACT; accuracy <= INT8; accuracy++)
                check_product(d, &formats[f], 1 + (int)random_below(70), random_n_in(&formats[f]),
                              rows[r], (enum accuracy)accuracy);
}

/* Rows of which several share a batch of groups: an output is the same, whichever lie beside it. */
static void check_short_products(device *d)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    static const int sizes[] = {128, 256, 512};

    for (size_t i = 0; i < COUNT(types) * COUNT(sizes); i++) {
        struct weight format = {
            .format = WEIGHT_AFFINE, .bits = 4, .group_size = 64, .scale_type = types[i % 3]};
        int n_in = sizes[i / 3], n_out = 1 + (int)random_below(70);
        struct weight w = random_weight(format, n_out, n_in);
        tensor x = new_tensor(1, n_in, n_in), y = new_tensor(1, n_out, n_out);
        struct matmul_job job = {.y = &y, .w = &w};

        check_product(d, &format, n_out, n_in, 1, INT8);
        d->ops->matmul(d, &job, 1, &x);
        for (int o = 0; o < n_out; o++) {
            struct weight one = w;
            float alone = 0;
            tensor one_y = {&alone, DTYPE_F32, 1, 1, 1};
            struct matmul_job one_job = {.y = &one_y, .w = &one};

            one.n_out = 1;
            one.data = (const char *)w.data + (size_t)o * weight_row_bytes(&w);
            one.scales = (const char *)w.scales + (size_t)o * weight_scale_row_bytes(&w);
            one.biases = (const char *)w.biases + (size_t)o * weight_scale_row_bytes(&w);
            d->ops->matmul(d, &one_job, 1, &x);
            CHECK(memcmp(&alone, (float *)y.data + o, sizeof alone) == 0,
                  "output %d of %d, of %d numbers: %g and alone %g", o, n_out, n_in,
                  (double)((float *)y.data)[o], (double)alone);
        }
        free_weight(&w);
        free(x.data);
        free(y.data);
    }
}

/* So many outputs that a thread takes more of them at a time than a cache holds the weights of. */
static void check_large_products(device *d)
{
    static const struct weight formats[] = {
        {.format = WEIGHT_AFFINE, .bits = 4, .group_size = 64, .scale_type = DTYPE_BF16},
        {.format = WEIGHT_AFFINE, .bits = 8, .group_size = 64, .scale_type = DTYPE_BF16},
        {.format = WEIGHT_MXFP4, .bits = 4, .group_size = 32},
    };

    for (size_t f = 0; f < COUNT(formats); f++)
        check_product(d, &formats[f], 700 + (int)random_below(70), 1024, 5 + (int)random_below(4),
                      INT8);
}

/* Rows so long that the nearest cache does not hold x beside them. */
static void check_long_products(device *d)
{
    static const struct weight formats[] = {
        {.format = WEIGHT_AFFINE, .bits = 4, .group_size = 64, .scale_type = DTYPE_F16},
        {.format = WEIGHT_AFFINE, .bits = 8, .group_size = 32, .scale_type = DTYPE_F32},
        {.format = WEIGHT_AFFINE, .bits = 8, .group_size = 128, .scale_type = DTYPE_BF16},
        {.format = WEIGHT_AFFINE, .bits = 3, .group_size = 64, .scale_type = DTYPE_BF16},
        {.format = WEIGHT_AFFINE, .bits = 6, .group_size = 128, .scale_type = DTYPE_F16},
        {.format = WEIGHT_MXFP4, .bits = 4, .group_size = 32},
        {.format = WEIGHT_NVFP4, .bits = 4, .group_size = 16},
    };

    for (size_t f = 0; f < COUNT(formats); f++) {
        int group_size = formats[f].group_size, bits = formats[f].bits;
        int least = bits == 8 ? 6144 : bits == 6 ? 8192 : bits == 4 ? 12288 : 16384;

        for (int i = 0; i < 3; i++)
            check_product(d, &formats[f], 1 + (int)random_below(40),
                          least + group_size * (1 + (int)random_below(5000 / (size_t)group_size)),
                          1, INT8);
    }
}

/* Rows a multiple of 4096 bytes long, which kernels for some rows read in two places; so few
 * outputs that the last of them are read with some of those before. */
static void check_halved_products(device *d)
{
    static const struct weight formats[] = {
        {.format = WEIGHT_AFFINE, .bits = 4, .group_size = 32, .scale_type = DTYPE_F32},
        {.format = WEIGHT_AFFINE, .bits = 4, .group_size = 64, .scale_type = DTYPE_BF16},
        {.format = WEIGHT_AFFINE, .bits = 4, .group_size = 128, .scale_type = DTYPE_F16},
        {.format = WEIGHT_AFFINE, .bits = 4, .group_size = 128, .scale_type = DTYPE_BF16},
        {.format = WEIGHT_MXFP4, .bits = 4, .group_size = 32},
    };

    for (size_t f = 0; f < COUNT(formats); f++)
        check_product(d, &formats[f], 14 + (int)random_below(40), 8192 << random_below(2),
                      5 + (int)random_below(12), INT8);
}

/* Sums as great as they get: all codes the greatest, all numbers alike. */
static void check_greatest_products(device *d)
{
    static const int groups[] = {32, 64, 128};

    for (int i = 0; i < 12; i++) {
        struct weight format = {.format = WEIGHT_AFFINE,
                                .bits = 4,
                                .group_size = groups[i % 3],
                                .scale_type = DTYPE_BF16};
        int rows = 1 + i / 6, n_in = 2048 + format.group_size;
        struct weight w = random_weight(format, 9, n_in);
        tensor x = new_tensor(rows, n_in, n_in), y = new_tensor(rows, 9, 9);

        memset((uint8_t *)(uintptr_t)w.data, 0xFF, 9 * weight_row_bytes(&w));
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < n_in; k++)
                row_of(&x, r)[k] = i / 3 % 2 ? -3e8f : 3e-8f;
        d->ops->set_exact(d, false);
        d->ops->matmul(d, &(struct matmul_job){.y = &y, .w = &w}, 1, &x);
        assert_int_equal(d->ops->sync(d, NULL), 0);
        for (int r = 0; r < rows; r++)
            check_output(&y, r, &w, NULL, row_of(&x, r), WHOLE, device_cpu_isa(d));
        free_weight(&w);
        free(x.data);
        free(y.data);
    }
}

static void test_products(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(isa_names); i++) {
        device *d = open_isa(isa_names[i], 2);

        if (!d)
            continue;
        check_products(d);
        check_large_products(d);
        check_long_products(d);
        check_short_products(d);
        check_halved_products(d);
        check_greatest_products(d);
        d->ops->close(d);
    }
}

#if defined(__x86_64__)
/* How rows are read depends on the processor, too: here as on those that this one is not. */
static void test_readings(void **state)
{
    struct weight formats[MAX_FORMATS];
    int n = all_formats(formats);

    (void)state;
    for (size_t i = 0; i < COUNT(isa_names); i++) {
        device *d = open_isa(isa_names[i], 2);
        struct cpu_reading *r;

        if (!d)
            continue;
        r = &cpu_device_of(d)->matmul.reading;
        r->to_first = !r->to_first;
        r->cached = r->cached == 24 << 10 ? 36 << 10 : 24 << 10;
        r->first_runs = r->first_runs_short = 0.5;
        for (int f = 0; f < n; f++)
            for (int rows = 1; rows <= 4; rows++)
                check_product(d, &formats[f], 1 + (int)random_below(500), random_n_in(&formats[f]),
                              rows, INT8);
        check_short_products(d);
        check_long_products(d);
        d->ops->close(d);
    }
}

extern const struct cpu_product avx512_gemm_f32, avx512_gemm_bf16, avx512_bf16_row;

static const struct cpu_product *choose_f32(const struct weight *w, int n_rows, bool exact)
{
    (void)w;
    (void)n_rows;
    (void)exact;
    return &avx512_gemm_f32;
}

static const struct cpu_product *choose_bf16(const struct weight *w, int n_rows, bool exact)
{
    (void)w;
    (void)n_rows;
    (void)exact;
    return &avx512_gemm_bf16;
}

static const struct cpu_product *choose_row(const struct weight *w, int n_rows, bool exact)
{
    (void)w;
    (void)n_rows;
    (void)exact;
    return &avx512_bf16_row;
}

/* A single row's numbers are those that it has among others. */
static void check_bf16_row(device *d, int n_out, int n_in)
{
    struct cpu_matmul_kernels *k = &cpu_device_of(d)->matmul;
    struct weight w = random_weight((struct weight){.format = WEIGHT_BF16}, n_out, n_in);
    tensor x = new_tensor(2, n_in, n_in), y = new_tensor(2, n_out, n_out);
    tensor one_x = {x.data, DTYPE_F32, 1, n_in, n_in}, one_y = new_tensor(1, n_out, n_out);
    float *bias = random_below(2) ? malloc((size_t)n_out * sizeof *bias) : NULL;
    struct matmul_job job = {.y = &y, .w = &w, .bias = bias};
    struct cpu_matmul_kernels others = *k;

    if (bias)
        random_floats(bias, (size_t)n_out);
    fill_rows(&x);
    d->ops->matmul(d, &job, 1, &x);
    k->choose = choose_row;
    job.y = &one_y;
    d->ops->matmul(d, &job, 1, &one_x);
    k->choose = others.choose;
    check_canaries(&one_y, "bf16 row");
    CHECK(memcmp(one_y.data, y.data, (size_t)n_out * sizeof(float)) == 0,
          "%d outputs of %d numbers differ alone", n_out, n_in);
    free_weight(&w);
    free(x.data);
    free(y.data);
    free(one_y.data);
    free(bias);
}

/* Which of these products is taken depends on the processor: here all are, for bf16. */
static void test_bf16_products(void **state)
{
    static const int rows[] = {1, 4, 5, 8, 9, 12, 13, 37}, n_in[] = {1, 31, 512, 1023, 2500};
    const struct weight bf16 = {.format = WEIGHT_BF16};
    device *d = open_isa("avx512", 2);

    (void)state;
    if (!d)
        skip();
    for (int f = 0; f < 2; f++) {
        cpu_device_of(d)->matmul.choose = f ? choose_bf16 : choose_f32;
        for (size_t r = 0; r < COUNT(rows); r++)
            for (size_t i = 0; i < COUNT(n_in); i++)
                check_product(d, &bf16, 1 + (int)random_below(70), n_in[i], rows[r],
                              f ? INT8 : EXACT);
    }
    d->ops->close(d);
    d = open_isa("avx512", 2);
    for (int i = 1; i <= 50; i++)
        check_bf16_row(d, 1 + (int)random_below(300), i);
    for (int i = 0; i < 20; i++)
        check_bf16_row(d, 1 + (int)random_below(1000), 500 + (int)random_below(3000));
    d->ops->close(d);
}
#else
static void test_readings(void **state)
{
    (void)state;
    skip();
}

static void test_bf16_products(void **state)
{
    (void)state;
    skip();
}
#endif

#if defined(CLM_AMX)
extern const struct cpu_product amx_gemm_bf16;

static const struct cpu_product *choose_tiles(const struct weight *w, int n_rows, bool exact)
{
    (void)w;
    (void)n_rows;
    (void)exact;
    return &amx_gemm_bf16;
}

/* Any number of rows by AMX, which is left to others where they are few; so many that some are sums
 * of their own, and so many outputs that some wait for others. */
static void test_tile_products(void **state)
{
    static const int rows[] = {1, 15, 16, 17, 31, 32, 33, 48, 49};
    struct weight formats[MAX_FORMATS];
    int n = all_formats(formats);
    device *d = open_isa("amx", 2);

    (void)state;
    if (!d)
        skip();
    cpu_device_of(d)->matmul.choose = choose_tiles;
    for (int f = 0; f < n; f++)
        if (formats[f].format >= WEIGHT_BF16)
            for (int accuracy = WHOLE; accuracy <= INT8; accuracy++)
                check_product(d, &formats[f], 1 + (int)random_below(70), random_n_in(&formats[f]),
                              rows[random_below(COUNT(rows))], (enum accuracy)accuracy);
    for (int f = 0; f < n; f += 6)
        if (formats[f].format >= WEIGHT_BF16) {
            check_product(d, &formats[f], 3, random_n_in(&formats[f]), 513 + 17 * f, INT8);
            check_product(d, &formats[f], 700, random_n_in(&formats[f]), 9, INT8);
        }
    d->ops->close(d);
}
#else
static void test_tile_products(void **state)
{
    (void)state;
    skip();
}
#endif

/* --- exactness
 * ---------------------------------------------------------------------------------------- */

#define EXACT_ROWS 40

static void multiply_rows(device *d, tensor *y, const struct weight *w, const tensor *x, int first,
                          int n, bool careful)
{
    tensor part_x = *x, part_y = *y;

    part_x.data = row_of(x, first);
    part_y.data = row_of(y, first);
    part_x.rows = part_y.rows = n;
    d->ops->matmul(d, &(struct matmul_job){.y = &part_y, .w = w, .careful = careful}, 1, &part_x);
    assert_int_equal(d->ops->sync(d, NULL), 0);
}

static void check_exact(const char *isa, const struct weight *format)
{
    static const int threads[] = {1, 2, 5};
    int n_in = has_group(format) ? 1152 : 1033, n_out = 37;
    struct weight w = random_weight(*format, n_out, n_in);
    tensor x = new_tensor(EXACT_ROWS, n_in, n_in), want = new_tensor(EXACT_ROWS, n_out, n_out);
    tensor got = new_tensor(EXACT_ROWS, n_out, n_out);

    fill_rows(&x);
    for (size_t t = 0; t < COUNT(threads); t++) {
        device *d = open_isa(isa, threads[t]);

        d->ops->set_exact(d, true);
        if (t == 0)
            multiply_rows(d, &want, &w, &x, 0, EXACT_ROWS, false);
        for (int n = 1; n <= EXACT_ROWS; n += t == 0 && !TEST_IS_SLOW ? 1 : 13) {
            int first = (int)random_below((size_t)(EXACT_ROWS - n + 1));

            memset(got.data, 0xFF, sizeof(float) * EXACT_ROWS * (size_t)n_out);
            d->ops->set_exact(d, n % 2); /* or careful, which is the same of one product */
            multiply_rows(d, &got, &w, &x, first, n, n % 2 == 0);
            CHECK(memcmp(row_of(&got, first), row_of(&want, first),
                         sizeof(float) * (size_t)(n * n_out)) == 0,
                  "%s: %s: rows %d + %d on %d threads are not what they are among 40", isa,
                  describe(&w), first, n, threads[t]);
        }
        d->ops->close(d);
    }
    free_weight(&w);
    free(x.data);
    free(want.data);
    free(got.data);
}

static void test_exact(void **state)
{
    struct weight formats[MAX_FORMATS];
    int n = all_formats(formats);

    (void)state;
    for (size_t i = 0; i < COUNT(isa_names); i++) {
        device *d = open_isa(isa_names[i], 1);

        if (!d)
            continue;
        d->ops->close(d);
        /* Not all of them where that would take long: in plain C, or emulated. */
        for (int f = 0; f < n; f += i == 0 || i == 3 ? 5 : 1)
            check_exact(isa_names[i], &formats[f]);
    }
}

/* --- dequantising
 * --------------------------------------------------------------------------------------- */

static void check_dequantise(device *d, const struct weight *format)
{
    int n_in = has_group(format) ? 1408 : 1409;
    struct weight w = random_weight(*format, 3, n_in);
    float want[1409], got[1410];

    for (int k = 0; k < n_in; k += 128) {
        int n = 1 + (int)random_below((size_t)(n_in - k)), o = (int)random_below(3);

        if (random_below(3) == 0)
            n = n_in - k;
        weight_row_f32(want, &w, o);
        got[n] = CANARY;
        cpu_device_of(d)->matmul.dequantise(got, &w, o, k, n);
        CHECK(memcmp(got, want + k, (size_t)n * sizeof *got) == 0, "%s: %s: row %d, %d + %d",
              device_cpu_isa(d), describe(&w), o, k, n);
        CHECK(got[n] == CANARY, "%s: %s: wrote past the end", device_cpu_isa(d), describe(&w));
    }
    free_weight(&w);
}

static void check_embed(device *d, const struct weight *format)
{
    enum { ROWS = 21, OUT = 9, IN = 384 };
    struct weight w = random_weight(*format, OUT, IN);
    tensor y = new_tensor(ROWS, IN, IN + 1);
    int32_t ids[ROWS];
    float want[IN];

    for (int t = 0; t < ROWS; t++)
        ids[t] = (int32_t)random_below(OUT);
    d->ops->embed(d, &y, &w, ids, 1.25f);
    assert_int_equal(d->ops->sync(d, NULL), 0);
    check_canaries(&y, describe(&w));
    for (int t = 0; t < ROWS; t++) {
        weight_row_f32(want, &w, ids[t]);
        for (int i = 0; i < IN; i++)
            CHECK(row_of(&y, t)[i] == 1.25f * want[i], "%s: %s: row %d, %d", device_cpu_isa(d),
                  describe(&w), t, i);
    }
    free_weight(&w);
    free(y.data);
}

static void test_dequantise(void **state)
{
    struct weight formats[MAX_FORMATS];
    int n = all_formats(formats);

    (void)state;
    for (size_t i = 0; i < COUNT(isa_names); i++) {
        device *d = open_isa(isa_names[i], 2);

        if (!d)
            continue;
        for (int f = 0; f < n; f++) {
            check_dequantise(d, &formats[f]);
            check_embed(d, &formats[f]);
        }
        d->ops->close(d);
    }
}

/* --- calls
 * ---------------------------------------------------------------------------------------------- */

/* Jobs of different formats share a call, its rows, and what is prepared of them. n_out 0: any. */
static void check_jobs(device *d, int rows, int n_out)
{
    struct weight formats[MAX_FORMATS], w[MAX_FORMATS];
    struct matmul_job jobs[MAX_FORMATS];
    tensor x = new_tensor(rows, 256, 256), y[MAX_FORMATS];
    int n = all_formats(formats);

    fill_rows(&x);
    d->ops->set_exact(d, false);
    for (int j = 0; j < n; j++) {
        w[j] = random_weight(formats[j], n_out > 0 ? n_out : 1 + (int)random_below(40), 256);
        y[j] = new_tensor(rows, w[j].n_out, w[j].n_out);
        jobs[j] = (struct matmul_job){.y = &y[j], .w = &w[j]};
    }
    d->ops->matmul(d, jobs, n, &x);
    assert_int_equal(d->ops->sync(d, NULL), 0);
    for (int j = 0; j < n; j++) {
        check_canaries(&y[j], describe(&w[j]));
        for (int r = 0; r < rows; r++)
            check_output(&y[j], r, &w[j], NULL, row_of(&x, r), accuracy_of(&w[j], INT8), "jobs");
        free(y[j].data);
        free_weight(&w[j]);
    }
    free(x.data);
}

/* Jobs of one call of which each but the last two has an x of its own, of other sizes, or of the
 * same numbers further apart: what each gives by itself. */
static void check_inputs_by_job(device *d, int rows, bool exact)
{
    enum { INPUTS = 5 };
    static const int n_in[INPUTS] = {256, 512, 256, 256, 256};
    struct weight format = {
        .format = WEIGHT_AFFINE, .bits = 4, .group_size = 64, .scale_type = DTYPE_BF16};
    tensor x[INPUTS], y[INPUTS], alone[INPUTS];
    struct weight w[INPUTS];
    struct matmul_job jobs[INPUTS];

    for (int j = 0; j < INPUTS; j++) {
        int n_out = 40 + 33 * j;

        w[j] = random_weight(format, n_out, n_in[j]);
        x[j] = new_tensor(rows, n_in[j], n_in[j] + 3);
        y[j] = new_tensor(rows, n_out, n_out + 1);
        alone[j] = new_tensor(rows, n_out, n_out + 1);
        fill_rows(&x[j]);
        jobs[j] = (struct matmul_job){.y = &y[j], .w = &w[j], .x = j < INPUTS - 2 ? &x[j] : NULL};
    }
    free(x[2].data);
    x[2] = x[1];
    x[2].cols = n_in[2];
    d->ops->set_exact(d, exact);
    d->ops->matmul(d, jobs, INPUTS, &x[INPUTS - 1]);
    assert_int_equal(d->ops->sync(d, NULL), 0);
    for (int j = 0; j < INPUTS; j++) {
        const tensor *own = jobs[j].x ? jobs[j].x : &x[INPUTS - 1];

        d->ops->matmul(d, &(struct matmul_job){.y = &alone[j], .w = &w[j]}, 1, own);
        for (int r = 0; r < rows; r++) {
            check_output(&y[j], r, &w[j], NULL, row_of(own, r),
                         accuracy_of(&w[j], exact ? EXACT : INT8), "inputs by job");
            CHECK(!exact || memcmp(row_of(&y[j], r), row_of(&alone[j], r),
                                   (size_t)y[j].cols * sizeof(float)) == 0,
                  "job %d: row %d differs alone", j, r);
        }
        check_canaries(&y[j], "inputs by job");
    }
    for (int j = 0; j < INPUTS; j++) {
        free(y[j].data);
        free(alone[j].data);
        free_weight(&w[j]);
        if (j != 2)
            free(x[j].data);
    }
}

static void test_jobs(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(isa_names); i++) {
        device *d = open_isa(isa_names[i], 2);

        if (!d)
            continue;
        for (int rows = 0; rows < 14; rows += 3)
            check_jobs(d, rows, 0);
        /* A job's last tiles are of one call, unlike those of all: whatever their number of
         * outputs. */
        for (int n_out = 33; n_out <= 48; n_out++)
            check_jobs(d, 4 + n_out % 7, n_out);
        assert_true(d->ops->inputs_by_job);
        for (int rows = 0; rows < 20; rows++)
            check_inputs_by_job(d, rows, rows % 2);
        check_inputs_by_job(d, 1, true);
        d->ops->close(d);
    }
}

#define EXPERTS 7

static void choose_experts(tensor *ids, int skew)
{
    for (int t = 0; t < ids->rows; t++)
        for (int j = 0; j < ids->cols; j++) {
            int32_t *row = (int32_t *)ids->data + t * ids->stride;
            bool taken = true;

            /* skew: the first choice of all is the same, so that one expert has many rows */
            while (taken) {
                row[j] = j == 0 && skew ? 2 : (int32_t)random_below(EXPERTS);
                taken = false;
                for (int i = 0; i < j; i++)
                    taken |= row[i] == row[j];
            }
        }
}

static void check_experts(device *d, const struct weight *format, int rows, int k,
                          bool x_per_expert, bool exact)
{
    int n_in = 256, n_out = 19;
    struct weight w[2][EXPERTS];
    float bias[EXPERTS * 19];
    tensor x = new_tensor(x_per_expert ? rows * k : rows, n_in, n_in),
           ids = new_tensor(rows, k, k + 1);
    tensor y[2] = {new_tensor(rows * k, n_out, n_out), new_tensor(rows * k, n_out, n_out + 1)};
    struct matmul_job jobs[2] = {{.y = &y[0], .w = w[0], .bias = bias}, {.y = &y[1], .w = w[1]}};

    for (int e = 0; e < EXPERTS; e++)
        for (int j = 0; j < 2; j++)
            w[j][e] = random_weight(*format, n_out, n_in);
    random_floats(bias, COUNT(bias));
    fill_rows(&x);
    choose_experts(&ids, rows % 2);
    d->ops->set_exact(d, exact);
    d->ops->matmul_experts(d, jobs, 2, EXPERTS, &x, &ids);
    assert_int_equal(d->ops->sync(d, NULL), 0);
    for (int i = 0; i < rows * k; i++)
        for (int j = 0; j < 2; j++) {
            int e = ((const int32_t *)ids.data)[i / k * ids.stride + i % k];
            const float *source = row_of(&x, x_per_expert ? i : i / k);

            check_output(&y[j], i, &w[j][e], j ? NULL : bias + e * n_out, source,
                         accuracy_of(format, exact ? EXACT : INT8), "experts");
            if (exact) { /* and the very numbers of a product by itself */
                float alone[19];
                tensor one_x = {(void *)source, DTYPE_F32, 1, n_in, n_in};
                tensor one_y = {alone, DTYPE_F32, 1, n_out, n_out};

                d->ops->matmul(d,
                               &(struct matmul_job){
                                   .y = &one_y, .w = &w[j][e], .bias = j ? NULL : bias + e * n_out},
                               1, &one_x);
                CHECK(memcmp(alone, row_of(&y[j], i), sizeof alone) == 0,
                      "%s: row %d differs alone", describe(format), i);
            }
        }
    for (int j = 0; j < 2; j++) {
        check_canaries(&y[j], "experts");
        free(y[j].data);
        for (int e = 0; e < EXPERTS; e++)
            free_weight(&w[j][e]);
    }
    free(x.data);
    free(ids.data);
}

static void test_experts(void **state)
{
    struct weight formats[MAX_FORMATS];
    int n = all_formats(formats);

    (void)state;
    for (size_t i = 0; i < COUNT(isa_names); i++) {
        device *d = open_isa(isa_names[i], 2);

        if (!d)
            continue;
        for (int f = 0; f < n; f += 2)
            for (int rows = 0; rows < 40; rows = 2 * rows + 1)
                check_experts(d, &formats[f], rows, 1 + (int)random_below(3), rows % 3 == 0,
                              f % 4 == 0);
        d->ops->close(d);
    }
}

/* Whatever allocation fails, sync says so; the next call is as good as new. */
static void test_no_memory(void **state)
{
    const struct weight formats[] = {
        {.format = WEIGHT_BF16}, {WEIGHT_AFFINE, 0, 0, 4, 64, DTYPE_BF16, NULL, NULL, NULL, 0, 0}};

    (void)state;
    for (size_t f = 0; f < COUNT(formats); f++)
        for (int experts = 0; experts < 2; experts++) {
            struct weight w = random_weight(formats[f], 64, 1024);
            tensor x = new_tensor(9, 1024, 1024), y = new_tensor(9, 64, 64),
                   ids = new_tensor(9, 1, 1);
            struct matmul_job job = {.y = &y, .w = &w};
            clm_error err = {0};
            device *d;
            bool failed = true;

            unsetenv("CLM_CPU");
            d = device_cpu_open(2, NULL);
            assert_non_null(d);
            memset(ids.data, 0, 9 * sizeof(int32_t));
            fill_rows(&x);
            for (long n = 0; failed; n++) {
                CHECK(n < 50, "fails for ever");
                mem_fail_after(n);
                if (experts)
                    d->ops->matmul_experts(d, &job, 1, 1, &x, &ids);
                else
                    d->ops->matmul(d, &job, 1, &x);
                failed = mem_fail_after(-1);
                assert_int_equal(d->ops->sync(d, &err), failed ? -1 : 0);
                if (failed)
                    assert_int_equal(err.code, CLM_ERR_NOMEM);
                err = (clm_error){0};
                CHECK(n > 0 || failed, "nothing was allocated");
            }
            for (int r = 0; r < 9; r++)
                check_output(&y, r, &w, NULL, row_of(&x, r), accuracy_of(&w, INT8),
                             "after failures");
            d->ops->close(d);
            free_weight(&w);
            free(x.data);
            free(y.data);
            free(ids.data);
        }
}

/* Not a number stays visible: a kernel that rounds x to integers must not make numbers of it. */
static void test_not_a_number(void **state)
{
    struct weight formats[MAX_FORMATS];
    int n = all_formats(formats);

    (void)state;
    for (size_t i = 0; i < COUNT(isa_names); i++) {
        device *d = open_isa(isa_names[i], 1);

        if (!d)
            continue;
        for (int f = 0; f < n; f++)
            for (int rows = 1; rows <= 16; rows *= 4) {
                struct weight w = random_weight(formats[f], 9, 128);
                tensor x = new_tensor(rows, 128, 128), y = new_tensor(rows, 9, 9);

                fill_rows(&x);
                row_of(&x, rows - 1)[77] = NAN;
                d->ops->matmul(d, &(struct matmul_job){.y = &y, .w = &w}, 1, &x);
                for (int o = 0; o < 9; o++)
                    CHECK(isnan(row_of(&y, rows - 1)[o]), "%s: %s: %d rows", isa_names[i],
                          describe(&w), rows);
                for (int r = 0; r < rows - 1; r++)
                    CHECK(!isnan(row_of(&y, r)[0]), "%s: %s: row %d", isa_names[i], describe(&w),
                          r);
                free_weight(&w);
                free(x.data);
                free(y.data);
            }
        d->ops->close(d);
    }
}

/* A code of e4m3 that is no number, anywhere in its row: its output is none, others are. */
static void check_no_number(device *d, const struct weight *format, int rows)
{
    int n_in = 32 * (1 + (int)random_below(20)), n_out = 2 + (int)random_below(9);
    struct weight w = random_weight(*format, n_out, n_in);
    tensor x = new_tensor(rows, n_in, n_in), y = new_tensor(rows, n_out, n_out);
    size_t without = random_below((size_t)n_out), at = random_below((size_t)n_in);

    fill_rows(&x);
    ((uint8_t *)(uintptr_t)w.data)[without * (size_t)n_in + at] = random_below(2) ? 0x7F : 0xFF;
    d->ops->matmul(d, &(struct matmul_job){.y = &y, .w = &w}, 1, &x);
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < n_out; o++)
            CHECK(!isnan(row_of(&y, r)[o]) == (o != (int)without),
                  "%s: %s: row %d of %d, output %d", device_cpu_isa(d), describe(&w), r, rows, o);
    free_weight(&w);
    free(x.data);
    free(y.data);
}

static void test_weights_without_number(void **state)
{
    struct weight formats[MAX_FORMATS];
    int n = all_formats(formats);

    (void)state;
    for (size_t i = 0; i < COUNT(isa_names); i++) {
        device *d = open_isa(isa_names[i], 2);

        if (!d)
            continue;
        for (int f = 0; f < n; f++)
            for (int j = 0; j < 12 && weight_is_e4m3(&formats[f]); j++)
                check_no_number(d, &formats[f], 1 + j % 2 * (int)random_below(20));
        d->ops->close(d);
    }
}

static void test_measure(void **state)
{
    struct device_limits limits;
    device *d;

    (void)state;
    unsetenv("CLM_CPU");
    d = device_cpu_open(0, NULL);
    assert_non_null(d);
    d->ops->measure(d, &limits, NULL, NULL);
    /* Of the right unit; any machine is within these limits, a busy emulated one too. */
    CHECK(limits.read_bytes_per_second > 1e5 && limits.read_bytes_per_second < 1e13, "%g bytes/s",
          limits.read_bytes_per_second);
    CHECK(limits.f32_flops_per_second > 1e5 && limits.f32_flops_per_second < 1e16, "%g flop/s",
          limits.f32_flops_per_second);
    CHECK(limits.int8_ops_per_second >= 0, "%g op/s", limits.int8_ops_per_second);
    d->ops->close(d);
}

/* What is read to find out how fast memory is: all of it, each word once. */
static void test_read_all(void **state)
{
    enum { MOST = 1 << 20 };
    static const size_t sizes[] = {256,        768, 127 << 10, 128 << 10, (128 << 10) + 256,
                                   MOST - 256, MOST};
    uint64_t *data = mem_alloc_aligned(MOST);

    (void)state;
    assert_non_null(data);
    for (size_t i = 0; i < MOST / sizeof *data; i++)
        data[i] = random_u64();
    for (size_t i = 0; i < COUNT(isa_names); i++) {
        device *d = open_isa(isa_names[i], 1);

        if (!d)
            continue;

        const struct cpu_matmul_kernels *k = &cpu_device_of(d)->matmul;

        for (size_t s = 0; s < COUNT(sizes); s++) {
            const uint64_t *from = data + (MOST - sizes[s]) / sizeof *data;
            uint64_t all = 0;

            for (size_t j = 0; j < sizes[s] / sizeof *data; j++)
                all ^= from[j];
            CHECK(k->read(from, sizes[s]) == all, "%s: %zu bytes", isa_names[i], sizes[s]);
            CHECK(!k->read_in_order || k->read_in_order(from, sizes[s]) == all,
                  "%s: %zu bytes in order", isa_names[i], sizes[s]);
        }
        d->ops->close(d);
    }
    mem_free_aligned(data);
}

static bool some_times(void *left)
{
    return (*(int *)left)-- > 0;
}

/* Once it is not wanted any more, nothing more of it begins; who wants it is asked often. */
static void test_measure_stops(void **state)
{
    static const int wanted[] = {0, 17, 1 << 20}; /* times; memory is touched in 16 parts */
    device *d;

    (void)state;
    unsetenv("CLM_CPU");
    d = device_cpu_open(0, NULL);
    assert_non_null(d);
    for (int i = 0; i < 3; i++) {
        struct device_limits limits;
        int left = wanted[i];

        d->ops->measure(d, &limits, some_times, &left);
        CHECK((limits.read_bytes_per_second > 0) == (i > 0), "%d: %g", i,
              limits.read_bytes_per_second);
        CHECK((limits.f32_flops_per_second > 0) == (i > 1), "%d: %g", i,
              limits.f32_flops_per_second);
        CHECK(i > 1 || limits.int8_ops_per_second == 0, "%d: %g", i, limits.int8_ops_per_second);
        CHECK(wanted[i] - left > (i > 1 ? 20 : i), "%d: asked %d times", i, wanted[i] - left);
    }
    d->ops->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dequantise),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_jobs),
        cmocka_unit_test(test_bf16_products),
        cmocka_unit_test(test_tile_products),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_readings),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_weights_without_number),
        cmocka_unit_test(test_read_all),
        cmocka_unit_test(test_measure),
        cmocka_unit_test(test_measure_stops),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
