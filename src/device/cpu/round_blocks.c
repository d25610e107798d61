/* device/cpu/round_blocks.c: numbers rounded in blocks to 8 or 4 bits, as caches keep them that
 * hold no more. OCP Microscaling Formats 1.0 */
#include <math.h>

#include "device/cpu/cpu.h"
#include "device/cpu/ops.h"
#include "device/cpu/rows.h"

static const float e4m3_max = 448, e2m1_max = 6;

/* To the nearest number of so many bits behind the first, of those with exponents from least on; to
 * even between two. */
static float round_bits(float x, int bits, int least, float max)
{
    int exponent;
    float step;

    if (fabsf(x) >= max)
        return copysignf(max, x);
    (void)frexpf(x, &exponent); /* |x| in [0.5, 1) 2^exponent */
    step = ldexpf(1, (exponent - 1 > least ? exponent - 1 : least) - bits);
    return rintf(x / step) * step;
}

static float round_e4m3(float x)
{
    return round_bits(x, 3, -6, e4m3_max);
}

static float round_e2m1(float x)
{
    return round_bits(x, 1, 0, e2m1_max);
}

static float power_above(float x)
{
    return exp2f(ceilf(log2f(x)));
}

static void round_block(float *x, int n, enum block_rounding kind)
{
    static const float floors[] = {
        [ROUND_FP8] = 1e-4f, [ROUND_FP4] = 0x1.8p-124f, [ROUND_NVFP4] = 0x1.8p-7f};
    float most = floors[kind], scale;

    for (int i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    if (!isfinite(most))
        return;
    scale = kind == ROUND_FP8   ? power_above(most / e4m3_max)
            : kind == ROUND_FP4 ? power_above(most / e2m1_max)
                                : round_e4m3(most / e2m1_max);
    for (int i = 0; i < n; i++)
        x[i] = (kind == ROUND_FP8 ? round_e4m3(x[i] / scale) : round_e2m1(x[i] / scale)) * scale;
}

struct round_call {
    const tensor *x;
    int size;
    enum block_rounding kind;
};

static void round_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct round_call *call = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int i = 0; i < call->x->cols; i += call->size)
            round_block(row_of(call->x, t) + i, call->size, call->kind);
}

void cpu_round_blocks(device *d, tensor *x, int size, enum block_rounding kind)
{
    struct round_call call = {x, size, kind};

    thread_pool_for(cpu_device_of(d)->pool, x->rows, grain(HEAVY, x->cols), round_range, &call);
}
