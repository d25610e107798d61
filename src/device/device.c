/* device/device.c: which device there is. */
#include "device/device.h"

#include <stdlib.h>
#include <string.h>

device *device_open(const char *name, int n_threads, clm_error *err)
{
    clm_error missing = {0};
    device *d;

    if (!name)
        name = getenv("CLM_DEVICE");
    if (name && !strcmp(name, "cpu"))
        return device_cpu_open(n_threads, err);
    if (name && !strcmp(name, "cuda"))
        return device_cuda_open(err);
    if (name && *name)
        return fail_null(err, CLM_ERR_ARG, "unknown device %.60s; there are cpu and cuda", name);
    d = device_cuda_open(&missing);
    return d ? d : device_cpu_open(n_threads, err);
}
