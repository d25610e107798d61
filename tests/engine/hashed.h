/* tests/engine/hashed.h: tensors whose numbers follow from their names, as in hashed.py, so that
 * only names and shapes need keeping; and recorded logits. */
#ifndef HASHED_H
#define HASHED_H

#include "base/number.h"
#include "tiny_run.h"

/* Bytes hashed from the name and the place: of vectors that are weights 0.5 to 1.5, of others -1 to
 * 1, of matrices -0.25 to 0.25. */
static inline void hashed_fill(float *out, size_t n, const char *name, bool vector)
{
    size_t length = strlen(name);
    bool weight = length > 6 && strcmp(name + length - 6, "weight") == 0;
    uint32_t h = 2166136261u;

    for (const char *c = name; *c; c++)
        h = (h ^ (uint8_t)*c) * 16777619u;
    for (size_t i = 0; i < n; i++) {
        uint32_t x = (uint32_t)i * 2654435761u ^ h;
        float byte;

        x = (x ^ x >> 15) * 2246822519u;
        byte = (float)((x ^ x >> 13) >> 16 & 0xFF);
        out[i] = !vector ? (byte - 128) / 512 : weight ? 0.5f + byte / 256 : (byte - 128) / 128;
    }
}

/* Numbers that bf16 holds as they are, in its form. */
static inline void hashed_halve(struct checkpoint_tensor *t)
{
    uint16_t *to = (uint16_t *)(uintptr_t)t->data;

    assert_true(t->n_dims > 1);
    t->type = DTYPE_BF16;
    t->size /= 2;
    for (size_t i = 0; i < t->size / 2; i++)
        to[i] = f32_to_bf16(((const float *)t->data)[i]);
}

/* "name:3:4 name:5 name:2:3:bf16", in two parts: a file of the temporary folder with tensors of
 * these shapes. format: what the metadata says, or NULL. */
static inline void hashed_write_as(const char *const tensors[2], const char *file,
                                   const char *format)
{
    const char *metadata[] = {"format", format};
    static struct checkpoint_tensor t[256];
    size_t size = strlen(tensors[0]) + (tensors[1] ? strlen(tensors[1]) : 0) + 2, n = 0;
    char *text = memory(size, 1), *rest = text;
    clm_error err = {0};

    snprintf(text, size, "%s %s", tensors[0], tensors[1] ? tensors[1] : "");
    for (char *one; (one = strtok_r(rest, " ", &rest)); n++) {
        char *at = strchr(one, ':');
        size_t numbers = 1;
        bool half = at && strcmp(strrchr(at, ':'), ":bf16") == 0;

        assert_true(n < COUNT(t) && at);
        if (half)
            *strrchr(at, ':') = '\0';
        *at = '\0';
        t[n] = (struct checkpoint_tensor){.name = one, .type = DTYPE_F32};
        while (at) {
            int64_t dim = strtoll(at + 1, &at, 10);

            t[n].shape[t[n].n_dims++] = dim;
            numbers *= (size_t)dim;
            at = *at ? at : NULL;
        }
        t[n].size = numbers * sizeof(float);
        t[n].data = memory(numbers, sizeof(float));
        hashed_fill((float *)(uintptr_t)t[n].data, numbers, one, t[n].n_dims == 1);
        if (half)
            hashed_halve(&t[n]);
    }
    CHECK(safetensors_write(temporary_path(file), t, n, metadata, format != NULL, &err) == 0, "%s",
          err.message);
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)t[i].data);
    free(text);
}

static inline void hashed_write(const char *const tensors[2], const char *file)
{
    hashed_write_as(tensors, file, NULL);
}

/* The logits of one token against those that were recorded. */
static inline void hashed_check(const float *got, const float *want, int n, const char *name)
{
    double far = 0, size = 0;

    for (int v = 0; v < n; v++) {
        far = fmax(far, fabs((double)got[v] - (double)want[v]));
        size = fmax(size, fabs((double)want[v]));
    }
    CHECK(far <= 1e-4 * size, "%s: off by %.2g of %.2g", name, far, size);
}

#endif
