#include "models/packed.h"

#include <math.h>

#include "base/number.h"

/* Where column c of eight lies in an AWQ word. */
static const unsigned awq_place[] = {0, 4, 1, 5, 2, 6, 3, 7};

int packed_group(const struct packed *m, int i)
{
    return m->g_idx ? (int)load_le32(m->g_idx + 4 * (size_t)i) : i / m->group_size;
}

float packed_scale(const struct packed *m, int64_t row, int group)
{
    size_t at = (size_t)(row * m->scale_row + group * m->scale_group);
    float s;

    if (!m->scales)
        return m->level;
    dtype_to_f32(&s, m->scales + at * dtype_size(m->scale_type), m->scale_type, 1);
    return m->divides ? 1 / s : s;
}

/* bits of a column of a matrix of words, width words to a row, from bit at on. */
static unsigned column_bits(const uint8_t *words, int64_t width, int64_t column, int64_t at,
                            int bits)
{
    const uint8_t *p = words + 4 * (size_t)(at / 32 * width + column);
    int shift = (int)(at % 32);
    unsigned v = load_le32(p) >> shift;

    if (shift + bits > 32)
        v |= load_le32(p + 4 * (size_t)width) << (32 - shift);
    return v & ((1u << bits) - 1);
}

/* The same of a row of words. */
static unsigned row_bits(const uint8_t *words, int64_t at, int bits)
{
    return column_bits(words, 1, 0, at, bits);
}

/* Zero points of a word, each one more. GPTQModel takes 1 from all of a word at once, so that where
 * one is 0 the next lends; of 3 bits, which go on in the next word, from each. */
static unsigned add_to_zeros(uint32_t word, int64_t at, int bits)
{
    uint32_t ones = UINT32_MAX / ((1u << bits) - 1);

    return (word + ones) >> at % 32 & ((1u << bits) - 1);
}

static int gptq_zero(const struct packed *m, const uint8_t *z, int64_t at)
{
    if (m->zero_add && 32 % m->bits == 0)
        return (int)add_to_zeros(load_le32(z + 4 * (size_t)(at / 32)), at, m->bits);
    return ((int)row_bits(z, at, m->bits) + m->zero_add) & ((1 << m->bits) - 1);
}

int packed_zero(const struct packed *m, int64_t row, int group)
{
    int64_t words = m->rows * m->bits / 32;
    const uint8_t *z = m->zeros;

    if (!z)
        return m->kind == PACK_TERNARY || m->kind == PACK_LEVELS ? 1 : 1 << (m->bits - 1);
    switch (m->kind) {
    case PACK_AWQ:
        z += 4 * (size_t)(group * words + row / 8);
        return (int)(load_le32(z) >> 4 * awq_place[row % 8] & 15) + m->zero_add;
    case PACK_GPTQ:
        return gptq_zero(m, z + 4 * (size_t)(group * words), row * m->bits);
    case PACK_ROWS:
        return (int)column_bits(z, m->n_groups, group, row * m->bits, m->bits) + m->zero_add;
    case PACK_INT8:
        return (int8_t)z[m->one_zero ? 0 : row * m->n_groups + group] + 128;
    default:
        return 1;
    }
}

/* Each word of a row of the file holds eight columns: the rows wanted are read side by side. */
static void awq_codes(uint8_t *codes, const struct packed *m, const int64_t *rows, int n_rows)
{
    for (int i = 0; i < m->n_in; i++) {
        const uint8_t *words = m->codes + (size_t)i * (size_t)(m->rows / 2);

        for (int r = 0; r < n_rows; r++)
            codes[(size_t)r * (size_t)m->n_in + (size_t)i] =
                load_le32(words + 4 * (size_t)(rows[r] / 8)) >> 4 * awq_place[rows[r] % 8] & 15;
    }
}

static void gptq_codes(uint8_t *codes, const struct packed *m, const int64_t *rows, int n_rows)
{
    for (int i = 0; i < m->n_in; i++)
        for (int r = 0; r < n_rows; r++)
            codes[(size_t)r * (size_t)m->n_in + (size_t)i] =
                (uint8_t)column_bits(m->codes, m->rows, rows[r], (int64_t)i * m->bits, m->bits);
}

/* Of numbers: 0, 1 and 2 for those about -1, 0 and 1. */
static void level_codes(uint8_t *codes, const struct packed *m, int64_t row)
{
    enum { RUN = 256 };
    const uint8_t *p = m->codes + (size_t)row * (size_t)m->n_in * dtype_size(m->number_type);
    float run[RUN];

    for (int i = 0; i < m->n_in; i += RUN) {
        int n = m->n_in - i < RUN ? m->n_in - i : RUN;

        dtype_to_f32(run, p + (size_t)i * dtype_size(m->number_type), m->number_type, (size_t)n);
        for (int j = 0; j < n; j++)
            codes[i + j] = (uint8_t)(1 + fminf(fmaxf(rintf(run[j] * m->to_levels), -1), 1));
    }
}

static void row_codes(uint8_t *codes, const struct packed *m, int64_t row)
{
    int64_t words = ((int64_t)m->n_in * m->bits + 31) / 32, quarter = (m->rows + 3) / 4;
    const uint8_t *p = m->codes;

    switch (m->kind) {
    case PACK_ROWS:
        p += 4 * (size_t)(row * words);
        for (int i = 0; i < m->n_in; i++)
            codes[i] = (uint8_t)row_bits(p, (int64_t)i * m->bits, m->bits);
        break;
    case PACK_INT8:
        p += (size_t)row * (size_t)m->n_in;
        for (int i = 0; i < m->n_in; i++)
            codes[i] = p[i] ^ 0x80;
        break;
    case PACK_LEVELS:
        level_codes(codes, m, row);
        break;
    default: /* PACK_TERNARY */
        p += (size_t)(row % quarter) * (size_t)m->n_in;
        for (int i = 0; i < m->n_in; i++)
            codes[i] = p[i] >> 2 * (row / quarter) & 3;
        break;
    }
}

void packed_codes(uint8_t *codes, const struct packed *m, const int64_t *rows, int n_rows)
{
    if (m->kind == PACK_AWQ)
        awq_codes(codes, m, rows, n_rows);
    else if (m->kind == PACK_GPTQ)
        gptq_codes(codes, m, rows, n_rows);
    else
        for (int r = 0; r < n_rows; r++)
            row_codes(codes + (size_t)r * (size_t)m->n_in, m, rows[r]);
}

static void store_word(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

bool packed_words(uint8_t *out, const struct packed *m, const int64_t *rows, int n_rows)
{
    size_t row_bytes = (size_t)m->n_in * (size_t)m->bits / 8;
    int words = (int)(row_bytes / 4);

    if ((m->kind != PACK_GPTQ && m->kind != PACK_AWQ) || 32 % m->bits || row_bytes % 4)
        return false;
    for (int w = 0; w < words; w++)
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *p;
            uint32_t v = 0;

            if (m->kind == PACK_GPTQ) { /* the words are there, down a column */
                v = load_le32(m->codes + 4 * ((size_t)w * (size_t)m->rows + (size_t)rows[r]));
            } else { /* four bits of each of eight words */
                p = m->codes + (size_t)w * 8 * (size_t)(m->rows / 2) + 4 * (size_t)(rows[r] / 8);
                for (int k = 0; k < 8; k++, p += m->rows / 2)
                    v |= (load_le32(p) >> 4 * awq_place[rows[r] % 8] & 15) << 4 * k;
            }
            store_word(out + (size_t)r * row_bytes + 4 * (size_t)w, v);
        }
    return true;
}

int packed_affine_group(const struct packed *m)
{
    for (int g = 128; g >= 32; g /= 2)
        if (m->group_size % g == 0 && m->n_in % m->group_size == 0)
            return g;
    return 0;
}

/* Biases are exact in the type of the scales where zero points are in the middle, a power of two;
 * of others in f32. AutoAWQ's are rounded as mlx-lm does, which halves them. */
enum dtype packed_bias_type(const struct packed *m)
{
    return m->divides || (m->zeros && m->kind != PACK_AWQ) ? DTYPE_F32 : m->scale_type;
}

enum weight_format packed_dense_format(const struct packed *m)
{
    if (m->divides || m->scale_type == DTYPE_F32)
        return WEIGHT_F32;
    return m->scale_type == DTYPE_F16 ? WEIGHT_F16 : WEIGHT_BF16;
}

static float rounded(float f, enum dtype type)
{
    return type == DTYPE_F16    ? f16_to_f32(f32_to_f16(f))
           : type == DTYPE_BF16 ? bf16_to_f32(f32_to_bf16(f))
                                : f;
}

void packed_row_f32(float *out, const struct packed *m, int64_t row, uint8_t *codes)
{
    bool biased = m->kind == PACK_AWQ && packed_affine_group(m);
    float scale = 0, bias = 0;
    int last = -1, zero = 0;

    packed_codes(codes, m, &row, 1);
    for (int i = 0; i < m->n_in; i++) {
        int g = packed_group(m, i);

        if (g != last) {
            zero = packed_zero(m, row, g);
            scale = packed_scale(m, row, g);
            bias = rounded(-(float)zero * scale, packed_bias_type(m));
            last = g;
        }
        out[i] = biased ? (float)codes[i] * scale + bias : (float)(codes[i] - zero) * scale;
    }
}
