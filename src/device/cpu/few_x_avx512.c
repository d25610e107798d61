/* device/cpu/few_x_avx512.c: rows of x for few_avx512.c. */
#include "device/cpu/few_avx512.h"

#include <cpuid.h>
#include <stdatomic.h>

#include "base/number.h"

#define COLUMNS 4     /* at a time: a row in a place is a column */
#define SAME_SET 4096 /* bytes: lines so far apart are in the same set of the first cache */
#define MANY_WAYS 12  /* with which one place is faster */

/* Whether the first cache has MANY_WAYS, as far as the processor says so by leaf 4 of CPUID, which
 * is Intel's: sub-leaf 0, of EBX bits 31 to 22 the ways less one (SDM volume 2). */
static bool has_many_ways(void)
{
    static atomic_int known; /* 1: no, 2: yes */
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    uint32_t eax, ebx, ecx, edx;

    if (!answer) {
        answer =
            __get_cpuid_count(4, 0, &eax, &ebx, &ecx, &edx) && (ebx >> 22) + 1 >= MANY_WAYS ? 2 : 1;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == 2;
}

struct few_x avx512_few_x(int n_in, int group_size)
{
    struct few_x x = {
        .unit = group_size < 64 ? 32 : 64,
        .places = n_in % (2 * SAME_SET) == 0 && !has_many_ways() ? 2 : 1,
    };
    size_t columns, room;

    x.per_group = group_size / x.unit;
    x.n_groups = n_in / group_size / x.places;
    x.n_units = x.n_groups * x.per_group;
    columns = ROWS * (size_t)x.places;
    room = columns * (((size_t)x.n_groups + CHUNK - 1) / CHUNK * CHUNK);
    x.unit_bytes = columns * ((size_t)x.unit + sizeof(float) + sizeof(int32_t));
    x.sums_offset = (size_t)x.n_units * x.unit_bytes;
    x.halves_offset = x.sums_offset + room * sizeof(float);
    x.bytes = (x.halves_offset + room * sizeof(uint16_t) + LINE - 1) / LINE * LINE;
    return x;
}

size_t avx512_few_strip_bytes(int n_in, int group_size)
{
    return avx512_few_x(n_in, group_size).bytes;
}

/* Some columns of a strip, from the first on. */
struct columns {
    const struct few_x *f;
    uint8_t *strip;
    int first, n, all;
    const float *x[COLUMNS]; /* what comes next */
};

/* The steps and what sums begin with of unit u. */
INLINE float *steps_of(const struct columns *c, int u)
{
    return (float *)(void *)(c->strip + (size_t)u * c->f->unit_bytes + c->all * c->f->unit) +
           c->first;
}

INLINE int32_t *begin_of(const struct columns *c, int u)
{
    return (int32_t *)(void *)(steps_of(c, u) + c->all);
}

/* q of a unit, of every 8 numbers those at even places first; returns what q sums up to. */
INLINE int32_t quantise(__m512i *q, const float *x, const int unit, float *step)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    const __m512i even_first =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    __m512i most = _mm512_setzero_si512();
    __m128i v[4] = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128(),
                    _mm_setzero_si128()};
    float inverse;

#pragma GCC unroll 4
    for (int i = 0; i < unit; i += 16) /* as integers NaN > infinity > all numbers */
        most = _mm512_max_epi32(
            most, _mm512_and_si512(magnitude, _mm512_castps_si512(_mm512_loadu_ps(x + i))));
    *step =
        avx2_step(_mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(most)))),
                  127, &inverse);
#pragma GCC unroll 4
    for (int i = 0; i < unit; i += 16)
        v[i / 16] = _mm512_cvtsepi32_epi8(
            _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(inverse))));
    *q = _mm512_castsi128_si512(v[0]);
    *q = _mm512_inserti32x4(*q, v[1], 1);
    *q = _mm512_inserti32x4(*q, v[2], 2);
    *q = _mm512_shuffle_epi8(_mm512_inserti32x4(*q, v[3], 3), even_first);
    return _mm512_reduce_add_epi32(
        _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), *q));
}

/* 32 bits of every column side by side, then the next ones. */
INLINE void store_columns(const struct columns *c, int u, const __m512i q[COLUMNS], const int unit)
{
    uint8_t *to = c->strip + (size_t)u * c->f->unit_bytes + 4 * c->first;
    __m512i low[2] = {_mm512_unpacklo_epi32(q[0], q[1]), _mm512_unpacklo_epi32(q[2], q[3])};
    __m512i high[2] = {_mm512_unpackhi_epi32(q[0], q[1]), _mm512_unpackhi_epi32(q[2], q[3])};
    __m512i v[4] = {_mm512_unpacklo_epi64(low[0], low[1]), _mm512_unpackhi_epi64(low[0], low[1]),
                    _mm512_unpacklo_epi64(high[0], high[1]),
                    _mm512_unpackhi_epi64(high[0], high[1])};

#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m128i *at[4] = {(__m128i *)(to + 4 * c->all * i), (__m128i *)(to + 4 * c->all * (i + 4)),
                          (__m128i *)(to + 4 * c->all * (i + 8)),
                          (__m128i *)(to + 4 * c->all * (i + 12))};

        _mm_storeu_si128(at[0], _mm512_castsi512_si128(v[i]));
        _mm_storeu_si128(at[1], _mm512_extracti32x4_epi32(v[i], 1));
        if (unit == 64) {
            _mm_storeu_si128(at[2], _mm512_extracti32x4_epi32(v[i], 2));
            _mm_storeu_si128(at[3], _mm512_extracti32x4_epi32(v[i], 3));
        }
    }
}

/* sums [COLUMNS] += what unit u sums up to. */
INLINE void prepare_unit(struct columns *c, int u, float *sums, const int unit)
{
    __m512i q[COLUMNS];
    float *steps = steps_of(c, u);

#pragma GCC unroll 4
    for (int i = 0; i < COLUMNS; i++) {
        float step = 0;

        q[i] = _mm512_setzero_si512();
        if (i < c->n) {
            sums[i] += (float)quantise(&q[i], c->x[i], unit, &step) * step;
            c->x[i] += unit;
        }
        steps[i] = step;
    }
    _mm_storeu_si128((__m128i *)begin_of(c, u), _mm_setzero_si128());
    store_columns(c, u, q, unit);
}

/* What sums begin with, so that biases of -MIDDLE scales meet what is left of the sum of a group:
 * it goes to the unit of the greatest step. */
static void begin_group(const struct columns *c, int g, int i, float left)
{
    int best = g * c->f->per_group;

    for (int u = best + 1; u < (g + 1) * c->f->per_group; u++)
        best = steps_of(c, u)[i] > steps_of(c, best)[i] ? u : best;

    float step = steps_of(c, best)[i];

    if (fabsf(left) < 1e4f * step) /* else it says nothing, or one is not a number */
        begin_of(c, best)[i] = (int32_t)lrintf(-MIDDLE * left / step);
}

static void prepare_columns(struct columns *c)
{
    const struct few_x *f = c->f;
    float *sums = (float *)(void *)(c->strip + f->sums_offset) + c->first;
    uint16_t *halves = (uint16_t *)(void *)(c->strip + f->halves_offset) + 2 * c->first;

    for (int g = 0; g < (f->n_groups + CHUNK - 1) / CHUNK * CHUNK; g++, sums += c->all) {
        float of[COLUMNS] = {0};

        for (int u = g * f->per_group; g < f->n_groups && u < (g + 1) * f->per_group; u++)
            if (f->unit == 64)
                prepare_unit(c, u, of, 64);
            else
                prepare_unit(c, u, of, 32);
        for (int i = 0; i < COLUMNS; i++) {
            uint16_t half = f32_to_bf16(of[i]);

            sums[i] = of[i];
            halves[(size_t)(g / 2) * (size_t)c->all * 2 + (size_t)(2 * i + g % 2)] = half;
            if (g < f->n_groups && i < c->n)
                begin_group(c, g, i, of[i] - bf16_to_f32(half));
        }
    }
}

void avx512_few_prepare(void *strip, const struct cpu_task *t, int first, int n)
{
    struct few_x f = avx512_few_x(t->w->n_in, t->w->group_size);

    for (int at = 0; at < n * f.places; at += COLUMNS) {
        struct columns c = {.f = &f, .strip = strip, .first = at, .all = ROWS * f.places};

        for (; c.n < COLUMNS && at + c.n < n * f.places; c.n++)
            c.x[c.n] = cpu_task_x(t, first + (at + c.n) / f.places) +
                       (at + c.n) % f.places * (t->w->n_in / f.places);
        prepare_columns(&c);
    }
}
