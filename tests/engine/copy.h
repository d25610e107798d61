/* tests/engine/copy.h: copies of checkpoints with something changed, in the temporary folder. */
#ifndef COPY_H
#define COPY_H

#include "base/file.h"
#include "base/memory.h"
#include "base/temporary.h"

/* The name's file in a checkpoint as text (free). */
static inline char *copy_text(const char *from, const char *name)
{
    char path[4096];
    clm_error err = {0};
    size_t size;
    char *text;

    CHECK(file_join(path, sizeof path, from, name, &err) == 0, "%s", err.message);
    text = file_read(path, 1 << 20, &size, &err);
    CHECK(text, "%s", err.message);
    return text;
}

/* A new string with the first old replaced, which must be there. */
static inline char *copy_replace(const char *text, const char *old, const char *new)
{
    const char *at = strstr(text, old);
    char *out = malloc(strlen(text) + strlen(new) + 1);

    CHECK(at && out, "no \"%s\"", old);
    snprintf(out, strlen(text) + strlen(new) + 1, "%.*s%s%s", (int)(at - text), text, new,
             at + strlen(old));
    return out;
}

/* The file of a name in checkpoint from appears in the folder to of the temporary folder. */
static inline void copy_link(const char *from, const char *to, const char *name)
{
    char folder[4096], target[4400], link[2400];

    CHECK(realpath(from, folder), "no %s", from);
    snprintf(target, sizeof target, "%s/%s", folder, name);
    snprintf(link, sizeof link, "%s/%s", temporary_path(to), name);
    CHECK(symlink(target, link) == 0, "%s: cannot be made", link);
}

/* A one-file checkpoint in folder to, with the weights of from, and its config.json in which old is
 * replaced by new. */
static inline void copy_with_config(const char *from, const char *to, const char *old,
                                    const char *new)
{
    char name[300];
    char *text = copy_text(from, "config.json");
    char *changed = copy_replace(text, old, new);

    snprintf(name, sizeof name, "%s/config.json", to);
    temporary_write(name, changed);
    copy_link(from, to, "model.safetensors");
    free(changed);
    mem_free(text);
}

#endif
