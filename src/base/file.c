#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"

static int fail_errno(clm_error *err, const char *what, const char *path, int number)
{
    return fail(err, CLM_ERR_IO, "cannot %s %s: %s", what, path, strerror(number));
}

static void describe(struct file_identity *id, const struct stat *st)
{
    id->device = (uint64_t)st->st_dev;
    id->number = (uint64_t)st->st_ino;
    id->size = (int64_t)st->st_size;
    id->seconds = (int64_t)st->st_mtim.tv_sec;
    id->nanoseconds = st->st_mtim.tv_nsec;
}

int file_identify(struct file_identity *id, const char *path, clm_error *err)
{
    struct stat st;
    char full[PATH_MAX];

    *id = (struct file_identity){0};
    if (!realpath(path, full) || stat(full, &st))
        return fail_errno(err, "look at", path, errno);
    describe(id, &st);
    id->path = mem_strdup(full);
    return id->path ? 0 : fail(err, CLM_ERR_NOMEM, "no memory for the name %s", path);
}

int file_check(const struct file_identity *id, clm_error *err)
{
    struct file_identity now;
    struct stat st;

    if (stat(id->path, &st))
        return 0;
    describe(&now, &st);
    if (now.device != id->device || now.number != id->number ||
        (now.size == id->size &&
         (id->at_any_time || (now.seconds == id->seconds && now.nanoseconds == id->nanoseconds))))
        return 0;
    return fail(err, CLM_ERR_IO, "%s was written to while it was in use: load it again", id->path);
}

void file_identity_release(struct file_identity *id)
{
    mem_free(id->path);
    *id = (struct file_identity){0};
}

/* tmpfs, ramfs and hugetlbfs, by the numbers of linux/magic.h. */
static bool lies_in_memory(int fd)
{
    struct statfs fs;

    if (fstatfs(fd, &fs))
        return false;
    return (uint32_t)fs.f_type == 0x01021994 || (uint32_t)fs.f_type == 0x858458f6 ||
           (uint32_t)fs.f_type == 0x958458f6;
}

int file_map(struct file_map *map, const char *path, clm_error *err)
{
    struct stat st;
    void *data;
    int rc = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not make it wait */

    *map = (struct file_map){0};
    if (fd < 0)
        return fail_errno(err, "open", path, errno);
    if (fstat(fd, &st)) {
        fail_errno(err, "look at", path, errno);
        goto cleanup;
    }
    if (!S_ISREG(st.st_mode)) {
        fail(err, CLM_ERR_IO, "cannot map %s: it is %s, not a file", path,
             S_ISDIR(st.st_mode) ? "a directory" : "a pipe or device");
        goto cleanup;
    }
    rc = 0;
    if (st.st_size == 0)
        goto cleanup;
    data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        rc = fail_errno(err, "map", path, errno);
        goto cleanup;
    }
    map->data = data;
    map->size = (size_t)st.st_size;
    map->in_memory = lies_in_memory(fd);

cleanup:
    close(fd);
    return rc;
}

void file_unmap(struct file_map *map)
{
    if (map->data)
        munmap((void *)map->data, map->size);
    *map = (struct file_map){0};
}

/* Reads until size bytes are there or the file ends; the number of bytes, or -1 with errno. */
static ssize_t read_full(int fd, char *out, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = read(fd, out + done, size - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

/* Reads fd to its end, in growing pieces: what fstat says of a pipe or of /proc is no size. */
static char *read_all(int fd, const char *path, size_t first, size_t max, size_t *size,
                      clm_error *err)
{
    size_t capacity = first < max ? first : max;
    char *data = NULL;
    size_t n = 0;

    for (;;) {
        char *grown = capacity < SIZE_MAX - 1 ? mem_resize(data, capacity + 2) : NULL;
        ssize_t got;

        if (!grown) {
            fail(err, CLM_ERR_NOMEM, "no memory to read %s: %zu bytes", path, capacity);
            break;
        }
        data = grown;
        got = read_full(fd, data + n, capacity + 1 - n); /* one more than wanted: is it the end? */
        if (got < 0) {
            fail_errno(err, "read", path, errno);
            break;
        }
        n += (size_t)got;
        if (n > max) {
            fail(err, CLM_ERR_FORMAT, "%s is larger than %zu bytes, the most that is read", path,
                 max);
            break;
        }
        if (n <= capacity) {
            data[n] = '\0';
            *size = n;
            return data;
        }
        capacity = capacity > max / 2 ? max : capacity * 2;
    }
    mem_free(data);
    return NULL;
}

char *file_read(const char *path, size_t max, size_t *size, clm_error *err)
{
    struct stat st;
    char *data = NULL;
    size_t first = 4096;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        fail_errno(err, "open", path, errno);
        return NULL;
    }
    if (fstat(fd, &st))
        fail_errno(err, "look at", path, errno);
    else if (S_ISDIR(st.st_mode))
        fail(err, CLM_ERR_IO, "cannot read %s: it is a directory, not a file", path);
    else {
        if (S_ISREG(st.st_mode) && st.st_size > 0)
            first = (size_t)st.st_size;
        data = read_all(fd, path, first, max, size, err);
    }
    close(fd);
    return data;
}

bool file_exists(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0;
}

bool file_is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

void file_make_folders(char *path)
{
    for (char *slash = strchr(path + !!*path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
}

int file_join(char *out, size_t size, const char *folder, const char *name, clm_error *err)
{
    size_t length = strlen(folder);
    const char *slash = length && folder[length - 1] != '/' ? "/" : "";
    int n = snprintf(out, size, "%s%s%s", folder, slash, name);

    if (n < 0 || (size_t)n >= size)
        return fail(err, CLM_ERR_ARG, "the path %s%s%s is longer than %zu bytes", folder, slash,
                    name, size ? size - 1 : 0);
    return 0;
}

struct file_writer {
    int fd;
    bool failed;
    char *path;
    char *temporary; /* NULL: it is no file of its own */
};

static void writer_free(file_writer *w)
{
    if (w->fd >= 0)
        close(w->fd);
    mem_free(w->path);
    mem_free(w->temporary);
    mem_free(w);
}

/* The folder of a path in out; whether it fits. */
static bool folder_of(char *out, size_t size, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = !slash ? 1 : slash == path ? 1 : (size_t)(slash - path);

    if (n >= size)
        return false;
    memcpy(out, slash ? path : ".", n);
    out[n] = '\0';
    return true;
}

/* Whether a file's name is one that create_temporary makes for a name. */
static bool is_temporary_of(const char *file, const char *name)
{
    size_t n = strlen(name);

    if (strncmp(file, name, n) != 0 || file[n] != '.')
        return false;
    n += 1 + strspn(file + n + 1, "0123456789-");
    return strcmp(file + n, ".tmp") == 0;
}

/* Removes a temporary file that no one is writing: its lock can be had. */
static void remove_stale(int folder, const char *name)
{
    struct stat st;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0)
        return;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode) && !flock(fd, LOCK_EX | LOCK_NB))
        unlinkat(folder, name, 0);
    close(fd);
}

/* Writers of the same path that were killed have left theirs. */
static void remove_all_stale(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char folder[4096];
    struct dirent *entry;
    DIR *dir = folder_of(folder, sizeof folder, path) ? opendir(folder) : NULL;

    if (!dir)
        return;
    while ((entry = readdir(dir)))
        if (is_temporary_of(entry->d_name, name))
            remove_stale(dirfd(dir), entry->d_name);
    closedir(dir);
}

/* Locks what was just created until it is closed, so that no one takes it for stale; false when
 * someone has done so before. File systems that cannot lock let no one else lock either. */
static bool hold_temporary(int fd)
{
    struct stat st;

    while (flock(fd, LOCK_EX) && errno == EINTR)
        ;
    return fstat(fd, &st) || st.st_nlink > 0;
}

/* Creates the temporary file, with a name that no other writer has. */
static int create_temporary(file_writer *w, clm_error *err)
{
    size_t size = strlen(w->path) + 48;
    struct timespec now;

    w->temporary = mem_alloc(size);
    if (!w->temporary)
        return fail(err, CLM_ERR_NOMEM, "no memory to write %s", w->path);
    for (int attempt = 0; attempt < 100; attempt++) {
        clock_gettime(CLOCK_REALTIME, &now);
        snprintf(w->temporary, size, "%s.%ld-%09ld%02d.tmp", w->path, (long)getpid(), now.tv_nsec,
                 attempt);
        w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd < 0 && errno != EEXIST)
            break;
        if (w->fd >= 0 && hold_temporary(w->fd))
            return 0;
        if (w->fd >= 0)
            close(w->fd);
        w->fd = -1;
        errno = EEXIST;
    }
    return fail_errno(err, "create a file to write", w->path, errno);
}

/* What a path leads to, behind links, and what is there (none: st_mode 0); a link to nothing is
 * taken for a name without a file. */
static char *writer_target(const char *path, struct stat *there, clm_error *err)
{
    char full[PATH_MAX];
    char *target;

    *there = (struct stat){0};
    if (!*path)
        return fail_null(err, CLM_ERR_ARG, "the name of a file to write is empty");
    if (stat(path, there))
        *there = (struct stat){0};
    else if (!S_ISREG(there->st_mode))
        return fail_null(err, CLM_ERR_IO, "cannot write %s: it is %s, not a file", path,
                         S_ISDIR(there->st_mode) ? "a directory" : "a pipe or device");
    else if (!realpath(path, full)) /* /dev/stdout may lead to a file that was removed */
        return fail_null(err, CLM_ERR_IO, "cannot write %s: the file has no name", path);
    target = mem_strdup(there->st_mode ? full : path);
    return target ? target : fail_null(err, CLM_ERR_NOMEM, "no memory to write %s", path);
}

file_writer *file_writer_open(const char *path, clm_error *err)
{
    struct stat there;
    char *target = writer_target(path, &there, err);
    file_writer *w = target ? mem_zeroed(1, sizeof *w) : NULL;

    if (!w) {
        mem_free(target);
        return fail_null(err, CLM_ERR_NOMEM, "no memory to write %s", path);
    }
    w->fd = -1;
    w->path = target;
    remove_all_stale(target);
    if (create_temporary(w, err)) {
        writer_free(w);
        return NULL;
    }
    if (there.st_mode)
        (void)fchmod(w->fd, there.st_mode & 0777); /* some file systems have no permissions */
    return w;
}

file_writer *file_writer_open_own(const char *path, clm_error *err)
{
    file_writer *w = file_writer_open(path, err);

    if (w)
        (void)fchmod(w->fd, 0600);
    return w;
}

file_writer *file_writer_open_standard(clm_error *err)
{
    file_writer *w = mem_zeroed(1, sizeof *w);

    if (!w)
        return fail_null(err, CLM_ERR_NOMEM, "no memory to write standard output");
    w->path = mem_strdup("standard output");
    w->fd = w->path ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3) : -1;
    if (w->fd >= 0)
        return w;
    fail_errno(err, "write", "standard output", errno);
    writer_free(w);
    return NULL;
}

int file_writer_write(file_writer *w, const void *data, size_t size, clm_error *err)
{
    const char *p = data;

    if (w->failed)
        return fail(err, CLM_ERR_IO, "cannot write %s: an earlier write failed", w->path);
    while (size) {
        ssize_t n = write(w->fd, p, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            w->failed = true;
            return fail_errno(err, "write", w->path, errno);
        }
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

/* Makes the new name itself durable. Some file systems cannot; the file is whole in any case. */
static void sync_folder(const char *path)
{
    char folder[4096];
    int fd;

    if (!folder_of(folder, sizeof folder, path))
        return;
    fd = open(folder, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

static int commit(file_writer *w, bool durable, clm_error *err)
{
    int rc = -1;

    if (w->failed) {
        fail(err, CLM_ERR_IO, "cannot write %s: an earlier write failed", w->path);
        goto cleanup;
    }
    if (!w->temporary) {
        writer_free(w);
        return 0;
    }
    if (durable && fsync(w->fd)) {
        fail_errno(err, "write", w->path, errno);
        goto cleanup;
    }
    /* Before it is closed, which ends its lock; fsync has told all that close could. */
    if (rename(w->temporary, w->path)) {
        fail_errno(err, "put in place", w->path, errno);
        goto cleanup;
    }
    if (durable)
        sync_folder(w->path);
    rc = 0;

cleanup:
    if (rc)
        file_writer_abort(w);
    else
        writer_free(w);
    return rc;
}

int file_writer_commit(file_writer *w, clm_error *err)
{
    return commit(w, true, err);
}

int file_writer_commit_soon(file_writer *w, clm_error *err)
{
    return commit(w, false, err);
}

void file_writer_abort(file_writer *w)
{
    if (!w)
        return;
    if (w->temporary)
        unlink(w->temporary);
    writer_free(w);
}

int file_writer_try(const char *path, clm_error *err)
{
    file_writer *w = file_writer_open(path, err);

    file_writer_abort(w);
    return w ? 0 : -1;
}
