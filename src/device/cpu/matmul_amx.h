/* device/cpu/matmul_amx.h: the matrix kernels for AMX, beside those for AVX-512. */
#ifndef DEVICE_CPU_MATMUL_AMX_H
#define DEVICE_CPU_MATMUL_AMX_H

#include "device/cpu/matmul_kernels.h"

extern const struct cpu_product amx_gemm_bf16; /* bf16 and quantised; many rows */

#endif
