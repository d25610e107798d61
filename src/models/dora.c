/* models/dora.c: the gains of DoRA: lengths to be over those that rows or columns of W + B A have.
 * They are computed on the device, where W is, so many rows at a time. arXiv:2402.09353
 */
#include <math.h>

#include "models/low_rank.h"

#define NORM_ROWS 256

/* The rows [first, first + n) of W + B A on their way. */
struct rows {
    device *d;
    int32_t *ids; /* [NORM_ROWS] */
    float *sum;   /* [NORM_ROWS, n_in], on the host as well */
    float *delta;
    float *b; /* [NORM_ROWS, rank] */
    float *a; /* [n_in, rank] */
    float *host;
};

static int rows_open(struct rows *s, device *d, const struct low_rank *l, clm_error *err)
{
    size_t n = (size_t)l->n_in * sizeof(float), rank = (size_t)l->rank;

    s->d = d;
    s->host = mem_alloc((size_t)NORM_ROWS * n);
    s->ids = d->ops->alloc(d, NORM_ROWS * sizeof(int32_t), err);
    s->sum = s->ids ? d->ops->alloc(d, NORM_ROWS * n, err) : NULL;
    s->delta = s->sum ? d->ops->alloc(d, NORM_ROWS * n, err) : NULL;
    s->b = s->delta ? d->ops->alloc(d, NORM_ROWS * rank * sizeof(float), err) : NULL;
    s->a = s->b ? d->ops->alloc(d, n * rank, err) : NULL;
    if (!s->host)
        return fail(err, CLM_ERR_NOMEM, "lengths of rows: no memory");
    return s->a ? 0 : -1;
}

static void rows_close(struct rows *s)
{
    void *all[] = {s->ids, s->sum, s->delta, s->b, s->a};

    for (size_t i = 0; s->d && i < COUNT(all); i++)
        if (all[i])
            s->d->ops->free(s->d, all[i]);
    mem_free(s->host);
}

static void rows_load(struct rows *s, const struct weight *w, const struct low_rank *l, int first,
                      int n)
{
    const struct device_ops *ops = s->d->ops;
    tensor sum = {s->sum, DTYPE_F32, n, l->n_in, l->n_in}, delta = sum;
    tensor b = {s->b, DTYPE_F32, n, l->rank, l->rank};
    struct weight a = {.format = WEIGHT_F32, .n_out = l->n_in, .n_in = l->rank, .data = s->a};
    struct matmul_job job = {.y = &delta, .w = &a};
    int32_t ids[NORM_ROWS];

    delta.data = s->delta;
    for (int i = 0; i < n; i++)
        ids[i] = first + i;
    ops->upload(s->d, s->ids, ids, (size_t)n * sizeof *ids);
    ops->upload(s->d, s->b, l->b + (size_t)first * (size_t)l->rank,
                (size_t)n * (size_t)l->rank * sizeof(float));
    ops->embed(s->d, &sum, w, s->ids, 1);
    ops->matmul(s->d, &job, 1, &b);
    ops->add(s->d, &sum, &delta, 1);
    ops->download(s->d, s->host, s->sum, (size_t)n * (size_t)l->n_in * sizeof(float));
}

/* A as rows of inputs, in the order of W. */
static float *inputs_of(const struct low_rank *l, const int32_t *order)
{
    size_t rank = (size_t)l->rank, n_in = (size_t)l->n_in;
    float *a = mem_alloc(n_in * rank * sizeof *a);

    for (size_t i = 0; a && i < n_in; i++)
        for (size_t r = 0; r < rank; r++)
            a[i * rank + r] = l->a[r * n_in + (order ? (size_t)order[i] : i)];
    return a;
}

/* squares += those of the rows or columns that lie on the host. */
static void add_squares(double *squares, const struct rows *s, const struct low_rank *l, int first,
                        int n)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < l->n_in; k++) {
            double x = (double)s->host[(size_t)i * (size_t)l->n_in + (size_t)k];

            squares[l->by_column ? k : first + i] += x * x;
        }
}

int dora_gain(device *d, float *gain, const struct weight *w, const struct low_rank *l,
              const int32_t *order, clm_error *err)
{
    int n_gains = l->by_column ? l->n_in : l->n_out, rc = -1;
    struct rows s = {0};
    float *a = inputs_of(l, order);
    double *squares = mem_zeroed((size_t)n_gains, sizeof *squares);

    if (!a || !squares)
        fail(err, CLM_ERR_NOMEM, "lengths of rows: no memory");
    if (!a || !squares || rows_open(&s, d, l, err))
        goto cleanup;
    d->ops->upload(d, s.a, a, (size_t)l->n_in * (size_t)l->rank * sizeof *a);
    for (int first = 0; first < l->n_out; first += NORM_ROWS) {
        int n = l->n_out - first < NORM_ROWS ? l->n_out - first : NORM_ROWS;

        rows_load(&s, w, l, first, n);
        add_squares(squares, &s, l, first, n);
    }
    for (int i = 0; i < n_gains; i++)
        gain[i] = (float)((double)l->magnitude[i] / sqrt(squares[i]));
    rc = d->ops->sync(d, err);

cleanup:
    rows_close(&s);
    mem_free(squares);
    mem_free(a);
    return rc;
}
