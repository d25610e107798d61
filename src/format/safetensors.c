#include "format/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/number.h"
#include "base/utf8.h"
#include "format/json_scan.h"

/* The limit of the reference library; a header is read whole, so it must have one. */
#define MAX_HEADER 100000000u

struct parser {
    struct safetensors *st;
    struct json_scan scan;
    const char *name; /* of the file, in messages */
    clm_error *err;
    const uint8_t *data; /* what follows the header */
    size_t data_size;
    size_t tensor_capacity, metadata_capacity;
    bool has_metadata;
};

/* Room for one more item in a growing array. */
static int reserve(struct parser *p, void **array, size_t n, size_t *capacity, size_t item)
{
    void *grown = mem_grow(*array, capacity, n + 1, item);

    if (!grown)
        return fail(p->err, CLM_ERR_NOMEM, "%s: no memory for more than %zu tensors or metadata",
                    p->name, n);
    *array = grown;
    return 0;
}

/* {"key": "value", ...}, or null. */
static int parse_metadata(struct parser *p)
{
    struct safetensors *st = p->st;
    size_t size;
    int more;

    if (p->has_metadata)
        return fail(p->err, CLM_ERR_FORMAT, "%s: the header has two keys \"__metadata__\"",
                    p->name);
    p->has_metadata = true;
    if (json_scan_peek(&p->scan, 'n'))
        return json_scan_skip(&p->scan);
    if (json_scan_expect(&p->scan, '{'))
        return -1;
    for (bool first = true; (more = json_scan_more(&p->scan, '}', &first)) > 0;) {
        void *pairs = (void *)st->metadata;
        int rc = reserve(p, &pairs, st->n_metadata, &p->metadata_capacity, 2 * sizeof(char *));
        const char **pair;

        st->metadata = pairs;
        if (rc)
            return -1;
        pair = st->metadata + 2 * st->n_metadata;
        if (json_scan_key(&p->scan, &pair[0]) || json_scan_string(&p->scan, &pair[1], &size))
            return -1;
        if (memchr(pair[1], '\0', size))
            return fail(p->err, CLM_ERR_FORMAT,
                        "%s: the value of metadata \"%.100s\" holds a NUL character", p->name,
                        pair[0]);
        st->n_metadata++;
    }
    return more;
}

static int parse_dtype(struct parser *p, struct checkpoint_tensor *t)
{
    const char *string;
    size_t size;
    int type;

    if (json_scan_string(&p->scan, &string, &size))
        return -1;
    type = dtype_from_name(string, size);
    if (type < 0)
        return fail(p->err, CLM_ERR_UNSUPPORTED,
                    "%s: tensor \"%.120s\" is of type \"%.40s\", which clm does not know", p->name,
                    t->name, string);
    p->scan.pool = (char *)string; /* not needed any more */
    t->type = (enum dtype)type;
    return 0;
}

static int parse_shape(struct parser *p, struct checkpoint_tensor *t)
{
    int more;

    if (json_scan_expect(&p->scan, '['))
        return -1;
    for (bool first = true; (more = json_scan_more(&p->scan, ']', &first)) > 0;) {
        uint64_t dim;

        if (t->n_dims == CHECKPOINT_MAX_DIMS)
            return fail(p->err, CLM_ERR_UNSUPPORTED,
                        "%s: tensor \"%.120s\" has more than %d dimensions", p->name, t->name,
                        CHECKPOINT_MAX_DIMS);
        if (json_scan_u64(&p->scan, &dim))
            return -1;
        if (dim > INT64_MAX)
            return fail(p->err, CLM_ERR_FORMAT, "%s: tensor \"%.120s\": its shape overflows",
                        p->name, t->name);
        t->shape[t->n_dims++] = (int64_t)dim;
    }
    return more;
}

static int parse_offsets(struct parser *p, struct checkpoint_tensor *t)
{
    uint64_t begin, end;

    if (json_scan_expect(&p->scan, '[') || json_scan_u64(&p->scan, &begin) ||
        json_scan_expect(&p->scan, ',') || json_scan_u64(&p->scan, &end) ||
        json_scan_expect(&p->scan, ']'))
        return -1;
    if (begin > end)
        return fail(
            p->err, CLM_ERR_FORMAT,
            "%s: tensor \"%.120s\" begins at byte %llu of the data and ends before, at %llu",
            p->name, t->name, (unsigned long long)begin, (unsigned long long)end);
    if (end > p->data_size)
        return fail(
            p->err, CLM_ERR_FORMAT,
            "%s: tensor \"%.120s\" ends at byte %llu of the data, but the file has only %zu "
            "bytes of data; it is cut short or damaged, get it again",
            p->name, t->name, (unsigned long long)end, p->data_size);
    t->data = p->data + begin;
    t->size = (size_t)(end - begin);
    return 0;
}

/* What the shape and the type ask for is what the offsets give. */
static int check_size(struct parser *p, const struct checkpoint_tensor *t)
{
    size_t size = dtype_size(t->type);

    for (int i = 0; i < t->n_dims; i++)
        if (!size_mul(size, (size_t)t->shape[i], &size))
            return fail(p->err, CLM_ERR_FORMAT, "%s: tensor \"%.120s\": its shape overflows",
                        p->name, t->name);
    if (size != t->size)
        return fail(p->err, CLM_ERR_FORMAT,
                    "%s: tensor \"%.120s\" has %zu bytes, but its shape and type %s ask for %zu",
                    p->name, t->name, t->size, dtype_name(t->type), size);
    return 0;
}

/* {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}; other keys mean nothing. */
static int parse_tensor(struct parser *p, struct checkpoint_tensor *t)
{
    static const struct {
        const char *key;
        int (*parse)(struct parser *p, struct checkpoint_tensor *t);
    } fields[] = {
        {"dtype", parse_dtype},
        {"shape", parse_shape},
        {"data_offsets", parse_offsets},
    };
    bool seen[COUNT(fields)] = {false};
    int more;

    if (json_scan_expect(&p->scan, '{'))
        return -1;
    for (bool first = true; (more = json_scan_more(&p->scan, '}', &first)) > 0;) {
        const char *key;
        size_t f = 0;

        if (json_scan_key(&p->scan, &key))
            return -1;
        while (f < COUNT(fields) && strcmp(key, fields[f].key) != 0)
            f++;
        p->scan.pool = (char *)key; /* not needed any more */
        if (f < COUNT(fields) && seen[f])
            return fail(p->err, CLM_ERR_FORMAT, "%s: tensor \"%.120s\" has two keys \"%s\"",
                        p->name, t->name, fields[f].key);
        if (f < COUNT(fields))
            seen[f] = true;
        if (f < COUNT(fields) ? fields[f].parse(p, t) : json_scan_skip(&p->scan))
            return -1;
    }
    for (size_t f = 0; f < COUNT(fields) && !more; f++)
        if (!seen[f])
            return fail(p->err, CLM_ERR_FORMAT, "%s: tensor \"%.120s\" has no \"%s\"", p->name,
                        t->name, fields[f].key);
    return more ? -1 : check_size(p, t);
}

static int parse_header(struct parser *p)
{
    struct safetensors *st = p->st;
    int more;

    if (json_scan_expect(&p->scan, '{'))
        return -1;
    for (bool first = true; (more = json_scan_more(&p->scan, '}', &first)) > 0;) {
        void *tensors = st->tensors;
        const char *name;
        int rc;

        if (json_scan_key(&p->scan, &name))
            return -1;
        if (!strcmp(name, "__metadata__")) {
            if (parse_metadata(p))
                return -1;
            continue;
        }
        rc = reserve(p, &tensors, st->n_tensors, &p->tensor_capacity, sizeof *st->tensors);
        st->tensors = tensors;
        if (rc)
            return -1;
        st->tensors[st->n_tensors] = (struct checkpoint_tensor){.name = name};
        if (parse_tensor(p, &st->tensors[st->n_tensors]))
            return -1;
        st->n_tensors++;
    }
    return more ? -1 : json_scan_finish(&p->scan);
}

static int by_place(const void *a, const void *b)
{
    const struct checkpoint_tensor *x = a, *y = b;
    const uint8_t *x_data = x->data, *y_data = y->data;

    if (x_data != y_data)
        return x_data < y_data ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size); /* an empty one comes before its neighbour */
}

static bool is_sorted(const struct checkpoint_tensor *t, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (by_place(&t[i - 1], &t[i]) > 0)
            return false;
    return true;
}

/* The tensors, in order of their data, cover it from end to end. */
static int check_cover(struct parser *p)
{
    struct safetensors *st = p->st;
    size_t at = 0;

    if (!is_sorted(st->tensors, st->n_tensors))
        qsort(st->tensors, st->n_tensors, sizeof *st->tensors, by_place);
    for (size_t i = 0; i < st->n_tensors; i++) {
        const struct checkpoint_tensor *t = &st->tensors[i];
        size_t begin = (size_t)((const uint8_t *)t->data - p->data);

        if (begin < at)
            return fail(p->err, CLM_ERR_FORMAT, "%s: tensors \"%.120s\" and \"%.120s\" overlap",
                        p->name, st->tensors[i - 1].name, t->name);
        if (begin > at)
            return fail(p->err, CLM_ERR_FORMAT,
                        "%s: a hole of %zu bytes in the data before tensor \"%.120s\"", p->name,
                        begin - at, t->name);
        at = begin + t->size;
    }
    if (at != p->data_size)
        return fail(p->err, CLM_ERR_FORMAT,
                    "%s: the last %zu bytes of the data belong to no tensor", p->name,
                    p->data_size - at);
    return 0;
}

static int by_string(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The i-th of n names, stride bytes apart. Sorting has no bad case, as hashing would on names that
 * were chosen to collide. */
static int check_unique(struct parser *p, const char *const *names, size_t stride, size_t n,
                        const char *what)
{
    const char **sorted;
    int rc = 0;

    if (n < 2)
        return 0;
    sorted = mem_zeroed(n, sizeof *sorted);
    if (!sorted)
        return fail(p->err, CLM_ERR_NOMEM, "%s: no memory for %zu names", p->name, n);
    for (size_t i = 0; i < n; i++)
        sorted[i] = *(const char *const *)((const char *)names + i * stride);
    qsort(sorted, n, sizeof *sorted, by_string);
    for (size_t i = 1; i < n && !rc; i++)
        if (!strcmp(sorted[i - 1], sorted[i]))
            rc = fail(p->err, CLM_ERR_FORMAT, "%s: two %s are named \"%.120s\"", p->name, what,
                      sorted[i]);
    mem_free(sorted);
    return rc;
}

/* Finds the header, the first size bytes after the length, or says what this file is instead. */
static int check_frame(const uint8_t *data, size_t size, size_t *header, const char *name,
                       clm_error *err)
{
    static const char lfs[] = LFS_POINTER;
    uint64_t n;

    if (size >= sizeof lfs - 1 && !memcmp(data, lfs, sizeof lfs - 1))
        return fail(err, CLM_ERR_FORMAT,
                    "%s: this is a Git LFS pointer, not the weights; run git lfs pull", name);
    if (size < 8)
        return fail(err, CLM_ERR_FORMAT, "%s: %zu bytes hold no safetensors header", name, size);
    n = load_le64(data);
    if (n > size - 8)
        return fail(err, CLM_ERR_FORMAT,
                    "%s: a header of %llu bytes is announced in a file of %zu; it is cut short, or "
                    "no safetensors file",
                    name, (unsigned long long)n, size);
    if (n > MAX_HEADER)
        return fail(err, CLM_ERR_FORMAT, "%s: a header of %llu bytes; the format allows %u", name,
                    (unsigned long long)n, MAX_HEADER);
    if (!n || data[8] != '{')
        return fail(err, CLM_ERR_FORMAT, "%s: the header is not a JSON object", name);
    if (!utf8_valid((const char *)data + 8, (size_t)n))
        return fail(err, CLM_ERR_FORMAT, "%s: the header is not valid UTF-8", name);
    *header = (size_t)n;
    return 0;
}

static int parse(struct safetensors *st, const uint8_t *data, size_t size, const char *name,
                 clm_error *err)
{
    struct parser p = {.st = st, .name = name, .err = err};
    const char *text;
    size_t header = 0;

    if (check_frame(data, size, &header, name, err))
        return -1;
    st->memory = mem_alloc(header);
    if (!st->memory)
        return fail(err, CLM_ERR_NOMEM, "%s: no memory for a header of %zu bytes", name, header);
    text = (const char *)data + 8;
    p.data = data + 8 + header;
    p.data_size = size - 8 - header;
    p.scan = (struct json_scan){.at = text,
                                .begin = text,
                                .end = text + header,
                                .name = name,
                                .pool = st->memory,
                                .err = err};
    if (parse_header(&p) || check_cover(&p))
        return -1;
    if (st->n_tensors &&
        check_unique(&p, &st->tensors->name, sizeof *st->tensors, st->n_tensors, "tensors"))
        return -1;
    return check_unique(&p, st->metadata, 2 * sizeof *st->metadata, st->n_metadata,
                        "metadata entries");
}

int safetensors_parse(struct safetensors *st, const void *data, size_t size, const char *name,
                      clm_error *err)
{
    int rc;

    *st = (struct safetensors){0};
    rc = parse(st, data, size, name, err);
    if (rc)
        safetensors_close(st);
    return rc;
}

int safetensors_open(struct safetensors *st, const char *path, clm_error *err)
{
    int rc = -1;

    *st = (struct safetensors){0};
    if (!file_map(&st->map, path, err))
        rc = parse(st, st->map.data, st->map.size, path, err);
    if (rc)
        safetensors_close(st);
    return rc;
}

void safetensors_close(struct safetensors *st)
{
    mem_free(st->tensors);
    mem_free((void *)st->metadata);
    mem_free(st->memory);
    file_unmap(&st->map);
    *st = (struct safetensors){0};
}
