/* tests/device/cuda_pair.h: the same operands on the scalar CPU, which is the definition, and on a
 * GPU; what an operation makes of them on both is compared. */
#ifndef CUDA_PAIR_H
#define CUDA_PAIR_H

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "device/device.h"

#include "testing.h"

enum { PAIR_CPU, PAIR_GPU, PAIR_DEVICES, PAIR_OPERANDS = 20, PAIR_MARGIN = 8 };
#define PAIR_CANARY 12345.678f

/* Memory of both; of numbers to compare, or of bytes that must be equal. */
struct pair_operand {
    void *at[PAIR_DEVICES];
    size_t size;
    bool exact;
};

struct pair {
    device *dev[PAIR_DEVICES];
    struct pair_operand operands[PAIR_OPERANDS];
    int n;
};

/* Skips the test where there is no GPU. */
static inline void pair_open(struct pair *p)
{
    clm_error err = {0};

    *p = (struct pair){0};
    setenv("CLM_CPU", "scalar", 1);
    p->dev[PAIR_CPU] = device_cpu_open(1, &err);
    unsetenv("CLM_CPU");
    CHECK(p->dev[PAIR_CPU], "%s", err.message);
    p->dev[PAIR_GPU] = device_cuda_open(&err);
    if (!p->dev[PAIR_GPU]) {
        p->dev[PAIR_CPU]->ops->close(p->dev[PAIR_CPU]);
        print_message("%s\n", err.message);
        skip();
    }
    for (int i = 0; i < PAIR_DEVICES; i++)
        p->dev[i]->ops->set_exact(p->dev[i], true);
}

/* Forgets all operands. */
static inline void pair_clear(struct pair *p)
{
    for (int i = 0; i < p->n; i++)
        for (int d = 0; d < PAIR_DEVICES; d++)
            p->dev[d]->ops->free(p->dev[d], p->operands[i].at[d]);
    p->n = 0;
}

static inline void pair_close(struct pair *p)
{
    pair_clear(p);
    for (int d = 0; d < PAIR_DEVICES; d++)
        p->dev[d]->ops->close(p->dev[d]);
}

/* The same bytes on both, and room for as many canaries before as behind. */
static inline struct pair_operand *pair_bytes(struct pair *p, const void *data, size_t size,
                                              bool exact)
{
    struct pair_operand *o = &p->operands[p->n++];
    clm_error err = {0};

    CHECK(p->n <= PAIR_OPERANDS, "too many operands");
    *o = (struct pair_operand){.size = size, .exact = exact};
    for (int d = 0; d < PAIR_DEVICES; d++) {
        o->at[d] = p->dev[d]->ops->alloc(p->dev[d], size, &err);
        CHECK(o->at[d], "%s", err.message);
        p->dev[d]->ops->upload(p->dev[d], o->at[d], data, size);
    }
    return o;
}

/* n random numbers in [-1, 1). */
static inline struct pair_operand *pair_numbers(struct pair *p, size_t n)
{
    float *x = mem_alloc((n + 1) * sizeof *x);
    struct pair_operand *o;

    assert_non_null(x);
    random_floats(x, n);
    o = pair_bytes(p, x, n * sizeof *x, false);
    mem_free(x);
    return o;
}

/* n random ids below a limit. */
static inline struct pair_operand *pair_ids(struct pair *p, size_t n, int limit)
{
    int32_t *ids = mem_alloc((n + 1) * sizeof *ids);
    struct pair_operand *o;

    assert_non_null(ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)random_below((size_t)limit);
    o = pair_bytes(p, ids, n * sizeof *ids, true);
    mem_free(ids);
    return o;
}

/* Random rows some numbers apart, with canaries between them: *t of each device. */
static inline void pair_tensor(struct pair *p, tensor t[PAIR_DEVICES], int rows, int cols)
{
    int stride = cols + PAIR_MARGIN;
    size_t n = (size_t)rows * (size_t)stride + PAIR_MARGIN;
    float *x = mem_alloc(n * sizeof *x);
    struct pair_operand *o;

    assert_non_null(x);
    random_floats(x, n);
    for (size_t i = 0; i < n; i++)
        if (i % (size_t)stride < PAIR_MARGIN)
            x[i] = PAIR_CANARY;
    o = pair_bytes(p, x, n * sizeof *x, false);
    mem_free(x);
    for (int d = 0; d < PAIR_DEVICES; d++)
        t[d] = (tensor){(float *)o->at[d] + PAIR_MARGIN, DTYPE_F32, rows, cols, stride};
}

/* Numbers may differ by tolerance, relative to the larger of 1 and what is expected. */
static inline void pair_check_operand(struct pair *p, const struct pair_operand *o,
                                      double tolerance, const char *what)
{
    void *bytes[PAIR_DEVICES];

    for (int d = 0; d < PAIR_DEVICES; d++) {
        bytes[d] = mem_alloc(o->size + 1);
        assert_non_null(bytes[d]);
        p->dev[d]->ops->download(p->dev[d], bytes[d], o->at[d], o->size);
    }
    CHECK(!o->exact || !memcmp(bytes[PAIR_CPU], bytes[PAIR_GPU], o->size), "%s: bytes differ",
          what);
    for (size_t i = 0; !o->exact && i < o->size / sizeof(float); i++) {
        double want = (double)((float *)bytes[PAIR_CPU])[i];
        double got = (double)((float *)bytes[PAIR_GPU])[i];

        CHECK(want == got || (isnan(want) && isnan(got)) ||
                  fabs(got - want) <= tolerance * fmax(1, fabs(want)),
              "%s: number %zu is %.9g, expected %.9g", what, i, got, want);
    }
    for (int d = 0; d < PAIR_DEVICES; d++)
        mem_free(bytes[d]);
}

static inline void pair_check(struct pair *p, double tolerance, const char *what)
{
    for (int d = 0; d < PAIR_DEVICES; d++) {
        clm_error err = {0};

        CHECK(!p->dev[d]->ops->sync(p->dev[d], &err), "%s: %s", what, err.message);
    }
    for (int i = 0; i < p->n; i++)
        pair_check_operand(p, &p->operands[i], tolerance, what);
}

#endif
