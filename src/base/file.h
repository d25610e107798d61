/* base/file.h: files mapped for reading, and files written whole or not at all. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* A file mapped read-only and shared with other processes. An empty file has data NULL, size 0. */
struct file_map {
    const uint8_t *data;
    size_t size;
    bool in_memory; /* its file system has no disk behind it */
};

/* What a file was like at some time. */
struct file_identity {
    char *path; /* absolute */
    uint64_t device, number;
    int64_t size, seconds;
    long nanoseconds; /* of its last change */
    bool at_any_time; /* a file that differs in these alone is the same */
};

/* What path is like now, *id to be released; and whether the file that is there is still so:
 * CLM_ERR_IO where it has been written to or cut. None, or another one under this name, is fine,
 * for what has been mapped stays. */
int file_identify(struct file_identity *id, const char *path, clm_error *err);
int file_check(const struct file_identity *id, clm_error *err);
void file_identity_release(struct file_identity *id); /* a zeroed one is fine */

int file_map(struct file_map *map, const char *path, clm_error *err);
void file_unmap(struct file_map *map);

/* The whole file as a NUL-terminated string (mem_free), at most max bytes; *size without the NUL.
 */
char *file_read(const char *path, size_t max, size_t *size, clm_error *err);

bool file_exists(const char *path);
bool file_is_dir(const char *path);

/* Makes the folders above a path that are missing, for their user alone. */
void file_make_folders(char *path);

/* Joins a folder and a name into out; -1 with the error when it does not fit. */
int file_join(char *out, size_t size, const char *folder, const char *name, clm_error *err);

/**
 * A file that appears under its name only when it is complete: writes go to a temporary name
 * beside it; commit flushes to disk and renames, abort (or commit's failure) removes it. What a
 * killed writer of the same path has left is removed when the next one opens. A link stays, what
 * it leads to is written, with the permissions of the file whose place it takes. CLM_ERR_ARG: the
 * path is empty; CLM_ERR_IO: it is a folder, a pipe or a device.
 */
typedef struct file_writer file_writer;

file_writer *file_writer_open(const char *path, clm_error *err);
/* For its user alone, whatever was there. */
file_writer *file_writer_open_own(const char *path, clm_error *err);
/* Over standard output, in which there is no name to rename: what was written before a failure
 * stays there. */
file_writer *file_writer_open_standard(clm_error *err);
int file_writer_write(file_writer *w, const void *data, size_t size, clm_error *err);
int file_writer_commit(file_writer *w, clm_error *err); /* closes w in either case */
/* The same without waiting for the disk, for what can be checked and made again: after a failure
 * of power the file may be there and not be whole. */
int file_writer_commit_soon(file_writer *w, clm_error *err);
void file_writer_abort(file_writer *w); /* NULL is fine */

/* Could one be opened? To be asked before hours of work whose result is to be written. */
int file_writer_try(const char *path, clm_error *err);

#endif
