/* The folder of an index of prefixes: what was written is found again and continues bit by bit,
 * whatever was killed, cut off or put there; and the folder stays within its bytes. */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/file.h"
#include "cache_files.h"
#include "prefixes.h"

static struct prefix_limits in_folder(size_t bytes)
{
    static char path[2048];

    snprintf(path, sizeof path, "%s", temporary_path("caches"));
    return (struct prefix_limits){.folder = path, .folder_bytes = bytes};
}

static kv_seq *evaluated(struct rig *r, const int32_t *tokens, int n)
{
    kv_seq *s = rig_sequence(r);
    clm_error err = {0};

    CHECK(engine_prefill(r->engine, s, tokens, n, 0, NULL, NULL, NULL, &err) == 0, "%s",
          err.message);
    return s;
}

static void put(struct rig *r, prefix_index *x, const int32_t *tokens, int n)
{
    kv_seq *s = evaluated(r, tokens, n);

    insert(x, s);
    kv_seq_close(s);
}

/* What follows a prompt, without any cache. */
static void fresh_logits(struct rig *r, const int32_t *prompt, int n, float *out)
{
    kv_seq *s = rig_sequence(r);
    float *rows = malloc((size_t)n * (size_t)r->vocab_size * sizeof *rows);

    CHECK(rows, "no memory");
    rig_feed(r, s, prompt, n, rows);
    memcpy(out, rows + (size_t)(n - 1) * (size_t)r->vocab_size,
           (size_t)r->vocab_size * sizeof *out);
    free(rows);
    kv_seq_close(s);
}

/* The number of tokens that are there already; what follows is what it must be. */
static int check_prompt(struct rig *r, prefix_index *x, const int32_t *prompt, int n)
{
    size_t row = (size_t)r->vocab_size * sizeof(float);
    float *want = malloc(row), *got = malloc((size_t)n * row);
    kv_seq *s = lookup(x, prompt, n, NULL);
    int kept = kv_seq_length(s);

    CHECK(want && got, "no memory");
    fresh_logits(r, prompt, n, want);
    rig_feed(r, s, prompt + kept, n - kept, got);
    CHECK(!memcmp(want, got + (size_t)(n - kept - 1) * (size_t)r->vocab_size, row),
          "other bits after %d of %d tokens", kept, n);
    free(want);
    free(got);
    kv_seq_close(s);
    return kept;
}

static int n_files(void)
{
    DIR *folder = opendir(temporary_path("caches"));
    const struct dirent *entry;
    int n = 0;

    CHECK(folder, "no folder");
    while ((entry = readdir(folder)))
        n += entry->d_name[0] != '.';
    closedir(folder);
    return n;
}

static size_t n_bytes(void)
{
    DIR *folder = opendir(temporary_path("caches"));
    const struct dirent *entry;
    size_t bytes = 0;

    CHECK(folder, "no folder");
    while ((entry = readdir(folder))) {
        char path[4400];
        struct stat st;

        snprintf(path, sizeof path, "%s/%s", temporary_path("caches"), entry->d_name);
        if (stat(path, &st) == 0 && S_ISREG(st.st_mode))
            bytes += (size_t)st.st_size;
    }
    closedir(folder);
    return bytes;
}

/* The path of the i-th file in the folder. */
static const char *file_at(int i)
{
    static char path[4400];
    struct dirent **entries;
    int n = scandir(temporary_path("caches"), &entries, NULL, alphasort);

    CHECK(n >= i + 3, "no file %d", i);
    snprintf(path, sizeof path, "%s/%s", temporary_path("caches"), entries[i + 2]->d_name);
    while (n)
        free(entries[--n]);
    free(entries);
    return path;
}

/* Kinds of memory */

/* Evicted, and found again by the same index, and by another engine's. */
static void check_kind(const char *name)
{
    enum { N = 70 };
    struct rig r;
    prefix_index *x;
    int32_t tokens[N + 2];

    temporary_clear();
    open_kind(&r, name);
    random_tokens(tokens, N + 2, r.vocab_size);
    x = open_index(&r, in_folder(0));
    put(&r, x, tokens, N);
    prefix_index_evict(x, SIZE_MAX);
    CHECK(prefix_index_stats(x).bytes == 0 && prefix_index_stats(x).files == 1 && n_files() == 1,
          "%s: %d files", name, n_files());
    CHECK(check_prompt(&r, x, tokens, N + 2) == N, "%s: not found again", name);
    CHECK(prefix_index_stats(x).entries == 1, "%s: not brought back", name);
    close_all(&r, x);
    for (int n = N - 30; n <= N; n += 10) {
        bool freely;
        int kept;

        open_kind(&r, name);
        x = open_index(&r, in_folder(0));
        freely = kv_cache_past_point(engine_cache(r.engine), N, n) == n;
        tokens[n] = (tokens[n] + 1) % r.vocab_size;
        kept = check_prompt(&r, x, tokens, n + 2);
        CHECK(kept == (freely ? n : 0), "%s: %d of %d", name, kept, n);
        tokens[n] = (tokens[n] + r.vocab_size - 1) % r.vocab_size;
        close_all(&r, x);
    }
}

static void test_kinds(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t k = 0; k < COUNT(kinds); k++)
        if (strcmp(kinds[k], "deepseek_v41") != 0) /* of which there are no files */
            check_kind(kinds[k]);
}

static int n_warnings;

static void count_warning(void *ctx, enum log_level level, const char *message)
{
    (void)ctx;
    (void)message;
    n_warnings += level == LOG_WARNING;
}

/* A model that files cannot hold: the index works, and says so once. */
static void test_no_file_of_it(void **state)
{
    static const struct log log = {count_warning, NULL};
    struct prefix_limits limits = in_folder(0);
    struct rig r;
    prefix_index *x;
    int32_t tokens[50];

    (void)state;
    SKIP_IF_NO_SHARED();
    temporary_clear();
    limits.log = &log;
    open_kind(&r, "deepseek_v41");
    random_tokens(tokens, 50, r.vocab_size);
    x = open_index(&r, limits);
    for (int i = 0; i < 3; i++) {
        tokens[0] = i;
        put(&r, x, tokens, 40);
        CHECK(check_prompt(&r, x, tokens, 50) == 40, "not found");
    }
    prefix_index_write(x);
    CHECK(n_warnings == 1 && n_files() == 0, "%d warnings", n_warnings);
    close_all(&r, x);
}

/* Numbers of another kind are another cache. */
static void test_identity(void **state)
{
    struct rig exact, fast;
    prefix_index *x;
    clm_error err = {0};
    int32_t tokens[50];

    (void)state;
    SKIP_IF_NO_SHARED();
    temporary_clear();
    open_kind(&exact, "llama");
    random_tokens(tokens, 50, exact.vocab_size);
    x = open_index(&exact, in_folder(0));
    put(&exact, x, tokens, 40);
    prefix_index_write(x);
    close_all(&exact, x);
    CHECK(rig_open(&fast, shared_path("goldens/models/llama"), 1, false, &err) == 0, "%s",
          err.message);
    x = open_index(&fast, in_folder(0));
    CHECK(n_files() == 1 && check_prompt(&fast, x, tokens, 50) == 0, "taken from another mode");
    close_all(&fast, x);
    open_kind(&exact, "llama_sliding");
    x = open_index(&exact, in_folder(0));
    CHECK(check_prompt(&exact, x, tokens, 50) == 0, "taken from another model");
    close_all(&exact, x);
}

/* Bytes */

static void test_bytes(void **state)
{
    enum { N = 12, EACH = 100 };
    int32_t tokens[N][EACH + 1];
    struct rig r;
    prefix_index *x;
    size_t limit;

    (void)state;
    SKIP_IF_NO_SHARED();
    temporary_clear();
    open_kind(&r, "llama");
    limit = 5 * EACH * kv_cache_bytes_per_token(engine_cache(r.engine));
    for (int i = 0; i < N; i++) {
        random_tokens(tokens[i], EACH + 1, r.vocab_size);
        tokens[i][0] = i;
    }
    x = open_index(&r, in_folder(limit));
    for (int i = 0; i < N; i++) {
        put(&r, x, tokens[i], EACH);
        prefix_index_evict(x, SIZE_MAX);
        CHECK(n_bytes() <= limit, "%zu bytes in the folder of %zu", n_bytes(), limit);
        /* The first one is in use. */
        CHECK(check_prompt(&r, x, tokens[0], EACH + 1) == EACH, "%d: what is used has gone", i);
        prefix_index_evict(x, SIZE_MAX);
    }
    CHECK(check_prompt(&r, x, tokens[1], EACH + 1) == 0 &&
              check_prompt(&r, x, tokens[N - 1], EACH + 1) == EACH && n_files() >= 3,
          "the wrong ones have gone: %d files", n_files());
    close_all(&r, x);
}

/* Of a growing text the longest file alone is kept where it has all of the others. */
static void test_growing(void **state)
{
    int32_t tokens[121];
    struct rig r;
    prefix_index *x;

    (void)state;
    SKIP_IF_NO_SHARED();
    temporary_clear();
    open_kind(&r, "llama");
    random_tokens(tokens, 121, r.vocab_size);
    x = open_index(&r, in_folder(0));
    for (int n = 40; n <= 120; n += 20) {
        put(&r, x, tokens, n);
        prefix_index_evict(x, SIZE_MAX);
        CHECK(n_files() == 1 && prefix_index_stats(x).files == 1, "%d files", n_files());
    }
    put(&r, x, tokens, 50);
    prefix_index_write(x);
    CHECK(n_files() == 1, "a shorter one was written");
    CHECK(check_prompt(&r, x, tokens, 121) == 120, "not found");
    close_all(&r, x);
}

/* A full pool: what is idle makes room for what is read. Rows too short for groups of the cache
 * are written as numbers: they are copied into it. */
static void test_full_pool(void **state)
{
    enum { EACH = 200 };
    int32_t tokens[2][EACH + 1];
    struct engine_options options = {.exact = true, .kv_bits = 8};
    struct rig r;
    prefix_index *x;
    clm_error err = {0};

    (void)state;
    SKIP_IF_NO_SHARED();
    temporary_clear();
    open_kind(&r, "llama");
    for (int i = 0; i < 2; i++) {
        engine_close(r.engine);
        r.engine = engine_open(r.model, &options, &err);
        CHECK(r.engine, "%s", err.message);
        options.cache_bytes = 320 * kv_cache_bytes_per_token(engine_cache(r.engine));
    }
    x = open_index(&r, in_folder(0));
    for (int i = 0; i < 2; i++) {
        random_tokens(tokens[i], EACH + 1, r.vocab_size);
        tokens[i][0] = i;
        put(&r, x, tokens[i], EACH);
        prefix_index_evict(x, SIZE_MAX);
    }
    for (int i = 0; i < 4; i++) {
        kv_seq *s = lookup(x, tokens[i % 2], EACH + 1, NULL);

        CHECK(kv_seq_length(s) == EACH && prefix_index_stats(x).entries == 1, "%d: %d tokens", i,
              kv_seq_length(s));
        kv_seq_close(s);
    }
    close_all(&r, x);
}

/* What others do */

/* The i-th text of a few that share beginnings, and its length. */
static int text_of(int i, int32_t tokens[128])
{
    int n = 40 + i * 7 % 60;

    for (int t = 0; t < 128; t++)
        tokens[t] = t < 30 ? t % 9 : (i * 31 + t * (i + 3)) % 40;
    return n;
}

enum { N_TEXTS = 12 };

static void fill(struct rig *r, prefix_index *x)
{
    int32_t tokens[128];

    for (int i = 0; i < N_TEXTS; i++)
        put(r, x, tokens, text_of(i, tokens));
    prefix_index_write(x);
}

static void check_texts(struct rig *r, prefix_index *x)
{
    int32_t tokens[128];

    for (int i = 0; i < N_TEXTS; i++)
        check_prompt(r, x, tokens, text_of(i, tokens) + 3);
}

/* Cut off, overwritten, replaced by one another, and removed. */
static void damage(int way)
{
    const char *path = file_at((int)random_below(4));
    char other[4400];
    FILE *f;
    long size;

    snprintf(other, sizeof other, "%s", file_at(5));
    path = file_at((int)random_below(4));
    if (way == 0) {
        CHECK(unlink(path) == 0, "%s", path);
        return;
    }
    if (way == 1) {
        CHECK(rename(other, path) == 0, "%s", path);
        return;
    }
    f = fopen(path, "r+b");
    CHECK(f && fseek(f, 0, SEEK_END) == 0, "%s", path);
    size = ftell(f);
    if (way == 2) {
        CHECK(ftruncate(fileno(f), (off_t)random_below((size_t)size)) == 0, "%s", path);
    } else {
        /* The header; keys and values carry no sum. */
        CHECK(fseek(f, (long)random_below(600), SEEK_SET) == 0, "%s", path);
        for (int i = 0; i < 8; i++)
            fputc((int)random_below(256), f);
    }
    fclose(f);
}

static void test_damage(void **state)
{
    static const char *const some[] = {"llama", "falcon_h1"};
    struct rig r;

    (void)state;
    SKIP_IF_NO_SHARED();
    for (int i = 0; i < 40; i++) {
        prefix_index *x, *later;

        temporary_clear();
        open_kind(&r, some[i / 4 % 2]);
        x = open_index(&r, in_folder(0));
        fill(&r, x);
        temporary_write("caches/readme.txt", "not a cache");
        temporary_write("caches/clm-0123456789abcdef-0123456789abcdef.safetensors", "nor this");
        prefix_index_evict(x, SIZE_MAX);
        for (int k = 0; k < 3; k++)
            damage(i % 4);
        later = open_index(&r, in_folder(0));
        check_texts(&r, later);
        check_texts(&r, x);
        /* Whatever it was, it can be written anew. */
        fill(&r, later);
        prefix_index_evict(later, SIZE_MAX);
        check_texts(&r, later);
        CHECK(access(temporary_path("caches/readme.txt"), R_OK) == 0, "a foreign file has gone");
        prefix_index_close(later);
        close_all(&r, x);
    }
}

/* What a writer that died has left goes when room is made, but not while it may be at work. */
static void test_abandoned(void **state)
{
    static const char old[] = "caches/clm-0123456789abcdef-0123456789abcdef.safetensors.1-2.tmp";
    static const char new[] = "caches/clm-0123456789abcdef-0123456789abcdef.safetensors.3-4.tmp";
    const struct timespec long_ago[2] = {{1, 0}, {1, 0}};
    struct rig r;
    prefix_index *x;

    (void)state;
    SKIP_IF_NO_SHARED();
    temporary_clear();
    temporary_write(old, "");
    temporary_write(new, "");
    CHECK(utimensat(AT_FDCWD, temporary_path(old), long_ago, 0) == 0, "no time");
    open_kind(&r, "llama");
    x = open_index(&r, in_folder(1 << 20));
    fill(&r, x);
    CHECK(access(temporary_path(old), F_OK) && !access(temporary_path(new), F_OK), "temporaries");
    close_all(&r, x);
}

/* Random work on the folder until the process is killed, or is done. */
static void work(unsigned seed, int rounds)
{
    struct rig r;
    prefix_index *x;
    int32_t tokens[128];

    setenv("CMOCKA_TEST_ABORT", "1", 1);
    random_state = seed;
    open_kind(&r, seed % 2 ? "llama" : "falcon_h1");
    x = open_index(&r, in_folder(100000));
    for (int i = 0; i < rounds; i++) {
        int n = text_of((int)random_below(N_TEXTS), tokens);

        check_prompt(&r, x, tokens, n + 1);
        put(&r, x, tokens, n);
        if (random_below(3) == 0)
            prefix_index_evict(x, SIZE_MAX);
    }
    prefix_index_write(x);
    close_all(&r, x);
}

/* Both models, two processes each, one of which is killed and replaced again and again. */
static void test_processes(void **state)
{
    pid_t steady[2], killed[2];
    struct rig r;

    (void)state;
    SKIP_IF_NO_SHARED();
    temporary_clear();
    for (unsigned i = 0; i < 2; i++) {
        steady[i] = fork();
        if (!steady[i]) {
            work(i + 2, 150);
            _exit(0);
        }
    }
    for (unsigned k = 0; k < 20; k++) {
        for (unsigned i = 0; i < 2; i++) {
            killed[i] = fork();
            if (!killed[i]) {
                alarm(60); /* should who is to kill it be gone */
                work(100 + 2 * k + i, 1000000);
                _exit(0);
            }
        }
        usleep(3000 + (useconds_t)random_below(40000));
        for (int i = 0; i < 2; i++) {
            int status;

            kill(killed[i], SIGKILL);
            CHECK(waitpid(killed[i], &status, 0) == killed[i] && WIFSIGNALED(status) &&
                      WTERMSIG(status) == SIGKILL,
                  "it has failed before it was killed");
        }
    }
    for (int i = 0; i < 2; i++) {
        int status;

        CHECK(waitpid(steady[i], &status, 0) == steady[i] && WIFEXITED(status) &&
                  WEXITSTATUS(status) == 0,
              "a process has failed");
    }
    for (int i = 0; i < 2; i++) {
        prefix_index *x;

        open_kind(&r, i ? "llama" : "falcon_h1");
        x = open_index(&r, in_folder(0));
        check_texts(&r, x);
        close_all(&r, x);
    }
}

/* Every allocation fails once. */
static void test_no_memory(void **state)
{
    int32_t tokens[90];
    struct rig r;
    kv_seq *s;
    bool failed = true;

    (void)state;
    SKIP_IF_NO_SHARED();
    open_kind(&r, "falcon_h1");
    random_tokens(tokens, 90, r.vocab_size);
    s = evaluated(&r, tokens, 80);
    for (long n = 0; failed; n++) {
        struct prefix_limits limits = in_folder(1 << 20);
        clm_error err = {0};
        prefix_index *x;
        kv_seq *hit = NULL;
        int rc = -1;

        temporary_clear();
        mem_fail_after(n);
        x = prefix_index_open(r.engine, &limits, &err);
        if (x && !prefix_index_insert(x, s, &err)) {
            prefix_index_write(x);
            while (prefix_index_evict(x, 1))
                continue;
            hit = prefix_index_lookup(x, tokens, 90, NULL, &err);
            rc = hit ? 0 : -1;
        }
        failed = mem_fail_after(-1);
        CHECK(rc == 0 || (failed && err.code == CLM_ERR_NOMEM), "%ld: %s", n, err.message);
        CHECK(failed || kv_seq_length(hit) == 80, "not found");
        kv_seq_close(hit);
        prefix_index_close(x);
    }
    kv_seq_close(s);
    close_all(&r, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),     cmocka_unit_test(test_no_file_of_it),
        cmocka_unit_test(test_identity),  cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_growing),   cmocka_unit_test(test_full_pool),
        cmocka_unit_test(test_damage),    cmocka_unit_test(test_abandoned),
        cmocka_unit_test(test_processes), cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, cache_files_setup, temporary_teardown);
}
