#include "template/render.h"

/* The item after the present one, read ahead when it is not known yet: 1, 0 at the end, -1. */
static int peek(struct render *r, struct loop *loop)
{
    int more;

    if (loop->after_known)
        return loop->after.kind != V_MISSING;
    more = iter_next(r, &loop->iter, &loop->after);
    if (more < 0)
        return -1;
    if (!more)
        loop->after = (struct value){0};
    loop->after_known = more; /* at the end the walk is asked again, which does no harm */
    return more;
}

int loop_next(struct render *r, struct loop *loop, struct value *out)
{
    int more = 1;

    if (loop->after_known)
        *out = loop->after;
    else
        more = iter_next(r, &loop->iter, out);
    loop->after_known = false;
    if (more <= 0)
        return more;
    loop->index0++;
    loop->before = loop->current;
    loop->current = *out;
    return 1;
}

/* A walk of unknown length is read to its end. */
static int loop_length(struct render *r, struct loop *loop, int64_t *out)
{
    struct list_builder rest = {0};
    struct value item, list;
    int more;

    if (loop->length < 0 && value_has_length(&loop->iterable)) {
        if (value_length(r, &loop->iterable, &loop->length))
            return -1;
    } else if (loop->length < 0) {
        while ((more = iter_next(r, &loop->iter, &item)) > 0)
            if (render_work(r, 1) || list_add(r, &rest, item))
                return -1;
        if (more < 0 || list_finish(r, &rest, V_LIST, &list) || iter_begin(r, &list, &loop->iter))
            return -1;
        loop->length = list.list->size + loop->index0 + 1 + loop->after_known;
    }
    *out = loop->length;
    return 0;
}

static int loop_cycle(struct render *r, struct value self, const struct value *p,
                      const struct args *args, struct value *out)
{
    (void)p;
    if (!args->n_positional)
        return render_fail(r, "no items for cycling given");
    *out = args->positional[(uint64_t)self.loop->index0 % args->n_positional];
    return 0;
}

static int loop_changed(struct render *r, struct value self, const struct value *p,
                        const struct args *args, struct value *out)
{
    struct loop *loop = self.loop;
    struct list *l = list_new(r, args->n_positional);
    struct value now;
    int same = 0;

    (void)p;
    if (!l)
        return -1;
    if (l->size)
        memcpy(l->items, args->positional, l->size * sizeof *l->items);
    now = value_tuple(l);
    if (loop->last_changed.kind != V_MISSING)
        same = value_equal(r, &loop->last_changed, &now);
    if (same < 0)
        return -1;
    if (!same)
        loop->last_changed = now;
    *out = value_bool(!same);
    return 0;
}

static const struct builtin cycle_builtin = {.name = "cycle", .fn = loop_cycle};
static const struct builtin changed_builtin = {.name = "changed", .fn = loop_changed};

static int bound(struct render *r, struct loop *loop, const struct builtin *b, struct value *out)
{
    struct method *m = render_alloc(r, 1, sizeof *m);

    if (!m)
        return -1;
    *m = (struct method){{.kind = V_LOOP, .loop = loop}, b};
    *out = (struct value){.kind = V_METHOD, .method = m};
    return 0;
}

static int item_or_undefined(const struct value *item, bool there, const char *hint,
                             struct value *out)
{
    *out = there ? *item : value_undefined(UNDEFINED_HINT, hint, strlen(hint), 0);
    return 0;
}

int loop_attribute(struct render *r, struct loop *loop, const struct value *name, struct value *out,
                   bool *found)
{
    int64_t length;
    int more;

    *found = true;
    if (string_is(name, "index")) {
        *out = value_int(loop->index0 + 1);
    } else if (string_is(name, "index0")) {
        *out = value_int(loop->index0);
    } else if (string_is(name, "first")) {
        *out = value_bool(loop->index0 == 0);
    } else if (string_is(name, "last")) {
        more = peek(r, loop);
        *out = value_bool(!more);
        return more < 0 ? -1 : 0;
    } else if (string_is(name, "length")) {
        if (loop_length(r, loop, &length))
            return -1;
        *out = value_int(length);
    } else if (string_is(name, "revindex")) {
        if (loop_length(r, loop, &length))
            return -1;
        *out = value_int(length - loop->index0);
    } else if (string_is(name, "revindex0")) {
        if (loop_length(r, loop, &length))
            return -1;
        *out = value_int(length - loop->index0 - 1);
    } else if (string_is(name, "previtem")) {
        return item_or_undefined(&loop->before, loop->index0 != 0, "there is no previous item",
                                 out);
    } else if (string_is(name, "nextitem")) {
        more = peek(r, loop);
        return more < 0 ? -1 : item_or_undefined(&loop->after, more, "there is no next item", out);
    } else if (string_is(name, "depth")) {
        *out = value_int(loop->depth0 + 1);
    } else if (string_is(name, "depth0")) {
        *out = value_int(loop->depth0);
    } else if (string_is(name, "cycle")) {
        return bound(r, loop, &cycle_builtin, out);
    } else if (string_is(name, "changed")) {
        return bound(r, loop, &changed_builtin, out);
    } else {
        *found = false;
    }
    return 0;
}

/* loop(items) in a recursive loop: the text that the loop makes of them. */
int loop_call(struct render *r, struct loop *loop, const struct args *args, struct value *out)
{
    size_t mark = emit_mark(r);

    if (!loop->code)
        return render_fail(r, "The loop must have the 'recursive' marker to be called "
                              "recursively.");
    if (args->n_positional != 1 || args->n_named)
        return render_fail(r, "loop() takes one argument");
    if (run_recursive(r, loop->code, &args->positional[0], loop->depth0 + 1, loop->frame) ==
        FLOW_ERROR)
        return -1;
    return emit_capture(r, mark, out);
}
