#include "format/hub.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"

#define MAX_NAME 128

static const char prefix[] = "models--";

static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

/* folder/below, or folder alone; "~/" at the beginning is $HOME, as huggingface_hub has it. */
static int expand(char *out, size_t size, const char *folder, const char *below, clm_error *err)
{
    const char *home =
        folder[0] == '~' && (folder[1] == '/' || !folder[1]) ? variable("HOME") : NULL;
    int n = snprintf(out, size, "%s%s%s%s", home ? home : "", home ? folder + 1 : folder,
                     below ? "/" : "", below ? below : "");

    return n < 0 || (size_t)n >= size
               ? fail(err, CLM_ERR_IO, "the path of the hub cache, %.60s..., is too long", folder)
               : 0;
}

int hub_cache(char *out, size_t size, clm_error *err)
{
    static const struct {
        const char *variable, *below;
    } places[] = {
        {"HF_HUB_CACHE", NULL},
        {"HUGGINGFACE_HUB_CACHE", NULL},
        {"HF_HOME", "hub"},
        {"XDG_CACHE_HOME", "huggingface/hub"},
        {"HOME", ".cache/huggingface/hub"},
    };

    for (size_t i = 0; i < COUNT(places); i++) {
        const char *folder = variable(places[i].variable);

        if (folder)
            return expand(out, size, folder, places[i].below, err);
    }
    return fail(err, CLM_ERR_IO, "no place for a hub cache: neither HF_HUB_CACHE nor HOME is set");
}

static bool is_name_part(const char *s, size_t n)
{
    if (n == 0 || s[0] == '.' || s[0] == '-')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", s[i]))
            return false;
    return true;
}

/* "model" or "org/model" [n] */
static bool is_plain_name(const char *name, size_t n)
{
    const char *slash = memchr(name, '/', n);
    size_t first = slash ? (size_t)(slash - name) : n;

    if (n > MAX_NAME || !is_name_part(name, first))
        return false;
    return !slash || is_name_part(slash + 1, n - first - 1);
}

/* What git allows a branch to be called, as far as it matters here: it stays below its folder. */
static bool is_revision(const char *s)
{
    if (strlen(s) > MAX_NAME)
        return false;
    for (;; s++) {
        size_t n = strcspn(s, "/");

        if (n == 0 || s[0] == '.')
            return false;
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)s[i] <= ' ' || s[i] == '\x7F' || s[i] == '\\')
                return false;
        s += n;
        if (!*s)
            return true;
    }
}

bool hub_is_name(const char *name)
{
    size_t n = strcspn(name, "@");

    return is_plain_name(name, n) && (!name[n] || is_revision(name + n + 1));
}

/* The cache's folder of a model [n]: "org/name" is "models--org--name". */
static int model_folder(char *out, size_t size, const char *cache, const char *name, size_t n,
                        clm_error *err)
{
    const char *slash = memchr(name, '/', n);
    int org = slash ? (int)(slash - name) : 0, all = (int)n;
    int w = slash ? snprintf(out, size, "%s/%s%.*s--%.*s", cache, prefix, org, name, all - org - 1,
                             slash + 1)
                  : snprintf(out, size, "%s/%s%.*s", cache, prefix, all, name);

    if (w < 0 || (size_t)w >= size)
        return fail(err, CLM_ERR_IO, "the path of %.*s in the hub cache is too long", all, name);
    return 0;
}

/* The commit that a branch or tag is at; false where refs has none that could be one. */
static bool read_ref(char out[65], const char *folder, const char *name)
{
    char refs[PATH_MAX], path[PATH_MAX];
    size_t size, n;
    char *text;

    if (file_join(refs, sizeof refs, folder, "refs", NULL) ||
        file_join(path, sizeof path, refs, name, NULL))
        return false;
    text = file_read(path, 4096, &size, NULL);
    if (!text)
        return false;
    n = strspn(text, "0123456789abcdefABCDEF");
    if (n > 0 && n <= 64 && text[n + strspn(text + n, " \r\n")] == '\0')
        snprintf(out, 65, "%.*s", (int)n, text);
    else
        n = 0;
    mem_free(text);
    return n > 0;
}

/* The most recently changed folder below snapshots; false when there is none. */
static bool newest_snapshot(char *out, size_t size, const char *snapshots)
{
    DIR *dir = opendir(snapshots);
    time_t newest = 0;
    bool found = false;

    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[PATH_MAX];
        struct stat st;

        if (e->d_name[0] == '.' || file_join(path, sizeof path, snapshots, e->d_name, NULL) ||
            stat(path, &st) || !S_ISDIR(st.st_mode) || (found && st.st_mtime <= newest))
            continue;
        newest = st.st_mtime;
        found = strlen(path) < size;
        if (found)
            memcpy(out, path, strlen(path) + 1);
    }
    if (dir)
        closedir(dir);
    return found;
}

static bool snapshot_of(char *out, size_t size, const char *snapshots, const char *commit)
{
    return !strchr(commit, '/') && file_join(out, size, snapshots, commit, NULL) == 0 &&
           file_is_dir(out);
}

/* The only snapshot whose commit begins so, as git shortens them; false where there are none or
 * several. */
static bool snapshot_begins(char *out, size_t size, const char *snapshots, const char *revision)
{
    size_t n = strlen(revision);
    DIR *dir = n >= 4 && strspn(revision, "0123456789abcdef") == n ? opendir(snapshots) : NULL;
    int found = 0;

    for (struct dirent *e; dir && (e = readdir(dir));)
        if (strncmp(e->d_name, revision, n) == 0 && snapshot_of(out, size, snapshots, e->d_name))
            found++;
    if (dir)
        closedir(dir);
    return found == 1;
}

/* NULL for revision is main, or the newest one where that is not there. */
static bool find_snapshot(char *out, size_t size, const char *folder, const char *revision)
{
    char snapshots[PATH_MAX], commit[65];

    if (file_join(snapshots, sizeof snapshots, folder, "snapshots", NULL))
        return false;
    if (read_ref(commit, folder, revision ? revision : "main") &&
        snapshot_of(out, size, snapshots, commit))
        return true;
    if (!revision)
        return newest_snapshot(out, size, snapshots);
    return snapshot_of(out, size, snapshots, revision) ||
           snapshot_begins(out, size, snapshots, revision);
}

int hub_find(char *out, size_t size, const char *name, clm_error *err)
{
    char cache[PATH_MAX], folder[PATH_MAX];
    size_t n = strcspn(name, "@");
    const char *revision = name[n] ? name + n + 1 : NULL;

    if (!hub_is_name(name))
        return fail(err, CLM_ERR_ARG, "%s is no name of a model on the hub", name);
    if (hub_cache(cache, sizeof cache, err) ||
        model_folder(folder, sizeof folder, cache, name, n, err))
        return -1;
    if (find_snapshot(out, size, folder, revision))
        return 0;
    return fail(err, CLM_ERR_IO, "%s the hub cache %s; get it with: hf download %.*s%s%s",
                revision && find_snapshot(out, size, folder, NULL) ? "only another revision is in"
                                                                   : "not in",
                cache, (int)n, name, revision ? " --revision " : "", revision ? revision : "");
}

static int is_model(const struct dirent *e)
{
    return strncmp(e->d_name, prefix, strlen(prefix)) == 0;
}

/* "models--org--name" as "org/name": the first "--" is the slash. */
static bool name_of(char *out, size_t size, const char *entry)
{
    const char *rest = entry + strlen(prefix), *dashes = strstr(rest, "--");
    int n = dashes ? snprintf(out, size, "%.*s/%s", (int)(dashes - rest), rest, dashes + 2)
                   : snprintf(out, size, "%s", rest);

    return n > 0 && (size_t)n < size && is_plain_name(out, (size_t)n);
}

/* What is called for each model. */
struct each {
    int (*fn)(void *ctx, const char *name, const char *dir);
    void *ctx;
};

static int is_visible(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

/* A branch or tag that is at this commit, or the commit itself. */
static void revision_of(char *out, size_t size, const char *folder, const char *commit)
{
    char refs[PATH_MAX], at[65];
    struct dirent **entries = NULL;
    int n = file_join(refs, sizeof refs, folder, "refs", NULL)
                ? 0
                : scandir(refs, &entries, is_visible, alphasort);

    snprintf(out, size, "%s", commit);
    for (int i = n - 1; i >= 0; i--) {
        const char *ref = entries[i]->d_name;

        if (is_revision(ref) && read_ref(at, folder, ref) && strcmp(at, commit) == 0)
            snprintf(out, size, "%s", ref);
        free(entries[i]);
    }
    free(entries);
}

/* All snapshots of a model but the one in dir. */
static int others(const struct each *each, const char *name, const char *folder, const char *dir)
{
    char snapshots[PATH_MAX], path[PATH_MAX], revision[NAME_MAX + 1], full[PATH_MAX];
    struct dirent **entries = NULL;
    int n, rc = 0;

    if (file_join(snapshots, sizeof snapshots, folder, "snapshots", NULL))
        return 0;
    n = scandir(snapshots, &entries, is_visible, alphasort);
    for (int i = 0; i < n; i++) {
        const char *commit = entries[i]->d_name;

        if (rc == 0 && snapshot_of(path, sizeof path, snapshots, commit) && strcmp(path, dir)) {
            revision_of(revision, sizeof revision, folder, commit);
            snprintf(full, sizeof full, "%s@%s", name, revision);
            rc = each->fn(each->ctx, full, path);
        }
        free(entries[i]);
    }
    free(entries);
    return rc;
}

static int each_of(const struct each *each, const char *name, const char *folder)
{
    char dir[PATH_MAX];
    int rc;

    if (!find_snapshot(dir, sizeof dir, folder, NULL))
        return 0;
    rc = each->fn(each->ctx, name, dir);
    return rc ? rc : others(each, name, folder, dir);
}

int hub_each(int (*fn)(void *ctx, const char *name, const char *dir), void *ctx, clm_error *err)
{
    struct each each = {fn, ctx};
    char cache[PATH_MAX];
    struct dirent **entries;
    int n, rc = 0;

    if (hub_cache(cache, sizeof cache, err))
        return -1;
    n = scandir(cache, &entries, is_model, alphasort);
    if (n < 0)
        return 0;
    for (int i = 0; i < n; i++) {
        char folder[PATH_MAX], name[256];

        if (rc == 0 && name_of(name, sizeof name, entries[i]->d_name) &&
            file_join(folder, sizeof folder, cache, entries[i]->d_name, NULL) == 0)
            rc = each_of(&each, name, folder);
        free(entries[i]);
    }
    free(entries);
    return rc;
}
