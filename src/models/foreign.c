/* models/foreign.c: quantization_config as other tools than MLX write it.
 *
 * What a matrix is follows from its tensors; this says what they leave open, and refuses methods
 * whose tensors clm cannot read.
 */
#include "models/foreign.h"

#include <limits.h>
#include <string.h>

static bool one_of(const char *s, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(s, *names) == 0)
            return true;
    return false;
}

static int unknown(const struct binder *b, const char *what, const char *name)
{
    return fail(b->err, CLM_ERR_UNSUPPORTED,
                "%s: weights quantised by \"%s%s\" are not supported; clm reads MLX's own formats, "
                "fp8, awq, gptq, compressed-tensors, bitnet and mxfp4",
                b->path, what, name);
}

/* Every matrix may have bits and groups of its own: they follow from the shapes. */
static int read_compressed(const struct binder *b, config *q)
{
    static const char *const known[] = {
        "dense",           "pack-quantized",       "int-quantized",   "float-quantized",
        "naive-quantized", "mxfp4-pack-quantized", "mixed-precision", NULL};
    const char *format = config_string_or(q, "format", "dense");

    return one_of(format, known) ? 0 : unknown(b, "compressed-tensors ", format);
}

static void read_block(struct foreign *f, config *q)
{
    const int *block;

    if (config_ints(q, "weight_block_size", &block) == 2) {
        f->block_rows = block[0];
        f->block_cols = block[1];
    }
}

static int read_method(struct binder *b, config *q, const char *method)
{
    static const char *const fp8[] = {"fp8", "fbgemm_fp8", "mxfp8", NULL};
    static const char *const gptq[] = {"gptq", "auto-round", "intel/auto-round", NULL};
    struct foreign *f = &b->foreign;

    if (one_of(method, fp8)) {
        read_block(f, q);
    } else if (strcmp(method, "awq") == 0) {
        f->bits = config_int_or(q, "bits", 4);
    } else if (one_of(method, gptq)) {
        f->bits = config_int_or(q, "bits", 4);
        f->zero_add = strcmp(config_string_or(q, "checkpoint_format", "gptq"), "gptq_v2") != 0;
    } else if (strcmp(method, "bitnet") == 0) {
        f->scales_divide = strcmp(config_string_or(q, "linear_class", ""), "autobitlinear") != 0;
        if (strcmp(config_string_or(q, "quantization_mode", "offline"), "online") == 0)
            return unknown(b, method, " online");
        if (config_bool_or(q, "use_rms_norm", false))
            return unknown(b, method, " with norms of its own");
    } else if (strcmp(method, "compressed-tensors") == 0) {
        return read_compressed(b, q);
    } else if (strcmp(method, "mxfp4") != 0) {
        return unknown(b, method, "");
    }
    return 0;
}

int foreign_read(struct binder *b)
{
    config *text = config_object(b->m->config, "text_config");
    config *q = config_object(b->m->config, "quantization_config");
    const char *method;

    if (!q && text)
        q = config_object(text, "quantization_config");
    method = q ? config_string_or(q, "quant_method", NULL) : NULL;
    if (method && read_method(b, q, method))
        return -1;
    if (method && config_kind(q, "group_size") == CONFIG_NUMBER) {
        double size = config_float(q, "group_size"); /* -1: one group */

        b->foreign.group_size = size > 0 && size < INT_MAX ? (int)size : 0;
    }
    return 0;
}
