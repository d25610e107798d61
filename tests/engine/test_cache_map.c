/* Sequences that stay in the file that they came from: whatever is done to them, they are like
 * those that were evaluated; and what happens when the file changes. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache_files.h"
#include "engine/prefix_index.h"
#include "fixtures.h"

#define BUNDLED CLM_SOURCE_DIR "/models/storyteller-4bit"

enum { MOST = 112 };

static struct kind {
    const char *name;
    struct engine_options options;
    int n_mapped; /* models some of whose sequences stay in files */
} kinds[] = {
    {"float32", {.exact = true}, 0},
    {"float16", {.exact = true, .cache_type = DTYPE_F16, .cache_type_set = true}, 0},
    {"bfloat16, not exact", {.cache_type = DTYPE_BF16, .cache_type_set = true}, 0},
    {"8 bits", {.exact = true, .kv_bits = 8, .kv_group_size = 32}, 0},
    {"4 bits from token 32 on",
     {.exact = true, .kv_bits = 4, .kv_group_size = 32, .quantized_kv_start = 20},
     0},
    {"8 bits from token 128 on",
     {.exact = true, .kv_bits = 8, .kv_group_size = 32, .quantized_kv_start = 128},
     0},
};

/* A sequence that stays in memory, and one that a file was opened for. */
struct pair {
    const char *name;
    struct rig *rig;
    kv_seq *plain, *mapped;
    float *want, *got; /* [MOST, vocab_size] */
};

static int mapped_groups(struct rig *r, const kv_seq *s)
{
    int n = 0;

    for (int g = 0; g < kv_cache_groups(engine_cache(r->engine)); g++)
        n += kv_seq_table(s, g).n_mapped > 0;
    return n;
}

static void feed_both(struct pair *p, int n)
{
    int32_t tokens[MOST];

    for (int i = 0; i < n; i++)
        tokens[i] = (int32_t)random_below((size_t)p->rig->vocab_size);
    rig_feed(p->rig, p->plain, tokens, n, p->want);
    rig_feed(p->rig, p->mapped, tokens, n, p->got);
    CHECK(!memcmp(p->want, p->got, (size_t)n * (size_t)p->rig->vocab_size * sizeof *p->want),
          "%s: other bits of %d tokens, %d in all", p->name, n, kv_seq_length(p->mapped));
}

static void trim_both(struct pair *p, int n)
{
    clm_error err = {0};

    CHECK(engine_trim(p->rig->engine, p->plain, n, &err) == 0 &&
              engine_trim(p->rig->engine, p->mapped, n, &err) == 0,
          "%s: trimmed to %d: %s", p->name, n, err.message);
}

/* A fork takes the place of its origin, which goes on on its own before it goes. */
static void fork_both(struct pair *p)
{
    clm_error err = {0};
    kv_seq *plain = kv_seq_fork(p->plain, &err), *mapped = kv_seq_fork(p->mapped, &err);

    CHECK(plain && mapped, "%s", err.message);
    feed_both(p, 2);
    kv_seq_close(p->plain);
    kv_seq_close(p->mapped);
    p->plain = plain;
    p->mapped = mapped;
}

/* Opened where it stays in the file, or copied from memory. */
static kv_seq *reopen(struct rig *r, const char *path)
{
    struct file_map file;
    clm_error err = {0};
    kv_seq *s;

    if (random_below(3))
        return load(r, path);
    CHECK(file_map(&file, path, &err) == 0, "%s", err.message);
    s = cache_file_parse(r->engine, file.data, file.size, path, &origin, &err);
    CHECK(s && mapped_groups(r, s) == 0, "%s", err.message);
    file_unmap(&file);
    return s;
}

/* Written again, over the file that it lies in, and opened from there. */
static void save_both(struct pair *p, const char *path)
{
    char plain[2048];

    snprintf(plain, sizeof plain, "%s", temporary_path("plain.safetensors"));
    save(p->rig, p->plain, plain);
    save(p->rig, p->mapped, path);
    CHECK(same_file(plain, path), "%s: written, it differs", p->name);
    if (random_below(2)) {
        kv_seq_close(p->mapped);
        p->mapped = reopen(p->rig, path);
    }
}

static void change_both(struct pair *p, const char *path)
{
    int length = kv_seq_length(p->plain), room = MOST - length;

    switch (random_below(4)) {
    case 0:
        trim_both(p, (int)random_below((size_t)length) + 1);
        break;
    case 1:
        if (room > 2)
            fork_both(p);
        break;
    case 2:
        save_both(p, path);
        break;
    default:
        if (room > 0)
            feed_both(p, 1 + (int)random_below((size_t)(room < 40 ? room : 40)));
    }
}

/* Do both have the same bits, whatever is done to them? A file is as the cache is where all groups
 * are mapped, or nothing is quantised. Without exact mode what is evaluated anew, because windows
 * and states cannot go back, has others. */
static bool is_alike(const struct pair *p, const struct kind *kind)
{
    kv_cache *c = engine_cache(p->rig->engine);
    bool whole = mapped_groups(p->rig, p->mapped) == kv_cache_groups(c);

    return kind->options.exact ? whole || !kind->options.kv_bits
                               : whole && kv_cache_state_bytes(c) == 0;
}

static void check_pair(struct pair *p, struct kind *kind)
{
    char path[2048];
    clm_error err = {0};

    snprintf(path, sizeof path, "%s", temporary_path("mapped.safetensors"));
    p->plain = rig_sequence(p->rig);
    p->mapped = rig_sequence(p->rig);
    feed_both(p, 33 + (int)random_below(40));
    if (cache_file_save(p->rig->engine, p->mapped, path, &origin, &err) == 0) {
        kv_seq_close(p->mapped);
        p->mapped = load(p->rig, path);
        kind->n_mapped += mapped_groups(p->rig, p->mapped) > 0;
        for (int i = 0; i < 25 && is_alike(p, kind); i++)
            change_both(p, path);
    }
    kv_seq_close(p->plain);
    kv_seq_close(p->mapped);
    CHECK(kv_cache_bytes_used(engine_cache(p->rig->engine)) == 0, "%s: blocks are left", p->name);
}

static void check_kind(const char *name, const char *folder, struct kind *kind)
{
    struct rig r;
    struct pair p = {.name = name, .rig = &r};
    clm_error err = {0};
    size_t size;

    CHECK(rig_open_with(&r, folder, NULL, 2, &kind->options, &err) == 0, "%s", err.message);
    size = MOST * (size_t)r.vocab_size * sizeof(float);
    p.want = malloc(size);
    p.got = malloc(size);
    CHECK(p.want && p.got, "no memory");
    /* Some have but a few positions. */
    if (r.model->nn->n_cache_layers && engine_context(r.engine) >= MOST)
        check_pair(&p, kind);
    free(p.want);
    free(p.got);
    rig_close(&r);
}

static void check_fixture(const char *name, const char *folder)
{
    static int next;

    /* There the base of the angles depends on how long a step is. */
    if (!strstr(name, "rope_dynamic"))
        check_kind(name, folder, &kinds[next++ % (int)COUNT(kinds)]);
}

static void test_like_memory(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(kinds); k++)
        for (int i = 0; i < 3; i++)
            check_kind("storyteller", BUNDLED, &kinds[k]);
    for (size_t k = 0; k < COUNT(kinds); k++)
        CHECK(kinds[k].n_mapped == 3, "%s: not mapped", kinds[k].name);
}

/* Each with one of the kinds. */
static void test_fixtures(void **state)
{
    int n = 0;

    (void)state;
    SKIP_IF_NO_SHARED();
    visit_fixtures("models", check_fixture);
    for (size_t k = 0; k < COUNT(kinds); k++) {
        print_message("%s: %d\n", kinds[k].name, kinds[k].n_mapped);
        n += kinds[k].n_mapped;
    }
    CHECK(n >= 40, "%d models stay in files", n);
}

/* Changed files */

enum change { CUT, APPEND, OVERWRITE, REPLACE, REMOVE };

static void change_file(const char *path, enum change change)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};
    char other[2048];
    int fd = open(path, O_RDWR);
    off_t size = lseek(fd, 0, SEEK_END);

    CHECK(fd >= 0 && size > 0, "no %s", path);
    switch (change) {
    case CUT:
        CHECK(ftruncate(fd, size / 2) == 0, "cut");
        break;
    case APPEND:
        CHECK(write(fd, "x", 1) == 1, "append");
        break;
    case OVERWRITE:
        CHECK(pwrite(fd, "x", 1, size / 2) == 1 && futimens(fd, times) == 0, "overwrite");
        break;
    case REPLACE:
        snprintf(other, sizeof other, "%s", temporary_path("other"));
        temporary_write("other", "not a cache");
        CHECK(rename(other, path) == 0, "replace");
        break;
    case REMOVE:
        CHECK(unlink(path) == 0, "remove");
        break;
    }
    close(fd);
}

/* A sequence of a file that was cut or written to gives an error, a replaced one stays. */
static void test_changed_files(void **state)
{
    int32_t tokens[70] = {1};
    struct rig r;
    char path[2048];
    float *logits;

    (void)state;
    snprintf(path, sizeof path, "%s", temporary_path("mapped.safetensors"));
    open_rig(&r, BUNDLED, true);
    logits = malloc(COUNT(tokens) * (size_t)r.vocab_size * sizeof *logits);
    CHECK(logits, "no memory");
    for (int change = CUT; change <= REMOVE; change++) {
        kv_seq *s = rig_sequence(&r);
        struct engine_input in = {.tokens = tokens, .n_tokens = 1, .n_logits = 1};
        const float *row;
        clm_error err = {0};

        rig_feed(&r, s, tokens, (int)COUNT(tokens), logits);
        save(&r, s, path);
        in.seq = load(&r, path);
        rig_feed(&r, s, tokens, 1, logits);
        kv_seq_close(s);
        change_file(path, (enum change)change);
        if (change >= REPLACE) {
            CHECK(engine_step(r.engine, &in, 1, &row, &err) == 0, "%s", err.message);
            CHECK(!memcmp(row, logits, (size_t)r.vocab_size * sizeof *row), "other bits");
        } else {
            CHECK(engine_step(r.engine, &in, 1, &row, &err) == -1 && err.code == CLM_ERR_IO &&
                      strstr(err.message, "load it again"),
                  "change %d: %s", change, err.message);
            err = (clm_error){0};
            CHECK(cache_file_save(r.engine, in.seq, path, &origin, &err) == -1 &&
                      err.code == CLM_ERR_IO,
                  "change %d: %s", change, err.message);
        }
        kv_seq_close(in.seq);
    }
    CHECK(kv_cache_bytes_used(engine_cache(r.engine)) == 0, "blocks are left");
    free(logits);
    rig_close(&r);
}

/* What is kept of texts is forgotten when the file that it lies in changes. */
static void test_changed_prefix(void **state)
{
    int32_t tokens[70] = {1};
    struct rig r;
    char path[2048];
    float *logits;
    kv_seq *s;
    prefix_index *x;
    clm_error err = {0};

    (void)state;
    snprintf(path, sizeof path, "%s", temporary_path("mapped.safetensors"));
    open_rig(&r, BUNDLED, true);
    logits = malloc(COUNT(tokens) * (size_t)r.vocab_size * sizeof *logits);
    x = prefix_index_open(r.engine, NULL, &err);
    CHECK(logits && x, "%s", err.message);
    s = rig_sequence(&r);
    rig_feed(&r, s, tokens, 65, logits);
    save(&r, s, path);
    kv_seq_close(s);
    s = load(&r, path);
    CHECK(prefix_index_insert(x, s, &err) == 0, "%s", err.message);
    kv_seq_close(s);
    for (int changed = 0; changed < 2; changed++) {
        s = prefix_index_lookup(x, tokens, (int)COUNT(tokens), NULL, &err);
        CHECK(s && kv_seq_length(s) == (changed ? 0 : 65), "%s", err.message);
        rig_feed(&r, s, tokens + kv_seq_length(s), 1, logits);
        kv_seq_close(s);
        if (!changed)
            change_file(path, CUT);
    }
    CHECK(prefix_index_stats(x).entries == 0, "it is kept");
    prefix_index_close(x);
    free(logits);
    rig_close(&r);
}

/* Opening takes no blocks but the last, of however many sequences. */
static void test_memory(void **state)
{
    int32_t tokens[100] = {1};
    struct rig r;
    char path[2048];
    float *logits;
    kv_seq *s, *loaded[8];
    size_t whole;

    (void)state;
    snprintf(path, sizeof path, "%s", temporary_path("mapped.safetensors"));
    open_rig(&r, BUNDLED, true);
    logits = malloc(COUNT(tokens) * (size_t)r.vocab_size * sizeof *logits);
    CHECK(logits, "no memory");
    s = rig_sequence(&r);
    rig_feed(&r, s, tokens, (int)COUNT(tokens), logits);
    save(&r, s, path);
    whole = kv_cache_bytes_used(engine_cache(r.engine));
    kv_seq_close(s);
    for (size_t i = 0; i < COUNT(loaded); i++)
        loaded[i] = load(&r, path);
    CHECK(kv_cache_bytes_used(engine_cache(r.engine)) == COUNT(loaded) * whole / 4,
          "%zu bytes of 8 sequences, one has %zu", kv_cache_bytes_used(engine_cache(r.engine)),
          whole);
    for (size_t i = 0; i < COUNT(loaded); i++)
        kv_seq_close(loaded[i]);
    free(logits);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_like_memory),   cmocka_unit_test(test_fixtures),
        cmocka_unit_test(test_changed_files), cmocka_unit_test(test_changed_prefix),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, cache_files_setup, temporary_teardown);
}
