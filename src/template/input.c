#include <math.h>

#include "template/number.h"
#include "template/render.h"

static int convert(struct render *r, const json *v, enum json_kind kind, struct value *out);

static inline int make_string(struct render *r, const char *s, size_t size, struct value *out)
{
    *out = value_string(s, size);
    return size > UINT32_MAX ? render_fail(r, "a string of more than 4 GiB") : 0;
}

/* Arrays and objects wait. */
static int convert_later(struct render *r, const json *v, enum json_kind kind, struct value *out)
{
    if (kind != JSON_ARRAY && kind != JSON_OBJECT)
        return convert(r, v, kind, out);
    *out = (struct value){.kind = V_JSON, .json = v};
    return 0;
}

static int json_list(struct render *r, const json *v, struct value *out)
{
    size_t n = json_size(v);
    struct list *l = list_new(r, n);

    if (!l)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (json_value(r, json_at(v, i), &l->items[i]))
            return -1;
    *out = value_list(l);
    return 0;
}

/* {"__float__": "Infinity"}: how json.h gives what JSON has no word for. */
static bool is_float(const json *v, double *f)
{
    size_t size;
    const char *text = json_string(json_get(v, "__float__"), &size);

    return text && number_from_text(text, size, f) && !isfinite(*f);
}

static int json_dict(struct render *r, const json *v, struct value *out)
{
    struct json_iter it = json_first(v);
    size_t n = json_size(v);
    struct dict_entry *e;
    struct dict *d;
    double f;

    if (n == 1 && is_float(v, &f)) {
        *out = value_float(f);
        return 0;
    }
    d = dict_new(r, n);
    if (!d)
        return -1;
    for (e = d->entries; d->size < n && json_next(&it); e++) {
        if (make_string(r, it.key, it.key_size, &e->key))
            return -1;
        e->hash = hash_bytes(it.key, it.key_size);
        if (it.kind == JSON_STRING ? make_string(r, it.text, it.size, &e->value)
                                   : convert_later(r, it.value, it.kind, &e->value))
            return -1;
        d->size++;
    }
    dict_index(d); /* the keys of an object differ: none has to be looked for */
    *out = value_dict(d);
    return 0;
}

static int convert(struct render *r, const json *v, enum json_kind kind, struct value *out)
{
    int rc;

    switch (kind) {
    case JSON_BOOL:
        *out = value_bool(json_bool(v, false));
        return 0;
    case JSON_INT:
        *out = value_int(json_int(v, 0));
        return 0;
    case JSON_REAL:
        *out = value_float(json_real(v, 0));
        return 0;
    case JSON_ARRAY:
    case JSON_OBJECT:
        break;
    default:
        *out = value_none();
        return 0;
    }
    if (render_enter(r))
        return -1;
    rc = kind == JSON_ARRAY ? json_list(r, v, out) : json_dict(r, v, out);
    render_leave(r);
    return rc;
}

int json_value(struct render *r, const json *v, struct value *out)
{
    size_t size;
    const char *s;
    enum json_kind kind = json_look(v, &s, &size);

    return kind == JSON_STRING ? make_string(r, s, size, out) : convert(r, v, kind, out);
}

int json_value_later(struct render *r, const json *v, struct value *out)
{
    size_t size;
    const char *s;
    enum json_kind kind = json_look(v, &s, &size);

    return kind == JSON_STRING ? make_string(r, s, size, out) : convert_later(r, v, kind, out);
}
