#include "template/chat.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/memory.h"

#define MAX_TEMPLATES 64
#define MAX_FILE ((size_t)16 << 20)
#define MAX_PATH 4096

struct chat_templates {
    arena *memory;
    const char *dir;
    struct {
        const char *name, *text;
        template *t;
    } items[MAX_TEMPLATES];
    size_t n;
    json *tokens; /* the special tokens, as {"bos_token": "<s>", ...} */
    struct template_variable *variables;
    size_t n_variables;
};

static int no_memory(const chat_templates *all, clm_error *err)
{
    return fail(err, CLM_ERR_NOMEM, "%s: no memory for its chat templates",
                all->dir ? all->dir : "a model");
}

/* Parses one, in the place of the one of that name; file is where its text comes from. */
static int add_template(chat_templates *all, const char *name, const char *text, size_t size,
                        const char *file, clm_error *err)
{
    const char *kept = arena_strdup(all->memory, name);
    const char *copy = arena_strndup(all->memory, text, size);
    size_t at = 0;
    template *t;

    if (!kept || !copy)
        return no_memory(all, err);
    while (at < all->n && strcmp(all->items[at].name, name) != 0)
        at++;
    if (at == MAX_TEMPLATES)
        return fail(err, CLM_ERR_FORMAT, "%s: more than %d chat templates", all->dir,
                    MAX_TEMPLATES);
    t = template_parse(text, size, file, err);
    if (!t)
        return -1;
    template_close(all->items[at].t);
    all->items[at].name = kept;
    all->items[at].text = copy;
    all->items[at].t = t;
    all->n += at == all->n;
    return 0;
}

static int add_file(chat_templates *all, const char *name, const char *path, clm_error *err)
{
    size_t size;
    char *text = file_read(path, MAX_FILE, &size, err);
    const char *slash = strrchr(path, '/');
    int rc = text ? add_template(all, name, text, size, slash ? slash + 1 : path, err) : -1;

    mem_free(text);
    return rc;
}

/* additional_chat_templates/NAME.jinja */
static int add_folder(chat_templates *all, const char *folder, clm_error *err)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    int rc = 0;

    while (d && rc == 0 && (e = readdir(d))) {
        size_t n = strlen(e->d_name);
        char path[MAX_PATH], name[256];

        if (n < 7 || n >= sizeof name || strcmp(e->d_name + n - 6, ".jinja"))
            continue;
        memcpy(name, e->d_name, n - 6);
        name[n - 6] = '\0';
        rc = file_join(path, sizeof path, folder, e->d_name, err) || add_file(all, name, path, err)
                 ? -1
                 : 0;
    }
    if (d)
        closedir(d);
    return rc;
}

/* A text, or a list of {"name": ..., "template": ...}. */
static int add_json(chat_templates *all, const json *v, const char *file, clm_error *err)
{
    size_t size;
    const char *text = json_string(v, &size);

    if (text)
        return add_template(all, "default", text, size, file, err);
    for (size_t i = 0; json_kind(v) == JSON_ARRAY && i < json_size(v); i++) {
        const char *name = json_string(json_get(json_at(v, i), "name"), NULL);

        text = json_string(json_get(json_at(v, i), "template"), &size);
        if (!name || !text)
            return fail(err, CLM_ERR_FORMAT, "%s/%s: chat_template %zu has no name or no template",
                        all->dir, file, i);
        if (add_template(all, name, text, size, file, err))
            return -1;
    }
    return 0;
}

static json *read_json(const chat_templates *all, const char *file, bool *failed, clm_error *err)
{
    char path[MAX_PATH];
    json *v;

    *failed = file_join(path, sizeof path, all->dir, file, err);
    if (*failed || !file_exists(path))
        return NULL;
    v = json_parse_file(path, err);
    *failed = !v;
    return v;
}

/* A token is its text, or an object that has it as content. */
static const char *token_text(const json *v, size_t *size)
{
    return json_string(json_kind(v) == JSON_OBJECT ? json_get(v, "content") : v, size);
}

static const char *const token_names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

/* What the configuration says, or else the map. */
static int read_tokens(chat_templates *all, const json *config, const json *map, clm_error *err)
{
    struct strbuf text = {0};

    strbuf_add_char(&text, '{');
    for (size_t i = 0; i < COUNT(token_names); i++) {
        size_t size;
        const char *token = token_text(json_get(config, token_names[i]), &size);

        if (!token)
            token = token_text(json_get(map, token_names[i]), &size);
        if (!token)
            continue;
        strbuf_addf(&text, "%s\"%s\":", text.size > 1 ? "," : "", token_names[i]);
        strbuf_add_json(&text, token, size);
    }
    strbuf_add_char(&text, '}');
    if (!text.failed)
        all->tokens = json_parse(text.data, text.size, "special tokens", err);
    strbuf_release(&text);
    all->variables = arena_array(all->memory, struct template_variable, COUNT(token_names));
    if (!all->tokens || !all->variables)
        return no_memory(all, err);
    for (size_t i = 0; i < COUNT(token_names); i++) {
        const json *v = json_get(all->tokens, token_names[i]);

        if (v)
            all->variables[all->n_variables++] = (struct template_variable){token_names[i], v};
    }
    return 0;
}

/* Files of templates come before what the configuration says. */
static int read_files(chat_templates *all, clm_error *err)
{
    char path[MAX_PATH];

    if (file_join(path, sizeof path, all->dir, "chat_template.jinja", err) ||
        (file_exists(path) && add_file(all, "default", path, err)))
        return -1;
    return file_join(path, sizeof path, all->dir, "additional_chat_templates", err) ||
                   (file_is_dir(path) && add_folder(all, path, err))
               ? -1
               : 0;
}

static int read_dir(chat_templates *all, const char *file, clm_error *err)
{
    json *config = NULL, *map = NULL, *old = NULL;
    bool failed;
    int rc = -1;

    if (file ? add_file(all, "default", file, err) : read_files(all, err))
        return -1;
    config = read_json(all, "tokenizer_config.json", &failed, err);
    if (failed)
        goto cleanup;
    map = read_json(all, "special_tokens_map.json", &failed, err);
    if (failed || read_tokens(all, config, map, err))
        goto cleanup;
    if (!all->n && add_json(all, json_get(config, "chat_template"), "tokenizer_config.json", err))
        goto cleanup;
    if (!all->n) {
        old = read_json(all, "chat_template.json", &failed, err);
        if (failed || add_json(all, json_get(old, "chat_template"), "chat_template.json", err))
            goto cleanup;
    }
    rc = all->n ? 0
                : fail(err, CLM_ERR_UNSUPPORTED,
                       "%s has no chat template: give one with --template", all->dir);

cleanup:
    json_free(config);
    json_free(map);
    json_free(old);
    return rc;
}

chat_templates *chat_templates_open(const char *dir, const char *file, clm_error *err)
{
    chat_templates *all = mem_zeroed(1, sizeof *all);

    if (!all)
        return fail_null(err, CLM_ERR_NOMEM, "%s: no memory for its chat templates", dir);
    all->memory = arena_open(4096);
    all->dir = all->memory ? arena_strdup(all->memory, dir) : NULL;
    if (!all->dir)
        no_memory(all, err);
    if (!all->dir || read_dir(all, file, err)) {
        chat_templates_close(all);
        return NULL;
    }
    return all;
}

void chat_templates_close(chat_templates *all)
{
    if (!all)
        return;
    for (size_t i = 0; i < all->n; i++)
        template_close(all->items[i].t);
    json_free(all->tokens);
    arena_close(all->memory);
    mem_free(all);
}

static const template *find(const chat_templates *all, const char *name)
{
    for (size_t i = 0; i < all->n; i++)
        if (!strcmp(all->items[i].name, name))
            return all->items[i].t;
    return NULL;
}

const template *chat_templates_choose(const chat_templates *all, const char *name,
                                      const json *tools, clm_error *err)
{
    enum json_kind given = json_kind(tools);
    const template *t = NULL;

    if (name) {
        t = find(all, name);
        if (!t)
            fail(err, CLM_ERR_ARG, "%s has no chat template named %s; the first is %s", all->dir,
                 name, all->items[0].name);
        return t;
    }
    if (given != JSON_ABSENT && given != JSON_NULL)
        t = find(all, "tool_use");
    if (!t)
        t = find(all, "default");
    if (!t)
        fail(err, CLM_ERR_ARG, "%s has no default chat template: name one, such as %s", all->dir,
             all->items[0].name);
    return t;
}

const char *chat_templates_text(const chat_templates *all, const template *t)
{
    for (size_t i = 0; i < all->n; i++)
        if (all->items[i].t == t)
            return all->items[i].text;
    return NULL;
}

const struct template_variable *chat_templates_variables(const chat_templates *all, size_t *n)
{
    *n = all->n_variables;
    return all->variables;
}
