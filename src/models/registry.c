/* models/registry.c: which family serves which model_type. */
#include <limits.h>
#include <string.h>

#include "base/distance.h"
#include "models/family.h"
#include "models/model.h"
#include "models/registry.h"

/* CLM_FAMILIES, from the build: FAMILY(name) of every family_name that a file here defines. */
#define FAMILY(name) extern const struct family family_##name;
CLM_FAMILIES
#undef FAMILY
#define FAMILY(name) &family_##name,
static const struct family *const families[] = {CLM_FAMILIES};
#undef FAMILY

const struct family *model_family(int i)
{
    return i >= 0 && (size_t)i < COUNT(families) ? families[i] : NULL;
}

const struct family *model_family_find(const char *model_type)
{
    for (size_t i = 0; i < COUNT(families); i++)
        for (size_t t = 0; t < COUNT(families[i]->model_types) && families[i]->model_types[t]; t++)
            if (strcmp(families[i]->model_types[t], model_type) == 0)
                return families[i];
    return NULL;
}

const char *model_type_nearest(const char *model_type)
{
    const char *best = NULL;
    int least = INT_MAX;

    for (size_t i = 0; i < COUNT(families); i++) {
        for (size_t t = 0; t < COUNT(families[i]->model_types) && families[i]->model_types[t];
             t++) {
            int d = edit_distance(model_type, families[i]->model_types[t]);

            if (d < least) {
                least = d;
                best = families[i]->model_types[t];
            }
        }
    }
    return best && is_misspelling(least, best) ? best : NULL;
}
