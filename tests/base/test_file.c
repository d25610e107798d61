#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"

#include "temporary.h"
#include "testing.h"

static void check_content(const char *name, const char *want)
{
    clm_error err = {0};
    size_t size;
    char *text = file_read(temporary_path(name), 1 << 20, &size, &err);

    CHECK(text, "%s", err.message);
    CHECK(size == strlen(want) && !strcmp(text, want), "%s holds '%s'", name, text);
    mem_free(text);
}

static void test_map(void **state)
{
    struct file_map map, empty;
    clm_error err = {0};

    (void)state;
    temporary_clear();
    temporary_write("data", "mapped");
    temporary_write("empty", "");
    assert_int_equal(file_map(&map, temporary_path("data"), &err), 0);
    assert_int_equal(map.size, 6);
    assert_memory_equal(map.data, "mapped", 6);
    file_unmap(&map);
    CHECK(!map.data && !map.size, "unmapped");
    file_unmap(&map);
    assert_int_equal(file_map(&empty, temporary_path("empty"), &err), 0);
    CHECK(!empty.data && !empty.size, "an empty file maps to nothing");
    file_unmap(&empty);
}

static void test_map_refuses(void **state)
{
    static const char *const names[] = {"absent", "folder", "pipe"};
    struct file_map map;

    (void)state;
    temporary_clear();
    mkdir(temporary_path("folder"), 0777);
    assert_int_equal(mkfifo(temporary_path("pipe"), 0666), 0);
    for (size_t i = 0; i < COUNT(names); i++) {
        clm_error err = {0};

        CHECK(file_map(&map, temporary_path(names[i]), &err) == -1, "%s", names[i]);
        assert_int_equal(err.code, CLM_ERR_IO);
        CHECK(strstr(err.message, names[i]), "'%s' does not name %s", err.message, names[i]);
        CHECK(!map.data && !map.size, "%s", names[i]);
        file_unmap(&map);
    }
}

static void test_read(void **state)
{
    char text[20000];
    clm_error err = {0};
    size_t size;

    (void)state;
    temporary_clear();
    memset(text, 't', sizeof text);
    text[sizeof text - 1] = '\0';
    temporary_write("long", text);
    temporary_write("empty", "");
    check_content("long", text);
    check_content("empty", "");
    for (size_t max = 0; max < 2 * sizeof text; max = max * 2 + 1) {
        char *got = file_read(temporary_path("long"), max, &size, &err);

        CHECK(!got == (max < sizeof text - 1), "at most %zu: %s", max, err.message);
        CHECK(got || err.code == CLM_ERR_FORMAT, "at most %zu: code %d", max, err.code);
        mem_free(got);
        err = (clm_error){0};
    }
    text[0] = '\0';
    CHECK(!file_read(temporary_path("absent"), 10, &size, &err), "absent");
    CHECK(strstr(err.message, "absent"), "'%s'", err.message);
    err = (clm_error){0};
    CHECK(!file_read(temporary_folder, 10, &size, &err), "a folder");
    CHECK(strstr(err.message, "directory"), "'%s'", err.message);
}

/* Files of /proc say that they have no size. */
static void test_read_without_size(void **state)
{
    clm_error err = {0};
    size_t size = 0;
    char *text;

    (void)state;
    if (!file_exists("/proc/self/environ"))
        skip();
    text = file_read("/proc/self/stat", 1 << 20, &size, &err);
    CHECK(text && size > 10 && strlen(text) == size, "%s", err.message);
    mem_free(text);
}

static void test_exists(void **state)
{
    (void)state;
    temporary_clear();
    temporary_write("file", "x");
    CHECK(file_exists(temporary_path("file")) && file_exists(temporary_folder), "both are there");
    CHECK(!file_exists(temporary_path("absent")), "absent");
    CHECK(file_is_dir(temporary_folder) && !file_is_dir(temporary_path("file")), "folders");
}

static void test_join(void **state)
{
    clm_error err = {0};
    char out[8];

    (void)state;
    assert_int_equal(file_join(out, sizeof out, "ab", "cd", &err), 0);
    assert_string_equal(out, "ab/cd");
    assert_int_equal(file_join(out, sizeof out, "ab/", "cdef", &err), 0);
    assert_string_equal(out, "ab/cdef");
    assert_int_equal(file_join(out, sizeof out, "", "cd", &err), 0);
    assert_string_equal(out, "cd");
    assert_int_equal(file_join(out, sizeof out, "abc", "defg", &err), -1);
    assert_int_equal(err.code, CLM_ERR_ARG);
}

static void test_writer_shows_all_or_nothing(void **state)
{
    clm_error err = {0};
    file_writer *w;

    (void)state;
    temporary_clear();
    temporary_write("out", "old");
    w = file_writer_open(temporary_path("out"), &err);
    CHECK(w, "%s", err.message);
    assert_int_equal(file_writer_write(w, "new ", 4, &err), 0);
    assert_int_equal(file_writer_write(w, "", 0, &err), 0);
    assert_int_equal(file_writer_write(w, "text", 4, &err), 0);
    check_content("out", "old");
    assert_int_equal(file_writer_commit(w, &err), 0);
    check_content("out", "new text");
    assert_int_equal(temporary_count(), 1);

    w = file_writer_open(temporary_path("out"), &err);
    assert_int_equal(file_writer_write(w, "never", 5, &err), 0);
    file_writer_abort(w);
    file_writer_abort(NULL);
    check_content("out", "new text");
    assert_int_equal(temporary_count(), 1);
}

static void test_two_writers(void **state)
{
    clm_error err = {0};
    file_writer *a, *b;

    (void)state;
    temporary_clear();
    a = file_writer_open(temporary_path("out"), &err);
    b = file_writer_open(temporary_path("out"), &err);
    CHECK(a && b, "%s", err.message);
    assert_int_equal(file_writer_write(a, "a", 1, &err), 0);
    assert_int_equal(file_writer_write(b, "b", 1, &err), 0);
    assert_int_equal(file_writer_commit(b, &err), 0);
    check_content("out", "b");
    assert_int_equal(file_writer_commit(a, &err), 0);
    check_content("out", "a");
    assert_int_equal(temporary_count(), 1);
}

/* The disk is full: a limit on the size of files says the same. */
static void test_failed_write_changes_nothing(void **state)
{
    static char block[64 * 1024];
    struct rlimit before, small;
    clm_error err = {0}, later = {0};
    file_writer *w;
    int written;

    (void)state;
    temporary_clear();
    temporary_write("out", "old");
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 1000;
    signal(SIGXFSZ, SIG_IGN);
    w = file_writer_open(temporary_path("out"), &err);
    setrlimit(RLIMIT_FSIZE, &small);
    written = file_writer_write(w, block, sizeof block, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(written, -1);
    assert_int_equal(err.code, CLM_ERR_IO);
    assert_int_equal(file_writer_write(w, "x", 1, &later), -1);
    later = (clm_error){0};
    assert_int_equal(file_writer_commit(w, &later), -1);
    assert_int_equal(later.code, CLM_ERR_IO);
    check_content("out", "old");
    assert_int_equal(temporary_count(), 1);
}

/* What is open has a path, as /dev/stdout does, that leads to no name: the link must stay. */
static void check_refuses_open_files(void)
{
    char target[32];
    int fds[3];

    assert_int_equal(pipe(fds), 0);
    temporary_write("gone", "");
    fds[2] = open(temporary_path("gone"), O_WRONLY);
    remove(temporary_path("gone"));
    for (int i = 1; i < 3; i++) {
        clm_error err = {0};
        struct stat st;

        snprintf(target, sizeof target, "/dev/fd/%d", fds[i]);
        assert_int_equal(symlink(target, temporary_path("open")), 0);
        CHECK(!file_writer_open(temporary_path("open"), &err), "%s", target);
        assert_int_equal(err.code, CLM_ERR_IO);
        CHECK(!lstat(temporary_path("open"), &st) && S_ISLNK(st.st_mode), "the link is gone");
        remove(temporary_path("open"));
    }
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

static void test_writer_refuses(void **state)
{
    clm_error err = {0};
    file_writer *w;

    (void)state;
    temporary_clear();
    CHECK(!file_writer_open(temporary_path("absent/out"), &err), "no such folder");
    assert_int_equal(err.code, CLM_ERR_IO);
    err = (clm_error){0};
    CHECK(!file_writer_open(temporary_folder, &err), "a folder");
    assert_int_equal(err.code, CLM_ERR_IO);
    err = (clm_error){0};
    CHECK(!file_writer_open("", &err), "no name");
    assert_int_equal(err.code, CLM_ERR_ARG);

    /* A rename would put a file in the place of /dev/null, too. */
    err = (clm_error){0};
    assert_int_equal(mkfifo(temporary_path("pipe"), 0666), 0);
    CHECK(!file_writer_open(temporary_path("pipe"), &err), "a pipe");
    assert_int_equal(err.code, CLM_ERR_IO);
    CHECK(strstr(err.message, "pipe or device"), "'%s'", err.message);
    remove(temporary_path("pipe"));
    check_refuses_open_files();

    /* A folder takes the name while the file is written: the rename fails. */
    err = (clm_error){0};
    w = file_writer_open(temporary_path("out"), &err);
    mkdir(temporary_path("out"), 0777);
    assert_int_equal(file_writer_commit(w, &err), -1);
    assert_int_equal(err.code, CLM_ERR_IO);
    assert_int_equal(temporary_count(), 1);
}

static void test_writer_follows_links(void **state)
{
    clm_error err = {0};
    struct stat st;
    file_writer *w;

    (void)state;
    temporary_clear();
    temporary_write("out", "old");
    chmod(temporary_path("out"), 0600);
    assert_int_equal(symlink("out", temporary_path("link")), 0);
    w = file_writer_open(temporary_path("link"), &err);
    CHECK(w && !file_writer_write(w, "new", 3, &err), "%s", err.message);
    CHECK(!file_writer_commit(w, &err), "%s", err.message);
    check_content("out", "new");
    CHECK(!lstat(temporary_path("link"), &st) && S_ISLNK(st.st_mode), "the link is gone");
    CHECK(!stat(temporary_path("out"), &st), "out is gone");
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* What killed writers have left goes; what others write or have named alike stays. */
static void test_stale_files(void **state)
{
    static const char *const stale[] = {"out.12-00000000100.tmp", "out.1-99999999999.tmp"};
    static const char *const others[] = {"out.tmp", "out.txt", "out.1a.tmp", "outer.12-3.tmp",
                                         "out.12-3.tmp.gz"};
    clm_error err = {0};
    file_writer *one, *two;

    (void)state;
    temporary_clear();
    for (size_t i = 0; i < COUNT(stale); i++)
        temporary_write(stale[i], "left");
    for (size_t i = 0; i < COUNT(others); i++)
        temporary_write(others[i], "other");
    one = file_writer_open(temporary_path("out"), &err);
    CHECK(one, "%s", err.message);
    for (size_t i = 0; i < COUNT(stale); i++)
        CHECK(!file_exists(temporary_path(stale[i])), "%s is left", stale[i]);
    two = file_writer_open(temporary_path("out"), &err);
    CHECK(two, "%s", err.message);
    assert_int_equal(file_writer_write(one, "1", 1, &err), 0);
    assert_int_equal(file_writer_commit(one, &err), 0);
    assert_int_equal(file_writer_commit(two, &err), 0);
    for (size_t i = 0; i < COUNT(others); i++)
        CHECK(file_exists(temporary_path(others[i])), "%s is gone", others[i]);
    assert_int_equal(temporary_count(), 1 + (int)COUNT(others));
}

static void test_failing_allocations(void **state)
{
    (void)state;
    temporary_clear();
    temporary_write("out", "old");
    for (long n = 0; n < 3; n++) {
        clm_error err = {0};
        file_writer *w;

        mem_fail_after(n);
        w = file_writer_open(temporary_path("out"), &err);
        CHECK(mem_fail_after(-1), "n %ld", n);
        CHECK(!w && err.code == CLM_ERR_NOMEM, "n %ld: code %d", n, err.code);
    }
    for (long n = 0; n < 1; n++) {
        clm_error err = {0};
        size_t size;

        mem_fail_after(n);
        CHECK(!file_read(temporary_path("out"), 100, &size, &err), "n %ld", n);
        CHECK(mem_fail_after(-1) && err.code == CLM_ERR_NOMEM, "n %ld: code %d", n, err.code);
    }
    assert_int_equal(temporary_count(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_map_refuses),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_read_without_size),
        cmocka_unit_test(test_exists),
        cmocka_unit_test(test_join),
        cmocka_unit_test(test_writer_shows_all_or_nothing),
        cmocka_unit_test(test_two_writers),
        cmocka_unit_test(test_failed_write_changes_nothing),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_writer_follows_links),
        cmocka_unit_test(test_stale_files),
        cmocka_unit_test(test_failing_allocations),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
