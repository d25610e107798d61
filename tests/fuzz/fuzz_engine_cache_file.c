/* Whatever prompt cache is taken goes on: some tokens, back to an earlier one, written again; from
 * memory, where it is copied, and from a file, where it may stay. The low bits of the first byte
 * choose a tiny model ('@' the first, 'A' the second, ...), the rest is the file. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../models/tiny.h"
#include "engine/cache_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static device *dev;
static struct model *models[COUNT(tiny_families)];
static engine *engines[COUNT(tiny_families)];
static char folder[64] = "/tmp/clm-fuzz-XXXXXX";

static void path_of(char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s/%s", folder, name);
}

static void clean_up(void)
{
    static const char *const names[] = {"config.json", "model.safetensors", "saved", "input", ""};

    for (size_t i = 0; i < COUNT(engines); i++) {
        engine_close(engines[i]);
        model_close(models[i]);
    }
    for (size_t i = 0; i < COUNT(names); i++) {
        char path[128];

        path_of(path, sizeof path, names[i]);
        remove(path);
    }
    dev->ops->close(dev);
}

static void set_up(void)
{
    clm_error err = {0};

    if (access("/dev/shm", W_OK) == 0)
        strcpy(folder, "/dev/shm/clm-fuzz-XXXXXX");
    if (!mkdtemp(folder))
        tiny_die(folder);
    dev = device_cpu_open(1, &err);
    if (!dev)
        tiny_die(err.message);
    atexit(clean_up);
}

/* The model's engine, opened when it is asked for first. */
static engine *engine_of(size_t i)
{
    struct engine_options options = {.exact = true, .cache_bytes = 1 << 24};
    clm_error err = {0};
    char path[128];
    struct tiny t;
    FILE *f;

    if (engines[i])
        return engines[i];
    path_of(path, sizeof path, "model.safetensors");
    remove(path); /* the one before stays mapped */
    tiny_open(&t, &tiny_families[i]);
    tiny_write_weights(&t, folder);
    path_of(path, sizeof path, "config.json");
    f = fopen(path, "wb");
    if (!f || fputs(t.config, f) < 0 || fclose(f))
        tiny_die(path);
    tiny_close(&t);
    models[i] = model_open(folder, dev, NULL, &err);
    engines[i] = models[i] ? engine_open(models[i], &options, &err) : NULL;
    if (!engines[i])
        tiny_die(err.message);
    return engines[i];
}

/* Errors of what is allowed to fail are one line. */
static void check_error(const clm_error *err)
{
    if (!err->code || !err->message[0] || strchr(err->message, '\n'))
        abort();
}

static void go_on(engine *e, kv_seq *seq)
{
    static const int32_t tokens[] = {3, 1, 4};
    struct engine_input input = {.seq = seq, .tokens = tokens, .n_tokens = 3, .n_logits = 1};
    clm_error err = {0};
    const float *logits;
    char path[128];
    int length = kv_seq_length(seq);

    path_of(path, sizeof path, "saved");
    if (engine_step(e, &input, 1, &logits, &err)) {
        check_error(&err);
        return;
    }
    if (kv_seq_length(seq) != length + 3)
        abort();
    if (length < 4096 && engine_trim(e, seq, length > 2 ? length - 2 : 1, &err))
        check_error(&err);
    err = (clm_error){0};
    if (cache_file_save(e, seq, path, NULL, &err))
        check_error(&err);
}

/* The same from a file. */
static kv_seq *load(engine *e, const uint8_t *data, size_t size, clm_error *err)
{
    char path[128];
    FILE *f;

    path_of(path, sizeof path, "input");
    f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f))
        tiny_die(path);
    return cache_file_load(e, path, NULL, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    clm_error err = {0};
    engine *e;
    kv_seq *seq;
    int length;

    if (!dev)
        set_up();
    if (size < 1)
        return 0;
    e = engine_of((uint8_t)(data[0] - '@') % COUNT(tiny_families));
    seq = cache_file_parse(e, data + 1, size - 1, "input", NULL, &err);
    length = seq ? kv_seq_length(seq) : 0;
    if (seq)
        go_on(e, seq);
    else
        check_error(&err);
    kv_seq_close(seq);
    err = (clm_error){0};
    seq = load(e, data + 1, size - 1, &err);
    /* A bound of the cache may be met where nothing stays in the file. */
    if (seq ? length && kv_seq_length(seq) != length : length)
        abort();
    if (seq)
        go_on(e, seq);
    else
        check_error(&err);
    kv_seq_close(seq);
    if (kv_cache_bytes_used(engine_cache(e)))
        abort();
    return 0;
}
