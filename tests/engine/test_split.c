/* Models over two devices: after every layer, every fixture must give the bits that it gives on
 * one, and the same prompt cache files; and how many layers go where is chosen by what fits.
 */
#include "base/memory.h"
#include "fixtures.h"
#include "forked_run.h"
#include "golden.h"

static const struct engine_options kinds[] = {
    {.exact = true},
    {.exact = true, .kv_bits = 8, .kv_group_size = 32, .quantized_kv_start = 32},
    {.exact = true, .max_kv_size = 24},
    {.exact = false},
};

static int n_cuts, n_bound, n_files;

/* With the last n layers on the second device; false: the model cannot be cut there. */
static bool open_cut(struct rig *r, const char *path, int n, const struct engine_options *options)
{
    clm_error err = {0};
    struct model *m;

    *r = (struct rig){0};
    CHECK(spread_two(&r->devices, n, 1, &err) == 0, "%s", err.message);
    m = model_open_over(path, NULL, &r->devices, NULL, &err);
    if (!m) {
        CHECK(err.code == CLM_ERR_ARG && strstr(err.message, "cannot be on another device"),
              "%s: %s", path, err.message);
        rig_close(r);
        return false;
    }
    CHECK(m->nn->n_parts == 2 && m->nn->parts[1].first == m->spec->n_layers - n &&
              m->nn->parts[0].end == m->spec->n_layers - n,
          "%s: not cut before the last %d layers", path, n);
    r->model = m;
    r->engine = engine_open(m, options, &err);
    CHECK(r->engine, "%s", err.message);
    r->vocab_size = m->spec->vocab_size;
    return true;
}

/* What comes after a file that was loaded. */
static void go_on(struct rig *r, const char *path, float *out)
{
    int32_t tokens[] = {3, 1, 4};
    kv_seq *seq = load(r, path);

    rig_feed(r, seq, tokens, 3, out);
    kv_seq_close(seq);
}

static void check_kind(const char *name, const char *path, const struct engine_options *options)
{
    struct rig whole, cut;
    clm_error err = {0};
    float *want, *got, *want_after, *got_after;
    char file[4096], other[4096];
    bool saved;

    CHECK(rig_open_with(&whole, path, NULL, 1, options, &err) == 0, "%s: %s", name, err.message);
    want = new_numbers(&whole);
    got = new_numbers(&whole);
    want_after = new_numbers(&whole);
    got_after = new_numbers(&whole);
    snprintf(file, sizeof file, "%s", temporary_path("whole.safetensors"));
    snprintf(other, sizeof other, "%s", temporary_path("cut.safetensors"));
    saved = forked_run(&whole, want, file);
    if (saved)
        go_on(&whole, file, want_after);
    for (int n = 1; n < whole.model->spec->n_layers; n++) {
        if (!open_cut(&cut, path, n, options)) {
            n_bound++;
            continue;
        }
        n_cuts++;
        CHECK(forked_run(&cut, got, other) == saved, "%s: a file or none", name);
        CHECK(!memcmp(want, got, n_numbers(&whole) * sizeof *got),
              "%s, the last %d layers apart: other bits", name, n);
        n_files += saved;
        if (saved) {
            CHECK(same_file(file, other), "%s, the last %d layers apart: another file", name, n);
            go_on(&cut, file, got_after);
            CHECK(!memcmp(want_after, got_after, 3 * (size_t)whole.vocab_size * sizeof *got),
                  "%s, the last %d layers apart: other bits after a file", name, n);
        }
        rig_close(&cut);
    }
    free(want);
    free(got);
    free(want_after);
    free(got_after);
    rig_close(&whole);
    temporary_clear();
}

static void check_fixture(const char *name, const char *path)
{
    for (size_t i = 0; i < COUNT(kinds); i++)
        check_kind(name, path, &kinds[i]);
}

static void test_every_cut(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    unsetenv("CLM_TEST_SPLIT");
    CHECK(visit_fixtures("models", check_fixture) >= 91, "fixtures are missing");
    print_message("%d cuts, %d with files, %d that cannot be made\n", n_cuts, n_files, n_bound);
    CHECK(n_cuts > 0 && n_files > 0 && n_bound > 0, "nothing was cut, or everything could be");
}

/* Devices that compute in different ways: the reference's logits within its tolerance. */
static void check_two_kernels(const char *name)
{
    struct rig r;
    struct golden g;
    clm_error err = {0};
    char folder[128], file[4200];
    float *got;

    snprintf(folder, sizeof folder, "goldens/models/%s", name);
    setenv("CLM_CPU", "scalar", 1);
    r = (struct rig){.devices = {.rest = device_cpu_open(1, &err), .gpu_layers = 1}};
    unsetenv("CLM_CPU");
    r.devices.dev = device_cpu_open(2, &err);
    CHECK(r.devices.rest && r.devices.dev, "%s", err.message);
    CHECK(rig_fill(&r, shared_path(folder), NULL, &kinds[0], &err) == 0, "%s", err.message);
    CHECK(r.model->nn->n_parts == 2, "%s: not cut", name);
    snprintf(file, sizeof file, "%s/golden.safetensors", shared_path(folder));
    golden_open(&g, file);
    got = malloc((size_t)g.n_prompt * (size_t)g.vocab_size * sizeof *got);
    CHECK(got, "no memory");
    kv_seq *seq = rig_sequence(&r);

    rig_feed(&r, seq, g.prompt, g.n_prompt, got);
    CHECK(golden_distance(&g, got, g.prompt_logits, (size_t)g.n_prompt * (size_t)g.vocab_size) <=
              EXACT_TOLERANCE,
          "%s: off", name);
    kv_seq_close(seq);
    free(got);
    golden_close(&g);
    rig_close(&r);
}

static void test_two_kernels(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    check_two_kernels("llama");
    check_two_kernels("gemma2");
    check_two_kernels("falcon_h1");
    check_two_kernels("deepseek_v3");
}

/* Choice */

static char heard[512];

static void hear(void *ctx, enum log_level level, const char *message)
{
    (void)ctx;
    if (level == LOG_INFO)
        snprintf(heard, sizeof heard, "%s", message);
}

/* How many of the last layers are on the second device with so many bytes free there; -1: *err. */
static int choose(size_t free_bytes, int gpu_layers, int *n_layers, clm_error *err)
{
    static const struct log log = {hear, NULL};
    struct model_devices where;
    struct model *m;
    int n = -1;

    heard[0] = '\0';
    spread_free_bytes = free_bytes;
    CHECK(spread_two(&where, gpu_layers, 1, err) == 0, "%s", err->message);
    m = model_open_over(shared_path("goldens/models/llama"), NULL, &where, &log, err);
    if (m) {
        const struct nn_part *last = &m->nn->parts[m->nn->n_parts - 1];

        *n_layers = m->spec->n_layers;
        n = last->dev == where.dev ? last->end - last->first : 0;
        CHECK(m->nn->n_parts == (n > 0 && n < *n_layers ? 2 : 1), "%d parts", m->nn->n_parts);
    }
    model_close(m);
    model_devices_close(&where);
    spread_free_bytes = SIZE_MAX / 2;
    return n;
}

static void test_choice(void **state)
{
    clm_error err = {0};
    int n_layers, before = 0, n = 0;
    bool between = false;
    size_t bytes = (size_t)700 << 20;

    (void)state;
    SKIP_IF_NO_SHARED();
    CHECK(choose(1, GPU_LAYERS_AUTO, &n_layers, &err) == 0, "%s", err.message);
    CHECK(strstr(heard, "0 of ") && strstr(heard, "the others on cpu"), "%s", heard);
    for (; n < n_layers && bytes < (size_t)900 << 20; bytes += 16384) {
        n = choose(bytes, GPU_LAYERS_AUTO, &n_layers, &err);
        CHECK(n >= before, "%d layers, with less memory %d", n, before);
        CHECK((n < n_layers) == (heard[0] != '\0'), "%d layers: %s", n, heard);
        between |= n > 0 && n < n_layers;
        before = n;
    }
    CHECK(n == n_layers && between, "%d layers with %zu bytes", n, bytes);
    CHECK(choose(SIZE_MAX / 2, GPU_LAYERS_ALL, &n_layers, &err) == n_layers, "%s", err.message);
    CHECK(choose(SIZE_MAX / 2, n_layers + 5, &n_layers, &err) == n_layers, "%s", err.message);
    CHECK(choose(4096, GPU_LAYERS_ALL, &n_layers, &err) < 0 && err.code == CLM_ERR_NOMEM &&
              strstr(err.message, "GB free"),
          "%s", err.message);
    err = (clm_error){0};
    CHECK(choose(4096, 1, &n_layers, &err) < 0 && err.code == CLM_ERR_NOMEM, "%s", err.message);
}

/* A GPU alone, without a CPU beside it, tells in time that a model is too large for it. */
static void test_too_large(void **state)
{
    struct model_devices where, alone;
    clm_error err = {0};

    (void)state;
    SKIP_IF_NO_SHARED();
    CHECK(spread_two(&where, GPU_LAYERS_AUTO, 1, &err) == 0, "%s", err.message);
    spread_free_bytes = 4096;
    alone = (struct model_devices){.dev = where.dev};
    CHECK(!model_open_over(shared_path("goldens/models/llama"), NULL, &alone, NULL, &err) &&
              err.code == CLM_ERR_NOMEM && strstr(err.message, "GB free"),
          "%s", err.message);
    spread_free_bytes = SIZE_MAX / 2;
    model_devices_close(&where);
}

/* What the options say without a GPU. */
static void test_without_gpu(void **state)
{
    struct model_devices where;
    clm_error err = {0};

    (void)state;
    CHECK(model_devices_open(&where, "cpu", 1, 3, &err) && err.code == CLM_ERR_ARG, "%s",
          err.message);
    model_devices_close(&where);
    for (int i = 0; i < 3; i++) {
        static const int layers[] = {GPU_LAYERS_AUTO, GPU_LAYERS_ALL, GPU_LAYERS_NONE};

        CHECK(model_devices_open(&where, "cpu", 1, layers[i], &err) == 0 && !where.rest, "%s",
              err.message);
        model_devices_close(&where);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),   cmocka_unit_test(test_two_kernels),
        cmocka_unit_test(test_choice),      cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_without_gpu),
    };

    return cmocka_run_group_tests(tests, cache_files_setup, temporary_teardown);
}
