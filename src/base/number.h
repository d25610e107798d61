/* base/number.h: 16- and 8-bit floats to f32 and back; little-endian loads. */
#ifndef BASE_NUMBER_H
#define BASE_NUMBER_H

#include <stdint.h>
#include <string.h>

/* Written as one and read as the other: what memcpy reads sanitizers would keep in memory. */
union bits_of_f32 {
    uint32_t bits;
    float f;
};

static inline float bits_f32(uint32_t bits)
{
    union bits_of_f32 u;

    u.bits = bits;
    return u.f;
}

static inline uint32_t f32_bits(float f)
{
    union bits_of_f32 u;

    u.f = f;
    return u.bits;
}

static inline float bf16_to_f32(uint16_t h)
{
    return bits_f32((uint32_t)h << 16);
}

/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t f32_to_bf16(float f)
{
    uint32_t bits = f32_bits(f);

    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);    /* nearest even; overflow gives infinity */
float f8_e4m3_to_f32(uint8_t h); /* OCP FP8: no infinities, 0x7F and 0xFF are NaN */
float f8_e5m2_to_f32(uint8_t h);
float f4_e2m1_to_f32(unsigned h); /* OCP MX: 0 0.5 1 1.5 2 3 4 6, bit 3 is the sign */
float e8m0_to_f32(uint8_t h);     /* 2^(h - 127), 255 is NaN */

static inline uint16_t load_le16(const void *p)
{
    const uint8_t *b = p;

    return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t load_le32(const void *p)
{
    return load_le16(p) | (uint32_t)load_le16((const uint8_t *)p + 2) << 16;
}

static inline uint64_t load_le64(const void *p)
{
    return load_le32(p) | (uint64_t)load_le32((const uint8_t *)p + 4) << 32;
}

static inline void store_le64(void *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        ((uint8_t *)p)[i] = (uint8_t)(v >> 8 * i);
}

#endif
