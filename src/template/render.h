/* template/render.h: the state of one rendering, and what its parts ask of one another. */
#ifndef TEMPLATE_RENDER_H
#define TEMPLATE_RENDER_H

#include "base/error.h"
#include "base/heap.h"
#include "base/strbuf.h"
#include "template/builtin.h"
#include "template/template.h"
#include "template/tree.h"
#include "template/value.h"

struct frame {
    struct frame *outer;
    uint32_t size;
    struct value slots[];
};

struct macro {
    const struct macro_code *code;
    struct frame *frame; /* where it was defined */
};

#define FRAME_POOLS 16

struct render {
    const struct template *t;
    const struct template_options *options;
    struct heap heap;
    struct strbuf *out;
    size_t out_limit;                 /* bytes in out */
    size_t out_room;                  /* capacity of out, or less where the limit comes first */
    struct dict input;                /* the variables given */
    uint64_t input_hashes;            /* a bit for the lowest bits of each name's hash */
    struct frame *frame;              /* of the function being run */
    struct frame *spare[FRAME_POOLS]; /* frames to be used again, by size */
    uint64_t steps;                   /* left */
    unsigned depth, max_depth;
    uint32_t line; /* of the template, for messages */
    uint64_t random;
    clm_error *err;
};

/* ---- errors, limits ---- */

/* "NAME:LINE: ...", code CLM_ERR_FORMAT. Returns -1. */
int render_fail(struct render *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
int render_no_memory(struct render *r); /* or the limit on it was reached */
int render_out_of_steps(struct render *r);
int render_too_deep(struct render *r);

static inline int render_work(struct render *r, uint64_t n)
{
    if (r->steps < n)
        return render_out_of_steps(r);
    r->steps -= n;
    return 0;
}

/* For work on so many bytes. */
static inline int render_scan(struct render *r, size_t bytes)
{
    return render_work(r, bytes / 32 + 1);
}

static inline int render_enter(struct render *r)
{
    return r->depth >= r->max_depth ? render_too_deep(r) : (r->depth++, 0);
}

static inline void render_leave(struct render *r)
{
    r->depth--;
}

/* ---- output ---- */

int emit_more(struct render *r, const char *s, size_t n); /* where the buffer has no room */

static inline int emit_bytes(struct render *r, const char *s, size_t n)
{
    struct strbuf *b = r->out;

    if (n >= r->out_room - b->size)
        return emit_more(r, s, n);
    if (n)
        memcpy(b->data + b->size, s, n);
    b->size += n;
    b->data[b->size] = '\0';
    return 0;
}

/* A string: most are short. */
static inline int emit_string(struct render *r, const struct value *v)
{
    struct strbuf *b = r->out;

    if (v->size >= r->out_room - b->size)
        return emit_more(r, v->s, v->size);
    bytes_copy(b->data + b->size, v->s, v->size);
    b->size += v->size;
    b->data[b->size] = '\0';
    return 0;
}

int emit_text(struct render *r, const char *s);
int emit_char(struct render *r, char c, size_t times);
int emit_character(struct render *r, int32_t c);
int emit_str(struct render *r, const struct value *v);       /* as str() */
int emit_repr(struct render *r, const struct value *v);      /* as repr() */
int emit_escaped(struct render *r, const char *s, size_t n); /* HTML */
/* What was put out since the mark becomes a string instead. */
static inline size_t emit_mark(const struct render *r)
{
    return r->out->size;
}
int emit_capture(struct render *r, size_t mark, struct value *out);

/* str(): strings are returned as they are. */
int to_string(struct render *r, const struct value *v, struct value *out);

/* ---- memory ---- */

/* NULL: the error is filled. */
static inline void *render_alloc(struct render *r, size_t count, size_t size)
{
    void *p = count <= SIZE_MAX / 4 / size ? heap_alloc(&r->heap, count * size) : NULL;

    if (!p)
        render_no_memory(r);
    return p;
}
struct list *list_new(struct render *r, size_t size);
/* A list whose length is not known beforehand. Start from {0}. */
struct list_builder {
    struct value *items;
    size_t size, room;
};
int list_add(struct render *r, struct list_builder *b, struct value v);
int list_finish(struct render *r, struct list_builder *b, enum value_kind kind, struct value *out);
int string_copy(struct render *r, const char *s, size_t n, struct value *out);
int string_join2(struct render *r, const struct value *a, const struct value *b, struct value *out);

/* ---- mappings ---- */

int dict_reserve(struct render *r, struct dict *d, size_t size);
struct dict *dict_new(struct render *r, size_t size);
int dict_set(struct render *r, struct dict *d, const struct value *key, struct value v);
/* A key that is not there yet. */
int dict_add_new(struct render *r, struct dict *d, const struct value *key, uint64_t hash,
                 const struct value *v);
int dict_set_hashed(struct render *r, struct dict *d, const struct value *key, uint64_t hash,
                    struct value v);

/* 1: found, 0: not there, -1: error (the key cannot be hashed). */
int dict_get(struct render *r, const struct dict *d, const struct value *key,
             const struct value **out);

/* ---- values ---- */

const char *type_name(const struct value *v);
bool value_truth(const struct value *v);
bool is_number(const struct value *v); /* bool, int or float */
int value_hash(struct render *r, const struct value *v, uint64_t *out);
/* 1, 0, or -1 on error. */
int value_equal(struct render *r, const struct value *a, const struct value *b);
int value_less(struct render *r, const struct value *a, const struct value *b, enum compare_op op);
int value_compare(struct render *r, const struct value *a, const struct value *b,
                  enum compare_op op);
bool value_same(const struct value *a, const struct value *b);           /* a is b */
int value_length(struct render *r, const struct value *v, int64_t *out); /* len() */
bool value_has_length(const struct value *v);

int undefined_error(struct render *r, const struct value *v); /* -1: it was used */

/* ---- operators ---- */

int operate(struct render *r, enum node_kind op, const struct value *a, const struct value *b,
            struct value *out);
int operate_unary(struct render *r, const struct value *v, bool minus, struct value *out);
struct value int_value(struct render *r, const struct bigint *b);    /* the smaller form */
int to_double(struct render *r, const struct value *v, double *out); /* of a number */
int format_percent(struct render *r, const struct value *format, const struct value *arg,
                   struct value *out);
int format_braces(struct render *r, const struct value *format, const struct args *args,
                  struct value *out);

/* ---- attributes and items ---- */

int get_attribute(struct render *r, const struct value *object, const struct value *name,
                  uint64_t hash, const struct builtin *methods, struct value *out);
/* The undefined value that an attribute is which the object does not have. */
void missing_attribute(const struct value *object, const struct value *name, struct value *out);
int get_item(struct render *r, const struct value *object, const struct value *key,
             struct value *out);
int get_slice(struct render *r, const struct value *object, const struct value *start,
              const struct value *stop, const struct value *step, struct value *out);
/* "a.b.0" of filters such as map(attribute=...); a missing fallback gives undefined. */
int get_path(struct render *r, const struct value *object, const struct value *path,
             const struct value *fallback, struct value *out);

/* ---- walking ---- */

enum iter_source {
    ITER_LIST,
    ITER_DICT, /* flags: enum view_kind */
    ITER_TEXT,
    ITER_RANGE,
    ITER_NONE,
    ITER_REVERSED,
    ITER_DEFERRED, /* what a function gives, called when the first item is wanted */
    ITER_SHARED,   /* one that others walk too */
    ITER_LOOP,     /* a loop object */
    ITER_FILTERED, /* for x in y if z */
    ITER_MAP,
    ITER_SELECT,
    ITER_UNIQUE,
    ITER_BATCH
};

struct iter {
    uint8_t source;
    uint8_t view;
    bool attribute; /* map(attribute=), selectattr */
    bool reject;
    int64_t at, end;
    struct value over;           /* what it walks */
    bool waiting;                /* the walk inside, over that, has not begun */
    struct iter *inner;          /* for those that change another walk */
    const struct for_code *loop; /* ITER_FILTERED */
    struct frame *frame;
    const struct builtin *builtin; /* ITER_MAP, ITER_SELECT: what is applied */
    struct args args;
    struct value path, fallback;
    struct dict *seen; /* ITER_UNIQUE */
    bool case_sensitive;
    bool pending; /* ITER_BATCH: an item was read ahead */
    struct value ahead;
};

bool is_iterable(const struct value *v);
/* Begins a walk over v, or an error that it cannot be walked. */
int iter_begin(struct render *r, const struct value *v, struct iter *it);
int iter_next(struct render *r, struct iter *it, struct value *out); /* 1, 0 at the end, -1 */
/* list(v) */
int to_list(struct render *r, const struct value *v, struct value *out);
/* What sort, unique, min, ... compare: the item or its attribute, in lower case unless it matters.
 */
int filter_key(struct render *r, const struct value *item, const struct value *path,
               bool case_sensitive, struct value *out);
/* A generator over what the function makes of self. */
int iter_deferred(struct render *r, const struct builtin *b, const struct value *self,
                  const struct args *args, struct value *out);
int iter_value(struct render *r, const struct iter *it, struct value *out);
int iter_reversed(struct render *r, const struct value *v, struct value *out, bool *can);

/* ---- loops ---- */

struct loop {
    struct iter iter;
    struct value iterable;
    int64_t index0, length;              /* length -1: not known */
    struct value before, current, after; /* V_MISSING: none */
    bool after_known;
    struct value last_changed; /* V_MISSING: never */
    int64_t depth0;
    const struct for_code *code; /* of a recursive loop, else NULL */
    struct frame *frame;         /* around it */
};

int loop_attribute(struct render *r, struct loop *loop, const struct value *name, struct value *out,
                   bool *found);
int loop_next(struct render *r, struct loop *loop, struct value *out); /* as iter_next */
int loop_call(struct render *r, struct loop *loop, const struct args *args, struct value *out);

/* ---- calls ---- */

int call_value(struct render *r, const struct value *callee, const struct args *args,
               struct value *out);
int call_builtin(struct render *r, const struct builtin *b, struct value self,
                 const struct args *args, struct value *out);
int call_macro(struct render *r, const struct macro *m, const struct args *args, bool keep,
               struct value *out); /* keep: leave the text in the output, *out is not set */
bool is_callable(const struct value *v);

static inline struct value *variable_slot(const struct render *r, struct variable v)
{
    struct frame *f = r->frame;

    for (unsigned i = 0; i < v.hops; i++)
        f = f->outer;
    return &f->slots[v.slot];
}

struct frame *frame_new(struct render *r, const struct function *f, struct frame *outer);
void frame_release(struct render *r, const struct function *f, struct frame *frame);
void scope_enter(struct render *r, const struct scope_loads *loads);
void scope_leave(struct render *r, const struct scope_loads *loads);

/* ---- code ---- */

int eval_node(struct render *r, const struct node *n, struct value *out);
int eval_truth(struct render *r, const struct node *n); /* 1, 0, -1 */
/* What the branches of an if compare with texts, kept from one to the next. */
struct branch_subject {
    const struct value *held;
    struct value room;
};
int branch_truth(struct render *r, const struct branch *b, struct branch_subject *s); /* 1, 0, -1 */
int eval_filtered(struct render *r, const struct node *n, const struct value *body,
                  struct value *out); /* a filter whose innermost subject is the body */
int emit_expression(struct render *r, const struct node *n);
int emit_call(struct render *r, const struct node *n, const struct value *caller);
int assign_target(struct render *r, const struct node *target, const struct value *v);
enum flow { FLOW_ERROR = -1, FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };
enum flow run_nodes(struct render *r, const struct nodes *list);
enum flow run_recursive(struct render *r, const struct for_code *code, const struct value *iterable,
                        int64_t depth0, struct frame *outer);

/* ---- the whole ---- */

/* Render what load puts among the variables. */
int render_with(const template *t, const struct template_options *options,
                int (*load)(struct render *r, void *ctx), void *ctx, struct strbuf *out,
                clm_error *err);
int render_variables(struct render *r, const struct template_variable *variables, size_t n);
int render_variable(struct render *r, const char *name, struct value v);

/* ---- conversions ---- */
int arg_int(struct render *r, const struct value *v, const char *what, int64_t *out);
int arg_text(struct render *r, const struct value *v, const char *what, struct value *out);

/* Whether the bytes are ASCII; remembered in the value. */
bool string_ascii(struct value *v);

#endif
