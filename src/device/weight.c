#include "device/weight.h"

#include "base/memory.h"
#include "base/number.h"

static bool is_quantised(enum weight_format format)
{
    return format >= WEIGHT_AFFINE;
}

static size_t scale_size(const struct weight *w)
{
    if (w->format == WEIGHT_FP8)
        return 4;
    return w->format == WEIGHT_AFFINE ? dtype_size(w->scale_type) : 1;
}

size_t weight_row_bytes(const struct weight *w)
{
    size_t n = (size_t)w->n_in;

    switch (w->format) {
    case WEIGHT_F32:
        return 4 * n;
    case WEIGHT_F16:
    case WEIGHT_BF16:
        return 2 * n;
    case WEIGHT_AFFINE:
        return n * (size_t)w->bits / 8;
    case WEIGHT_MXFP4:
    case WEIGHT_NVFP4:
        return n / 2;
    case WEIGHT_MXFP8:
    case WEIGHT_FP8:
        return n;
    case WEIGHT_FORMATS:
        break;
    }
    return 0;
}

size_t weight_scale_row_bytes(const struct weight *w)
{
    if (!is_quantised(w->format))
        return 0;
    return ((size_t)w->n_in + (size_t)w->group_size - 1) / (size_t)w->group_size * scale_size(w);
}

size_t weight_scale_rows(const struct weight *w)
{
    size_t rows = (size_t)w->n_out;

    if (w->format != WEIGHT_FP8)
        return rows;
    return (rows + (size_t)w->scale_row + (size_t)w->scale_rows - 1) / (size_t)w->scale_rows;
}

size_t weight_bytes(const struct weight *w)
{
    size_t per_group = w->format == WEIGHT_AFFINE ? 2 : 1; /* a bias beside the scale */

    return (size_t)w->n_out * weight_row_bytes(w) +
           weight_scale_rows(w) * per_group * weight_scale_row_bytes(w);
}

struct weight weight_columns(const struct weight *w, int first, int n)
{
    struct weight part = *w, before = *w;

    before.n_in = first;
    part.n_in = n;
    part.data = (const uint8_t *)w->data + weight_row_bytes(&before);
    if (w->scales)
        part.scales = (const uint8_t *)w->scales + weight_scale_row_bytes(&before);
    if (w->biases)
        part.biases = (const uint8_t *)w->biases + weight_scale_row_bytes(&before);
    return part;
}

struct weight weight_rows(const struct weight *w, int first, int n)
{
    struct weight part = *w;
    size_t scales = (size_t)first * weight_scale_row_bytes(w);

    part.n_out = n;
    if (w->format == WEIGHT_FP8) {
        part.scale_row = (w->scale_row + first) % w->scale_rows;
        scales = (size_t)(weight_fp8_scales(w, first) - (const uint8_t *)w->scales);
    }
    part.data = (const uint8_t *)w->data + (size_t)first * weight_row_bytes(w);
    if (w->scales)
        part.scales = (const uint8_t *)w->scales + scales;
    if (w->biases)
        part.biases = (const uint8_t *)w->biases + scales;
    return part;
}

static float load_float(const uint8_t *p, enum dtype type)
{
    if (type == DTYPE_F32)
        return bits_f32(load_le32(p));
    return type == DTYPE_F16 ? f16_to_f32(load_le16(p)) : bf16_to_f32(load_le16(p));
}

/* Value i of a little-endian stream of values of some bits each. Where 32 is a multiple of bits
 * this is also value i of the words. */
static unsigned stream_value(const uint8_t *stream, int bits, int i)
{
    size_t at = (size_t)i * (size_t)bits;
    unsigned shift = at % 8;
    unsigned v = stream[at / 8] >> shift;

    if (shift + (unsigned)bits > 8)
        v |= (unsigned)stream[at / 8 + 1] << (8 - shift);
    return v & ((1u << bits) - 1);
}

static void affine_row(float *out, const struct weight *w, const uint8_t *data, int o)
{
    size_t size = dtype_size(w->scale_type);
    size_t first = (size_t)o * weight_scale_row_bytes(w);
    const uint8_t *scales = (const uint8_t *)w->scales + first;
    const uint8_t *biases = (const uint8_t *)w->biases + first;

    for (int begin = 0; begin < w->n_in; begin += w->group_size) {
        float scale = load_float(scales, w->scale_type), bias = load_float(biases, w->scale_type);
        int end = w->n_in - begin < w->group_size ? w->n_in : begin + w->group_size;

        for (int i = begin; i < end; i++) {
            float product = (float)stream_value(data, w->bits, i) * scale;

            out[i] = product + bias;
        }
        scales += size;
        biases += size;
    }
}

static void microscaled_row(float *out, const struct weight *w, const uint8_t *data, int o)
{
    const uint8_t *scales = (const uint8_t *)w->scales + (size_t)o * weight_scale_row_bytes(w);

    for (int i = 0; i < w->n_in; i++) {
        uint8_t s = scales[i / w->group_size];
        float scale = w->format == WEIGHT_NVFP4 ? f8_e4m3_to_f32(s) : e8m0_to_f32(s);

        if (w->format == WEIGHT_MXFP8)
            out[i] = f8_e4m3_to_f32(data[i]) * scale;
        else
            out[i] = f4_e2m1_to_f32(stream_value(data, 4, i)) * scale;
    }
}

static void fp8_piece(float *out, const struct weight *w, int o, int k, int n)
{
    const uint8_t *data = (const uint8_t *)w->data + (size_t)o * (size_t)w->n_in;
    const uint8_t *scales = weight_fp8_scales(w, o);

    for (int i = 0; i < n; i++) {
        float scale = bits_f32(load_le32(scales + 4 * (size_t)((k + i) / w->group_size)));

        out[i] = bf16_to_f32(f32_to_bf16(f8_e4m3_to_f32(data[k + i]) * scale));
    }
}

static void dense_row(float *out, const struct weight *w, const uint8_t *data)
{
    enum dtype type = w->format == WEIGHT_F32   ? DTYPE_F32
                      : w->format == WEIGHT_F16 ? DTYPE_F16
                                                : DTYPE_BF16;
    size_t size = dtype_size(type);

    for (int i = 0; i < w->n_in; i++)
        out[i] = load_float(data + (size_t)i * size, type);
}

void weight_row_f32(float *out, const struct weight *w, int o)
{
    const uint8_t *data = (const uint8_t *)w->data + (size_t)o * weight_row_bytes(w);

    if (!is_quantised(w->format))
        dense_row(out, w, data);
    else if (w->format == WEIGHT_AFFINE)
        affine_row(out, w, data, o);
    else if (w->format == WEIGHT_FP8)
        fp8_piece(out, w, o, 0, w->n_in);
    else
        microscaled_row(out, w, data, o);
}

/* Where groups do not cross k the piece is a matrix of one short row. */
void weight_piece_f32(float *out, const struct weight *w, int o, int k, int n)
{
    struct weight row, piece;

    if (w->format == WEIGHT_FP8) {
        fp8_piece(out, w, o, k, n);
        return;
    }
    row = weight_rows(w, o, 1);
    piece = weight_columns(&row, k, n);
    weight_row_f32(out, &piece, 0);
}

bool weight_set_dense(struct weight *w, enum dtype type)
{
    switch (type) {
    case DTYPE_F32:
        w->format = WEIGHT_F32;
        return true;
    case DTYPE_F16:
        w->format = WEIGHT_F16;
        return true;
    case DTYPE_BF16:
        w->format = WEIGHT_BF16;
        return true;
    default:
        return false;
    }
}

const char *weight_format_name(enum weight_format format)
{
    static const char *const names[WEIGHT_FORMATS] = {
        [WEIGHT_F32] = "f32",       [WEIGHT_F16] = "f16",     [WEIGHT_BF16] = "bf16",
        [WEIGHT_AFFINE] = "affine", [WEIGHT_MXFP4] = "mxfp4", [WEIGHT_NVFP4] = "nvfp4",
        [WEIGHT_MXFP8] = "mxfp8",   [WEIGHT_FP8] = "fp8",
    };

    return format >= 0 && format < WEIGHT_FORMATS ? names[format] : "unknown";
}

static int check_affine(const struct weight *w, const char *name, clm_error *err)
{
    int g = w->group_size;

    if (w->bits < 2 || w->bits > 8 || w->bits == 7)
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "%s: quantised to %d bits; 2, 3, 4, 5, 6 and 8 are known", name, w->bits);
    if (g != 32 && g != 64 && g != 128)
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "%s: quantised in groups of %d; 32, 64 and 128 are known", name, g);
    if (w->scale_type != DTYPE_F32 && w->scale_type != DTYPE_F16 && w->scale_type != DTYPE_BF16)
        return fail(err, CLM_ERR_UNSUPPORTED, "%s: scales of type %s; F32, F16 and BF16 are known",
                    name, dtype_name(w->scale_type));
    if (!w->biases)
        return fail(err, CLM_ERR_FORMAT, "%s: affine quantised, but without biases", name);
    return 0;
}

static int check_microscaled(const struct weight *w, const char *name, clm_error *err)
{
    int bits = w->format == WEIGHT_MXFP8 ? 8 : 4;
    int group = w->format == WEIGHT_NVFP4 ? 16 : 32;

    if (w->bits != bits || w->group_size != group)
        return fail(err, CLM_ERR_FORMAT, "%s: %s of %d bits in groups of %d; it has %d and %d",
                    name, weight_format_name(w->format), w->bits, w->group_size, bits, group);
    return 0;
}

static int check_fp8(const struct weight *w, const char *name, clm_error *err)
{
    if (w->bits == 8 && w->group_size > 0 && w->scale_rows > 0 && w->scale_row >= 0 &&
        w->scale_row < w->scale_rows)
        return 0;
    return fail(err, CLM_ERR_FORMAT, "%s: fp8 of %d bits in blocks of %d x %d, from row %d", name,
                w->bits, w->scale_rows, w->group_size, w->scale_row);
}

static int check_format(const struct weight *w, const char *name, clm_error *err)
{
    if (w->format == WEIGHT_AFFINE)
        return check_affine(w, name, err);
    return w->format == WEIGHT_FP8 ? check_fp8(w, name, err) : check_microscaled(w, name, err);
}

static int check_quantised(const struct weight *w, const char *name, clm_error *err)
{
    if (check_format(w, name, err))
        return -1;
    if (!w->scales)
        return fail(err, CLM_ERR_FORMAT, "%s: quantised, but without scales", name);
    if (w->format != WEIGHT_FP8 && w->n_in % w->group_size)
        return fail(err, CLM_ERR_FORMAT, "%s: rows of %d numbers do not divide into groups of %d",
                    name, w->n_in, w->group_size);
    return 0;
}

int weight_check(const struct weight *w, const char *name, clm_error *err)
{
    size_t n;

    if ((int)w->format < 0 || w->format >= WEIGHT_FORMATS)
        return fail(err, CLM_ERR_UNSUPPORTED, "%s: weights in an unknown format (%d)", name,
                    (int)w->format);
    if (w->n_out < 1 || w->n_in < 1)
        return fail(err, CLM_ERR_FORMAT, "%s: a matrix of %d x %d; both must be at least 1", name,
                    w->n_out, w->n_in);
    /* 16 bytes a number is more than any format takes. */
    if (!size_mul((size_t)w->n_out, 16, &n) || !size_mul(n, (size_t)w->n_in, &n))
        return fail(err, CLM_ERR_FORMAT, "%s: a matrix of %d x %d does not fit in memory", name,
                    w->n_out, w->n_in);
    if (!w->data)
        return fail(err, CLM_ERR_FORMAT, "%s: a matrix without data", name);
    return is_quantised(w->format) ? check_quantised(w, name, err) : 0;
}
