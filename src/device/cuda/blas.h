/* device/cuda/blas.h: cuBLASLt, loaded when a product first wants it.
 *
 * Linked, it would make every clm need the library, half a gigabyte of it, and start with mapping
 * it; so its functions are asked for by name. Where it is missing products go to clm's own kernels.
 * Loading it takes as long as some GB of weights take, so that it is begun when these come.
 */
#ifndef DEVICE_CUDA_BLAS_H
#define DEVICE_CUDA_BLAS_H

#include <cublasLt.h>

#include "device/cuda/cuda.h"

extern "C" {
#include "base/thread.h"
}

/* A product: w [n_out, n_in], x [n_rows, n_in], y; what an algorithm is found for. */
struct cuda_blas_shape {
    int n_out, n_rows, n_in;
    cudaDataType_t types[3];
    int64_t strides[3];
    uint32_t alignments[3], zero;
};

struct cuda_blas_plan {
    struct cuda_blas_shape shape;
    cublasLtMatmulAlgo_t algo;
};

enum { CUDA_BLAS_PLANS = 64 };

/* Functions of cuBLASLt under their own names, without cublasLt in front. */
struct cuda_blas {
    int index;         /* of the GPU */
    thread_task *task; /* that loads it; NULL: it is loaded */
    bool loaded;
    void *library;
    cublasLtHandle_t handle;
    void *workspace; /* device memory, for one product at a time */
    size_t workspace_size;
    struct cuda_blas_plan plans[CUDA_BLAS_PLANS];
    int next_plan; /* to be taken for another shape */
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

/* It will be asked for: load it on another thread meanwhile. */
void cuda_blas_expect(struct cuda_device *c);

#endif
