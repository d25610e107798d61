/* device/cpu/gemv_bits_avx512.c: weights of 2, 3, 5 and 6 bits by a few rows. */
#include "device/cpu/gemv_avx512.h"

#define MULTIPLY_GROUPS(bits, type, TYPE)                                                          \
    MULTIPLY(multiply_##bits##_32_##type, TYPE, bits, 32)                                          \
    MULTIPLY(multiply_##bits##_64_##type, TYPE, bits, 64)                                          \
    MULTIPLY(multiply_##bits##_128_##type, TYPE, bits, 128)                                        \
    static void multiply_##bits##_##type(const struct cpu_task *t, const struct cpu_outputs *o)    \
    {                                                                                              \
        int size = t->w->group_size;                                                               \
                                                                                                   \
        (size == 32   ? multiply_##bits##_32_##type                                                \
         : size == 64 ? multiply_##bits##_64_##type                                                \
                      : multiply_##bits##_128_##type)(t, o);                                       \
    }

/* The product with weights of so many bits. */
#define PRODUCT(bits)                                                                              \
    MULTIPLY_GROUPS(bits, f16, DTYPE_F16)                                                          \
    MULTIPLY_GROUPS(bits, bf16, DTYPE_BF16)                                                        \
    static void multiply_##bits(const struct cpu_task *t, const struct cpu_outputs *o)             \
    {                                                                                              \
        (t->w->scale_type == DTYPE_F16 ? multiply_##bits##_f16 : multiply_##bits##_bf16)(t, o);    \
    }                                                                                              \
    static size_t strip_bytes_##bits(int n_in, int group_size)                                     \
    {                                                                                              \
        return strip_size(n_in, group_size, bits);                                                 \
    }                                                                                              \
    static void prepare_##bits(void *strip, const struct cpu_task *t, int first, int n)            \
    {                                                                                              \
        (void)n;                                                                                   \
        prepare(strip, cpu_task_x(t, first), t->w->n_in, t->w->group_size, bits);                  \
    }                                                                                              \
    static int places_##bits(const struct cpu_task *t)                                             \
    {                                                                                              \
        return places_of(t, bits);                                                                 \
    }                                                                                              \
    static const struct cpu_product of_##bits = {                                                  \
        .name = "rows by " #bits " bits, VNNI",                                                    \
        .panel_cols = OUTPUTS,                                                                     \
        .strip_rows = 1,                                                                           \
        .strip_bytes = strip_bytes_##bits,                                                         \
        .prepare = prepare_##bits,                                                                 \
        .places = places_##bits,                                                                   \
        .multiply_places = multiply_##bits,                                                        \
    };

PRODUCT(2)
PRODUCT(3)
PRODUCT(5)
PRODUCT(6)

const struct cpu_product *avx512_gemv_bits(int bits)
{
    return bits == 2 ? &of_2 : bits == 3 ? &of_3 : bits == 5 ? &of_5 : &of_6;
}
