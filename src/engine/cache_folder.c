#include "engine/cache_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "engine/cache_file.h"

enum {
    DIGITS = FINGERPRINT_SIZE - 1,
    SETTLED_SECONDS = 2,     /* what changes later than this has another time of change */
    ABANDONED_SECONDS = 3600 /* a file that no one has gone on writing for so long */
};

#define PREFIX "clm-"
#define SUFFIX ".safetensors"
#define TEMPORARY ".tmp"

struct cache_folder {
    engine *engine;
    char *path;
    size_t max_bytes; /* SIZE_MAX: no bound */
    char identity[FINGERPRINT_SIZE];
    struct folder_file **files; /* [n_files], the first n_sorted in order of their names */
    size_t n_files, n_sorted, capacity;
    struct timespec changed; /* the folder, when it was last looked at */
    bool settled;            /* a change since then has changed that time */
};

/* Opening */

/* What makes a cache good for another engine: the model, and how numbers come about and are kept.
 */
static int identify(struct cache_folder *f, clm_error *err)
{
    const kv_cache *c = engine_cache(f->engine);
    const struct model *m = engine_model(f->engine);
    char model[FINGERPRINT_SIZE];
    struct fingerprint print = {0};
    int exact = engine_is_exact(f->engine);

    if (model_fingerprint(m, model, err))
        return -1;
    if (!model[0])
        return fail(err, CLM_ERR_ARG,
                    "a folder of prompt caches for random weights, which no other run has");
    fingerprint_add(&print, model, sizeof model);
    fingerprint_add(&print, &exact, sizeof exact);
    for (int i = 0; i < m->nn->n_cache_layers; i++) {
        const struct kv_layer *l = kv_cache_layer(c, i);
        int kind[] = {l->type, l->bits, l->group_size, l->split, l->n_first, l->n_last};

        fingerprint_add(&print, kind, sizeof kind);
    }
    fingerprint_text(&print, f->identity);
    return 0;
}

cache_folder *cache_folder_open(engine *e, const char *path, size_t max_bytes, clm_error *err)
{
    cache_folder *f = mem_zeroed(1, sizeof *f);

    if (!f)
        return fail_null(err, CLM_ERR_NOMEM, "%s: no memory for a folder of prompt caches", path);
    f->engine = e;
    f->max_bytes = max_bytes ? max_bytes : SIZE_MAX;
    f->path = mem_strdup(path);
    if (!f->path)
        fail(err, CLM_ERR_NOMEM, "%s: no memory for a folder of prompt caches", path);
    else if (mkdir(path, 0777) && errno != EEXIST)
        fail(err, CLM_ERR_IO, "cannot make the folder %s: %s", path, strerror(errno));
    else if (!file_is_dir(path))
        fail(err, CLM_ERR_IO, "%s is not a folder: name one for prompt caches", path);
    else if (!identify(f, err))
        return f;
    cache_folder_close(f);
    return NULL;
}

void cache_folder_close(cache_folder *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->n_files; i++)
        mem_free(f->files[i]);
    mem_free(f->files);
    mem_free(f->path);
    mem_free(f);
}

/* Names */

static bool is_digits(const char *s)
{
    return strspn(s, "0123456789abcdef") == DIGITS;
}

/* Is it the name of a prompt cache, with nothing or more behind it? */
static const char *name_end(const char *name)
{
    const char *at = name + strlen(PREFIX);

    if (strncmp(name, PREFIX, strlen(PREFIX)) || !is_digits(at) || at[DIGITS] != '-' ||
        !is_digits(at + DIGITS + 1))
        return NULL;
    at += 2 * DIGITS + 1;
    return strncmp(at, SUFFIX, strlen(SUFFIX)) ? NULL : at + strlen(SUFFIX);
}

static bool is_cache(const char *name)
{
    const char *end = name_end(name);

    return end && !*end;
}

/* One that is being written, or was when its writer died. */
static bool is_temporary(const char *name)
{
    const char *end = name_end(name);
    size_t n = end ? strlen(end) : 0;

    return n > strlen(TEMPORARY) && !strcmp(end + n - strlen(TEMPORARY), TEMPORARY);
}

static bool is_own(const struct cache_folder *f, const char *name)
{
    return is_cache(name) && !memcmp(name + strlen(PREFIX), f->identity, DIGITS);
}

static void name_file(const struct cache_folder *f, const int32_t *tokens, int n, char out[64])
{
    struct fingerprint print = {0};
    char digits[FINGERPRINT_SIZE];

    fingerprint_add(&print, tokens, (size_t)n * sizeof *tokens);
    fingerprint_text(&print, digits);
    snprintf(out, 64, PREFIX "%s-%s" SUFFIX, f->identity, digits);
}

static bool path_of(const struct cache_folder *f, const char *name, char out[4096])
{
    return !file_join(out, 4096, f->path, name, NULL);
}

/* What is known of the folder */

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct folder_file *const *)a)->name, (*(struct folder_file *const *)b)->name);
}

static struct folder_file *find_file(const struct cache_folder *f, const char *name)
{
    struct folder_file key, *wanted = &key, **found;

    snprintf(key.name, sizeof key.name, "%.63s", name);
    if (!f->n_sorted)
        return NULL;
    found = bsearch(&wanted, f->files, f->n_sorted, sizeof *f->files, by_name);
    return found ? *found : NULL;
}

static void sort_files(struct cache_folder *f)
{
    if (f->n_files)
        qsort(f->files, f->n_files, sizeof *f->files, by_name);
    f->n_sorted = f->n_files;
}

/* Behind the sorted ones; NULL: no memory. */
static struct folder_file *add_file(struct cache_folder *f, const char *name)
{
    struct folder_file *file;
    void *files = mem_grow(f->files, &f->capacity, f->n_files + 1, sizeof(struct folder_file *));

    if (!files)
        return NULL;
    f->files = files;
    file = mem_zeroed(1, sizeof *file);
    if (!file)
        return NULL;
    snprintf(file->name, sizeof file->name, "%.63s", name);
    f->files[f->n_files++] = file;
    return file;
}

static void drop_gone(struct cache_folder *f, const struct folder_watch *w)
{
    size_t kept = 0;

    for (size_t i = 0; i < f->n_files; i++) {
        struct folder_file *file = f->files[i];

        if (file->seen) {
            f->files[kept++] = file;
            continue;
        }
        if (file->owner)
            w->gone(w->ctx, file->owner);
        mem_free(file);
    }
    f->n_files = kept;
}

/* One of another name than its tokens have is not used. */
static void open_file(struct cache_folder *f, struct folder_file *file,
                      const struct folder_watch *w)
{
    char path[4096], name[64];
    int32_t *tokens;
    int n;

    if (!path_of(f, file->name, path))
        return;
    tokens = cache_file_tokens(f->engine, path, &n, NULL);
    if (!tokens)
        return;
    name_file(f, tokens, n, name);
    if (!strcmp(name, file->name))
        file->owner = w->found(w->ctx, file, tokens, n);
    mem_free(tokens);
}

static void meet_file(struct cache_folder *f, const char *name, const struct folder_watch *w)
{
    struct folder_file *file = find_file(f, name);

    if (!file) {
        file = add_file(f, name);
        if (file)
            open_file(f, file, w);
    }
    if (file)
        file->seen = true;
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

void cache_folder_look(cache_folder *f, const struct folder_watch *w)
{
    const struct dirent *entry;
    struct stat st;
    DIR *folder;

    if (stat(f->path, &st) || (f->settled && same_time(st.st_mtim, f->changed)))
        return;
    folder = opendir(f->path);
    if (!folder)
        return;
    f->changed = st.st_mtim;
    f->settled = time(NULL) > st.st_mtim.tv_sec + SETTLED_SECONDS;
    for (size_t i = 0; i < f->n_files; i++)
        f->files[i]->seen = false;
    while ((entry = readdir(folder)))
        if (is_own(f, entry->d_name))
            meet_file(f, entry->d_name, w);
    closedir(folder);
    drop_gone(f, w);
    sort_files(f);
}

/* Room */

struct stored {
    char name[256];
    size_t bytes;
    struct timespec used;
};

struct stock {
    struct stored *files; /* [n] */
    size_t n, capacity, bytes;
};

/* False: no memory. */
static bool stock_add(struct stock *s, const char *name, const struct stat *st)
{
    struct stored *file = mem_grow(s->files, &s->capacity, s->n + 1, sizeof *file);

    if (!file)
        return false;
    s->files = file;
    file += s->n++;
    snprintf(file->name, sizeof file->name, "%s", name);
    file->bytes = (size_t)st->st_size;
    file->used = st->st_mtim;
    s->bytes += file->bytes;
    return true;
}

/* All caches, of whatever model. What dead writers have left goes. */
static bool take_stock(const struct cache_folder *f, struct stock *s)
{
    DIR *folder = opendir(f->path);
    const struct dirent *entry;
    time_t now = time(NULL);
    bool complete = folder;

    while (complete && (entry = readdir(folder))) {
        char path[4096];
        struct stat st;

        if (!name_end(entry->d_name) || !path_of(f, entry->d_name, path) || lstat(path, &st) ||
            !S_ISREG(st.st_mode))
            continue;
        if (is_temporary(entry->d_name) && now > st.st_mtim.tv_sec + ABANDONED_SECONDS)
            unlink(path);
        else if (is_cache(entry->d_name))
            complete = stock_add(s, entry->d_name, &st);
        else
            s->bytes += (size_t)st.st_size;
    }
    if (folder)
        closedir(folder);
    return complete;
}

static int by_use(const void *a, const void *b)
{
    const struct stored *x = a, *y = b;

    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    return (x->used.tv_nsec > y->used.tv_nsec) - (x->used.tv_nsec < y->used.tv_nsec);
}

/* Remove what was used longest ago, until bytes more fit. */
static void make_room(const struct cache_folder *f, size_t bytes)
{
    struct stock s = {0};
    char path[4096];

    if (f->max_bytes < SIZE_MAX && take_stock(f, &s)) {
        if (s.n)
            qsort(s.files, s.n, sizeof *s.files, by_use);
        for (size_t i = 0; i < s.n && s.bytes > f->max_bytes - bytes; i++)
            if (path_of(f, s.files[i].name, path) && !unlink(path))
                s.bytes -= s.files[i].bytes;
    }
    mem_free(s.files);
}

/* Files */

struct folder_file *cache_folder_save(cache_folder *f, const kv_seq *s, size_t bytes, void *owner,
                                      clm_error *err)
{
    struct folder_file *file;
    char name[64], path[4096];

    if (bytes > f->max_bytes)
        return fail_null(err, CLM_ERR_FULL,
                         "%s: a prompt cache of %zu bytes, where all may have %zu", f->path, bytes,
                         f->max_bytes);
    name_file(f, kv_seq_tokens(s), kv_seq_length(s), name);
    file = find_file(f, name);
    if (file && file->owner)
        return fail_null(err, CLM_ERR_ARG, "%s/%s: a file of other tokens", f->path, name);
    if (file_join(path, sizeof path, f->path, name, err))
        return NULL;
    make_room(f, bytes);
    if (cache_file_save(f->engine, s, path, NULL, err))
        return NULL;
    make_room(f, 0);
    if (!file) {
        file = add_file(f, name);
        sort_files(f);
    }
    if (!file)
        return fail_null(err, CLM_ERR_NOMEM, "%s: no memory for a prompt cache", f->path);
    file->owner = owner;
    return file;
}

kv_seq *cache_folder_load(cache_folder *f, const struct folder_file *file, clm_error *err)
{
    static const struct cache_origin origin = {.replaced_whole = true};
    char path[4096];
    kv_seq *s;

    if (file_join(path, sizeof path, f->path, file->name, err))
        return NULL;
    s = cache_file_load(f->engine, path, &origin, err);
    if (s)
        utimensat(AT_FDCWD, path, NULL, 0);
    return s;
}

void cache_folder_shun(struct folder_file *file)
{
    file->owner = NULL;
}

void cache_folder_remove(cache_folder *f, struct folder_file *file)
{
    char path[4096];
    size_t i = 0;

    if (path_of(f, file->name, path))
        unlink(path);
    while (f->files[i] != file)
        i++;
    memmove(f->files + i, f->files + i + 1, (f->n_files - i - 1) * sizeof(struct folder_file *));
    f->n_files--;
    f->n_sorted -= i < f->n_sorted;
    mem_free(file);
}
