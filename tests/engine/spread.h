/* tests/engine/spread.h: the devices of a test: the CPU, or what CLM_DEVICE names. With
 * CLM_TEST_SPLIT=N in the environment the last N layers of every model are apart: on the GPU, if
 * CLM_DEVICE says cuda, else on a second CPU that keeps its memory to itself and brings results by
 * mail as a GPU does ("all": all of them); with
 * CLM_TEST_SHARES=N there are so many devices that compute every layer together. */
#ifndef SPREAD_H
#define SPREAD_H

#include <string.h>

#include "models/model.h"
#include "testing.h"

/* What a device like a GPU says of its free memory. */
static size_t spread_free_bytes = SIZE_MAX / 2;
static struct device_ops spread_ops;
static int spread_letters; /* sent so far */

static inline size_t spread_available(device *d)
{
    (void)d;
    return spread_free_bytes;
}

struct device_mail {
    char *sent; /* [2, size] */
    size_t size;
    int n; /* so far */
};

static inline struct device_mail *spread_mail_open(device *d, size_t size, clm_error *err)
{
    struct device_mail *m = mem_zeroed(1, sizeof *m);

    (void)d;
    if (m)
        m->sent = mem_alloc(2 * size);
    if (m && m->sent) {
        m->size = size;
        return m;
    }
    mem_free(m);
    return fail_null(err, CLM_ERR_NOMEM, "no memory for mail");
}

static inline void spread_mail_close(device *d, struct device_mail *m)
{
    (void)d;
    if (m)
        mem_free(m->sent);
    mem_free(m);
}

static inline int spread_mail_send(device *d, struct device_mail *m, const void *from, size_t size,
                                   clm_error *err)
{
    CHECK(size <= m->size && size % 4 == 0, "a letter of %zu bytes", size);
    if (d->ops->sync(d, err))
        return -1;
    memcpy(m->sent + (size_t)(m->n++ % 2) * m->size, from, size);
    spread_letters++;
    return 0;
}

static inline const void *spread_mail_await(device *d, struct device_mail *m, bool before,
                                            clm_error *err)
{
    (void)d, (void)err;
    return m->sent + (size_t)((m->n + 1 - before) % 2) * m->size;
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
    spread_ops.states_stay = spread_ops.states_stay && gpu_layers != GPU_LAYERS_ALL;
    spread_ops.mail_open = spread_mail_open;
    spread_ops.mail_close = spread_mail_close;
    spread_ops.mail_send = spread_mail_send;
    spread_ops.mail_await = spread_mail_await;
    where->dev->ops = &spread_ops;
    return 0;
}

static inline int spread_open(struct model_devices *where, int n_threads, clm_error *err)
{
    const char *n = getenv("CLM_TEST_SPLIT"), *shares = getenv("CLM_TEST_SHARES");
    const char *name = getenv("CLM_DEVICE") ? NULL : "cpu";

    if (n && (name || !strcmp(getenv("CLM_DEVICE"), "cpu")))
        return spread_two(where, !strcmp(n, "all") ? GPU_LAYERS_ALL : atoi(n), n_threads, err);
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
