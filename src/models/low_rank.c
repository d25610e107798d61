/* models/low_rank.c: the two tensors of an adapter, however they lie, as A [rank, n_in] and B
 * [n_out, rank] of a place.
 */
#include "models/low_rank.h"

#include <string.h>

#include "models/adapt.h"
#include "models/stacks.h"

void low_rank_release(struct low_rank *l)
{
    mem_free(l->a);
    mem_free(l->b);
    mem_free(l->bias);
    mem_free(l->magnitude);
    *l = (struct low_rank){0};
}

int low_rank_no_memory(const struct binder *b, const struct nn_slot *s)
{
    return fail(b->err, CLM_ERR_NOMEM, "%s: no memory to adapt %s", b->adapter->path,
                weight_role_name(s->role));
}

int cannot_adapt(const struct binder *b, const struct checkpoint_tensor *t)
{
    return fail(b->err, CLM_ERR_UNSUPPORTED, "%s: tensor %s adapts what clm cannot adapt",
                b->adapter->path, t->name);
}

bool is_adapted(const struct piece *p)
{
    return p->part[PART_LORA_A] || p->part[PART_LORA_B] || p->part[PART_LORA_BIAS] ||
           p->part[PART_MAGNITUDE];
}

/* A matrix as it lies in a file: number [i, j] is number i * row + j * col. */
struct view {
    const uint8_t *data;
    enum dtype type;
    int64_t row, col;
};

/* The tensor, or an expert's part of it, [rows, cols], or stored [cols, rows]; cols 0: a vector.
 * -1 with the error. */
static int view_open(const struct binder *b, struct view *v, const struct checkpoint_tensor *t,
                     const struct piece *p, const struct nn_slot *s, int expert, int64_t rows,
                     int64_t cols, bool transposed)
{
    if (t->type != DTYPE_F32 && t->type != DTYPE_F16 && t->type != DTYPE_BF16)
        return fail(b->err, CLM_ERR_UNSUPPORTED, "%s: tensor %s is %s; clm reads F32, F16 and BF16",
                    b->path, t->name, dtype_name(t->type));
    *v = (struct view){
        .type = t->type, .row = transposed || cols == 0 ? 1 : cols, .col = transposed ? rows : 1};
    v->data = transposed ? binder_plane(b, t, p, s, expert, cols, rows)
                         : binder_plane(b, t, p, s, expert, rows, cols);
    return v->data ? 0 : -1;
}

/* Row i of the matrix, scaled. */
static void view_row(const struct view *v, float *out, int64_t i, int cols, double scale)
{
    size_t size = dtype_size(v->type);

    if (v->col == 1)
        dtype_to_f32(out, v->data + (size_t)(i * v->row) * size, v->type, (size_t)cols);
    for (int j = 0; j < cols; j++) {
        if (v->col != 1)
            dtype_to_f32(&out[j], v->data + (size_t)(i * v->row + j * v->col) * size, v->type, 1);
        out[j] *= (float)scale;
    }
}

/* The rows of the matrix that are the place's, n of them; from NULL: all in order. NULL: no memory.
 */
static float *view_rows(const struct view *v, const struct piece *from, int n, int cols,
                        double scale)
{
    float *out = mem_alloc((size_t)n * (size_t)cols * sizeof *out);

    for (int o = 0; out && o < n; o++)
        view_row(v, out + (size_t)o * (size_t)cols, from ? binder_source_row(from, n, o) : o, cols,
                 scale);
    return out;
}

static int check_pair(const struct binder *b, const struct piece *p, int64_t rank)
{
    const struct checkpoint_tensor *a = p->part[PART_LORA_A], *other = p->part[PART_LORA_B];
    const struct checkpoint_tensor *bias = p->part[PART_LORA_BIAS];
    bool dora = b->adapter->kind == ADAPTER_DORA;

    if (!a || !other || (dora && !p->part[PART_MAGNITUDE]))
        return fail(b->err, CLM_ERR_FORMAT,
                    "%s: tensor %s is there without the others of its module", b->path,
                    a       ? a->name
                    : other ? other->name
                    : bias  ? bias->name
                            : p->part[PART_MAGNITUDE]->name);
    if (!dora && p->part[PART_MAGNITUDE])
        return fail(b->err, CLM_ERR_FORMAT,
                    "%s: tensor %s is there; adapter_config.json says no DoRA", b->path,
                    p->part[PART_MAGNITUDE]->name);
    if (b->adapter->lora_bias != (bias != NULL))
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s; adapter_config.json says %s lora_bias",
                    b->path, bias ? bias->name : other->name, bias ? "no" : "there is a");
    if (rank < 1 || rank > 1 << 20)
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s is of rank %lld", b->path, a->name,
                    (long long)rank);
    return 0;
}

/* How many experts a stack of transformers' holds: those that return their input have weights in
 * the first. */
static int stack_size(const struct binder *b, const struct nn_slot *s)
{
    if (s->role != ROLE_EXPERT_GATE && s->role != ROLE_EXPERT_UP)
        return s->n_experts;
    return b->m->spec->layers[s->layer].branches[s->branch].moe.router.n_experts;
}

/* PEFT's tensors for stacked experts: of expert e A has the rows [e rank, (e + 1) rank), B the
 * columns e, size + e, 2 size + e, ... */
static int view_stack(const struct binder *b, struct view *down, struct view *up,
                      const struct piece *p, const struct nn_slot *s, int expert, int64_t rows,
                      int64_t rank)
{
    const struct checkpoint_tensor *ta = p->part[PART_LORA_A], *tb = p->part[PART_LORA_B];
    int64_t size = stack_size(b, s), stack = rank * size;
    struct piece whole = {0};
    bool turned =
        stack_is_turned(ta, tb, rows, s->n_in) || (rows == s->n_in && b->stacks == STACKS_TURNED);
    struct view va = {0}, vb = {0};

    if (rows == s->n_in && p->transposed && b->stacks == STACKS_UNKNOWN)
        return fail(b->err, CLM_ERR_UNSUPPORTED,
                    "%s: tensor %s is for square experts; no other tells inputs from outputs",
                    b->path, ta->name);
    if (view_open(b, &va, ta, &whole, s, 0, stack, turned ? rows : s->n_in, false) ||
        view_open(b, &vb, tb, &whole, s, 0, turned ? s->n_in : rows, stack, false))
        return -1;
    va.data += (size_t)(expert * rank * va.row) * dtype_size(va.type);
    vb.data += (size_t)expert * dtype_size(vb.type);
    vb.col = size;
    *down = turned ? (struct view){vb.data, vb.type, vb.col, vb.row} : va;
    *up = turned ? (struct view){va.data, va.type, va.col, va.row} : vb;
    return 0;
}

/* What is multiplied first, [rank, n_in], and then, [rows, rank]. Of an embedding, whose rows are
 * looked up, A and B change places in mlx-lm's form, and are turned as well in PEFT's. */
static int view_pair(const struct binder *b, struct view *down, struct view *up,
                     const struct piece *p, const struct nn_slot *s, int expert, int64_t rows,
                     int64_t cols, int64_t rank)
{
    const struct checkpoint_tensor *ta = p->part[PART_LORA_A], *tb = p->part[PART_LORA_B];
    bool table = weight_role_is_table(s->role);
    bool transposed = !p->stacked && table == b->adapter->peft;

    if (b->adapter->peft && p->stacked)
        return view_stack(b, down, up, p, s, expert, rows, rank);
    return view_open(b, down, table ? tb : ta, p, s, expert, rank, cols, transposed) ||
                   view_open(b, up, table ? ta : tb, p, s, expert, rows, rank, transposed)
               ? -1
               : 0;
}

/* The rank by the shape of A; 0 where it has none. */
static int64_t rank_of(const struct binder *b, const struct piece *p, const struct nn_slot *s)
{
    const struct checkpoint_tensor *t = p->part[PART_LORA_A];

    if (!t || t->n_dims < 2)
        return 0;
    if (b->adapter->peft && p->stacked)
        return t->shape[0] % stack_size(b, s) ? 0 : t->shape[0] / stack_size(b, s);
    return t->shape[t->n_dims - (b->adapter->peft || p->stacked ? 2 : 1)];
}

/* A vector of the module: what of it is the place's. NULL with the error. */
static float *read_vector(const struct binder *b, const struct checkpoint_tensor *t,
                          const struct piece *p, const struct nn_slot *s, int64_t rows, int n,
                          double scale)
{
    struct view v = {0};
    float *out;

    if (view_open(b, &v, t, p, s, 0, rows, 0, false))
        return NULL;
    out = view_rows(&v, p, n, 1, scale);
    if (!out)
        low_rank_no_memory(b, s);
    return out;
}

/* Lengths of rows; PEFT's of an embedding are of columns. */
static int read_magnitude(const struct binder *b, struct low_rank *l, const struct piece *p,
                          const struct nn_slot *s, int64_t rows)
{
    const struct checkpoint_tensor *t = p->part[PART_MAGNITUDE];
    struct piece whole = {0};

    if (!t)
        return 0;
    if (p->stacked)
        return cannot_adapt(b, t);
    l->by_column = b->adapter->peft && weight_role_is_table(s->role);
    l->magnitude = l->by_column ? read_vector(b, t, &whole, s, l->n_in, l->n_in, 1)
                                : read_vector(b, t, p, s, rows, l->n_out, 1);
    return l->magnitude ? 0 : -1;
}

float *transpose_of(const float *in, int rows, int cols)
{
    float *out = mem_alloc((size_t)rows * (size_t)cols * sizeof *out);

    for (int i = 0; out && i < cols; i++)
        for (int j = 0; j < rows; j++)
            out[(size_t)i * (size_t)rows + (size_t)j] = in[(size_t)j * (size_t)cols + (size_t)i];
    return out;
}

/* Of the transpose of W. A bias on the inputs of a latent adds the same to the scores of all keys,
 * which then weigh as before. */
static int turn(struct low_rank *l)
{
    float *a = transpose_of(l->b, l->n_out, l->rank), *b = transpose_of(l->a, l->rank, l->n_in);
    int n_out = l->n_in;

    mem_free(l->a);
    mem_free(l->b);
    mem_free(l->bias);
    l->a = a;
    l->b = b;
    l->bias = NULL;
    l->n_in = l->n_out;
    l->n_out = n_out;
    l->by_column = true;
    return a && b ? 0 : -1;
}

int low_rank_read(const struct binder *b, struct low_rank *l, const struct piece *p,
                  const struct nn_slot *s, int expert)
{
    int n_out = p->turned ? s->n_in : s->n_out, n_in = p->turned ? s->n_out : s->n_in;
    int64_t rows = p->rows ? p->rows : n_out, rank = rank_of(b, p, s);
    struct view down = {0}, up = {0};
    double scale;

    if (check_pair(b, p, rank) || adapt_scale(b, p->part[PART_LORA_A], (int)rank, &scale) ||
        view_pair(b, &down, &up, p, s, expert, rows, n_in, rank))
        return -1;
    *l = (struct low_rank){.rank = (int)rank, .n_out = n_out, .n_in = n_in};
    l->a = view_rows(&down, NULL, (int)rank, n_in, 1);
    l->b = view_rows(&up, p, n_out, (int)rank, scale);
    if (!l->a || !l->b)
        return low_rank_no_memory(b, s);
    if (p->part[PART_LORA_BIAS]) {
        l->bias = read_vector(b, p->part[PART_LORA_BIAS], p, s, rows, n_out, scale);
        if (!l->bias)
            return -1;
    }
    if (read_magnitude(b, l, p, s, rows))
        return -1;
    return p->turned && turn(l) ? low_rank_no_memory(b, s) : 0;
}
