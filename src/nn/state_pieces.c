#include "nn/state_pieces.h"

/* Adds a piece that is an array of its own behind the last one. */
static void add(struct nn_state_piece *pieces, int *n, struct nn_state_piece p)
{
    const struct nn_state_piece *last = *n ? &pieces[*n - 1] : NULL;

    p.array = last ? last->array + 1 : 0;
    p.offset = last ? last->offset + nn_state_piece_count(last) * sizeof(float) : 0;
    pieces[(*n)++] = p;
}

/* The last inputs of a convolution, or as many numbers of each channel. */
static void add_rows(struct nn_state_piece *pieces, int *n, int rows, int cols)
{
    add(pieces, n, (struct nn_state_piece){.dims = {rows, cols}, .n_dims = 2, .n = cols});
}

/* A matrix of each head, [rows, cols] in the array, there turned or not. */
static void add_matrices(struct nn_state_piece *pieces, int *n, int n_heads, int rows, int cols,
                         bool turned)
{
    add(pieces, n,
        (struct nn_state_piece){
            .dims = {n_heads, rows, cols}, .n_dims = 3, .n = cols, .turned = turned});
}

/* A row of numbers. */
static void add_row(struct nn_state_piece *pieces, int *n, int cols)
{
    add(pieces, n, (struct nn_state_piece){.dims = {cols}, .n_dims = 1, .n = cols});
}

/* The convolutions of queries, keys and values have an array each, or one together. */
static int delta_pieces(const struct delta_spec *d, struct nn_state_piece *pieces)
{
    int keys = d->n_key_heads * d->key_dim, values = d->n_heads * d->value_dim;
    int channels[] = {keys, keys, values};
    int n = 0, first = 0;

    for (int i = 0; i < 3; i++) {
        add_rows(pieces, &n, d->conv_width - 1, channels[i]);
        if (!d->convs_apart) {
            pieces[i].array = 0;
            pieces[i].first = first;
            pieces[i].dims[1] = 2 * keys + values;
            first += channels[i];
        }
    }
    add_matrices(pieces, &n, d->n_heads, d->value_dim, d->key_dim, true);
    return n;
}

int nn_state_pieces(const struct branch_spec *b, struct nn_state_piece pieces[NN_STATE_PIECES])
{
    const struct attention_spec *at = &b->attention;
    const struct conv_mixer_spec *c = &b->conv_mixer;
    const struct mamba_spec *m = &b->mamba;
    const struct mamba2_spec *m2 = &b->mamba2;
    int n = 0;

    switch (b->op) {
    case OP_SHORT_CONV:
        add_rows(pieces, &n, b->short_conv.width - 1, b->short_conv.channels);
        return n;
    case OP_POOLED: /* mlx-lm writes no such cache to files */
        return -1;
    case OP_MLSTM: /* mlx-lm does not have it */
        add_matrices(pieces, &n, b->mlstm.n_heads, b->mlstm.key_dim, b->mlstm.value_dim, false);
        add_rows(pieces, &n, b->mlstm.n_heads, b->mlstm.key_dim);
        add_row(pieces, &n, b->mlstm.n_heads);
        return n;
    case OP_MAMBA:
        add_rows(pieces, &n, m->conv_width - 1, m->channels);
        add_rows(pieces, &n, m->channels, m->state_size);
        return n;
    case OP_MAMBA2:
        add_rows(pieces, &n, m2->conv_width - 1, mamba2_channels(m2));
        add_matrices(pieces, &n, m2->n_heads, m2->head_dim, m2->state_size, true);
        return n;
    case OP_ATTENTION:
        if (!at->kv_conv)
            return 0;
        if (at->kv_conv > 2)
            return -1; /* the array would have the heads before the tokens */
        for (int i = 0; i < 2; i++)
            add_matrices(pieces, &n, at->n_kv_heads, 1, at->head_dim, false);
        return n;
    case OP_CONV_MIXER:
        for (int i = 0; i < 2; i++)
            add_rows(pieces, &n, c->width - 1, c->n_kv_heads * c->head_dim);
        return n;
    case OP_LIGHTNING:
        add_matrices(pieces, &n, b->lightning.n_heads, b->lightning.head_dim, b->lightning.head_dim,
                     false);
        return n;
    case OP_RG_LRU:
        add_rows(pieces, &n, b->rg_lru.conv_width - 1, b->rg_lru.channels);
        add_row(pieces, &n, b->rg_lru.channels);
        return n;
    case OP_RWKV7:
        add_rows(pieces, &n, 1, b->rwkv7.n_heads * b->rwkv7.head_dim);
        add_matrices(pieces, &n, b->rwkv7.n_heads, b->rwkv7.head_dim, b->rwkv7.head_dim, true);
        return n;
    case OP_MLP:
        if (b->mlp.shifted)
            add_rows(pieces, &n, 1, b->mlp.shifted);
        return n;
    case OP_DELTA:
        return delta_pieces(&b->delta, pieces);
    default:
        return branch_state_bytes(b) ? -1 : 0;
    }
}

static size_t rows_of(const struct nn_state_piece *p)
{
    size_t rows = 1;

    for (int i = 0; i < p->n_dims - 1; i++)
        rows *= (size_t)p->dims[i];
    return rows;
}

size_t nn_state_piece_count(const struct nn_state_piece *p)
{
    return rows_of(p) * (size_t)p->n;
}

size_t nn_state_array_count(const struct nn_state_piece *p)
{
    return rows_of(p) * (size_t)p->dims[p->n_dims - 1];
}

/* Where in its own numbers the one at column c of the array's row r lies. */
static size_t place(const struct nn_state_piece *p, size_t r, size_t c)
{
    size_t cols = (size_t)p->n, rows;

    if (!p->turned)
        return r * cols + c;
    rows = (size_t)p->dims[p->n_dims - 2];
    return (r / rows * cols + c) * rows + r % rows;
}

void nn_state_piece_to_array(const struct nn_state_piece *p, float *array, const void *state)
{
    const float *own = (const float *)((const char *)state + p->offset);
    size_t width = (size_t)p->dims[p->n_dims - 1];

    for (size_t r = 0; r < rows_of(p); r++)
        for (size_t c = 0; c < (size_t)p->n; c++)
            array[r * width + (size_t)p->first + c] = own[place(p, r, c)];
}

void nn_state_piece_from_array(const struct nn_state_piece *p, void *state, const float *array)
{
    float *own = (float *)((char *)state + p->offset);
    size_t width = (size_t)p->dims[p->n_dims - 1];

    for (size_t r = 0; r < rows_of(p); r++)
        for (size_t c = 0; c < (size_t)p->n; c++)
            own[place(p, r, c)] = array[r * width + (size_t)p->first + c];
}
