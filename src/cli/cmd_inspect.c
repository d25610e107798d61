/* cli/cmd_inspect.c: the spec of a model, its tensors, and what it would take to run it. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/describe.h"
#include "cli/output.h"
#include "cli/session.h"
#include "device/weight.h"
#include "models/family.h"

struct inspect_args {
    struct model_options model;
    bool json;
};

/* Matrices that are stored alike. */
struct kind {
    enum weight_format format;
    int bits, group_size, scale_rows;
    double n, bytes;
};

enum { MAX_KINDS = 32 };

struct totals {
    struct kind kinds[MAX_KINDS]; /* in order of their first matrix */
    int n_kinds;
    double parameters;
    double cache_per_token, cache_for_context; /* bytes */
};

static int add_parameters(void *ctx, const struct nn_slot *slot)
{
    double n = (double)slot->n_out * (slot->n_in > 0 ? slot->n_in : 1);

    *(double *)ctx += n * (slot->n_experts > 0 ? slot->n_experts : 1);
    if (slot->bias)
        *(double *)ctx += (double)slot->n_out * (slot->n_experts > 0 ? slot->n_experts : 1);
    return 0;
}

static int add_kind(void *ctx, const struct nn_slot *slot)
{
    const struct weight *w = slot->weight;
    struct totals *t = ctx;
    struct kind *k = t->kinds;
    int n = slot->n_experts > 0 ? slot->n_experts : 1;

    if (!slot->n_in)
        return 0;
    while (k < t->kinds + t->n_kinds &&
           (k->format != w->format || k->bits != w->bits || k->group_size != w->group_size ||
            k->scale_rows != w->scale_rows))
        k++;
    if (k == t->kinds + MAX_KINDS)
        return 0;
    if (k == t->kinds + t->n_kinds) {
        *k = (struct kind){w->format, w->bits, w->group_size, w->scale_rows, 0, 0};
        t->n_kinds++;
    }
    k->n += n;
    for (int e = 0; e < n; e++)
        k->bytes += (double)weight_bytes(&w[e]);
    return 0;
}

static struct totals count_totals(struct session *s)
{
    const kv_cache *cache = engine_cache(s->engine);
    struct totals t = {
        .cache_per_token = (double)kv_cache_bytes_per_token(cache),
        .cache_for_context = kv_cache_bytes_of(cache, s->model->spec->context_length),
    };

    nn_slots(s->model->nn, add_parameters, &t.parameters);
    nn_slots(s->model->nn, add_kind, &t);
    return t;
}

static void describe_summary(struct fields *f, const struct session *s, const struct totals *t)
{
    const struct spec *spec = s->model->spec;

    field_string(f, "path", s->dir);
    field_string(f, "family", s->model->family->name);
    field_string(f, "model_type", spec->model_type);
    field_count(f, "vocab_size", spec->vocab_size);
    field_count(f, "hidden_size", spec->hidden_size);
    field_count(f, "n_layers", spec->n_layers);
    field_count(f, "context_length", spec->context_length);
    field_bool(f, "tie_word_embeddings", spec->tie_word_embeddings);
    field_count(f, "parameters", t->parameters);
    field_count(f, "weight_bytes", (double)s->model->weight_bytes);
    field_count(f, "weight_bytes_per_token", (double)model_bytes_per_token(s->model));
    field_count(f, "cache_bytes_per_token", t->cache_per_token);
    field_count(f, "cache_bytes_for_context", t->cache_for_context);
    field_count(f, "memory_needed", (double)s->model->weight_bytes + t->cache_for_context);
}

static void add_json_kinds(struct fields *f, const struct totals *t)
{
    field_open(f, "formats", '[');
    for (int i = 0; i < t->n_kinds; i++) {
        const struct kind *k = &t->kinds[i];

        field_open(f, NULL, '{');
        field_string(f, "format", weight_format_name(k->format));
        if (k->group_size) {
            field_count(f, "bits", k->bits);
            field_count(f, "group_size", k->group_size);
        }
        if (k->scale_rows)
            field_count(f, "scale_rows", k->scale_rows);
        field_count(f, "matrices", k->n);
        field_count(f, "bytes", k->bytes);
        field_close(f, '}');
    }
    field_close(f, ']');
}

static void add_json_adapter(struct fields *f, const struct model *m)
{
    if (!m->adapter_path)
        return;
    field_open(f, "adapter", '{');
    field_string(f, "path", m->adapter_path);
    field_string(f, "kind", m->adapter_kind);
    field_count(f, "adapted", m->n_adapted);
    field_close(f, '}');
}

static void add_shape(struct strbuf *b, const struct checkpoint_tensor *t)
{
    strbuf_add_char(b, '[');
    for (int i = 0; i < t->n_dims; i++)
        strbuf_addf(b, i ? ", %lld" : "%lld", (long long)t->shape[i]);
    strbuf_add_char(b, ']');
}

static void add_json_tensor(struct fields *f, const struct checkpoint_tensor *t)
{
    field_open(f, NULL, '{');
    field_string(f, "name", t->name);
    field_string(f, "type", dtype_name(t->type));
    strbuf_add_str(f->out, ", \"shape\": ");
    add_shape(f->out, t);
    field_count(f, "bytes", (double)t->size);
    field_close(f, '}');
}

static void add_json(struct strbuf *b, const struct session *s, const struct totals *t)
{
    struct fields f = {.out = b, .json = true};
    const struct model *m = s->model;

    field_open(&f, NULL, '{');
    describe_summary(&f, s, t);
    add_json_kinds(&f, t);
    add_json_adapter(&f, m);
    field_open(&f, "layers", '[');
    for (int i = 0; i < m->spec->n_layers; i++) {
        field_open(&f, NULL, '[');
        describe_layer(&f, &m->spec->layers[i]);
        field_close(&f, ']');
    }
    field_close(&f, ']');
    field_open(&f, "tensors", '[');
    for (size_t i = 0; i < checkpoint_count(m->weights); i++)
        add_json_tensor(&f, checkpoint_at(m->weights, i));
    field_close(&f, ']');
    field_close(&f, '}');
    strbuf_add_char(b, '\n');
}

/* 8.00 MB and the like. */
static void add_bytes(struct strbuf *b, double bytes)
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    int unit = 0;

    while (bytes >= 1000 && unit < 4) {
        bytes /= 1000;
        unit++;
    }
    strbuf_addf(b, unit ? "%.2f %s" : "%.0f %s", bytes, units[unit]);
}

/* How matrices are stored, a line each kind. */
static void add_kinds(struct strbuf *b, const struct totals *t)
{
    for (int i = 0; i < t->n_kinds; i++) {
        const struct kind *k = &t->kinds[i];

        strbuf_addf(b, "%.0f matrices %s", k->n, weight_format_name(k->format));
        if (k->scale_rows)
            strbuf_addf(b, ", scales for blocks of %d x %d", k->scale_rows, k->group_size);
        else if (k->group_size)
            strbuf_addf(b, ", %d bits in groups of %d", k->bits, k->group_size);
        strbuf_add_str(b, ": ");
        add_bytes(b, k->bytes);
        strbuf_add_char(b, '\n');
    }
}

/* Layers that say the same stand in one line. */
static void add_layers(struct strbuf *b, const struct spec *s)
{
    struct strbuf text[2] = {{0}};
    int first = 0;

    for (int i = 0; i <= s->n_layers; i++) {
        struct strbuf *now = &text[i % 2], *before = &text[1 - i % 2];
        struct fields f = {.out = now};

        strbuf_clear(now);
        if (i < s->n_layers)
            describe_layer(&f, &s->layers[i]);
        if (i == 0 || (i < s->n_layers && now->size == before->size && now->data &&
                       memcmp(now->data, before->data, now->size) == 0))
            continue;
        if (first == i - 1)
            strbuf_addf(b, "layer %d: ", first);
        else
            strbuf_addf(b, "layers %d-%d: ", first, i - 1);
        strbuf_add(b, before->data ? before->data : "", before->size);
        strbuf_add_char(b, '\n');
        first = i;
    }
    b->failed |= text[0].failed || text[1].failed;
    strbuf_release(&text[0]);
    strbuf_release(&text[1]);
}

static void add_tensors(struct strbuf *b, const checkpoint *c)
{
    int width = 0;

    for (size_t i = 0; i < checkpoint_count(c); i++) {
        int n = (int)strlen(checkpoint_at(c, i)->name);

        width = n > width ? n : width;
    }
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        const struct checkpoint_tensor *t = checkpoint_at(c, i);

        add_printable(b, t->name);
        strbuf_addf(b, "%*s  %-7s  %12zu  ", width - (int)strlen(t->name), "", dtype_name(t->type),
                    t->size);
        add_shape(b, t);
        strbuf_add_char(b, '\n');
    }
}

static void add_text(struct strbuf *b, const struct session *s, const struct totals *t)
{
    const struct spec *spec = s->model->spec;

    strbuf_addf(b, "%s\n", s->dir);
    strbuf_addf(b, "family %s, model_type %s\n", s->model->family->name, spec->model_type);
    strbuf_addf(b, "%.0f parameters, vocabulary %d, hidden size %d, %d layers, context %d%s\n",
                t->parameters, spec->vocab_size, spec->hidden_size, spec->n_layers,
                spec->context_length, spec->tie_word_embeddings ? ", tied embeddings" : "");
    add_layers(b, spec);
    add_kinds(b, t);
    if (s->model->adapter_path)
        strbuf_addf(b, "adapter %s, %s, on %d weights\n", s->model->adapter_path,
                    s->model->adapter_kind, s->model->n_adapted);
    strbuf_add_str(b, "weights ");
    add_bytes(b, (double)s->model->weight_bytes);
    strbuf_add_str(b, ", of which a token reads ");
    add_bytes(b, (double)model_bytes_per_token(s->model));
    strbuf_add_str(b, "\ncache ");
    add_bytes(b, t->cache_per_token);
    strbuf_add_str(b, " a token, ");
    add_bytes(b, t->cache_for_context);
    strbuf_add_str(b, " for a full context\nmemory needed ");
    add_bytes(b, (double)s->model->weight_bytes + t->cache_for_context);
    strbuf_addf(b, "\n\n%zu tensors:\n", checkpoint_count(s->model->weights));
    add_tensors(b, s->model->weights);
}

static int inspect_run(const void *args, clm_error *err)
{
    const struct inspect_args *a = args;
    struct session s = {0};
    struct strbuf b = {0};
    struct totals totals;
    struct model_options model = a->model;
    int rc;

    model.described = true;
    rc = session_open(&s, &model, 0, err);

    if (rc == 0) {
        totals = count_totals(&s);
        if (a->json)
            add_json(&b, &s, &totals);
        else
            add_text(&b, &s, &totals);
        rc = output_buffer(&b, err);
    }
    strbuf_release(&b);
    session_close(&s);
    return rc;
}

static const struct option inspect_options[] = {
    {TABLE_OPTION(struct inspect_args, model, options_running)},
    {FLAG_OPTION("json", 0, struct inspect_args, json, "write one JSON object")},
    {0},
};

const struct command command_inspect = {
    .name = "inspect",
    .summary = "a model's spec, tensors and memory",
    .options = inspect_options,
    .args_size = sizeof(struct inspect_args),
    .run = inspect_run,
};
