#include "base/number.h"

#include <math.h>

/*
 * The formats differ in how many bits they have for exponent and mantissa, and in what the highest
 * exponent means; all but E8M0 have a sign in front and subnormals where the exponent is 0.
 *
 *            exponent bits, bias   mantissa bits   highest exponent
 *   f16      5, 15                 10              infinity, NaN
 *   E5M2     5, 15                 2               infinity, NaN
 *   E4M3     4, 7                  3               numbers, but all mantissa bits set is NaN
 *   E2M1     2, 1                  1               numbers
 */

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t rest = h & 0x7FFF;

    if (rest >= 0x7C00) /* infinity, NaN */
        return bits_f32(sign | 0x7F800000u | (rest & 0x3FF) << 13);
    if (rest >= 0x0400)
        return bits_f32(sign | ((rest << 13) + ((127u - 15u) << 23)));
    return bits_f32(sign | f32_bits((float)rest * 0x1p-24f)); /* subnormal: exact */
}

uint16_t f32_to_f16(float f)
{
    uint32_t bits = f32_bits(f);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t rest = bits & 0x7FFFFFFFu;

    if (rest > 0x7F800000u) /* NaN: quiet, with the upper bits of what it carries */
        return (uint16_t)(sign | 0x7E00 | (rest >> 13 & 0x1FF));
    if (rest >= 0x477FF000u) /* 65520 and above: halfway past the largest number, to even */
        return (uint16_t)(sign | 0x7C00);
    if (rest < 0x38800000u) {
        /* Below 2^-14, where steps are 2^-24: adding 0.5, whose step is 2^-24, rounds to them. */
        float shifted = bits_f32(rest) + 0.5f;

        return (uint16_t)(sign | (f32_bits(shifted) - f32_bits(0.5f)));
    }
    rest += 0xFFF + (rest >> 13 & 1); /* a carry into the exponent is right */
    return (uint16_t)(sign | ((rest - ((127u - 15u) << 23)) >> 13));
}

float f8_e5m2_to_f32(uint8_t h)
{
    return f16_to_f32((uint16_t)(h << 8)); /* f16 with a shorter mantissa */
}

float f8_e4m3_to_f32(uint8_t h)
{
    uint32_t sign = (uint32_t)(h & 0x80) << 24;
    uint32_t rest = h & 0x7F;

    if (rest == 0x7F)
        return bits_f32(sign | 0x7FC00000u);
    if (rest >= 0x08)
        return bits_f32(sign | ((rest << 20) + ((127u - 7u) << 23)));
    return bits_f32(sign | f32_bits((float)rest * 0x1p-9f));
}

float f4_e2m1_to_f32(unsigned h)
{
    static const float values[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    float f = values[h & 7];

    return h & 8 ? -f : f;
}

float e8m0_to_f32(uint8_t h)
{
    if (h == 255)
        return NAN;
    if (h == 0)
        return 0x1p-127f;
    return bits_f32((uint32_t)h << 23);
}
