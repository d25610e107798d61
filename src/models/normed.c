/* models/normed.c: heads whose rows or columns have length 1.
 *
 * The references divide a head by its lengths once and keep it in the type it is stored in, which
 * rounds: so it is made anew here, of that type.
 */
#include <math.h>

#include "device/weight.h"
#include "models/bind.h"
#include "models/foreign.h"

enum { ROW_GRAIN = 64, PIECE = 128 }; /* a piece: numbers read at a time */

struct normed {
    struct weight from; /* the head as the file has it */
    bool by_row;
    float *lengths; /* of each column, where they count */
    uint8_t *to;
};

static int piece_at(const struct normed *n, int k)
{
    return n->from.n_in - k < PIECE ? n->from.n_in - k : PIECE;
}

static float length_of(double sum)
{
    return (float)sqrt(sum) + 1e-7f;
}

/* Of the columns of pieces [begin, end). */
static void measure_columns(void *ctx, int64_t begin, int64_t end, int thread)
{
    struct normed *n = ctx;
    float numbers[PIECE];

    (void)thread;
    for (int k = (int)begin * PIECE; k < n->from.n_in && k < end * PIECE; k += PIECE) {
        double sums[PIECE] = {0};
        int size = piece_at(n, k);

        for (int o = 0; o < n->from.n_out; o++) {
            weight_piece_f32(numbers, &n->from, o, k, size);
            for (int i = 0; i < size; i++)
                sums[i] += (double)numbers[i] * (double)numbers[i];
        }
        for (int i = 0; i < size; i++)
            n->lengths[k + i] = length_of(sums[i]);
    }
}

static float row_length(const struct normed *n, int o)
{
    float numbers[PIECE];
    double sum = 0;

    for (int k = 0; k < n->from.n_in; k += PIECE) {
        int size = piece_at(n, k);

        weight_piece_f32(numbers, &n->from, o, k, size);
        for (int i = 0; i < size; i++)
            sum += (double)numbers[i] * (double)numbers[i];
    }
    return length_of(sum);
}

static void divide_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    struct normed *n = ctx;
    float numbers[PIECE];

    (void)thread;
    for (int o = (int)begin; o < end; o++) {
        float length = n->by_row ? row_length(n, o) : 1;

        for (int k = 0; k < n->from.n_in; k += PIECE) {
            int size = piece_at(n, k);

            weight_piece_f32(numbers, &n->from, o, k, size);
            for (int i = 0; i < size; i++)
                store_number(n->to, (size_t)o * (size_t)n->from.n_in + (size_t)(k + i),
                             numbers[i] / (n->by_row ? length : n->lengths[k + i]), n->from.format);
        }
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
            thread_pool_for(b->pool, (s->n_in + PIECE - 1) / PIECE, 1, measure_columns, &n);
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
