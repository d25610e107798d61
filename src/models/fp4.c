/* models/fp4.c: two e2m1 a byte, the first in the low nibble.
 *
 *     mxfp4   a scale of e8m0 for 32: in blocks of 16 bytes as the original gpt-oss has them, in
 *             rows as compressed-tensors and DeepSeek V4.1 do
 *     nvfp4   a scale of e4m3 for 16, and maybe one f32 for all scales: they are multiplied by
 *             weight_scale_2 (ModelOpt) or divided by weight_global_scale (compressed-tensors)
 *
 * Both stay in the mapped file, but where there is such an f32: the matrix then becomes bf16, as
 * those tools have it.
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

/* Rows of a matrix as it is stored, to bf16. */
struct widening {
    const struct piece *p;
    const uint8_t *codes, *scales;
    uint8_t *to;
    size_t n_in;
    int n_out;
    float factor;
};

static void widen(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct widening *d = ctx;

    (void)thread;
    for (int64_t o = begin; o < end; o++) {
        size_t row = (size_t)binder_source_row(d->p, d->n_out, (int)o);

        for (size_t i = 0; i < d->n_in; i++) {
            unsigned code = d->codes[row * (d->n_in / 2) + i / 2] >> i % 2 * 4 & 15;
            float scale = f8_e4m3_to_f32(d->scales[row * (d->n_in / 16) + i / 16]) * d->factor;

            store_number(d->to, (size_t)o * d->n_in + i, f4_e2m1_to_f32(code) * scale, WEIGHT_BF16);
        }
    }
}

static int make_dense(struct binder *b, struct weight *w, const struct piece *p,
                      const struct nn_slot *s, int expert)
{
    int64_t rows = p->rows ? p->rows : s->n_out;
    struct widening d = {.p = p, .n_in = (size_t)w->n_in, .n_out = w->n_out};
    size_t size = 2 * d.n_in * (size_t)w->n_out;

    if (read_factor(b, &d.factor, p, s, expert) || binder_pool(b))
        return -1;
    d.codes = binder_plane(b, p->part[PART_WEIGHT], p, s, expert, rows, w->n_in / 2);
    d.scales =
        d.codes ? binder_plane(b, p->part[PART_SCALES], p, s, expert, rows, w->n_in / 16) : NULL;
    if (!d.scales)
        return -1;
    d.to = binder_room(b, size);
    if (!d.to)
        return fail(b->err, CLM_ERR_NOMEM, "%s: no memory for %s", b->path,
                    p->part[PART_WEIGHT]->name);
    thread_pool_for(b->pool, w->n_out, 64, widen, &d);
    *w = (struct weight){.format = WEIGHT_BF16, .n_out = w->n_out, .n_in = w->n_in};
    w->data = binder_settle(b, d.to, size);
    return w->data ? 0 : -1;
}

/* What the tensors say of a weight whose shape is known. */
static int read_format(const struct binder *b, struct weight *w, const struct piece *p)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT], *scales = p->part[PART_SCALES];
    bool e4m3 = scales->type == DTYPE_F8_E4M3;

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
    return factor_tensor(p) && !e4m3 ? binder_unused(b, factor_tensor(p)) : 0;
}

int fp4_open(const struct binder *b, struct weight *w, float *factor, const struct piece *p,
             const struct nn_slot *s)
{
    *w = (struct weight){.n_out = s->n_out, .n_in = s->n_in};
    *factor = 1;
    if (read_format(b, w, p) || (factor_tensor(p) && read_factor(b, factor, p, s, 0)))
        return -1;
    w->data = binder_plane(b, p->part[PART_WEIGHT], p, s, 0, s->n_out, s->n_in / 2);
    w->scales =
        w->data ? binder_plane(b, p->part[PART_SCALES], p, s, 0, s->n_out, s->n_in / w->group_size)
                : NULL;
    return w->scales ? weight_check(w, p->part[PART_WEIGHT]->name, b->err) : -1;
}

int set_fp4(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s,
            int expert)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT], *scales = p->part[PART_SCALES];

    if (read_format(b, w, p))
        return -1;
    if (factor_tensor(p))
        return make_dense(b, w, p, s, expert);
    w->data = binder_rows(b, t, p, s, expert, w->n_in / 2);
    w->scales = w->data ? binder_rows(b, scales, p, s, expert, w->n_in / w->group_size) : NULL;
    return w->scales ? weight_check(w, t->name, b->err) : -1;
}
