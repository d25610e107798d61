#include "format/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "format/checkpoint_index.h"
#include "format/safetensors.h"

#define INDEX_NAME "model.safetensors.index.json"

struct checkpoint {
    struct safetensors *files;
    size_t n_files;                    /* those that are open */
    struct checkpoint_tensor *tensors; /* in order of name */
    size_t n_tensors;
    size_t n_bytes;
};

/* A checkpoint in the making. */
struct opening {
    checkpoint *c;
    const char *folder;
    const struct log *log;
    clm_error *err;
};

static int reserve_files(struct opening *o, size_t n)
{
    o->c->files = mem_zeroed(n, sizeof *o->c->files);
    return o->c->files ? 0 : fail(o->err, CLM_ERR_NOMEM, "no memory to open %zu files", n);
}

static int open_file(struct opening *o, const char *path)
{
    if (safetensors_open(&o->c->files[o->c->n_files], path, o->err))
        return -1;
    o->c->n_files++;
    return 0;
}

static int open_in_folder(struct opening *o, const char *name)
{
    char path[PATH_MAX];

    if (file_join(path, sizeof path, o->folder, name, o->err))
        return -1;
    return open_file(o, path);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct checkpoint_tensor *)a)->name,
                  ((const struct checkpoint_tensor *)b)->name);
}

/* One table of all tensors. */
static int collect(struct opening *o, const char *path)
{
    checkpoint *c = o->c;
    size_t n = 0;

    for (size_t f = 0; f < c->n_files; f++)
        c->n_tensors += c->files[f].n_tensors;
    if (!c->n_tensors)
        return fail(o->err, CLM_ERR_FORMAT, "%s: no tensor in it", path);
    c->tensors = mem_zeroed(c->n_tensors, sizeof *c->tensors);
    if (!c->tensors)
        return fail(o->err, CLM_ERR_NOMEM, "%s: no memory for %zu tensors", path, c->n_tensors);
    for (size_t f = 0; f < c->n_files; f++) {
        memcpy(c->tensors + n, c->files[f].tensors, c->files[f].n_tensors * sizeof *c->tensors);
        n += c->files[f].n_tensors;
    }
    qsort(c->tensors, c->n_tensors, sizeof *c->tensors, by_name);
    for (size_t i = 0; i < c->n_tensors; i++) {
        if (i && !by_name(&c->tensors[i - 1], &c->tensors[i]))
            return fail(o->err, CLM_ERR_FORMAT, "%s: tensor \"%.120s\" is in two of the files",
                        path, c->tensors[i].name);
        c->n_bytes += c->tensors[i].size; /* parts of mapped files: cannot overflow */
    }
    return 0;
}

static bool holds(const struct safetensors *file, const struct checkpoint_tensor *t)
{
    const uint8_t *data = t->data;

    return data >= file->map.data && data + t->size <= file->map.data + file->map.size;
}

/* What the index lists lies in the shard where it says. */
static int check_index(struct opening *o, const struct checkpoint_index *index, const char *path)
{
    const checkpoint *c = o->c;

    for (size_t i = 0; i < index->n_entries; i++) {
        const char *tensor = index->entries[i].tensor;
        const char *shard = index->shards[index->entries[i].shard];
        const struct checkpoint_tensor *t = checkpoint_find(c, tensor);

        if (!t || !holds(&c->files[index->entries[i].shard], t))
            return fail(o->err, CLM_ERR_FORMAT,
                        "%s: tensor \"%.120s\" is listed as in %s, which does not hold it", path,
                        tensor, shard);
    }
    if (c->n_tensors > index->n_entries)
        log_say(o->log, LOG_WARNING, "%s: %zu tensors of the shards are not listed; they count too",
                path, c->n_tensors - index->n_entries);
    return 0;
}

/* All shards are looked for before any is opened: the message can say how many are missing. */
static int check_shards(struct opening *o, const struct checkpoint_index *index, const char *path)
{
    const char *missing = NULL;
    size_t n_missing = 0;

    for (size_t i = 0; i < index->n_shards; i++) {
        char shard[PATH_MAX];

        if (file_join(shard, sizeof shard, o->folder, index->shards[i], o->err))
            return -1;
        if (!file_exists(shard)) {
            n_missing++;
            missing = missing ? missing : index->shards[i];
        }
    }
    if (!n_missing)
        return 0;
    return fail(o->err, CLM_ERR_IO,
                "%s: %zu of %zu shards are missing, the first is %s; get the rest of the model",
                path, n_missing, index->n_shards, missing);
}

static int open_sharded(struct opening *o, const char *path)
{
    struct checkpoint_index index = {0};
    struct file_map map = {0};
    int rc = -1;

    if (file_map(&map, path, o->err) ||
        checkpoint_index_parse(&index, (const char *)map.data, map.size, path, o->err) ||
        check_shards(o, &index, path) || reserve_files(o, index.n_shards))
        goto cleanup;
    for (size_t i = 0; i < index.n_shards; i++)
        if (open_in_folder(o, index.shards[i]))
            goto cleanup;
    if (!collect(o, o->folder))
        rc = check_index(o, &index, path);

cleanup:
    checkpoint_index_close(&index);
    file_unmap(&map);
    return rc;
}

/* mlx-lm takes all of "model*.safetensors", and "weight*.safetensors" in older conversions. */
static bool has_weights_name(const char *name, const char *prefix)
{
    static const char suffix[] = ".safetensors";
    size_t n = strlen(name);

    return n >= strlen(prefix) + sizeof suffix - 1 && !strncmp(name, prefix, strlen(prefix)) &&
           !strcmp(name + n - (sizeof suffix - 1), suffix);
}

struct names {
    char **items;
    size_t n;
};

static void names_release(struct names *names)
{
    for (size_t i = 0; i < names->n; i++)
        mem_free(names->items[i]);
    mem_free(names->items);
}

static int names_add(struct names *names, const char *name, clm_error *err)
{
    char **grown = mem_resize(names->items, (names->n + 1) * sizeof *grown);

    if (grown)
        names->items = grown;
    if (!grown || !(grown[names->n] = mem_strdup(name)))
        return fail(err, CLM_ERR_NOMEM, "no memory for the names of %zu files", names->n + 1);
    names->n++;
    return 0;
}

static int by_string(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Files of the folder whose names begin with prefix, in order of name. */
static int list_weights(struct opening *o, const char *prefix, struct names *names)
{
    DIR *dir = opendir(o->folder);
    struct dirent *entry;
    int rc = 0;

    if (!dir)
        return fail(o->err, CLM_ERR_IO, "cannot open %s: %s", o->folder, strerror(errno));
    while (!rc && (entry = readdir(dir)))
        if (has_weights_name(entry->d_name, prefix))
            rc = names_add(names, entry->d_name, o->err);
    closedir(dir);
    if (!rc && names->n)
        qsort(names->items, names->n, sizeof *names->items, by_string);
    return rc;
}

/* "...-of-00005.safetensors" among less or more than 5 files: without an index, the only sign. */
static int check_complete(struct opening *o, const struct names *names)
{
    for (size_t i = 0; i < names->n; i++) {
        const char *of = strstr(names->items[i], "-of-");
        char *end = NULL;
        unsigned long n = of ? strtoul(of + 4, &end, 10) : 0;

        if (of && end != of + 4 && !strcmp(end, ".safetensors") && n != names->n)
            return fail(o->err, CLM_ERR_IO,
                        "%s: %s is one of %lu shards, but there are %zu and no " INDEX_NAME
                        "; get the rest of the model",
                        o->folder, names->items[i], n, names->n);
    }
    return 0;
}

static int no_weights(struct opening *o)
{
    static const char *const pickled[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                          "consolidated.00.pth"};
    char path[4096];

    for (size_t i = 0; i < COUNT(pickled); i++)
        if (file_join(path, sizeof path, o->folder, pickled[i], NULL) == 0 && file_exists(path))
            return fail(o->err, CLM_ERR_UNSUPPORTED,
                        "%s: PyTorch's own files, which may run code, are not read; get the model "
                        "as safetensors, or save it so with transformers",
                        path);
    return fail(
        o->err, CLM_ERR_IO,
        "%s: no weights there: neither model.safetensors nor " INDEX_NAME
        " nor model*.safetensors%s",
        o->folder,
        strstr(o->folder, "/snapshots/") ? "; the download was not ended, repeat hf download" : "");
}

static int open_listed(struct opening *o)
{
    static const char *const prefixes[] = {"model", "weight"};
    struct names names = {0};
    int rc = 0;

    for (size_t i = 0; i < COUNT(prefixes) && !rc && !names.n; i++)
        rc = list_weights(o, prefixes[i], &names);
    if (!rc && !names.n)
        rc = no_weights(o);
    if (!rc)
        rc = check_complete(o, &names);
    if (!rc)
        rc = reserve_files(o, names.n);
    for (size_t i = 0; i < names.n && !rc; i++)
        rc = open_in_folder(o, names.items[i]);
    names_release(&names);
    return rc ? rc : collect(o, o->folder);
}

static int open_single(struct opening *o, const char *path)
{
    if (reserve_files(o, 1) || open_file(o, path))
        return -1;
    return collect(o, path);
}

static int open_path(struct opening *o, const char *path)
{
    char inner[PATH_MAX];

    if (!file_exists(path))
        return fail(o->err, CLM_ERR_IO, "%s: there is no such file or folder", path);
    if (!file_is_dir(path))
        return open_single(o, path);
    o->folder = path;
    if (file_join(inner, sizeof inner, path, "model.safetensors", o->err))
        return -1;
    if (file_exists(inner))
        return open_single(o, inner);
    if (file_join(inner, sizeof inner, path, INDEX_NAME, o->err))
        return -1;
    return file_exists(inner) ? open_sharded(o, inner) : open_listed(o);
}

checkpoint *checkpoint_open(const char *path, const struct log *log, clm_error *err)
{
    struct opening o = {.log = log, .err = err};

    o.c = mem_zeroed(1, sizeof *o.c);
    if (!o.c)
        return fail_null(err, CLM_ERR_NOMEM, "no memory to open %s", path);
    if (open_path(&o, path)) {
        checkpoint_close(o.c);
        return NULL;
    }
    return o.c;
}

void checkpoint_close(checkpoint *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_files; i++)
        safetensors_close(&c->files[i]);
    mem_free(c->files);
    mem_free(c->tensors);
    mem_free(c);
}

size_t checkpoint_count(const checkpoint *c)
{
    return c->n_tensors;
}

const struct checkpoint_tensor *checkpoint_at(const checkpoint *c, size_t i)
{
    return &c->tensors[i];
}

const struct checkpoint_tensor *checkpoint_find(const checkpoint *c, const char *name)
{
    struct checkpoint_tensor key = {.name = name};

    return bsearch(&key, c->tensors, c->n_tensors, sizeof *c->tensors, by_name);
}

const char *checkpoint_metadata(const checkpoint *c, const char *key)
{
    for (size_t f = 0; f < c->n_files; f++)
        for (size_t i = 0; i < c->files[f].n_metadata; i++)
            if (!strcmp(c->files[f].metadata[2 * i], key))
                return c->files[f].metadata[2 * i + 1];
    return NULL;
}

bool checkpoint_on_disk(const checkpoint *c)
{
    for (size_t i = 0; i < c->n_files; i++)
        if (!c->files[i].map.in_memory)
            return true;
    return false;
}

size_t checkpoint_bytes(const checkpoint *c)
{
    return c->n_bytes;
}
