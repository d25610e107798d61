/* device/cuda/vector.cu: the operations that treat every number of a row alone.
 *
 * Each is a struct with what it needs and y = of(row, column, y, a), which map() runs for all
 * numbers of y, a thread each; a is another tensor's number at the same place, or y's own. */
#include "device/cuda/halves.h"
#include "device/cuda/math.cuh"
#include "device/cuda/numbers.cuh"
#include "device/cuda/rows.cuh"

enum { THREADS = 256 };

template <typename F>
static __global__ void __launch_bounds__(THREADS) map_kernel(struct rows y, struct rows a, F f)
{
    int i = blockIdx.x * THREADS + threadIdx.x;

    cuda_begin();
    for (int t = blockIdx.y; i < y.cols && t < y.n; t += gridDim.y)
        row_at(y, t)[i] = f.of(t, i, row_at(y, t)[i], row_at(a, t)[i]);
}

template <typename F> static void map(device *d, const tensor *y, const tensor *a, const F &f)
{
    dim3 grid(blocks_for(y->cols, THREADS), grid_rows(y->rows));

    cuda_launch(cuda_device_of(d), map_kernel<F>, shape_of(grid, dim3(THREADS), 0), rows_of(y),
                rows_of(a), f);
}

struct op_add {
    float scale;
    __device__ float of(int, int, float y, float x) const
    {
        return y + scale * x;
    }
};

void cuda_add(device *d, tensor *y, const tensor *x, float scale)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_addition a = {*y, *x, scale};

    if (cuda_product_add(c, &a) || cuda_combination_add(c, &a) || cuda_sum_add(c, &a))
        return;
    cuda_settle(c);
    c->waiting.addition = a;
    c->waiting.kind = CUDA_ADDITION;
}

void cuda_launch_addition(struct cuda_device *c, const struct cuda_addition *a)
{
    map(&c->base, &a->y, &a->x, op_add{a->scale});
}

struct op_scale {
    float scale;
    __device__ float of(int, int, float y, float) const
    {
        return y * scale;
    }
};

void cuda_scale(device *d, tensor *x, float scale)
{
    map(d, x, x, op_scale{scale});
}

/* w[i / n], one for all rows */
struct op_scale_groups {
    const float *w;
    int n;
    __device__ float of(int, int i, float y, float) const
    {
        return y * w[i / n];
    }
};

void cuda_scale_columns(device *d, tensor *x, const float *w)
{
    map(d, x, x, op_scale_groups{w, 1});
}

void cuda_scale_groups(device *d, tensor *x, const float *w, int n)
{
    map(d, x, x, op_scale_groups{w, n});
}

struct op_add_columns {
    const float *w;
    __device__ float of(int, int i, float y, float) const
    {
        return y + w[i];
    }
};

void cuda_add_columns(device *d, tensor *x, const float *w)
{
    map(d, x, x, op_add_columns{w});
}

struct op_scale_rows {
    struct rows w;
    __device__ float of(int t, int, float y, float) const
    {
        return y * row_at(w, t)[0];
    }
};

void cuda_scale_rows(device *d, tensor *x, const tensor *w)
{
    map(d, x, x, op_scale_rows{rows_of(w)});
}

struct op_round_to {
    const float *step;
    float low, high;
    __device__ float of(int, int, float y, float) const
    {
        return fminf(fmaxf(rintf(y / *step), low), high) * *step;
    }
};

void cuda_round_to(device *d, tensor *x, const float *step, float low, float high)
{
    map(d, x, x, op_round_to{step, low, high});
}

struct op_round_floats {
    enum dtype type;
    __device__ float of(int, int, float y, float) const
    {
        return type == DTYPE_F16 ? f16_number(f16_bits(y)) : bf16_number(bf16_bits(y));
    }
};

void cuda_round_floats(device *d, tensor *x, enum dtype type)
{
    map(d, x, x, op_round_floats{type});
}

struct op_clamp {
    float low, high;
    __device__ float of(int, int, float y, float) const
    {
        return y < low ? low : y > high ? high : y;
    }
};

void cuda_clamp(device *d, tensor *x, float low, float high)
{
    map(d, x, x, op_clamp{low, high});
}

struct op_fill {
    float value;
    __device__ float of(int, int, float, float) const
    {
        return value;
    }
};

void cuda_clear(device *d, tensor *x)
{
    map(d, x, x, op_fill{0});
}

void cuda_fill(device *d, tensor *x, float value)
{
    map(d, x, x, op_fill{value});
}

struct op_xielu {
    const float *alpha_p, *alpha_n, *beta, *eps;
    __device__ float of(int, int, float y, float) const
    {
        float b = *beta;

        return y > 0 ? softplus(*alpha_p) * y * y + b * y
                     : (expm1f(fminf(y, *eps)) - y) * (b + softplus(*alpha_n)) + b * y;
    }
};

void cuda_xielu(device *d, tensor *x, const float *const w[4])
{
    map(d, x, x, op_xielu{w[0], w[1], w[2], w[3]});
}

struct op_copy {
    __device__ float of(int, int, float, float x) const
    {
        return x;
    }
};

void cuda_copy_rows(device *d, tensor *y, const tensor *x)
{
    map(d, y, x, op_copy{});
}

struct op_temperature {
    const int32_t *positions;
    float beta, length;
    int offset;
    __device__ float of(int t, int, float y, float) const
    {
        float steps = floorf((float)((int64_t)positions[t] + offset) / length);

        return y * (1.0f + beta * logf(1.0f + steps));
    }
};

void cuda_temperature(device *d, tensor *x, const int32_t *positions, float beta, float length,
                      int offset)
{
    map(d, x, x, op_temperature{positions, beta, length, offset});
}

struct op_activate {
    enum activation act;
    __device__ float of(int, int, float, float x) const
    {
        return activation_of(x, act);
    }
};

void cuda_activate(device *d, tensor *y, const tensor *x, enum activation act)
{
    map(d, y, x, op_activate{act});
}

struct op_glu {
    struct rows up;
    enum activation act;
    __device__ float of(int t, int i, float, float gate) const
    {
        return glu_of(gate, row_at(up, t)[i], act);
    }
};

void cuda_glu(device *d, tensor *y, const tensor *gate, const tensor *up, enum activation act)
{
    if (!cuda_product_glu(cuda_device_of(d), y, gate, up, act) &&
        !cuda_halves_glu(cuda_device_of(d), y, gate, up, act))
        map(d, y, gate, op_glu{rows_of(up), act});
}

struct op_glu_alpha {
    struct rows up;
    float alpha, limit;
    __device__ float of(int t, int i, float, float gate) const
    {
        return clamped_glu(gate, row_at(up, t)[i], alpha, limit);
    }
};

void cuda_glu_alpha(device *d, tensor *y, const tensor *gate, const tensor *up, float alpha,
                    float limit)
{
    /* As ACT_SWIGLU_CLAMPED says it. */
    if (alpha != 1.702f || limit != 7.0f ||
        !cuda_product_glu(cuda_device_of(d), y, gate, up, ACT_SWIGLU_CLAMPED))
        map(d, y, gate, op_glu_alpha{rows_of(up), alpha, limit});
}

struct op_softcap {
    float cap;
    __device__ float of(int, int, float y, float) const
    {
        return cap * tanhf(y / cap);
    }
};

void cuda_softcap(device *d, tensor *x, float cap)
{
    map(d, x, x, op_softcap{cap});
}

struct op_divide_groups {
    struct rows by, least;
    int n;
    float eps;
    __device__ float of(int t, int i, float y, float) const
    {
        return y / (fmaxf(fabsf(row_at(by, t)[i / n]), row_at(least, t)[i / n]) + eps);
    }
};

void cuda_divide_groups(device *d, tensor *y, const tensor *by, const tensor *floor, int n,
                        float eps)
{
    map(d, y, y, op_divide_groups{rows_of(by), rows_of(floor), n, eps});
}

/* In the order of i, as the CPU adds them. */
struct op_mix_streams {
    struct rows x, coefs;
    int n;
    __device__ float of(int row, int column, float, float) const
    {
        int t = row % coefs.n, j = row / coefs.n;
        float sum = 0;

        for (int i = 0; i < n; i++)
            sum += row_at(coefs, t)[j * n + i] * row_at(x, (int64_t)i * coefs.n + t)[column];
        return sum;
    }
};

void cuda_mix_streams(device *d, tensor *y, const tensor *x, const tensor *coefs, int n)
{
    map(d, y, y, op_mix_streams{rows_of(x), rows_of(coefs), n});
}

struct op_gather_columns {
    struct rows x;
    const int32_t *order;
    __device__ float of(int t, int i, float, float) const
    {
        return row_at(x, t)[order[i]];
    }
};

void cuda_gather_columns(device *d, tensor *y, const tensor *x, const int32_t *order)
{
    map(d, y, y, op_gather_columns{rows_of(x), order});
}

/* Rows of numbers of any type, which have so many bytes. */
static __global__ void __launch_bounds__(THREADS)
    gather_kernel(char *y, int64_t y_step, const char *x, int64_t x_step, const int32_t *rows,
                  int n, int size)
{
    int i = blockIdx.x * THREADS + threadIdx.x;

    cuda_begin();
    for (int t = blockIdx.y; t < n && i < size; t += gridDim.y)
        y[t * y_step + i] = x[rows[t] * x_step + i];
}

/* The same for words of 4 bytes. */
static __global__ void __launch_bounds__(THREADS)
    gather_words_kernel(uint32_t *y, int64_t y_step, const uint32_t *x, int64_t x_step,
                        const int32_t *rows, int n, int size)
{
    int i = blockIdx.x * THREADS + threadIdx.x;

    cuda_begin();
    for (int t = blockIdx.y; t < n && i < size; t += gridDim.y)
        y[t * y_step + i] = x[rows[t] * x_step + i];
}

void cuda_gather_rows(device *d, tensor *y, const tensor *x, const int32_t *rows)
{
    struct cuda_device *c = cuda_device_of(d);
    int64_t size = (int64_t)dtype_size(x->type);
    bool words = size == 4;
    int n = (int)(y->cols * (words ? 1 : size));
    struct cuda_shape shape =
        shape_of(dim3(blocks_for(n, THREADS), grid_rows(y->rows)), dim3(THREADS), 0);

    if (words)
        cuda_launch(c, gather_words_kernel, shape, (uint32_t *)y->data, y->stride,
                    (const uint32_t *)x->data, x->stride, rows, y->rows, n);
    else
        cuda_launch(c, gather_kernel, shape, (char *)y->data, y->stride * size,
                    (const char *)x->data, x->stride * size, rows, y->rows, n);
}
