/* models/fp4.c: two e2m1 a byte, the first in the low nibble.
 *
 *     mxfp4   a scale of e8m0 for 32: in blocks of 16 bytes as the original gpt-oss has them, in
 *             rows as compressed-tensors and DeepSeek V4.1 do
 *     nvfp4   a scale of e4m3 for 16
 *
 * Both stay in the mapped file.
 */
#include "device/weight.h"
#include "models/bind.h"
#include "models/foreign.h"

bool is_fp4(const struct piece *p)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT], *s = p->part[PART_SCALES];

    return s && (t->type == DTYPE_U8 || t->type == DTYPE_I8) && dtype_size(s->type) == 1;
}

int set_fp4(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s,
            int expert)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT], *scales = p->part[PART_SCALES];
    bool e4m3 = scales->type == DTYPE_F8_E4M3;
    const struct checkpoint_tensor *factor =
        p->part[p->part[PART_DIVISOR] ? PART_DIVISOR : PART_FACTOR];

    if (factor)
        return fail(b->err, CLM_ERR_UNSUPPORTED,
                    "%s: tensor %s scales a whole matrix of nvfp4, which is not supported", b->path,
                    factor->name);
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
    w->data = binder_rows(b, t, p, s, expert, w->n_in / 2);
    w->scales = w->data ? binder_rows(b, scales, p, s, expert, w->n_in / w->group_size) : NULL;
    return w->scales ? weight_check(w, t->name, b->err) : -1;
}
