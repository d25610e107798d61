/* device/affine.h: numbers as codes of 4 or 8 bits in groups, MLX's way: number = code * scale +
 * bias. Codes lie as struct kv_layer has them. */
#ifndef DEVICE_AFFINE_H
#define DEVICE_AFFINE_H

/**
 * The codes of x [n], n >= 1, in groups of so many, a scale and a bias for each. With lo and hi the
 * least and the greatest number of a group and edge the one of the greater magnitude, hi on ties,
 * step = max((hi - lo) / (2^bits - 1), 1e-7), negative where the edge is hi; m = edge / step,
 * rounded; unless m is 0, step = edge / m and bias = edge, else bias = 0; code = (x - bias) / step,
 * rounded to even between two, held within [0, 2^bits). All in f32. As mlx.core.quantize.
 */
void affine_quantise(void *codes, float *scales, float *biases, const float *x, int n, int group,
                     int bits);

/* y [n_rows, dim] from codes, each row of them filled up to 4 bytes; scales and biases [n_rows,
 * groups]. */
void affine_dequantise(float *y, const void *codes, const float *scales, const float *biases,
                       int n_rows, int dim, int group, int bits);

#endif
