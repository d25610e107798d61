/* device/cuda/scan.cu: recurrent mixers whose channels are alone: convolutions, pooling, scans.
 *
 * What needs no order among tokens takes a thread for each number; scans take one for each channel
 * of a sequence, or a few, which goes through its tokens. */
#include "device/cuda/math.cuh"
#include "device/cuda/state.cuh"

enum { THREADS = 128 };

/* Input number t of a sequence's new ones, or -t from the end of the kept old ones, which lie at
 * from [kept, channels]; 0 where there is none. */
static __device__ __forceinline__ float input_at(const struct rows &x,
                                                 const struct state_sequence &s, const float *from,
                                                 int kept, int channel, int t)
{
    if (t >= 0)
        return row_at(x, s.row + t)[channel];
    return from ? from[(int64_t)(kept + t) * x.cols + channel] : 0;
}

/* The last inputs, by which the next step begins. */
static __global__ void keep_kernel(struct cuda_states states, struct rows x, int kept)
{
    int channel = blockIdx.x * THREADS + threadIdx.x;

    cuda_begin();
    for (int i = blockIdx.y; channel < x.cols && i < states.n; i += gridDim.y) {
        const struct state_sequence s = states.sequences[i];
        const float *from = state_from(s, states.offset);
        float *to = state_to(s, states.offset);

        for (int j = 0; j < kept && s.n_rows > 0; j++)
            to[(int64_t)j * x.cols + channel] =
                input_at(x, s, from, kept, channel, s.n_rows + j - kept);
    }
}

static void keep_inputs(struct cuda_device *c, const struct cuda_states &states, const tensor *x,
                        int kept)
{
    dim3 grid(blocks_for(x->cols, THREADS), grid_rows(states.n));

    if (kept > 0)
        cuda_launch(c, keep_kernel, shape_of(grid, dim3(THREADS), 0), states, rows_of(x), kept);
}

/* --- Convolution --- */

static __global__ void conv_kernel(struct rows y, struct rows x, struct cuda_states states,
                                   const float *w, const float *bias, int width,
                                   enum activation act)
{
    int channel = blockIdx.x * THREADS + threadIdx.x;

    cuda_begin();
    for (int row = blockIdx.y; channel < x.cols && row < y.n; row += gridDim.y) {
        const struct state_sequence s = states.sequences[states.of_row[row]];
        const float *from = state_from(s, states.offset);
        float sum = bias ? bias[channel] : 0;

        for (int j = 0; j < width; j++)
            sum += w[(int64_t)channel * width + j] *
                   input_at(x, s, from, width - 1, channel, row - s.row - (width - 1) + j);
        row_at(y, row)[channel] = activation_of(sum, act);
    }
}

/* The state first, since y may be x; where a row's inputs are other rows' places, x is set aside.
 */
void cuda_causal_conv(device *d, tensor *y, const tensor *x, const float *w, const float *bias,
                      int width, enum activation act, const struct state_batch *batch,
                      size_t offset)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_states states = cuda_states_of(c, batch, offset);
    dim3 grid(blocks_for(x->cols, THREADS), grid_rows(batch->n_rows));
    tensor aside = *x;

    keep_inputs(c, states, x, width - 1);
    if (y->data == x->data && batch->n_rows > 1) {
        aside.stride = x->cols;
        aside.data = cuda_scratch(c, (size_t)batch->n_rows * (size_t)x->cols * sizeof(float));
        cuda_copy_rows(d, &aside, x);
    }
    cuda_launch(c, conv_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(y), rows_of(&aside),
                states, w, bias, width, act);
}

/* --- Pooling --- */

/* The softmax of width gates over their inputs; those before the sequence's first token count as
 * nothing. */
static __device__ float pooled(const struct rows &x, const struct rows &gate,
                               const struct state_sequence &s, const float *from, int width,
                               int channel, int t)
{
    int kept = width - 1, first = from ? t - kept : max(t - kept, 0);
    const float *gates = from ? from + (int64_t)kept * x.cols : NULL;
    float most = -INFINITY, sum = 0, y = 0;

    for (int i = first; i <= t; i++)
        most = fmaxf(most, input_at(gate, s, gates, kept, channel, i));
    for (int i = first; i <= t; i++) {
        float weight = expf(input_at(gate, s, gates, kept, channel, i) - most);

        sum += weight;
        y += weight * input_at(x, s, from, kept, channel, i);
    }
    return y / sum;
}

static __global__ void pool_kernel(struct rows y, struct rows x, struct rows gate,
                                   const int32_t *positions, struct cuda_states states, int width)
{
    int channel = blockIdx.x * THREADS + threadIdx.x;

    cuda_begin();
    for (int row = blockIdx.y; channel < x.cols && row < y.n; row += gridDim.y) {
        const struct state_sequence s = states.sequences[states.of_row[row]];
        bool whole = (positions[row] + 1) % width == 0;

        row_at(y, row)[channel] =
            whole ? pooled(x, gate, s, state_from(s, states.offset), width, channel, row - s.row)
                  : 0;
    }
}

void cuda_causal_pool(device *d, tensor *y, const tensor *x, const tensor *gate,
                      const int32_t *positions, int width, const struct state_batch *batch,
                      size_t offset)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_states states = cuda_states_of(c, batch, offset), gates = states;
    dim3 grid(blocks_for(x->cols, THREADS), grid_rows(batch->n_rows));

    gates.offset += (size_t)(width - 1) * (size_t)x->cols * sizeof(float);
    keep_inputs(c, states, x, width - 1);
    keep_inputs(c, gates, gate, width - 1);
    cuda_launch(c, pool_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(y), rows_of(x),
                rows_of(gate), positions, states, width);
}

/* --- Scans --- */

enum { LANES = 16, CHANNELS = THREADS / LANES };

/* LANES threads share the N numbers of a channel's state, which lie in place. */
static __global__ void selective_kernel(struct rows y, struct rows x, struct rows dt, struct rows B,
                                        struct rows C, const float *a, const float *skip,
                                        struct cuda_states states)
{
    int lane = threadIdx.x, channel = blockIdx.x * CHANNELS + threadIdx.y, n = B.cols;
    bool inside = channel < x.cols;
    int64_t at = (int64_t)(inside ? channel : 0) * n;

    cuda_begin();
    for (int i = blockIdx.y; i < states.n; i += gridDim.y) {
        const struct state_sequence s = states.sequences[i];
        const float *from = state_from(s, states.offset);
        float *to = s.n_rows > 0 ? state_to(s, states.offset) + at : NULL;

        for (int j = lane; j < n && inside && to; j += LANES)
            to[j] = from ? from[at + j] : 0;
        for (int row = s.row; row < s.row + s.n_rows; row++) {
            float step = inside ? row_at(dt, row)[channel] : 0, sum = 0;
            float input = inside ? row_at(x, row)[channel] : 0;

            for (int j = lane; j < n && inside; j += LANES) {
                float h = expf(step * a[at + j]) * to[j] + step * input * row_at(B, row)[j];

                to[j] = h;
                sum += h * row_at(C, row)[j];
            }
            for (int half = LANES / 2; half; half /= 2)
                sum += __shfl_xor_sync(0xFFFFFFFF, sum, half);
            if (lane == 0 && inside)
                row_at(y, row)[channel] = sum + (skip ? skip[channel] * input : 0);
        }
    }
}

void cuda_selective_scan(device *d, tensor *y, const tensor *x, const tensor *dt, const tensor *B,
                         const tensor *C, const float *a, const float *skip,
                         const struct state_batch *batch, size_t offset)
{
    struct cuda_device *c = cuda_device_of(d);
    dim3 grid(blocks_for(x->cols, CHANNELS), grid_rows(batch->n_sequences));

    cuda_launch(c, selective_kernel, shape_of(grid, dim3(LANES, CHANNELS), 0), rows_of(y),
                rows_of(x), rows_of(dt), rows_of(B), rows_of(C), a, skip,
                cuda_states_of(c, batch, offset));
}

static __global__ void gated_kernel(struct rows y, struct rows x, struct rows log_a,
                                    struct cuda_states states)
{
    int channel = blockIdx.x * THREADS + threadIdx.x;

    cuda_begin();
    for (int i = blockIdx.y; channel < x.cols && i < states.n; i += gridDim.y) {
        const struct state_sequence s = states.sequences[i];
        const float *from = state_from(s, states.offset);
        float h = from ? from[channel] : 0;

        for (int t = 0; t < s.n_rows; t++) {
            float input = row_at(x, s.row + t)[channel], log = row_at(log_a, s.row + t)[channel];

            h = !from && t == 0 ? input : expf(log) * h + sqrtf(-expm1f(2 * log)) * input;
            row_at(y, s.row + t)[channel] = h;
        }
        if (s.n_rows > 0)
            state_to(s, states.offset)[channel] = h;
    }
}

void cuda_gated_scan(device *d, tensor *y, const tensor *x, const tensor *log_a,
                     const struct state_batch *batch, size_t offset)
{
    struct cuda_device *c = cuda_device_of(d);
    dim3 grid(blocks_for(x->cols, THREADS), grid_rows(batch->n_sequences));

    cuda_launch(c, gated_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(y), rows_of(x),
                rows_of(log_a), cuda_states_of(c, batch, offset));
}

/* --- Numbers around them --- */

static __global__ void time_step_kernel(struct rows dt, struct rows decay, const float *bias,
                                        const float *a, int n, float low, float high)
{
    int i = blockIdx.x * THREADS + threadIdx.x;

    cuda_begin();
    for (int t = blockIdx.y; i < dt.cols && t < dt.n; t += gridDim.y) {
        float step = softplus(row_at(dt, t)[i] + (bias ? bias[i] : 0));

        step = step < low ? low : step > high ? high : step;
        row_at(dt, t)[i] = step;
        row_at(decay, t)[i] = activation_of(step * a[i / n], ACT_EXP);
    }
}

void cuda_time_step(device *d, tensor *dt, tensor *decay, const float *bias, const float *a, int n,
                    float low, float high)
{
    dim3 grid(blocks_for(dt->cols, THREADS), grid_rows(dt->rows));

    cuda_launch(cuda_device_of(d), time_step_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(dt),
                rows_of(decay), bias, a, n, low, high);
}

static __device__ float log_sigmoid(float x)
{
    return fminf(x, 0) - log1pf(expf(-fabsf(x)));
}

static __global__ void gates_kernel(struct rows y, struct rows in, struct rows forget,
                                    struct cuda_states states)
{
    int h = blockIdx.x * THREADS + threadIdx.x, n = in.cols;

    cuda_begin();
    for (int q = blockIdx.y; h < n && q < states.n; q += gridDim.y) {
        const struct state_sequence s = states.sequences[q];
        const float *from = state_from(s, states.offset);
        float m = from ? from[h] : 0;

        for (int row = s.row; row < s.row + s.n_rows; row++) {
            float i = row_at(in, row)[h], kept = log_sigmoid(row_at(forget, row)[h]) + m;
            float *out = row_at(y, row) + h;

            m = fmaxf(kept, i);
            out[0] = expf(kept - m);
            out[n] = expf(i - m);
            out[2 * (int64_t)n] = expf(-m);
        }
        if (s.n_rows > 0)
            state_to(s, states.offset)[h] = m;
    }
}

void cuda_exponential_gates(device *d, tensor *y, const tensor *i, const tensor *f,
                            const struct state_batch *batch, size_t offset)
{
    struct cuda_device *c = cuda_device_of(d);
    dim3 grid(blocks_for(i->cols, THREADS), grid_rows(batch->n_sequences));

    cuda_launch(c, gates_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(y), rows_of(i),
                rows_of(f), cuda_states_of(c, batch, offset));
}
