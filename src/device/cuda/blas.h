/* device/cuda/blas.h: cuBLASLt, loaded when a product first wants it.
 *
 * Linked, it would make every clm need the library, half a gigabyte of it, and start with mapping
 * it; so its functions are asked for by name. Where it is missing products go to clm's own kernels.
 */
#ifndef DEVICE_CUDA_BLAS_H
#define DEVICE_CUDA_BLAS_H

#include <cublasLt.h>

#include "device/cuda/cuda.h"

/* Functions of cuBLASLt under their own names, without cublasLt in front. */
struct cuda_blas {
    void *library;
    cublasLtHandle_t handle;
    void *workspace; /* device memory, for one product at a time */
    size_t workspace_size;
    decltype(&cublasLtCreate) Create;
    decltype(&cublasLtDestroy) Destroy;
    decltype(&cublasLtMatmul) Matmul;
    decltype(&cublasLtMatmulDescCreate) MatmulDescCreate;
    decltype(&cublasLtMatmulDescDestroy) MatmulDescDestroy;
    decltype(&cublasLtMatmulDescSetAttribute) MatmulDescSetAttribute;
    decltype(&cublasLtMatrixLayoutCreate) MatrixLayoutCreate;
    decltype(&cublasLtMatrixLayoutDestroy) MatrixLayoutDestroy;
    decltype(&cublasLtMatrixLayoutSetAttribute) MatrixLayoutSetAttribute;
    decltype(&cublasLtMatmulPreferenceCreate) MatmulPreferenceCreate;
    decltype(&cublasLtMatmulPreferenceDestroy) MatmulPreferenceDestroy;
    decltype(&cublasLtMatmulPreferenceSetAttribute) MatmulPreferenceSetAttribute;
    decltype(&cublasLtMatmulAlgoGetHeuristic) MatmulAlgoGetHeuristic;
};

/* NULL where there is none, and nothing has failed then. */
struct cuda_blas *cuda_blas_of(struct cuda_device *c);

#endif
