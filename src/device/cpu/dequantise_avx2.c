/* device/cpu/dequantise_avx2.c: pieces of rows of weights as f32, bit for bit as they are defined.
 */
#include "device/cpu/matmul_avx2.h"

#define CHUNK 2048 /* values whose scales are expanded at a time */
#define MIN_GROUP 16

enum dtype avx2_scale_type(const struct weight *w)
{
    if (w->format == WEIGHT_AFFINE)
        return w->scale_type;
    return w->format == WEIGHT_NVFP4 ? DTYPE_F8_E4M3 : DTYPE_F8_E8M0;
}

INLINE void expand(float *out, const uint8_t *p, enum dtype type, size_t size, int n)
{
    uint8_t last[32] = {0};
    int i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, avx2_load8(p + (size_t)i * size, type));
    if (i == n)
        return;
    memcpy(last, p + (size_t)i * size, (size_t)(n - i) * size);
    _mm256_storeu_ps(out + i, avx2_load8(last, type));
}

void avx2_scales(float *out, const void *scales, enum dtype type, int n)
{
    switch (type) {
    case DTYPE_F32:
        expand(out, scales, DTYPE_F32, 4, n);
        break;
    case DTYPE_F16:
        expand(out, scales, DTYPE_F16, 2, n);
        break;
    case DTYPE_BF16:
        expand(out, scales, DTYPE_BF16, 2, n);
        break;
    case DTYPE_F8_E4M3:
        expand(out, scales, DTYPE_F8_E4M3, 1, n);
        break;
    default:
        expand(out, scales, DTYPE_F8_E8M0, 1, n);
        break;
    }
}

/* Keeps the compiler from making one fused operation, with one rounding, of a product and a sum. */
INLINE __m256 rounded(__m256 v)
{
    __asm__("" : "+x"(v));
    return v;
}

INLINE void affine32(float *out, const uint8_t *p, const int bits, float scale, float bias)
{
    const __m256 s = _mm256_set1_ps(scale), b = _mm256_set1_ps(bias);
    uint8_t codes[32];

    _mm256_storeu_si256((__m256i *)codes, codes32(p, bits));
    for (int i = 0; i < 32; i += 8) {
        __m256i q = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(codes + i)));

        _mm256_storeu_ps(out + i,
                         _mm256_add_ps(rounded(_mm256_mul_ps(_mm256_cvtepi32_ps(q), s)), b));
    }
}

INLINE void affine(float *out, const uint8_t *p, const float *scales, const float *biases,
                   const int bits, int group_size, int n)
{
    for (int i = 0; i < n; i += 32) {
        int g = i / group_size;
        float last[32];

        affine32(n - i < 32 ? last : out + i, p + i / 8 * bits, bits, scales[g], biases[g]);
        if (n - i < 32)
            memcpy(out + i, last, (size_t)(n - i) * sizeof *out);
    }
}

static void affine_chunk(float *out, const struct weight *w, int o, int k, int n)
{
    float scales[CHUNK / 32 + 8], biases[CHUNK / 32 + 8];
    const uint8_t *p = weight_data(w, o) + k / 8 * w->bits;
    int g = w->group_size, n_groups = (n + g - 1) / g;

    avx2_scales(scales, weight_scale(w, w->scales, o, k), w->scale_type, n_groups);
    avx2_scales(biases, weight_scale(w, w->biases, o, k), w->scale_type, n_groups);
    switch (w->bits) {
    case 2:
        affine(out, p, scales, biases, 2, g, n);
        break;
    case 3:
        affine(out, p, scales, biases, 3, g, n);
        break;
    case 4:
        affine(out, p, scales, biases, 4, g, n);
        break;
    case 5:
        affine(out, p, scales, biases, 5, g, n);
        break;
    case 6:
        affine(out, p, scales, biases, 6, g, n);
        break;
    default:
        affine(out, p, scales, biases, 8, g, n);
        break;
    }
}

/* 8 e2m1 codes: three bits choose the magnitude, the fourth is the sign. */
INLINE __m256 e2m1_to_f32(__m128i codes)
{
    __m256i q = _mm256_cvtepu8_epi32(codes);
    __m256 magnitude = _mm256_permutevar8x32_ps(_mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6), q);
    __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(q, 3), 31);

    return _mm256_or_ps(magnitude, _mm256_castsi256_ps(sign));
}

/* 16 values, one group of nvfp4 or half of one of mxfp4. */
INLINE void e2m1_16(float *out, const uint8_t *p, float scale)
{
    const __m256 s = _mm256_set1_ps(scale);
    __m128i v = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)p));

    v = _mm_and_si128(_mm_or_si128(v, _mm_slli_epi16(v, 4)), _mm_set1_epi8(0x0F));
    for (int i = 0; i < 2; i++, v = _mm_srli_si128(v, 8))
        _mm256_storeu_ps(out + 8 * i, _mm256_mul_ps(e2m1_to_f32(v), s));
}

static void fp4_chunk(float *out, const struct weight *w, int o, int k, int n)
{
    float scales[CHUNK / MIN_GROUP + 8], last[16];
    const uint8_t *p = weight_data(w, o) + k / 2;
    int g = w->group_size;

    avx2_scales(scales, weight_scale(w, w->scales, o, k), avx2_scale_type(w), (n + g - 1) / g);
    for (int i = 0; i < n; i += 16) {
        e2m1_16(n - i < 16 ? last : out + i, p + i / 2, scales[i / g]);
        if (n - i < 16)
            memcpy(out + i, last, (size_t)(n - i) * sizeof *out);
    }
}

static void fp8_chunk(float *out, const struct weight *w, int o, int k, int n)
{
    float scales[CHUNK / 32 + 8], last[8];
    const uint8_t *p = weight_data(w, o) + k;

    avx2_scales(scales, weight_scale(w, w->scales, o, k), DTYPE_F8_E8M0, (n + 31) / 32);
    for (int i = 0; i < n; i += 8) {
        _mm256_storeu_ps(n - i < 8 ? last : out + i,
                         _mm256_mul_ps(e4m3_to_f32(_mm_loadl_epi64((const __m128i *)(p + i))),
                                       _mm256_set1_ps(scales[i / 32])));
        if (n - i < 8)
            memcpy(out + i, last, (size_t)(n - i) * sizeof *out);
    }
}

/* Rounded to bf16, ties to even. */
INLINE __m256 rounded_to_bf16(__m256 v)
{
    __m256i bits = _mm256_castps_si256(v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));

    bits = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    return _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32((int)0xFFFF0000)));
}

INLINE __m256 fp8_8(const uint8_t *p, __m256 scale)
{
    return rounded_to_bf16(_mm256_mul_ps(e4m3_to_f32(_mm_loadl_epi64((const __m128i *)p)), scale));
}

/* Block after block of the row. */
static void fp8(float *out, const struct weight *w, int o, int k, int n)
{
    const uint8_t *p = weight_data(w, o) + k, *scales = weight_fp8_scales(w, o);

    for (int i = 0; i < n;) {
        int g = (k + i) / w->group_size;
        int64_t group_end = ((int64_t)g + 1) * w->group_size - k;
        int end = group_end < n ? (int)group_end : n;
        __m256 scale;
        float f;

        memcpy(&f, scales + 4 * (size_t)g, sizeof f);
        scale = _mm256_set1_ps(f);
        for (; i + 8 <= end; i += 8)
            _mm256_storeu_ps(out + i, fp8_8(p + i, scale));
        if (i < end) {
            uint8_t last[8] = {0};
            float values[8];

            memcpy(last, p + i, (size_t)(end - i));
            _mm256_storeu_ps(values, fp8_8(last, scale));
            memcpy(out + i, values, (size_t)(end - i) * sizeof *out);
            i = end;
        }
    }
}

static void dense(float *out, const struct weight *w, int o, int k, int n)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    size_t size = w->format == WEIGHT_F32 ? 4 : 2;
    const uint8_t *p = weight_data(w, o) + (size_t)k * size;
    int whole = n / 8 * 8;
    float last[8];

    avx2_scales(out, p, types[w->format], whole);
    if (whole == n)
        return;
    avx2_scales(last, p + (size_t)whole * size, types[w->format], n - whole);
    memcpy(out + whole, last, (size_t)(n - whole) * sizeof *out);
}

void avx2_dequantise(float *out, const struct weight *w, int o, int k, int n)
{
    if (w->format <= WEIGHT_BF16) {
        dense(out, w, o, k, n);
        return;
    }
    if (w->format == WEIGHT_FP8) {
        fp8(out, w, o, k, n);
        return;
    }
    for (int i = 0; i < n; i += CHUNK) {
        int part = n - i < CHUNK ? n - i : CHUNK;

        if (w->format == WEIGHT_AFFINE)
            affine_chunk(out + i, w, o, k + i, part);
        else if (w->format == WEIGHT_MXFP8)
            fp8_chunk(out + i, w, o, k + i, part);
        else
            fp4_chunk(out + i, w, o, k + i, part);
    }
}
