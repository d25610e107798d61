/* jansson has names that json.h has too: here its constants get a prefix. (Its functions are in
 * the same process, which is why json.h puts one before json_real and json_string.) */
#define JSON_NULL JANSSON_NULL
#define JSON_REAL JANSSON_REAL
#define JSON_STRING JANSSON_STRING
#define JSON_ARRAY JANSSON_ARRAY
#define JSON_OBJECT JANSSON_OBJECT
#include <jansson.h>
#undef JSON_NULL
#undef JSON_REAL
#undef JSON_STRING
#undef JSON_ARRAY
#undef JSON_OBJECT

#include "format/json.h"

#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "base/file.h"
#include "base/memory.h"
#include "format/json_dialect.h"

/*
 * A json is a json_t. Its memory comes from malloc: jansson's hook for allocators is one for the
 * whole process, where the program or another library may use jansson too, so clm leaves it alone.
 * (The tests set it, to see that a failing allocation is survived.)
 */

#define MAX_DEPTH 512
#define MAX_SIZE ((size_t)512 << 20) /* the largest tokenizer.json there are have 35 MB */
#define LARGE_DOCUMENT 200000        /* values: some 20 MB of heap */

static const json_t *value(const json *v)
{
    return (const json_t *)v;
}

static json *wrapped(const json_t *v)
{
    return (json *)v;
}

static int fail_parse(const json_error_t *error, const char *name, clm_error *err)
{
    /* An allocation that fails inside jansson leaves no text, or that of a syntax error. */
    if (json_error_code(error) == json_error_out_of_memory || !error->text[0])
        return fail(err, CLM_ERR_NOMEM, "%s: no memory for its JSON", name);
    return fail(err, CLM_ERR_FORMAT, "%s: line %d, column %d: bad JSON: %s", name, error->line,
                error->column, error->text);
}

/* key[0, size) with NULs for their stand-ins, in place; the new size. */
static size_t restore_key(char *key, size_t size, size_t *n_restored)
{
    static const char stand_in[] = JSON_NUL_STAND_IN;
    const size_t width = sizeof stand_in - 1;
    size_t n = 0;

    for (size_t i = 0; i < size; n++) {
        if (size - i >= width && !memcmp(key + i, stand_in, width)) {
            key[n] = '\0';
            i += width;
            ++*n_restored;
        } else {
            key[n] = key[i++];
        }
    }
    return n;
}

/* Sets all keys of one object in another, with their NULs where n_restored is given. */
static int copy_items(json_t *to, const json_t *from, size_t *n_restored)
{
    for (struct json_iter it = json_first(wrapped(from)); json_next(&it);) {
        size_t size = it.key_size;
        char *key = mem_alloc(size + 1);
        int rc;

        if (!key)
            return -1;
        memcpy(key, it.key, size);
        if (n_restored)
            size = restore_key(key, size, n_restored);
        rc = json_object_setn_nocheck(to, key, size, (json_t *)it.value);
        mem_free(key);
        if (rc)
            return -1;
    }
    return 0;
}

/* Gives keys of the whole document their NULs back. Recursion is bounded by MAX_DEPTH. */
static int restore_nuls(json_t *v, size_t *n_restored)
{
    json_t *copy;
    int rc = -1;

    for (size_t i = 0; i < json_array_size(v); i++)
        if (restore_nuls(json_array_get(v, i), n_restored))
            return -1;
    if (json_kind(wrapped(v)) != JSON_OBJECT)
        return 0;
    for (struct json_iter it = json_first(wrapped(v)); json_next(&it);)
        if (restore_nuls((json_t *)it.value, n_restored))
            return -1;
    copy = json_object();
    if (copy && !copy_items(copy, v, n_restored) && !json_object_clear(v))
        rc = copy_items(v, copy, NULL);
    json_decref(copy);
    return rc;
}

/* The stand-in may have been there before: then nobody can tell which were NULs. */
static int finish_parse(json_t *root, const struct json_dialect *d, const char *name,
                        clm_error *err)
{
    size_t n_restored = 0;

    if (!d->n_key_nuls)
        return 0;
    if (restore_nuls(root, &n_restored))
        return fail(err, CLM_ERR_NOMEM, "%s: no memory for its JSON", name);
    if (n_restored != d->n_key_nuls)
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "%s: keys hold NUL characters, and others U+10FFFF; clm reads only one of both",
                    name);
    return 0;
}

json *json_parse(const char *text, size_t size, const char *name, clm_error *err)
{
    struct json_dialect d = {0};
    json_error_t error;
    json_t *root = NULL;

    if (size > MAX_SIZE)
        return fail_null(err, CLM_ERR_FORMAT, "%s: %zu bytes of JSON; at most %zu are read", name,
                         size, MAX_SIZE);
    if (!json_dialect_rewrite(&d, text, size, MAX_DEPTH, name, err)) {
        root = json_loadb(d.text, d.size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY,
                          &error);
        if (!root)
            fail_parse(&error, name, err);
    }
    if (root && finish_parse(root, &d, name, err)) {
        json_decref(root);
        root = NULL;
    }
    strbuf_release(&d.copy);
    return wrapped(root);
}

json *json_parse_file(const char *path, clm_error *err)
{
    size_t size;
    char *text = file_read(path, MAX_SIZE, &size, err);
    json *root;

    if (!text)
        return NULL;
    root = json_parse(text, size, path, err);
    mem_free(text);
    return root;
}

/* Are there at least *n values in v? Counts no further. */
static bool has_values(const json_t *v, size_t *n)
{
    if (!*n || !--*n)
        return true;
    for (size_t i = 0; i < json_array_size(v); i++)
        if (has_values(json_array_get(v, i), n))
            return true;
    for (struct json_iter it = json_first(wrapped(v)); json_next(&it);)
        if (has_values(value(it.value), n))
            return true;
    return false;
}

/*
 * A large tokenizer.json leaves a million freed blocks behind, 90 MiB that glibc keeps resident in
 * a process that may need them for its cache; giving them back takes 55 ms (bench/json).
 */
void json_free(json *root)
{
    size_t n = LARGE_DOCUMENT;
    bool large = root && has_values(value(root), &n);

    json_decref((json_t *)root);
#ifdef __GLIBC__
    if (large)
        malloc_trim(0);
#else
    (void)large;
#endif
}

enum json_kind json_kind(const json *v)
{
    static const unsigned char kinds[] = {
        [JANSSON_OBJECT] = JSON_OBJECT, [JANSSON_ARRAY] = JSON_ARRAY,
        [JANSSON_STRING] = JSON_STRING, [JSON_INTEGER] = JSON_INT,
        [JANSSON_REAL] = JSON_REAL,     [JSON_TRUE] = JSON_BOOL,
        [JSON_FALSE] = JSON_BOOL,       [JANSSON_NULL] = JSON_NULL,
    };

    return v ? (enum json_kind)kinds[json_typeof(value(v))] : JSON_ABSENT;
}

bool json_bool(const json *v, bool otherwise)
{
    return json_kind(v) == JSON_BOOL ? json_is_true(value(v)) : otherwise;
}

int64_t json_int(const json *v, int64_t otherwise)
{
    return json_kind(v) == JSON_INT ? json_integer_value(value(v)) : otherwise;
}

double json_real(const json *v, double otherwise)
{
    enum json_kind kind = json_kind(v);

    return kind == JSON_INT || kind == JSON_REAL ? json_number_value(value(v)) : otherwise;
}

const char *json_string(const json *v, size_t *size)
{
    if (json_kind(v) != JSON_STRING)
        return NULL;
    if (size)
        *size = json_string_length(value(v));
    return json_string_value(value(v));
}

enum json_kind json_look(const json *v, const char **text, size_t *size)
{
    enum json_kind kind = json_kind(v);

    if (kind == JSON_STRING) {
        *text = json_string_value(value(v));
        *size = json_string_length(value(v));
    }
    return kind;
}

size_t json_size(const json *v)
{
    switch (json_kind(v)) {
    case JSON_ARRAY:
        return json_array_size(value(v));
    case JSON_OBJECT:
        return json_object_size(value(v));
    default:
        return 0;
    }
}

const json *json_at(const json *array, size_t i)
{
    return wrapped(json_array_get(value(array), i)); /* NULL for what is no array, or too short */
}

const json *json_get(const json *object, const char *key)
{
    return wrapped(json_object_get(value(object), key)); /* NULL for what is no object */
}

struct json_iter json_first(const json *object)
{
    struct json_iter it = {.object = object};

    if (json_kind(object) == JSON_OBJECT)
        it.place = json_object_iter((json_t *)object);
    return it;
}

bool json_next(struct json_iter *it)
{
    if (!it->place)
        return false;
    it->key = json_object_iter_key(it->place);
    it->key_size = json_object_iter_key_len(it->place);
    it->value = wrapped(json_object_iter_value(it->place));
    it->kind = json_look(it->value, &it->text, &it->size);
    it->place = json_object_iter_next((json_t *)it->object, it->place);
    return true;
}
