#include "template/methods.h"

/* ---- mappings ---- */

static struct value view_of(const struct value *d, enum view_kind kind)
{
    return (struct value){.kind = V_VIEW, .flags = (uint8_t)kind, .dict = d->dict};
}

METHOD(keys)
{
    METHOD_UNUSED;
    *out = view_of(&self, VIEW_KEYS);
    return 0;
}

METHOD(values)
{
    METHOD_UNUSED;
    *out = view_of(&self, VIEW_VALUES);
    return 0;
}

METHOD(items)
{
    METHOD_UNUSED;
    *out = view_of(&self, VIEW_ITEMS);
    return 0;
}

METHOD(get)
{
    const struct value *held;
    int found = dict_get(r, self.dict, &p[0], &held);

    METHOD_UNUSED;
    if (found < 0)
        return -1;
    *out = found ? *held : p[1].kind == V_MISSING ? value_none() : p[1];
    return 0;
}

METHOD(copy)
{
    METHOD_UNUSED;
    *out = self; /* it never changes */
    return 0;
}

METHOD(fromkeys)
{
    struct dict *d = dict_new(r, 0);
    struct value key;
    struct iter it;
    int more;

    METHOD_UNUSED;
    if (!d || iter_begin(r, &p[0], &it))
        return -1;
    while ((more = iter_next(r, &it, &key)) > 0)
        if (render_work(r, 1) || dict_set(r, d, &key, p[1].kind == V_MISSING ? value_none() : p[1]))
            return -1;
    *out = value_dict(d);
    return more;
}

/* ---- lists ---- */

METHOD(item_count)
{
    int64_t n = 0;
    struct value item;
    struct iter it;

    METHOD_UNUSED;
    if (iter_begin(r, &self, &it))
        return -1;
    while (iter_next(r, &it, &item) > 0) {
        int equal = render_work(r, 1)          ? -1
                    : value_same(&item, &p[0]) ? 1
                                               : value_equal(r, &item, &p[0]);

        if (equal < 0)
            return -1;
        n += equal;
    }
    *out = value_int(n);
    return 0;
}

METHOD(item_index)
{
    int64_t at = 0, start = 0, stop = INT64_MAX, size;
    struct value item;
    struct iter it;

    METHOD_UNUSED;
    if (arg_int(r, &p[1], "index: start", &start) || arg_int(r, &p[2], "index: stop", &stop) ||
        value_length(r, &self, &size) || iter_begin(r, &self, &it))
        return -1;
    start = start < 0 ? start + size : start;
    stop = stop < 0 ? stop + size : stop;
    for (; iter_next(r, &it, &item) > 0; at++) {
        int equal = render_work(r, 1)          ? -1
                    : value_same(&item, &p[0]) ? 1
                                               : value_equal(r, &item, &p[0]);

        if (equal < 0)
            return -1;
        if (equal && at >= start && at < stop)
            return *out = value_int(at), 0;
    }
    return render_fail(r, "the item is not in the %s", type_name(&self));
}

/* ---- numbers ---- */

METHOD(is_integer)
{
    METHOD_UNUSED;
    *out = value_bool(self.kind != V_FLOAT ||
                      (self.f - self.f == 0 && self.f == __builtin_trunc(self.f)));
    return 0;
}

METHOD(bit_length)
{
    uint64_t i = self.i < 0 ? -(uint64_t)self.i : (uint64_t)self.i;

    METHOD_UNUSED;
    *out = value_int(i ? 64 - __builtin_clzll(i) : 0);
    return 0;
}

METHOD(conjugate)
{
    METHOD_UNUSED;
    *out = self.kind == V_BOOL ? value_int(self.i) : self;
    return 0;
}

/* ---- cyclers ---- */

METHOD(next)
{
    struct cycler *c = self.cycler;

    METHOD_UNUSED;
    *out = c->items->items[c->at];
    c->at = (c->at + 1) % c->items->size;
    return 0;
}

METHOD(reset)
{
    METHOD_UNUSED;
    self.cycler->at = 0;
    *out = value_none();
    return 0;
}
