/* device/cpu/matmul.c: matrix products cut into tiles for the threads, and rows sorted by expert.
 *
 * A call becomes tasks, one per matrix: the jobs of the call, times the experts that were chosen.
 * All of them run in one go of the pool: first the threads put x into the forms that the tasks
 * want, strip by strip, then they take tiles of outputs, task after task, until none is left.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "device/cpu/cpu.h"

/* What a tile should take: so short that the threads finish together. As long as much is left they
 * take several at a time. A product of a few rows waits for memory, which gives most where it is
 * read far in order: of it, every thread begins with one long run. */
#define TILE_NS 2500
#define MAX_SHARES 64
#define SHORT_SHARES 600 /* a thread's, of work in which the threads come less far apart */
#define PAGE 4096
#define MOST_MORE 3      /* outputs of a place for the sake of where the next one begins */
#define MANY_OUTPUTS 128 /* beside which those do not count */
#define LATE 20e-6       /* seconds: a thread that comes later gets less to begin with */
#define FEW_ROWS 8
#define SERIAL_NS 4000       /* less work than this is not worth waking anyone */
#define SERIAL_NUMBERS 12288 /* of x: less is in its form before the others would be there */

/* Roughly, per thread: what it streams and what it multiplies in a nanosecond. */
#define BYTES_PER_NS 10
#define PRODUCTS_PER_NS 60

#define ALIGNMENT 64

struct item {
    struct cpu_task task;
    const struct cpu_product *product;
    int form; /* of call.forms, -1: none */
    int tile_cols;
    double tile_ns;
    int64_t tile_shares, end_share; /* of the work: a tile's; those of this item and all before */
};

/* x in the form that some products want. */
struct form {
    const struct cpu_product *product;
    const struct cpu_task *task; /* one that takes it */
    int group_size;
    size_t strip_bytes;
    int n_strips;
    int64_t end_strip;
    uint8_t *data;
};

struct call {
    struct cpu_device *d;
    struct item *items;
    struct form *forms;
    int n_items, n_forms;
    void *scratch; /* of thread 0 */
    int64_t n_strips, n_shares;
    int64_t n_numbers; /* of x in these strips */
    int64_t first_run; /* shares that a thread begins with; 0: as many as at any other time */
    double ns;         /* how long it may take a thread */
    int most_rows;     /* of an item */
    double late;       /* when others are well under way, by the clock */
    _Alignas(64) atomic_llong next_strip;
    _Alignas(64) atomic_llong next_share;
};

/* The rows that go through the same matrix. */
struct row_group {
    int expert;
    int n_rows;
    const int32_t *x_rows, *y_rows;
};

static size_t padded(size_t size)
{
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void prepare_strips(struct call *c)
{
    const struct form *f = c->forms;
    int64_t first = 0; /* strip of f */

    for (;;) {
        int64_t strip = atomic_fetch_add_explicit(&c->next_strip, 1, memory_order_relaxed);

        if (strip >= c->n_strips)
            return;
        for (; strip >= f->end_strip; f++)
            first = f->end_strip;

        int64_t i = strip - first;
        int row = (int)i * f->product->strip_rows;
        int n = f->task->n_rows - row;

        if (n > f->product->strip_rows)
            n = f->product->strip_rows;
        f->product->prepare(f->data + (size_t)i * f->strip_bytes, f->task, row, n);
    }
}

/* Shares from *share on, a part of what is left; 0 when nothing is. */
static int64_t take_shares(struct call *c, int64_t *share, bool first)
{
    long long next = atomic_load_explicit(&c->next_share, memory_order_relaxed), n;
    bool late = first && c->first_run > 0 && clock_seconds() > c->late;

    do {
        int64_t left = c->n_shares - next;

        if (left <= 0)
            return 0;
        n = left / (2 * thread_pool_size(c->d->pool));
        n = n < 1 ? 1 : n > MAX_SHARES ? MAX_SHARES : n;
        if (first && n < c->first_run) {
            int64_t most = late ? (left * 2 + 2) / 3 : left;

            n = c->first_run < most ? c->first_run : most;
        }
    } while (!atomic_compare_exchange_weak_explicit(&c->next_share, &next, next + n,
                                                    memory_order_relaxed, memory_order_relaxed));
    *share = next;
    return n;
}

/* Outputs of a place, n or a few more, so that the next place is far from a multiple of a page
 * away, or from one of two pages: else each finds what the other reads in its way. */
static int outputs_apart(int n, size_t row_bytes)
{
    size_t most = 0;
    int best = n;

    if (row_bytes % PAGE == 0)
        return n >= MANY_OUTPUTS ? n | 1 : n;
    for (int more = 0; more <= MOST_MORE && n >= MANY_OUTPUTS; more++) {
        size_t past = (size_t)(n + more) * row_bytes % PAGE;
        size_t apart = past < PAGE - past ? past : PAGE - past;

        if (apart > most) {
            most = apart;
            best = n + more;
        }
    }
    return best;
}

/* Outputs [begin, end) of an item. */
static void multiply_range(const struct item *item, int begin, int end, void *scratch)
{
    const struct cpu_product *product = item->product;

    if (!product->places) {
        product->multiply(&item->task, begin, end, scratch);
        return;
    }
    int places = product->places(&item->task), n = (end - begin + places - 1) / places;

    if (item->task.n_rows == 1)
        n = outputs_apart(n, weight_row_bytes(item->task.w));
    product->multiply_places(&item->task, &(struct cpu_outputs){begin, n, n, end});
}

/* The tiles of an item whose first share is one of [begin, end), counted from the item's. */
static void multiply_shares(const struct item *item, int64_t begin, int64_t end, void *scratch)
{
    int64_t n = item->tile_shares, n_out = item->task.w->n_out;
    int64_t first = (begin + n - 1) / n * item->tile_cols;
    int64_t last = (end + n - 1) / n * item->tile_cols;

    if (last > n_out)
        last = n_out;
    if (first < last)
        multiply_range(item, (int)first, (int)last, scratch);
}

static void multiply_tiles(struct call *c, void *scratch)
{
    const struct item *item = c->items;
    int64_t first = 0; /* share of item */
    int64_t share, n;

    for (bool run = true; (n = take_shares(c, &share, run)) > 0; run = false)
        while (n > 0) {
            for (; share >= item->end_share; item++)
                first = item->end_share;

            int64_t here = item->end_share - share < n ? item->end_share - share : n;

            multiply_shares(item, share - first, share - first + here, scratch);
            share += here;
            n -= here;
        }
}

static void run_call(void *ctx, int thread, int n_threads)
{
    struct call *c = ctx;
    void *scratch = thread == 0 ? c->scratch : cpu_scratch(c->d, thread, CPU_PRODUCT_SCRATCH);

    if (c->n_strips > 0) {
        prepare_strips(c);
        if (n_threads > 1)
            thread_pool_barrier(c->d->pool);
    }
    if (scratch) /* else the call has failed, and what the others do is not looked at */
        multiply_tiles(c, scratch);
}

/* How long one output takes, roughly. */
static double output_ns(const struct item *item)
{
    const struct weight *w = item->task.w;
    double bytes = (double)(weight_row_bytes(w) + weight_scale_row_bytes(w));
    double ns = bytes / BYTES_PER_NS + (double)item->task.n_rows * w->n_in / PRODUCTS_PER_NS;

    return item->product->slowness ? ns * item->product->slowness : ns;
}

static void cut_into_tiles(struct call *c, struct item *item)
{
    const struct weight *w = item->task.w;
    int panel = item->product->panel_cols;
    double ns = output_ns(item);
    int cols = w->n_out / (2 * thread_pool_size(c->d->pool));

    if (cols > TILE_NS / ns)
        cols = (int)(TILE_NS / ns);
    item->tile_cols = (cols / panel + (cols < panel)) * panel;
    item->tile_ns = ns * item->tile_cols;
    c->ns += ns * w->n_out;
}

/* Tiles that take longer than the shortest have more shares of the work. */
static void share_out(struct call *c)
{
    double unit = c->items[0].tile_ns;

    for (int i = 1; i < c->n_items; i++)
        unit = c->items[i].tile_ns < unit ? c->items[i].tile_ns : unit;
    if (unit < TILE_NS)
        unit = TILE_NS;
    for (int i = 0; i < c->n_items; i++) {
        struct item *item = &c->items[i];
        int n_out = item->task.w->n_out;

        item->tile_shares = (int64_t)(item->tile_ns / unit + 0.5);
        if (item->tile_shares < 1)
            item->tile_shares = 1;
        c->n_shares +=
            (int64_t)((n_out + item->tile_cols - 1) / item->tile_cols) * item->tile_shares;
        item->end_share = c->n_shares;
    }
}

/* One row is the same for all experts that it goes to. */
static bool same_rows(const struct cpu_task *a, const struct cpu_task *b)
{
    if (a->n_rows != b->n_rows)
        return false;
    return (a->x == b->x && a->x_stride == b->x_stride && a->x_rows == b->x_rows) ||
           (a->n_rows == 1 && cpu_task_x(a, 0) == cpu_task_x(b, 0));
}

/* The form of x that item wants: one that another item of the same rows has asked for, or a new
 * one. */
static int find_form(struct call *c, const struct item *item)
{
    const struct cpu_product *product = item->product;
    const struct weight *w = item->task.w;
    struct form *f;

    if (!product->prepare)
        return -1;
    for (int i = c->n_forms; i-- > 0;) {
        f = &c->forms[i];
        if (!same_rows(f->task, &item->task))
            break;
        if (f->product->prepare == product->prepare && f->group_size == w->group_size &&
            f->task->w->n_in == w->n_in)
            return i;
    }
    f = &c->forms[c->n_forms];
    *f = (struct form){
        .product = product,
        .task = &item->task,
        .group_size = w->group_size,
        .strip_bytes = product->strip_bytes(w->n_in, w->group_size),
        .n_strips = (item->task.n_rows + product->strip_rows - 1) / product->strip_rows,
    };
    c->n_strips += f->n_strips;
    c->n_numbers += (int64_t)item->task.n_rows * w->n_in;
    f->end_strip = c->n_strips;
    return c->n_forms++;
}

static void add_item(struct call *c, const struct cpu_task *task, bool exact)
{
    struct item *item = &c->items[c->n_items++];

    *item = (struct item){
        .task = *task,
        .product = c->d->matmul.choose(task->w, task->n_rows, exact),
    };
    item->form = find_form(c, item);
    cut_into_tiles(c, item);
    if (task->n_rows > c->most_rows)
        c->most_rows = task->n_rows;
}

/* Items of all jobs for every group of rows. What is known of a matrix is called for ahead: one of
 * many experts was last looked at long ago. */
static void add_items(struct call *c, const struct matmul_job *jobs, int n_jobs,
                      const struct row_group *groups, int n_groups, const tensor *x)
{
    for (int g = 0; g < n_groups && n_groups > 1; g++)
        for (int j = 0; j < n_jobs; j++) {
            const char *w = (const char *)&jobs[j].w[groups[g].expert];

            __builtin_prefetch(w);
            __builtin_prefetch(w + sizeof(struct weight) - 1);
        }
    for (int g = 0; g < n_groups; g++)
        for (int j = 0; j < n_jobs; j++) {
            const struct weight *w = &jobs[j].w[groups[g].expert];
            const float *bias = jobs[j].bias;
            const tensor *in = jobs[j].x ? jobs[j].x : x;

            struct cpu_task task = {
                .w = w,
                .bias = bias ? bias + (int64_t)groups[g].expert * w->n_out : NULL,
                .x = in->data,
                .x_stride = in->stride,
                .x_rows = groups[g].x_rows,
                .y = jobs[j].y->data,
                .y_stride = jobs[j].y->stride,
                .y_rows = groups[g].y_rows,
                .n_rows = groups[g].n_rows,
                .reading = &c->d->matmul.reading,
            };

            add_item(c, &task, c->d->exact || jobs[j].careful);
        }
}

static int place_strips(struct call *c)
{
    size_t size = 0;
    uint8_t *memory;

    if (c->n_forms == 0)
        return 0;
    for (int i = 0; i < c->n_forms; i++)
        size += c->forms[i].strip_bytes * (size_t)c->forms[i].n_strips;
    memory = cpu_scratch(c->d, thread_pool_size(c->d->pool), size);
    if (!memory)
        return -1;
    for (int i = 0; i < c->n_forms; i++) {
        c->forms[i].data = memory;
        memory += c->forms[i].strip_bytes * (size_t)c->forms[i].n_strips;
    }
    for (int i = 0; i < c->n_items; i++)
        if (c->items[i].form >= 0)
            c->items[i].task.prepared = c->forms[c->items[i].form].data;
    return 0;
}

/* items and forms have room for n_jobs * n_groups; scratch is that of thread 0. */
static void multiply(struct cpu_device *d, const struct matmul_job *jobs, int n_jobs,
                     const struct row_group *groups, int n_groups, const tensor *x,
                     struct item *items, struct form *forms, void *scratch)
{
    struct call c = {.d = d, .items = items, .forms = forms, .scratch = scratch};

    add_items(&c, jobs, n_jobs, groups, n_groups, x);
    share_out(&c);
    if (place_strips(&c))
        return;
    if (c.most_rows <= FEW_ROWS) {
        double shares = (double)c.n_shares / thread_pool_size(d->pool);

        const struct cpu_reading *r = &d->matmul.reading;

        c.first_run =
            (int64_t)((shares > SHORT_SHARES ? r->first_runs : r->first_runs_short) * shares);
        c.late = clock_seconds() + LATE;
    }
    if (c.n_strips == 1 || c.n_numbers <= SERIAL_NUMBERS) {
        prepare_strips(&c);
        c.n_strips = 0;
    }
    if (c.ns < SERIAL_NS)
        run_call(&c, 0, 1);
    else
        thread_pool_run(d->pool, run_call, &c);
}

#define MAX_JOBS 8 /* that need no memory for their list */

void cpu_matmul(device *dev, const struct matmul_job *jobs, int n_jobs, const tensor *x)
{
    struct cpu_device *d = cpu_device_of(dev);
    struct item items[MAX_JOBS];
    struct form forms[MAX_JOBS];
    struct row_group all = {.n_rows = x->rows};
    void *scratch = x->rows > 0 ? cpu_scratch(d, 0, CPU_PRODUCT_SCRATCH) : NULL;

    for (; scratch && n_jobs > 0; jobs += MAX_JOBS, n_jobs -= MAX_JOBS)
        multiply(d, jobs, n_jobs < MAX_JOBS ? n_jobs : MAX_JOBS, &all, 1, x, items, forms, scratch);
}

/* Rows t * k + j sorted by the expert ids[t, j]: the groups, in order of the experts. order and
 * sources [T * k]: rows of y, and of x. */
static int group_rows(struct row_group *groups, int32_t *order, int32_t *sources, int32_t *ends,
                      int n_experts, const tensor *ids, bool x_per_expert)
{
    int k = ids->cols, n = 0;

    memset(ends, 0, (size_t)(n_experts + 1) * sizeof *ends);
    for (int t = 0; t < ids->rows; t++)
        for (int j = 0; j < k; j++)
            ends[((const int32_t *)ids->data)[t * ids->stride + j] + 1]++;
    for (int e = 0; e < n_experts; e++) {
        int32_t first = ends[e], count = ends[e + 1];

        ends[e + 1] += first;
        if (count)
            groups[n++] = (struct row_group){e, count, sources + first, order + first};
    }
    for (int t = 0; t < ids->rows; t++)
        for (int j = 0; j < k; j++) {
            int32_t at = ends[((const int32_t *)ids->data)[t * ids->stride + j]]++;

            order[at] = t * k + j;
            sources[at] = x_per_expert ? t * k + j : t;
        }
    return n;
}

void cpu_matmul_experts(device *dev, const struct matmul_job *jobs, int n_jobs, int n_experts,
                        const tensor *x, const tensor *ids)
{
    struct cpu_device *d = cpu_device_of(dev);
    size_t n_rows = (size_t)ids->rows * (size_t)ids->cols;
    size_t max_groups = n_rows < (size_t)n_experts ? n_rows : (size_t)n_experts;
    size_t n_items = max_groups * (size_t)n_jobs;
    size_t items_size = padded(n_items * sizeof(struct item));
    size_t forms_size = padded(n_items * sizeof(struct form));
    size_t groups_size = padded(max_groups * sizeof(struct row_group));
    size_t lists_size = (2 * n_rows + (size_t)n_experts + 1) * sizeof(int32_t);
    uint8_t *scratch;

    if (n_rows == 0)
        return;
    scratch =
        cpu_scratch(d, 0, CPU_PRODUCT_SCRATCH + items_size + forms_size + groups_size + lists_size);
    if (!scratch)
        return;

    struct item *items = (struct item *)(scratch + CPU_PRODUCT_SCRATCH);
    struct form *forms = (struct form *)((uint8_t *)items + items_size);
    struct row_group *groups = (struct row_group *)((uint8_t *)forms + forms_size);
    int32_t *order = (int32_t *)((uint8_t *)groups + groups_size);
    int n_groups = group_rows(groups, order, order + n_rows, order + 2 * n_rows, n_experts, ids,
                              x->rows != ids->rows);

    multiply(d, jobs, n_jobs, groups, n_groups, x, items, forms, scratch);
}

struct embedding {
    struct cpu_device *d;
    tensor *y;
    const struct weight *w;
    const int32_t *ids;
    float scale;
};

static void embed_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct embedding *e = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *y = (float *)e->y->data + t * e->y->stride;

        e->d->matmul.dequantise(y, e->w, e->ids[t] < 0 ? 0 : e->ids[t], 0, e->w->n_in);
        for (int i = 0; i < e->w->n_in; i++)
            y[i] *= e->scale;
    }
}

void cpu_embed(device *dev, tensor *y, const struct weight *w, const int32_t *ids, float scale)
{
    struct embedding e = {cpu_device_of(dev), y, w, ids, scale};

    thread_pool_for(e.d->pool, y->rows, 8, embed_rows, &e);
}
