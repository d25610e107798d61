/* Checkpoints: which files of a folder are opened, and what is wrong with a set of shards. */
#include "testing.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "base/strbuf.h"
#include "format/checkpoint.h"
#include "format/checkpoint_index.h"
#include "format/safetensors.h"

static char folder[4096];

static const char *in_folder(const char *name)
{
    static char path[8192];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int empty_folder(void **state)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;

    (void)state;
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            unlink(in_folder(entry->d_name));
    if (dir)
        closedir(dir);
    return 0;
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "%s/clm-checkpoint-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    empty_folder(state);
    return rmdir(folder);
}

static void put_text(const char *name, const char *text)
{
    FILE *f = fopen(in_folder(name), "wb");

    CHECK(f && fwrite(text, 1, strlen(text), f) == strlen(text) && !fclose(f), "%s", name);
}

/* A file with the named tensors, NULL at the end, one byte each: the last of its name. */
static void put_tensors(const char *file, const char *const *names)
{
    struct checkpoint_tensor t[8] = {0};
    const char *metadata[2] = {"of", file};
    clm_error err = {0};
    size_t n = 0;

    for (; names[n]; n++)
        t[n] = (struct checkpoint_tensor){
            .name = names[n], .type = DTYPE_U8, .data = names[n] + strlen(names[n]) - 1, .size = 1};
    CHECK(!safetensors_write(in_folder(file), t, n, metadata, 1, &err), "%s", err.message);
}

#define PUT(file, ...) put_tensors(file, (const char *const[]){__VA_ARGS__, NULL})

static checkpoint *open_good(const char *path)
{
    clm_error err = {0};
    checkpoint *c = checkpoint_open(path, NULL, &err);

    CHECK(c, "%s", err.message);
    return c;
}

static void check_refused(const char *path, int code, const char *message)
{
    clm_error err = {0};
    checkpoint *c = checkpoint_open(path, NULL, &err);

    CHECK(!c, "taken, expected: %s", message);
    CHECK(err.code == code, "code %d: %s", err.code, err.message);
    CHECK(strstr(err.message, message), "%s", err.message);
}

static void check_names(const checkpoint *c, const char *const *names)
{
    size_t n = 0;

    for (; names[n]; n++) {
        CHECK(n < checkpoint_count(c), "no %s", names[n]);
        CHECK(!strcmp(checkpoint_at(c, n)->name, names[n]), "%s", checkpoint_at(c, n)->name);
        CHECK(checkpoint_find(c, names[n]) == checkpoint_at(c, n), "%s not found", names[n]);
        CHECK(*(const char *)checkpoint_at(c, n)->data == names[n][strlen(names[n]) - 1], "data");
    }
    CHECK(checkpoint_count(c) == n, "%zu tensors, expected %zu", checkpoint_count(c), n);
    CHECK(checkpoint_bytes(c) == n, "%zu bytes", checkpoint_bytes(c));
}

#define HOLDS(c, ...) check_names(c, (const char *const[]){__VA_ARGS__, NULL})

static void test_single(void **state)
{
    checkpoint *c;

    (void)state;
    PUT("model.safetensors", "b", "a.weight", "c");
    PUT("model-extra.safetensors", "x");
    PUT("golden.safetensors", "y");
    put_text("model.safetensors.index.json", "not even JSON");
    c = open_good(folder);
    HOLDS(c, "a.weight", "b", "c");
    CHECK(!checkpoint_find(c, "a") && !checkpoint_find(c, "d") && !checkpoint_find(c, ""), "find");
    CHECK(!strcmp(checkpoint_metadata(c, "of"), "model.safetensors"), "metadata");
    CHECK(!checkpoint_metadata(c, "format"), "metadata");
    checkpoint_close(c);
    c = open_good(in_folder("golden.safetensors"));
    HOLDS(c, "y");
    checkpoint_close(c);
    checkpoint_close(NULL);
}

static void test_sharded(void **state)
{
    checkpoint *c;

    (void)state;
    PUT("model-00001-of-00002.safetensors", "b", "d");
    PUT("model-00002-of-00002.safetensors", "a", "c");
    put_text(
        "model.safetensors.index.json",
        "{\"metadata\": {\"total_size\": 4}, \"weight_map\": {"
        "\"a\": \"model-00002-of-00002.safetensors\", \"b\": \"model-00001-of-00002.safetensors\","
        "\"c\": \"model-00002-of-00002.safetensors\", \"d\": "
        "\"model-00001-of-00002.safetensors\"}}");
    c = open_good(folder);
    HOLDS(c, "a", "b", "c", "d");
    CHECK(!strcmp(checkpoint_metadata(c, "of"), "model-00001-of-00002.safetensors"), "metadata");
    checkpoint_close(c);
}

/* Without an index: as mlx-lm's glob does. */
static void test_listed(void **state)
{
    checkpoint *c;

    (void)state;
    PUT("model-b.safetensors", "b");
    PUT("model-a.safetensors", "a");
    PUT("weights.00.safetensors", "x");
    PUT("adapters.safetensors", "y");
    PUT("model.safetensors.bak", "z");
    c = open_good(folder);
    HOLDS(c, "a", "b");
    checkpoint_close(c);
    unlink(in_folder("model-a.safetensors"));
    unlink(in_folder("model-b.safetensors"));
    c = open_good(folder);
    HOLDS(c, "x");
    checkpoint_close(c);
}

static void test_missing(void **state)
{
    (void)state;
    check_refused("/nonexistent/model", CLM_ERR_IO,
                  "/nonexistent/model: there is no such file or folder");
    check_refused(folder, CLM_ERR_IO, "no weights there: neither model.safetensors nor");
    PUT("adapters.safetensors", "a");
    check_refused(folder, CLM_ERR_IO, "no weights there");
    PUT("model-00001-of-00003.safetensors", "a");
    PUT("model-00003-of-00003.safetensors", "c");
    check_refused(folder, CLM_ERR_IO,
                  "model-00001-of-00003.safetensors is one of 3 shards, but there are 2");
    put_text("model.safetensors.index.json",
             "{\"weight_map\": {\"a\": \"model-00001-of-00003.safetensors\","
             "\"b\": \"model-00002-of-00003.safetensors\"}}");
    check_refused(folder, CLM_ERR_IO,
                  "1 of 2 shards are missing, the first is model-00002-of-00003.safetensors");
    put_text("model.safetensors", "");
    check_refused(folder, CLM_ERR_FORMAT, "0 bytes hold no safetensors header");
}

static void test_contradiction(void **state)
{
    (void)state;
    PUT("s1.safetensors", "a", "b");
    PUT("s2.safetensors", "c");
    put_text("model.safetensors.index.json",
             "{\"weight_map\": {\"a\": \"s1.safetensors\","
             "\"c\": \"s2.safetensors\", \"d\": \"s2.safetensors\"}}");
    check_refused(folder, CLM_ERR_FORMAT,
                  "tensor \"d\" is listed as in s2.safetensors, which does not hold it");
    put_text("model.safetensors.index.json", "{\"weight_map\": {\"a\": \"s1.safetensors\","
                                             "\"b\": \"s2.safetensors\"}}");
    check_refused(folder, CLM_ERR_FORMAT,
                  "tensor \"b\" is listed as in s2.safetensors, which does not hold it");
    PUT("s2.safetensors", "a", "c");
    check_refused(folder, CLM_ERR_FORMAT, "tensor \"a\" is in two of the files");
    PUT("model.safetensors", NULL);
    check_refused(folder, CLM_ERR_FORMAT, "no tensor in it");
}

static void count_message(void *ctx, enum log_level level, const char *message)
{
    CHECK(level == LOG_WARNING && strstr(message, "1 tensors of the shards are not listed"), "%s",
          message);
    ++*(int *)ctx;
}

static void test_unlisted(void **state)
{
    int n = 0;
    struct log log = {.fn = count_message, .ctx = &n};
    clm_error err = {0};
    checkpoint *c;

    (void)state;
    PUT("s1.safetensors", "a", "b");
    put_text("model.safetensors.index.json", "{\"weight_map\": {\"a\": \"s1.safetensors\"}}");
    c = checkpoint_open(folder, &log, &err);
    CHECK(c && n == 1, "%s", err.message);
    HOLDS(c, "a", "b");
    checkpoint_close(c);
}

static void test_index(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "the file is empty"},
        {"{}", "no \"weight_map\""},
        {"{\"weight_map\": {}}", "no \"weight_map\""},
        {"{\"weight_map\": []}", "expected '{'"},
        {"{\"weight_map\": {\"a\": 1}}", "expected a string"},
        {"{\"weight_map\": {\"a\": \"x\"}, \"weight_map\": {}}", "two keys \"weight_map\""},
        {"{\"weight_map\": {\"a\": \"x\", \"a\": \"y\"}}", "tensor \"a\" is listed twice"},
        {"{\"weight_map\": {\"a\": \"../x\"}}", "\"../x\" is no plain file name"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "no plain file name"},
        {"{\"weight_map\": {\"a\": \"d/x\"}}", "no plain file name"},
        {"{\"weight_map\": {\"a\": \"d\\\\x\"}}", "no plain file name"},
        {"{\"weight_map\": {\"a\": \"..\"}}", "no plain file name"},
        {"{\"weight_map\": {\"a\": \".x\"}}", "no plain file name"},
        {"{\"weight_map\": {\"a\": \"\"}}", "no plain file name"},
        {"{\"weight_map\": {\"a\": \"x\\u0000.safetensors\"}}", "no plain file name"},
        {"{\"weight_map\": {\"a\": \"x\\n\"}}", "no plain file name"},
        {"{\"weight_map\": {\"a\\u0000\": \"x\"}}", "NUL"},
        {"{\"weight_map\": {\"a\": \"x\"}", "the JSON: the end"},
        {"{\"weight_map\": {\"a\": \"x\"}} {", "expected nothing more"},
        {"{\"metadata\": {\"a\": tru}}", "expected a value"},
        {"{\"weight_map\": {\"a\": \"\xC0\xAF\"}}", "not valid UTF-8"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct checkpoint_index index;
        clm_error err = {0};
        int rc =
            checkpoint_index_parse(&index, cases[i].text, strlen(cases[i].text), "index", &err);

        CHECK(rc == -1 && err.code == CLM_ERR_FORMAT, "%s: code %d", cases[i].text, err.code);
        CHECK(strstr(err.message, cases[i].message), "%s: %s", cases[i].text, err.message);
        CHECK(!index.memory && !index.entries && !index.shards, "left open");
    }
}

static void test_index_order(void **state)
{
    static const char text[] =
        "{\"weight_map\": {\"c\": \"s2\", \"a\": \"s1\", \"d\": \"s2\", \"b\": "
        "\"s3\"}, \"metadata\": {\"x\": [1, {\"y\": null}]}}";
    static const size_t shards[] = {0, 2, 1, 1};
    struct checkpoint_index index;
    clm_error err = {0};

    (void)state;
    CHECK(!checkpoint_index_parse(&index, text, strlen(text), "index", &err), "%s", err.message);
    CHECK(index.n_shards == 3 && index.n_entries == 4, "%zu shards", index.n_shards);
    for (size_t i = 0; i < 4; i++) {
        CHECK(index.entries[i].tensor[0] == "abcd"[i], "%s", index.entries[i].tensor);
        CHECK(index.entries[i].shard == shards[i], "%s", index.entries[i].tensor);
    }
    CHECK(!strcmp(index.shards[2], "s3"), "%s", index.shards[2]);
    checkpoint_index_close(&index);
}

/* Opens fails at every allocation, then with all. */
static void fail_in_turn(void)
{
    bool failed = true;

    for (long n = 0; failed; n++) {
        clm_error err = {0};
        checkpoint *c;

        mem_fail_after(n);
        c = checkpoint_open(folder, NULL, &err);
        failed = mem_fail_after(-1);
        CHECK(failed == !c, "allocation %ld: %s", n, err.message);
        CHECK(c || err.code == CLM_ERR_NOMEM, "allocation %ld: %s", n, err.message);
        CHECK(n < 1000, "it never succeeds");
        checkpoint_close(c);
    }
}

static void test_memory(void **state)
{
    (void)state;
    PUT("model-1.safetensors", "a", "b");
    PUT("model-2.safetensors", "c");
    fail_in_turn();
    put_text("model.safetensors.index.json", "{\"weight_map\": {\"a\": \"model-1.safetensors\","
                                             "\"c\": \"model-2.safetensors\"}}");
    fail_in_turn();
    PUT("model.safetensors", "a", "b");
    fail_in_turn();
}

static int open_all(const char *models)
{
    DIR *dir = opendir(models);
    struct dirent *entry;
    int n = 0;

    CHECK(dir, "%s", models);
    while ((entry = readdir(dir))) {
        char path[8192];
        size_t bytes = 0;
        checkpoint *c;

        snprintf(path, sizeof path, "%s/%s/config.json", models, entry->d_name);
        if (entry->d_name[0] == '.' || access(path, R_OK))
            continue;
        snprintf(path, sizeof path, "%s/%s", models, entry->d_name);
        c = open_good(path);
        for (size_t i = 0; i < checkpoint_count(c); i++) {
            CHECK(i == 0 || strcmp(checkpoint_at(c, i - 1)->name, checkpoint_at(c, i)->name) < 0,
                  "%s: %s", path, checkpoint_at(c, i)->name);
            bytes += checkpoint_at(c, i)->size;
        }
        CHECK(checkpoint_count(c) > 3 && bytes == checkpoint_bytes(c), "%s", path);
        checkpoint_close(c);
        n++;
    }
    closedir(dir);
    return n;
}

/* Every safetensors file of the fixtures: goldens and prompt caches too. */
static int open_files(const char *models)
{
    DIR *dir = opendir(models);
    struct dirent *entry;
    int n = 0;

    CHECK(dir, "%s", models);
    while ((entry = readdir(dir))) {
        char path[8192];
        struct stat st;

        snprintf(path, sizeof path, "%s/%s", models, entry->d_name);
        if (entry->d_name[0] == '.' || stat(path, &st))
            continue;
        if (S_ISDIR(st.st_mode)) {
            n += open_files(path);
        } else if (strstr(path, ".safetensors") && !strstr(path, ".json")) {
            struct safetensors file;
            clm_error err = {0};

            CHECK(!safetensors_open(&file, path, &err), "%s", err.message);
            safetensors_close(&file);
            n++;
        }
    }
    closedir(dir);
    return n;
}

static void test_goldens(void **state)
{
    int n;

    (void)state;
    SKIP_IF_NO_SHARED();
    n = open_all(shared_path("goldens/models")) + open_all(shared_path("goldens/models_hf"));
    CHECK(n > 340, "%d folders", n);
    n = open_files(shared_path("goldens/models")) + open_files(shared_path("goldens/models_hf"));
    CHECK(n > 700, "%d files", n);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, empty_folder, empty_folder)
    const struct CMUnitTest tests[] = {
        TEST(test_single),        TEST(test_sharded),  TEST(test_listed), TEST(test_missing),
        TEST(test_contradiction), TEST(test_unlisted), TEST(test_index),  TEST(test_index_order),
        TEST(test_memory),        TEST(test_goldens),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
