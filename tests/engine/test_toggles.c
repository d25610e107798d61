/* Configs with a key other than in any golden checkpoint, against what transformers computes for
 * them. Weights follow from the names of tensors, as in toggles.py. */
#include <math.h>

#include "tiny_run.h"
#include "toggles.h"

/* Bytes hashed from the name and the place: of vectors that are weights 0.5 to 1.5, of others -1 to
 * 1, of matrices -0.25 to 0.25. */
static void fill(float *out, size_t n, const char *name, bool vector)
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

/* "name:3:4 name:5", in two parts: a checkpoint with tensors of these shapes. */
static void write_weights(const char *const tensors[2], const char *folder)
{
    static struct checkpoint_tensor t[256];
    size_t size = strlen(tensors[0]) + (tensors[1] ? strlen(tensors[1]) : 0) + 2, n = 0;
    char *text = memory(size, 1), *rest = text;
    char path[2200];
    clm_error err = {0};

    snprintf(text, size, "%s %s", tensors[0], tensors[1] ? tensors[1] : "");
    for (char *one; (one = strtok_r(rest, " ", &rest)); n++) {
        char *at = strchr(one, ':');
        size_t numbers = 1;

        assert_true(n < COUNT(t) && at);
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
        fill((float *)(uintptr_t)t[n].data, numbers, one, t[n].n_dims == 1);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", temporary_path(folder));
    CHECK(safetensors_write(path, t, n, NULL, 0, &err) == 0, "%s", err.message);
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)t[i].data);
    free(text);
}

static void test_toggles(void **state)
{
    static float got[COUNT(toggle_tokens) * COUNT(toggles[0].logits)];

    (void)state;
    for (size_t i = 0; i < COUNT(toggles); i++) {
        const struct toggle *t = &toggles[i];
        char folder[32], name[64];
        clm_error err = {0};
        const float *last;
        double far = 0, size = 0;
        struct rig r;
        kv_seq *seq;

        snprintf(folder, sizeof folder, "toggle%zu", i);
        snprintf(name, sizeof name, "%s/config.json", folder);
        temporary_write(name, t->config);
        write_weights(t->tensors, folder);
        CHECK(rig_open(&r, temporary_path(folder), 1, true, &err) == 0, "%s: %s", t->name,
              err.message);
        assert_true((size_t)r.vocab_size <= COUNT(t->logits));
        seq = rig_sequence(&r);
        rig_feed(&r, seq, toggle_tokens, (int)COUNT(toggle_tokens), got);
        last = got + (COUNT(toggle_tokens) - 1) * (size_t)r.vocab_size;
        for (int v = 0; v < r.vocab_size; v++) {
            far = fmax(far, fabs((double)last[v] - (double)t->logits[v]));
            size = fmax(size, fabs((double)t->logits[v]));
        }
        CHECK(far <= 1e-4 * size, "%s: off by %.2g of %.2g", t->name, far, size);
        kv_seq_close(seq);
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_toggles)};

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
