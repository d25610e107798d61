/* models/fp8.c: bytes of e4m3 with a scale for each block, for each row, or for all.
 *
 * weight_scale_inv of DeepSeek's checkpoints and weight_scale of others are both what a byte is
 * multiplied by. Bytes stay in the mapped file; scales too where they are F32, as those of blocks
 * are.
 */
#include <string.h>

#include "base/number.h"
#include "device/weight.h"
#include "models/bind.h"
#include "models/foreign.h"

bool is_fp8(const struct piece *p)
{
    return p->part[PART_WEIGHT]->type == DTYPE_F8_E4M3;
}

/* How many scales lie along rows and columns. */
struct grid {
    int64_t rows, cols;
};

static int wrong_grid(const struct binder *b, const struct checkpoint_tensor *t, int64_t rows,
                      int n_in)
{
    return fail(b->err, CLM_ERR_FORMAT,
                "%s: tensor %s holds %zu numbers, which are no scales for blocks of %lld x %d",
                b->path, t->name, t->size / dtype_size(t->type), (long long)rows, n_in);
}

/* The scales of one expert, as they are in the file. */
static const uint8_t *read_grid(const struct binder *b, struct grid *g, const struct piece *p,
                                const struct nn_slot *s, int expert, int64_t rows)
{
    const struct checkpoint_tensor *t = p->part[PART_SCALES];
    bool folded = p->stacked && p->part[PART_WEIGHT]->n_dims == 2 && t->n_dims == 2;
    int at = p->stacked && !folded, n_dims = t->n_dims - at;
    size_t size = dtype_size(t->type), experts = p->stacked ? (size_t)s->n_experts : 1;

    *g = (struct grid){1, 1};
    if (t->size == size * experts)
        return (const uint8_t *)t->data + (p->stacked ? (size_t)expert * size : 0);
    if (n_dims == 1) {
        g->rows = rows;
        return binder_plane(b, t, p, s, expert, rows, 0);
    }
    if (n_dims < 2) {
        wrong_grid(b, t, rows, s->n_in);
        return NULL;
    }
    if (n_dims == 4 && t->shape[at + 1] == 1 && t->shape[at + 3] == 1 &&
        (!at || t->shape[0] == s->n_experts)) { /* ModelOpt's blocks, of which each has two */
        *g = (struct grid){t->shape[at], t->shape[at + 2]};
        return (const uint8_t *)t->data + (at ? (size_t)expert * (t->size / experts) : 0);
    }
    *g = (struct grid){t->shape[at] / (folded ? s->n_experts : 1), t->shape[at + 1]};
    return binder_plane(b, t, p, s, expert, g->rows, g->cols);
}

static bool fits(int64_t all, int64_t n, int size)
{
    return (all + size - 1) / size == n;
}

/* The size of n blocks that divide all numbers; 0: there is none. Where config.json gives blocks of
 * several rows, of which none fits, there may be but one block, or one for each number. */
static int divided(int64_t all, int64_t n, bool given)
{
    return n > 0 && all % n == 0 && (!given || n == 1 || n == all) ? (int)(all / n) : 0;
}

/* The blocks of a matrix with such a grid of scales: what config.json gives, the last ones may then
 * be shorter; or what divides it. Sizes are 0 where there is none. */
static struct fp8_block block_of(const struct binder *b, int64_t rows, int64_t cols, struct grid g)
{
    const struct foreign *f = &b->foreign;
    bool given = false;

    for (int i = 0; i < f->n_blocks; i++) {
        if (fits(rows, g.rows, f->blocks[i].rows) && fits(cols, g.cols, f->blocks[i].cols))
            return f->blocks[i];
        given |= f->blocks[i].rows > 1;
    }
    return (struct fp8_block){divided(rows, g.rows, given), divided(cols, g.cols, given)};
}

/* Scales as f32: where they lie, or converted. */
static const void *f32_scales(const struct binder *b, const struct checkpoint_tensor *t,
                              const uint8_t *from, size_t n)
{
    /* Exponents may go as bytes. */
    enum dtype type = t->type == DTYPE_U8 ? DTYPE_F8_E8M0 : t->type;
    float *to;

    if (type == DTYPE_F32)
        return from;
    if (type != DTYPE_F16 && type != DTYPE_BF16 && type != DTYPE_F8_E8M0)
        return fail_null(b->err, CLM_ERR_UNSUPPORTED,
                         "%s: tensor %s is %s; scales are F32, F16, BF16 or F8_E8M0", b->path,
                         t->name, dtype_name(t->type));
    to = arena_array(b->memory, float, n);
    if (!to)
        return fail_null(b->err, CLM_ERR_NOMEM, "%s: no memory for %zu scales", b->path, n);
    dtype_to_f32(to, from, type, n);
    return to;
}

int fp8_open(const struct binder *b, struct weight *w, const struct piece *p,
             const struct nn_slot *s, int expert)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT], *scales = p->part[PART_SCALES];
    int64_t rows = p->rows ? p->rows : s->n_out;
    struct fp8_block block;
    const uint8_t *from;
    struct grid g;

    if (p->transposed)
        return fail(b->err, CLM_ERR_UNSUPPORTED, "%s: tensor %s is quantised and transposed",
                    b->path, t->name);
    if (!scales)
        return fail(b->err, CLM_ERR_FORMAT,
                    "%s: tensor %s is F8_E4M3, but no weight_scale_inv or weight_scale is there",
                    b->path, t->name);
    *w = (struct weight){.format = WEIGHT_FP8, .n_out = (int)rows, .n_in = s->n_in, .bits = 8};
    w->data = binder_plane(b, t, p, s, expert, rows, s->n_in);
    from = w->data ? read_grid(b, &g, p, s, expert, rows) : NULL;
    if (!from)
        return -1;
    block = block_of(b, rows, s->n_in, g);
    w->scale_rows = block.rows;
    w->group_size = block.cols;
    if (!w->scale_rows || !w->group_size)
        return wrong_grid(b, scales, rows, s->n_in);
    w->scales = f32_scales(b, scales, from, (size_t)(g.rows * g.cols));
    return w->scales ? weight_check(w, t->name, b->err) : -1;
}

/* Rows that lie scattered, each with the scales of its block. */
static int gather_rows(const struct binder *b, struct weight *w, const struct weight *whole,
                       const struct piece *p)
{
    size_t row_bytes = weight_row_bytes(whole), scale_bytes = weight_scale_row_bytes(whole);
    size_t n = (size_t)w->n_out;
    uint8_t *data = mem_alloc(n * row_bytes), *scales = mem_alloc(n * scale_bytes);

    for (int o = 0; data && scales && o < w->n_out; o++) {
        int row = (int)binder_source_row(p, w->n_out, o);

        memcpy(data + (size_t)o * row_bytes, (const uint8_t *)whole->data + (size_t)row * row_bytes,
               row_bytes);
        memcpy(scales + (size_t)o * scale_bytes, weight_fp8_scales(whole, row), scale_bytes);
    }
    w->scale_rows = 1;
    w->scale_row = 0;
    w->data = data && scales ? binder_place(b, data, n * row_bytes) : NULL;
    w->scales = w->data ? binder_place(b, scales, n * scale_bytes) : NULL;
    mem_free(data);
    mem_free(scales);
    return w->scales ? 0
                     : fail(b->err, CLM_ERR_NOMEM, "%s: no memory to put rows together", b->path);
}

/* A matrix stored [n_in, rows], its scales likewise: both are put the other way round, scales for
 * each row. */
static int set_transposed(struct binder *b, struct weight *w, const struct piece *p,
                          const struct nn_slot *s, int expert)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT], *ts = p->part[PART_SCALES];
    size_t rows = (size_t)(p->rows ? p->rows : s->n_out), n_in = (size_t)s->n_in;
    size_t n = (size_t)s->n_out, groups;
    const uint8_t *from = binder_plane(b, t, p, s, expert, s->n_in, (int64_t)rows), *grid;
    uint8_t *data = NULL, *scales = NULL;
    struct fp8_block block;
    struct grid g;

    grid = from ? read_grid(b, &g, p, s, expert, s->n_in) : NULL;
    if (!grid)
        return -1;
    *w = (struct weight){.format = WEIGHT_FP8, .n_out = s->n_out, .n_in = s->n_in, .bits = 8};
    w->scale_rows = 1;
    block = block_of(b, s->n_in, (int64_t)rows, g);
    w->group_size = block.rows;
    if (!block.rows || !block.cols)
        return wrong_grid(b, ts, s->n_in, (int)rows);
    grid = f32_scales(b, ts, grid, (size_t)(g.rows * g.cols));
    groups = (size_t)g.rows;
    data = grid ? mem_alloc(n * n_in) : NULL;
    scales = data ? mem_alloc(n * groups * sizeof(float)) : NULL;
    for (size_t o = 0; scales && o < n; o++) {
        size_t row = (size_t)binder_source_row(p, s->n_out, (int)o);

        for (size_t i = 0; i < n_in; i++)
            data[o * n_in + i] = from[i * rows + row];
        for (size_t k = 0; k < groups; k++)
            memcpy(scales + 4 * (o * groups + k),
                   grid + 4 * (k * (size_t)g.cols + row / (size_t)block.cols), sizeof(float));
    }
    w->data = scales ? binder_place(b, data, n * n_in) : NULL;
    w->scales = w->data ? binder_place(b, scales, n * groups * sizeof(float)) : NULL;
    mem_free(data);
    mem_free(scales);
    if (!w->scales)
        return fail(b->err, CLM_ERR_NOMEM, "%s: no memory to turn %s", b->path, t->name);
    return weight_check(w, t->name, b->err);
}

int set_fp8(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s,
            int expert)
{
    device *d = b->dev;
    bool mapped = p->part[PART_SCALES] && p->part[PART_SCALES]->type == DTYPE_F32;
    struct weight whole, part;
    size_t data_bytes, scale_bytes;

    if (p->transposed && p->part[PART_SCALES])
        return set_transposed(b, w, p, s, expert);
    if (fp8_open(b, &whole, p, s, expert))
        return -1;
    part = whole;
    part.n_out = s->n_out;
    if (p->stride) {
        *w = part;
        return gather_rows(b, w, &whole, p);
    }
    *w = part = weight_rows(&whole, (int)p->row, s->n_out);
    data_bytes = (size_t)s->n_out * weight_row_bytes(w);
    scale_bytes = weight_bytes(w) - data_bytes;
    w->data = d->ops->map(d, part.data, data_bytes, b->err);
    w->scales = !w->data ? NULL
                : mapped ? d->ops->map(d, part.scales, scale_bytes, b->err)
                         : binder_place(b, part.scales, scale_bytes);
    return w->scales ? 0 : -1;
}
