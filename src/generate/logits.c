#include "generate/logits.h"

#include <float.h>
#include <math.h>

#include "base/number.h"
#include "generate/vector.h"

#define BLOCK 256
#define LANES 16

/* lanes[l] = the larger of lanes[l] and x[l]. */
static inline void lanes_max(float *restrict lanes, const float *x, int n)
{
    for (int l = 0; l < n; l++)
        lanes[l] = x[l] > lanes[l] ? x[l] : lanes[l];
}

VECTOR_CLONES static float largest(const float *x, int n)
{
    float lanes[2 * LANES], max = x[0];
    int i = 0;

    for (int l = 0; l < 2 * LANES; l++)
        lanes[l] = max;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        lanes_max(lanes, x + i, 2 * LANES);
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    lanes_max(lanes, lanes + LANES, LANES);
    lanes_max(lanes, lanes + LANES / 2, LANES / 2);
    for (int l = 0; l < LANES / 2; l++)
        max = lanes[l] > max ? lanes[l] : max;
    return max;
}

float logits_max(const float *x, int n)
{
    return largest(x, n);
}

/* Is there a NaN or +inf? */
VECTOR_CLONES static bool has_bad(const float *x, int n)
{
    int bad = 0;

    for (int i = 0; i < n; i++)
        bad |= !(x[i] <= FLT_MAX);
    return bad;
}

int32_t logits_argmax(const float *x, int n)
{
    float max = largest(x, n);

    if (has_bad(x, n) || max < -FLT_MAX)
        return -1;
    for (int begin = 0; begin < n; begin += BLOCK) {
        int end = n - begin < BLOCK ? n : begin + BLOCK;

        if (largest(x + begin, end - begin) < max)
            continue;
        for (int i = begin; i < end; i++)
            if (x[i] == max)
                return i;
    }
    return -1;
}

/* The sum of x [n], n <= BLOCK. */
static inline double block_sum(const float *x, int n)
{
    float lanes[LANES] = {0};
    double sum = 0;
    int i = 0;

    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lanes[l] += x[i + l];
    for (; i < n; i++)
        sum += (double)x[i];
    for (int l = 0; l < LANES; l++)
        sum += (double)lanes[l];
    return sum;
}

VECTOR_CLONES static double sum_of(const float *x, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i += BLOCK)
        sum += block_sum(x + i, n - i < BLOCK ? n - i : BLOCK);
    return sum;
}

double logits_sum(const float *x, int n)
{
    return sum_of(x, n);
}

/* exp(x) for x <= 0: x = k log(2) + r, |r| <= log(2) / 2, and a polynomial for exp(r), whose
 * coefficients are those of Cephes' expf. log(2) is in two parts, the first with few enough bits
 * that k times it is exact. */
static inline float exp_below_0(float x)
{
    const float round = 0x1.8p23f; /* adding it leaves an integer in the low bits */
    float shifted = x * 1.44269504f + round, k = shifted - round;
    float r = x - k * 0.693359375f + k * 2.12194440e-4f, p = 1.9875691500e-4f;
    float power;

    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    power = bits_f32((f32_bits(shifted) + 127u) << 23);
    return x < -87.0f ? 0.0f : p * power;
}

/* y = exp((x - max) factor) of a block. */
static inline void block_exp(float *restrict y, const float *x, int n, float max, double factor)
{
    if (factor == 1) {
        for (int i = 0; i < n; i++)
            y[i] = exp_below_0(x[i] - max);
        return;
    }
    for (int i = 0; i < n; i++)
        y[i] = exp_below_0((float)((double)(x[i] - max) * factor));
}

VECTOR_CLONES static double exp_all(float *out, const float *x, int n, float max, double temp)
{
    double sum = 0, factor = fmin(1 / temp, 1e30); /* finite: 0 times it is 0 */
    float y[BLOCK];

    for (int begin = 0; begin < n; begin += BLOCK) {
        int size = n - begin < BLOCK ? n - begin : BLOCK;

        block_exp(y, x + begin, size, max, factor);
        for (int i = 0; out && i < size; i++)
            out[begin + i] = y[i];
        sum += block_sum(y, size);
    }
    return sum;
}

double logits_exp(float *out, const float *x, int n, float max, double temp)
{
    return exp_all(out, x, n, max, temp);
}

double logits_log_sum_exp(const float *x, int n, float max)
{
    return (double)max + log(logits_exp(NULL, x, n, max, 1));
}

/* Put value into top [n], which is in order, after those that are as large. */
static void insert(clm_token_logprob *top, int n, int32_t token, float value)
{
    int at = n;

    for (; at > 0 && top[at - 1].logprob < value; at--)
        top[at] = top[at - 1];
    top[at] = (clm_token_logprob){token, value};
}

void logits_top(clm_token_logprob *top, int k, const float *x, int n, float shift)
{
    for (int i = 0; i < k; i++)
        insert(top, i, i, x[i]);
    for (int begin = k; k > 0 && begin < n; begin += BLOCK) {
        int size = n - begin < BLOCK ? n - begin : BLOCK;

        if (!(logits_max(x + begin, size) > top[k - 1].logprob))
            continue;
        for (int i = begin; i < begin + size; i++)
            if (x[i] > top[k - 1].logprob)
                insert(top, k - 1, i, x[i]);
    }
    for (int i = 0; i < k; i++)
        top[i].logprob -= shift;
}
