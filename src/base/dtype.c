#include "base/dtype.h"

#include <string.h>

#include "base/number.h"

static const struct {
    const char *name;
    size_t size;
} types[DTYPE_COUNT] = {
    [DTYPE_F32] = {"F32", 4},         [DTYPE_F16] = {"F16", 2},
    [DTYPE_BF16] = {"BF16", 2},       [DTYPE_F64] = {"F64", 8},
    [DTYPE_F8_E4M3] = {"F8_E4M3", 1}, [DTYPE_F8_E5M2] = {"F8_E5M2", 1},
    [DTYPE_F8_E8M0] = {"F8_E8M0", 1}, [DTYPE_I8] = {"I8", 1},
    [DTYPE_U8] = {"U8", 1},           [DTYPE_I16] = {"I16", 2},
    [DTYPE_U16] = {"U16", 2},         [DTYPE_I32] = {"I32", 4},
    [DTYPE_U32] = {"U32", 4},         [DTYPE_I64] = {"I64", 8},
    [DTYPE_U64] = {"U64", 8},         [DTYPE_BOOL] = {"BOOL", 1},
};

size_t dtype_size(enum dtype type)
{
    return types[type].size;
}

const char *dtype_name(enum dtype type)
{
    return types[type].name;
}

int dtype_from_name(const char *name, size_t n)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (strlen(types[i].name) == n && memcmp(types[i].name, name, n) == 0)
            return i;
    return -1;
}

static double load_f64(const void *p)
{
    uint64_t bits = load_le64(p);
    double d;

    memcpy(&d, &bits, sizeof d);
    return d;
}

static float load_as_f32(const uint8_t *p, enum dtype type)
{
    switch (type) {
    case DTYPE_F32:
        return bits_f32(load_le32(p));
    case DTYPE_F16:
        return f16_to_f32(load_le16(p));
    case DTYPE_BF16:
        return bf16_to_f32(load_le16(p));
    case DTYPE_F64:
        return (float)load_f64(p);
    case DTYPE_F8_E4M3:
        return f8_e4m3_to_f32(*p);
    case DTYPE_F8_E5M2:
        return f8_e5m2_to_f32(*p);
    case DTYPE_F8_E8M0:
        return e8m0_to_f32(*p);
    case DTYPE_I8:
        return (float)(int8_t)*p;
    case DTYPE_U8:
        return (float)*p;
    case DTYPE_I16:
        return (float)(int16_t)load_le16(p);
    case DTYPE_U16:
        return (float)load_le16(p);
    case DTYPE_I32:
        return (float)(int32_t)load_le32(p);
    case DTYPE_U32:
        return (float)load_le32(p);
    case DTYPE_I64:
        return (float)(int64_t)load_le64(p);
    case DTYPE_U64:
        return (float)load_le64(p);
    case DTYPE_BOOL:
    case DTYPE_COUNT:
        break;
    }
    return 0;
}

bool dtype_to_f32(float *out, const void *data, enum dtype type, size_t n)
{
    const uint8_t *p = data;

    if (type >= DTYPE_COUNT || type == DTYPE_BOOL)
        return false;
    for (size_t i = 0; i < n; i++)
        out[i] = load_as_f32(p + i * types[type].size, type);
    return true;
}
