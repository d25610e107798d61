/* device/cpu/matmul_amx.c: which products are better in the tiles of AMX, and how fast these are.
 */
#include "device/cpu/matmul_amx.h"
#include "device/cpu/matmul_avx512.h"
#include "device/cpu/tiles_amx.h"

/* Rows up to which the kernels for AVX-512 are better. */
#define FEW_DENSE 8    /* of bf16, and of fp8, which those take to f32 */
#define FEW_INTEGER 32 /* of codes, which those take as whole numbers */

#define ROUNDS 400

static const struct cpu_product *choose(const struct weight *w, int n_rows, bool exact)
{
    int few = w->format == WEIGHT_BF16 || weight_is_e4m3(w) ? FEW_DENSE : FEW_INTEGER;

    if (!exact && n_rows > few && w->format >= WEIGHT_BF16)
        return &amx_gemm_bf16;
    return avx512_choose(w, n_rows, exact);
}

/* What tiles hold makes no difference to their speed, zeros included. */
static double bf16_burst(void)
{
    tiles_begin();
    for (int i = 0; i < ROUNDS; i++) {
        tile_multiply_bf16(0, 4, 6);
        tile_multiply_bf16(1, 5, 6);
        tile_multiply_bf16(2, 4, 7);
        tile_multiply_bf16(3, 5, 7);
    }
    tiles_end();
    return 2.0 * 16 * 16 * 32 * 4 * ROUNDS;
}

static double int8_burst(void)
{
    tiles_begin();
    for (int i = 0; i < ROUNDS; i++) {
        tile_multiply_int8(0, 4, 6);
        tile_multiply_int8(1, 5, 6);
        tile_multiply_int8(2, 4, 7);
        tile_multiply_int8(3, 5, 7);
    }
    tiles_end();
    return 2.0 * 16 * 16 * 64 * 4 * ROUNDS;
}

void cpu_matmul_kernels_amx(struct cpu_matmul_kernels *k)
{
    cpu_matmul_kernels_avx512(k);
    k->choose = choose;
    k->int8_burst = int8_burst;
    k->bf16_burst = bf16_burst;
}
