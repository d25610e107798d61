/* Models that several devices compute together: every fixture on 2, 3 and 4 CPUs gives the logits
 * of one, but for the order of sums; what cannot be shared says so; and the error of one device
 * reaches the caller and ends the step on all of them. With CLM_DEVICE on that kind of devices, two
 * of them.
 */
#include <dirent.h>
#include <limits.h>
#include <stdatomic.h>
#include <time.h>

#include "base/memory.h"
#include "fixtures.h"
#include "forked_run.h"
#include "golden.h"

/* Over the deviation of the logits. Without rounding in between only the order of sums differs:
 * see EXACT_TOLERANCE. Where the cache is quantised a last bit can tip a code: then a number is off
 * by a 255th of its group's range. Heads that were mistaken for each other are off by about 1.
 * Where activations are rounded both sides are off from what is exact, each in its own way: from
 * each other not more than twice as far as one of them, with half as much again for chance. */
static const struct kind {
    struct engine_options options;
    double tolerance; /* 0: what rounding gives */
} kinds[] = {
    {{.exact = true}, EXACT_TOLERANCE},
    {{.exact = true, .max_kv_size = 24}, EXACT_TOLERANCE},
    {{.exact = true, .kv_bits = 8, .kv_group_size = 32, .quantized_kv_start = 32}, 2e-2},
    {{.exact = false}, 0},
};

/* Fixtures whose model rounds what it computes with, so that a last bit can tip: their tolerance.
 */
static const struct {
    const char *name;
    double tolerance;
} rounding[] = {
    {"models/muse_spark", 1e-2},
};

static int n_shared, n_refused;
static double worst[COUNT(kinds)];

static double tolerance_of(const char *name, const struct kind *kind)
{
    for (size_t i = 0; i < COUNT(rounding); i++)
        if (!strcmp(rounding[i].name, name))
            return fmax(rounding[i].tolerance, kind->tolerance);
    return kind->tolerance;
}

static const char *device_kind(void)
{
    return getenv("CLM_DEVICE") ? NULL : "cpu";
}

static int most_devices(void)
{
    return getenv("CLM_DEVICE") ? 2 : 4;
}

/* Where one of them fails. */
static int n_failing(void)
{
    return getenv("CLM_DEVICE") ? 2 : 3;
}

/* The adapter of a fixture that has one, else NULL; valid until the next call. */
static const char *adapter_of(const char *path)
{
    static char adapter[4200];

    snprintf(adapter, sizeof adapter, "%s/adapters", path);
    return access(adapter, R_OK) == 0 ? adapter : NULL;
}

/* On n devices; false: it cannot be shared, and says so. */
static bool open_shared(struct rig *r, const char *path, int n, const struct engine_options *o)
{
    clm_error err = {0};

    *r = (struct rig){0};
    CHECK(model_devices_open_group(&r->devices, n, device_kind(), n, &err) == 0, "%s", err.message);
    r->model = model_open_over(path, adapter_of(path), &r->devices, NULL, &err);
    if (!r->model) {
        CHECK(err.code == CLM_ERR_UNSUPPORTED && strstr(err.message, "a model of type ") &&
                  strstr(err.message, "cannot be shared by"),
              "%s: %s", path, err.message);
        rig_close(r);
        return false;
    }
    CHECK(r->model->n_shares == n, "%s: %d shares", path, r->model->n_shares);
    r->engine = engine_open(r->model, o, &err);
    CHECK(r->engine, "%s", err.message);
    r->vocab_size = r->model->spec->vocab_size;
    return true;
}

static double distance(const float *got, const float *want, size_t n)
{
    double most = 0;

    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)got[i] - (double)want[i]);

        if (isinf(want[i]) && got[i] == want[i])
            continue; /* a token that never comes */
        if (!(difference <= most))
            most = isnan(difference) ? HUGE_VAL : difference;
    }
    return most;
}

/* Where roundings differ a router that finds two experts as good may choose the other one. */
enum { TIED_ROWS = 4, MAX_ROWS = 128 };

static bool has_router(const struct spec *s)
{
    for (int i = 0; i < s->n_layers; i++)
        for (int b = 0; b < s->layers[i].n_branches; b++)
            if (s->layers[i].branches[b].op == OP_MOE)
                return true;
    return false;
}

static int compare_down(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* The distance of the farthest row of n numbers, but for so many others. */
static double distance_but(int others, const float *got, const float *want, size_t n, size_t cols)
{
    double rows[MAX_ROWS];
    size_t n_rows = n / cols;

    CHECK(n_rows <= MAX_ROWS && n_rows > (size_t)others, "%zu rows", n_rows);
    for (size_t i = 0; i < n_rows; i++)
        rows[i] = distance(got + i * cols, want + i * cols, cols);
    qsort(rows, n_rows, sizeof *rows, compare_down);
    return rows[others];
}

/* Of those that are finite. */
static double deviation(const float *x, size_t n)
{
    float *finite = malloc(n * sizeof *finite);
    size_t count = 0;
    double result;

    CHECK(finite, "no memory");
    for (size_t i = 0; i < n; i++)
        if (!isinf(x[i]))
            finite[count++] = x[i];
    result = golden_deviation(finite, count);
    free(finite);
    return result;
}

/* How far rounded logits are from exact ones, which come to exact [n]. */
static double rounding_of(const char *path, const float *rounded, float *exact, size_t n)
{
    struct rig r;
    clm_error err = {0};

    CHECK(rig_open_with(&r, path, adapter_of(path), 1, &kinds[0].options, &err) == 0, "%s",
          err.message);
    forked_run(&r, exact, NULL);
    rig_close(&r);
    return distance(rounded, exact, n);
}

static void check_kind(const char *name, const char *path, size_t k)
{
    const struct kind *kind = &kinds[k];
    struct rig whole, shared;
    clm_error err = {0};
    float *want, *got;
    double std, tolerance = tolerance_of(name, kind);
    int tied; /* rows of which nothing is asked */

    CHECK(rig_open_with(&whole, path, adapter_of(path), 1, &kind->options, &err) == 0, "%s",
          err.message);
    want = new_numbers(&whole);
    got = new_numbers(&whole);
    forked_run(&whole, want, NULL);
    std = deviation(want, n_numbers(&whole));
    tied = !kind->options.exact && has_router(whole.model->spec) ? TIED_ROWS : 0;
    if (tolerance == 0)
        tolerance = 3 * rounding_of(path, want, got, n_numbers(&whole)) / std + EXACT_TOLERANCE;
    for (int n = 2; n <= (k == 0 ? most_devices() : 2); n++) {
        double off;

        if (!open_shared(&shared, path, n, &kind->options)) {
            n_refused++;
            continue;
        }
        n_shared++;
        forked_run(&shared, got, NULL);
        off = distance_but(tied, got, want, n_numbers(&whole), (size_t)whole.vocab_size) / std;
        CHECK(off <= tolerance, "%s on %d devices, kind %zu: off by %.2g deviations", name, n, k,
              off);
        if (tolerance_of(name, kind) == kind->tolerance)
            worst[k] = fmax(worst[k], off);
        rig_close(&shared);
    }
    free(want);
    free(got);
    rig_close(&whole);
}

static void check_fixture(const char *name, const char *path)
{
    for (size_t k = 0; k < COUNT(kinds); k++)
        check_kind(name, path, k);
}

static void test_every_fixture(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    CHECK(visit_fixtures("models", check_fixture) >= 91, "fixtures are missing");
    print_message("%d shared, %d refused; at most off by", n_shared, n_refused);
    for (size_t k = 0; k < COUNT(kinds); k++)
        print_message(" %.2g", worst[k]);
    print_message(" deviations\n");
    CHECK(n_shared > 10 * n_refused / 4 && n_refused > 0, "too little was shared, or all");
}

/* What is on each device */

static void test_parts(void **state)
{
    struct engine_options exact = {.exact = true};
    const struct nn_attention *a[2];
    const struct nn_mlp *f[2];
    struct rig whole, r;
    clm_error err = {0};

    (void)state;
    SKIP_IF_NO_SHARED();
    CHECK(rig_open_with(&whole, shared_path("goldens/models/llama"), NULL, 1, &exact, &err) == 0,
          "%s", err.message);
    CHECK(open_shared(&r, shared_path("goldens/models/llama"), 2, &exact), "llama is refused");
    for (int s = 0; s < 2; s++) {
        a[s] = &r.model->shares[s]->layers[0].branches[0].attention;
        f[s] = &r.model->shares[s]->layers[0].branches[1].mlp;
        CHECK(a[s]->is_share && f[s]->is_share, "share %d is not one", s);
    }
    CHECK(a[0]->spec->n_heads + a[1]->spec->n_heads ==
                  whole.model->spec->layers[0].branches[0].attention.n_heads &&
              f[0]->spec->intermediate_size + f[1]->spec->intermediate_size ==
                  whole.model->spec->layers[0].branches[1].mlp.intermediate_size,
          "heads or numbers are missing");
    CHECK(kv_cache_bytes_per_token(engine_cache(r.engine)) ==
              kv_cache_bytes_per_token(engine_cache(whole.engine)),
          "a token of %zu bytes", kv_cache_bytes_per_token(engine_cache(r.engine)));
    rig_close(&r);
    rig_close(&whole);
}

/* Refusals */

static void test_refusals(void **state)
{
    struct engine_options exact = {.exact = true};
    struct rig r;
    clm_error err = {0};
    float logits[4096];
    kv_seq *seq;

    (void)state;
    SKIP_IF_NO_SHARED();
    CHECK(!open_shared(&r, shared_path("goldens/models/rwkv7"), 2, &exact), "rwkv7 is shared");
    CHECK(open_shared(&r, shared_path("goldens/models/llama"), 2, &exact), "llama is refused");
    seq = rig_sequence(&r);
    CHECK(r.vocab_size <= 4096, "%d tokens", r.vocab_size);
    rig_feed(&r, seq, &(int32_t){1}, 1, logits);
    CHECK(cache_file_save(r.engine, seq, "/nowhere/at/all", NULL, &err) &&
              err.code == CLM_ERR_UNSUPPORTED && strstr(err.message, "2 devices"),
          "%s", err.message);
    kv_seq_close(seq);
    rig_close(&r);
}

/* Errors */

static const struct device_ops *sound_ops;
static struct device_ops failing;
static _Atomic long allocs_left;
static _Atomic bool sync_fails;

static void *failing_alloc(device *d, size_t size, clm_error *err)
{
    if (allocs_left-- <= 0)
        return fail_null(err, CLM_ERR_NOMEM, "test: no memory for %zu bytes", size);
    return sound_ops->alloc(d, size, err);
}

static int failing_sync(device *d, clm_error *err)
{
    int rc = sound_ops->sync(d, err);

    return sync_fails ? fail(err, CLM_ERR_DEVICE, "test: the device is gone") : rc;
}

/* A step of so many tokens takes memory for temporaries more than once. */
enum { N_LONG = 2500 };

static const struct engine_options long_steps = {.exact = true, .max_rows = N_LONG};

/* Llama on several devices, the given one of which fails as the test says. */
static void open_failing(struct rig *r, int share)
{
    clm_error err = {0};

    allocs_left = INT_MAX;
    sync_fails = false;
    *r = (struct rig){0};
    CHECK(model_devices_open_group(&r->devices, n_failing(), device_kind(), 3, &err) == 0, "%s",
          err.message);
    sound_ops = r->devices.group[share]->ops;
    failing = *sound_ops;
    failing.alloc = failing_alloc;
    failing.sync = failing_sync;
    r->devices.group[share]->ops = &failing;
    CHECK(rig_fill(r, shared_path("goldens/models/llama"), NULL, &long_steps, &err) == 0, "%s",
          err.message);
}

static int n_threads_now(void)
{
    DIR *d = opendir("/proc/self/task");
    int n = 0;

    if (!d)
        return -1;
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* Whether there are no more than before: Linux counts one for a while after it was joined. */
static bool threads_are_gone(int before)
{
    const struct timespec a_while = {.tv_nsec = 1000000};

    for (int i = 0; i < 10000 && n_threads_now() > before; i++)
        nanosleep(&a_while, NULL);
    return n_threads_now() <= before;
}

static int step(struct rig *r, kv_seq *seq, const float **logits, clm_error *err)
{
    static const int32_t tokens[N_LONG] = {3, 1, 4, 1, 5, 9, 2, 6};
    struct engine_input input = {
        .seq = seq, .tokens = tokens, .n_tokens = N_LONG, .n_logits = N_LONG};

    *err = (clm_error){0};
    return engine_step(r->engine, &input, 1, logits, err);
}

/* Memory that is missing on one device at any time, and a device that is gone at the end: the
 * caller hears of it, the sequence is as it was, and the next step is as if nothing had been. */
static void check_failures(int share)
{
    struct rig r, sound;
    const float *logits, *want;
    clm_error err = {0};
    kv_seq *seq, *other;
    int n_failed = 0, rc;
    size_t size;

    CHECK(open_shared(&sound, shared_path("goldens/models/llama"), n_failing(), &long_steps),
          "refused");
    other = rig_sequence(&sound);
    CHECK(step(&sound, other, &want, &err) == 0, "%s", err.message);
    size = (size_t)N_LONG * (size_t)sound.vocab_size * sizeof *want;
    open_failing(&r, share);
    seq = rig_sequence(&r);
    for (long n = 0;; n++, n_failed++) {
        /* Room in the cache is there, so that it is the pass that fails. */
        CHECK(kv_seq_reserve(seq, N_LONG, &err) == 0, "%s", err.message);
        allocs_left = n;
        rc = step(&r, seq, &logits, &err);
        allocs_left = INT_MAX;
        if (rc == 0)
            break;
        CHECK(err.code == CLM_ERR_NOMEM && strstr(err.message, "no memory"), "%s", err.message);
        CHECK(kv_seq_length(seq) == 0, "a failed step left %d tokens", kv_seq_length(seq));
    }
    CHECK(n_failed > 1, "only %d allocations", n_failed);
    CHECK(!memcmp(logits, want, size), "other bits after failures");
    CHECK(kv_seq_trim(seq, 0, &err) == 0, "%s", err.message);
    sync_fails = true;
    CHECK(step(&r, seq, &logits, &err) && err.code == CLM_ERR_DEVICE &&
              strstr(err.message, "the device is gone"),
          "%s", err.message);
    sync_fails = false;
    CHECK(step(&r, seq, &logits, &err) == 0 && !memcmp(logits, want, size), "%s", err.message);
    kv_seq_close(seq);
    kv_seq_close(other);
    rig_close(&r);
    rig_close(&sound);
}

static void test_failures(void **state)
{
    int before = n_threads_now();

    (void)state;
    SKIP_IF_NO_SHARED();
    for (int share = 0; share < n_failing(); share++)
        check_failures(share);
    /* Libraries of GPUs keep some of their own. */
    CHECK(getenv("CLM_DEVICE") || threads_are_gone(before), "%d threads, %d before",
          n_threads_now(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_fixture),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_failures),
    };

    return cmocka_run_group_tests(tests, cache_files_setup, temporary_teardown);
}
