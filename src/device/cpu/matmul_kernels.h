/* device/cpu/matmul_kernels.h: the matrix products of the CPU, one table per instruction set.
 *
 * A product is computed in tiles of some outputs by all rows, by whichever thread is free. How it
 * is best computed depends on the format of the weights, on the number of rows and on whether
 * approximations are allowed: choose says which struct cpu_product does it.
 */
#ifndef DEVICE_CPU_MATMUL_KERNELS_H
#define DEVICE_CPU_MATMUL_KERNELS_H

#include "device/weight.h"

/* How products of few rows by quantised weights, which wait for memory, call for what they read
 * next. What gives most differs from processor to processor. */
struct cpu_reading {
    int ahead_avx2; /* bytes, in each place, to the first cache */
    int ahead_row;  /* the same by AVX-512, beside a single row */
    bool to_first;  /* cache, and from further ahead to the second; in four places, not two */
    bool states;    /* of recurrent mixers are called for too */
    int cached;     /* bytes of x and weights for which x stays in the first cache */
    /* The part of all work that the runs are that threads begin with; of less work, in which the
     * threads come less far apart. */
    double first_runs, first_runs_short;
};

/* y[r, o] = sum_i x[r, i] w[o, i] + bias[o] for n_rows rows; row r of x lies at x + x_rows[r] *
 * x_stride, or at x + r * x_stride where x_rows is NULL; y likewise. */
struct cpu_task {
    const struct weight *w;
    const float *bias; /* [n_out] or NULL */
    const float *x;
    int64_t x_stride;
    const int32_t *x_rows;
    float *y;
    int64_t y_stride;
    const int32_t *y_rows;
    int n_rows;
    void *prepared;                    /* the strips of x as prepare wrote them */
    const struct cpu_reading *reading; /* of whoever multiplies */
};

static inline const float *cpu_task_x(const struct cpu_task *t, int row)
{
    return t->x + (t->x_rows ? t->x_rows[row] : row) * t->x_stride;
}

static inline float *cpu_task_y(const struct cpu_task *t, int row)
{
    return t->y + (t->y_rows ? t->y_rows[row] : row) * t->y_stride;
}

#define CPU_PRODUCT_SCRATCH (640 << 10)

/* Outputs begin + i + p step, for i < n and each place p, as far as they are less than end. */
struct cpu_outputs {
    int begin, n, step, end;
};

/* One way to compute a task. */
struct cpu_product {
    const char *name;
    int panel_cols; /* tiles begin at multiples of it */
    int slowness;   /* times as long as others, roughly; 0 counts as 1 */

    /* Where x is read in a form of its own: strips of strip_rows rows (the last may have fewer),
     * each of strip_bytes (a multiple of 64), one after another; or all of them in another order
     * of the product's own, in the same memory. What prepare writes depends on x and on n_in and
     * group_size of the weights, nothing else: products with the same prepare share it. All NULL
     * and 0: x is read as it is. */
    int strip_rows;
    size_t (*strip_bytes)(int n_in, int group_size);
    void (*prepare)(void *strip, const struct cpu_task *t, int first, int n);

    /* Writes y[:, begin..end), bias included; scratch has CPU_PRODUCT_SCRATCH bytes, 64-byte
     * aligned. */
    void (*multiply)(const struct cpu_task *t, int begin, int end, void *scratch);

    /* Instead of multiply, where weights are read in so many places at a time. */
    int (*places)(const struct cpu_task *t);
    void (*multiply_places)(const struct cpu_task *t, const struct cpu_outputs *o);
};

struct cpu_matmul_kernels {
    struct cpu_reading reading; /* of AVX2 and AVX-512, the same for both */

    /* out[i] = w[o, k + i] for i < n, bit for bit as weight_row_f32 has it. k is a multiple of 128
     * or of the group size, whichever is more, n any number up to the end of the row. */
    void (*dequantise)(float *out, const struct weight *w, int o, int k, int n);

    /* The best way for a weight and a number of rows. Exact: no approximation, and each y[r, o]
     * comes from a sum in an order that depends on n_in alone. */
    const struct cpu_product *(*choose)(const struct weight *w, int n_rows, bool exact);

    /* For measuring. read: every byte of size (a multiple of 256) is loaded, the result depends on
     * all; read_in_order: the same in another way, which some machines are faster by, or NULL. The
     * bursts do arithmetic out of registers for some 10 us and return how many operations
     * that were, a multiply and an add counting two; int8_burst or bf16_burst NULL: there is no
     * such path. */
    uint64_t (*read)(const void *data, size_t size);
    uint64_t (*read_in_order)(const void *data, size_t size);
    double (*f32_burst)(void);
    double (*int8_burst)(void);
    double (*bf16_burst)(void);
};

/* Scalar fills every slot; the others what they improve, and are only called on processors that
 * have the instructions. Each is built only where its instruction set exists. */
void cpu_matmul_kernels_scalar(struct cpu_matmul_kernels *k);
void cpu_matmul_kernels_avx2(struct cpu_matmul_kernels *k);
void cpu_matmul_kernels_avx512(struct cpu_matmul_kernels *k);
void cpu_matmul_kernels_amx(struct cpu_matmul_kernels *k);
void cpu_matmul_kernels_neon(struct cpu_matmul_kernels *k);

/* The kernels for a set of instruction sets (enum cpu_isa), which this processor must have. */
void cpu_matmul_kernels_init(struct cpu_matmul_kernels *k, unsigned isa);

#endif
