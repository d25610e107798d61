/* format/safetensors_write.c: writing a safetensors file. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/number.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "format/safetensors.h"

struct output {
    const char *path;                        /* in messages */
    bool standard;                           /* it is standard output */
    const struct checkpoint_tensor **sorted; /* as they will lie in the file */
    size_t n_tensors;
    const char *const *metadata;
    size_t n_metadata;
    safetensors_fill fill;
    void *ctx;
    clm_error *err;
};

static int by_name(const void *a, const void *b)
{
    const struct checkpoint_tensor *x = *(const struct checkpoint_tensor *const *)a;
    const struct checkpoint_tensor *y = *(const struct checkpoint_tensor *const *)b;

    return strcmp(x->name, y->name);
}

/* Wide types first: with a header of a multiple of 8 bytes, every tensor is aligned to its type. */
static int by_width(const void *a, const void *b)
{
    const struct checkpoint_tensor *x = *(const struct checkpoint_tensor *const *)a;
    const struct checkpoint_tensor *y = *(const struct checkpoint_tensor *const *)b;
    size_t x_size = dtype_size(x->type), y_size = dtype_size(y->type);

    if (x_size != y_size)
        return x_size > y_size ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int check_text(const struct output *o, const char *what, const char *s)
{
    if (utf8_valid(s, strlen(s)))
        return 0;
    return fail(o->err, CLM_ERR_ARG, "%s: the %s \"%.120s\" is not valid UTF-8", o->path, what, s);
}

static int check_tensor(const struct output *o, const struct checkpoint_tensor *t)
{
    size_t size = dtype_size(t->type);

    if (!strcmp(t->name, "__metadata__"))
        return fail(o->err, CLM_ERR_ARG, "%s: a tensor cannot be named \"%s\"", o->path, t->name);
    if (t->n_dims < 0 || t->n_dims > CHECKPOINT_MAX_DIMS)
        return fail(o->err, CLM_ERR_ARG, "%s: tensor \"%.120s\" has %d dimensions, at most %d fit",
                    o->path, t->name, t->n_dims, CHECKPOINT_MAX_DIMS);
    for (int i = 0; i < t->n_dims; i++)
        if (t->shape[i] < 0 || !size_mul(size, (size_t)t->shape[i], &size))
            return fail(o->err, CLM_ERR_ARG, "%s: tensor \"%.120s\": its shape overflows", o->path,
                        t->name);
    if (size != t->size)
        return fail(o->err, CLM_ERR_ARG,
                    "%s: tensor \"%.120s\" has %zu bytes, its shape asks for %zu", o->path, t->name,
                    t->size, size);
    return check_text(o, "tensor name", t->name);
}

static int check_metadata(const struct output *o)
{
    for (size_t i = 0; i < o->n_metadata; i++) {
        const char *key = o->metadata[2 * i];

        if (check_text(o, "metadata key", key) ||
            check_text(o, "metadata value", o->metadata[2 * i + 1]))
            return -1;
        for (size_t k = 0; k < i; k++)
            if (!strcmp(o->metadata[2 * k], key))
                return fail(o->err, CLM_ERR_ARG, "%s: two metadata entries are named \"%.120s\"",
                            o->path, key);
    }
    return 0;
}

static int check(const struct output *o)
{
    for (size_t i = 0; i < o->n_tensors; i++)
        if (check_tensor(o, o->sorted[i]))
            return -1;
    qsort(o->sorted, o->n_tensors, sizeof *o->sorted, by_name);
    for (size_t i = 1; i < o->n_tensors; i++)
        if (!by_name(&o->sorted[i - 1], &o->sorted[i]))
            return fail(o->err, CLM_ERR_ARG, "%s: two tensors are named \"%.120s\"", o->path,
                        o->sorted[i]->name);
    qsort(o->sorted, o->n_tensors, sizeof *o->sorted, by_width);
    return check_metadata(o);
}

static void add_metadata(struct strbuf *b, const struct output *o)
{
    strbuf_add_str(b, "\"__metadata__\":{");
    for (size_t i = 0; i < o->n_metadata; i++) {
        const char *key = o->metadata[2 * i], *value = o->metadata[2 * i + 1];

        if (i)
            strbuf_add_char(b, ',');
        strbuf_add_json(b, key, strlen(key));
        strbuf_add_char(b, ':');
        strbuf_add_json(b, value, strlen(value));
    }
    strbuf_add_char(b, '}');
}

static void add_tensor(struct strbuf *b, const struct checkpoint_tensor *t, size_t begin)
{
    strbuf_add_json(b, t->name, strlen(t->name));
    strbuf_addf(b, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->type));
    for (int i = 0; i < t->n_dims; i++)
        strbuf_addf(b, i ? ",%lld" : "%lld", (long long)t->shape[i]);
    strbuf_addf(b, "],\"data_offsets\":[%zu,%zu]}", begin, begin + t->size);
}

/* The length and the header, padded with spaces to a multiple of 8. */
static int make_header(struct strbuf *b, const struct output *o)
{
    size_t at = 0;
    uint8_t length[8] = {0};

    strbuf_add(b, (const char *)length, sizeof length);
    strbuf_add_char(b, '{');
    if (o->n_metadata)
        add_metadata(b, o);
    for (size_t i = 0; i < o->n_tensors; i++) {
        if (i || o->n_metadata)
            strbuf_add_char(b, ',');
        add_tensor(b, o->sorted[i], at);
        if (!size_add(at, o->sorted[i]->size, &at))
            return fail(o->err, CLM_ERR_ARG, "%s: the tensors together overflow", o->path);
    }
    strbuf_add_char(b, '}');
    while (!b->failed && b->size % 8)
        strbuf_add_char(b, ' ');
    if (b->failed)
        return fail(o->err, CLM_ERR_NOMEM, "%s: no memory for the header of %zu tensors", o->path,
                    o->n_tensors);
    store_le64(b->data, b->size - 8);
    return 0;
}

static int write_tensor(const struct output *o, const struct checkpoint_tensor *t, file_writer *w)
{
    if (!t->size)
        return 0;
    if (!t->data)
        return o->fill(o->ctx, t, w, o->err);
    return file_writer_write(w, t->data, t->size, o->err);
}

static int write_all(const struct output *o, const struct strbuf *header)
{
    file_writer *w =
        o->standard ? file_writer_open_standard(o->err) : file_writer_open(o->path, o->err);

    if (!w)
        return -1;
    if (file_writer_write(w, header->data, header->size, o->err))
        goto failed;
    for (size_t i = 0; i < o->n_tensors; i++)
        if (write_tensor(o, o->sorted[i], w))
            goto failed;
    return file_writer_commit(w, o->err);

failed:
    file_writer_abort(w);
    return -1;
}

int safetensors_write_with(const char *path, const struct checkpoint_tensor *tensors,
                           size_t n_tensors, const char *const *metadata, size_t n_metadata,
                           safetensors_fill fill, void *ctx, clm_error *err)
{
    struct output o = {.path = path ? path : "standard output",
                       .standard = !path,
                       .n_tensors = n_tensors,
                       .metadata = metadata,
                       .n_metadata = n_metadata,
                       .fill = fill,
                       .ctx = ctx,
                       .err = err};
    struct strbuf header = {0};
    int rc = -1;

    o.sorted = mem_zeroed(n_tensors + 1, sizeof *o.sorted);
    if (!o.sorted)
        return fail(err, CLM_ERR_NOMEM, "%s: no memory for %zu tensors", o.path, n_tensors);
    for (size_t i = 0; i < n_tensors; i++)
        o.sorted[i] = &tensors[i];
    if (!check(&o) && !make_header(&header, &o))
        rc = write_all(&o, &header);
    strbuf_release(&header);
    mem_free(o.sorted);
    return rc;
}

int safetensors_write(const char *path, const struct checkpoint_tensor *tensors, size_t n_tensors,
                      const char *const *metadata, size_t n_metadata, clm_error *err)
{
    return safetensors_write_with(path, tensors, n_tensors, metadata, n_metadata, NULL, NULL, err);
}
