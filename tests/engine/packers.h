/* tests/engine/packers.h: matrices of random numbers, packed as other tools quantise them. Written
 * from the formats' descriptions, number by number. */
#ifndef PACKERS_H
#define PACKERS_H

#include <math.h>

#include "hashed.h"

enum packer {
    AWQ,
    GPTQ,
    PACKED, /* compressed-tensors' pack-quantized */
    INT8,   /* and int-quantized */
    FP8,
    MXFP4,     /* mxfp4-pack-quantized; scales are powers of two */
    MXFP4_DOT, /* DeepSeek V4.1: weight and scale */
    NVFP4,     /* nvfp4-pack-quantized, of scales that are divided by one number */
    NVFP4_2,   /* ModelOpt's, multiplied by weight_scale_2 */
    TERNARY,
    LEVELS, /* of BitNet, not packed: the numbers of TERNARY beside their scale */
    TRAINED /* and such as levels are to be found of */
};

struct layout {
    const char *name;
    const char *family;
    const char *quantization; /* quantization_config */
    enum packer packer;
    int bits;
    int group; /* 0: one for each row; -1: one for all */
    int block; /* FP8: rows of a block */
    enum dtype scales;
    bool zeros, ordered, v2;
};

#define NVFP4_FACTOR 0.0009765625f

/* Some experts have no zero points, and lie in order. */
static inline bool is_mixed(const struct layout *l)
{
    return strstr(l->name, "of which some") != NULL;
}

/* Scales are [rows, 1, columns, 1]. */
static inline bool is_folded(const struct layout *l)
{
    return strstr(l->quantization, "FP8_PB_WO") != NULL;
}

static inline bool is_nvfp4(const struct layout *l)
{
    return l->packer == NVFP4 || l->packer == NVFP4_2;
}

/* One matrix: what it holds, by any means. */
struct matrix {
    const struct layout *l;
    int rows, cols, n_groups, group;
    int *codes;    /* [rows, cols] */
    int *zeros;    /* [rows, n_groups] */
    float *scales; /* [rows, n_groups], as rounded to the type of the file */
    int *group_of; /* [cols] */
    float mean;    /* of the lengths of TRAINED numbers */
};

static inline float rounded(float f, enum dtype type)
{
    return type == DTYPE_F16    ? f16_to_f32(f32_to_f16(f))
           : type == DTYPE_BF16 ? bf16_to_f32(f32_to_bf16(f))
                                : f;
}

/* Every group has its number of inputs, in any order. */
static inline void shuffle(int *group_of, int n)
{
    for (int i = n - 1; i > 0; i--) {
        int j = (int)random_below((size_t)i + 1), swap = group_of[i];

        group_of[i] = group_of[j];
        group_of[j] = swap;
    }
}

static inline float trained(const struct matrix *m, int i)
{
    return rounded((float)(m->codes[i] - m->zeros[0]) * m->scales[0], m->l->scales);
}

static inline struct matrix random_matrix(const struct layout *l, int rows, int cols)
{
    struct matrix m = {.l = l, .rows = rows, .cols = cols};
    int middle = 1 << (l->bits - 1);
    bool plain = is_mixed(l) && random_below(2) == 0;
    double lengths = 0;

    m.group = l->group > 0 ? l->group : cols;
    m.n_groups = (cols + m.group - 1) / m.group;
    m.codes = memory((size_t)rows * (size_t)cols, sizeof(int));
    m.zeros = memory((size_t)rows * (size_t)m.n_groups, sizeof(int));
    m.scales = memory((size_t)rows * (size_t)m.n_groups, sizeof(float));
    m.group_of = memory((size_t)cols, sizeof(int));
    for (int i = 0; i < rows * cols; i++) {
        m.codes[i] = (int)random_below((size_t)1 << l->bits);
        if (l->packer == FP8 && (m.codes[i] & 0x7F) == 0x7F)
            m.codes[i] ^= 1; /* no NaN */
        if (l->packer == TERNARY || l->packer == LEVELS)
            m.codes[i] = (int)random_below(3);
    }
    for (int i = 0; i < rows * m.n_groups; i++) {
        float f;

        random_floats(&f, 1);
        m.scales[i] =
            rounded((l->packer == FP8 ? 0.001f : 0.2f / (float)middle) * (1.5f + f), l->scales);
        if (l->packer == MXFP4 || l->packer == MXFP4_DOT || l->scales == DTYPE_F8_E8M0)
            m.scales[i] = ldexpf(1, -4 - (int)random_below(3));
        if (is_nvfp4(l))
            m.scales[i] = f8_e4m3_to_f32((uint8_t)(0x50 + random_below(0x18))) * NVFP4_FACTOR;
        m.zeros[i] = l->packer == TERNARY || l->packer == LEVELS ? 1
                     : l->zeros && !plain ? (int)random_below((size_t)1 << l->bits)
                                          : middle;
    }
    for (int o = 0; o < rows; o++)
        for (int g = 0; g < m.n_groups; g++) {
            int block = l->packer == FP8 && l->block > 1 ? o / l->block * l->block : o;

            if (l->group < 0)
                block = 0;
            m.scales[o * m.n_groups + g] = m.scales[block * m.n_groups + g];
            if (l->group < 0)
                m.zeros[o] = m.zeros[0];
        }
    for (int i = 0; i < cols; i++)
        m.group_of[i] = i / m.group;
    if (l->ordered && !plain)
        shuffle(m.group_of, cols);
    for (int i = 0; l->packer == TRAINED && i < rows * cols; i++)
        lengths += (double)fabsf(trained(&m, i));
    m.mean = (float)(lengths / rows / cols);
    return m;
}

static inline void free_matrix(struct matrix *m)
{
    free(m->codes);
    free(m->zeros);
    free(m->scales);
    free(m->group_of);
}

/* What the number means. */
static inline float number(const struct matrix *m, int o, int i)
{
    int at = o * m->n_groups + m->group_of[i], code = m->codes[o * m->cols + i];
    float scale = m->scales[at], bias;

    switch (m->l->packer) {
    case FP8:
        return bf16_to_f32(f32_to_bf16(f8_e4m3_to_f32((uint8_t)code) * scale));
    case MXFP4:
    case MXFP4_DOT:
    case NVFP4:
    case NVFP4_2:
        return f4_e2m1_to_f32((unsigned)code) * scale;
    case TRAINED:
        return m->mean * fminf(fmaxf(rintf(trained(m, o * m->cols + i) / m->mean), -1), 1);
    case LEVELS:
    case TERNARY:
        return strstr(m->l->quantization, "autobitlinear") || strcmp(m->l->family, "bitnet") == 0
                   ? (float)(code - 1) * scale
                   : (float)(code - 1) / scale;
    case AWQ: /* zero points times scale are rounded, as mlx-lm has them */
        bias = rounded((float)-m->zeros[at] * scale, m->l->scales);
        return m->group == 32 ? (float)code * scale + bias : (float)(code - m->zeros[at]) * scale;
    default:
        return (float)(code - m->zeros[at]) * scale;
    }
}

/* --- tensors ------------------------------------------------------------------------------------
 */

static inline void put_float(void *data, size_t i, float f, enum dtype type)
{
    uint16_t h = type == DTYPE_F16 ? f32_to_f16(f) : f32_to_bf16(f);

    if (type == DTYPE_F8_E8M0)
        ((uint8_t *)data)[i] = (uint8_t)(f32_bits(f) >> 23);
    else if (type == DTYPE_F32)
        memcpy((uint8_t *)data + 4 * i, &f, 4);
    else
        memcpy((uint8_t *)data + 2 * i, &h, 2);
}

/* Bits [at, at + n) of a stream of words, of which the next lies step words on. */
static inline void put_bits(uint32_t *words, size_t step, int at, int n, unsigned v)
{
    for (int b = 0; b < n; b++)
        if (v >> b & 1)
            words[(size_t)((at + b) / 32) * step] |= 1u << (at + b) % 32;
}

static inline void fold(struct checkpoint_tensor *scales)
{
    scales->n_dims = 4;
    scales->shape[2] = scales->shape[1];
    scales->shape[1] = scales->shape[3] = 1;
}

/* Scales [rows, groups], or [groups, rows]; of fp8 blocks a row for each block. */
static inline void put_scales(struct tiny *t, const struct matrix *m, const char *module,
                              const char *part, bool by_group)
{
    int step = m->l->group < 0 ? m->rows : m->l->block > 1 ? m->l->block : 1;
    int rows = (m->rows + step - 1) / step;
    uint8_t *data = memory((size_t)rows * (size_t)m->n_groups, 4);

    for (int o = 0; o < rows; o++)
        for (int g = 0; g < m->n_groups; g++)
            put_float(data, (size_t)(by_group ? g * rows + o : o * m->n_groups + g),
                      m->scales[o * step * m->n_groups + g], m->l->scales);
    if (m->l->group < 0)
        tiny_put(t, module, part, m->l->scales, 0, 1, 0, data);
    else
        tiny_put(t, module, part, m->l->scales, 0, by_group ? m->n_groups : rows,
                 by_group ? rows : m->n_groups, data);
    if (is_folded(m->l))
        fold(&t->tensors[t->n_tensors - 1]);
}

static inline void put_order(struct tiny *t, const struct matrix *m, const char *module)
{
    int32_t *order = memory((size_t)m->cols, sizeof *order);

    for (int i = 0; i < m->cols; i++)
        order[i] = m->group_of[i];
    tiny_put(t, module, ".g_idx", DTYPE_I32, 0, m->cols, 0, order);
}

static inline void put_awq(struct tiny *t, const struct matrix *m, const char *module)
{
    static const int order[] = {0, 2, 4, 6, 1, 3, 5, 7};
    int words = m->rows / 8;
    uint32_t *q = memory((size_t)(m->cols * words), 4),
             *z = memory((size_t)(m->n_groups * words), 4);

    for (int w = 0; w < words; w++)
        for (int j = 0; j < 8; j++) {
            int o = 8 * w + order[j];

            for (int i = 0; i < m->cols; i++)
                q[i * words + w] |= (uint32_t)m->codes[o * m->cols + i] << 4 * j;
            for (int g = 0; g < m->n_groups; g++)
                z[g * words + w] |= (uint32_t)m->zeros[o * m->n_groups + g] << 4 * j;
        }
    tiny_put(t, module, ".qweight", DTYPE_I32, 0, m->cols, words, q);
    tiny_put(t, module, ".qzeros", DTYPE_I32, 0, m->n_groups, words, z);
    put_scales(t, m, module, ".scales", true);
}

static inline void put_gptq(struct tiny *t, const struct matrix *m, const char *module)
{
    int bits = m->l->bits, words = m->rows * bits / 32;
    bool fields = !m->l->v2 && 32 % bits != 0;
    uint32_t *q = memory((size_t)(m->cols * bits / 32 * m->rows), 4);
    uint32_t *z = memory((size_t)(m->n_groups * words), 4);

    for (int o = 0; o < m->rows; o++) {
        for (int i = 0; i < m->cols; i++)
            put_bits(q + o, (size_t)m->rows, i * bits, bits, (unsigned)m->codes[o * m->cols + i]);
        for (int g = 0; g < m->n_groups; g++)
            put_bits(z + g * words, 1, o * bits, bits,
                     (unsigned)(m->zeros[o * m->n_groups + g] - (fields ? 1 : 0)));
    }
    for (int i = 0; !m->l->v2 && !fields && i < m->n_groups * words; i++)
        z[i] -= UINT32_MAX / ((1u << bits) - 1); /* from all of a word at once */
    tiny_put(t, module, ".qweight", DTYPE_I32, 0, m->cols * bits / 32, m->rows, q);
    tiny_put(t, module, ".qzeros", DTYPE_I32, 0, m->n_groups, words, z);
    put_scales(t, m, module, ".scales", true);
    put_order(t, m, module);
    if (strcmp(m->l->family, "llama") == 0) /* zeros, as AutoGPTQ wrote them */
        tiny_put(t, module, ".bias", DTYPE_F16, 0, m->rows, 0, memory((size_t)m->rows, 2));
}

static inline void put_packed(struct tiny *t, const struct matrix *m, const char *module)
{
    int bits = m->l->bits, words = m->cols * bits / 32, down = m->rows * bits / 32;
    uint32_t *q = memory((size_t)(m->rows * words), 4),
             *z = memory((size_t)(down * m->n_groups), 4);
    int64_t *shape = memory(2, sizeof *shape);

    for (int o = 0; o < m->rows; o++) {
        for (int i = 0; i < m->cols; i++)
            put_bits(q + o * words, 1, i * bits, bits, (unsigned)m->codes[o * m->cols + i]);
        for (int g = 0; g < m->n_groups; g++)
            put_bits(z + g, (size_t)m->n_groups, o * bits, bits,
                     (unsigned)m->zeros[o * m->n_groups + g]);
    }
    tiny_put(t, module, ".weight_packed", DTYPE_I32, 0, m->rows, words, q);
    tiny_put(t, module, ".weight_shape", DTYPE_I64, 0, 2, 0, shape);
    put_scales(t, m, module, ".weight_scale", false);
    if (m->l->zeros)
        tiny_put(t, module, ".weight_zero_point", DTYPE_I32, 0, down, m->n_groups, z);
    else
        free(z);
}

static inline void put_bytes(struct tiny *t, const struct matrix *m, const char *module)
{
    bool fp8 = m->l->packer == FP8;
    uint8_t *q = memory((size_t)(m->rows * m->cols), 1);
    int8_t *z = memory((size_t)(m->rows * m->n_groups), 1);

    for (int i = 0; i < m->rows * m->cols; i++)
        q[i] = (uint8_t)(m->codes[i] - (fp8 ? 0 : 128));
    for (int i = 0; i < m->rows * m->n_groups; i++)
        z[i] = (int8_t)(m->zeros[i] - 128);
    tiny_put(t, module, ".weight", fp8 ? DTYPE_F8_E4M3 : DTYPE_I8, 0, m->rows, m->cols, q);
    put_scales(t, m, module,
               m->l->block > 1 && !is_folded(m->l) ? ".weight_scale_inv" : ".weight_scale", false);
    if (m->l->zeros && m->l->group < 0)
        tiny_put(t, module, ".weight_zero_point", DTYPE_I8, 0, 1, 0, z);
    else if (m->l->zeros)
        tiny_put(t, module, ".weight_zero_point", DTYPE_I8, 0, m->rows, m->n_groups, z);
    else
        free(z);
}

/* The byte of e4m3 that a scale was made of. */
static inline uint8_t e4m3_of(float scale)
{
    for (int byte = 0x50; byte < 0x68; byte++)
        if (f8_e4m3_to_f32((uint8_t)byte) * NVFP4_FACTOR == scale)
            return (uint8_t)byte;
    CHECK(false, "no byte for %g", (double)scale);
    return 0;
}

static inline void put_fp4(struct tiny *t, const struct matrix *m, const char *module)
{
    enum packer packer = m->l->packer;
    bool packed = packer == MXFP4 || packer == NVFP4, wide = is_nvfp4(m->l);
    const char *scale = packer == MXFP4_DOT ? ".scale" : ".weight_scale";
    float *factor;
    uint8_t *q = memory((size_t)(m->rows * m->cols / 2), 1);
    uint8_t *scales = memory((size_t)(m->rows * m->n_groups), 1);

    for (int i = 0; i < m->rows * m->cols; i++)
        q[i / 2] |= (uint8_t)(m->codes[i] << i % 2 * 4);
    for (int i = 0; i < m->rows * m->n_groups; i++)
        scales[i] = wide ? e4m3_of(m->scales[i]) : (uint8_t)(127 + ilogbf(m->scales[i]));
    tiny_put(t, module, packed ? ".weight_packed" : ".weight",
             packer == MXFP4_DOT ? DTYPE_I8 : DTYPE_U8, 0, m->rows, m->cols / 2, q);
    tiny_put(t, module, scale, m->l->scales, 0, m->rows, m->n_groups, scales);
    if (!wide)
        return;
    factor = memory(1, sizeof *factor);
    *factor = packed ? 1 / NVFP4_FACTOR : NVFP4_FACTOR;
    tiny_put(t, module, packed ? ".weight_global_scale" : ".weight_scale_2", DTYPE_F32, 0, 1, 0,
             factor);
}

static inline void put_ternary(struct tiny *t, const struct matrix *m, const char *module)
{
    int quarter = m->rows / 4;
    uint8_t *q = memory((size_t)(quarter * m->cols), 1);

    for (int o = 0; o < m->rows; o++)
        for (int i = 0; i < m->cols; i++)
            q[o % quarter * m->cols + i] |=
                (uint8_t)(m->codes[o * m->cols + i] << 2 * (o / quarter));
    tiny_put(t, module, ".weight", DTYPE_U8, 0, quarter, m->cols, q);
    put_scales(t, m, module, ".weight_scale", false);
}

static inline void put_levels(struct tiny *t, const struct matrix *m, const char *module)
{
    uint8_t *w = memory((size_t)(m->rows * m->cols), 4);

    for (int i = 0; i < m->rows * m->cols; i++)
        put_float(w, (size_t)i, m->l->packer == TRAINED ? trained(m, i) : (float)(m->codes[i] - 1),
                  m->l->scales);
    tiny_put(t, module, ".weight", m->l->scales, 0, m->rows, m->cols, w);
    if (m->l->packer == LEVELS)
        put_scales(t, m, module, ".weight_scale", false);
}

static inline void put_matrix(struct tiny *t, const struct matrix *m, const char *module)
{
    switch (m->l->packer) {
    case AWQ:
        put_awq(t, m, module);
        break;
    case GPTQ:
        put_gptq(t, m, module);
        break;
    case PACKED:
        put_packed(t, m, module);
        break;
    case INT8:
    case FP8:
        put_bytes(t, m, module);
        break;
    case MXFP4:
    case MXFP4_DOT:
    case NVFP4:
    case NVFP4_2:
        put_fp4(t, m, module);
        break;
    case TERNARY:
        put_ternary(t, m, module);
        break;
    case LEVELS:
    case TRAINED:
        put_levels(t, m, module);
        break;
    }
}

static inline void put_numbers(struct tiny *t, const struct matrix *m, const char *module)
{
    float *w = memory((size_t)(m->rows * m->cols), sizeof *w);

    for (int o = 0; o < m->rows; o++)
        for (int i = 0; i < m->cols; i++)
            w[o * m->cols + i] = number(m, o, i);
    tiny_put(t, module, ".weight", DTYPE_F32, 0, m->rows, m->cols, w);
}

#endif
