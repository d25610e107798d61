#include "device/cuda/blas.h"

#include <dlfcn.h>
#include <stdio.h>

extern "C" {
#include "base/memory.h"
}

enum { WORKSPACE = 32 << 20 }; /* as NVIDIA recommends for Hopper */

/* The library of the CUDA that clm was built with: others have other structs. */
static void *open_library(void)
{
    char name[1024];

    snprintf(name, sizeof name, "libcublasLt.so.%d", CUDART_VERSION / 1000);
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);

#ifdef CLM_CUDA_LIBRARIES /* where the toolkit that built it has its own */
    if (!library) {
        snprintf(name, sizeof name, "%s/libcublasLt.so.%d", CLM_CUDA_LIBRARIES,
                 CUDART_VERSION / 1000);
        library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
#endif
    return library;
}

/* False where the library has no such function. */
template <typename F> static bool find(const struct cuda_blas *b, F *function, const char *name)
{
    *function = (F)dlsym(b->library, name);
    return *function;
}

static bool find_all(struct cuda_blas *b)
{
    return find(b, &b->Create, "cublasLtCreate") && find(b, &b->Destroy, "cublasLtDestroy") &&
           find(b, &b->Matmul, "cublasLtMatmul") &&
           find(b, &b->MatmulDescCreate, "cublasLtMatmulDescCreate") &&
           find(b, &b->MatmulDescDestroy, "cublasLtMatmulDescDestroy") &&
           find(b, &b->MatmulDescSetAttribute, "cublasLtMatmulDescSetAttribute") &&
           find(b, &b->MatrixLayoutCreate, "cublasLtMatrixLayoutCreate") &&
           find(b, &b->MatrixLayoutDestroy, "cublasLtMatrixLayoutDestroy") &&
           find(b, &b->MatrixLayoutSetAttribute, "cublasLtMatrixLayoutSetAttribute") &&
           find(b, &b->MatmulPreferenceCreate, "cublasLtMatmulPreferenceCreate") &&
           find(b, &b->MatmulPreferenceDestroy, "cublasLtMatmulPreferenceDestroy") &&
           find(b, &b->MatmulPreferenceSetAttribute, "cublasLtMatmulPreferenceSetAttribute") &&
           find(b, &b->MatmulAlgoGetHeuristic, "cublasLtMatmulAlgoGetHeuristic");
}

static bool load(struct cuda_blas *b)
{
    b->library = open_library();
    if (!b->library || !find_all(b) || b->Create(&b->handle) != CUBLAS_STATUS_SUCCESS)
        return false;
    b->workspace_size = WORKSPACE;
    return cudaMalloc(&b->workspace, WORKSPACE) == cudaSuccess;
}

static void load_task(void *ctx)
{
    struct cuda_blas *b = (struct cuda_blas *)ctx;

    cudaSetDevice(b->index);
    b->loaded = load(b);
    if (!b->loaded)
        (void)cudaGetLastError();
}

/* It is loaded, or not to be had. */
static void end_task(struct cuda_blas *b)
{
    thread_task_join(b->task);
    b->task = NULL;
}

void cuda_blas_close(struct cuda_device *c)
{
    struct cuda_blas *b = c->blas;

    if (!b)
        return;
    end_task(b);
    cudaFree(b->workspace);
    if (b->handle)
        b->Destroy(b->handle);
    if (b->library)
        dlclose(b->library);
    mem_free(b);
    c->blas = NULL;
}

/* A library that is not loaded yet; false where there will be none. */
static bool begin(struct cuda_device *c)
{
    if (c->blas || c->no_blas)
        return false;
    c->blas = (struct cuda_blas *)mem_zeroed(1, sizeof *c->blas);
    c->no_blas = !c->blas;
    if (c->blas)
        c->blas->index = c->index;
    return c->blas;
}

void cuda_blas_expect(struct cuda_device *c)
{
    if (!begin(c))
        return;
    c->blas->task = thread_task_start(load_task, c->blas, NULL);
    if (!c->blas->task) /* then as late as it can be */
        cuda_blas_close(c);
}

struct cuda_blas *cuda_blas_of(struct cuda_device *c)
{
    if (begin(c))
        load_task(c->blas);
    else if (c->blas && c->blas->task)
        end_task(c->blas);
    if (c->blas && !c->blas->loaded) {
        cuda_blas_close(c);
        c->no_blas = true;
    }
    return c->blas;
}
