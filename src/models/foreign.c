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
                "fp8, awq, gptq, compressed-tensors, modelopt, bitnet and mxfp4",
                b->path, what, name);
}

static void add_block(struct foreign *f, int rows, int cols)
{
    if (rows > 0 && cols > 0 && f->n_blocks < (int)COUNT(f->blocks))
        f->blocks[f->n_blocks++] = (struct fp8_block){rows, cols};
}

static void read_block(struct foreign *f, config *q, const char *key)
{
    const int *block;

    if (config_ints(q, key, &block) == 2)
        add_block(f, block[0], block[1]);
}

/* The sizes that a group of matrices has, where all groups have the same; of fp8 all. */
static void read_group(struct foreign *f, config *group, bool first)
{
    config *weights = group ? config_object(group, "weights") : NULL;
    int size = 0, bits = 0;

    if (!weights)
        return;
    if (config_kind(weights, "group_size") == CONFIG_NUMBER)
        size = config_int_or(weights, "group_size", 0);
    if (config_kind(weights, "num_bits") == CONFIG_NUMBER)
        bits = config_int_or(weights, "num_bits", 0);
    f->group_size = first || f->group_size == size ? size : 0;
    f->likely_bits = first || f->likely_bits == bits ? bits : 0;
    read_block(f, weights, "block_structure");
    if (strcmp(config_string_or(weights, "type", ""), "float") == 0)
        add_block(f, 1, size);
}

/* Every matrix may have bits and groups of its own: they follow from the shapes. */
static int read_compressed(struct binder *b, config *q)
{
    static const char *const known[] = {"dense",           "pack-quantized",
                                        "int-quantized",   "float-quantized",
                                        "naive-quantized", "mxfp4-pack-quantized",
                                        "mixed-precision", "nvfp4-pack-quantized",
                                        "mxfp8-quantized", NULL};
    const char *format = config_string_or(q, "format", "dense");
    config *groups = config_object(q, "config_groups");
    config *turned = config_object(q, "transform_config");
    config *schemes = turned ? config_object(turned, "config_groups") : NULL;

    if (!one_of(format, known))
        return unknown(b, "compressed-tensors ", format);
    if (schemes && config_key(schemes, 0))
        return unknown(b, "compressed-tensors ", "with transforms of activations");
    for (int i = 0; groups && config_key(groups, i); i++)
        read_group(&b->foreign, config_object(groups, config_key(groups, i)), i == 0);
    return 0;
}

/* How ModelOpt has made them; what else than these it packs, it packs in its own way. */
static int read_modelopt(const struct binder *b, config *q)
{
    static const char *const known[] = {
        "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "MXFP8", "NVFP4", "W4A16_NVFP4", NULL};
    const char *algorithm = config_string_or(q, "quant_algo", "FP8");

    return one_of(algorithm, known) ? 0 : unknown(b, "modelopt ", algorithm);
}

/* GPTQModel writes "format" where its predecessors wrote "checkpoint_format", and may give modules
 * bits of their own. */
static int read_gptq(struct binder *b, config *q, bool round)
{
    static const char *const formats[] = {"gptq", "gptq_v2", NULL};
    const char *format = round ? "gptq" : config_string_or(q, "format", "gptq");
    config *dynamic = config_object(q, round ? "extra_config" : "dynamic");

    format = config_string_or(q, "checkpoint_format", format);
    if (!one_of(format, formats))
        return unknown(b, "gptq ", format);
    b->foreign.zero_add = strcmp(format, "gptq_v2") != 0;
    b->foreign.bits = dynamic && config_key(dynamic, 0) ? 0 : config_int_or(q, "bits", 4);
    return 0;
}

/* Does every layer but attend and feed forward, and is the head alone left as it is? */
static bool all_take_levels(const struct binder *b, config *q)
{
    const struct spec *s = b->m->spec;
    const char *const *names;
    int n = config_strings(q, "modules_to_not_convert", &names);

    for (int i = 0; i < s->n_layers; i++)
        for (int j = 0; j < s->layers[i].n_branches; j++)
            if (s->layers[i].branches[j].op != OP_ATTENTION &&
                s->layers[i].branches[j].op != OP_MLP)
                return false;
    return config_is_null(q, "modules_to_not_convert") ||
           (n == 1 && strcmp(names[0], "lm_head") == 0);
}

/* mlx-lm's module of BitNet knows but scales that multiply. */
static int read_bitnet(struct binder *b, config *q)
{
    struct foreign *f = &b->foreign;
    bool automatic = strcmp(config_string_or(q, "linear_class", ""), "autobitlinear") == 0;
    bool by_mlx =
        strcmp(b->m->spec->model_type, "bitnet") == 0 && !config_by_transformers(b->m->config);
    bool online = strcmp(config_string_or(q, "quantization_mode", "offline"), "online") == 0;

    f->scales_divide = !automatic && !by_mlx;
    f->levels = online ? LEVELS_FOUND : automatic ? LEVELS_STORED : LEVELS_NONE;
    if (online && (!automatic || !all_take_levels(b, q)))
        return unknown(b, "bitnet", " online, but of all matrices and autobitlinear,");
    if (config_bool_or(q, "use_rms_norm", false))
        return unknown(b, "bitnet", " with norms of its own");
    return 0;
}

static int read_method(struct binder *b, config *q, const char *method)
{
    static const char *const fp8[] = {"fp8", "fbgemm_fp8", "mxfp8", NULL};
    static const char *const gemm[] = {"gemm", "GEMM", "exllama", "ipex", NULL};
    static const char *const rounds[] = {"auto-round", "intel/auto-round", NULL};
    struct foreign *f = &b->foreign;
    const char *packing;

    if (one_of(method, fp8)) {
        read_block(f, q, "weight_block_size");
    } else if (strcmp(method, "awq") == 0) {
        f->bits = config_int_or(q, "bits", 4);
        packing = config_string_or(q, "version", config_string_or(q, "format", "gemm"));
        if (!one_of(packing, gemm))
            return unknown(b, "awq ", packing);
    } else if (strcmp(method, "gptq") == 0 || one_of(method, rounds)) {
        return read_gptq(b, q, one_of(method, rounds));
    } else if (strcmp(method, "bitnet") == 0) {
        return read_bitnet(b, q);
    } else if (strcmp(method, "compressed-tensors") == 0) {
        return read_compressed(b, q);
    } else if (strcmp(method, "modelopt") == 0 || strcmp(method, "modelopt_fp4") == 0) {
        return read_modelopt(b, q);
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
