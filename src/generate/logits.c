#include "generate/logits.h"

#include <float.h>
#include <math.h>

int32_t logits_argmax(const float *x, int n)
{
    float max = x[0];
    bool bad = false;

    /* One pass for the value and one for its place: both are loops that a compiler vectorises. */
    for (int i = 0; i < n; i++) {
        bad |= !(x[i] <= FLT_MAX);
        max = x[i] > max ? x[i] : max;
    }
    if (bad || max < -FLT_MAX)
        return -1;
    for (int i = 0; i < n; i++)
        if (x[i] == max)
            return i;
    return -1;
}

double logits_log_sum_exp(const float *x, int n, float max)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += (double)expf(x[i] - max);
    return (double)max + log(sum);
}
