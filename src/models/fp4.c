/* models/fp4.c: two e2m1 a byte, the first in the low nibble.
 *
 *     mxfp4   a scale of e8m0 for 32: in blocks of 16 bytes as the original gpt-oss has them, in
 *             rows as compressed-tensors and DeepSeek V4.1 do
 *     nvfp4   a scale of e4m3 for 16, and one f32 for all scales: they are multiplied by
 *             weight_scale_2 (ModelOpt) or divided by weight_global_scale (compressed-tensors)
 *
 * Codes stay in the mapped file; scales too, where there is no f32 to put into them.
 */
#include <math.h>

#include "base/number.h"
#include "device/weight.h"
#include "models/bind.h"
#include "models/foreign.h"

bool is_fp4(const struct piece *p)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT], *s = p->part[PART_SCALES];

    return s && (t->type == DTYPE_U8 || t->type == DTYPE_I8) && dtype_size(s->type) == 1;
}

/* The tensor of the number for all scales; NULL: there is none. */
static const struct checkpoint_tensor *factor_tensor(const struct piece *p)
{
    return p->part[p->part[PART_DIVISOR] ? PART_DIVISOR : PART_FACTOR];
}

/* What all scales are multiplied by. */
static int read_factor(const struct binder *b, float *factor, const struct piece *p,
                       const struct nn_slot *s, int expert)
{
    const struct checkpoint_tensor *t = factor_tensor(p);
    size_t n = p->stacked ? (size_t)s->n_experts : 1;

    *factor = 1;
    if (!t)
        return 0;
    if (t->type != DTYPE_F32 || t->size != n * sizeof *factor)
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s is not %zu numbers of F32", b->path,
                    t->name, n);
    *factor = bits_f32(load_le32((const uint8_t *)t->data + (p->stacked ? 4 * (size_t)expert : 0)));
    if (p->part[PART_DIVISOR])
        *factor = 1 / *factor;
    if (*factor > 0 && isfinite(*factor))
        return 0;
    return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s multiplies scales by %g", b->path, t->name,
                (double)*factor);
}

/* The scales of nvfp4 as f32, each times the factor. */
static const void *wide_scales(const struct binder *b, const struct weight *w,
                               const struct piece *p, const struct nn_slot *s, int expert,
                               float factor)
{
    const struct checkpoint_tensor *t = p->part[PART_SCALES];
    size_t groups = (size_t)(w->n_in / w->group_size), n = (size_t)w->n_out * groups;
    const uint8_t *from =
        binder_plane(b, t, p, s, expert, p->rows ? p->rows : s->n_out, (int64_t)groups);
    float *scales = from ? mem_alloc(n * sizeof *scales) : NULL;
    const void *placed = NULL;

    for (int o = 0; scales && o < w->n_out; o++) {
        const uint8_t *row = from + (size_t)binder_source_row(p, w->n_out, o) * groups;

        for (size_t g = 0; g < groups; g++)
            scales[(size_t)o * groups + g] = f8_e4m3_to_f32(row[g]) * factor;
    }
    if (scales)
        placed = binder_place(b, scales, n * sizeof *scales);
    else if (from)
        fail(b->err, CLM_ERR_NOMEM, "%s: no memory for the scales of %s", b->path, t->name);
    mem_free(scales);
    return placed;
}

int set_fp4(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s,
            int expert)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT], *scales = p->part[PART_SCALES];
    bool e4m3 = scales->type == DTYPE_F8_E4M3;
    float factor;

    if (read_factor(b, &factor, p, s, expert))
        return -1;
    if (p->transposed)
        return fail(b->err, CLM_ERR_UNSUPPORTED, "%s: tensor %s is quantised and transposed",
                    b->path, t->name);
    w->format = e4m3 ? WEIGHT_NVFP4 : WEIGHT_MXFP4;
    w->bits = 4;
    w->group_size = e4m3 ? 16 : 32;
    w->scale_type = scales->type;
    if (w->n_in % w->group_size)
        return fail(b->err, CLM_ERR_FORMAT,
                    "%s: tensor %s holds blocks of %d; config.json says %d inputs", b->path,
                    t->name, w->group_size, w->n_in);
    w->wide_scales = factor_tensor(p) != NULL;
    if (w->wide_scales && !e4m3)
        return binder_unused(b, factor_tensor(p));
    w->data = binder_rows(b, t, p, s, expert, w->n_in / 2);
    w->scales = !w->data         ? NULL
                : w->wide_scales ? wide_scales(b, w, p, s, expert, factor)
                                 : binder_rows(b, scales, p, s, expert, w->n_in / w->group_size);
    return w->scales ? weight_check(w, t->name, b->err) : -1;
}
