/* tests/engine/cache_files.h: models of the goldens, their sequences saved and loaded. */
#ifndef CACHE_FILES_H
#define CACHE_FILES_H

#include "base/file.h"
#include "base/temporary.h"
#include "engine/cache_file.h"
#include "rig.h"

static const struct cache_origin origin = {
    .model = "a model", .tokenizer = "tokenizer 1", .chat_template = "template 1"};

static inline void open_rig(struct rig *r, const char *path, bool exact)
{
    clm_error err = {0};

    CHECK(rig_open(r, path, 1, exact, &err) == 0, "%s: %s", path, err.message);
}

static inline kv_seq *load(struct rig *r, const char *path)
{
    clm_error err = {0};
    kv_seq *s = cache_file_load(r->engine, path, &origin, &err);

    CHECK(s, "%s", err.message);
    return s;
}

static inline void save(struct rig *r, const kv_seq *s, const char *path)
{
    clm_error err = {0};

    CHECK(cache_file_save(r->engine, s, path, &origin, &err) == 0, "%s", err.message);
}

static inline bool same_file(const char *a, const char *b)
{
    struct file_map x, y;
    clm_error err = {0};
    bool same;

    CHECK(file_map(&x, a, &err) == 0 && file_map(&y, b, &err) == 0, "%s", err.message);
    same = x.size == y.size && !memcmp(x.data, y.data, x.size);
    file_unmap(&x);
    file_unmap(&y);
    return same;
}

/* Files are flushed to where they lie: let that be memory, where there is such a folder. */
static inline int cache_files_setup(void **state)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);
    return temporary_setup(state);
}

#endif
