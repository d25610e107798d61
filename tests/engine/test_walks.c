/* Sequences that go anywhere: fed, forked, taken back to any length to go on with other tokens,
 * left in files and read again, in any order and mixed in steps. Whatever has happened to a
 * sequence, it gives the bits that its tokens give a new one.
 */
#include <stdlib.h>

#include "base/memory.h"
#include "cache_files.h"
#include "fixtures.h"

enum { MAX_TOKENS = 120, MAX_WALKERS = 4 };

static const struct kind {
    const char *name;
    struct engine_options options;
    bool same_from_file; /* not where a file has numbers of what is quantised again from it */
} kinds[] = {
    {"plain", {.exact = true}, true},
    {"8 bits", {.exact = true, .kv_bits = 8, .kv_group_size = 32, .quantized_kv_start = 33}, false},
    {"the first 4 of 13", {.exact = true, .max_kv_size = 13}, true},
    {"4 bits of 47", {.exact = true, .kv_bits = 4, .max_kv_size = 47, .n_first_tokens = 1}, false},
};

struct walker {
    kv_seq *seq;
    int n; /* tokens */
    int32_t tokens[MAX_TOKENS];
    bool from_file;
};

struct walk {
    const char *name;
    const struct kind *kind;
    struct rig *rig;
    int room; /* tokens of a sequence */
    int n_walkers;
    struct walker walkers[MAX_WALKERS];
    float *want; /* [MAX_TOKENS, vocab_size] */
    float *got;  /* [MAX_WALKERS * MAX_TOKENS, vocab_size] */
    bool no_files;
};

static long n_rows, n_trims, n_files, n_refused;

/* What a new sequence gives for all tokens of one. */
static void compute_want(struct walk *w, const int32_t *tokens, int n)
{
    kv_seq *seq = rig_sequence(w->rig);

    rig_feed(w->rig, seq, tokens, n, w->want);
    kv_seq_close(seq);
}

/* Each goes on with some tokens, likely such as others of the walk have too. */
static void step(struct walk *w)
{
    struct engine_input inputs[MAX_WALKERS];
    struct walker *moved[MAX_WALKERS];
    const float *logits = NULL, *row = w->got;
    size_t vocab = (size_t)w->rig->vocab_size;
    clm_error err = {0};
    int n = 0, n_logits = 0;

    for (int i = 0; i < w->n_walkers; i++) {
        struct walker *at = &w->walkers[i];
        int left = w->room - at->n;
        int count = random_below(2) ? 1 : 1 + (int)random_below(random_below(4) ? 8 : 60);

        if (left <= 0 || random_below(3) == 0)
            continue;
        count = count < left ? count : left;
        for (int k = 0; k < count; k++)
            at->tokens[at->n + k] = (int32_t)random_below(random_below(4) ? vocab : 3);
        inputs[n] = (struct engine_input){at->seq, at->tokens + at->n, count,
                                          .n_logits = (int)random_below((size_t)count + 1)};
        n_logits += inputs[n].n_logits;
        moved[n++] = at;
    }
    if (!n)
        return;
    CHECK(engine_step(w->rig->engine, inputs, n, &logits, &err) == 0, "%s, %s: %s", w->name,
          w->kind->name, err.message);
    if (n_logits)
        memcpy(w->got, logits, (size_t)n_logits * vocab * sizeof *w->got);
    for (int i = 0; i < n; i++) {
        struct walker *at = moved[i];
        int count = inputs[i].n_logits;

        at->n += inputs[i].n_tokens;
        if (!count)
            continue;
        compute_want(w, at->tokens, at->n);
        CHECK(!memcmp(row, w->want + (size_t)(at->n - count) * vocab,
                      (size_t)count * vocab * sizeof *row),
              "%s, %s: other bits in the last %d of %d tokens%s", w->name, w->kind->name, count,
              at->n, at->from_file ? ", of a file" : "");
        row += (size_t)count * vocab;
        n_rows += count;
    }
}

static void trim(struct walk *w, struct walker *at)
{
    int back = (int)random_below(random_below(2) ? 6 : (size_t)at->n + 1);
    int n = at->n > back ? at->n - back : 0;
    clm_error err = {0};

    if (engine_trim(w->rig->engine, at->seq, n, &err)) {
        CHECK(at->from_file && err.code == CLM_ERR_ARG && kv_seq_length(at->seq) == at->n,
              "%s, %s: %d of %d: %s", w->name, w->kind->name, n, at->n, err.message);
        n_refused++;
        return;
    }
    CHECK(kv_seq_length(at->seq) == n, "trimmed to %d", kv_seq_length(at->seq));
    at->n = n;
    n_trims++;
}

static void fork_or_close(struct walk *w, struct walker *at)
{
    clm_error err = {0};

    if (w->n_walkers < MAX_WALKERS) {
        struct walker *fork = &w->walkers[w->n_walkers++];

        *fork = *at;
        fork->seq = kv_seq_fork(at->seq, &err);
        CHECK(fork->seq, "%s", err.message);
        return;
    }
    kv_seq_close(at->seq);
    if (random_below(2)) {
        *at = (struct walker){.seq = rig_sequence(w->rig)};
    } else {
        *at = w->walkers[--w->n_walkers];
    }
}

static void leave_in_file(struct walk *w, struct walker *at)
{
    const char *path;
    clm_error err = {0};

    if (w->no_files || at->n == 0)
        return;
    path = temporary_path("walk.safetensors");
    if (cache_file_save(w->rig->engine, at->seq, path, &origin, &err)) {
        CHECK(err.code == CLM_ERR_UNSUPPORTED, "%s, %s: %s", w->name, w->kind->name, err.message);
        w->no_files = true;
        return;
    }
    kv_seq_close(at->seq);
    at->seq = cache_file_load(w->rig->engine, path, &origin, &err);
    CHECK(at->seq, "%s, %s, %d tokens%s: %s", w->name, w->kind->name, at->n,
          at->from_file ? ", of a file" : "", err.message);
    at->from_file = true;
    CHECK(kv_seq_length(at->seq) == at->n, "%s: loaded %d", w->name, kv_seq_length(at->seq));
    n_files++;
    temporary_clear();
}

/* A step that fails: nothing has changed. */
static void fail_step(struct walk *w, struct walker *at)
{
    int32_t tokens[] = {1, w->rig->vocab_size};
    struct engine_input in = {at->seq, tokens, 2, .n_logits = 1};
    const float *logits;
    clm_error err = {0};

    CHECK(engine_step(w->rig->engine, &in, 1, &logits, &err) == -1, "a token too large");
    CHECK(kv_seq_length(at->seq) == at->n, "%s: length", w->name);
}

static void walk_with(const char *name, const char *path, const struct kind *kind)
{
    struct rig r;
    struct walk w = {.name = name, .kind = kind, .rig = &r};
    clm_error err = {0};
    size_t row_bytes;
    int context;

    CHECK(rig_open_with(&r, path, NULL, 1, &kind->options, &err) == 0, "%s: %s", name, err.message);
    context = engine_context(r.engine);
    w.room = context < MAX_TOKENS ? context : MAX_TOKENS;
    row_bytes = (size_t)r.vocab_size * sizeof *w.want;
    w.want = malloc(MAX_TOKENS * row_bytes);
    w.got = malloc(MAX_WALKERS * MAX_TOKENS * row_bytes);
    CHECK(w.want && w.got, "no memory");
    w.no_files = !kind->same_from_file;
    w.walkers[w.n_walkers++].seq = rig_sequence(&r);
    w.walkers[w.n_walkers++].seq = rig_sequence(&r);
    for (int i = 0; i < (test_is_slow() ? 10 : 30); i++) {
        struct walker *at = &w.walkers[random_below((size_t)w.n_walkers)];

        switch (random_below(12)) {
        case 0:
        case 1:
        case 2:
            trim(&w, at);
            break;
        case 3:
            fork_or_close(&w, at);
            break;
        case 4:
            leave_in_file(&w, at);
            break;
        case 5:
            fail_step(&w, at);
            break;
        default:
            step(&w);
        }
    }
    for (int i = 0; i < w.n_walkers; i++)
        kv_seq_close(w.walkers[i].seq);
    CHECK(kv_cache_bytes_used(engine_cache(r.engine)) == 0, "%s: blocks are left", name);
    free(w.want);
    free(w.got);
    rig_close(&r);
}

static void check_fixture(const char *name, const char *path)
{
    static int count;

    /* There the base of the angles depends on how long a step is. */
    if (!strcmp(name, "models/llama_rope_dynamic"))
        return;
    random_state = 0x5EED + (uint64_t)count;
    walk_with(name, path, &kinds[count++ % (int)COUNT(kinds)]);
}

static void test_fixtures(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    CHECK(visit_fixtures("models", check_fixture) >= 91, "fixtures are missing");
    CHECK(visit_fixtures("models_hf", check_fixture) >= 10, "fixtures are missing");
    print_message("%ld rows compared, %ld trims, %ld files, %ld lengths not gone back to\n", n_rows,
                  n_trims, n_files, n_refused);
    CHECK(n_rows && n_trims && n_files, "some of it was not tried");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixtures),
    };

    return cmocka_run_group_tests(tests, cache_files_setup, temporary_teardown);
}
