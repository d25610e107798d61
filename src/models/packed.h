/* models/packed.h: matrices of whole numbers as other tools pack them.
 *
 *     kind       codes                                    scales            zero points
 *     AWQ        u32 [n_in, rows / 8], 4 bits each, in    [groups, rows]    packed as codes
 *                the order 0 2 4 6 1 3 5 7 of columns
 *     GPTQ       u32 [n_in * bits / 32, rows]: a stream   [groups, rows]    u32 [groups, rows *
 * bits of bits down each column                                   / 32], streams; v1: - 1 ROWS u32
 * [rows, n_in * bits / 32], the        [rows, groups]    u32 [rows * bits / 32, lowest bits first
 * groups] INT8       i8 [rows, n_in]                          [rows, groups]    i8 [rows, groups]
 *     TERNARY    u8 [rows / 4, n_in]: bits 2j and 2j + 1  one               1
 *                are of row o + j * rows / 4
 *     LEVELS     numbers [rows, n_in], see levels.c       one, or none      1
 *
 * AutoAWQ; GPTQModel; compressed-tensors (pack-quantized, int-quantized); BitNet as transformers
 * has it. Codes of INT8 count from -128, those of all others from 0.
 */
#ifndef MODELS_PACKED_H
#define MODELS_PACKED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "device/weight.h"

enum packing { PACK_AWQ, PACK_GPTQ, PACK_ROWS, PACK_INT8, PACK_TERNARY, PACK_LEVELS };

/* w[o, i] = (code - zero) * scale, of the group of input i. All in host memory, any alignment. */
struct packed {
    enum packing kind;
    int bits;
    int64_t rows;
    int n_in, n_groups, group_size; /* input i is of group i / group_size, or as g_idx says */
    const uint8_t *codes;
    const uint8_t *zeros;  /* NULL: the middle, 2^(bits - 1); 1 of TERNARY and LEVELS */
    int zero_add;          /* to what zeros hold */
    bool one_zero;         /* of INT8: one for all */
    const uint8_t *scales; /* NULL: all are level */
    float level;
    float to_levels; /* of LEVELS: what makes its numbers such as are rounded to -1, 0 and 1 */
    enum dtype number_type;
    enum dtype scale_type;
    int64_t scale_row, scale_group; /* steps, in numbers */
    bool divides;                   /* weights are divided by their scale */
    const uint8_t *g_idx;           /* i32 [n_in], each below n_groups; NULL: in order */
};

int packed_group(const struct packed *m, int i);
float packed_scale(const struct packed *m, int64_t row, int group);
int packed_zero(const struct packed *m, int64_t row, int group);

/* MLX's size of groups that serves the groups of the file; 0: none does. */
int packed_affine_group(const struct packed *m);

/* The type of the biases, -zero * scale, in MLX's affine form. */
enum dtype packed_bias_type(const struct packed *m);

/* What the numbers become where there is no affine form. */
enum weight_format packed_dense_format(const struct packed *m);

/* codes[r * n_in + i] = the code of input i of row rows[r], from 0 on. */
void packed_codes(uint8_t *codes, const struct packed *m, const int64_t *rows, int n_rows);

/**
 * Rows as MLX packs them, words of codes along the row, the first in the lowest bits; row r goes to
 * out + r * n_in * bits / 8, and inputs stay in their order. False, with nothing done, where words
 * of the file do not hold what such words need: codes then go one by one.
 */
bool packed_words(uint8_t *out, const struct packed *m, const int64_t *rows, int n_rows);

/* One row as numbers, as they are in the affine form where there is one; codes: room for n_in. */
void packed_row_f32(float *out, const struct packed *m, int64_t row, uint8_t *codes);

#endif
