#include "format/json.h"

#include <math.h>
#include <string.h>

#include "base/decimal.h"
#include "base/file.h"
#include "base/heap.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "format/json_scan.h"
#include "format/value.h"

#define MAX_SIZE ((size_t)512 << 20) /* the largest tokenizer.json there are have 35 MB */

struct document {
    struct value root; /* first: what is freed is given as this */
    struct heap heap;  /* lists and mappings */
    char *strings;
};

struct parser {
    struct json_scan scan;
    struct heap *heap;
    struct value *pending; /* items, or keys and values, of all that is not closed yet */
    size_t n_pending, room;
};

static int parse_value(struct parser *p, struct value *out, int depth);

static int no_memory(struct parser *p)
{
    return fail(p->scan.err, CLM_ERR_NOMEM, "%s: no memory for its JSON", p->scan.name);
}

static inline int push(struct parser *p, struct value v)
{
    if (p->n_pending == p->room) {
        size_t room = p->room ? 2 * p->room : 64;
        struct value *larger = mem_resize(p->pending, room * sizeof *larger);

        if (!larger)
            return no_memory(p);
        p->pending = larger;
        p->room = room;
    }
    p->pending[p->n_pending++] = v;
    return 0;
}

static int parse_string(struct parser *p, struct value *out)
{
    const char *s;
    size_t size;

    if (json_scan_string(&p->scan, &s, &size))
        return -1;
    *out = value_string(s, size);
    if (utf8_ascii_part(s, size) == size)
        out->flags = STRING_ASCII;
    return 0;
}

/* Digits with their sign; false where they do not fit in 64 bits. */
static bool to_int(const char *s, const char *end, int64_t *out)
{
    bool negative = *s == '-';
    int64_t v = 0;

    for (s += negative; s < end; s++)
        if (__builtin_mul_overflow(v, 10, &v) ||
            (negative ? __builtin_sub_overflow(v, *s - '0', &v)
                      : __builtin_add_overflow(v, *s - '0', &v)))
            return false;
    *out = v;
    return true;
}

static int parse_number(struct parser *p, struct value *out)
{
    struct json_scan *s = &p->scan;
    const char *text;
    bool whole;
    int64_t i;
    double f;

    if (json_scan_number(s, &text, &whole))
        return -1;
    if (whole && to_int(text, s->at, &i)) {
        *out = value_int(i);
        return 0;
    }
    if (s->at - text > DECIMAL_MAX)
        return json_scan_refuse(s, "a number of more than 1024 characters");
    f = decimal_parse(text, (size_t)(s->at - text));
    if (!isfinite(f))
        return json_scan_refuse(s, "a number beyond the largest double: overflow");
    *out = value_float(f);
    return 0;
}

static int parse_word(struct parser *p, struct value *out)
{
    struct json_scan *s = &p->scan;

    if (json_scan_word(s, "true"))
        *out = value_bool(true);
    else if (json_scan_word(s, "false"))
        *out = value_bool(false);
    else if (json_scan_word(s, "null"))
        *out = value_none();
    else if (json_scan_word(s, "NaN"))
        *out = value_float((double)NAN);
    else if (json_scan_word(s, "Infinity"))
        *out = value_float(HUGE_VAL);
    else
        return json_scan_fail(s, "a value");
    return 0;
}

static int parse_list(struct parser *p, struct value *out, int depth)
{
    size_t begin = p->n_pending, n;
    struct list *l;
    int more;

    p->scan.at++;
    for (bool first = true; (more = json_scan_more(&p->scan, ']', &first)) > 0;) {
        struct value item;

        if (parse_value(p, &item, depth + 1) || push(p, item))
            return -1;
    }
    if (more)
        return -1;
    n = p->n_pending - begin;
    l = heap_alloc(p->heap, sizeof *l + n * sizeof *l->items);
    if (!l)
        return no_memory(p);
    *l = (struct list){(uint32_t)n, (struct value *)(l + 1)};
    if (n)
        memcpy(l->items, p->pending + begin, n * sizeof *l->items);
    p->n_pending = begin;
    *out = value_list(l);
    return 0;
}

/* Room for n entries, and an empty index where there are many. */
static struct dict *new_dict(struct parser *p, size_t n)
{
    struct dict *d = heap_alloc(p->heap, sizeof *d + n * sizeof *d->entries);
    size_t slots = dict_slots(n);

    if (!d)
        return NULL;
    *d = (struct dict){.entries = (struct dict_entry *)(d + 1), .capacity = (uint32_t)n};
    if (n <= DICT_SMALL)
        return d;
    d->index = heap_alloc(p->heap, slots * sizeof *d->index);
    if (!d->index)
        return NULL;
    memset(d->index, 0, slots * sizeof *d->index);
    d->index_mask = (uint32_t)slots - 1;
    return d;
}

/* Keys made to fall on one another would take the square of their number. */
#define STEPS_PER_KEY 64

/* Puts an entry behind the others, unless its key is there. The text stands behind the object. */
static int add_entry(struct parser *p, struct dict *d, const struct value *key,
                     const struct value *v, size_t *steps)
{
    struct dict_entry *e = &d->entries[d->size];
    uint64_t hash = hash_bytes(key->s, key->size);
    uint32_t at = (uint32_t)hash & d->index_mask;

    if (!d->index) {
        if (dict_find_text(d, key, hash))
            return json_scan_refuse(&p->scan, "an object with a duplicate key");
    } else {
        for (; d->index[at]; at = (at + 1) & d->index_mask) {
            if (entry_is(&d->entries[d->index[at] - 1], key, hash))
                return json_scan_refuse(&p->scan, "an object with a duplicate key");
            if (!(*steps)--)
                return json_scan_refuse(&p->scan, "an object of keys that all have one hash");
        }
        d->index[at] = d->size + 1;
    }
    *e = (struct dict_entry){*key, *v, hash};
    d->size++;
    return 0;
}

/* {"__float__": "Infinity"}: how transformers writes what JSON has no word for. */
static bool is_float(const struct dict *d, struct value *out)
{
    static const struct {
        const char *word;
        double f;
    } words[] = {
        {"Infinity", HUGE_VAL}, {"-Infinity", -HUGE_VAL}, {"NaN", (double)NAN},
        {"inf", HUGE_VAL},      {"-inf", -HUGE_VAL},      {"nan", (double)NAN},
    };

    if (d->size != 1 || !string_is(&d->entries[0].key, "__float__"))
        return false;
    for (size_t i = 0; i < COUNT(words); i++)
        if (string_is(&d->entries[0].value, words[i].word)) {
            *out = value_float(words[i].f);
            return true;
        }
    return false;
}

static int close_dict(struct parser *p, size_t begin, struct value *out)
{
    size_t n = (p->n_pending - begin) / 2, steps = n * STEPS_PER_KEY;
    struct dict *d = new_dict(p, n);

    if (!d)
        return no_memory(p);
    for (size_t i = begin; i < p->n_pending; i += 2)
        if (add_entry(p, d, &p->pending[i], &p->pending[i + 1], &steps))
            return -1;
    p->n_pending = begin;
    if (!is_float(d, out))
        *out = value_dict(d);
    return 0;
}

static int parse_dict(struct parser *p, struct value *out, int depth)
{
    size_t begin = p->n_pending;
    int more;

    p->scan.at++;
    for (bool first = true; (more = json_scan_more(&p->scan, '}', &first)) > 0;) {
        struct value key, item;

        if (parse_string(p, &key) || push(p, key) || json_scan_expect(&p->scan, ':') ||
            parse_value(p, &item, depth + 1) || push(p, item))
            return -1;
    }
    return more ? -1 : close_dict(p, begin, out);
}

static int parse_value(struct parser *p, struct value *out, int depth)
{
    struct json_scan *s = &p->scan;
    bool opens = json_scan_peek(s, '{') || json_scan_peek(s, '[');

    if (s->at == s->end)
        return json_scan_fail(s, "a value");
    if (opens && depth == JSON_SCAN_MAX_DEPTH)
        return json_scan_refuse(s, JSON_SCAN_TOO_DEEP);
    switch (*s->at) {
    case '{':
        return parse_dict(p, out, depth);
    case '[':
        return parse_list(p, out, depth);
    case '"':
        return parse_string(p, out);
    case '-':
        if (json_scan_word(s, "-Infinity")) {
            *out = value_float(-HUGE_VAL);
            return 0;
        }
        return parse_number(p, out);
    default:
        return *s->at >= '0' && *s->at <= '9' ? parse_number(p, out) : parse_word(p, out);
    }
}

static int parse_text(struct parser *p, struct value *out)
{
    struct json_scan *s = &p->scan;
    size_t size = (size_t)(s->end - s->begin), valid = utf8_valid_part(s->begin, size);

    if (valid < size) {
        s->at += valid;
        return json_scan_refuse(s, "bytes that are not UTF-8");
    }
    return parse_value(p, out, 0) || json_scan_finish(s) ? -1 : 0;
}

json *json_parse(const char *text, size_t size, const char *name, clm_error *err)
{
    static const char mark[] = "\xEF\xBB\xBF"; /* which programs put before a file */
    size_t n = sizeof mark - 1;
    size_t skipped = size >= n && memcmp(text, mark, n) == 0 ? n : 0;
    struct parser p = {.scan = {.at = text + skipped,
                                .end = text + size,
                                .begin = text + skipped,
                                .name = name,
                                .by_line = true,
                                .err = err}};
    struct document *d;

    if (size > MAX_SIZE)
        return fail_null(err, CLM_ERR_FORMAT, "%s: %zu bytes of JSON; at most %zu are read", name,
                         size, MAX_SIZE);
    d = mem_zeroed(1, sizeof *d);
    if (!d || !(d->strings = mem_alloc(size + 1))) {
        mem_free(d);
        no_memory(&p);
        return NULL;
    }
    heap_init(&d->heap, SIZE_MAX);
    p.heap = &d->heap;
    p.scan.pool = d->strings;
    if (parse_text(&p, &d->root)) {
        json_free(&d->root);
        d = NULL;
    }
    mem_free(p.pending);
    return d ? &d->root : NULL;
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

void json_free(json *root)
{
    struct document *d = (struct document *)root;

    if (!d)
        return;
    heap_release(&d->heap);
    mem_free(d->strings);
    mem_free(d);
}

enum json_kind json_kind(const json *v)
{
    static const unsigned char kinds[V_KINDS] = {
        [V_NONE] = JSON_NULL,   [V_BOOL] = JSON_BOOL,     [V_INT] = JSON_INT,
        [V_FLOAT] = JSON_REAL,  [V_STRING] = JSON_STRING, [V_LIST] = JSON_ARRAY,
        [V_DICT] = JSON_OBJECT,
    };

    return v ? (enum json_kind)kinds[v->kind] : JSON_ABSENT;
}

bool json_bool(const json *v, bool otherwise)
{
    return json_kind(v) == JSON_BOOL ? v->i : otherwise;
}

int64_t json_int(const json *v, int64_t otherwise)
{
    return json_kind(v) == JSON_INT ? v->i : otherwise;
}

double json_real(const json *v, double otherwise)
{
    switch (json_kind(v)) {
    case JSON_INT:
        return (double)v->i;
    case JSON_REAL:
        return v->f;
    default:
        return otherwise;
    }
}

const char *json_special(double f)
{
    if (isfinite(f))
        return NULL;
    return isnan(f) ? "NaN" : f < 0 ? "-Infinity" : "Infinity";
}

const char *json_string(const json *v, size_t *size)
{
    if (json_kind(v) != JSON_STRING)
        return NULL;
    if (size)
        *size = v->size;
    return v->s;
}

enum json_kind json_look(const json *v, const char **text, size_t *size)
{
    enum json_kind kind = json_kind(v);

    if (kind == JSON_STRING) {
        *text = v->s;
        *size = v->size;
    }
    return kind;
}

size_t json_size(const json *v)
{
    switch (json_kind(v)) {
    case JSON_ARRAY:
        return v->list->size;
    case JSON_OBJECT:
        return v->dict->size;
    default:
        return 0;
    }
}

const json *json_at(const json *array, size_t i)
{
    return json_kind(array) == JSON_ARRAY && i < array->list->size ? &array->list->items[i] : NULL;
}

const json *json_get(const json *object, const char *key)
{
    struct value name = value_cstring(key);
    const struct dict_entry *e;

    if (json_kind(object) != JSON_OBJECT)
        return NULL;
    e = dict_find_text(object->dict, &name, hash_bytes(name.s, name.size));
    return e ? &e->value : NULL;
}

struct json_iter json_first(const json *object)
{
    struct json_iter it = {0};

    if (json_kind(object) == JSON_OBJECT) {
        it.place = object->dict->entries;
        it.end = object->dict->entries + object->dict->size;
    }
    return it;
}

bool json_next(struct json_iter *it)
{
    const struct dict_entry *e = it->place;

    if (it->place == it->end)
        return false;
    it->key = e->key.s;
    it->key_size = e->key.size;
    it->value = &e->value;
    it->kind = json_look(it->value, &it->text, &it->size);
    it->place = e + 1;
    return true;
}
