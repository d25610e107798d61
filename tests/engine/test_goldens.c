/* Every golden fixture of the families that clm serves: against the reference, and against itself:
 * whole, in chunks, on two threads, in ragged batches, forked and trimmed must give the same bits.
 */
#include <stdlib.h>

#include "base/file.h"
#include "copy.h"
#include "families_table.h"
#include "fixtures.h"
#include "golden.h"
#include "rig.h"

/* The fixtures that are not held to all of it, and why. */
static const struct exemption {
    const char *name;
    /* The checkpoint is refused; only whole prompts are compared, and nothing else is done; only
     * the prompt is compared; the tolerance is LOOSE_TOLERANCE; or the reference is that of the
     * same checkpoint with config.json lacking the key; or it is only held against itself. */
    enum { NONE, REFUSED, WHOLE_ONLY, PROMPT_ONLY, LOOSE, WITHOUT_KEY, SELF_ONLY } kind;
    const char *key;
    const char *reason;
} exemptions[] = {
    {"models/plamo3", PROMPT_ONLY, NULL,
     "mlx-lm decodes with a window one position shorter than its prompt's"},
    {"models/llama_rope_dynamic", WHOLE_ONLY, NULL,
     "the base of the angles depends on the length of the call"},
    {"models/muse_spark", LOOSE, NULL,
     "what the first attention and the head read is rounded to bfloat16, which a last bit can tip"},
    {"models/phi3small", SELF_ONLY, NULL,
     "mlx-lm adds its mask, true and false, to the scores: tokens of a prompt see later ones"},
    {"models/mistral_sliding_ignored", WITHOUT_KEY, "sliding_window",
     "mlx-lm ignores the window of a mistral without layer_types; transformers and clm do not"},
};

/* Configs that say the same in other words, as published ones do. */
static const struct rewording {
    const char *name, *key, *other;
} rewordings[] = {
    {"models/deepseek_v2", "\"topk_method\"", "\"scoring_func\": \"softmax\", \"topk_method\""},
};

enum { MAX_STREAM = 320, MAX_STREAMS = 6 };

/* The README's limit, ten times what a sound implementation differs by. */
#define LOOSE_TOLERANCE 1e-3

static int n_failures, n_fixtures;
static double worst_distance;
static char worst_name[64];

/* Like CHECK, but the other fixtures are tried too. */
#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            print_error("%s: ", f->name);                                                          \
            print_error(__VA_ARGS__);                                                              \
            print_error("\n");                                                                     \
            n_failures++;                                                                          \
        }                                                                                          \
    } while (0)

/* Tokens, and what the model gives for each of them when they are fed at once. */
struct stream {
    int n;
    int32_t tokens[MAX_STREAM];
    float *want; /* [n, vocab_size] */
};

struct fixture {
    const char *name; /* "models/llama" */
    const struct exemption *exempt;
    double tolerance;
    char path[4096];
    const char *adapter; /* its folder, or NULL */
    struct golden golden;
    struct rig rig, rig2; /* on one thread and on two */
    int n_streams;
    struct stream streams[MAX_STREAMS];
    float *got; /* [MAX_STREAM, vocab_size] */
};

static const struct exemption *find_exemption(const char *name)
{
    static const struct exemption none = {.kind = NONE};

    for (size_t i = 0; i < COUNT(exemptions); i++)
        if (!strcmp(exemptions[i].name, name))
            return &exemptions[i];
    return &none;
}

static size_t rows_size(const struct fixture *f, int n)
{
    return (size_t)n * (size_t)f->rig.vocab_size * sizeof(float);
}

static bool same_rows(const struct fixture *f, const float *a, const float *b, int n)
{
    return !memcmp(a, b, rows_size(f, n));
}

/* Runs of one sequence */

/* Feed a stream in chunks; f->got has the logits of all its tokens. */
static void run_chunked(struct fixture *f, struct rig *r, const struct stream *s, int chunk)
{
    kv_seq *seq = rig_sequence(r);

    for (int done = 0; done < s->n; done += chunk) {
        int n = chunk < s->n - done ? chunk : s->n - done;

        rig_feed(r, seq, s->tokens + done, n, f->got + (size_t)done * (size_t)r->vocab_size);
    }
    kv_seq_close(seq);
}

/* f->got compared with the reference: the prompt's rows, then those of the decoded tokens. */
static void check_golden(struct fixture *f, const char *how, int n_rows)
{
    const struct golden *g = &f->golden;
    size_t prompt = (size_t)g->n_prompt * (size_t)g->vocab_size;
    size_t decode = (size_t)(n_rows - g->n_prompt) * (size_t)g->vocab_size;
    double distance = golden_distance(g, f->got, g->prompt_logits, prompt);
    double decode_distance =
        golden_distance(g, f->got + prompt, g->decode_logits + g->vocab_size, decode);

    EXPECT(distance <= f->tolerance, "%s: the prompt is off by %.2g deviations", how, distance);
    EXPECT(decode_distance <= f->tolerance, "%s: decoding is off by %.2g deviations", how,
           decode_distance);
    distance = fmax(distance, decode_distance);
    if (distance > worst_distance && f->tolerance <= EXACT_TOLERANCE) {
        worst_distance = distance;
        snprintf(worst_name, sizeof worst_name, "%s", f->name);
    }
}

/* As a user runs it: the prompt in one step, then token by token. */
static void check_prompt_and_decode(struct fixture *f, struct rig *r)
{
    const struct stream *s = &f->streams[0];
    kv_seq *seq = rig_sequence(r);
    int done = f->golden.n_prompt;

    rig_feed(r, seq, s->tokens, done, f->got);
    for (; done < s->n; done++)
        rig_feed(r, seq, s->tokens + done, 1, f->got + (size_t)done * (size_t)r->vocab_size);
    kv_seq_close(seq);
}

/* Whether what the fixture decodes is what the reference does. */
static bool decodes_alike(const struct fixture *f)
{
    return f->exempt->kind != WITHOUT_KEY && f->exempt->kind != SELF_ONLY &&
           f->exempt->kind != PROMPT_ONLY;
}

static void check_alone(struct fixture *f)
{
    static const int chunks[] = {1, 3, 7, MAX_STREAM};
    const struct stream *s = &f->streams[0];

    for (int threads = 1; threads <= 2; threads++) {
        struct rig *r = threads == 1 ? &f->rig : &f->rig2;

        check_prompt_and_decode(f, r);
        if (decodes_alike(f))
            check_golden(f, "prompt and decode", s->n);
        EXPECT(same_rows(f, f->got, s->want, s->n), "decoded on %d threads: other bits", threads);
        for (size_t i = 0; i < COUNT(chunks); i++) {
            run_chunked(f, r, s, chunks[i]);
            EXPECT(same_rows(f, f->got, s->want, s->n), "chunks of %d on %d threads: other bits",
                   chunks[i], threads);
        }
    }
}

/* A step that asks for the logits of its last n_logits tokens alone, behind one of so many tokens
 * that asks for none. */
static void check_asked(struct fixture *f, struct rig *r, int before, int n_logits)
{
    const struct stream *s = &f->streams[0];
    const float *want = s->want + (size_t)(s->n - n_logits) * (size_t)r->vocab_size, *logits = NULL;
    kv_seq *seq = rig_sequence(r);
    struct engine_input silent = {seq, s->tokens, before, .n_logits = 0};
    struct engine_input in = {seq, s->tokens + before, s->n - before, .n_logits = n_logits};
    clm_error err = {0};

    CHECK(before == 0 || engine_step(r->engine, &silent, 1, NULL, &err) == 0, "%s: %s", f->name,
          err.message);
    CHECK(engine_step(r->engine, &in, 1, &logits, &err) == 0, "%s: %s", f->name, err.message);
    EXPECT(same_rows(f, logits, want, n_logits), "%d of %d asked behind %d: other bits", n_logits,
           in.n_tokens, before);
    kv_seq_close(seq);
}

/* Runs of several */

/* A sequence on its way along a stream. */
struct walker {
    const struct stream *stream;
    kv_seq *seq;
    int done;
};

/* A step of a random number of tokens of each walker that is not at its end (or of none of its
 * tokens). The logits of some or all of them are asked for and compared. */
static void step_walkers(struct fixture *f, struct rig *r, struct walker *w, int n, int until)
{
    struct engine_input inputs[2 * MAX_STREAMS];
    struct walker *moved[2 * MAX_STREAMS];
    const float *logits = NULL;
    clm_error err = {0};
    int n_inputs = 0;

    for (int i = 0; i < n; i++) {
        int left = (until < w[i].stream->n ? until : w[i].stream->n) - w[i].done;
        int n_tokens = random_below(3) ? 1 : 1 + (int)random_below(7);

        if (left <= 0 || random_below(5) == 0)
            continue;
        n_tokens = n_tokens < left ? n_tokens : left;
        moved[n_inputs] = &w[i];
        inputs[n_inputs++] = (struct engine_input){
            .seq = w[i].seq,
            .tokens = w[i].stream->tokens + w[i].done,
            .n_tokens = n_tokens,
            .n_logits = random_below(2) ? n_tokens : (int)random_below((size_t)n_tokens + 1),
        };
    }
    if (!n_inputs)
        return;
    CHECK(engine_step(r->engine, inputs, n_inputs, &logits, &err) == 0, "%s: %s", f->name,
          err.message);
    for (int i = 0; i < n_inputs; i++) {
        struct walker *at = moved[i];
        int n_logits = inputs[i].n_logits, first;

        at->done += inputs[i].n_tokens;
        first = at->done - n_logits;
        EXPECT(!n_logits ||
                   same_rows(f, logits, at->stream->want + (size_t)first * (size_t)r->vocab_size,
                             n_logits),
               "ragged batch: other bits at position %d of stream %d", first,
               (int)(at->stream - f->streams));
        logits = logits ? logits + (size_t)n_logits * (size_t)r->vocab_size : NULL;
    }
}

static bool walkers_arrived(const struct walker *w, int n, int until)
{
    for (int i = 0; i < n; i++)
        if (w[i].done < until && w[i].done < w[i].stream->n)
            return false;
    return true;
}

static void walk(struct fixture *f, struct rig *r, struct walker *w, int n, int until)
{
    while (!walkers_arrived(w, n, until))
        step_walkers(f, r, w, n, until);
}

/* All streams in the same batches. Those that begin alike are also forked where they part, and
 * taken back from the end to where they part. */
static void check_together(struct fixture *f, struct rig *r)
{
    struct walker w[2 * MAX_STREAMS] = {{0}};
    clm_error err = {0};
    int n = f->n_streams;

    for (int i = 0; i < n; i++)
        w[i] = (struct walker){.stream = &f->streams[i], .seq = rig_sequence(r)};
    walk(f, r, w, n, f->streams[0].n / 2);
    w[n] = (struct walker){.stream = &f->streams[1], .done = w[0].done};
    w[n].seq = kv_seq_fork(w[0].seq, &err);
    CHECK(w[n].seq, "%s", err.message);
    n++;
    walk(f, r, w, n, MAX_STREAM);
    /* Stream 2 parts from stream 0 five tokens before the end. */
    w[0].stream = &f->streams[2];
    w[0].done = f->streams[0].n - 5;
    CHECK(engine_trim(r->engine, w[0].seq, w[0].done, &err) == 0, "%s: %s", f->name, err.message);
    walk(f, r, w, n, MAX_STREAM);
    for (int i = 0; i < n; i++)
        kv_seq_close(w[i].seq);
    CHECK(kv_cache_bytes_used(engine_cache(r->engine)) == 0, "%s: blocks are left", f->name);
}

/* At every position: a fork that was made there, and one of the whole that is taken back to there,
 * go on as if everything had been computed for them. */

enum { GO_ON = 4 }; /* tokens */

/* Each sequence reads what comes next of the stream, all in one step. */
static void go_on_together(struct fixture *f, struct rig *r, kv_seq *const *seqs, int n,
                           const char *what)
{
    static struct engine_input inputs[MAX_STREAM];
    const struct stream *s = &f->streams[0];
    const float *logits;
    clm_error err = {0};
    int most = engine_max_rows(r->engine) / GO_ON;

    for (int begin = 0; begin < n; begin += most) {
        int count = n - begin < most ? n - begin : most;

        for (int i = 0; i < count; i++) {
            int at = kv_seq_length(seqs[begin + i]), rest = s->n - at < GO_ON ? s->n - at : GO_ON;

            inputs[i] =
                (struct engine_input){seqs[begin + i], s->tokens + at, rest, .n_logits = rest};
        }
        CHECK(engine_step(r->engine, inputs, count, &logits, &err) == 0, "%s: %s", f->name,
              err.message);
        for (int i = 0; i < count; i++) {
            int at = kv_seq_length(inputs[i].seq) - inputs[i].n_tokens;

            EXPECT(same_rows(f, logits, s->want + (size_t)at * (size_t)r->vocab_size,
                             inputs[i].n_tokens),
                   "%s at %d: other bits", what, at);
            logits += (size_t)inputs[i].n_tokens * (size_t)r->vocab_size;
        }
    }
}

static kv_seq *fork_of(const kv_seq *s)
{
    clm_error err = {0};
    kv_seq *fork = kv_seq_fork(s, &err);

    CHECK(fork, "%s", err.message);
    return fork;
}

static void check_every_position(struct fixture *f, struct rig *r)
{
    const struct stream *s = &f->streams[0];
    kv_seq *whole = rig_sequence(r), *forks[MAX_STREAM], *trimmed[MAX_STREAM];
    clm_error err = {0};

    for (int i = 0; i < s->n; i++) {
        forks[i] = fork_of(whole);
        rig_feed(r, whole, s->tokens + i, 1, f->got);
    }
    for (int i = 0; i < s->n; i++) {
        trimmed[i] = fork_of(whole);
        CHECK(engine_trim(r->engine, trimmed[i], i, &err) == 0, "%s: %s", f->name, err.message);
    }
    go_on_together(f, r, forks, s->n, "forked");
    go_on_together(f, r, trimmed, s->n, "trimmed");
    for (int i = 0; i < s->n; i++) {
        kv_seq_close(forks[i]);
        kv_seq_close(trimmed[i]);
    }
    kv_seq_close(whole);
    CHECK(kv_cache_bytes_used(engine_cache(r->engine)) == 0, "%s: blocks are left", f->name);
}

/* Fixtures */

/* The first n_kept tokens of stream 0, then the others backwards. */
static void add_stream(struct fixture *f, int begin, int n_kept)
{
    const struct stream *from = &f->streams[0];
    struct stream *s = &f->streams[f->n_streams++];

    s->n = from->n - begin;
    for (int i = 0; i < s->n; i++)
        s->tokens[i] = from->tokens[i < n_kept ? begin + i : from->n - 1 - (i - n_kept)];
}

static void make_streams(struct fixture *f)
{
    const struct golden *g = &f->golden;
    struct stream *s = &f->streams[0];

    s->n = g->n_prompt + g->n_decode - 1;
    CHECK(s->n <= MAX_STREAM, "%s: %d tokens", f->name, s->n);
    memcpy(s->tokens, g->prompt, (size_t)g->n_prompt * sizeof *s->tokens);
    memcpy(s->tokens + g->n_prompt, g->decode_tokens,
           (size_t)(g->n_decode - 1) * sizeof *s->tokens);
    f->n_streams = 1;
    add_stream(f, 0, s->n / 2);
    add_stream(f, 0, s->n - 5);
    add_stream(f, 0, 0);
    add_stream(f, 1, s->n);
    add_stream(f, s->n - 1, 1);
    for (int i = 0; i < f->n_streams; i++) {
        f->streams[i].want = f->got;
        run_chunked(f, &f->rig, &f->streams[i], MAX_STREAM);
        f->streams[i].want = malloc(rows_size(f, f->streams[i].n));
        CHECK(f->streams[i].want, "no memory");
        memcpy(f->streams[i].want, f->got, rows_size(f, f->streams[i].n));
    }
}

/* The logits of another checkpoint of the same size, whose config.json has other instead of key. */
static void check_reworded(struct fixture *f, const char *key, const char *other)
{
    struct rig r;
    clm_error err = {0};

    copy_with_config(f->path, "reworded", key, other);
    CHECK(rig_open(&r, temporary_path("reworded"), 1, true, &err) == 0, "%s", err.message);
    check_prompt_and_decode(f, &r);
    check_golden(f, "prompt and decode", f->streams[0].n);
    rig_close(&r);
    temporary_clear();
}

static void check_without_key(struct fixture *f)
{
    char key[64], other[64];

    snprintf(key, sizeof key, "\"%s\"", f->exempt->key);
    snprintf(other, sizeof other, "\"_%s\"", f->exempt->key);
    check_reworded(f, key, other);
}

static void check_rewordings(struct fixture *f)
{
    for (size_t i = 0; i < COUNT(rewordings); i++)
        if (!strcmp(rewordings[i].name, f->name))
            check_reworded(f, rewordings[i].key, rewordings[i].other);
}

static void check_whole_prompt(struct fixture *f, struct rig *r)
{
    kv_seq *seq = rig_sequence(r);

    rig_feed(r, seq, f->golden.prompt, f->golden.n_prompt, f->got);
    kv_seq_close(seq);
    check_golden(f, "prompt", f->golden.n_prompt);
}

static void check_served(struct fixture *f)
{
    EXPECT(f->rig.vocab_size == f->golden.vocab_size, "%d words, not %d", f->rig.vocab_size,
           f->golden.vocab_size);
    if (f->rig.vocab_size != f->golden.vocab_size)
        return;
    f->got = malloc(rows_size(f, MAX_STREAM));
    CHECK(f->got, "no memory");
    if (f->exempt->kind == WHOLE_ONLY || f->exempt->kind == PROMPT_ONLY) {
        check_whole_prompt(f, &f->rig);
        check_whole_prompt(f, &f->rig2);
    }
    make_streams(f);
    check_asked(f, &f->rig, 0, 1);
    check_asked(f, &f->rig2, 0, 2);
    if (f->exempt->kind != WHOLE_ONLY) {
        check_asked(f, &f->rig, 0, f->streams[0].n - 1);
        check_asked(f, &f->rig, f->streams[0].n / 2, 1);
        check_asked(f, &f->rig2, 1, 3);
        check_alone(f);
        check_together(f, &f->rig);
        check_together(f, &f->rig2);
        check_every_position(f, &f->rig);
        if (f->exempt->kind == WITHOUT_KEY)
            check_without_key(f);
        check_rewordings(f);
    }
    for (int i = 0; i < f->n_streams; i++)
        free(f->streams[i].want);
    free(f->got);
}

static void check_refused(struct fixture *f)
{
    clm_error err = {0};
    struct rig r;

    if (rig_open(&r, f->path, 1, true, &err))
        EXPECT(err.code == CLM_ERR_UNSUPPORTED || err.code == CLM_ERR_FORMAT, "%s", err.message);
    else
        EXPECT(false, "loads, though it is listed as not supported");
    rig_close(&r);
}

/* Fixtures with an adapter have logits without it in a second file. */
static void open_golden(struct fixture *f)
{
    char path[sizeof f->path + 32];

    snprintf(path, sizeof path, "%s/golden_base.safetensors", f->path);
    if (f->adapter || access(path, R_OK))
        snprintf(path, sizeof path, "%s/golden.safetensors", f->path);
    golden_open(&f->golden, path);
}

static void check_one(const char *name, const char *path, const char *adapter)
{
    struct fixture *f = calloc(1, sizeof *f);
    clm_error err = {0};
    int failures = n_failures;

    CHECK(f, "no memory");
    f->name = name;
    f->adapter = adapter;
    f->exempt = find_exemption(name);
    f->tolerance = f->exempt->kind == LOOSE ? LOOSE_TOLERANCE : EXACT_TOLERANCE;
    snprintf(f->path, sizeof f->path, "%s", path);
    n_fixtures++;
    random_state = 0x5EED;
    if (f->exempt->kind == REFUSED) {
        check_refused(f);
    } else if (rig_open_adapted(&f->rig, path, adapter, 1, true, &err) ||
               rig_open_adapted(&f->rig2, path, adapter, 2, true, &err)) {
        EXPECT(false, "%s", err.message);
    } else {
        open_golden(f);
        check_served(f);
        golden_close(&f->golden);
        if (n_failures == failures)
            table_count(name, f->rig.model->family);
    }
    rig_close(&f->rig);
    rig_close(&f->rig2);
    free(f);
}

static void check_fixture(const char *name, const char *path)
{
    char adapter[4200];

    check_one(name, path, NULL);
    snprintf(adapter, sizeof adapter, "%s/adapters", path);
    if (access(adapter, R_OK) == 0)
        check_one(name, path, adapter);
}

static void check_folder(const char *folder, int at_least)
{
    int n = visit_fixtures(folder, check_fixture);

    CHECK(n >= at_least, "%d fixtures in %s", n, folder);
}

static void check_all(void)
{
    n_failures = n_fixtures = 0;
    worst_distance = 0;
    check_folder("models", 91);
    check_folder("models_hf", 10);
    print_message("%d fixtures; the farthest is %s: %.2g deviations\n", n_fixtures, worst_name,
                  worst_distance);
    CHECK(n_failures == 0, "%d differences", n_failures);
}

/* docs/families.md says what the fixtures show; with CLM_UPDATE_DOCS it is written anew. */
static void check_table(void)
{
    static const char path[] = CLM_SOURCE_DIR "/docs/families.md";
    struct strbuf b = {0};
    clm_error err = {0};
    size_t size = 0;
    char *page;

    strbuf_add_str(&b, table_head);
    table_write(&b);
    strbuf_add_str(&b, table_exempt);
    for (size_t i = 0; i < COUNT(exemptions); i++)
        strbuf_addf(&b, "| `%s` | %s |\n", exemptions[i].name, exemptions[i].reason);
    if (getenv("CLM_UPDATE_DOCS")) {
        file_writer *w = file_writer_open(path, &err);

        CHECK(w && !file_writer_write(w, b.data, b.size, &err) && !file_writer_commit(w, &err),
              "%s", err.message);
    }
    page = file_read(path, 1 << 20, &size, &err);
    CHECK(page, "%s", err.message);
    CHECK(size == b.size && !memcmp(page, b.data, size),
          "docs/families.md is not what the fixtures show: run this test with CLM_UPDATE_DOCS=1");
    mem_free(page);
    strbuf_release(&b);
}

static void test_best_kernels(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    memset(table_counts, 0, sizeof table_counts);
    check_all();
    check_table();
}

/* Held down to the kernels of one instruction set, which this processor must have. */
static void check_held_down(const char *isa)
{
    clm_error err = {0};
    device *d;
    bool has;

    setenv("CLM_CPU", isa, 1);
    d = device_cpu_open(1, &err);
    CHECK(d, "%s", err.message);
    has = !strcmp(device_cpu_isa(d), isa);
    d->ops->close(d);
    if (has)
        check_all();
    unsetenv("CLM_CPU");
    if (!has) {
        print_message("no %s kernels here\n", isa);
        skip();
    }
}

static void test_scalar_kernels(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    check_held_down("scalar");
}

static void test_avx2_kernels(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    check_held_down("avx2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_kernels),
        cmocka_unit_test(test_scalar_kernels),
        cmocka_unit_test(test_avx2_kernels),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
