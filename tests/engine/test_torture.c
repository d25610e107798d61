/* Every allocation fails in turn: while a model is opened, in steps, while a cache is saved and
 * loaded. Each time an error says so, nothing is lost, and the same thing done again gives what it
 * gives without a failure.
 */
#include "base/memory.h"
#include "cache_files.h"

enum { N_TOKENS = 44, N_PREFIX = 37 }; /* more than a block of the cache, and a part of one */

static const struct subject {
    const char *name;
    const char *adapter; /* in its folder, or NULL */
    bool no_file;        /* cannot be saved */
} subjects[] = {
    {"llama", NULL, false},
    {"mixtral", NULL, false},
    {"llama_sliding", NULL, false},
    {"llama4", NULL, false},
    {"gemma3n", NULL, false},
    {"deepseek_v3", NULL, false},
    {"deepseek_v32", NULL, false},
    {"mamba2", NULL, false},
    {"falcon_h1", NULL, false},
    {"qwen3_next", NULL, false},
    {"rwkv7", NULL, false},
    {"kimi_k3", NULL, false},
    {"q_llama_affine_b4_g64", NULL, false},
    {"hf_gptq_llama", NULL, false},
    {"q_gpt_oss_mxfp4", NULL, false},
    {"lora_q4_llama", "adapters", false},
    {"deepseek_v41", NULL, true},
};

struct torture {
    const char *name;
    char folder[4096], adapter[4200], file[2048];
    const char *adapter_path; /* NULL: none */
    struct rig rig;           /* its engine is opened anew in each attempt */
    int32_t tokens[N_TOKENS];
    float *want;    /* [N_TOKENS, vocab_size] */
    long n;         /* the allocation that fails */
    int n_failures; /* in this attempt */
    bool no_file;
    int n_lost; /* steps that have lost states */
};

static long n_failed; /* allocations, all together */

/* Whether something that has failed is to be done again: for want of memory, and once. */
static bool again(struct torture *t, bool failed, clm_error *err, const char *what)
{
    if (!failed)
        return false;
    CHECK(err->code == CLM_ERR_NOMEM && err->message[0] && t->n_failures == 0,
          "%s, allocation %ld: %s: error %d, %s", t->name, t->n, what, err->code, err->message);
    t->n_failures++;
    *err = (clm_error){0};
    return true;
}

/* What is done with one allocation failing, until none does. */
static void torture(struct torture *t, void (*attempt)(struct torture *t), const char *what)
{
    bool failed = true;

    for (t->n = 0; failed; t->n++) {
        long before = mem_live();

        t->n_failures = 0;
        mem_fail_after(t->n);
        attempt(t);
        failed = mem_fail_after(-1);
        CHECK(mem_live() == before, "%s: %s: %ld allocations are left after allocation %ld failed",
              t->name, what, mem_live() - before, t->n);
    }
    CHECK(t->n > 1, "%s: %s allocates nothing", t->name, what);
    n_failed += t->n - 1;
}

/* Parts of an attempt; each is done again where it fails */

static void open_engine(struct torture *t)
{
    struct engine_options options = {.exact = true};
    clm_error err = {0};

    do
        t->rig.engine = engine_open(t->rig.model, &options, &err);
    while (again(t, !t->rig.engine, &err, "engine_open"));
}

static void close_engine(struct torture *t)
{
    CHECK(kv_cache_bytes_used(engine_cache(t->rig.engine)) == 0, "%s: blocks are left after %ld",
          t->name, t->n);
    engine_close(t->rig.engine);
    t->rig.engine = NULL;
}

static kv_seq *open_sequence(struct torture *t)
{
    clm_error err = {0};
    kv_seq *s;

    do
        s = kv_seq_open(engine_cache(t->rig.engine), &err);
    while (again(t, !s, &err, "kv_seq_open"));
    return s;
}

static kv_seq *fork_sequence(struct torture *t, const kv_seq *from)
{
    clm_error err = {0};
    kv_seq *s;

    do
        s = kv_seq_fork(from, &err);
    while (again(t, !s, &err, "kv_seq_fork"));
    return s;
}

/* The logits of the next token. */
static void check_next(struct torture *t, kv_seq *seq)
{
    int at = kv_seq_length(seq);
    struct engine_input input = {seq, t->tokens + at, 1, .n_logits = 1};
    size_t row = (size_t)t->rig.vocab_size;
    const float *logits;
    clm_error err = {0};

    CHECK(engine_step(t->rig.engine, &input, 1, &logits, &err) == 0, "%s", err.message);
    CHECK(!memcmp(logits, t->want + row * (size_t)at, row * sizeof *logits),
          "%s: other logits after allocation %ld failed", t->name, t->n);
}

/* Whatever has become of its states, a sequence can be saved; the caller goes on with it. */
static void check_lost(struct torture *t, const kv_seq *seq)
{
    const char *path = temporary_path("lost.safetensors");
    clm_error err = {0};
    kv_seq *loaded;

    if (kv_seq_is_whole(seq))
        return;
    t->n_lost++;
    if (t->no_file)
        return;
    CHECK(cache_file_save(t->rig.engine, seq, path, &origin, &err) == 0, "%s", err.message);
    loaded = cache_file_load(t->rig.engine, path, &origin, &err);
    CHECK(loaded, "%s", err.message);
    check_next(t, loaded);
    kv_seq_close(loaded);
    CHECK(!kv_seq_is_whole(seq), "saving has changed a sequence");
}

/* A step of sequences that have read t->tokens, each n[i] of them further. */
static void step(struct torture *t, kv_seq *const *seqs, const int *n, int n_seqs)
{
    struct engine_input inputs[2];
    int before[2];
    clm_error err = {0};
    const float *logits;

    for (int i = 0; i < n_seqs; i++) {
        before[i] = kv_seq_length(seqs[i]);
        inputs[i] = (struct engine_input){seqs[i], t->tokens + before[i], n[i], .n_logits = n[i]};
    }
    while (again(t, engine_step(t->rig.engine, inputs, n_seqs, &logits, &err), &err, "engine_step"))
        for (int i = 0; i < n_seqs; i++) {
            CHECK(kv_seq_length(seqs[i]) == before[i], "%s: a failed step has added %d tokens",
                  t->name, kv_seq_length(seqs[i]) - before[i]);
            check_lost(t, seqs[i]);
        }
    for (int i = 0; i < n_seqs; i++) {
        size_t row = (size_t)t->rig.vocab_size, size = row * (size_t)n[i];

        CHECK(!memcmp(logits, t->want + row * (size_t)before[i], size * sizeof *logits),
              "%s: other logits after allocation %ld failed", t->name, t->n);
        logits += size;
    }
}

static void step_one(struct torture *t, kv_seq *seq, int n)
{
    step(t, &seq, &n, 1);
}

/* An engine_trim that fails has forgotten more than it should, not less. */
static void trim(struct torture *t, kv_seq *seq, int n)
{
    clm_error err = {0};

    if (again(t, engine_trim(t->rig.engine, seq, n, &err), &err, "engine_trim")) {
        int length = kv_seq_length(seq);

        if (length > n)
            CHECK(engine_trim(t->rig.engine, seq, n, &err) == 0, "%s: %s", t->name, err.message);
        else if (length < n)
            step_one(t, seq, n - length);
    }
    CHECK(kv_seq_length(seq) == n, "%s: trimmed to %d", t->name, kv_seq_length(seq));
}

/* Attempts */

static void attempt_load(struct torture *t)
{
    struct rig r;
    clm_error err = {0};

    if (again(t, rig_open_adapted(&r, t->folder, t->adapter_path, 1, true, &err), &err, "opening"))
        CHECK(rig_open_adapted(&r, t->folder, t->adapter_path, 1, true, &err) == 0, "%s: %s",
              t->name, err.message);
    rig_close(&r);
}

/* A prompt, a fork of its sequence, a step of both, which copies the block that they share, and
 * back again. */
static void attempt_steps(struct torture *t)
{
    static const int further[] = {1, 2};
    kv_seq *seqs[2];

    open_engine(t);
    seqs[0] = open_sequence(t);
    step_one(t, seqs[0], N_PREFIX);
    seqs[1] = fork_sequence(t, seqs[0]);
    step(t, seqs, further, 2);
    trim(t, seqs[0], N_PREFIX - 7);
    step(t, seqs, further, 2);
    kv_seq_close(seqs[0]);
    step_one(t, seqs[1], 1);
    kv_seq_close(seqs[1]);
    close_engine(t);
}

/* Single tokens, whose states stay where they are, beside longer inputs for which a pass needs more
 * memory in its middle. */
static void attempt_single_steps(struct torture *t)
{
    static const int further[] = {1, N_PREFIX};
    kv_seq *seqs[2];

    open_engine(t);
    seqs[0] = open_sequence(t);
    step_one(t, seqs[0], 2);
    step_one(t, seqs[0], 1);
    seqs[1] = open_sequence(t);
    step(t, seqs, further, 2);
    for (int i = 0; i < 4; i++)
        step(t, seqs, (const int[]){1, 1}, 2);
    kv_seq_close(seqs[0]);
    kv_seq_close(seqs[1]);
    close_engine(t);
}

static bool same_as_before(const char *path, const struct file_map *before)
{
    struct file_map now;
    clm_error err = {0};
    bool same;

    CHECK(file_map(&now, path, &err) == 0, "%s", err.message);
    same = now.size == before->size && !memcmp(now.data, before->data, now.size);
    file_unmap(&now);
    return same;
}

/* Over a file that is there, which is the old one or the new one: they are alike. */
static void attempt_save(struct torture *t)
{
    struct file_map before = {0};
    clm_error err = {0};
    int n_files = temporary_count();
    kv_seq *seq;

    open_engine(t);
    seq = open_sequence(t);
    step_one(t, seq, N_PREFIX);
    CHECK(file_map(&before, t->file, &err) == 0, "%s", err.message);
    while (again(t, cache_file_save(t->rig.engine, seq, t->file, &origin, &err), &err, "saving"))
        CHECK(temporary_count() == n_files, "%s: a temporary file is left", t->name);
    CHECK(same_as_before(t->file, &before) && temporary_count() == n_files,
          "%s: another file after allocation %ld failed", t->name, t->n);
    file_unmap(&before);
    kv_seq_close(seq);
    close_engine(t);
}

static void attempt_load_cache(struct torture *t)
{
    clm_error err = {0};
    kv_seq *seq;

    open_engine(t);
    do
        seq = cache_file_load(t->rig.engine, t->file, &origin, &err);
    while (again(t, !seq, &err, "loading"));
    step_one(t, seq, N_TOKENS - N_PREFIX);
    kv_seq_close(seq);
    close_engine(t);
}

/* Of what allocators do not see: files that stay mapped or open; 0 where /proc does not tell. */
static int count_lines_with(const char *path, const char *text)
{
    FILE *f = fopen(path, "r");
    char line[8192];
    int n = 0;

    if (!f)
        return 0;
    while (fgets(line, sizeof line, f))
        n += strstr(line, text) != NULL;
    fclose(f);
    return n;
}

static int count_open_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int n = 0;

    if (!folder)
        return 0;
    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

static void open_torture(struct torture *t, const struct subject *s)
{
    char goldens[128];
    clm_error err = {0};
    kv_seq *seq;
    size_t size;

    *t = (struct torture){.name = s->name, .no_file = s->no_file};
    snprintf(goldens, sizeof goldens, "goldens/models/%s", s->name);
    CHECK(shared_path(goldens) && realpath(shared_path(goldens), t->folder), "no %s", goldens);
    if (s->adapter) {
        snprintf(t->adapter, sizeof t->adapter, "%s/%s", t->folder, s->adapter);
        t->adapter_path = t->adapter;
    }
    snprintf(t->file, sizeof t->file, "%s", temporary_path("cache.safetensors"));
    CHECK(rig_open_adapted(&t->rig, t->folder, t->adapter_path, 1, true, &err) == 0, "%s",
          err.message);
    size = (size_t)N_TOKENS * (size_t)t->rig.vocab_size * sizeof *t->want;
    t->want = malloc(size);
    CHECK(t->want, "no memory");
    for (int i = 0; i < N_TOKENS; i++)
        t->tokens[i] = (7 * i + 3) % t->rig.vocab_size;
    seq = rig_sequence(&t->rig);
    rig_feed(&t->rig, seq, t->tokens, N_PREFIX, t->want);
    if (!s->no_file)
        save(&t->rig, seq, t->file);
    rig_feed(&t->rig, seq, t->tokens + N_PREFIX, N_TOKENS - N_PREFIX,
             t->want + (size_t)N_PREFIX * (size_t)t->rig.vocab_size);
    kv_seq_close(seq);
    close_engine(t);
}

static void close_torture(struct torture *t)
{
    rig_close(&t->rig);
    free(t->want);
    temporary_clear();
}

static bool has_states(const struct torture *t)
{
    return t->rig.model->nn->parts[0].state_bytes > 0;
}

static void test_all(void **state)
{
    int n_files;

    (void)state;
    SKIP_IF_NO_SHARED();
    n_files = count_open_files();
    for (size_t i = 0; i < COUNT(subjects); i++) {
        struct torture *t = calloc(1, sizeof *t);
        long live = mem_live();

        CHECK(t, "no memory");
        open_torture(t, &subjects[i]);
        torture(t, attempt_load, "opening a model");
        torture(t, attempt_steps, "steps");
        torture(t, attempt_single_steps, "single steps");
        CHECK(!has_states(t) || t->n_lost > 0, "%s: no step has lost states", t->name);
        if (!subjects[i].no_file) {
            torture(t, attempt_save, "saving");
            torture(t, attempt_load_cache, "loading");
        }
        close_torture(t);
        CHECK(mem_live() == live, "%s: %ld allocations are left", t->name, mem_live() - live);
        CHECK(count_lines_with("/proc/self/maps", t->folder) == 0, "%s stays mapped", t->name);
        CHECK(count_lines_with("/proc/self/maps", t->file) == 0, "%s stays mapped", t->file);
        CHECK(count_open_files() == n_files, "%s: files stay open", t->name);
        free(t);
    }
    print_message("%zu models, %ld allocations failed\n", COUNT(subjects), n_failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all),
    };

    return cmocka_run_group_tests(tests, cache_files_setup, temporary_teardown);
}
