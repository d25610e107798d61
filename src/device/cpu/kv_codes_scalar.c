/* device/cpu/kv_codes_scalar.c: keys and values as codes of 4 or 8 bits, in plain C. */
#include "device/affine.h"
#include "device/cpu/vector_kernels.h"

void cpu_kv_codes_kernels_scalar(struct cpu_vector_kernels *k)
{
    k->quantise = affine_quantise;
    k->dequantise = affine_dequantise;
    k->round_queries = NULL;
    k->score_codes = NULL;
    k->weigh_codes = NULL;
}
