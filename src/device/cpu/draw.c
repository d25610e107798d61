/* device/cpu/draw.c: who comes first in the race for a row's token, as device/draw.h has it. */
#include "device/draw.h"

#include <float.h>
#include <math.h>

#include "device/cpu/cpu.h"
#include "device/cpu/ops.h"
#include "device/cpu/rows.h"

struct draw_call {
    struct drawn *out;
    const tensor *x;
    const int32_t *best;
    const struct draw_rule *rules;
    bool filtered;
};

static uint64_t mass_of(float logit, float max)
{
    return (uint64_t)(expf(logit - max) * DRAW_MASS);
}

/* The last step that a filter may leave anything of; *mass is that of the row. */
static int last_step(const float *x, int n, float max, const struct draw_rule *r, uint64_t *mass)
{
    uint64_t masses[DRAW_STEPS] = {0}, above = 0;
    int counts[DRAW_STEPS] = {0}, n_above = 0, step = 0;

    *mass = 0;
    for (int i = 0; i < n; i++) {
        int s = draw_step(max, x[i]);

        masses[s] += mass_of(x[i], max);
        counts[s] += x[i] >= -FLT_MAX;
        *mass += mass_of(x[i], max);
    }
    for (; step < DRAW_STEPS - 1; step++) {
        above += masses[step];
        n_above += counts[step];
        if ((double)above >= draw_target(r, *mass) || n_above >= r->top_k)
            break;
    }
    return step;
}

/* When a token arrives, in the logarithm. */
static double arrival_of(int32_t id, float logit, float max, const struct draw_rule *r)
{
    return log(-log1p(-draw_number(id, r->key))) -
           ((double)logit - (double)max) * (double)r->per_temp;
}

/* The first of those whose logits reach the edge. */
static void race_row(struct drawn *out, const float *x, int n, float edge,
                     const struct draw_rule *r)
{
    double arrivals[DRAW_FIRST];
    int n_racing = 0;

    for (int i = 0; i < n; i++) {
        double arrival;
        int at;

        if (!(x[i] >= edge && x[i] >= -FLT_MAX))
            continue;
        n_racing++;
        arrival = arrival_of(i, x[i], out->max, r);
        if (out->n == DRAW_FIRST && !(arrival < arrivals[DRAW_FIRST - 1]))
            continue;
        out->n += out->n < DRAW_FIRST;
        for (at = out->n - 1; at > 0 && arrival < arrivals[at - 1]; at--) {
            arrivals[at] = arrivals[at - 1];
            out->first[at] = out->first[at - 1];
        }
        arrivals[at] = arrival;
        out->first[at] = (struct drawn_token){.id = i, .logit = x[i]};
    }
    out->all = n_racing == out->n;
}

/* What lies above one of them. */
static void look_above(struct drawn_token *t, const float *x, int n, float max)
{
    for (int i = 0; i < n; i++) {
        t->n_above[0] += x[i] > t->logit + DRAW_SLACK;
        t->n_above[1] += x[i] >= t->logit - DRAW_SLACK && i != t->id;
        t->mass_above[0] += x[i] > t->logit + DRAW_SLACK ? mass_of(x[i], max) : 0;
        t->mass_above[1] += x[i] > t->logit ? mass_of(x[i], max) : 0;
    }
}

static void draw_row(struct drawn *out, const float *x, int n, int32_t best,
                     const struct draw_rule *r, bool filtered)
{
    float edge = -FLT_MAX;

    *out = (struct drawn){0};
    if (best < 0)
        return;
    out->max = x[best];
    if (filtered)
        edge = fmaxf(draw_edge(out->max, last_step(x, n, out->max, r, &out->mass)),
                     out->max + r->floor - DRAW_SLACK);
    race_row(out, x, n, edge, r);
    for (int i = 0; filtered && i < out->n; i++)
        look_above(&out->first[i], x, n, out->max);
}

static void draw_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct draw_call *call = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++)
        draw_row(&call->out[t], row_of(call->x, t), call->x->cols, call->best[t], &call->rules[t],
                 call->filtered);
}

void cpu_draw(device *d, struct drawn *out, const tensor *x, const int32_t *best,
              const struct draw_rule *rules, bool filtered)
{
    struct draw_call call = {out, x, best, rules, filtered};

    thread_pool_for(cpu_device_of(d)->pool, x->rows, 1, draw_range, &call);
}
