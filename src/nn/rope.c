/* nn/rope.c: angular speeds under each kind of rotary scaling. RoFormer, arXiv:2104.09864. */
#include "nn/rope.h"

#include <math.h>

static double theta_power(double theta, double exponent)
{
    return pow(theta, -exponent);
}

/* Wavelengths beyond original / low_freq_factor are stretched by factor, those below original /
 * high_freq_factor are kept, and the ones between are blended (Llama 3.1). */
static double llama3_speed(const struct rope_spec *s, double speed)
{
    double wavelength = 2 * M_PI / speed;
    double smooth;

    if (wavelength > s->original_max_positions / s->low_freq_factor)
        return speed / s->factor;
    if (wavelength <= s->original_max_positions / s->high_freq_factor)
        return speed;
    smooth = (s->original_max_positions / wavelength - s->low_freq_factor) /
             (s->high_freq_factor - s->low_freq_factor);
    return speed * ((1 - smooth) / s->factor + smooth);
}

/* The pair that turns n times over the original context. */
static double yarn_pair(const struct rope_spec *s, double n)
{
    return s->dims * log(s->original_max_positions / (n * 2 * M_PI)) / (2 * log(s->theta));
}

/* Between two pairs the speed goes over, linearly, from the plain one to that divided by factor. */
static void yarn_speeds(float *inv_freq, const struct rope_spec *s)
{
    double low = yarn_pair(s, s->beta_fast), high = yarn_pair(s, s->beta_slow);

    if (!s->no_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, s->dims - 1);
    if (low == high)
        high += 0.001; /* no division by zero */
    for (int i = 0; i < s->dims / 2; i++) {
        double speed = theta_power(s->theta, 2.0 * i / s->dims);
        double ramp = fmin(fmax((i - low) / (high - low), 0), 1);

        inv_freq[i] = (float)(speed / s->factor * ramp + speed * (1 - ramp));
    }
}

static double dynamic_theta(const struct rope_spec *s, int length)
{
    double n = fmax(length, s->max_positions);
    double stretch = s->factor * n / s->max_positions - (s->factor - 1);

    if (s->dims <= 2)
        return s->theta;
    return s->theta * pow(stretch, s->dims / (s->dims - 2.0));
}

int rope_turning(const struct rope_spec *s)
{
    return s->kind == ROPE_PROPORTIONAL ? s->head_dim : s->dims;
}

static void speeds(float *inv_freq, const struct rope_spec *s, int length)
{
    int over = s->kind == ROPE_PROPORTIONAL ? s->head_dim : s->dims; /* of the exponents */
    double theta = s->kind == ROPE_DYNAMIC ? dynamic_theta(s, length) : s->theta;

    if (s->kind == ROPE_YARN) {
        yarn_speeds(inv_freq, s);
        return;
    }
    for (int i = 0; i < s->dims / 2; i++) {
        double speed = theta_power(theta, 2.0 * i / over);

        if (s->kind == ROPE_LINEAR || s->kind == ROPE_PROPORTIONAL)
            speed /= s->factor;
        else if (s->kind == ROPE_LLAMA3)
            speed = llama3_speed(s, speed);
        else if (s->kind == ROPE_LONGROPE)
            speed /= s->factors[i];
        inv_freq[i] = (float)speed;
    }
    for (int i = s->dims / 2; i < rope_turning(s) / 2; i++)
        inv_freq[i] = 0;
}

void rope_inv_freq(float *inv_freq, const struct rope_spec *s, int length)
{
    speeds(inv_freq, s, length);
    for (int i = 0; s->backward && i < rope_turning(s) / 2; i++)
        inv_freq[i] = -inv_freq[i];
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

float rope_mscale(const struct rope_spec *s)
{
    double stretch;

    if (s->attention_factor > 0)
        return (float)s->attention_factor;
    switch (s->kind) {
    case ROPE_YARN:
        return (float)(yarn_mscale(s->factor, s->mscale) /
                       yarn_mscale(s->factor, s->mscale_all_dim));
    case ROPE_LONGROPE:
        stretch = s->max_positions / s->original_max_positions;
        return stretch <= 1 ? 1 : (float)sqrt(1 + log(stretch) / log(s->original_max_positions));
    default:
        return 1;
    }
}
