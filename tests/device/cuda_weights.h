/* tests/device/cuda_weights.h: random weights of any format, for both devices of a pair. */
#ifndef CUDA_WEIGHTS_H
#define CUDA_WEIGHTS_H

#include "cuda_pair.h"
#include "device/weight.h"

static inline void put_number(uint8_t *to, enum dtype type, float x)
{
    uint32_t bits;

    memcpy(&bits, &x, 4);
    if (type == DTYPE_F32)
        memcpy(to, &bits, 4);
    else if (type == DTYPE_BF16)
        memcpy(to, (uint8_t *)&bits + 2, 2);
    else
        memcpy(to,
               &(uint16_t){(uint16_t)((bits >> 16 & 0x8000) | ((bits >> 13 & 0x3FFFF) - 0x1C000))},
               2);
}

/* Random weights that keep the size of what they multiply, at *at of bytes, which may be NULL;
 * places for pointers. Halves are of magnitudes well above 2^-14. */
static inline struct weight make_weight(struct weight w, int n_out, int n_in, uint8_t *bytes,
                                        size_t *at)
{
    size_t n, n_groups;
    float size = 1.7f / sqrtf((float)n_in);
    enum dtype type = w.format == WEIGHT_F32   ? DTYPE_F32
                      : w.format == WEIGHT_F16 ? DTYPE_F16
                                               : DTYPE_BF16;

    w.n_out = n_out;
    w.n_in = n_in;
    n = (size_t)n_out * weight_row_bytes(&w);
    n_groups = (size_t)n_out * (w.group_size ? (size_t)(n_in / w.group_size) : 0);
    w.data = (void *)(uintptr_t)*at;
    if (bytes && !w.group_size)
        for (size_t i = 0, step = dtype_size(type); i < n; i += step) {
            float x = size * (0.1f + 0.9f * (float)random_below(1000) / 1000);

            put_number(bytes + *at + i, type, random_below(2) ? x : -x);
        }
    for (size_t i = 0; bytes && w.group_size && i < n; i++)
        bytes[*at + i] = (uint8_t)(random_below(256) & (w.format == WEIGHT_MXFP8 ? 0xbf : 0xff));
    *at += (n + 255) / 256 * 256;
    for (int biases = 0; biases < 2 && n_groups; biases++) {
        size_t step = w.format == WEIGHT_AFFINE ? dtype_size(w.scale_type) : 1;

        *(biases ? &w.biases : &w.scales) = (void *)(uintptr_t)*at;
        for (size_t i = 0; bytes && i < n_groups; i++) {
            float scale = 2 * size / (float)(1 << w.bits), middle = (float)(1 << (w.bits - 1));

            if (w.format == WEIGHT_AFFINE)
                put_number(bytes + *at + i * step, w.scale_type, biases ? -scale * middle : scale);
            else
                bytes[*at + i] = (uint8_t)(121 + random_below(2));
        }
        *at += (n_groups * step + 255) / 256 * 256;
    }
    return w;
}

/* From its places in bytes to where these lie. */
static inline void move_weight(struct weight *w, uint8_t *base)
{
    w->data = base + (uintptr_t)w->data;
    w->scales = base + (uintptr_t)w->scales;
    w->biases = base + (uintptr_t)w->biases;
}

#endif
