#include <sys/wait.h>

#include "base/file.h"
#include "base/memory.h"
#include "tokenizer/snapshot.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_parts.h"

#include "../base/temporary.h"
#include "small_tokenizers.h"
#include "testing.h"

static struct snapshot_place place(void)
{
    static char folder[2048];

    snprintf(folder, sizeof folder, "%s", temporary_path("kept/tokenizers"));
    return (struct snapshot_place){.folder = folder, .least = 1};
}

static tokenizer *open_at(const char *name, const struct snapshot_place *where)
{
    clm_error err = {0};
    tokenizer *t = tokenizer_open_kept(temporary_path(name), where, NULL, &err);

    CHECK(t, "%s: %s", name, err.message);
    return t;
}

static tokenizer *open_one(const char *name)
{
    struct snapshot_place where = place();

    return open_at(name, &where);
}

/* How many there are, and the last of them in path[4096]. */
static int list_kept(char *path)
{
    DIR *folder = opendir(place().folder);
    struct dirent *entry;
    int n = 0;

    while (folder && (entry = readdir(folder)))
        if (!strchr(entry->d_name, '.')) { /* which temporary ones have */
            snprintf(path, 4096, "%.2000s/%.255s", place().folder, entry->d_name);
            n++;
        }
    if (folder)
        closedir(folder);
    return n;
}

/* The one file in the folder, or NULL. */
static const char *kept_file(void)
{
    static char path[4096];
    int n = list_kept(path);

    CHECK(n < 2, "%d files", n);
    return n ? path : NULL;
}

static void write_small(size_t i)
{
    char name[64];

    snprintf(name, sizeof name, "%zu/tokenizer.json", i);
    temporary_write(name, small_tokenizers[i].text);
}

static const char *name_of(size_t i)
{
    static char name[16];

    snprintf(name, sizeof name, "%zu", i);
    return name;
}

/* Texts of what tokens may be made of. */
static void check_same(const tokenizer *a, const tokenizer *b)
{
    static const char *const pieces[] = {"a",
                                         "b",
                                         "ab",
                                         " ",
                                         "aa",
                                         "\xC3\xA9",
                                         "\xE4\xB8\x80",
                                         "x",
                                         "!",
                                         "\n",
                                         "\xF0\x9F\x98\x80",
                                         "lower",
                                         "\xFF"};
    clm_error err = {0};

    CHECK(tokenizer_vocab_size(a) == tokenizer_vocab_size(b), "%zu and %zu ids",
          tokenizer_vocab_size(a), tokenizer_vocab_size(b));
    for (int i = 0; i < 200; i++) {
        struct token_list x = {0}, y = {0};
        struct strbuf text = {0}, back = {0}, again = {0};

        for (size_t n = random_below(40); n; n--)
            strbuf_add_str(&text, pieces[random_below(COUNT(pieces))]);
        CHECK(!tokenizer_encode(a, text.data ? text.data : "", text.size, true, &x, &err) &&
                  !tokenizer_encode(b, text.data ? text.data : "", text.size, true, &y, &err),
              "%s", err.message);
        CHECK(x.count == y.count && (!x.count || !memcmp(x.ids, y.ids, x.count * sizeof *x.ids)),
              "other ids of \"%s\"", text.data);
        CHECK(!tokenizer_decode(a, x.ids, x.count, false, &back, &err) &&
                  !tokenizer_decode(b, x.ids, x.count, false, &again, &err),
              "%s", err.message);
        CHECK(back.size == again.size && (!back.size || !memcmp(back.data, again.data, back.size)),
              "\"%s\" and \"%s\"", back.data, again.data);
        token_list_release(&x);
        token_list_release(&y);
        strbuf_release(&text);
        strbuf_release(&back);
        strbuf_release(&again);
    }
}

static void test_same_ids(void **state)
{
    int n_kept = 0;

    (void)state;
    for (size_t i = 0; i < SMALL_TOKENIZERS; i++) {
        tokenizer *first, *second;
        bool bpe;

        temporary_clear();
        write_small(i);
        first = open_one(name_of(i));
        second = open_one(name_of(i));
        bpe = first->model.kind == MODEL_BPE;
        CHECK(!tokenizer_is_kept(first) && tokenizer_is_kept(second) == bpe, "%s",
              small_tokenizers[i].name);
        CHECK(!bpe == !kept_file(), "%s", small_tokenizers[i].name);
        n_kept += bpe;
        check_same(first, second);
        tokenizer_close(first);
        tokenizer_close(second);
    }
    CHECK(n_kept > 1, "%d kept", n_kept);
}

/* The bytes of a file, and a file of bytes. */
static char *take(const char *path, size_t *size)
{
    char *data = file_read(path, SIZE_MAX / 2, size, NULL);

    CHECK(data, "%s", path);
    return data;
}

static void put(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");

    CHECK(f && fwrite(data, 1, size, f) == size && fclose(f) == 0, "%s", path);
}

/* One that is not as it was written is not used, and is written anew. */
static void check_refused(const char *path, const char *good, size_t size, const char *what)
{
    tokenizer *t = open_one("0");
    char *now;
    size_t n;

    CHECK(!tokenizer_is_kept(t), "%s", what);
    tokenizer_close(t);
    now = take(path, &n);
    CHECK(n == size && !memcmp(now, good, size), "%s: written again", what);
    mem_free(now);
}

static void test_damaged(void **state)
{
    const int tries = TEST_IS_SLOW ? 40 : 200;
    const char *path;
    char *good, *bad;
    size_t size;

    (void)state;
    temporary_clear();
    write_small(0);
    tokenizer_close(open_one("0"));
    path = kept_file();
    good = take(path, &size);
    bad = mem_alloc(size + 1);
    for (int i = 0; i < tries; i++) {
        /* Half of them in the header and what follows it. */
        size_t at = random_below(i % 2 ? size : 1024);

        memcpy(bad, good, size);
        bad[at] ^= (char)(1 << random_below(8));
        put(path, bad, size);
        check_refused(path, good, size, "a bit");
    }
    for (int i = 0; i < tries / 4; i++) {
        put(path, good, i == 0 ? 0 : random_below(size));
        check_refused(path, good, size, "cut");
    }
    memcpy(bad, good, size);
    bad[size] = 0;
    put(path, bad, size + 1);
    check_refused(path, good, size, "longer");
    mem_free(bad);
    mem_free(good);
}

/* One of another tokenizer, at the place of this one's. */
static void test_foreign(void **state)
{
    char path[4096];
    char *other, *own;
    size_t size, n;
    tokenizer *t;

    (void)state;
    temporary_clear();
    write_small(2);
    tokenizer_close(open_one("2"));
    CHECK(kept_file(), "%s", small_tokenizers[2].name);
    other = take(kept_file(), &size);
    temporary_clear();
    write_small(0);
    tokenizer_close(open_one("0"));
    snprintf(path, sizeof path, "%s", kept_file());
    own = take(path, &n);
    put(path, other, size);
    check_refused(path, own, n, "foreign");
    mem_free(other);
    /* And a tokenizer.json that was changed, which leaves the old one where it was. */
    temporary_write("0/tokenizer.json", small_tokenizers[2].text);
    t = open_one("0");
    CHECK(!tokenizer_is_kept(t), "another file");
    tokenizer_close(t);
    mem_free(own);
}

/* Numbers that lead astray, under a checksum that is right. */
static void test_hostile(void **state)
{
    struct snapshot s, whole;
    char *good;
    uint8_t *bad;
    size_t size;

    (void)state;
    temporary_clear();
    write_small(0);
    tokenizer_close(open_one("0"));
    good = take(kept_file(), &size);
    bad = mem_alloc_aligned(size);
    memcpy(bad, good, size);
    CHECK(snapshot_read(&whole, bad, size), "as it was");
    for (int kind = 0; kind < 12; kind++) {
        uint32_t wild = kind % 2 ? 0x7FFFFFFF : 0xFFFFFFF0;
        struct vocab *v = &whole.vocab;

        memcpy(bad, good, size);
        switch (kind / 2) {
        case 0:
            v->entries[random_below(v->n_entries)].id = (int32_t)wild;
            break;
        case 1:
            v->entries[random_below(v->n_entries)].size = wild;
            break;
        case 2:
            v->slots[random_below(v->mask + 1)].entry = wild;
            break;
        case 3:
            v->entry_of_id[random_below(v->n_ids)] = wild;
            break;
        case 4:
            whole.merges.rules[random_below(whole.merges.count)].merged = wild;
            break;
        case 5:
            whole.tables.char_ids[random_below(BPE_CHARACTERS)] = (int32_t)wild;
            break;
        }
        CHECK(snapshot_seal(bad, size), "kind %d", kind);
        CHECK(!snapshot_read(&s, bad, size), "kind %d", kind);
    }
    /* No free slot, and searching would not end. */
    memcpy(bad, good, size);
    for (size_t i = 0; i <= whole.vocab.mask; i++)
        whole.vocab.slots[i].entry = 1;
    CHECK(snapshot_seal(bad, size) && !snapshot_read(&s, bad, size), "full");
    memcpy(bad, good, size);
    for (size_t i = 0; i <= whole.merges.mask; i++)
        whole.merges.slots[i] = 1;
    CHECK(snapshot_seal(bad, size) && !snapshot_read(&s, bad, size), "full of merges");
    mem_free_aligned(bad);
    mem_free(good);
}

/* Nothing of this is an error. */
static void test_no_place(void **state)
{
    const struct snapshot_place file = {.folder = temporary_path("file/below"), .least = 1};
    const struct snapshot_place small = {.folder = place().folder};
    tokenizer *t;

    (void)state;
    temporary_clear();
    write_small(0);
    temporary_write("file", "");
    t = open_at("0", &file);
    CHECK(!tokenizer_is_kept(t), "below a file");
    tokenizer_close(t);
    tokenizer_close(open_at("0", &small));
    CHECK(!kept_file(), "too small to be worth it");
    tokenizer_close(open_one("0"));
    /* What others may write is not believed. */
    chmod(kept_file(), 0666);
    t = open_one("0");
    CHECK(!tokenizer_is_kept(t), "a file for all");
    tokenizer_close(t);
    chmod(place().folder, 0777);
    t = open_one("0");
    CHECK(!tokenizer_is_kept(t), "a folder for all");
    tokenizer_close(t);
    /* What cannot be written need not be: it is read all the same. */
    chmod(place().folder, 0500);
    t = open_one("0");
    CHECK(tokenizer_is_kept(t), "a folder to read");
    tokenizer_close(t);
    chmod(place().folder, 0700);
    CHECK(unlink(kept_file()) == 0, "removed");
    chmod(place().folder, 0500);
    t = open_one("0");
    CHECK(!tokenizer_is_kept(t), "nothing to read");
    tokenizer_close(t);
    chmod(place().folder, 0700);
}

/* The oldest goes when there are many. */
static void test_many(void **state)
{
    char name[32], text[8192], path[4096];
    int n_kept = 0;

    (void)state;
    temporary_clear();
    for (int i = 0; i < SNAPSHOT_MOST + 3; i++) {
        snprintf(text, sizeof text, "%*s%.7000s", i, "", small_tokenizers[2].text);
        snprintf(name, sizeof name, "%d/tokenizer.json", i);
        temporary_write(name, text);
        snprintf(name, sizeof name, "%d", i);
        tokenizer_close(open_one(name));
    }
    CHECK(list_kept(path) == SNAPSHOT_MOST, "%d are kept", list_kept(path));
    for (int i = SNAPSHOT_MOST + 2; i >= 0; i--) {
        tokenizer *t;

        snprintf(name, sizeof name, "%d", i);
        t = open_one(name);
        n_kept += tokenizer_is_kept(t);
        CHECK(i != SNAPSHOT_MOST + 2 || tokenizer_is_kept(t), "the newest one");
        tokenizer_close(t);
    }
    CHECK(n_kept > 0 && list_kept(path) == SNAPSHOT_MOST, "%d are kept", list_kept(path));
}

static void test_no_memory(void **state)
{
    struct snapshot_place where = place();
    bool failed = true;

    (void)state;
    temporary_clear();
    write_small(0);
    tokenizer_close(open_one("0"));
    for (long n = 0; failed; n++) {
        clm_error err = {0};
        long live = mem_live();
        tokenizer *t;

        mem_fail_after(n);
        t = tokenizer_open_kept(temporary_path("0"), &where, NULL, &err);
        failed = mem_fail_after(-1);
        CHECK(t || (failed && err.code == CLM_ERR_NOMEM), "allocation %ld: %s", n, err.message);
        tokenizer_close(t);
        CHECK(mem_live() == live, "allocation %ld: %ld blocks are left", n, mem_live() - live);
    }
}

/* All write it and read it, at the same time. */
static void test_many_processes(void **state)
{
    pid_t children[4];
    tokenizer *t;

    (void)state;
    temporary_clear();
    write_small(0);
    for (size_t i = 0; i < COUNT(children); i++) {
        children[i] = fork();
        CHECK(children[i] >= 0, "no process");
        if (!children[i]) {
            setenv("CMOCKA_TEST_ABORT", "1", 1);
            for (int k = 0; k < 20; k++) {
                char path[4096];

                tokenizer_close(open_one("0"));
                /* While others remove it and write it anew a listing may have it twice or never. */
                if (list_kept(path) && k % 4 == 3)
                    unlink(path);
            }
            _exit(0);
        }
    }
    for (size_t i = 0; i < COUNT(children); i++) {
        int status = -1;

        waitpid(children[i], &status, 0);
        CHECK(status == 0, "a child ends with %d", status);
    }
    tokenizer_close(open_one("0"));
    t = open_one("0");
    CHECK(tokenizer_is_kept(t), "it is there");
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_ids),  cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_foreign),   cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_no_place),  cmocka_unit_test(test_many),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_many_processes),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
