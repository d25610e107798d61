/* tests/fuzz/config_input.h: a fuzz input as the config.json of a tiny checkpoint.
 *
 * The first byte chooses the checkpoint ('@' the first, 'A' the second, ...), the rest is the
 * config. Those of tiny.h come first, then one of every family. */
#ifndef CONFIG_INPUT_H
#define CONFIG_INPUT_H

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../models/derived.h"
#include "../models/family_configs.h"
#include "models/model.h"

static char folders[COUNT(tiny_families) + COUNT(family_configs)][128];
static char base[64] = "/tmp/clm-fuzz-XXXXXX";
static device *dev;

static inline void path_in(char *out, size_t size, const char *folder, const char *name)
{
    if (snprintf(out, size, "%s/%s", folder, name) >= (int)size)
        tiny_die(folder);
}

static inline void clean_up(void)
{
    static const char *const names[] = {"config.json", "model.safetensors", ""};

    for (size_t i = 0; i < COUNT(folders); i++)
        for (size_t j = 0; j < COUNT(names); j++) {
            char path[1 << 14];

            path_in(path, sizeof path, folders[i], names[j]);
            remove(path);
        }
    remove(base);
    dev->ops->close(dev);
}

static inline void set_up(void)
{
    clm_error err = {0};

    /* Memory, where there is such a folder: a file is written for every input. */
    if (access("/dev/shm", W_OK) == 0)
        strcpy(base, "/dev/shm/clm-fuzz-XXXXXX");
    if (!mkdtemp(base))
        tiny_die(base);
    dev = device_cpu_open(1, &err);
    if (!dev)
        tiny_die(err.message);
    for (size_t i = 0; i < COUNT(folders); i++) {
        struct tiny t;

        snprintf(folders[i], sizeof folders[i], "%s/%zu", base, i);
        if (mkdir(folders[i], 0777))
            tiny_die(folders[i]);
        if (i < COUNT(tiny_families))
            tiny_open(&t, &tiny_families[i]);
        else
            tiny_derive(&t, family_configs[i - COUNT(tiny_families)], dev);
        tiny_write_weights(&t, folders[i]);
        tiny_close(&t);
    }
    atexit(clean_up);
}

static inline void write_config(const char *folder, const uint8_t *data, size_t size)
{
    char path[1 << 14];
    FILE *f;

    path_in(path, sizeof path, folder, "config.json");
    f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f))
        tiny_die(path);
}

/* The model of an input, or NULL; then there must be one line that says why. */
static inline struct model *open_input(const uint8_t *data, size_t size)
{
    clm_error err = {0};
    const char *folder;
    struct model *m;

    if (!dev)
        set_up();
    if (size < 1)
        return NULL;
    folder = folders[(uint8_t)(data[0] - '@') % COUNT(folders)];
    write_config(folder, data + 1, size - 1);
    m = model_open(folder, dev, NULL, &err);
    if (m ? err.code != 0 : !err.code || !err.message[0] || strchr(err.message, '\n'))
        abort();
    return m;
}

#endif
