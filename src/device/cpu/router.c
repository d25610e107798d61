/* device/cpu/router.c: which experts a token goes to, and putting together what they return. */
#include <math.h>
#include <string.h>

#include "device/cpu/cpu.h"
#include "device/cpu/ops.h"

/* Rows a piece: choosing among some hundred experts takes about a microsecond. */
enum { ROUTE_GRAIN = 16, COMBINE_NUMBERS = 16384 };

/* How the logits of a row become scores. */
struct scoring {
    enum router_score kind;
    float max, sum; /* of ROUTER_SOFTMAX_ALL: the largest logit, and sum_i exp(logit_i - max) */
};

static struct scoring scoring_of(const float *logits, int n, enum router_score kind)
{
    struct scoring s = {kind, logits[0], 0};

    if (kind != ROUTER_SOFTMAX_ALL)
        return s;
    for (int i = 1; i < n; i++)
        s.max = fmaxf(s.max, logits[i]);
    for (int i = 0; i < n; i++)
        s.sum += expf(logits[i] - s.max);
    return s;
}

/* A NaN counts as -inf, so that any input gives k different experts. */
static float score_of(const struct scoring *s, float logit)
{
    float score = logit;

    if (s->kind == ROUTER_SOFTMAX_ALL)
        score = expf(logit - s->max) / s->sum;
    else if (s->kind == ROUTER_SIGMOID)
        score = 1.0f / (1.0f + expf(-logit));
    return isnan(score) ? -INFINITY : score;
}

/* The k largest of n scores in descending order, the lower index first on ties. */
static void select_largest(int32_t *ids, float *best, int k, const float *logits, int n,
                           const struct scoring *s)
{
    int count = 0;

    for (int i = 0; i < n; i++) {
        float score = score_of(s, logits[i]);

        if (count == k && !(score > best[k - 1]))
            continue;
        int j = count < k ? count++ : k - 1; /* where there is room, or the last place, now lost */
        for (; j > 0 && score > best[j - 1]; j--) {
            best[j] = best[j - 1];
            ids[j] = ids[j - 1];
        }
        best[j] = score;
        ids[j] = i;
    }
}

/* Logits in descending order to their softmax, in place. */
static void softmax_descending(float *x, int n)
{
    float max = x[0], sum = 0;

    for (int i = 0; i < n; i++)
        sum += x[i] = expf(x[i] - max);
    for (int i = 0; i < n; i++)
        x[i] /= sum;
}

static void route_row(int32_t *ids, float *weights, const float *logits,
                      const struct router_params *p)
{
    int k = p->n_experts_per_token;
    struct scoring scoring = scoring_of(logits, p->n_experts, p->score);
    float sum = 0;

    select_largest(ids, weights, k, logits, p->n_experts, &scoring);
    if (p->score == ROUTER_SOFTMAX_SELECTED)
        softmax_descending(weights, k);
    for (int j = 0; j < k; j++)
        sum += weights[j];
    for (int j = 0; j < k; j++)
        weights[j] = p->normalize ? weights[j] / sum * p->scale : weights[j] * p->scale;
}

struct route_call {
    const tensor *ids, *weights, *logits;
    const struct router_params *p;
};

static void route_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct route_call *call = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++)
        route_row((int32_t *)call->ids->data + t * call->ids->stride,
                  (float *)call->weights->data + t * call->weights->stride,
                  (const float *)call->logits->data + t * call->logits->stride, call->p);
}

void cpu_route(device *d, tensor *ids, tensor *weights, const tensor *logits,
               const struct router_params *p)
{
    struct route_call call = {ids, weights, logits, p};

    thread_pool_for(cpu_device_of(d)->pool, logits->rows, ROUTE_GRAIN, route_range, &call);
}

struct combine_call {
    const struct cpu_vector_kernels *k;
    const tensor *y, *x, *weights;
};

static void combine_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct combine_call *call = ctx;
    int k = call->weights->cols, n = call->y->cols;

    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *y = (float *)call->y->data + t * call->y->stride;
        const float *weights = (const float *)call->weights->data + t * call->weights->stride;

        memset(y, 0, (size_t)n * sizeof *y);
        for (int j = 0; j < k; j++)
            call->k->add(y, (const float *)call->x->data + (t * k + j) * call->x->stride, n,
                         weights[j]);
    }
}

void cpu_combine_experts(device *d, tensor *y, const tensor *x, const tensor *weights)
{
    struct cpu_device *c = cpu_device_of(d);
    struct combine_call call = {&c->vector, y, x, weights};
    int64_t row = (int64_t)y->cols * weights->cols;

    if (y->cols < 1)
        return;
    thread_pool_for(c->pool, y->rows,
                    row >= COMBINE_NUMBERS ? 1 : COMBINE_NUMBERS / (row ? row : 1), combine_range,
                    &call);
}
