#include "cli/locate.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "format/hub.h"

#define BUNDLED "storyteller-4bit"

static int copy_path(char *out, size_t size, const char *path, clm_error *err)
{
    int n = snprintf(out, size, "%s", path);

    if (n < 0 || (size_t)n >= size)
        return fail(err, CLM_ERR_IO, "the path %.60s... is too long", path);
    return 0;
}

static int refuse_file(const char *name, clm_error *err)
{
    size_t n = strlen(name);

    if (n > 5 && strcmp(name + n - 5, ".gguf") == 0)
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "%s: GGUF files are not supported yet; give a folder with config.json, "
                    "tokenizer.json and safetensors files",
                    name);
    return fail(
        err, CLM_ERR_IO,
        "%s is a file; give the model's folder, with config.json and safetensors files in it",
        name);
}

static bool holds(const char *folder, const char *name)
{
    char path[PATH_MAX];

    return file_join(path, sizeof path, folder, name, NULL) == 0 && file_exists(path);
}

/* What is missing of a model is for its readers to say; a folder without any of one is said here.
 */
static int check_folder(const char *name, clm_error *err)
{
    static const char *const files[] = {"config.json", "tokenizer.json", "tokenizer.model",
                                        "vocab.json", "qwen.tiktoken"};

    for (size_t i = 0; i < COUNT(files); i++)
        if (holds(name, files[i]))
            return 0;
    if (access(name, R_OK | X_OK))
        return fail(err, CLM_ERR_IO, "cannot look into the folder %s: %s", name, strerror(errno));
    return fail(err, CLM_ERR_IO,
                "%s: no model in this folder; give one with config.json, tokenizer.json and "
                "safetensors files",
                name);
}

/* As those who use mlx-lm give it, whose -m of texts is --max-tokens. */
static bool is_number(const char *name)
{
    return !name[strspn(name, "0123456789")];
}

static int locate_name(char *out, size_t size, const char *name, clm_error *err)
{
    char cache[PATH_MAX] = "";
    clm_error why = {0};

    if (hub_is_name(name) && hub_find(out, size, name, &why) == 0)
        return 0;
    if (access(name, F_OK) && errno == EACCES)
        return fail(err, CLM_ERR_IO, "cannot look at %s: %s", name, strerror(errno));
    if (!hub_is_name(name))
        return fail(err, CLM_ERR_IO, "%s: no such folder; give a model's folder or org/model",
                    name);
    if (strchr(name, '/'))
        return fail(err, CLM_ERR_IO, "%s: no such folder, and %s", name, why.message);
    if (hub_cache(cache, sizeof cache, NULL))
        copy_path(cache, sizeof cache, "(none: HOME is not set)", NULL);
    if (is_number(name))
        return fail(err, CLM_ERR_IO,
                    "%s: no such folder, and no model of that name in the hub cache %s; -m is the "
                    "model here, to limit tokens: -n %s",
                    name, cache, name);
    return fail(err, CLM_ERR_IO,
                "%s: no such folder, and no model of that name in the hub cache %s; give a "
                "model's folder or org/model",
                name, cache);
}

/* "org/model/tree/v2", as addresses end, is "org/model@v2" in out; any other name as it is. */
static const char *with_revision(char *out, size_t size, const char *name)
{
    static const char *const ways[] = {"/tree/", "/commit/"};

    for (size_t i = 0; i < COUNT(ways); i++) {
        const char *at = strstr(name, ways[i]);
        int n =
            at ? snprintf(out, size, "%.*s@%s", (int)(at - name), name, at + strlen(ways[i])) : -1;

        if (n >= 0 && (size_t)n < size)
            return out;
    }
    return name;
}

/* org/model of an address on the hub, with the revision that the address has; any other name as it
 * is. */
static const char *without_address(char *out, size_t size, const char *name)
{
    static const char *const hosts[] = {"https://huggingface.co/", "https://hf.co/",
                                        "huggingface.co/", "hf.co/", "hf://"};

    for (size_t i = 0; i < COUNT(hosts); i++)
        if (strncmp(name, hosts[i], strlen(hosts[i])) == 0)
            return with_revision(out, size, name + strlen(hosts[i]));
    return name;
}

/* share/clm beside the bin that this program lies in. */
static bool beside_program(char *out, size_t size)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash;

    if (n <= 0)
        return false;
    self[n] = '\0';
    slash = strrchr(self, '/');
    if (!slash)
        return false;
    *slash = '\0';
    n = snprintf(out, size, "%s/../share/clm/" BUNDLED, self);
    return n > 0 && (size_t)n < size && file_is_dir(out);
}

static int locate_bundled(char *out, size_t size, clm_error *err)
{
    static const char *const places[] = {CLM_SOURCE_MODEL, CLM_INSTALLED_MODEL};

    if (beside_program(out, size))
        return 0;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (file_is_dir(places[i]))
            return copy_path(out, size, places[i], err);
    return fail(err, CLM_ERR_IO,
                "the model that comes with clm is not in %s; install it, set "
                "CLM_MODEL, or give a model with -m",
                CLM_INSTALLED_MODEL);
}

int locate_model(char *out, size_t size, const char *name, clm_error *err)
{
    const char *chosen = getenv("CLM_MODEL");
    char plain[PATH_MAX];

    if (!name && chosen && *chosen)
        name = chosen;
    if (!name)
        return locate_bundled(out, size, err);
    if (file_is_dir(name))
        return check_folder(name, err) ? -1 : copy_path(out, size, name, err);
    if (file_exists(name))
        return refuse_file(name, err);
    return locate_name(out, size, without_address(plain, sizeof plain, name), err);
}
