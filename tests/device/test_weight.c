/* Weights against the definition of each format, and against what mlx makes of its own. */
#include "testing.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/number.h"
#include "device/weight.h"

#define MAX_IN 256

/* The value of element (o, i) by other means than the library's: whole words, ldexp, double. */
static double scale_value(const struct weight *w, const void *scales, int o, int i)
{
    size_t at = (size_t)o * (size_t)(w->n_in / w->group_size) + (size_t)(i / w->group_size);
    const uint8_t *p = scales;

    if (w->format == WEIGHT_FP8) {
        int groups = (w->n_in + w->group_size - 1) / w->group_size;
        float f;

        at = (size_t)((w->scale_row + o) / w->scale_rows * groups + i / w->group_size);
        memcpy(&f, p + 4 * at, sizeof f);
        return (double)f;
    }

    if (w->format == WEIGHT_NVFP4) {
        int exponent = p[at] >> 3 & 15, fraction = p[at] & 7;
        double v = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);

        return p[at] & 0x80 ? -v : v;
    }
    if (w->format != WEIGHT_AFFINE)
        return ldexp(1, p[at] - 127);
    if (w->scale_type == DTYPE_F32) {
        float f;

        memcpy(&f, p + 4 * at, sizeof f);
        return (double)f;
    }
    uint16_t h;

    memcpy(&h, p + 2 * at, sizeof h);
    if (w->scale_type == DTYPE_BF16) {
        int exponent = h >> 7 & 255, fraction = h & 127;
        double v = exponent ? ldexp(128 + fraction, exponent - 134) : ldexp(fraction, -133);

        return h & 0x8000 ? -v : v;
    }
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double v = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);

    return h & 0x8000 ? -v : v;
}

static unsigned code(const struct weight *w, int o, int i)
{
    const uint8_t *row = (const uint8_t *)w->data + (size_t)o * (size_t)(w->n_in * w->bits / 8);
    unsigned value = 0;

    for (int b = 0; b < w->bits; b++) {
        int at = i * w->bits + b;

        value |= (unsigned)(row[at / 8] >> at % 8 & 1) << b;
    }
    return value;
}

static double element(const struct weight *w, int o, int i)
{
    static const double e2m1[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    unsigned q = code(w, o, i);

    if (w->format == WEIGHT_AFFINE)
        return q * scale_value(w, w->scales, o, i) + scale_value(w, w->biases, o, i);
    if (weight_is_e4m3(w)) {
        int exponent = q >> 3 & 15, fraction = q & 7;
        double v = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);

        v = (q & 0x80 ? -v : v) * scale_value(w, w->scales, o, i);
        return w->format == WEIGHT_FP8 ? (double)bf16_to_f32(f32_to_bf16((float)v)) : v;
    }
    return (q & 8 ? -1 : 1) * e2m1[q & 7] * scale_value(w, w->scales, o, i);
}

/* Bytes that are numbers of the scale type of w, not too far from 1. */
static void random_scales(uint8_t *p, const struct weight *w, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float f;

        random_floats(&f, 1);
        if (w->format == WEIGHT_NVFP4)
            p[i] = (uint8_t)random_below(0x7F);
        else if (w->format == WEIGHT_FP8)
            memcpy(p + 4 * i, &f, 4);
        else if (w->format != WEIGHT_AFFINE)
            p[i] = (uint8_t)(117 + random_below(20));
        else if (w->scale_type == DTYPE_F32)
            memcpy(p + 4 * i, &f, 4);
        else {
            uint16_t h = w->scale_type == DTYPE_F16 ? f32_to_f16(f) : f32_to_bf16(f);

            memcpy(p + 2 * i, &h, 2);
        }
    }
}

static void check_definition(struct weight w)
{
    /* Odd addresses: nothing about a file aligns what lies in it. */
    static uint8_t data[1 + 3 * MAX_IN], scales[1 + 4 * 3 * MAX_IN], biases[1 + 4 * 3 * MAX_IN];
    size_t n_groups = (size_t)(w.n_out * ((w.n_in + w.group_size - 1) / w.group_size));
    float row[MAX_IN + 1];

    w.data = data + 1;
    w.scales = scales + 1;
    w.biases = w.format == WEIGHT_AFFINE ? biases + 1 : NULL;
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)random_u64();
        if (weight_is_e4m3(&w) && (data[i] & 0x7F) == 0x7F)
            data[i] ^= 1; /* no NaN */
    }
    random_scales(scales + 1, &w, n_groups);
    random_scales(biases + 1, &w, n_groups);
    assert_int_equal(weight_check(&w, "w", NULL), 0);
    assert_int_equal(weight_row_bytes(&w), w.n_in * w.bits / 8);
    for (int o = 0; o < w.n_out; o++) {
        struct weight part = weight_rows(&w, o, 1);
        float again[MAX_IN];

        row[w.n_in] = 12345;
        weight_row_f32(row, &w, o);
        weight_row_f32(again, &part, 0);
        CHECK(memcmp(row, again, (size_t)w.n_in * sizeof *row) == 0, "row %d as a part", o);
        CHECK(row[w.n_in] == 12345.0f, "wrote past the end");
        for (int i = 0; i < w.n_in; i++) {
            double want = element(&w, o, i);
            /* Two roundings: of the product, of at most 255 times a scale below 1, and the sum. */
            double tolerance = w.format == WEIGHT_AFFINE ? 256 * (double)FLT_EPSILON : 0;

            CHECK(fabs((double)row[i] - want) <= tolerance,
                  "%s %d bits, group %d, scales %s: %d, %d: %g, not %g",
                  weight_format_name(w.format), w.bits, w.group_size, dtype_name(w.scale_type), o,
                  i, (double)row[i], want);
        }
    }
}

static void test_definition(void **state)
{
    static const int bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};

    (void)state;
    for (size_t b = 0; b < COUNT(bits); b++)
        for (size_t g = 0; g < COUNT(groups); g++)
            for (size_t t = 0; t < COUNT(types); t++)
                for (int n = 1; n <= 2; n++)
                    check_definition((struct weight){.format = WEIGHT_AFFINE,
                                                     .n_out = 3,
                                                     .n_in = n * groups[g],
                                                     .bits = bits[b],
                                                     .group_size = groups[g],
                                                     .scale_type = types[t]});
    for (int n = 1; n <= 5; n++)
        for (int rows = 1; rows <= 3; rows++)
            check_definition((struct weight){.format = WEIGHT_FP8,
                                             .n_out = 3,
                                             .n_in = 1 + 11 * n,
                                             .bits = 8,
                                             .group_size = n < 3 ? 8 : 7 * n,
                                             .scale_rows = rows,
                                             .scale_row = n % rows});
    for (int n = 1; n <= 5; n++) {
        check_definition(
            (struct weight){WEIGHT_MXFP4, 3, 32 * n, 4, 32, 0, NULL, NULL, NULL, 0, 0});
        check_definition(
            (struct weight){WEIGHT_NVFP4, 3, 16 * n, 4, 16, 0, NULL, NULL, NULL, 0, 0});
        check_definition(
            (struct weight){WEIGHT_MXFP8, 3, 32 * n, 8, 32, 0, NULL, NULL, NULL, 0, 0});
    }
}

static void test_dense(void **state)
{
    static const uint8_t f32[] = {0, 0, 0, 0x80, 0x3F, 0, 0, 0x20, 0xC1};
    static const uint8_t f16[] = {0, 0x01, 0x00, 0xFF, 0xFB, 0x00, 0x3C};
    static const uint8_t bf16[] = {0, 0x80, 0x3F, 0x20, 0xC1, 0x00, 0x00};
    struct weight w = {.format = WEIGHT_F32, .n_out = 1, .n_in = 2, .data = f32 + 1};
    float row[3];

    (void)state;
    weight_row_f32(row, &w, 0);
    CHECK(row[0] == 1.0f && row[1] == -10.0f, "f32: %g %g", (double)row[0], (double)row[1]);
    assert_int_equal(weight_bytes(&w), 8);
    w = (struct weight){.format = WEIGHT_F16, .n_out = 3, .n_in = 1, .data = f16 + 1};
    for (int o = 0; o < 3; o++)
        weight_row_f32(row + o, &w, o);
    CHECK(row[0] == 0x1p-24f && row[1] == -65504.0f && row[2] == 1.0f, "f16: %g %g %g",
          (double)row[0], (double)row[1], (double)row[2]);
    w = (struct weight){.format = WEIGHT_BF16, .n_out = 1, .n_in = 3, .data = bf16 + 1};
    weight_row_f32(row, &w, 0);
    CHECK(row[0] == 1.0f && row[1] == -10.0f && row[2] == 0.0f, "bf16: %g %g %g", (double)row[0],
          (double)row[1], (double)row[2]);
    assert_int_equal(weight_bytes(&w), 6);
    assert_int_equal(weight_scale_row_bytes(&w), 0);
}

/* Reads n hexadecimal bytes from a line; returns the next line. */
static char *read_hex(char *line, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned byte;

        CHECK(sscanf(line + 2 * i, "%2x", &byte) == 1, "not %zu bytes", n);
        out[i] = (uint8_t)byte;
    }
    return strchr(line, '\n') + 1;
}

static char *check_mlx_case(char *line)
{
    static const char *const modes[WEIGHT_FORMATS] = {[WEIGHT_AFFINE] = "affine",
                                                      [WEIGHT_MXFP4] = "mxfp4",
                                                      [WEIGHT_NVFP4] = "nvfp4",
                                                      [WEIGHT_MXFP8] = "mxfp8"};
    static uint8_t data[MAX_IN], scales[MAX_IN], biases[MAX_IN];
    struct weight w = {.n_out = 1, .data = data, .scales = scales, .biases = biases};
    char mode[16], type[8];
    float want[MAX_IN], got[MAX_IN];

    CHECK(sscanf(line, "%15s %d %d %7s %d", mode, &w.bits, &w.group_size, type, &w.n_in) == 5,
          "not the head of a case: %.60s", line);
    CHECK(w.n_in <= MAX_IN, "%d numbers", w.n_in);
    for (w.format = WEIGHT_AFFINE; strcmp(modes[w.format], mode); w.format++)
        CHECK(w.format < WEIGHT_FORMATS - 1, "unknown mode %s", mode);
    if (w.format == WEIGHT_AFFINE)
        w.scale_type = (enum dtype)dtype_from_name(type, strlen(type));
    assert_int_equal(weight_check(&w, mode, NULL), 0);
    line = strchr(line, '\n') + 1;
    line = read_hex(line, data, weight_row_bytes(&w));
    line = read_hex(line, scales, weight_scale_row_bytes(&w));
    line = read_hex(line, biases, w.format == WEIGHT_AFFINE ? weight_scale_row_bytes(&w) : 0);
    line = read_hex(line, (uint8_t *)want, (size_t)w.n_in * sizeof *want);
    weight_row_f32(got, &w, 0);
    for (int i = 0; i < w.n_in; i++) {
        /* Of q * scale + bias, mlx may round the product away; it matters only where the product of
         * 8 and 24 bits does not fit in 24. Values are below 0.5. */
        float tolerance =
            w.format == WEIGHT_AFFINE && w.scale_type == DTYPE_F32 ? FLT_EPSILON / 2 : 0;

        CHECK(fabsf(got[i] - want[i]) <= tolerance, "%s %d bits, group %d, %s: %d: %.9g, not %.9g",
              mode, w.bits, w.group_size, type, i, (double)got[i], (double)want[i]);
    }
    return line;
}

static void test_mlx(void **state)
{
    size_t size;
    char *text = file_read(CLM_TEST_DATA "/mlx_quantized.txt", 1 << 20, &size, NULL);
    int n = 0;

    (void)state;
    assert_non_null(text);
    for (char *line = text; *line; n++)
        line = check_mlx_case(line);
    assert_int_equal(n, 6 * 3 * 3 + 3 * 3);
    mem_free(text);
}

static void test_check(void **state)
{
    static const uint8_t some[1];
    const struct weight good = {WEIGHT_AFFINE, 4, 128, 4, 64, DTYPE_BF16, some, some, some, 0, 0};
    const struct {
        struct weight w;
        const char *says;
    } bad[] = {
        {{WEIGHT_AFFINE, 4, 128, 7, 64, DTYPE_BF16, some, some, some, 0, 0}, "7 bits"},
        {{WEIGHT_AFFINE, 4, 128, 4, 16, DTYPE_BF16, some, some, some, 0, 0}, "groups of 16"},
        {{WEIGHT_AFFINE, 4, 128, 4, 64, DTYPE_U8, some, some, some, 0, 0}, "U8"},
        {{WEIGHT_AFFINE, 4, 96, 4, 64, DTYPE_BF16, some, some, some, 0, 0}, "96"},
        {{WEIGHT_AFFINE, 4, 128, 4, 64, DTYPE_BF16, some, NULL, some, 0, 0}, "without scales"},
        {{WEIGHT_AFFINE, 4, 128, 4, 64, DTYPE_BF16, some, some, NULL, 0, 0}, "without biases"},
        {{WEIGHT_AFFINE, 0, 128, 4, 64, DTYPE_BF16, some, some, some, 0, 0}, "0 x 128"},
        {{WEIGHT_MXFP4, 4, 128, 4, 16, 0, some, some, NULL, 0, 0}, "mxfp4"},
        {{WEIGHT_NVFP4, 4, 128, 4, 32, 0, some, some, NULL, 0, 0}, "nvfp4"},
        {{WEIGHT_MXFP8, 4, 128, 4, 32, 0, some, some, NULL, 0, 0}, "mxfp8"},
        {{WEIGHT_FP8, 4, 100, 8, 0, 0, some, some, NULL, 128, 0}, "blocks of 128 x 0"},
        {{WEIGHT_FP8, 4, 100, 8, 128, 0, some, some, NULL, 128, 128}, "from row 128"},
        {{WEIGHT_FP8, 4, 100, 8, 128, 0, some, NULL, NULL, 128, 0}, "without scales"},
        {{WEIGHT_F32, 4, 128, 0, 0, 0, NULL, NULL, NULL, 0, 0}, "without data"},
        {{WEIGHT_F32, 4, -1, 0, 0, 0, some, NULL, NULL, 0, 0}, "4 x -1"},
        {{WEIGHT_F32, INT32_MAX, INT32_MAX, 0, 0, 0, some, NULL, NULL, 0, 0}, "does not fit"},
        {{WEIGHT_FORMATS, 4, 128, 0, 0, 0, some, NULL, NULL, 0, 0}, "unknown format"},
    };

    (void)state;
    assert_int_equal(weight_check(&good, "w", NULL), 0);
    for (size_t i = 0; i < COUNT(bad); i++) {
        clm_error err = {0};

        CHECK(weight_check(&bad[i].w, "layers.0.w", &err) == -1, "case %zu is taken", i);
        CHECK(strstr(err.message, "layers.0.w") && strstr(err.message, bad[i].says), "case %zu: %s",
              i, err.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_mlx),
        cmocka_unit_test(test_check),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
