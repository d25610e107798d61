/* device/device.c: which device there is. */
#include "device/device.h"

#include <stdlib.h>
#include <string.h>

#include "base/thread.h"

device *device_open(const char *name, int n_threads, clm_error *err)
{
    const char *from = name ? "" : "CLM_DEVICE: ";
    clm_error missing = {0};
    device *d;

    if (!name)
        name = getenv("CLM_DEVICE");
    if (name && !strcmp(name, "cpu"))
        return device_cpu_open(n_threads, err);
    if (name && !strcmp(name, "cuda"))
        return device_cuda_open(err);
    if (name && *name)
        return fail_null(err, CLM_ERR_ARG, "%sunknown device %.60s; there are cpu and cuda", from,
                         name);
    d = device_cuda_open(&missing);
    return d ? d : device_cpu_open(n_threads, err);
}

/* As many threads for each of n CPUs. */
static int share_of_threads(int n_threads, int n)
{
    int share = (n_threads > 0 ? n_threads : thread_count_default()) / n;

    return share > 0 ? share : 1;
}

/* The others are of the kind of the first. */
static int open_others(device **ds, int n, int n_threads, clm_error *err)
{
    for (int i = 1; i < n; i++) {
        ds[i] =
            ds[0]->ops->reads_host ? device_cpu_open(n_threads, err) : device_cuda_open_at(i, err);
        if (!ds[i])
            return -1;
    }
    if (n > 1 && !ds[0]->ops->join)
        return fail(err, CLM_ERR_UNSUPPORTED, "%d devices: those of %s cannot work together", n,
                    ds[0]->ops->name);
    return n > 1 ? ds[0]->ops->join(ds, n, err) : 0;
}

int device_open_group(device **ds, int n, const char *name, int n_threads, clm_error *err)
{
    if (n < 1 || n > DEVICE_MAX_GROUP)
        return fail(err, CLM_ERR_ARG, "%d devices at work together: there can be 1 to %d", n,
                    DEVICE_MAX_GROUP);
    memset(ds, 0, (size_t)n * sizeof *ds);
    n_threads = n > 1 ? share_of_threads(n_threads, n) : n_threads;
    ds[0] = device_open(name, n_threads, err);
    if (ds[0] && open_others(ds, n, n_threads, err) == 0)
        return 0;
    for (int i = 0; i < n; i++) {
        if (ds[i])
            ds[i]->ops->close(ds[i]);
        ds[i] = NULL;
    }
    return -1;
}
