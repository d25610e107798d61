/* device/cuda/absent.c: the CUDA device of a clm that was built without one. */
#include "device/device.h"

device *device_cuda_open(clm_error *err)
{
    return device_cuda_open_at(0, err);
}

device *device_cuda_open_at(int index, clm_error *err)
{
    (void)index;
    return fail_null(err, CLM_ERR_UNSUPPORTED,
                     "cuda: this clm was built without CUDA; build it where nvcc is found");
}
