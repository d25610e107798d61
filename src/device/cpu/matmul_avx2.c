/* device/cpu/matmul_avx2.c: which kernel for which product, and how fast the processor is at its
 * best. */
#include "device/cpu/matmul_avx2.h"

#include "device/cpu/cpu.h"

/* Rows up to which weights are better unpacked again for every few rows than put into panels. */
#define FEW_DENSE 12

static int few_integer(const struct weight *w)
{
    if (w->format == WEIGHT_AFFINE)
        return w->bits == 8 ? 12 : w->bits == 4 ? 8 : 4;
    return w->format == WEIGHT_MXFP4 ? 8 : 4;
}

const struct cpu_product *avx2_choose(const struct weight *w, int n_rows, bool exact)
{
    bool dense = w->format <= WEIGHT_BF16;

    if (dense && n_rows <= FEW_DENSE)
        return &avx2_product_dense;
    if (exact || (weight_is_e4m3(w) && n_rows <= FEW_DENSE))
        return &avx2_product_f32;
    if (dense || weight_is_e4m3(w))
        return &avx2_gemm_f32;
    if (n_rows > few_integer(w))
        return w->format == WEIGHT_AFFINE && w->bits > 5 ? &avx2_gemm_i16 : &avx2_gemm_i8;
    return w->format == WEIGHT_AFFINE && w->bits != 4 ? &avx2_gemv : &avx2_gemv_nibbles;
}

#define READ_AHEAD 1024
#define READ_FAR 8192
#define ODD_BYTES 1088 /* that parts are more than a power of two apart */
#define LEAST_UNEVEN (128 << 10)

/* What is called for: what comes soon to the second cache; that to the first, and what comes later
 * to the second; or what comes later to the first. */
enum calls { SOON, SOON_AND_LATER, LATER };

/* A line of each of some places, `apart` bytes from one to the next. */
INLINE void read_places(__m256i sums[4], const uint8_t *at, size_t apart, const size_t places,
                        const enum calls calls)
{
#pragma GCC unroll 4
    for (size_t j = 0; j < places; j++) {
        const uint8_t *p = at + j * apart;

        if (calls == SOON)
            _mm_prefetch((const char *)p + READ_AHEAD, _MM_HINT_T1);
        if (calls == SOON_AND_LATER) {
            _mm_prefetch((const char *)p + READ_FAR, _MM_HINT_T1);
            _mm_prefetch((const char *)p + READ_AHEAD, _MM_HINT_T0);
        }
        if (calls == LATER)
            _mm_prefetch((const char *)p + READ_FAR, _MM_HINT_T0);
        sums[j] = _mm256_xor_si256(sums[j], _mm256_loadu_si256((const __m256i *)p));
        sums[j] = _mm256_xor_si256(sums[j], _mm256_loadu_si256((const __m256i *)(p + 32)));
    }
}

/* Four lines at a time: neighbours, or of four parts side by side, as memory may give more when
 * several pages are read at a time. Of many lines the last part has fewer than the others, so that
 * these are no multiple of a page apart, where each would find what another reads in its way.
 * in_order and calls are constants where this is used. */
INLINE uint64_t read_lines(const void *data, size_t size, const bool in_order,
                           const enum calls calls)
{
    const size_t more = size >= LEAST_UNEVEN ? ODD_BYTES : 0;
    const size_t part = in_order ? 64 : size / 4 + more, step = in_order ? 256 : 64;
    const size_t n_last = in_order ? size / 256 : (size - 3 * part) / 64;
    const uint8_t *at = data;
    __m256i sums[4];

    for (int i = 0; i < 4; i++)
        sums[i] = _mm256_setzero_si256();
    for (size_t n = 0; n < n_last; n++, at += step)
        read_places(sums, at, part, 4, calls);
    for (size_t n = n_last; !in_order && n < part / 64; n++, at += step)
        read_places(sums, at, part, 3, calls);
    sums[0] =
        _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
    return (uint64_t)_mm256_extract_epi64(sums[0], 0) ^ (uint64_t)_mm256_extract_epi64(sums[0], 1) ^
           (uint64_t)_mm256_extract_epi64(sums[0], 2) ^ (uint64_t)_mm256_extract_epi64(sums[0], 3);
}

/* To two threads of Zen 4 64.6 GB/s, 62.6 without calls. */
static uint64_t read_all(const void *data, size_t size)
{
    return read_lines(data, size, false, SOON);
}

/* To two of Emerald Rapids 28.9 GB/s, where the other gives 27.0. */
static uint64_t read_all_twice(const void *data, size_t size)
{
    return read_lines(data, size, false, SOON_AND_LATER);
}

/* To two of a Xeon with 300 MB of third cache 29 to 32 GB/s, where parts that are a multiple of a
 * page apart give 18 to 25. */
static uint64_t read_in_order(const void *data, size_t size)
{
    return read_lines(data, size, true, LATER);
}

#define CHAINS 12 /* independent sums, enough to hide the latency */
#define ROUNDS 4000

static double f32_burst(void)
{
    __m256 sums[CHAINS], f = _mm256_set1_ps(0.5f);

    for (int i = 0; i < CHAINS; i++)
        sums[i] = _mm256_set1_ps((float)i);
    for (int n = 0; n < ROUNDS; n++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            sums[i] = _mm256_fmadd_ps(sums[i], f, f);
    for (int i = 0; i < CHAINS; i++)
        __asm__ volatile("" : : "x"(sums[i])); /* wanted */
    return 2.0 * 8 * CHAINS * ROUNDS;
}

/* Bytes by bytes into 16 bits, pairs of these into 32, added up. */
static double int8_burst(void)
{
    __m256i sums[CHAINS], a = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);

    for (int i = 0; i < CHAINS; i++)
        sums[i] = _mm256_set1_epi32(i);
    for (int n = 0; n < ROUNDS; n++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) {
            __m256i products = _mm256_madd_epi16(_mm256_maddubs_epi16(a, sums[i]), ones);

            sums[i] = _mm256_add_epi32(sums[i], products);
        }
    for (int i = 0; i < CHAINS; i++)
        __asm__ volatile("" : : "x"(sums[i])); /* wanted */
    return 2.0 * 32 * CHAINS * ROUNDS;
}

void cpu_matmul_kernels_avx2(struct cpu_matmul_kernels *k)
{
    *k = (struct cpu_matmul_kernels){
        .dequantise = avx2_dequantise,
        .choose = avx2_choose,
        .read = cpu_is_intel() ? read_all_twice : read_all,
        .read_in_order = read_in_order,
        .f32_burst = f32_burst,
        .int8_burst = int8_burst,
    };
}
