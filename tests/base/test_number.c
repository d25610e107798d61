#include <float.h>
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "base/memory.h"
#include "base/number.h"

#include "testing.h"

/* The value of a small float from its fields, by the definition of such formats. */
static double value_of(unsigned h, int exponent_bits, int mantissa_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = (int)(h >> mantissa_bits) & ((1 << exponent_bits) - 1);
    double fraction = ldexp(h & ((1u << mantissa_bits) - 1), -mantissa_bits);
    double magnitude = exponent ? ldexp(1 + fraction, exponent - bias) : ldexp(fraction, 1 - bias);

    return h >> (exponent_bits + mantissa_bits) & 1 ? -magnitude : magnitude;
}

static bool same(float a, float b)
{
    return f32_bits(a) == f32_bits(b) || (isnan(a) && isnan(b));
}

/* What a 16-bit float with these fields says, with IEEE infinities and NaNs. */
static float expected_ieee(unsigned h, int exponent_bits, int mantissa_bits)
{
    unsigned top = (1u << exponent_bits) - 1;
    unsigned mantissa = h & ((1u << mantissa_bits) - 1);

    if ((h >> mantissa_bits & top) != top)
        return (float)value_of(h, exponent_bits, mantissa_bits);
    if (mantissa)
        return NAN;
    return h >> (exponent_bits + mantissa_bits) & 1 ? -INFINITY : INFINITY;
}

static void test_to_f32(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x10000; h++) {
        CHECK(same(f16_to_f32((uint16_t)h), expected_ieee(h, 5, 10)), "f16 %04x", h);
        CHECK(same(bf16_to_f32((uint16_t)h), expected_ieee(h, 8, 7)), "bf16 %04x", h);
    }
    for (unsigned h = 0; h < 0x100; h++) {
        float e4m3 = (h & 0x7F) == 0x7F ? NAN : (float)value_of(h, 4, 3);

        CHECK(same(f8_e4m3_to_f32((uint8_t)h), e4m3), "e4m3 %02x", h);
        CHECK(same(f8_e5m2_to_f32((uint8_t)h), expected_ieee(h, 5, 2)), "e5m2 %02x", h);
        CHECK(same(e8m0_to_f32((uint8_t)h), h == 255 ? NAN : (float)ldexp(1, (int)h - 127)),
              "e8m0 %02x", h);
    }
    for (unsigned h = 0; h < 16; h++)
        CHECK(same(f4_e2m1_to_f32(h), (float)value_of(h, 2, 1)), "e2m1 %x", h);
}

/* Known constants, so that a shared mistake of code and formula would show. */
static void test_landmarks(void **state)
{
    (void)state;
    CHECK(f16_to_f32(0x3C00) == 1 && f16_to_f32(0x7BFF) == 65504, "f16");
    CHECK(f16_to_f32(0x0001) == 0x1p-24f && f16_to_f32(0x3555) == 0.333251953125f, "f16");
    CHECK(bf16_to_f32(0x3F80) == 1 && bf16_to_f32(0x4049) == 3.140625f, "bf16");
    CHECK(f8_e4m3_to_f32(0x7E) == 448 && f8_e4m3_to_f32(0x38) == 1, "e4m3");
    CHECK(f8_e5m2_to_f32(0x7B) == 57344 && f8_e5m2_to_f32(0x3C) == 1, "e5m2");
    CHECK(f4_e2m1_to_f32(7) == 6 && f4_e2m1_to_f32(0xF) == -6, "e2m1");
    CHECK(e8m0_to_f32(127) == 1 && e8m0_to_f32(0) == 0x1p-127f, "e8m0");
}

static void test_back_and_forth(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x10000; h++) {
        float f16 = f16_to_f32((uint16_t)h), bf16 = bf16_to_f32((uint16_t)h);

        CHECK(isnan(f16) ? isnan(f16_to_f32(f32_to_f16(f16))) : f32_to_f16(f16) == h, "f16 %04x",
              h);
        CHECK(isnan(bf16) ? isnan(bf16_to_f32(f32_to_bf16(bf16))) : f32_to_bf16(bf16) == h,
              "bf16 %04x", h);
    }
}

/*
 * Between two neighbours h and h + 1 everything below the middle goes to h, all above to h + 1,
 * and the middle to the even one. The conversion being monotonic between the points looked at, this
 * is all of it.
 */
static void check_neighbours(const char *name, uint16_t (*round)(float), float (*widen)(uint16_t),
                             uint16_t infinity, double past_largest)
{
    for (uint16_t h = 0; h < infinity; h++) {
        uint16_t up = (uint16_t)(h + 1);
        double high = up == infinity ? past_largest : (double)widen(up);
        float middle = (float)(((double)widen(h) + high) / 2);

        CHECK(round(middle) == (h & 1 ? up : h), "%s: middle above %04x", name, h);
        CHECK(round(-middle) == ((h & 1 ? up : h) | 0x8000), "%s: middle below -%04x", name, h);
        CHECK(round(nextafterf(middle, 0)) == h, "%s: under the middle above %04x", name, h);
        CHECK(round(nextafterf(middle, INFINITY)) == up, "%s: over the middle above %04x", name, h);
    }
    CHECK(round(INFINITY) == infinity && round(-INFINITY) == (infinity | 0x8000), "%s", name);
    CHECK(round(FLT_MAX) == infinity, "%s: FLT_MAX", name);
}

static void test_rounding(void **state)
{
    (void)state;
    check_neighbours("f16", f32_to_f16, f16_to_f32, 0x7C00, 65536);
    check_neighbours("bf16", f32_to_bf16, bf16_to_f32, 0x7F80, 0x1p128);
}

/* All over f32: the result is the multiple of the step at that size that nearbyint chooses. */
static void test_rounding_everywhere(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 2039) {
        float f = bits_f32((uint32_t)bits);
        int exponent = isnormal(f) ? ilogbf(f) : -200;
        double step = ldexp(1, (exponent < -14 ? -14 : exponent) - 10);
        double want = nearbyint((double)f / step) * step;
        float got = f16_to_f32(f32_to_f16(f));

        if (isnan(f))
            CHECK(isnan(got), "%08x", (unsigned)bits);
        else if (fabs(want) > 65504)
            CHECK(got == copysignf(INFINITY, f), "%08x", (unsigned)bits);
        else
            CHECK(same(got, (float)want), "%08x: %g, not %g", (unsigned)bits, (double)got, want);
    }
}

static void test_nan_stays(void **state)
{
    (void)state;
    for (uint32_t mantissa = 1; mantissa < 1u << 23; mantissa = mantissa * 2 + 1)
        for (uint32_t sign = 0; sign < 2; sign++) {
            float nan = bits_f32(sign << 31 | 0x7F800000u | mantissa);

            CHECK(isnan(f16_to_f32(f32_to_f16(nan))), "%x", mantissa);
            CHECK(isnan(bf16_to_f32(f32_to_bf16(nan))), "%x", mantissa);
            CHECK(f32_to_f16(nan) >> 15 == sign, "the sign of %x", mantissa);
        }
}

static void test_little_endian(void **state)
{
    static const uint8_t bytes[] = {0xFF, 0x01, 0x82, 0x03, 0x84, 0x05, 0x86, 0x07, 0x88};
    uint8_t out[9] = {0};

    (void)state;
    assert_int_equal(load_le16(bytes + 1), 0x8201);
    assert_int_equal(load_le32(bytes + 1), 0x84038201u);
    CHECK(load_le64(bytes + 1) == 0x8807860584038201u, "load_le64");
    store_le64(out + 1, 0x8807860584038201u);
    assert_memory_equal(out + 1, bytes + 1, 8);
    assert_int_equal(out[0], 0);
}

static void test_dtype_names(void **state)
{
    (void)state;
    for (int i = 0; i < DTYPE_COUNT; i++) {
        const char *name = dtype_name((enum dtype)i);
        size_t size = dtype_size((enum dtype)i);
        char longer[32];

        CHECK(name && dtype_from_name(name, strlen(name)) == i, "%s", name);
        CHECK(size == 1 || size == 2 || size == 4 || size == 8, "%s: %zu bytes", name, size);
        snprintf(longer, sizeof longer, "%sX", name);
        CHECK(dtype_from_name(longer, strlen(longer)) == -1, "%s", longer);
        CHECK(dtype_from_name(longer, strlen(name)) == i, "%s without the X", longer);
    }
    assert_int_equal(dtype_from_name("", 0), -1);
    assert_int_equal(dtype_from_name("f32", 3), -1);
    assert_int_equal(dtype_from_name("BF16", 4), DTYPE_BF16);
}

/* One number of each type, at an odd address. */
static void test_dtype_to_f32(void **state)
{
    static const struct {
        enum dtype type;
        uint8_t bytes[8];
        float value;
    } cases[] = {
        {DTYPE_F32, {0, 0, 0xC0, 0xBF}, -1.5f},
        {DTYPE_F16, {0, 0xC2}, -3},
        {DTYPE_BF16, {0x80, 0x3F}, 1},
        {DTYPE_F64, {0, 0, 0, 0, 0, 0, 0x04, 0xC0}, -2.5f},
        {DTYPE_F8_E4M3, {0xC0}, -2},
        {DTYPE_F8_E5M2, {0xC0}, -2},
        {DTYPE_F8_E8M0, {130}, 8},
        {DTYPE_I8, {0xFF}, -1},
        {DTYPE_U8, {0xFF}, 255},
        {DTYPE_I16, {0xFE, 0xFF}, -2},
        {DTYPE_U16, {0xFE, 0xFF}, 65534},
        {DTYPE_I32, {0xFD, 0xFF, 0xFF, 0xFF}, -3},
        {DTYPE_U32, {0, 0, 0, 0x80}, 2147483648.0f},
        {DTYPE_I64, {0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, -4},
        {DTYPE_U64, {0, 0, 0, 0, 0, 0, 0, 0x80}, 9223372036854775808.0f},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t size = dtype_size(cases[i].type);
        uint8_t data[1 + 3 * 8];
        float out[4] = {0, 0, 0, 42};

        for (size_t k = 0; k < 3; k++)
            memcpy(data + 1 + k * size, cases[i].bytes, size);
        CHECK(dtype_to_f32(out, data + 1, cases[i].type, 3), "%s", dtype_name(cases[i].type));
        for (int k = 0; k < 3; k++)
            CHECK(out[k] == cases[i].value, "%s: %g", dtype_name(cases[i].type), (double)out[k]);
        CHECK(out[3] == 42, "%s: wrote past the end", dtype_name(cases[i].type));
    }
    CHECK(!dtype_to_f32(NULL, NULL, DTYPE_BOOL, 0), "truth values are no numbers");
    CHECK(!dtype_to_f32(NULL, NULL, DTYPE_COUNT, 0), "no type");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_to_f32),
        cmocka_unit_test(test_landmarks),
        cmocka_unit_test(test_back_and_forth),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_rounding_everywhere),
        cmocka_unit_test(test_nan_stays),
        cmocka_unit_test(test_little_endian),
        cmocka_unit_test(test_dtype_names),
        cmocka_unit_test(test_dtype_to_f32),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
