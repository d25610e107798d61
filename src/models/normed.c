/* models/normed.c: heads whose rows or columns have length 1.
 *
 * The references divide a head by its lengths once and keep it in the type it is stored in, which
 * rounds: so it is made anew here, of that type.
 */
#include <math.h>
#include <string.h>

#include "base/number.h"
#include "device/weight.h"
#include "models/bind.h"
#include "models/foreign.h"

enum { ROW_GRAIN = 64, COLUMN_GRAIN = 64 };

struct normed {
    struct weight from; /* the head as the file has it */
    bool by_row;
    float *lengths; /* of each column, where they count */
    uint8_t *to;
};

static float number_at(const struct weight *w, size_t i)
{
    const uint8_t *numbers = w->data;
    uint16_t h;
    float f;

    if (w->format == WEIGHT_F32) {
        memcpy(&f, numbers + 4 * i, 4);
        return f;
    }
    memcpy(&h, numbers + 2 * i, 2);
    return w->format == WEIGHT_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

static float length_of(double sum)
{
    return (float)sqrt(sum) + 1e-7f;
}

static void measure_columns(void *ctx, int64_t begin, int64_t end, int thread)
{
    struct normed *n = ctx;
    double sums[COLUMN_GRAIN] = {0};

    (void)thread;
    for (int o = 0; o < n->from.n_out; o++)
        for (int64_t i = begin; i < end; i++) {
            double f = (double)number_at(&n->from, (size_t)o * (size_t)n->from.n_in + (size_t)i);

            sums[i - begin] += f * f;
        }
    for (int64_t i = begin; i < end; i++)
        n->lengths[i] = length_of(sums[i - begin]);
}

static void divide_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    struct normed *n = ctx;
    size_t n_in = (size_t)n->from.n_in;

    (void)thread;
    for (size_t o = (size_t)begin; o < (size_t)end; o++) {
        double sum = 0;
        float length = 1;

        for (size_t i = 0; i < n_in && n->by_row; i++) {
            double f = (double)number_at(&n->from, o * n_in + i);

            sum += f * f;
        }
        if (n->by_row)
            length = length_of(sum);
        for (size_t i = 0; i < n_in; i++)
            store_number(n->to, o * n_in + i,
                         number_at(&n->from, o * n_in + i) / (n->by_row ? length : n->lengths[i]),
                         n->from.format);
    }
}

bool is_normed_head(const struct spec *s, const struct nn_slot *slot, const struct piece *p)
{
    return slot->role == ROLE_LM_HEAD && (s->head_normed || s->head_rows_normed) &&
           !p->part[PART_SCALES] && !is_packed(p) && !is_fp8(p) && !is_fp4(p);
}

int set_normed(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT];
    struct normed n = {.by_row = b->m->spec->head_rows_normed};
    size_t size;

    if (read_dense(b, w, t) || binder_pool(b))
        return -1;
    n.from = *w;
    n.from.data = binder_plane(b, t, p, s, 0, s->n_out, s->n_in);
    if (!n.from.data)
        return -1;
    size = (size_t)w->n_out * weight_row_bytes(w);
    n.to = binder_room(b, size);
    n.lengths = mem_alloc((size_t)s->n_in * sizeof *n.lengths);
    if (n.to && n.lengths) {
        if (!n.by_row)
            thread_pool_for(b->pool, s->n_in, COLUMN_GRAIN, measure_columns, &n);
        thread_pool_for(b->pool, s->n_out, ROW_GRAIN, divide_rows, &n);
        w->data = binder_settle(b, n.to, size);
    } else if (n.to) {
        fail(b->err, CLM_ERR_NOMEM, "%s: no memory for norms of the head", b->path);
        binder_drop(b, n.to);
    }
    mem_free(n.lengths);
    b->m->head_divided = w->data != NULL;
    return w->data ? 0 : -1;
}
