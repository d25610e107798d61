/* base/dtype.h: the number types that checkpoints and tensors hold. */
#ifndef BASE_DTYPE_H
#define BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_F64,
    DTYPE_F8_E4M3,
    DTYPE_F8_E5M2,
    DTYPE_F8_E8M0,
    DTYPE_I8,
    DTYPE_U8,
    DTYPE_I16,
    DTYPE_U16,
    DTYPE_I32,
    DTYPE_U32,
    DTYPE_I64,
    DTYPE_U64,
    DTYPE_BOOL,
    DTYPE_COUNT
};

size_t dtype_size(enum dtype type);              /* bytes of one */
const char *dtype_name(enum dtype type);         /* as safetensors spells it: "F32", "BF16", ... */
int dtype_from_name(const char *name, size_t n); /* -1 when there is no such type */

/* n numbers of a floating or integer type as f32; false for a type that has no such reading. */
bool dtype_to_f32(float *out, const void *data, enum dtype type, size_t n);

#endif
