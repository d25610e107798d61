/* Caches that are quantised, or keep the first tokens and the last: for every golden fixture,
 * however a text is cut into steps, forked, taken back, or mixed with others, it has the same bits;
 * and what the kinds say must hold. */
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "cache_files.h"
#include "format/safetensors.h"
#include "golden.h"

enum { MAX_TOKENS = 90, N_STREAMS = 3 };

static const struct kind {
    const char *name;
    struct engine_options options;
} kinds[] = {
    {"8 bits", {.exact = true, .kv_bits = 8}},
    {"4 bits in groups of 32 from token 32 on",
     {.exact = true, .kv_bits = 4, .kv_group_size = 32, .quantized_kv_start = 20}},
    {"9 tokens", {.exact = true, .max_kv_size = 9}},
    {"40 tokens of 8 bits", {.exact = true, .kv_bits = 8, .max_kv_size = 40}},
    {"5 tokens of 4 bits, not exact", {.kv_bits = 4, .kv_group_size = 128, .max_kv_size = 5}},
};

struct texts {
    const char *name;
    const struct kind *kind;
    struct rig *rig;
    int n;
    int32_t tokens[N_STREAMS][MAX_TOKENS];
    float *want[N_STREAMS], *got;
};

static size_t row_bytes(const struct texts *t)
{
    return (size_t)t->rig->vocab_size * sizeof(float);
}

static void feed(struct texts *t, kv_seq *seq, int stream, int from, int n)
{
    rig_feed(t->rig, seq, t->tokens[stream] + from, n,
             t->got + (size_t)from * (size_t)t->rig->vocab_size);
}

static void check_same(const struct texts *t, int stream, int from, int n, const char *how)
{
    size_t at = (size_t)from * (size_t)t->rig->vocab_size;

    CHECK(!memcmp(t->got + at, t->want[stream] + at, (size_t)n * row_bytes(t)),
          "%s, %s: other bits %s, tokens %d to %d", t->name, t->kind->name, how, from, from + n);
}

/* The prompt of the fixture again and again, and others that part from it later and later. */
static void make_texts(struct texts *t, const struct golden *g)
{
    const struct spec *spec = t->rig->model->spec;
    int room = spec->n_positions ? spec->n_positions - spec->position_offset : MAX_TOKENS;

    t->n = room < MAX_TOKENS ? room : MAX_TOKENS;
    for (int s = 0; s < N_STREAMS; s++)
        for (int i = 0; i < t->n; i++) {
            int at = i < 25 * s ? i : i + s;

            t->tokens[s][i] = g->prompt[at % g->n_prompt];
        }
    t->got = malloc((size_t)t->n * row_bytes(t));
    CHECK(t->got, "no memory");
    for (int s = 0; s < N_STREAMS; s++) {
        kv_seq *seq = rig_sequence(t->rig);

        for (int i = 0; i < t->n; i++)
            feed(t, seq, s, i, 1);
        t->want[s] = malloc((size_t)t->n * row_bytes(t));
        CHECK(t->want[s], "no memory");
        memcpy(t->want[s], t->got, (size_t)t->n * row_bytes(t));
        kv_seq_close(seq);
    }
}

static void check_chunks(struct texts *t)
{
    static const int chunks[] = {MAX_TOKENS, 7, 33};

    for (size_t c = 0; c < COUNT(chunks); c++) {
        kv_seq *seq = rig_sequence(t->rig);

        for (int done = 0; done < t->n; done += chunks[c])
            feed(t, seq, 0, done, chunks[c] < t->n - done ? chunks[c] : t->n - done);
        check_same(t, 0, 0, t->n, "in chunks");
        kv_seq_close(seq);
    }
}

/* Forked at every position, both go on; then one is taken back and goes on once more. */
static void check_forks(struct texts *t)
{
    kv_seq *seq = rig_sequence(t->rig);
    clm_error err = {0};

    for (int i = 1; i < t->n; i++) {
        kv_seq *fork;
        int rest = t->n - i < 9 ? t->n - i : 9, back = i > 5 ? i - 5 : 0;

        feed(t, seq, 0, i - 1, 1);
        fork = kv_seq_fork(seq, &err);
        CHECK(fork, "%s", err.message);
        feed(t, fork, 0, i, rest);
        check_same(t, 0, i, rest, "forked");
        CHECK(engine_trim(t->rig->engine, fork, back, &err) == 0, "%s: %s", t->name, err.message);
        feed(t, fork, 0, back, i - back);
        check_same(t, 0, back, i - back, "taken back");
        kv_seq_close(fork);
    }
    check_same(t, 0, 0, t->n - 1, "beside its forks");
    kv_seq_close(seq);
}

static void check_batches(struct texts *t)
{
    kv_seq *seqs[N_STREAMS];
    int done[N_STREAMS] = {0};
    clm_error err = {0};

    for (int s = 0; s < N_STREAMS; s++)
        seqs[s] = rig_sequence(t->rig);
    for (bool any = true; any;) {
        struct engine_input inputs[N_STREAMS];
        int streams[N_STREAMS], n = 0;
        const float *logits;

        any = false;
        for (int s = 0; s < N_STREAMS; s++) {
            int most = 1 + (int)random_below(random_below(3) ? 3 : 40), left = t->n - done[s];
            int n_tokens = most < left ? most : left;

            any = any || left > 0;
            if (left == 0 || random_below(4) == 0)
                continue;
            streams[n] = s;
            inputs[n++] =
                (struct engine_input){seqs[s], t->tokens[s] + done[s], n_tokens, .n_logits = 1};
        }
        if (!n)
            continue;
        CHECK(engine_step(t->rig->engine, inputs, n, &logits, &err) == 0, "%s", err.message);
        for (int i = 0; i < n; i++) {
            int s = streams[i];

            done[s] += inputs[i].n_tokens;
            CHECK(!memcmp(logits + (size_t)i * (size_t)t->rig->vocab_size,
                          t->want[s] + (size_t)(done[s] - 1) * (size_t)t->rig->vocab_size,
                          row_bytes(t)),
                  "%s, %s: other bits in a batch, token %d", t->name, t->kind->name, done[s]);
        }
    }
    for (int s = 0; s < N_STREAMS; s++)
        kv_seq_close(seqs[s]);
}

/* Kept in a file and loaded again it can go on; with the same bits where all of it is written as it
 * is. */
static void check_file(struct texts *t)
{
    kv_seq *seq = rig_sequence(t->rig), *again;
    clm_error err = {0};
    char path[2048];
    int n = t->n * 2 / 3;

    snprintf(path, sizeof path, "%s", temporary_path("kind.safetensors"));
    feed(t, seq, 0, 0, n);
    if (cache_file_save(t->rig->engine, seq, path, &origin, &err)) {
        CHECK(err.code == CLM_ERR_UNSUPPORTED, "%s: %s", t->name, err.message);
    } else {
        again = load(t->rig, path);
        CHECK(kv_seq_length(again) == n, "%d tokens", kv_seq_length(again));
        feed(t, again, 0, n, t->n - n);
        if (!t->kind->options.kv_bits)
            check_same(t, 0, n, t->n - n, "after a file");
        kv_seq_close(again);
    }
    kv_seq_close(seq);
}

/* Choices of experts and of keys are steps: a little may change a lot. */
static bool chooses(const struct spec *s)
{
    for (int i = 0; i < s->n_layers; i++)
        for (int b = 0; b < s->layers[i].n_branches; b++) {
            const struct branch_spec *branch = &s->layers[i].branches[b];

            if (branch->op == OP_MOE || (branch->op == OP_MLA && branch->mla.index.topk) ||
                (branch->op == OP_ATTENTION && branch->attention.index.topk))
                return true;
        }
    return false;
}

/* Codes of 8 bits put a number off by 1/510 of the range of its group, which is twice its greatest
 * magnitude at most: as if it were off by 1/255. By how much logits are off for relative errors of
 * 1e-6 in every weight the goldens say. */
static double eight_bit_bound(const char *golden_path)
{
    struct safetensors file;
    clm_error err = {0};
    double response = 0;

    CHECK(safetensors_open(&file, golden_path, &err) == 0, "%s", err.message);
    for (size_t i = 0; i < file.n_metadata; i++)
        if (!strcmp(file.metadata[2 * i], "noise_response"))
            response = atof(file.metadata[2 * i + 1]);
    safetensors_close(&file);
    return response * 1e6 / 255;
}

/* What a kind says: enough tokens change nothing, 8 bits little. */
static void check_claims(struct texts *t, const char *path, const struct golden *g, double bound)
{
    const struct engine_options many = {.exact = true, .max_kv_size = MAX_TOKENS};
    const struct engine_options none = {.exact = true};
    clm_error err = {0};
    struct rig a, b, *own = t->rig;
    kv_seq *seq;
    size_t n = (size_t)t->n * (size_t)own->vocab_size;
    float *plain = malloc(n * sizeof *plain);

    CHECK(plain && rig_open_with(&a, path, NULL, 1, &none, &err) == 0 &&
              rig_open_with(&b, path, NULL, 1, &many, &err) == 0,
          "%s", err.message);
    t->rig = &a;
    seq = rig_sequence(&a);
    feed(t, seq, 0, 0, t->n);
    kv_seq_close(seq);
    memcpy(plain, t->got, n * sizeof *plain);
    t->rig = &b;
    seq = rig_sequence(&b);
    feed(t, seq, 0, 0, t->n);
    kv_seq_close(seq);
    CHECK(!memcmp(plain, t->got, n * sizeof *plain), "%s: a bound that is not reached counts",
          t->name);
    t->rig = own;
    CHECK(chooses(own->model->spec) || golden_distance(g, t->want[0], plain, n) <= bound,
          "%s: %s put it off by %.2g, bound %.2g", t->name, t->kind->name,
          golden_distance(g, t->want[0], plain, n), bound);
    free(plain);
    rig_close(&a);
    rig_close(&b);
}

static void check_fixture(const char *name, const char *path, const struct kind *kind)
{
    char golden_path[4400];
    struct golden g;
    struct rig r;
    struct texts t = {.name = name, .kind = kind, .rig = &r};
    clm_error err = {0};

    snprintf(golden_path, sizeof golden_path, "%s/golden.safetensors", path);
    CHECK(rig_open_with(&r, path, NULL, 1, &kind->options, &err) == 0, "%s: %s", name, err.message);
    if (r.model->nn->n_cache_layers) {
        golden_open(&g, golden_path);
        make_texts(&t, &g);
        if (kind->options.exact) {
            check_chunks(&t);
            check_forks(&t);
            check_batches(&t);
        }
        check_file(&t);
        if (kind == &kinds[0])
            check_claims(&t, path, &g, eight_bit_bound(golden_path));
        golden_close(&g);
        for (int s = 0; s < N_STREAMS; s++)
            free(t.want[s]);
        free(t.got);
    }
    CHECK(kv_cache_bytes_used(engine_cache(r.engine)) == 0, "%s: blocks are left", name);
    rig_close(&r);
}

/* Each fixture with one of the kinds, of every kind many fixtures. */
static void test_fixtures(void **state)
{
    struct dirent **entries;
    int n;

    (void)state;
    SKIP_IF_NO_SHARED();
    n = scandir(shared_path("goldens/models"), &entries, NULL, alphasort);
    CHECK(n > 100, "%d fixtures", n);
    for (int i = 0, count = 0; i < n; i++) {
        char path[4300];
        clm_error err = {0};
        struct rig r;

        snprintf(path, sizeof path, "%s/%s/golden.safetensors", shared_path("goldens/models"),
                 entries[i]->d_name);
        /* There the base of the angles depends on how long a step is. */
        if (access(path, R_OK) == 0 && strcmp(entries[i]->d_name, "llama_rope_dynamic") != 0) {
            *strrchr(path, '/') = '\0';
            if (rig_open(&r, path, 1, true, &err) == 0) {
                rig_close(&r);
                check_fixture(entries[i]->d_name, path, &kinds[count++ % (int)COUNT(kinds)]);
            }
        }
        free(entries[i]);
    }
    free(entries);
}

/* Memory does not grow with the text. */
static void test_memory_is_bounded(void **state)
{
    struct engine_options options = {.kv_bits = 4, .max_kv_size = 64};
    char path[4300];
    clm_error err = {0};
    struct rig r;
    kv_seq *seq;
    size_t most = 0;

    (void)state;
    SKIP_IF_NO_SHARED();
    snprintf(path, sizeof path, "%s", shared_path("goldens/models/llama"));
    CHECK(rig_open_with(&r, path, NULL, 1, &options, &err) == 0, "%s", err.message);
    seq = rig_sequence(&r);
    for (int i = 0; i < 4000; i++) {
        float *logits = malloc((size_t)r.vocab_size * sizeof *logits);
        int32_t token = i % r.vocab_size;
        size_t used;

        rig_feed(&r, seq, &token, 1, logits);
        used = kv_cache_bytes_held(engine_cache(r.engine));
        most = i == 200 ? used : most;
        CHECK(i < 200 || used == most, "token %d: %zu bytes, %zu before", i, used, most);
        free(logits);
    }
    kv_seq_close(seq);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_fixtures),
    };

    return cmocka_run_group_tests(tests, cache_files_setup, temporary_teardown);
}
