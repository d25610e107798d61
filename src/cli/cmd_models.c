/* cli/cmd_models.c: what is supported, and what is in the local cache. */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "cli/command.h"
#include "cli/describe.h"
#include "cli/locate.h"
#include "cli/output.h"
#include "format/hub.h"
#include "format/json.h"
#include "models/family.h"
#include "models/model.h"

struct models_args {
    bool json, devices;
};

struct listing {
    struct strbuf *out;
    struct fields fields;
    bool json;
    int n;
};

/* Bytes of the files of a folder, through the links that the hub cache makes. */
static double folder_bytes(const char *dir)
{
    DIR *d = opendir(dir);
    double sum = 0;

    for (struct dirent *e; d && (e = readdir(d));) {
        char path[PATH_MAX];
        struct stat st;

        if (file_join(path, sizeof path, dir, e->d_name, NULL) == 0 && stat(path, &st) == 0 &&
            S_ISREG(st.st_mode))
            sum += (double)st.st_size;
    }
    if (d)
        closedir(d);
    return sum;
}

/* The model_type of a folder's config.json, "" when there is none. */
static void read_model_type(char *out, size_t size, const char *dir)
{
    char path[PATH_MAX];
    const char *type;
    json *c = NULL;

    if (file_join(path, sizeof path, dir, "config.json", NULL) == 0)
        c = json_parse_file(path, NULL);
    type = json_string(json_get(c, "model_type"), NULL);
    snprintf(out, size, "%s", type ? type : "");
    json_free(c);
}

static int add_model(void *ctx, const char *name, const char *dir)
{
    struct listing *l = ctx;
    struct fields *f = &l->fields;
    char type[128];
    bool supported;
    double bytes = folder_bytes(dir);

    read_model_type(type, sizeof type, dir);
    supported = *type && model_family_find(type);
    l->n++;
    if (l->json) {
        field_open(f, NULL, '{');
        field_string(f, "name", name);
        field_string(f, "path", dir);
        field_string(f, "model_type", type);
        field_bool(f, "supported", supported);
        field_count(f, "bytes", bytes);
        field_close(f, '}');
        return 0;
    }
    strbuf_addf(l->out, "  %s  %.2f GB, ", name, bytes / 1e9);
    add_printable(l->out, *type ? type : "no config.json");
    strbuf_addf(l->out, "%s\n    %s\n", supported || !*type ? "" : " (not supported)", dir);
    return 0;
}

/* What a family's layers are made of, by the places that its tensors may go to. */
static const struct feature {
    enum weight_role first, last;
    const char *name;
} features[] = {
    {ROLE_Q_PROJ, ROLE_Q_PROJ, "attention"},
    {ROLE_MLA_Q_A, ROLE_MLA_UNEMBED, "latent attention"},
    {ROLE_SSM_A, ROLE_SSM_A, "state space"},
    {ROLE_DELTA_A, ROLE_DELTA_A, "delta rule"},
    {ROLE_LIGHTNING_NORM, ROLE_LIGHTNING_NORM, "linear attention"},
    {ROLE_RG_LRU_Y, ROLE_RG_LRU_X, "RG-LRU"},
    {ROLE_RWKV_R, ROLE_RWKV_R, "RWKV"},
    {ROLE_MLSTM_Q, ROLE_MLSTM_Q, "mLSTM"},
    {ROLE_SHORT_CONV_IN, ROLE_SHORT_CONV_IN, "short convolution"},
    {ROLE_EXPERT_GATE, ROLE_EXPERT_UP, "experts"},
};

static bool family_has(const struct family *family, const struct feature *feature)
{
    for (const struct weight_rule *r = family->weights; r->pattern; r++)
        if (r->to.kind != TARGET_NONE && r->to.kind != TARGET_IGNORE &&
            r->to.first >= feature->first && r->to.first <= feature->last)
            return true;
    return false;
}

static void add_family_json(struct fields *f, const struct family *family)
{
    field_open(f, NULL, '{');
    field_string(f, "name", family->name);
    field_open(f, "model_types", '[');
    for (size_t t = 0; t < COUNT(family->model_types) && family->model_types[t]; t++)
        field_string(f, NULL, family->model_types[t]);
    field_close(f, ']');
    field_open(f, "features", '[');
    for (size_t i = 0; i < COUNT(features); i++)
        if (family_has(family, &features[i]))
            field_string(f, NULL, features[i].name);
    field_close(f, ']');
    field_close(f, '}');
}

static void add_families_text(struct strbuf *b)
{
    for (int i = 0; model_family(i); i++) {
        const struct family *family = model_family(i);
        const char *before = ": ";

        strbuf_addf(b, "  %s", family->name);
        for (size_t f = 0; f < COUNT(features); f++)
            if (family_has(family, &features[f])) {
                strbuf_addf(b, "%s%s", before, features[f].name);
                before = ", ";
            }
        strbuf_add_str(b, "\n   ");
        for (size_t t = 0; t < COUNT(family->model_types) && family->model_types[t]; t++)
            strbuf_addf(b, " %s", family->model_types[t]);
        strbuf_add_char(b, '\n');
    }
}

/* The bundled model, and those of the hub cache, where there is one. */
static void add_on_this_machine(struct listing *l)
{
    char dir[PATH_MAX];
    clm_error why = {0};

    if (locate_model(dir, sizeof dir, NULL, &why) == 0)
        add_model(l, "(without -m)", dir);
    else if (!l->json)
        strbuf_addf(l->out, "  (without -m)  %s\n", why.message);
    hub_each(add_model, l, NULL);
}

static void add_cache_name(struct strbuf *b)
{
    char cache[PATH_MAX] = "none";

    hub_cache(cache, sizeof cache, NULL);
    strbuf_addf(b, "\nmodels on this machine (hub cache %s):\n", cache);
}

static void list_json(struct listing *l)
{
    struct fields *f = &l->fields;

    field_open(f, NULL, '{');
    field_open(f, "families", '[');
    for (int i = 0; model_family(i); i++)
        add_family_json(f, model_family(i));
    field_close(f, ']');
    field_open(f, "models", '[');
    add_on_this_machine(l);
    field_close(f, ']');
    field_close(f, '}');
    strbuf_add_char(l->out, '\n');
}

static void list_text(struct listing *l)
{
    strbuf_add_str(l->out, "families, what their layers are made of, and the model_types in "
                           "config.json that belong to "
                           "them:\n");
    add_families_text(l->out);
    add_cache_name(l->out);
    add_on_this_machine(l);
    if (l->n == 0)
        strbuf_add_str(l->out, "  none\n");
}

/* One device, or why it is not there. */
static void add_device(struct listing *l, const char *name)
{
    struct fields *f = &l->fields;
    clm_error why = {0};
    device *d = device_open(name, 0, &why);
    char what[100] = "";

    if (d)
        d->ops->describe(d, what, sizeof what);
    if (l->json) {
        field_open(f, NULL, '{');
        field_string(f, "name", name);
        field_bool(f, "present", d);
        field_string(f, d ? "is" : "why", d ? what : why.message);
        if (d)
            field_count(f, "bytes_available", (double)d->ops->available(d));
        field_close(f, '}');
    } else if (!d) {
        strbuf_addf(l->out, "  %-5s -, %s\n", name, why.message);
    } else if (d->ops->available(d)) {
        strbuf_addf(l->out, "  %-5s %s, %.2f GB of memory left\n", name, what,
                    (double)d->ops->available(d) / 1e9);
    } else {
        strbuf_addf(l->out, "  %-5s %s\n", name, what);
    }
    if (d)
        d->ops->close(d);
}

static void list_devices(struct listing *l)
{
    struct fields *f = &l->fields;

    if (l->json) {
        field_open(f, NULL, '{');
        field_open(f, "devices", '[');
    }
    add_device(l, "cpu");
    add_device(l, "cuda");
    if (l->json) {
        field_close(f, ']');
        field_close(f, '}');
        strbuf_add_char(l->out, '\n');
    }
}

static int models_run(const void *args, clm_error *err)
{
    const struct models_args *a = args;
    struct strbuf b = {0};
    struct listing l = {.out = &b, .fields = {.out = &b, .json = true}, .json = a->json};
    int rc;

    if (a->devices)
        list_devices(&l);
    else if (a->json)
        list_json(&l);
    else
        list_text(&l);
    rc = output_buffer(&b, err);
    strbuf_release(&b);
    return rc;
}

static const struct option models_options[] = {
    {FLAG_OPTION("json", 0, struct models_args, json, "write one JSON object")},
    {FLAG_OPTION("devices", 0, struct models_args, devices,
                 "what there is to compute on instead, and why what is missing is")},
    {0},
};

const struct command command_models = {
    .name = "models",
    .summary = "what is supported, and what is on this machine",
    .options = models_options,
    .args_size = sizeof(struct models_args),
    .run = models_run,
};
