/* device/weight.h: matrices as checkpoints store them: sizes, slices, and the value of one element.
 *
 *     format   data, per row                                   scales (and biases), per group
 *     F32 ..   n_in numbers                                    -
 *     AFFINE   n_in * bits / 32 little-endian u32 words:       scale_type; w = q * scale + bias
 *              bits 2, 4, 8: 32 / bits a word, low bits first;
 *              bits 3, 5, 6: values lie end to end in a
 *              little-endian stream of bits, first value in
 *              the lowest bits
 *     MXFP4    two e2m1 a byte, the first in the low nibble    e8m0; w = e2m1(q) * 2^(s - 127)
 *     NVFP4    as MXFP4, groups of 16                          e4m3; w = e2m1(q) * e4m3(s)
 *     MXFP8    one e4m3 a byte                                 e8m0
 *     FP8      as MXFP8, blocks of scale_rows x group_size     f32; w = bf16(e4m3(q) * s), as
 *                                                              those have it that dequantise
 *
 * MLX quantisation: mlx.core.quantize; OCP Microscaling Formats (MX) v1.0.
 */
#ifndef DEVICE_WEIGHT_H
#define DEVICE_WEIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"

/* Bytes of a row of data, and of a row of scales. */
size_t weight_row_bytes(const struct weight *w);
size_t weight_scale_row_bytes(const struct weight *w);

/* Bytes of the whole matrix, scales and biases included. */
size_t weight_bytes(const struct weight *w);

/* Whether data are bytes of e4m3. */
static inline bool weight_is_e4m3(const struct weight *w)
{
    return w->format == WEIGHT_MXFP8 || w->format == WEIGHT_FP8;
}

/* The scales of row o of a WEIGHT_FP8: [n_in / group_size, rounded up] f32, any alignment. */
static inline const uint8_t *weight_fp8_scales(const struct weight *w, int o)
{
    int64_t row = ((int64_t)w->scale_row + o) / w->scale_rows;
    int64_t groups = ((int64_t)w->n_in + w->group_size - 1) / w->group_size;

    return (const uint8_t *)w->scales + row * groups * 4;
}

/* Rows [first, first + n) as a matrix of their own, sharing memory. */
struct weight weight_rows(const struct weight *w, int first, int n);

/* Rows of scales: n_out, but for WEIGHT_FP8. */
size_t weight_scale_rows(const struct weight *w);

/* Columns [first, first + n), whole groups of them, without their numbers: where these begin in the
 * first row of data, scales and biases; rows lie as far from each other as those of w. */
struct weight weight_columns(const struct weight *w, int first, int n);

/* Row o as f32, by the definition above, each value rounded to f32 as q * scale + bias is (two
 * roundings): what every other kernel is measured against. */
void weight_row_f32(float *out, const struct weight *w, int o);

/* Values [k, k + n) of row o, likewise; k is a multiple of 128 or of the group size, whichever is
 * more; of WEIGHT_FP8 any. */
void weight_piece_f32(float *out, const struct weight *w, int o, int k, int n);

/* Sets the format of dense numbers of a type; false: it is none of theirs. */
bool weight_set_dense(struct weight *w, enum dtype type);

const char *weight_format_name(enum weight_format format);

/* -1 with *err unless the fields are of one of the formats: known bits and groups, n_in fitting. */
int weight_check(const struct weight *w, const char *name, clm_error *err);

#endif
