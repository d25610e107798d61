#include "device/affine.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* number = code * step + bias */
struct line {
    float step, bias;
};

static struct line line_through(const float *x, int n, float most)
{
    float lo = x[0], hi = x[0], edge, step, whole;

    for (int i = 1; i < n; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    step = fmaxf((hi - lo) / most, 1e-7f);
    if (fabsf(lo) > fabsf(hi)) {
        edge = lo;
    } else {
        edge = hi;
        step = -step;
    }
    whole = rintf(edge / step);
    if (whole == 0)
        return (struct line){step, 0};
    return (struct line){edge / whole, edge};
}

void affine_quantise(void *codes, float *scales, float *biases, const float *x, int n, int group,
                     int bits)
{
    uint8_t *bytes = codes;
    float most = bits == 4 ? 15 : 255;

    memset(bytes, 0, ((size_t)n * (size_t)bits + 31) / 32 * 4);
    for (int begin = 0; begin < n; begin += group) {
        int end = n - begin < group ? n : begin + group;
        struct line line = line_through(x + begin, end - begin, most);

        scales[begin / group] = line.step;
        biases[begin / group] = line.bias;
        for (int i = begin; i < end; i++) {
            int code = (int)fminf(fmaxf(rintf((x[i] - line.bias) / line.step), 0), most);

            bytes[i * bits / 8] |= (uint8_t)(bits == 4 ? code << i % 2 * 4 : code);
        }
    }
}

void affine_dequantise(float *y, const void *codes, const float *scales, const float *biases,
                       int n_rows, int dim, int group, int bits)
{
    const uint8_t *bytes = codes;
    int n_groups = (dim - 1) / group + 1, row_bytes = (dim * bits + 31) / 32 * 4;

    for (int r = 0; r < n_rows; r++, bytes += row_bytes, y += dim)
        for (int i = 0; i < dim; i++) {
            int code = bits == 4 ? bytes[i / 2] >> i % 2 * 4 & 15 : bytes[i];
            int at = r * n_groups + i / group;

            y[i] = (float)code * scales[at] + biases[at];
        }
}
