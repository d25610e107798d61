/* device/cpu/matmul_neon.h: what the matrix kernels for NEON share. */
#ifndef DEVICE_CPU_MATMUL_NEON_H
#define DEVICE_CPU_MATMUL_NEON_H

#include <arm_neon.h>
#include <string.h>

#include "base/number.h"
#include "device/cpu/inline.h"
#include "device/cpu/matmul_kernels.h"

extern const struct cpu_product neon_product_f32; /* any format, exact */
extern const struct cpu_product neon_product_i8;  /* affine, mxfp4, nvfp4 */

/* The scale (or bias) of value k of row o. */
static inline float neon_scale(const struct weight *w, const void *scales, int o, int k)
{
    size_t at = (size_t)o * (size_t)(w->n_in / w->group_size) + (size_t)(k / w->group_size);
    const uint8_t *p = scales;

    if (w->format == WEIGHT_NVFP4)
        return f8_e4m3_to_f32(p[at]);
    if (w->format != WEIGHT_AFFINE)
        return e8m0_to_f32(p[at]);
    if (w->scale_type == DTYPE_F32)
        return bits_f32(load_le32(p + 4 * at));
    return w->scale_type == DTYPE_F16 ? f16_to_f32(load_le16(p + 2 * at))
                                      : bf16_to_f32(load_le16(p + 2 * at));
}

/* Value k of row o, a multiple of 8. */
static inline const uint8_t *neon_data(const struct weight *w, int o, int k)
{
    size_t row = weight_row_bytes(w);
    int bits = w->format == WEIGHT_F32 ? 32 : w->format <= WEIGHT_BF16 ? 16 : w->bits;

    return (const uint8_t *)w->data + (size_t)o * row + (size_t)(k / 8) * (size_t)bits;
}

#endif
