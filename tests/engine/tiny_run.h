/* tests/engine/tiny_run.h: what a tiny checkpoint gives for some tokens. */
#ifndef TINY_RUN_H
#define TINY_RUN_H

#include <math.h>

#include "base/temporary.h"
#include "models/tiny.h"
#include "rig.h"

enum { N_TOKENS = 12 };

/* Zeroed (free). */
static inline void *memory(size_t n, size_t size)
{
    void *p = calloc(n + 1, size);

    assert_non_null(p);
    return p;
}

/* A tensor more, with data that becomes the checkpoint's; dims may be 0: there is no such one. */
static inline void tiny_put(struct tiny *t, const char *module, const char *part, enum dtype type,
                            int stack, int rows, int cols, void *data)
{
    struct checkpoint_tensor *added = tiny_add(t, module, part, type, stack, rows, cols);

    free((void *)(uintptr_t)added->data);
    added->data = data;
}

/* The logits of some tokens, the first eight at once; got [N_TOKENS, TINY_VOCAB]. Folders are of
 * the temporary one; adapter NULL: none. */
static inline void run_tiny(const char *folder, const char *adapter, bool exact, float *got,
                            const char *what)
{
    int32_t tokens[N_TOKENS];
    clm_error err = {0};
    struct rig r;
    kv_seq *seq;

    CHECK(rig_open_adapted(&r, temporary_path(folder), adapter ? temporary_path(adapter) : NULL, 2,
                           exact, &err) == 0,
          "%s: %s", what, err.message);
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = 7 * i % TINY_VOCAB;
    seq = rig_sequence(&r);
    rig_feed(&r, seq, tokens, 8, got);
    for (int i = 8; i < N_TOKENS; i++)
        rig_feed(&r, seq, tokens + i, 1, got + i * TINY_VOCAB);
    kv_seq_close(seq);
    rig_close(&r);
}

/* The greatest difference of two runs over the greatest size of the second. */
static inline double distance(const float *a, const float *b)
{
    double far = 0, size = 0;

    for (int i = 0; i < N_TOKENS * TINY_VOCAB; i++) {
        far = fmax(far, fabs((double)a[i] - (double)b[i]));
        size = fmax(size, fabs((double)b[i]));
    }
    return far / size;
}

#endif
