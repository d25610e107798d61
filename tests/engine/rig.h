/* tests/engine/rig.h: a model on a device (the CPU, or what CLM_DEVICE names) with an engine, and a
 * step of one sequence. */
#ifndef RIG_H
#define RIG_H

#include <string.h>

#include "engine/engine.h"
#include "spread.h"
#include "testing.h"

struct rig {
    struct model_devices devices;
    struct model *model;
    engine *engine;
    int vocab_size;
};

static inline void rig_close(struct rig *r)
{
    engine_close(r->engine);
    model_close(r->model);
    model_devices_close(&r->devices);
    *r = (struct rig){0};
}

/* A model on r->devices. */
static inline int rig_fill(struct rig *r, const char *path, const char *adapter,
                           const struct engine_options *options, clm_error *err)
{
    r->devices.dev->ops->set_exact(r->devices.dev, options->exact);
    if (r->devices.rest)
        r->devices.rest->ops->set_exact(r->devices.rest, options->exact);
    r->model = spread_model(path, adapter, &r->devices, err);
    if (r->model)
        r->engine = engine_open(r->model, options, err);
    if (!r->engine)
        return -1;
    r->vocab_size = r->model->spec->vocab_size;
    return 0;
}

/* -1 with *err when the checkpoint, or the adapter, is refused. adapter NULL: none. */
static inline int rig_open_with(struct rig *r, const char *path, const char *adapter, int n_threads,
                                const struct engine_options *options, clm_error *err)
{
    *r = (struct rig){0};
    if (spread_open(&r->devices, n_threads, err) || rig_fill(r, path, adapter, options, err)) {
        rig_close(r);
        return -1;
    }
    return 0;
}

static inline int rig_open_adapted(struct rig *r, const char *path, const char *adapter,
                                   int n_threads, bool exact, clm_error *err)
{
    struct engine_options options = {.exact = exact};

    return rig_open_with(r, path, adapter, n_threads, &options, err);
}

static inline int rig_open(struct rig *r, const char *path, int n_threads, bool exact,
                           clm_error *err)
{
    return rig_open_adapted(r, path, NULL, n_threads, exact, err);
}

static inline kv_seq *rig_sequence(struct rig *r)
{
    clm_error err = {0};
    kv_seq *s = kv_seq_open(engine_cache(r->engine), &err);

    CHECK(s, "%s", err.message);
    return s;
}

/* Append n tokens in one step; out [n, vocab_size] gets the logits of every one. */
static inline void rig_feed(struct rig *r, kv_seq *seq, const int32_t *tokens, int n, float *out)
{
    struct engine_input input = {.seq = seq, .tokens = tokens, .n_tokens = n, .n_logits = n};
    const float *logits;
    clm_error err = {0};

    CHECK(engine_step(r->engine, &input, 1, &logits, &err) == 0, "%s", err.message);
    memcpy(out, logits, (size_t)n * (size_t)r->vocab_size * sizeof *out);
}

#endif
