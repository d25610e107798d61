/* tests/engine/fixtures.h: the golden fixtures of the families that clm serves. */
#ifndef FIXTURES_H
#define FIXTURES_H

#include <dirent.h>

#include "format/json.h"
#include "models/family.h"
#include "models/model.h"
#include "testing.h"

/* name: "models/llama" */
typedef void (*visit_fn)(const char *name, const char *path);

/* Whether the config of a folder names a model type that clm serves. */
static inline bool is_served(const char *folder)
{
    char path[4200];
    clm_error err = {0};
    json *text;
    const char *type;
    bool served;

    snprintf(path, sizeof path, "%s/config.json", folder);
    if (access(path, R_OK))
        return false;
    text = json_parse_file(path, &err);
    CHECK(text, "%s", err.message);
    type = json_string(json_get(text, "model_type"), NULL);
    served = type && model_family_find(type);
    json_free(text);
    return served;
}

/* The fixtures of a folder of the goldens, "models" or "models_hf", in order of name; how many. */
static inline int visit_fixtures(const char *folder, visit_fn visit)
{
    char goldens[64], path[4096], name[300];
    const char *root;
    struct dirent **entries;
    int n, n_visited = 0;

    snprintf(goldens, sizeof goldens, "goldens/%s", folder);
    root = shared_path(goldens);
    CHECK(root, "no %s", goldens);
    n = scandir(root, &entries, NULL, alphasort);
    CHECK(n >= 0, "%s cannot be read", root);
    for (int i = 0; i < n; i++) {
        int length = snprintf(path, sizeof path, "%s/%s", root, entries[i]->d_name);

        snprintf(name, sizeof name, "%s/%s", folder, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.' && length < (int)sizeof path && is_served(path)) {
            visit(name, path);
            n_visited++;
        }
        free(entries[i]);
    }
    free(entries);
    return n_visited;
}

#endif
