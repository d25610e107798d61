/* models/turned.c: matrices that cannot be used as they are stored.
 *
 * Latent attention multiplies queries by the transpose of what makes keys of latents. The transpose
 * is made once, in memory of the model, of the type that the numbers have when they are no longer
 * quantised. Experts of one layer must be stored alike; where they are not, all become f32.
 */
#include <string.h>

#include "base/number.h"
#include "device/weight.h"
#include "models/bind.h"
#include "models/foreign.h"

/* Rows of a stored matrix as f32, in host memory. */
struct rows {
    struct weight w;
    struct packed m;
    bool packed;
    float factor;              /* of what w holds */
    uint8_t *codes;            /* [n_in], of packed ones */
    enum weight_format format; /* a dense one that holds the numbers */
};

static int open_rows(struct binder *b, struct rows *r, const struct piece *p,
                     const struct nn_slot *s)
{
    const struct checkpoint_tensor *scales = p->part[PART_SCALES], *biases = p->part[PART_BIASES];

    r->w = (struct weight){.n_out = s->n_out, .n_in = s->n_in};
    r->factor = 1;
    r->packed = is_packed(p);
    if (r->packed) {
        r->codes = mem_alloc((size_t)s->n_in);
        if (!r->codes)
            return fail(b->err, CLM_ERR_NOMEM, "%s: no memory for a row", b->path);
        if (packed_open(b, &r->m, p, s, 0))
            return -1;
        r->format = packed_affine_group(&r->m) ? WEIGHT_F32 : packed_dense_format(&r->m);
        return 0;
    }
    if (is_fp8(p)) {
        r->format = WEIGHT_BF16; /* what its numbers are rounded to */
        return fp8_open(b, &r->w, p, s, 0);
    }
    if (is_fp4(p)) {
        r->format = WEIGHT_BF16;
        return fp4_open(b, &r->w, &r->factor, p, s);
    }
    if (scales ? set_quantised(b, &r->w, p, s, 0) : set_dense(b, &r->w, p, s, 0))
        return -1;
    r->format = scales ? WEIGHT_F32 : r->w.format;
    r->w.data = p->part[PART_WEIGHT]->data; /* as the file has it, for reading here */
    r->w.scales = scales ? scales->data : NULL;
    r->w.biases = biases ? biases->data : NULL;
    return 0;
}

static void read_row(float *out, struct rows *r, int row)
{
    if (r->packed)
        packed_row_f32(out, &r->m, row, r->codes);
    else
        weight_row_f32(out, &r->w, row);
    for (int i = 0; r->factor != 1 && i < r->w.n_in; i++)
        out[i] *= r->factor;
}

int set_turned(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s)
{
    struct nn_slot all = {.n_out = (int)p->rows,
                          .n_in = s->n_out,
                          .layer = s->layer,
                          .branch = s->branch,
                          .role = s->role};
    struct piece whole = {.rows = p->rows};
    struct rows r = {0};
    size_t n_out = (size_t)s->n_out, n_in = (size_t)s->n_in, size;
    uint8_t *copy = NULL;
    float *row = NULL;

    memcpy(whole.part, p->part, sizeof whole.part);
    if (open_rows(b, &r, &whole, &all))
        goto cleanup;
    w->format = r.format;
    size = n_out * weight_row_bytes(w);
    copy = mem_alloc(size);
    row = mem_alloc(n_out * sizeof *row);
    if (!copy || !row) {
        fail(b->err, CLM_ERR_NOMEM, "%s: no memory to turn %s", b->path,
             p->part[PART_WEIGHT]->name);
        goto cleanup;
    }
    for (size_t i = 0; i < n_in; i++) {
        read_row(row, &r, (int)p->row + (int)i);
        for (size_t o = 0; o < n_out; o++)
            store_number(copy, o * n_in + i, row[o], r.format);
    }
    w->data = binder_place(b, copy, size);

cleanup:
    mem_free(r.codes);
    mem_free(copy);
    mem_free(row);
    return w->data ? 0 : -1;
}

/* What a number is when it has been stored. */
static float stored(float f, enum weight_format format)
{
    return format == WEIGHT_BF16  ? bf16_to_f32(f32_to_bf16(f))
           : format == WEIGHT_F16 ? f16_to_f32(f32_to_f16(f))
                                  : f;
}

int set_numbers(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s)
{
    struct nn_slot all = *s;
    struct rows r = {0};
    size_t n_in = (size_t)s->n_in, size = (size_t)s->n_out * n_in * sizeof(float);
    float *copy = NULL;

    if (p->rows)
        all.n_out = (int)p->rows;
    if (open_rows(b, &r, p, &all))
        goto cleanup;
    copy = mem_alloc(size);
    if (!copy) {
        fail(b->err, CLM_ERR_NOMEM, "%s: no memory for %s", b->path, p->part[PART_WEIGHT]->name);
        goto cleanup;
    }
    for (int o = 0; o < s->n_out; o++) {
        float *row = copy + (size_t)o * n_in;

        read_row(row, &r, (int)binder_source_row(p, s->n_out, o));
        for (size_t i = 0; i < n_in; i++)
            row[i] = stored(row[i], r.format);
    }
    w->format = WEIGHT_F32;
    w->data = binder_place(b, (const uint8_t *)copy, size);

cleanup:
    mem_free(r.codes);
    mem_free(copy);
    return w->data ? 0 : -1;
}
