/* device/cpu/router.c: which experts a token goes to, and putting together what they return. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "device/cpu/cpu.h"
#include "device/cpu/ops.h"

/* Rows a piece: choosing among some hundred experts takes about a microsecond. */
enum { ROUTE_GRAIN = 16, COMBINE_NUMBERS = 16384 };

/* Logits of a row to scores; a NaN counts as -inf, so that any input gives k different experts. */
static void score_row(float *scores, const float *logits, const struct router_params *p)
{
    int n = p->n_experts;
    float max = logits[0], sum = 0;

    for (int i = 1; i < n; i++)
        max = fmaxf(max, logits[i]);
    for (int i = 0; i < n && p->score == ROUTER_SOFTMAX_ALL; i++)
        sum += scores[i] = expf(logits[i] - max);
    for (int i = 0; i < n; i++) {
        scores[i] = p->score == ROUTER_SOFTMAX_ALL ? scores[i] / sum : logits[i];
        if (p->score == ROUTER_SIGMOID)
            scores[i] = 1.0f / (1.0f + expf(-logits[i]));
        else if (p->score == ROUTER_SQRT_SOFTPLUS)
            scores[i] = sqrtf(fmaxf(logits[i], 0) + log1pf(expf(-fabsf(logits[i]))));
        if (isnan(scores[i]))
            scores[i] = -INFINITY;
    }
}

/* The k largest of n numbers in descending order, the lower index first on ties. */
static void select_largest(int32_t *ids, float *best, int k, const float *x, int n)
{
    int count = 0;

    for (int i = 0; i < n; i++) {
        if (count == k && !(x[i] > best[k - 1]))
            continue;
        int j = count < k ? count++ : k - 1; /* where there is room, or the last place, now lost */
        for (; j > 0 && x[i] > best[j - 1]; j--) {
            best[j] = best[j - 1];
            ids[j] = ids[j - 1];
        }
        best[j] = x[i];
        ids[j] = i;
    }
}

/* How good a group of n experts is. */
static float group_score(const float *x, int n, bool by_max)
{
    float first = -INFINITY, second = -INFINITY;

    for (int i = 0; i < n; i++) {
        if (x[i] > first) {
            second = first;
            first = x[i];
        } else if (x[i] > second) {
            second = x[i];
        }
    }
    return by_max || n < 2 ? first : first + second;
}

/* Scores outside of the best groups become 0, or less than all; room holds a number for each group.
 */
static void keep_groups(float *x, float *room, const struct router_params *p)
{
    int size = p->n_experts / p->n_groups;

    for (int g = 0; g < p->n_groups; g++)
        room[g] = group_score(x + g * size, size, p->group_by_max);
    for (int dropped = 0; dropped < p->n_groups - p->n_groups_kept; dropped++) {
        int worst = -1;

        for (int g = 0; g < p->n_groups; g++)
            if (!isnan(room[g]) && (worst < 0 || room[g] <= room[worst]))
                worst = g;
        if (worst < 0)
            return;
        room[worst] = NAN;
        for (int i = worst * size; i < (worst + 1) * size; i++)
            x[i] = p->groups_alone ? -INFINITY : p->late_zeros ? FLT_MIN * (float)i : 0;
    }
}

/* The softmax at the largest logit over those that are not far below it, then the same without it.
 */
static void sparse_mixer(int32_t *ids, float *weights, float *masked, const float *logits,
                         const struct router_params *p)
{
    for (int i = 0; i < p->n_experts; i++)
        masked[i] = isnan(logits[i]) ? -INFINITY : logits[i];
    for (int j = 0; j < p->n_experts_per_token; j++) {
        float top, sum = 0;

        select_largest(&ids[j], &top, 1, masked, p->n_experts);
        for (int i = 0; i < p->n_experts; i++)
            /* 0 / 0 is near: two logits of 0. */
            if (!((top - logits[i]) / fmaxf(fabsf(logits[i]), top) > 2 * p->jitter))
                sum += expf(masked[i] - top);
        weights[j] = 1 / sum;
        masked[ids[j]] = -INFINITY;
    }
}

/* The weights of k experts to what they are multiplied by. */
static void finish_weights(float *weights, const struct router_params *p)
{
    float sum = 0;

    for (int j = 0; j < p->n_experts_per_token; j++)
        sum += weights[j];
    sum = fmaxf(sum + p->normalize_eps, p->normalize_floor);
    for (int j = 0; j < p->n_experts_per_token; j++)
        weights[j] = p->normalize ? weights[j] / sum * p->scale : weights[j] * p->scale;
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

/* room: for the scores, for the scores by which is chosen, and for the groups. */
static void route_row(int32_t *ids, float *weights, const float *logits, float *room,
                      const struct router_params *p)
{
    int k = p->n_experts_per_token, n = p->n_experts;
    float *scores = room, *choice = room + n;

    if (p->score == ROUTER_SPARSE_MIXER) {
        sparse_mixer(ids, weights, room, logits, p);
        finish_weights(weights, p);
        return;
    }
    score_row(scores, logits, p);
    for (int i = 0; i < n; i++)
        choice[i] = p->bias ? scores[i] + p->bias[i] : scores[i];
    if (p->n_groups > 1)
        keep_groups(choice, room + 2 * n, p);
    select_largest(ids, weights, k, choice, n);
    for (int j = 0; j < k; j++)
        weights[j] = scores[ids[j]];
    if (p->score == ROUTER_SOFTMAX_SELECTED)
        softmax_descending(weights, k);
    for (int j = 0; j < k && p->score == ROUTER_SIGMOID_SELECTED; j++)
        weights[j] = 1.0f / (1.0f + expf(-weights[j]));
    finish_weights(weights, p);
}

struct route_call {
    struct cpu_device *d;
    const tensor *ids, *weights, *logits;
    const struct router_params *p;
};

/* Experts that exist, for what follows a failure until it is reported. */
static void route_nowhere(int32_t *ids, float *weights, int k)
{
    for (int j = 0; j < k; j++) {
        ids[j] = j;
        weights[j] = 0;
    }
}

static void route_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct route_call *call = ctx;
    size_t n = (size_t)call->p->n_experts;
    float *room = cpu_scratch(call->d, thread, 3 * n * sizeof(float));

    for (int64_t t = begin; t < end; t++) {
        int32_t *ids = (int32_t *)call->ids->data + t * call->ids->stride;
        float *weights = (float *)call->weights->data + t * call->weights->stride;

        if (room)
            route_row(ids, weights, (const float *)call->logits->data + t * call->logits->stride,
                      room, call->p);
        else
            route_nowhere(ids, weights, call->p->n_experts_per_token);
    }
}

void cpu_route(device *d, tensor *ids, tensor *weights, const tensor *logits,
               const struct router_params *p)
{
    struct route_call call = {cpu_device_of(d), ids, weights, logits, p};

    thread_pool_for(cpu_device_of(d)->pool, logits->rows, ROUTE_GRAIN, route_range, &call);
}

static void without_zero(int32_t *ids, float *weights, int k, int n_experts, float *rest)
{
    int free_id = 0;

    *rest = 0;
    for (int j = 0; j < k; j++) {
        bool taken = true;

        if (ids[j] < n_experts)
            continue;
        *rest += weights[j];
        weights[j] = 0;
        for (; taken; free_id += taken) {
            taken = false;
            for (int i = 0; i < k; i++)
                taken = taken || ids[i] == free_id;
        }
        ids[j] = free_id;
    }
}

void cpu_zero_experts(device *d, tensor *ids, tensor *weights, tensor *rest, int n_experts)
{
    (void)d;
    for (int64_t t = 0; t < ids->rows; t++)
        without_zero((int32_t *)ids->data + t * ids->stride,
                     (float *)weights->data + t * weights->stride, ids->cols, n_experts,
                     (float *)rest->data + t * rest->stride);
}

void cpu_scale_chosen(device *d, tensor *weights, const tensor *ids, const float *scales)
{
    (void)d;
    for (int64_t t = 0; t < ids->rows; t++)
        for (int j = 0; j < ids->cols; j++)
            ((float *)weights->data)[t * weights->stride + j] *=
                scales[((const int32_t *)ids->data)[t * ids->stride + j]];
}

void cpu_bound_ids(device *d, int32_t *out, const int32_t *ids, int n, int limit)
{
    (void)d;
    for (int i = 0; i < n; i++)
        out[i] = ids[i] >= 0 && ids[i] < limit ? ids[i] : 0;
}

void cpu_ngram_ids(device *d, int32_t *out, const int32_t *ids, const int32_t *past, int n,
                   int n_past, int n_used, int base, int size)
{
    (void)d;
    for (int64_t t = 0; t < n; t++) {
        int64_t sum = ids[t] % size, power = 1;

        for (int i = 0; i < n_used; i++) {
            power = power * base % size;
            sum = (sum + past[t * n_past + i] * power) % size;
        }
        out[t] = (int32_t)sum;
    }
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
