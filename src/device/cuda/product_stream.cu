/* device/cuda/product_stream.cu: products of few rows: which kernel, and how the work is cut. */
#include "device/cuda/product_stream.cuh"

#include <limits.h>

enum {
    BULK_BYTES = 2048, /* of a row in a stage */
    MAX_STAGES = 16,
    MOST_ITEMS = 32 * ASKING_WARPS /* copies of a stage, one of each lane */
};

template <int C, int NT> static struct variant of_rings(void)
{
    return {stream_kernel<C, NT>, [](const struct stream &s) { return layout_of<C, NT>(s).size; },
            RING_CHUNK, WARPS, NULL};
}

/* Codes that fill words, of which a lane takes a whole piece. */
static bool goes_direct(int codes, const struct stream &s)
{
    return (codes <= F16 || codes == INT4 || codes == INT8 || codes == E2M1 || codes == E4M3) &&
           (s.n_choices || s.x_rows <= COLUMNS);
}

static struct variant choose(int codes, const struct stream &s)
{
    if (s.bulk)
        return bulk_variant(codes, s);
    if (goes_direct(codes, s))
        return is_int(codes) ? direct_variant_int(codes, s) : direct_variant_float(codes, s);
    switch (codes) {
    case INT2:
        return of_rings<INT2, 1>();
    case INT3:
        return of_rings<INT3, 1>();
    case INT4:
        return of_rings<INT4, WIDE>();
    case INT5:
        return of_rings<INT5, 1>();
    case INT6:
        return of_rings<INT6, 1>();
    case INT8:
        return of_rings<INT8, WIDE>();
    default:
        return of_rings<NVFP4, 1>();
    }
}

static int codes_of(const struct weight *w)
{
    static const signed char ints[] = {-1, -1, INT2, INT3, INT4, INT5, INT6, -1, INT8};

    switch (w->format) {
    case WEIGHT_F16:
        return F16;
    case WEIGHT_BF16:
        return BF16;
    case WEIGHT_AFFINE:
        return ints[w->bits];
    case WEIGHT_MXFP4:
        return E2M1;
    case WEIGHT_NVFP4:
        return NVFP4;
    case WEIGHT_MXFP8:
    case WEIGHT_FP8:
        return E4M3;
    default:
        return -1;
    }
}

static int kind_of(const struct weight *w)
{
    switch (w->format) {
    case WEIGHT_AFFINE:
        return w->scale_type == DTYPE_F32   ? AFFINE_F32
               : w->scale_type == DTYPE_F16 ? AFFINE_F16
                                            : AFFINE_BF16;
    case WEIGHT_MXFP4:
    case WEIGHT_MXFP8:
        return SCALE_E8M0;
    case WEIGHT_NVFP4:
        return SCALE_E4M3;
    case WEIGHT_FP8:
        return SCALE_F32;
    default:
        return NO_SCALE;
    }
}

/* Whether the kernel can read it: rows of whole steps, in pieces of 16 bytes. */
static bool suits(const struct weight *w)
{
    int g = w->group_size, size = scale_size(kind_of(w));

    if (codes_of(w) < 0 || w->n_in % STEP || weight_row_bytes(w) % 16 || (uintptr_t)w->data % 16)
        return false;
    if (w->format == WEIGHT_FP8 && g != 128 && g != 256)
        return false;
    return w->format <= WEIGHT_BF16 || !(((uintptr_t)w->scales | (uintptr_t)w->biases) % size);
}

/* Bytes of the scales of a chunk, and of the word more that they take where they do not begin with
 * one. */
static int scale_pitch(const struct weight *w)
{
    int bytes = 256 / w->group_size * scale_size(kind_of(w));
    uintptr_t all = (uintptr_t)w->scales | (uintptr_t)w->biases | weight_scale_row_bytes(w);

    return all % 4 ? bytes + 4 : bytes;
}

static void take_weight(struct stream *s, const struct weight *w)
{
    s->row_bytes = weight_row_bytes(w);
    s->scale_row_bytes = weight_scale_row_bytes(w);
    s->n_in = w->n_in;
    s->kind = kind_of(w);
    s->scale_bytes = scale_size(s->kind);
    if (w->format > WEIGHT_BF16) {
        int pitch = scale_pitch(w);

        while (1 << s->group_shift < w->group_size)
            s->group_shift++;
        s->scale_pitch = pitch > s->scale_pitch ? pitch : s->scale_pitch;
        s->aligned = s->scale_pitch == 256 / w->group_size * s->scale_bytes;
    }
}

static void take_job(struct stream *s, const struct cuda_product *product, int i)
{
    struct part *p = &s->parts[s->n_parts++];
    const struct weight *w = &product->w[i];

    take_weight(s, w);
    p->data = (const uint8_t *)w->data;
    p->scales = (const uint8_t *)w->scales;
    p->biases = (const uint8_t *)w->biases;
    p->y = (float *)product->y[i].data;
    p->bias = product->bias[i];
    p->y_stride = product->y[i].stride;
    p->n_out = w->n_out;
    p->first_tile = s->n_tiles;
    p->scale_rows = w->format == WEIGHT_FP8 ? w->scale_rows : 1;
    p->scale_row = w->format == WEIGHT_FP8 ? w->scale_row : 0;
    p->experts = product->chosen_from[i];
    p->steps = product->steps[i];
    s->n_tiles += (p->n_out + TILE - 1) / TILE;
}

static void take_rows(struct stream *s, const tensor *x, bool halved)
{
    s->x = (const float *)x->data;
    s->x_stride = x->stride;
    s->x_rows = x->rows;
    s->wide = rows_are_wide(x);
    s->halved = halved;
    s->n_columns = halved ? 2 * x->rows : x->rows;
}

static void take_norm(struct stream *s, const struct cuda_norm *n)
{
    s->x = (const float *)n->x.data;
    s->x_stride = n->x.stride;
    s->norm.there = true;
    s->norm.w = n->w;
    s->norm.eps = n->eps;
    s->norm.y = (float *)n->y.data;
    s->norm.y_stride = n->y.stride;
}

/* Of two jobs a tile has half of its outputs each. */
static void take_tail(struct stream *s, const struct cuda_tail *t)
{
    s->tail.kind = t->kind;
    s->tail.act = t->act;
    s->tail.scale = t->scale;
    s->tail.y = (float *)t->y.data;
    s->tail.y_stride = t->y.stride;
    s->tail.weights = (const float *)t->weights.data;
    s->tail.to = (float *)t->to.data;
    if (t->kind == CUDA_TAIL_GLU) {
        s->paired = true;
        s->n_tiles = s->parts[0].n_out / (TILE / 2);
        s->parts[1].first_tile = INT_MAX;
    }
}

static void take_routing(struct stream *s, const struct cuda_routing *r)
{
    s->routed = true;
    s->routing.logits = (const float *)r->logits.data;
    s->routing.ids = (int32_t *)r->ids.data;
    s->routing.weights = (float *)r->weights.data;
    s->routing.p = r->p;
}

static void cut(struct stream *s, int n_slices)
{
    s->slice_chunks = (s->n_chunks + n_slices - 1) / n_slices;
    s->n_slices = (s->n_chunks + s->slice_chunks - 1) / s->slice_chunks;
}

/* Stages and slices, as few as can be, so that it takes so many bytes of shared memory; false where
 * it does not. */
static bool fit(struct stream *s, const struct variant *v, int bytes, int n_stages, bool may_cut)
{
    s->n_stages = n_stages;
    for (int n = 1; n == 1 || (may_cut && n <= s->n_chunks); n++) {
        cut(s, n);
        if (v->shared_size(*s) <= bytes)
            return true;
    }
    return false;
}

/* The warps that share a tile: as few as take no longer than any other number would, as each has
 * the more chunks to follow one another. */
static int share_warps(const struct stream *s, int n_warps, int n_blocks)
{
    int best = 1;
    int64_t least = INT64_MAX;

    for (int k = n_warps; k; k /= 2) {
        int64_t n_groups = (int64_t)n_blocks * (n_warps / k);
        int64_t time = (s->n_tiles + n_groups - 1) / n_groups * ((s->slice_chunks + k - 1) / k);

        if (k <= s->slice_chunks && (least == INT64_MAX || time <= least + least / 32)) {
            best = k;
            least = time < least ? time : least;
        }
    }
    return best;
}

/* One block for each processor. */
static bool plan_direct(const struct cuda_device *c, struct stream *s, const struct variant *v,
                        bool may_cut)
{
    if (!fit(s, v, (int)c->shared_memory, 0, may_cut))
        return false;

    int n_blocks = c->n_processors / s->n_slices > 1 ? c->n_processors / s->n_slices : 1;
    if (s->combined) {
        s->warps_k = v->warps / s->n_choices;
        s->n_units = s->n_tiles < n_blocks ? s->n_tiles : n_blocks;
        return true;
    }
    s->warps_k = share_warps(s, v->warps, n_blocks);
    int groups = v->warps / s->warps_k, n_units = (s->n_tiles + groups - 1) / groups;
    s->n_units = n_units < n_blocks ? n_units : n_blocks;
    return true;
}

/* Do the weights of experts come by bulk copies? Of one row whose experts the launch finds, or
 * whose answers it puts together; of several rows, and of bf16, that was slower. Chunks and tiles
 * must be whole. */
static bool goes_bulk(const struct cuda_device *c, int codes, const struct stream *s)
{
    int rows = s->paired ? TILE / 2 : TILE;

    if (!(s->routed || s->combined) || c->arch < 90 || (codes != INT4 && codes != INT8) ||
        s->kind == AFFINE_F32 || s->row_bytes % CHUNK_BYTES)
        return false;
    for (int i = 0; i < s->n_parts; i++) {
        const struct part *p = &s->parts[i];
        uint64_t all = (uintptr_t)p->scales | (uintptr_t)p->biases | p->steps.scales |
                       p->steps.biases | p->steps.data;

        if (p->n_out % rows || p->experts || all % 16)
            return false;
    }
    return true;
}

/* One block for each processor, with as many stages as there is room for. */
static bool plan_bulk(const struct cuda_device *c, struct stream *s, const struct variant *v)
{
    int64_t least = INT64_MAX;

    cut(s, 1);
    if (s->combined) {
        s->warps_k = v->warps / s->n_choices;
    } else {
        for (int k = v->warps; k; k /= 2) {
            int64_t n_groups = (int64_t)c->n_processors * (v->warps / k);
            int64_t time = (s->n_tiles + n_groups - 1) / n_groups * ((s->n_chunks + k - 1) / k);

            if (k <= 2 * s->n_chunks && time < least) {
                least = time;
                s->warps_k = k;
            }
        }
    }
    int turns = (s->n_chunks + s->warps_k - 1) / s->warps_k, groups = v->warps / s->warps_k;
    int most = BULK_BYTES / (s->warps_k * CHUNK_BYTES);
    s->plan.turns = most < 1 ? 1 : most > turns ? turns : most;

    int tiles = s->combined ? 1 : groups, n_units = (s->n_tiles + tiles - 1) / tiles;
    s->n_units = n_units < c->n_processors ? n_units : c->n_processors;
    int rounds = (s->n_tiles + s->n_units * tiles - 1) / (s->n_units * tiles);
    most = rounds * ((turns + s->plan.turns - 1) / s->plan.turns);
    most = most < MAX_STAGES ? most : MAX_STAGES;
    for (s->n_stages = most; s->n_stages > 0; s->n_stages--) {
        v->plan(s);
        if (s->plan.size <= (int)c->shared_memory)
            break;
    }
    return s->n_stages >= (most > 1 ? 2 : 1) && s->plan.n_items <= MOST_ITEMS;
}

/* Half of a processor's memory, so that two blocks have room; else all of it. */
static bool plan_rings(const struct cuda_device *c, struct stream *s, const struct variant *v,
                       bool may_cut)
{
    int all = (int)c->shared_memory, half = (all + SHARED) / 2 - SHARED;

    if (!fit(s, v, half, 3, false) && !fit(s, v, half, 2, false) && !fit(s, v, all, 3, false) &&
        !fit(s, v, all, 2, may_cut))
        return false;
    int per = 2 * (v->shared_size(*s) + SHARED) <= all + SHARED ? 2 : 1;
    int n_blocks =
        per * c->n_processors / s->n_slices > 1 ? per * c->n_processors / s->n_slices : 1;

    /* Fewer warps for a tile have more chunks each; but all blocks should have tiles. */
    s->warps_k = WARPS;
    while (s->warps_k > 1 &&
           (s->slice_chunks < s->warps_k ||
            (s->slice_chunks < 4 * s->warps_k && s->n_tiles >= 2 * n_blocks * WARPS / s->warps_k)))
        s->warps_k /= 2;

    int groups = WARPS / s->warps_k, n_units = (s->n_tiles + groups - 1) / groups;
    s->n_units = n_units < n_blocks ? n_units : n_blocks;
    return true;
}

int cuda_stream_rows(const struct cuda_device *c, const struct weight *w)
{
    if (!suits(w) || c->shared_memory < 96 << 10)
        return 0;
    return is_common(codes_of(w)) ? MAX_ROWS : COLUMNS;
}

bool cuda_stream_alike(const struct weight *a, const struct weight *b)
{
    return codes_of(a) == codes_of(b) && kind_of(a) == kind_of(b) && a->n_in == b->n_in &&
           (a->format <= WEIGHT_BF16 || a->group_size == b->group_size);
}

static void launch(struct cuda_device *c, struct stream *s, const struct variant *v)
{
    struct cuda_shape shape = {};

    shape.grid = dim3((unsigned)(s->n_units * s->n_slices));
    shape.block = dim3(32 * (unsigned)(v->warps + (s->bulk ? ASKING_WARPS : 0)));
    shape.shared = (unsigned)(s->bulk ? s->plan.size : v->shared_size(*s));
    shape.early = true;
    cuda_settle(c);
    s->known = s->n_choices && !s->routed && c->routed == s->ids && c->routed_at == c->n_given;
    cuda_launch(c, v->kernel, shape, *s);
    if (s->bulk && s->routed) {
        c->routed = s->routing.ids;
        c->routed_at = c->n_given;
    }
}

void cuda_product_of(struct cuda_product *p, const struct matmul_job *jobs, int n_jobs,
                     const tensor *x)
{
    *p = {};
    p->n_jobs = n_jobs;
    p->x = *x;
    for (int i = 0; i < n_jobs; i++) {
        p->y[i] = *jobs[i].y;
        p->w[i] = jobs[i].w[0];
        p->bias[i] = jobs[i].bias;
    }
}

/* All but where the matrices of experts lie. */
static bool prepare(const struct cuda_device *c, struct stream *s, struct variant *v,
                    const struct cuda_product *p)
{
    int codes = codes_of(&p->w[0]);
    const struct cuda_experts *e = &p->experts;

    for (int i = 0; i < p->n_jobs; i++)
        take_job(s, p, i);
    take_tail(s, &p->tail);
    s->n_rows = e->ids ? 1 : p->x.rows;
    s->tiles_each = s->n_tiles;
    if (e->ids) {
        s->n_choices = p->y[0].rows;
        s->combined = p->tail.kind == CUDA_TAIL_COMBINE;
        s->n_tiles *= s->combined ? 1 : s->n_choices;
        s->ids = e->ids;
        s->ids_stride = e->ids_stride;
        s->per_row = e->per_row;
        s->x_share = e->x_share;
    }
    take_rows(s, &p->x, e->ids || 2 * p->x.rows <= COLUMNS);
    if (p->normed)
        take_norm(s, &p->norm);
    if (p->routed)
        take_routing(s, &p->routing);
    s->bulk = goes_bulk(c, codes, s);
    *v = choose(codes, *s);
    s->n_chunks = (s->n_in + v->chunk - 1) / v->chunk;
    if (s->bulk) {
        if (plan_bulk(c, s, v))
            return true;
        s->bulk = false;
        s->plan = {};
        *v = choose(codes, *s);
    }
    return (goes_direct(codes, *s) ? plan_direct : plan_rings)(c, s, v, !e->ids);
}

/* With a pass of its own over what comes after it. */
static void launch_without_tail(struct cuda_device *c, const struct cuda_product *p)
{
    struct cuda_product alone = *p;
    const struct cuda_tail *t = &p->tail;
    tensor y = t->y;

    alone.tail = {};
    cuda_launch_product(c, &alone);
    cuda_glu(&c->base, &y, &p->y[0], &p->y[1], t->act);
}

void cuda_launch_product(struct cuda_device *c, const struct cuda_product *p)
{
    struct variant v;
    struct stream s = {};

    if (p->in_tiles) {
        cuda_product_tiles(c, p);
        return;
    }
    if (cuda_product_one(c, p)) {
        if (p->tail.kind == CUDA_TAIL_ADD && c->normed_at)
            cuda_layer_output(c, p);
        return;
    }
    if (cuda_product_one_experts(c, p))
        return;
    if (!prepare(c, &s, &v, p)) {
        cuda_fail(c, CLM_ERR_UNSUPPORTED, "cuda: %zu bytes of shared memory are too few",
                  c->shared_memory);
        return;
    }
    if (s.n_slices > 1 && s.paired) {
        launch_without_tail(c, p);
        return;
    }
    if (s.n_slices > 1)
        s.sums = (float *)cuda_scratch(c, (size_t)s.n_slices * s.n_rows * s.n_tiles * TILE *
                                              sizeof(float));
    launch(c, &s, &v);
    if (s.n_slices > 1) {
        struct cuda_shape shape = {
            dim3((unsigned)(s.n_tiles * TILE + 255) / 256, (unsigned)s.n_rows), dim3(256), 0, true,
            false};

        cuda_launch(c, add_slices, shape, s);
    }
}

bool cuda_stream_routes(const struct cuda_product *p, const struct cuda_routing *r)
{
    int n = r->p.n_experts;

    return goes_direct(codes_of(&p->w[0]), {.n_choices = 1}) && n <= ROUTED_EXPERTS &&
           r->p.score <= ROUTER_SQRT_SOFTPLUS && r->p.n_groups <= 1;
}

/* Each choice has as many warps of a block as the others, all of which have something to do. */
bool cuda_stream_combines(const struct cuda_product *p)
{
    int codes = codes_of(&p->w[0]), k = p->y[0].rows, warps = k > 0 ? DIRECT_WARPS / k : 0;

    return goes_direct(codes, {.n_choices = 1}) && k > 0 && warps * k == DIRECT_WARPS &&
           (warps & (warps - 1)) == 0 &&
           (size_t)(warps - 1) * CHUNK_BYTES < weight_row_bytes(&p->w[0]);
}

/* Whether both are of one kind and size. */
static bool is_like(const struct weight *a, const struct weight *b)
{
    return a->format == b->format && a->n_out == b->n_out && a->n_in == b->n_in &&
           a->bits == b->bits && a->group_size == b->group_size && a->scale_type == b->scale_type &&
           a->scale_rows == b->scale_rows && a->scale_row == b->scale_row;
}

/* How far all matrices of experts, which are alike, lie apart, if that is as far each time. */
static bool find_steps(struct cuda_steps *to, const struct weight *w, int n)
{
    const char *data = (const char *)w->data, *scales = (const char *)w->scales,
               *biases = (const char *)w->biases;
    ptrdiff_t step = 0, of_scales = 0, of_biases = 0;

    if (n > 1) {
        step = (const char *)w[1].data - data;
        of_scales = (const char *)w[1].scales - scales;
        of_biases = (const char *)w[1].biases - biases;
    }
    if (step < 0 || of_scales < 0 || of_biases < 0 || of_scales > UINT32_MAX ||
        of_biases > UINT32_MAX)
        return false;
    for (int e = 1; e < n; e++)
        if ((const char *)w[e].data != data + e * step ||
            (const char *)w[e].scales != scales + e * of_scales ||
            (const char *)w[e].biases != biases + e * of_biases || !is_like(w, &w[e]))
            return false;
    *to = {(uint64_t)step, (uint32_t)of_scales, (uint32_t)of_biases};
    return true;
}

bool cuda_stream_experts(const struct cuda_device *c, const struct weight *w, int n,
                         struct cuda_stack *stack)
{
    int size = scale_size(kind_of(w));

    stack->regular = find_steps(&stack->steps, w, n);
    if (stack->regular && stack->steps.data % 16 == 0 &&
        (size < 2 || (stack->steps.scales | stack->steps.biases) % (unsigned)size == 0))
        return cuda_stream_rows(c, w);
    for (int e = 0; e < n; e++)
        if (!cuda_stream_rows(c, &w[e]))
            return false;
    return true;
}

bool cuda_product_of_experts(struct cuda_device *c, struct cuda_product *p,
                             const struct matmul_job *jobs, int n_jobs, const tensor *x,
                             const struct cuda_experts *e, const struct cuda_stack *stacks)
{
    struct variant v;
    struct stream s = {};
    bool regular = true;

    cuda_product_of(p, jobs, n_jobs, x);
    p->experts = *e;
    for (int i = 0; i < n_jobs; i++) {
        regular = regular && stacks[i].regular;
        p->steps[i] = stacks[i].steps;
    }
    for (int i = 0; i < n_jobs && !regular; i++) {
        p->chosen_from[i] = (const struct weight *)cuda_keep(
            c, jobs[i].w, (size_t)e->n_experts * sizeof *jobs[i].w);
        if (!p->chosen_from[i])
            return false;
    }
    return prepare(c, &s, &v, p);
}
