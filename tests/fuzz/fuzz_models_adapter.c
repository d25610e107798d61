/* Any adapter_config.json, of mlx-lm's form or PEFT's, beside tensors that are there: errors at
 * most, and what it says of modules is defined. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "format/safetensors.h"
#include "models/adapter.h"

static char folder[] = "/tmp/clm-fuzz-XXXXXX";
static const char *const files[] = {"adapters.safetensors", "adapter_model.safetensors",
                                    "adapter_config.json"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool fine)
{
    if (!fine)
        abort();
}

static const char *path_of(const char *name)
{
    static char path[sizeof folder + 40];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void clean_up(void)
{
    for (size_t i = 0; i < COUNT(files); i++)
        unlink(path_of(files[i]));
    rmdir(folder);
}

static void set_up(void)
{
    static const float numbers[8] = {1};
    const struct checkpoint_tensor only = {.name = "model.layers.0.self_attn.q_proj.lora_a",
                                           .type = DTYPE_F32,
                                           .n_dims = 2,
                                           .shape = {4, 2},
                                           .data = numbers,
                                           .size = sizeof numbers};

    must(mkdtemp(folder) != NULL);
    atexit(clean_up);
    for (int i = 0; i < 2; i++)
        must(safetensors_write(path_of(files[i]), &only, 1, NULL, 0, NULL) == 0);
}

static void write_config(const uint8_t *data, size_t size)
{
    FILE *f = fopen(path_of(files[2]), "wb");

    must(f && fwrite(data, 1, size, f) == size);
    must(fclose(f) == 0);
}

static void ask(const struct adapter *a)
{
    static const char *const modules[] = {"model.layers.0.self_attn.q_proj", "model.embed_tokens",
                                          "lm_head"};

    for (size_t i = 0; i < COUNT(modules); i++) {
        double scale = (double)NAN;
        clm_error err = {0};
        int rc = adapter_scale(a, modules[i], 2, &scale, &err);

        must(rc ? err.code != 0 : isfinite(scale));
        err = (clm_error){0};
        rc = adapter_check_module(a, modules[i], i ? -1 : 0, 2, &err);
        must((rc != 0) == (err.code != 0));
        for (int p = 0; p < a->n_parameters; p++)
            adapter_is_target(a->parameters[p], modules[i], "weight");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    struct adapter a = {0};
    clm_error err = {0};
    arena *memory = arena_open(0);
    int rc;

    must(memory != NULL);
    if (!ready)
        set_up();
    ready = true;
    write_config(data, size);
    rc = adapter_open(&a, folder, memory, &err);
    must((rc != 0) == (err.code != 0));
    if (rc == 0) {
        ask(&a);
        checkpoint_close(a.weights);
    }
    adapter_close(&a);
    arena_close(memory);
    return 0;
}
