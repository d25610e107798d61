#include "format/config.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/strbuf.h"
#include "format/config_harmless.h"
#include "format/json.h"

#define LISTED_MAX 700 /* bytes of unread keys in the warning */

static const char whole_number[] = "a whole number, not negative, below 2^31";

struct entry {
    const char *key;
    const json *value;
    config *child; /* once config_object was asked for it */
    bool read;
};

/* What the objects of one file share. */
struct document {
    json *root;
    json *defaults[2]; /* of config_defaults, or NULL */
    arena *memory;
    const char *path;
    struct log log;
    clm_error error;
    bool warned;
    config *top;
};

struct config {
    struct document *doc;
    const char *prefix;    /* "rope_scaling.", "" for the root */
    struct entry *entries; /* in file order */
    struct entry **sorted; /* by key */
    size_t n;
};

static bool has_failed(const config *c)
{
    return !c || c->doc->error.code != 0;
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(struct entry *const *)a)->key, (*(struct entry *const *)b)->key);
}

static struct entry *find(const config *c, const char *key)
{
    size_t low = 0, high = c ? c->n : 0; /* an object that a failed config did not give */

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(c->sorted[middle]->key, key);

        if (!order)
            return c->sorted[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* NULL for null too. */
static const json *peek(const config *c, const char *key)
{
    const struct entry *e = find(c, key);

    return e && json_kind(e->value) != JSON_NULL ? e->value : NULL;
}

/* The value of a key, which counts as read; NULL when it is absent, null, or c has failed. */
static const json *take(config *c, const char *key)
{
    struct entry *e = find(c, key);

    if (e)
        e->read = true;
    return has_failed(c) ? NULL : peek(c, key);
}

static int no_memory(config *c)
{
    return fail(&c->doc->error, CLM_ERR_NOMEM, "%s: no memory for its content", c->doc->path);
}

static int fail_missing(config *c, const char *key, const char *expected)
{
    return fail(&c->doc->error, CLM_ERR_FORMAT, "%s: key \"%s%s\" is missing, expected %s",
                c->doc->path, c->prefix, key, expected);
}

static void describe(char *out, size_t size, const json *v)
{
    const char *string, *word;

    switch (json_kind(v)) {
    case JSON_BOOL:
        snprintf(out, size, "%s", json_bool(v, false) ? "true" : "false");
        break;
    case JSON_INT:
        snprintf(out, size, "%lld", (long long)json_int(v, 0));
        break;
    case JSON_REAL:
        word = json_special(json_real(v, 0));
        if (word)
            snprintf(out, size, "%s", word);
        else
            snprintf(out, size, "%.17g", json_real(v, 0));
        break;
    case JSON_STRING:
        string = json_string(v, NULL);
        snprintf(out, size, strlen(string) > 40 ? "\"%.40s...\"" : "\"%.40s\"", string);
        break;
    case JSON_ARRAY:
        snprintf(out, size, "an array of %zu", json_size(v));
        break;
    case JSON_OBJECT:
        snprintf(out, size, "an object");
        break;
    case JSON_NULL:
    case JSON_ABSENT:
        snprintf(out, size, "null");
        break;
    }
}

/* index < 0: the value itself, not an item of it. */
static int fail_wrong(config *c, const char *key, int index, const json *found,
                      const char *expected)
{
    char place[16] = "", text[64];

    if (index >= 0)
        snprintf(place, sizeof place, "[%d]", index);
    describe(text, sizeof text, found);
    return fail(&c->doc->error, CLM_ERR_FORMAT, "%s: key \"%s%s%s\" is %s, expected %s",
                c->doc->path, c->prefix, key, place, text, expected);
}

static bool as_int(const json *v, int64_t low, int64_t high, int *out)
{
    double real = json_real(v, (double)NAN);
    int64_t value;

    /* 2^53 and beyond, and NaN, are no int in any case: the cast must not see them. */
    if (!(fabs(real) < 0x1p53) || real != floor(real))
        return false;
    value = (int64_t)real;
    if (value < low || value > high)
        return false;
    *out = (int)value;
    return true;
}

static bool as_float(const json *v, double *out)
{
    *out = json_real(v, (double)NAN);
    return !isnan(*out);
}

/* NULL for what is no string, and for one that C would cut at a NUL. */
static const char *as_string(const json *v)
{
    size_t size = 0;
    const char *string = json_string(v, &size);

    return string && !memchr(string, '\0', size) ? string : NULL;
}

/* The entries of an object. Keys of a file are few or, in maps, looked up one by one: hence sorted.
 */
static config *new_config(struct document *doc, const json *object, const char *prefix)
{
    config *c = arena_array(doc->memory, config, 1);
    struct json_iter it = json_first(object);

    if (!c)
        return NULL;
    *c = (config){.doc = doc, .prefix = prefix};
    c->entries = arena_array(doc->memory, struct entry, json_size(object));
    c->sorted = arena_array(doc->memory, struct entry *, json_size(object));
    if (!c->entries || !c->sorted)
        return NULL;
    for (; json_next(&it); c->n++) {
        if (memchr(it.key, '\0', it.key_size)) {
            fail(&doc->error, CLM_ERR_FORMAT, "%s: a key that begins with \"%s%.100s\" holds a NUL",
                 doc->path, prefix, it.key);
            return NULL;
        }
        c->entries[c->n] = (struct entry){.key = it.key, .value = it.value};
        c->sorted[c->n] = &c->entries[c->n];
    }
    qsort(c->sorted, c->n, sizeof(struct entry *), by_key);
    return c;
}

static void document_close(struct document *doc)
{
    json_free(doc->root);
    for (size_t i = 0; i < COUNT(doc->defaults); i++)
        json_free(doc->defaults[i]);
    arena_close(doc->memory);
    mem_free(doc);
}

/* Takes the root over; NULL stands for a text that was not parsed, with the error in *err. */
static config *open_root(json *root, const char *path, const struct log *log, clm_error *err)
{
    struct document *doc = root ? mem_zeroed(1, sizeof *doc) : NULL;

    if (!doc) {
        json_free(root);
        return root ? fail_null(err, CLM_ERR_NOMEM, "%s: no memory for its content", path) : NULL;
    }
    doc->root = root;
    doc->log = log ? *log : (struct log){0};
    doc->memory = arena_open(0);
    if (doc->memory)
        doc->path = arena_strdup(doc->memory, path);
    if (json_kind(root) != JSON_OBJECT)
        fail(err, CLM_ERR_FORMAT, "%s: an object is expected, {\"key\": value, ...}", path);
    else if (doc->path)
        doc->top = new_config(doc, root, "");
    if (doc->top)
        return doc->top;
    if (doc->error.code)
        fail(err, doc->error.code, "%s", doc->error.message);
    else
        fail(err, CLM_ERR_NOMEM, "%s: no memory for its content", path);
    document_close(doc);
    return NULL;
}

config *config_open(const char *path, const struct log *log, clm_error *err)
{
    return open_root(json_parse_file(path, err), path, log, err);
}

config *config_parse(const char *text, size_t size, const char *path, const struct log *log,
                     clm_error *err)
{
    return open_root(json_parse(text, size, path, err), path, log, err);
}

void config_close(config *c)
{
    if (c)
        document_close(c->doc);
}

/* Entries of both, those of more that c has left out, or an object that is null in c; the arrays
 * that c had stay in the arena. */
static void append(config *c, const json *more)
{
    size_t n = c->n, most = n + json_size(more);
    struct entry *entries = arena_array(c->doc->memory, struct entry, most);
    struct entry **sorted = arena_array(c->doc->memory, struct entry *, most);

    if (!entries || !sorted) {
        no_memory(c);
        return;
    }
    memcpy(entries, c->entries, n * sizeof *entries);
    for (struct json_iter it = json_first(more); json_next(&it);) {
        const struct entry *own = find(c, it.key);

        if (!own)
            entries[n++] = (struct entry){.key = it.key, .value = it.value, .read = true};
        else if (json_kind(own->value) == JSON_NULL && json_kind(it.value) == JSON_OBJECT)
            entries[own - c->entries].value = it.value;
    }
    for (size_t i = 0; i < n; i++)
        sorted[i] = &entries[i];
    qsort(sorted, n, sizeof(struct entry *), by_key);
    c->entries = entries;
    c->sorted = sorted;
    c->n = n;
}

void config_defaults(config *c, const char *text)
{
    json **more = has_failed(c) ? NULL : c->doc->defaults;

    if (!more || more[1])
        return;
    more += more[0] != NULL;
    *more = json_parse(text, strlen(text), "defaults", &c->doc->error);
    if (*more)
        append(c, *more);
}

void config_alias(config *c, const char *alias, const char *key)
{
    struct entry *from = !has_failed(c) && peek(c, alias) ? find(c, alias) : NULL;
    struct entry *to = find(c, key);

    if (!from)
        return;
    if (to) {
        to->value = from->value;
        from->read = true;
        return;
    }
    from->key = key;
    qsort(c->sorted, c->n, sizeof(struct entry *), by_key);
}

bool config_has(const config *c, const char *key)
{
    return peek(c, key) != NULL;
}

bool config_root_has(const config *c, const char *key)
{
    const json *value = json_get(c->doc->root, key);

    return value && json_kind(value) != JSON_NULL;
}

bool config_is_null(config *c, const char *key)
{
    struct entry *e = find(c, key);

    if (e)
        e->read = true;
    return e && json_kind(e->value) == JSON_NULL;
}

int config_int_in(config *c, const char *key, int low, int high)
{
    const json *v = take(c, key);
    int value = low > 1 || high < 1 ? low : 1;
    char expected[64];

    if (has_failed(c))
        return value;
    snprintf(expected, sizeof expected, "a whole number from %d to %d", low, high);
    if (!v)
        fail_missing(c, key, expected);
    else if (!as_int(v, low, high, &value))
        fail_wrong(c, key, -1, v, expected);
    return value;
}

int config_int(config *c, const char *key)
{
    const json *v = take(c, key);
    int value = 1;

    if (!v && !has_failed(c))
        fail_missing(c, key, whole_number);
    else if (v && !as_int(v, 0, INT_MAX, &value))
        fail_wrong(c, key, -1, v, whole_number);
    return value;
}

int config_int_or(config *c, const char *key, int value)
{
    const json *v = take(c, key);

    if (v && !as_int(v, 0, INT_MAX, &value))
        fail_wrong(c, key, -1, v, whole_number);
    return value;
}

double config_float_or(config *c, const char *key, double value)
{
    const json *v = take(c, key);
    double found;

    if (!v)
        return value;
    if (as_float(v, &found) && isfinite(found))
        return found;
    fail_wrong(c, key, -1, v, "a finite number");
    return value;
}

double config_float(config *c, const char *key)
{
    if (!config_has(c, key) && !has_failed(c))
        fail_missing(c, key, "a finite number");
    return config_float_or(c, key, 1);
}

bool config_bool_or(config *c, const char *key, bool value)
{
    const json *v = take(c, key);

    if (v && json_kind(v) != JSON_BOOL)
        fail_wrong(c, key, -1, v, "true or false");
    return json_bool(v, value && !config_is_null(c, key));
}

bool config_bool(config *c, const char *key)
{
    if (!config_has(c, key) && !has_failed(c))
        fail_missing(c, key, "true or false");
    return config_bool_or(c, key, false);
}

const char *config_string_or(config *c, const char *key, const char *value)
{
    const json *v = take(c, key);
    const char *found = as_string(v);

    if (v && !found)
        fail_wrong(c, key, -1, v, "a string without NUL characters");
    return found ? found : value;
}

const char *config_string(config *c, const char *key)
{
    if (!config_has(c, key) && !has_failed(c))
        fail_missing(c, key, "a string");
    return config_string_or(c, key, "");
}

/* The array of a key, and room for n things of size bytes made from it: NULL when n <= 0. */
static const json *take_array(config *c, const char *key, size_t size, int *n, void **room)
{
    const json *v = take(c, key);

    *n = -1;
    if (!v)
        return NULL;
    if (json_kind(v) != JSON_ARRAY || json_size(v) > INT_MAX) {
        fail_wrong(c, key, -1, v, "an array");
        return NULL;
    }
    if (!json_size(v)) {
        *n = 0;
        return NULL;
    }
    *room = arena_zeroed(c->doc->memory, json_size(v), size);
    if (!*room) {
        no_memory(c);
        return NULL;
    }
    *n = (int)json_size(v);
    return v;
}

int config_ints(config *c, const char *key, const int **items)
{
    void *room;
    int n;
    const json *array = take_array(c, key, sizeof(int), &n, &room);

    *items = NULL;
    if (!array)
        return n;
    for (int i = 0; i < n; i++)
        if (!as_int(json_at(array, i), 0, INT_MAX, (int *)room + i))
            return fail_wrong(c, key, i, json_at(array, i), whole_number);
    *items = room;
    return n;
}

static int read_floats(config *c, const char *key, bool nulls, const double **items)
{
    void *room;
    int n;
    const json *array = take_array(c, key, sizeof(double), &n, &room);

    *items = NULL;
    if (!array)
        return n;
    for (int i = 0; i < n; i++)
        if (!(nulls && json_kind(json_at(array, i)) == JSON_NULL) &&
            !as_float(json_at(array, i), (double *)room + i))
            return fail_wrong(c, key, i, json_at(array, i), "a number");
    *items = room;
    return n;
}

int config_floats(config *c, const char *key, const double **items)
{
    return read_floats(c, key, false, items);
}

int config_floats_or_nulls(config *c, const char *key, const double **items)
{
    return read_floats(c, key, true, items);
}

int config_strings(config *c, const char *key, const char *const **items)
{
    void *room;
    int n;
    const json *array = take_array(c, key, sizeof(char *), &n, &room);

    *items = NULL;
    if (!array)
        return n;
    for (int i = 0; i < n; i++) {
        const char *string = as_string(json_at(array, i));

        if (!string)
            return fail_wrong(c, key, i, json_at(array, i), "a string without NUL characters");
        ((const char **)room)[i] = string;
    }
    *items = room;
    return n;
}

int config_bools(config *c, const char *key, const bool **items)
{
    void *room;
    int n;
    const json *array = take_array(c, key, sizeof(bool), &n, &room);

    *items = NULL;
    if (!array)
        return n;
    for (int i = 0; i < n; i++) {
        if (json_kind(json_at(array, i)) != JSON_BOOL)
            return fail_wrong(c, key, i, json_at(array, i), "true or false");
        ((bool *)room)[i] = json_bool(json_at(array, i), false);
    }
    *items = room;
    return n;
}

int config_int_or_ints(config *c, const char *key, const int **items)
{
    int *one;

    if (config_kind(c, key) != CONFIG_NUMBER)
        return config_ints(c, key, items);
    *items = NULL;
    one = arena_array(c->doc->memory, int, 1);
    if (!one)
        return no_memory(c);
    *one = config_int(c, key);
    if (has_failed(c))
        return -1;
    *items = one;
    return 1;
}

config *config_object(config *c, const char *key)
{
    const json *v = take(c, key);
    struct entry *e = find(c, key);
    const char *prefix;

    if (!v)
        return NULL;
    if (json_kind(v) != JSON_OBJECT) {
        fail_wrong(c, key, -1, v, "an object");
        return NULL;
    }
    if (e->child)
        return e->child;
    prefix = arena_printf(c->doc->memory, "%s%.100s.", c->prefix, key);
    if (prefix)
        e->child = new_config(c->doc, v, prefix);
    if (!e->child)
        no_memory(c); /* unless it has said what is wrong */
    return e->child;
}

config *config_item(config *c, const char *key, int i)
{
    const json *v = take(c, key), *item;
    const char *prefix;
    config *made;

    if (!v)
        return NULL;
    if (json_kind(v) != JSON_ARRAY) {
        fail_wrong(c, key, -1, v, "an array of objects");
        return NULL;
    }
    if (i < 0 || (size_t)i >= json_size(v))
        return NULL;
    item = json_at(v, (size_t)i);
    if (json_kind(item) != JSON_OBJECT) {
        fail_wrong(c, key, i, item, "an object");
        return NULL;
    }
    prefix = arena_printf(c->doc->memory, "%s%.100s[%d].", c->prefix, key, i);
    made = prefix ? new_config(c->doc, item, prefix) : NULL;
    if (!made)
        no_memory(c);
    return made;
}

const char *config_key(config *c, int i)
{
    return c && i >= 0 && (size_t)i < c->n ? c->entries[i].key : NULL;
}

enum config_kind config_kind(const config *c, const char *key)
{
    const json *v = peek(c, key);

    switch (json_kind(v)) {
    case JSON_BOOL:
        return CONFIG_BOOL;
    case JSON_INT:
    case JSON_REAL:
        return CONFIG_NUMBER;
    case JSON_STRING:
        return CONFIG_STRING;
    case JSON_ARRAY:
        return CONFIG_ARRAY;
    case JSON_OBJECT:
        return CONFIG_OBJECT;
    case JSON_NULL:
    case JSON_ABSENT:
        break;
    }
    return CONFIG_ABSENT;
}

void config_ignore(config *c, const char *key, ...)
{
    va_list keys;

    va_start(keys, key);
    for (; key; key = va_arg(keys, const char *)) {
        struct entry *e = find(c, key);

        if (e)
            e->read = true;
    }
    va_end(keys);
}

int config_fail(config *c, const char *key, const char *format, ...)
{
    char message[300];
    va_list args;

    if (!c)
        return -1;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return fail(&c->doc->error, CLM_ERR_UNSUPPORTED, "%s: key \"%s%s\": %s", c->doc->path,
                c->prefix, key, message);
}

clm_error *config_error(config *c)
{
    return &c->doc->error;
}

const char *config_path(const config *c)
{
    return c->doc->path;
}

/* Adds the keys that nothing read to the list, while it is short, and counts them all. */
static size_t list_unread(const config *c, struct strbuf *list, size_t *listed)
{
    size_t n = 0;

    for (size_t i = 0; i < c->n; i++) {
        const struct entry *e = &c->entries[i];

        if (e->child)
            n += list_unread(e->child, list, listed);
        if (e->read || json_kind(e->value) == JSON_NULL || config_key_is_harmless(e->key))
            continue;
        n++;
        if (list->size > LISTED_MAX)
            continue;
        strbuf_addf(list, "%s%s%.100s", *listed ? ", " : "", c->prefix, e->key);
        ++*listed;
    }
    return n;
}

static void warn_unread(struct document *doc, const config *root)
{
    struct strbuf list = {0};
    size_t listed = 0;
    size_t n = list_unread(root, &list, &listed);

    if (n > listed)
        strbuf_addf(&list, " and %zu more", n - listed);
    if (n && !list.failed) /* without memory it is not worth an error */
        log_say(&doc->log, LOG_WARNING, "%s: %zu %s not understood and not used: %s", doc->path, n,
                n == 1 ? "key is" : "keys are", list.data);
    strbuf_release(&list);
}

int config_done(config *c, clm_error *err)
{
    struct document *doc = c->doc;

    if (doc->error.code)
        return fail(err, doc->error.code, "%s", doc->error.message);
    if (!doc->warned)
        warn_unread(doc, doc->top);
    doc->warned = true;
    return 0;
}
