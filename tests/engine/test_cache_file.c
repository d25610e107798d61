/* Prompt caches in files: mlx-lm's continue with its logits, clm's own bit by bit. */
#include "base/number.h"
#include "cache_files.h"
#include "copy.h"
#include "fixtures.h"
#include "golden.h"
#include "nn/state_pieces.h"

/* mlx-lm's caches */

static int n_continued;
static size_t n_rounded; /* numbers */

/* Feed what the golden was fed, one token at a time, to the loaded cache and compare. */
static void check_continuation(struct rig *r, kv_seq *seq, const char *golden_path,
                               double tolerance)
{
    struct golden g = {0};
    clm_error err = {0};
    int64_t rows, cols, n;
    int32_t *tokens;
    float *want, *got;
    double distance;

    g.file = checkpoint_open(golden_path, NULL, &err);
    CHECK(g.file, "%s", err.message);
    tokens = golden_tensor(&g, "fed_tokens", DTYPE_I32, &rows, &n);
    want = golden_tensor(&g, "logits", DTYPE_F32, &rows, &cols);
    CHECK(rows == n && cols == r->vocab_size, "%s: %d rows", golden_path, (int)rows);
    got = malloc((size_t)(n * cols) * sizeof *got);
    CHECK(got, "no memory");
    for (int64_t i = 0; i < n; i++)
        rig_feed(r, seq, tokens + i, 1, got + i * cols);
    g.std = golden_deviation(want, (size_t)(n * cols));
    distance = golden_distance(&g, got, want, (size_t)(n * cols));
    CHECK(distance <= tolerance, "%s: off by %.2g deviations", golden_path, distance);
    free(got);
    free(want);
    free(tokens);
    checkpoint_close(g.file);
}

/* The value of number i in a row of little-endian words, by the definition: scale * q + bias. */
static float dequantised(const struct checkpoint_tensor *const t[3], size_t row, size_t i, int bits,
                         int group)
{
    const uint8_t *words = (const uint8_t *)t[0]->data + row * (size_t)t[0]->shape[3] * 4;
    size_t g = row * (size_t)t[1]->shape[3] + i / (size_t)group;
    float scale, bias;
    unsigned q = 0;

    for (int b = 0; b < bits; b++) {
        size_t at = i * (size_t)bits + (size_t)b;

        q |= (unsigned)(words[at / 8] >> at % 8 & 1) << b;
    }
    memcpy(&scale, (const float *)t[1]->data + g, sizeof scale);
    memcpy(&bias, (const float *)t[2]->data + g, sizeof bias);
    return (float)q * scale + bias;
}

/* A quantised cache, and what clm made of it. */
static void check_dequantised(const char *from, const char *copy)
{
    clm_error err = {0};
    checkpoint *a = checkpoint_open(from, NULL, &err), *b = checkpoint_open(copy, NULL, &err);
    int bits, group;

    CHECK(a && b, "%s", err.message);
    memcpy(&group, checkpoint_find(a, "0.3")->data, sizeof group);
    memcpy(&bits, checkpoint_find(a, "0.4")->data, sizeof bits);
    for (int kv = 0; kv < 2; kv++) {
        const struct checkpoint_tensor *t[3], *got;
        char name[32];

        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "0.%d.%d", kv, i);
            t[i] = checkpoint_find(a, name);
        }
        snprintf(name, sizeof name, "0.%d", kv);
        got = checkpoint_find(b, name);
        CHECK(got && got->type == DTYPE_F32 && got->shape[1] == 1, "%s: no %s", copy, name);
        for (size_t row = 0; row < (size_t)got->shape[2]; row++)
            for (size_t i = 0; i < (size_t)got->shape[3]; i++) {
                float want = dequantised(t, row, i, bits, group), x;

                memcpy(&x, (const float *)got->data + row * (size_t)got->shape[3] + i, sizeof x);
                CHECK(x == want, "%s: row %zu, number %zu of %s", from, row, i, name);
            }
    }
    checkpoint_close(a);
    checkpoint_close(b);
}

/* In a cache of 16 bits the numbers of one of 32 are rounded, those of states are the same; exact:
 * the file that the latter was saved to. */
static void check_rounded(const char *folder, const char *path, const char *exact)
{
    char rounded[2048];
    clm_error err = {0};
    checkpoint *a, *b;
    struct rig r;
    kv_seq *seq;

    snprintf(rounded, sizeof rounded, "%s", temporary_path("rounded.safetensors"));
    open_rig(&r, folder, false);
    seq = load(&r, path);
    save(&r, seq, rounded);
    kv_seq_close(seq);
    rig_close(&r);
    a = checkpoint_open(exact, NULL, &err);
    b = checkpoint_open(rounded, NULL, &err);
    CHECK(a && b && checkpoint_count(a) == checkpoint_count(b), "%s: %s", path, err.message);
    for (size_t i = 0; i < checkpoint_count(a); i++) {
        const struct checkpoint_tensor *x = checkpoint_at(a, i), *y = checkpoint_at(b, i);

        CHECK(!strcmp(x->name, y->name), "%s: %s and %s", path, x->name, y->name);
        if (x->type == y->type) {
            CHECK(x->size == y->size && !memcmp(x->data, y->data, x->size),
                  "%s: other numbers in %s", path, x->name);
            continue;
        }
        CHECK(x->type == DTYPE_F32 && y->type == DTYPE_F16 && x->size == 2 * y->size,
              "%s: %s has other types", path, x->name);
        for (size_t k = 0; k < y->size / 2; k++, n_rounded++) {
            float number;

            memcpy(&number, (const float *)x->data + k, sizeof number);
            CHECK(load_le16((const uint16_t *)y->data + k) == f32_to_f16(number),
                  "%s: number %zu of %s", path, k, x->name);
        }
    }
    checkpoint_close(a);
    checkpoint_close(b);
}

static bool is_near(const struct checkpoint_tensor *a, const struct checkpoint_tensor *b,
                    double relative)
{
    for (size_t i = 0; i < b->size / sizeof(float); i++) {
        float x, y;

        memcpy(&x, (const float *)a->data + i, sizeof x);
        memcpy(&y, (const float *)b->data + i, sizeof y);
        if (!(fabs((double)x - (double)y) <= relative * fabs((double)x)))
            return false;
    }
    return true;
}

/* Codes are as mlx-lm wrote them, but for the room behind the tokens, scales and biases within
 * roundings. */
static void check_same_codes(const char *from, const char *copy, double relative)
{
    clm_error err = {0};
    checkpoint *a = checkpoint_open(from, NULL, &err), *b = checkpoint_open(copy, NULL, &err);

    CHECK(a && b, "%s", err.message);
    for (int i = 0; i < 6; i++) {
        const struct checkpoint_tensor *t, *got;
        char name[32];

        snprintf(name, sizeof name, "0.%d.%d", i / 3, i % 3);
        t = checkpoint_find(a, name);
        got = checkpoint_find(b, name);
        /* One head: its rows come first. */
        CHECK(t && got && t->type == got->type && t->shape[1] == 1 && got->shape[1] == 1 &&
                  t->shape[3] == got->shape[3] && got->size <= t->size &&
                  (i % 3 && relative > 0 ? is_near(t, got, relative)
                                         : !memcmp(t->data, got->data, got->size)),
              "%s: %s is not as it was", copy, name);
    }
    checkpoint_close(a);
    checkpoint_close(b);
}

/* Loaded where keys and values stay as they are, a quantised cache is the numbers it stands for. */
static void check_numbers(const char *folder, const char *path)
{
    char copy[2048];
    struct rig r;
    kv_seq *seq;

    snprintf(copy, sizeof copy, "%s", temporary_path("copy.safetensors"));
    open_rig(&r, folder, true);
    seq = load(&r, path);
    save(&r, seq, copy);
    check_dequantised(path, copy);
    kv_seq_close(seq);
    rig_close(&r);
}

/* The prompt that mlx-lm has quantised, quantised here: keys and values differ by roundings, which
 * no code of the fixtures is so near to a half that it shows. */
static void check_own_codes(struct rig *r, const char *folder, const char *path)
{
    char golden[4400], copy[2048];
    struct golden g;
    kv_seq *seq = rig_sequence(r);
    float *logits;

    snprintf(golden, sizeof golden, "%s/golden.safetensors", folder);
    snprintf(copy, sizeof copy, "%s", temporary_path("own.safetensors"));
    golden_open(&g, golden);
    logits = malloc((size_t)g.n_prompt * (size_t)r->vocab_size * sizeof *logits);
    CHECK(logits, "no memory");
    rig_feed(r, seq, g.prompt, g.n_prompt, logits);
    save(r, seq, copy);
    check_same_codes(path, copy, 1e-5);
    free(logits);
    kv_seq_close(seq);
    golden_close(&g);
}

/* A rig whose cache is of the kind of a file. */
static void open_rig_like(struct rig *r, const char *folder, const char *path)
{
    struct engine_options options = {.exact = true};
    struct kv_cache_options kind;
    clm_error err = {0};

    open_rig(r, folder, true);
    kind = cache_file_kind(r->model, path);
    rig_close(r);
    options.kv_bits = kind.bits;
    options.kv_group_size = kind.group_size;
    options.quantized_kv_start = kind.quantised_from;
    options.max_kv_size = kind.max_tokens;
    options.n_first_tokens = kind.n_first;
    CHECK(rig_open_with(r, folder, NULL, 1, &options, &err) == 0, "%s: %s", folder, err.message);
}

/* A cache of mlx-lm as it is, and once more after clm has written it. */
static void check_cache(const char *folder, const char *name)
{
    char path[4400], golden[4400], copy[2048];
    struct rig r;
    kv_seq *seq, *again;

    snprintf(path, sizeof path, "%s/%s.safetensors", folder, name);
    snprintf(golden, sizeof golden, "%s/%s_golden.safetensors", folder, name);
    snprintf(copy, sizeof copy, "%s", temporary_path("copy.safetensors"));
    open_rig_like(&r, folder, path);
    seq = load(&r, path);
    save(&r, seq, copy);
    again = load(&r, copy);
    check_continuation(&r, seq, golden, EXACT_TOLERANCE);
    check_continuation(&r, again, golden, EXACT_TOLERANCE);
    if (strstr(name, "_q")) {
        check_same_codes(path, copy, 0);
        check_own_codes(&r, folder, path);
        check_numbers(folder, path);
    } else if (!strstr(name, "rot9")) {
        check_rounded(folder, path, copy);
    }
    kv_seq_close(seq);
    kv_seq_close(again);
    n_continued++;
    CHECK(kv_cache_bytes_used(engine_cache(r.engine)) == 0, "%s: blocks are left", path);
    rig_close(&r);
}

static void check_caches_of(const char *name, const char *folder)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, alphasort);

    (void)name;
    CHECK(n >= 0, "%s cannot be read", folder);
    for (int i = 0; i < n; i++) {
        char *file = entries[i]->d_name, *dot = strrchr(file, '.');

        if (!strncmp(file, "prompt_cache", 12) && !strstr(file, "_golden") && dot) {
            *dot = '\0';
            check_cache(folder, file);
        }
        free(entries[i]);
    }
    free(entries);
}

static void test_mlx_caches(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    visit_fixtures("models", check_caches_of);
    print_message("%d caches of mlx-lm\n", n_continued);
    CHECK(n_continued >= 12, "%d caches", n_continued);
    CHECK(n_rounded > 0, "nothing was rounded");
}

/* Round trips */

/* Of a loaded cache that has gone on, and one that has not, all but some tokens are forgotten. */
static void check_trim(struct rig *r, const char *name, const char *path, const int32_t *tokens,
                       int n, int n_all)
{
    float *want = malloc((size_t)r->vocab_size * sizeof *want);
    float *got = malloc((size_t)n_all * (size_t)r->vocab_size * sizeof *got);

    CHECK(want && got, "no memory");
    for (int to = n - 1; to > 0 && to > n - 45; to -= 11) {
        kv_seq *whole = rig_sequence(r), *s = load(r, path);
        clm_error err = {0};

        if (to % 2)
            rig_feed(r, s, tokens + n, n_all - n, got);
        CHECK(engine_trim(r->engine, s, to, &err) == 0, "%s: %s", name, err.message);
        rig_feed(r, s, tokens + to, 1, got);
        for (int i = 0; i <= to; i++)
            rig_feed(r, whole, tokens + i, 1, want);
        CHECK(!memcmp(want, got, (size_t)r->vocab_size * sizeof *want),
              "%s: other bits, loaded with %d tokens and trimmed to %d", name, n, to);
        kv_seq_close(s);
        kv_seq_close(whole);
    }
    free(want);
    free(got);
}

/* The first n tokens are saved; what comes after them is the same with the loaded cache. */
static void round_trip(struct rig *r, const char *name, const int32_t *tokens, int n, int n_all,
                       bool exact)
{
    size_t size = (size_t)(n_all - n) * (size_t)r->vocab_size * sizeof(float);
    kv_seq *seq = rig_sequence(r), *loaded;
    float *want = malloc(size), *got = malloc(size);
    char first[2048], second[2048];

    CHECK(want && got, "no memory");
    snprintf(first, sizeof first, "%s", temporary_path("first.safetensors"));
    snprintf(second, sizeof second, "%s", temporary_path("second.safetensors"));
    for (int i = 0; i < n; i++)
        rig_feed(r, seq, tokens + i, 1, want);
    save(r, seq, first);
    loaded = load(r, first);
    CHECK(kv_seq_length(loaded) == n &&
              !memcmp(kv_seq_tokens(loaded), tokens, (size_t)n * sizeof *tokens),
          "%s: other tokens", name);
    save(r, loaded, second);
    CHECK(same_file(first, second), "%s: saved twice, it differs", name);
    rig_feed(r, seq, tokens + n, n_all - n, want);
    rig_feed(r, loaded, tokens + n, n_all - n, got);
    CHECK(!memcmp(want, got, size), "%s: other bits after %d tokens", name, n);
    kv_seq_close(seq);
    kv_seq_close(loaded);
    free(want);
    free(got);
    if (exact)
        check_trim(r, name, first, tokens, n, n_all);
    CHECK(kv_cache_bytes_used(engine_cache(r->engine)) == 0, "%s: blocks are left", name);
}

/* The pieces of every state cover it. */
static void check_pieces(const char *name, const struct spec *s)
{
    for (int i = 0; i < s->n_layers; i++)
        for (int b = 0; b < s->layers[i].n_branches; b++) {
            const struct branch_spec *branch = &s->layers[i].branches[b];
            struct nn_state_piece pieces[NN_STATE_PIECES];
            int n = nn_state_pieces(branch, pieces);
            size_t bytes = 0;

            for (int p = 0; p < n; p++) {
                CHECK(pieces[p].offset == bytes, "%s: layer %d, piece %d", name, i, p);
                bytes += nn_state_piece_count(&pieces[p]) * sizeof(float);
            }
            CHECK(n >= 0 && bytes == branch_state_bytes(branch), "%s: layer %d", name, i);
        }
}

/* mlx-lm keeps no file of what these remember. */
static bool is_refused(const char *name, struct rig *r, const int32_t *tokens)
{
    clm_error err = {0};
    kv_seq *seq;

    if (strcmp(name, "models/deepseek_v41") != 0)
        return false;
    seq = rig_sequence(r);
    CHECK(engine_prefill(r->engine, seq, tokens, 4, 0, NULL, NULL, NULL, &err) == 0, "%s",
          err.message);
    CHECK(cache_file_save(r->engine, seq, temporary_path("first.safetensors"), &origin, &err) &&
              err.code == CLM_ERR_UNSUPPORTED,
          "%s: %s", name, err.message);
    kv_seq_close(seq);
    return true;
}

/* Of one token and of more, with --exact and as the engine keeps it without. */
static void check_round_trips(const char *name, const char *folder)
{
    char path[4400];
    struct golden g;
    struct rig r;
    int32_t tokens[96];
    int n;

    snprintf(path, sizeof path, "%s/golden_base.safetensors", folder);
    if (access(path, R_OK))
        snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    golden_open(&g, path);
    n = g.n_prompt < 48 ? g.n_prompt : 48;
    for (int i = 0; i < 2 * n; i++)
        tokens[i] = g.prompt[i % n];
    for (int exact = 0; exact < 2; exact++) {
        open_rig(&r, folder, exact);
        if (!is_refused(name, &r, tokens)) {
            check_pieces(name, r.model->spec);
            round_trip(&r, name, tokens, 1, 4, exact);
            round_trip(&r, name, tokens, n, 2 * n, exact);
        }
        rig_close(&r);
    }
    golden_close(&g);
}

static void test_round_trips(void **state)
{
    int n;

    (void)state;
    SKIP_IF_NO_SHARED();
    n = visit_fixtures("models", check_round_trips);
    n += visit_fixtures("models_hf", check_round_trips);
    print_message("%d models\n", n);
    CHECK(n >= 100, "%d models", n);
}

/* Longer than windows and blocks, and trimmed to where a window has just its last tokens. */
static void test_windows(void **state)
{
    static const char *const names[] = {"gemma3_text", "llama_sliding", "llama4", "falcon_h1"};
    int32_t tokens[300];
    struct rig r;

    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t i = 0; i < COUNT(names); i++) {
        char folder[128];

        snprintf(folder, sizeof folder, "goldens/models/%s", names[i]);
        CHECK(shared_path(folder), "no %s", folder);
        open_rig(&r, shared_path(folder), true);
        for (size_t t = 0; t < COUNT(tokens); t++)
            tokens[t] = (int32_t)random_below((size_t)r.vocab_size);
        for (int n = 30; n < 290; n += 33)
            round_trip(&r, names[i], tokens, n, n + 9, true);
        rig_close(&r);
    }
}

/* Windows of a few tokens, down to the last one alone. */
static void test_narrow_windows(void **state)
{
    static const int windows[] = {1, 2, 3, 31, 32, 33};
    int32_t tokens[120];

    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t t = 0; t < COUNT(tokens); t++)
        tokens[t] = (int32_t)t % 40;
    for (size_t i = 0; i < COUNT(windows); i++) {
        char old[64], new[64];
        struct rig r;

        snprintf(old, sizeof old, "\"sliding_window\": 6");
        snprintf(new, sizeof new, "\"sliding_window\": %d", windows[i]);
        copy_with_config(shared_path("goldens/models/gemma3_text"), "narrow", old, new);
        open_rig(&r, temporary_path("narrow"), true);
        for (int n = 1; n < 100; n += 32)
            round_trip(&r, "gemma3_text", tokens, n, n + 5, true);
        rig_close(&r);
        temporary_clear();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mlx_caches),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_narrow_windows),
    };

    return cmocka_run_group_tests(tests, cache_files_setup, temporary_teardown);
}
