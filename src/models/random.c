/* models/random.c: weights of random numbers, for benchmarks at real shapes. */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "base/number.h"
#include "device/weight.h"
#include "models/bind.h"

#define BLOCK ((size_t)1 << 20) /* bytes made anew for each weight; larger ones repeat them */

/* What is smaller lies in the host's memory side by side, as in a file: large blocks have huge
 * pages, whose reading goes on from one to the next. */
#define TOGETHER ((size_t)4 << 20)
#define ROOM ((size_t)16 << 20)
#define ALIGNMENT ((size_t)64)

struct filler {
    struct model *m;
    device *dev;   /* of the place that is being filled */
    uint8_t *room; /* there, for small weights */
    size_t room_left;
    struct model_format format;
    uint8_t *block;
    uint64_t state;
    bool (*go_on)(void *ctx); /* asked before every piece; NULL: nobody is */
    void *ctx;
    clm_error *err;
};

/* splitmix64 */
static uint64_t next_random(struct filler *f)
{
    uint64_t z = f->state += 0x9E3779B97F4A7C15u;

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Uniform, with standard deviation sigma. */
static float random_number(struct filler *f, float sigma)
{
    float u = (float)(next_random(f) >> 40) / (float)(1 << 24); /* [0, 1) */

    return (u - 0.5f) * 3.4641016f * sigma;
}

static size_t store_number(uint8_t *to, enum weight_format format, float x)
{
    uint16_t half = format == WEIGHT_BF16 ? f32_to_bf16(x) : f32_to_f16(x);

    if (format == WEIGHT_F32) {
        memcpy(to, &x, sizeof x);
        return sizeof x;
    }
    memcpy(to, &half, sizeof half);
    return sizeof half;
}

static uint8_t *find_room(struct filler *f, size_t size)
{
    size_t padded = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    uint8_t *to;

    if (size >= TOGETHER || !f->dev->ops->reads_host)
        return model_alloc(f->m, f->dev, size, f->err);
    if (f->room_left < padded) {
        f->room = model_alloc(f->m, f->dev, ROOM, f->err);
        f->room_left = f->room ? ROOM : 0;
    }
    if (!f->room)
        return NULL;
    to = f->room;
    f->room += padded;
    f->room_left -= padded;
    return to;
}

static void use_device(struct filler *f, device *dev)
{
    if (dev != f->dev)
        f->room_left = 0;
    f->dev = dev;
}

/* size bytes on the device, all made of the first n of the block. */
static void *place(struct filler *f, size_t size, size_t n)
{
    uint8_t *to = find_room(f, size);

    for (size_t at = 0; to && at < size; at += n) {
        if (f->go_on && !f->go_on(f->ctx))
            return fail_null(f->err, CLM_ERR_CANCELLED, "random weights: stopped");
        f->dev->ops->upload(f->dev, to + at, f->block, size - at < n ? size - at : n);
    }
    return to;
}

static void *random_bits(struct filler *f, size_t size)
{
    size_t n = size < BLOCK ? size : BLOCK;

    for (size_t i = 0; i < n; i += 8)
        store_le64(f->block + i, next_random(f));
    return place(f, size, n);
}

static void *repeated(struct filler *f, size_t size, enum weight_format format, float value)
{
    size_t n = size < BLOCK ? size : BLOCK;

    for (size_t i = 0; i < n;)
        i += store_number(f->block + i, format, value);
    return place(f, size, n);
}

/* q uniform in [0, 2^bits) with scale and bias such that weights have mean 0 and the given
 * deviation. */
static int fill_affine(struct filler *f, struct weight *w, float sigma)
{
    float levels = (float)(1 << w->bits);
    float scale = sigma * 3.4641016f / levels;
    size_t rows = (size_t)w->n_out;

    w->scale_type = DTYPE_BF16;
    w->data = random_bits(f, weight_row_bytes(w) * rows);
    w->scales = repeated(f, weight_scale_row_bytes(w) * rows, WEIGHT_BF16, scale);
    w->biases =
        repeated(f, weight_scale_row_bytes(w) * rows, WEIGHT_BF16, -scale * (levels - 1) / 2);
    return w->data && w->scales && w->biases ? 0 : -1;
}

static int fill_dense(struct filler *f, struct weight *w, float sigma)
{
    size_t size = weight_row_bytes(w) * (size_t)w->n_out;
    size_t n = size < BLOCK ? size : BLOCK;

    for (size_t i = 0; i < n;)
        i += store_number(f->block + i, w->format, random_number(f, sigma));
    w->data = place(f, size, n);
    return w->data ? 0 : -1;
}

/* n_out rows, with data and all. */
static int fill_weight(struct filler *f, struct weight *w, enum weight_role role, int n_out,
                       int n_in)
{
    float sigma = 1 / sqrtf((float)n_in);

    *w = (struct weight){.format = f->format.format, .n_out = n_out, .n_in = n_in};
    if (w->format == WEIGHT_AFFINE) {
        w->bits = f->format.bits;
        w->group_size = f->format.group_size;
        w->scale_type = DTYPE_BF16;
    } else if (w->format != WEIGHT_F32 && w->format != WEIGHT_F16 && w->format != WEIGHT_BF16) {
        return fail(f->err, CLM_ERR_UNSUPPORTED, "random weights: format %s is not made",
                    weight_format_name(w->format));
    }
    w->data = w->scales = w->biases = f->block; /* the check wants to see that there is something */
    if (weight_check(w, weight_role_name(role), f->err))
        return -1;
    f->m->weight_bytes += weight_bytes(w);
    return w->format == WEIGHT_AFFINE ? fill_affine(f, w, sigma) : fill_dense(f, w, sigma);
}

/* The experts of a layer lie one after another, as in most checkpoints. */
static int fill_matrix(struct filler *f, const struct nn_slot *s)
{
    int n = s->n_experts ? s->n_experts : 1, first = 0;
    int64_t rows = 0;
    struct weight all;

    for (int e = 0; e < n; e++)
        rows += s->n_out + (int64_t)e * s->growth;
    if (rows > INT_MAX)
        return fail(f->err, CLM_ERR_UNSUPPORTED,
                    "random weights: %lld rows of experts are too many", (long long)rows);
    if (fill_weight(f, &all, s->role, (int)rows, s->n_in))
        return -1;
    for (int e = 0; e < n; e++) {
        int n_out = s->n_out + e * s->growth;

        s->weight[e] = weight_rows(&all, first, n_out);
        first += n_out;
    }
    return 0;
}

/* Norms keep what they get: ones (offset included); biases are zeros. */
static int fill_vector(struct filler *f, const struct nn_slot *s, float value, const float **vector)
{
    size_t copies = s->copies > 1 ? (size_t)s->copies : 1;
    size_t size =
        copies * (size_t)s->n_out * (size_t)(s->n_experts ? s->n_experts : 1) * sizeof(float);

    *vector = repeated(f, size, WEIGHT_F32, value);
    return *vector ? 0 : -1;
}

static int fill_slot(void *ctx, const struct nn_slot *s)
{
    struct filler *f = ctx;

    use_device(f, nn_part_of(f->m->nn, s->layer, s->role)->dev);
    if (s->bias && fill_vector(f, s, 0, s->bias))
        return -1;
    return s->n_in ? fill_matrix(f, s)
                   : fill_vector(f, s, s->form == VECTOR_MINUS_EXP ? -1 : 1, s->vector);
}

int model_bind_random(struct model *m, struct model_format format, bool (*go_on)(void *ctx),
                      void *ctx, clm_error *err)
{
    struct filler f = {.m = m,
                       .format = format,
                       .state = 1,
                       .go_on = go_on,
                       .ctx = ctx,
                       .err = err,
                       .block = mem_alloc(BLOCK + 8)};
    int rc;

    if (!f.block)
        return fail(err, CLM_ERR_NOMEM, "random weights: no memory");
    rc = nn_slots(m->nn, fill_slot, &f);
    if (rc == 0 && nn_tied_apart(m->nn)) {
        const struct weight *w = &m->nn->embed_tokens.w;

        use_device(&f, nn_part_of(m->nn, -1, ROLE_LM_HEAD)->dev);
        rc = fill_weight(&f, &m->nn->lm_head.w, ROLE_EMBED_TOKENS, w->n_out, w->n_in);
    }
    mem_free(f.block);
    return rc;
}
