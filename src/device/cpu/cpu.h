/* device/cpu/cpu.h: what the parts of the CPU device share. */
#ifndef DEVICE_CPU_CPU_H
#define DEVICE_CPU_CPU_H

#include "base/arena.h"
#include "base/thread.h"
#include "device/cpu/matmul_kernels.h"
#include "device/cpu/vector_kernels.h"
#include "device/device.h"

/* A set of bits. CPU_FP16, with CPU_AVX512, is AVX512-FP16; CPU_AMX, likewise, AMX of bf16 and int8. */
enum cpu_isa {
    CPU_SCALAR = 0,
    CPU_AVX2 = 1,
    CPU_AVX512 = 2,
    CPU_NEON = 4,
    CPU_FP16 = 8,
    CPU_AMX = 16
};

/* The instruction sets of this processor that clm has kernels for, held down by CLM_CPU. */
unsigned cpu_isa_detect(void);

/* Whether Intel has made this processor. */
bool cpu_is_intel(void);

/* What CLM_CPU allows, a set of isa bits; -1 with *err for a value that names no instruction set.
 */
int cpu_isa_limit(unsigned *allowed, clm_error *err);

/* "scalar", "avx2", "avx512", "amx" or "neon": the best of a set. */
const char *cpu_isa_name(unsigned isa);

struct cpu_device {
    device base; /* first: a device * of this table is a struct cpu_device * */
    unsigned isa;
    bool exact;
    thread_pool *pool;
    struct cpu_vector_kernels vector;
    struct cpu_matmul_kernels matmul;
    void **scratch; /* [threads + 1] one block each, grown by cpu_scratch */
    size_t *scratch_size;
    _Atomic size_t scratch_failed; /* bytes some cpu_scratch could not get; 0: none failed */
    struct cpu_group *group;       /* device/cpu/group.c; NULL: it is alone */
    int rank;                      /* in it */
    clm_error failure;             /* the first since the last sync; set on the caller's thread */
};

static inline struct cpu_device *cpu_device_of(device *d)
{
    return (struct cpu_device *)d;
}

/* At least size bytes for this thread, 64-byte aligned, contents undefined, valid until its next
 * call; NULL after noting the failure, which sync then reports. Thread-safe across different
 * threads. Thread number thread_pool_size(d->pool) is one more block, for what an operation shares
 * between threads. */
void *cpu_scratch(struct cpu_device *d, int thread, size_t size);

/* cpu/group.c */
int cpu_join(device *const *ds, int n, clm_error *err);
void cpu_all_reduce(device *d, tensor *x);
void cpu_leave(device *d);
int cpu_rejoin(device *d, clm_error *err);
void cpu_group_close(struct cpu_device *c); /* the device is closed */

/* cpu/matmul.c */
void cpu_embed(device *d, tensor *y, const struct weight *w, const int32_t *ids, float scale);
void cpu_matmul(device *d, const struct matmul_job *jobs, int n_jobs, const tensor *x);
void cpu_matmul_experts(device *d, const struct matmul_job *jobs, int n_jobs, int n_experts,
                        const tensor *x, const tensor *ids);
void cpu_measure(device *d, struct device_limits *limits, bool (*go_on)(void *ctx), void *ctx);
double cpu_read_speed(device *d, const void *data, size_t size);

#endif
