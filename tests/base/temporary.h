/* tests/base/temporary.h: a folder for one test program's files, removed at the end. */
#ifndef TEMPORARY_H
#define TEMPORARY_H

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "testing.h"

static char temporary_folder[1024];

/* The path of a name in the folder; valid until the fourth call after this one. */
static inline const char *temporary_path(const char *name)
{
    static char paths[4][2048];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", temporary_folder, name);
    return path;
}

/* Writes a file and the folders above it. */
static inline void temporary_write(const char *name, const char *text)
{
    char path[2048];
    FILE *f;

    snprintf(path, sizeof path, "%s", temporary_path(name));
    for (char *slash = path + strlen(temporary_folder) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0777);
        *slash = '/';
    }
    f = fopen(path, "wb");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0, "cannot write %s", path);
}

static inline int temporary_remove_one(const char *path, const struct stat *st, int kind,
                                       struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

/* Empties the folder. */
static inline void temporary_clear(void)
{
    nftw(temporary_folder, temporary_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    mkdir(temporary_folder, 0777);
}

/* Files and folders in it. */
static inline int temporary_count(void)
{
    DIR *folder = opendir(temporary_folder);
    struct dirent *entry;
    int n = 0;

    while ((entry = readdir(folder)))
        n += entry->d_name[0] != '.';
    closedir(folder);
    return n;
}

static inline int temporary_setup(void **state)
{
    const char *base = getenv("TMPDIR");

    (void)state;
    snprintf(temporary_folder, sizeof temporary_folder, "%s/clm-XXXXXX", base ? base : "/tmp");
    return mkdtemp(temporary_folder) ? 0 : -1;
}

static inline int temporary_teardown(void **state)
{
    (void)state;
    return nftw(temporary_folder, temporary_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
