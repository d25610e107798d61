/* nn/pass.c: temporaries of a forward pass, in device memory that is kept between passes. */
#include "nn/pass.h"

#include <string.h>

#define ALIGNMENT 64
#define FIRST_CHUNK ((size_t)1 << 20)
#define MAX_CHUNKS 64

/* Chunks are filled one after another; places are counted from the start of the first. */
struct chunk {
    uint8_t *data;
    size_t size, start;
};

struct pass_memory {
    device *dev;
    arena *host; /* tensor structs */
    struct chunk chunks[MAX_CHUNKS];
    int n_chunks, current;
    size_t used; /* place after the last piece, gaps at the ends of chunks included */
    size_t peak;
};

struct pass_memory *pass_memory_open(device *d, clm_error *err)
{
    struct pass_memory *m = mem_zeroed(1, sizeof *m);

    if (m)
        m->host = arena_open(0);
    if (!m || !m->host) {
        mem_free(m);
        return fail_null(err, CLM_ERR_NOMEM, "forward pass: no memory for its temporaries");
    }
    m->dev = d;
    return m;
}

static void free_chunks(struct pass_memory *m, int from)
{
    for (int i = from; i < m->n_chunks; i++)
        m->dev->ops->free(m->dev, m->chunks[i].data);
    m->n_chunks = from;
}

void pass_memory_close(struct pass_memory *m)
{
    if (!m)
        return;
    free_chunks(m, 0);
    arena_close(m->host);
    mem_free(m);
}

size_t pass_memory_peak(const struct pass_memory *m)
{
    return m->peak;
}

static int add_chunk(struct pass_memory *m, size_t size, clm_error *err)
{
    struct chunk *c = &m->chunks[m->n_chunks];

    if (m->n_chunks == MAX_CHUNKS)
        return fail(err, CLM_ERR_NOMEM, "forward pass: more than %d pieces of memory", MAX_CHUNKS);
    *c = (struct chunk){.size = size};
    if (m->n_chunks)
        c->start = c[-1].start + c[-1].size;
    c->data = m->dev->ops->alloc(m->dev, size, err);
    if (!c->data)
        return -1;
    m->n_chunks++;
    return 0;
}

/* Between passes: pieces that the last pass needed become one, so that the next one finds its place
 * at once and holds no more than its peak. */
static void merge_chunks(struct pass_memory *m)
{
    size_t total = 0;
    clm_error ignored = {0};

    for (int i = 0; i < m->n_chunks; i++)
        total += m->chunks[i].size;
    free_chunks(m, 0);
    (void)add_chunk(m, total, &ignored); /* without it the pass takes pieces again */
}

static void *take(struct pass_memory *m, size_t size, clm_error *err)
{
    struct chunk *c = m->n_chunks ? &m->chunks[m->current] : NULL;

    size = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (!c || m->used - c->start + size > c->size) {
        int next = c ? m->current + 1 : 0;

        if (next < m->n_chunks && m->chunks[next].size < size)
            free_chunks(m, next);
        if (next == m->n_chunks && add_chunk(m, size > FIRST_CHUNK ? size : FIRST_CHUNK, err))
            return NULL;
        m->current = next;
        c = &m->chunks[next];
        m->used = c->start;
    }
    m->used += size;
    if (m->used > m->peak)
        m->peak = m->used;
    return c->data + (m->used - size - c->start);
}

static void begin(struct pass_memory *m)
{
    if (m->n_chunks > 1)
        merge_chunks(m);
    m->current = 0;
    m->used = 0;
    arena_rewind(m->host, 0);
}

void pass_init(pass *p, const struct nn_model *model, kv_cache *cache,
               struct pass_memory *const *memories, clm_error *err)
{
    for (int i = 0; i < model->n_parts; i++)
        begin(memories[i]);
    *p = (pass){.model = model, .cache = cache, .memories = memories, .err = err};
    pass_enter(p, 0);
}

void pass_enter(pass *p, int part)
{
    p->part = part;
    p->dev = p->model->parts[part].dev;
    p->ops = p->dev->ops;
    p->rows = p->narrow ? p->part_asked[part] : p->part_rows[part];
    p->state = p->model->parts[part].state;
    p->memory = p->memories[part];
    p->host = p->memory->host;
}

/* A tensor to hand out when there is no memory for any: operations on no rows touch nothing. It has
 * a column, for shares of columns are asked for. */
static tensor no_rows = {.cols = 1, .stride = 1};

tensor *pass_tensor(pass *p, enum dtype type, int rows, int cols)
{
    tensor *t = arena_array(p->host, tensor, 1);
    size_t bytes;

    if (!t) {
        p->failed = true;
        fail(p->err, CLM_ERR_NOMEM, "forward pass: no memory");
        return &no_rows;
    }
    *t = (tensor){.type = type, .cols = cols, .stride = cols};
    if (p->failed)
        return t;
    if (!size_mul((size_t)rows, (size_t)cols, &bytes) ||
        !size_mul(bytes, dtype_size(type), &bytes)) {
        p->failed = true;
        fail(p->err, CLM_ERR_NOMEM, "forward pass: %d rows of %d numbers are too many", rows, cols);
        return t;
    }
    t->data = take(p->memory, bytes, p->err);
    if (t->data)
        t->rows = rows;
    else
        p->failed = true;
    return t;
}

void *pass_bytes(pass *p, size_t size)
{
    void *data = p->failed ? NULL : take(p->memory, size, p->err);

    if (!data)
        p->failed = true;
    return data;
}

const void *pass_upload(pass *p, const void *data, size_t size)
{
    void *to = pass_bytes(p, size);

    if (to)
        p->ops->upload(p->dev, to, data, size);
    return to;
}

tensor *pass_carry(pass *p, const tensor *x)
{
    tensor *y = x ? pass_tensor(p, x->type, x->rows, x->cols) : NULL;

    if (y && !p->failed)
        p->ops->upload(p->dev, y->data, x->data,
                       (size_t)x->rows * (size_t)x->cols * dtype_size(x->type));
    return y;
}

tensor row_range(const tensor *t, int first, int n)
{
    tensor part = *t;

    if (t->rows == 0)
        return part;
    part.data = (uint8_t *)t->data + (size_t)first * (size_t)t->stride * dtype_size(t->type);
    part.rows = n;
    return part;
}

tensor *pass_row_range(pass *p, const tensor *t, int first, int n)
{
    tensor *part = arena_array(p->host, tensor, 1);

    if (!part) {
        p->failed = true;
        fail(p->err, CLM_ERR_NOMEM, "forward pass: no memory");
        return &no_rows;
    }
    *part = row_range(t, first, n);
    return part;
}

void pass_keep_asked(pass *p, tensor *x, int n)
{
    const struct pass_rows *all = &p->part_rows[p->part];
    int asked = all->n_logits;
    tensor *y = pass_tensor(p, x->type, x->rows / all->n_rows * asked, x->cols);

    if (p->failed) {
        if (x->rows)
            x->rows = 0;
        return;
    }
    for (int i = 0; i < n && asked > 0; i++) {
        tensor from = row_range(x, i * all->n_rows, all->n_rows);
        tensor to = row_range(y, i * asked, asked);

        p->ops->gather_rows(p->dev, &to, &from, all->logit_rows);
    }
    *x = *y;
}

bool pass_narrow(pass *p, tensor *x)
{
    if (!p->narrows)
        return true;
    if (!p->narrow) {
        p->narrow = true;
        p->rows = p->part_asked[p->part];
        p->rope_tables = p->asked_tables;
    }
    pass_keep_asked(p, x, 1);
    return x->rows > 0;
}

struct pass_mark pass_mark(const pass *p)
{
    return (struct pass_mark){arena_mark(p->host), p->memory->used};
}

void pass_rewind(pass *p, struct pass_mark mark)
{
    struct pass_memory *m = p->memory;

    arena_rewind(m->host, mark.host);
    m->used = mark.device;
    while (m->current > 0 && m->used < m->chunks[m->current].start)
        m->current--;
}

const struct kv_layer *pass_kv_layer(const pass *p, int layer)
{
    return kv_cache_layer_of(p->cache, p->model->share, layer);
}

void pass_sum(pass *p, tensor *x)
{
    if (!p->failed)
        p->ops->all_reduce(p->dev, x);
}

int pass_done(pass *p)
{
    for (int i = 0; i < p->model->n_parts; i++) {
        device *d = p->model->parts[i].dev;

        if (d->ops->sync(d, p->err))
            p->failed = true;
    }
    return p->failed ? -1 : 0;
}
