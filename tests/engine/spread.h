/* tests/engine/spread.h: the devices of a test: the CPU, or what CLM_DEVICE names. With
 * CLM_TEST_SPLIT=N in the environment the last N layers of every model are apart: on the GPU, if
 * CLM_DEVICE says cuda, else on a second CPU that keeps its memory to itself as a GPU does; with
 * CLM_TEST_SHARES=N there are so many devices that compute every layer together. */
#ifndef SPREAD_H
#define SPREAD_H

#include <string.h>

#include "models/model.h"
#include "testing.h"

/* What a device like a GPU says of its free memory. */
static size_t spread_free_bytes = SIZE_MAX / 2;
static struct device_ops spread_ops;

static inline size_t spread_available(device *d)
{
    (void)d;
    return spread_free_bytes;
}

static inline int spread_two(struct model_devices *where, int gpu_layers, int n_threads,
                             clm_error *err)
{
    *where = (struct model_devices){.dev = device_cpu_open(n_threads, err),
                                    .rest = device_cpu_open(n_threads, err),
                                    .gpu_layers = gpu_layers};
    if (!where->dev || !where->rest)
        return -1;
    spread_ops = *where->dev->ops;
    spread_ops.name = "other";
    spread_ops.reads_host = false;
    spread_ops.available = spread_available;
    where->dev->ops = &spread_ops;
    return 0;
}

static inline int spread_open(struct model_devices *where, int n_threads, clm_error *err)
{
    const char *n = getenv("CLM_TEST_SPLIT"), *shares = getenv("CLM_TEST_SHARES");
    const char *name = getenv("CLM_DEVICE") ? NULL : "cpu";

    if (n && (name || !strcmp(getenv("CLM_DEVICE"), "cpu")))
        return spread_two(where, atoi(n), n_threads, err);
    if (shares)
        return model_devices_open_group(where, atoi(shares), name, n_threads * atoi(shares), err);
    return model_devices_open(where, name, n_threads, n ? atoi(n) : GPU_LAYERS_AUTO, err);
}

/* A model that cannot be cut there, or not be shared, is whole. */
static inline struct model *spread_model(const char *path, const char *adapter,
                                         const struct model_devices *where, clm_error *err)
{
    struct model *m = model_open_over(path, adapter, where, NULL, err);
    struct model_devices whole = *where;

    if (m ||
        !(where->n_group > 1 ? err->code == CLM_ERR_UNSUPPORTED && strstr(err->message, "shared by")
                             : err->code == CLM_ERR_ARG && where->rest))
        return m;
    *err = (clm_error){0};
    whole.n_group = 0;
    whole.gpu_layers = GPU_LAYERS_ALL;
    return model_open_over(path, adapter, &whole, NULL, err);
}

#endif
