/* Finding models in a hub cache made for the test. */
#include "testing.h"

#include <string.h>
#include <utime.h>

#include "base/memory.h"
#include "base/temporary.h"
#include "format/hub.h"

static const char *const variables[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME",
                                        "XDG_CACHE_HOME", "HOME"};

static void clear_variables(void)
{
    for (size_t i = 0; i < COUNT(variables); i++)
        unsetenv(variables[i]);
}

static void test_cache_folder(void **state)
{
    static const char *const want[] = {"/x", "/x", "/x/hub", "/x/huggingface/hub",
                                       "/x/.cache/huggingface/hub"};
    char out[256];
    clm_error err = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(variables); i++) {
        clear_variables();
        for (size_t k = i; k < COUNT(variables); k++)
            setenv(variables[k], k == i ? "/x" : "/y", 1);
        CHECK(!hub_cache(out, sizeof out, &err) && !strcmp(out, want[i]), "%s: %s", variables[i],
              out);
    }
    setenv("HF_HUB_CACHE", "", 1); /* empty is not set */
    setenv("HF_HOME", "/z", 1);
    CHECK(!hub_cache(out, sizeof out, &err) && !strcmp(out, "/z/hub"), "%s", out);
    setenv("HOME", "/h", 1);
    setenv("HF_HOME", "~/z", 1);
    CHECK(!hub_cache(out, sizeof out, &err) && !strcmp(out, "/h/z/hub"), "%s", out);
    setenv("HF_HOME", "~other/z", 1); /* is not looked up */
    CHECK(!hub_cache(out, sizeof out, &err) && !strcmp(out, "~other/z/hub"), "%s", out);
    CHECK(hub_cache(out, 5, &err) && err.code == CLM_ERR_IO, "a path that is too long");
    err = (clm_error){0};
    clear_variables();
    CHECK(hub_cache(out, sizeof out, &err) && err.code == CLM_ERR_IO, "a cache without a home");
}

static void test_names(void **state)
{
    static const char *const good[] = {
        "gpt2",           "org/model",   "a.b/c_d-1",           "mlx-community/Llama-3.2",
        "org/model@main", "gpt2@v1.0+x", "org/model@refs/pr/1", "a/b@c@d"};
    static const char *const bad[] = {
        "",   "/",   "a/",         "/a",   "a/b/c",  "../a",       "a/../b", "a b",     "a/.b",
        "-a", "a\n", "\xC3\xA9/x", "a/b@", "a/b@..", "a/b@x/../y", "a/b@/x", "a/b@x y", "@x"};

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++)
        CHECK(hub_is_name(good[i]), "%s", good[i]);
    for (size_t i = 0; i < COUNT(bad); i++)
        CHECK(!hub_is_name(bad[i]), "%s", bad[i]);
}

static void use_temporary_cache(void)
{
    temporary_clear();
    clear_variables();
    setenv("HF_HUB_CACHE", temporary_folder, 1);
}

static void check_found(const char *name, const char *below)
{
    char out[2048];
    clm_error err = {0};

    CHECK(!hub_find(out, sizeof out, name, &err), "%s", err.message);
    CHECK(!strcmp(out, temporary_path(below)), "%s is in %s", name, out);
}

static void test_find(void **state)
{
    char out[2048];
    clm_error err = {0};

    (void)state;
    use_temporary_cache();
    temporary_write("models--org--name/snapshots/aaaa/config.json", "{}");
    temporary_write("models--org--name/snapshots/bbbb/config.json", "{}");
    temporary_write("models--org--name/refs/main", "aaaa\n");
    check_found("org/name", "models--org--name/snapshots/aaaa");

    /* A main that names nothing that is there, or what is no revision: the newest. */
    utime(temporary_path("models--org--name/snapshots/aaaa"), &(struct utimbuf){1000, 1000});
    temporary_write("models--org--name/refs/main", "cccc");
    check_found("org/name", "models--org--name/snapshots/bbbb");
    temporary_write("models--org--name/refs/main", "../snapshots/aaaa");
    check_found("org/name", "models--org--name/snapshots/bbbb");

    temporary_write("models--single/snapshots/aaaa/config.json", "{}");
    check_found("single", "models--single/snapshots/aaaa");
    CHECK(hub_find(out, sizeof out, "org/other", &err) && err.code == CLM_ERR_IO &&
              strstr(err.message, "org/other"),
          "%s", err.message);
    err = (clm_error){0};
    CHECK(hub_find(out, sizeof out, "../org", &err) && err.code == CLM_ERR_ARG, "%s", err.message);
    err = (clm_error){0};
    CHECK(hub_find(out, 10, "org/name", &err), "a path of more than 10 bytes fits");
}

static void check_missing(const char *name, const char *what, const char *how)
{
    char out[2048];
    clm_error err = {0};

    CHECK(hub_find(out, sizeof out, name, &err) && err.code == CLM_ERR_IO, "%s is in %s", name,
          out);
    CHECK(strstr(err.message, what) && strstr(err.message, how), "%s", err.message);
}

static void test_revisions(void **state)
{
    static const char one[] = "1111222233334444555566667777888899990000";
    static const char two[] = "1111aaaabbbbccccddddeeeeffff000011112222";
    char path[200];

    (void)state;
    use_temporary_cache();
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "models--org--name/snapshots/%s/config.json", i ? two : one);
        temporary_write(path, "{}");
    }
    temporary_write("models--org--name/refs/main", one);
    temporary_write("models--org--name/refs/v2", two);
    temporary_write("models--org--name/refs/refs/pr/1", two);
    temporary_write("models--org--name/refs/gone", "3333");
    temporary_write("models--org--name/refs/up", "../../models--org--name/snapshots");

    snprintf(path, sizeof path, "models--org--name/snapshots/%s", one);
    check_found("org/name", path);
    check_found("org/name@main", path);
    check_found("org/name@1111222233334444555566667777888899990000", path);
    check_found("org/name@11112", path);
    snprintf(path, sizeof path, "models--org--name/snapshots/%s", two);
    check_found("org/name@v2", path);
    check_found("org/name@refs/pr/1", path);
    check_found("org/name@1111aaaa", path);

    check_missing("org/name@v3", "another revision", "hf download org/name --revision v3");
    check_missing("org/name@gone", "another revision", "--revision gone");
    check_missing("org/name@up", "another revision", "--revision up");
    check_missing("org/name@1111", "another revision", "--revision 1111"); /* which? */
    check_missing("org/name@11112g", "another revision", "--revision 11112g");
    check_missing("org/other@v3", "not in the hub cache", "hf download org/other --revision v3");
}

struct list {
    char names[256];
    int stop_at;
    int n;
};

static int add_name(void *ctx, const char *name, const char *dir)
{
    struct list *l = ctx;

    CHECK(strstr(dir, "/snapshots/"), "%s", dir);
    strncat(l->names, name, sizeof l->names - strlen(l->names) - 1);
    strncat(l->names, " ", sizeof l->names - strlen(l->names) - 1);
    return ++l->n == l->stop_at ? 7 : 0;
}

static void test_each(void **state)
{
    struct list all = {0}, first = {.stop_at = 1}, none = {0};
    clm_error err = {0};

    (void)state;
    use_temporary_cache();
    temporary_write("models--b--two--dashes/snapshots/1/x", "");
    temporary_write("models--a--one/snapshots/1/x", "");
    temporary_write("models--empty--one/refs/main", "1");
    temporary_write("datasets--a--data/snapshots/1/x", "");
    temporary_write("models--bad name/snapshots/1/x", "");
    /* The plain name is that of main, in the cache of b of the newest. */
    temporary_write("models--a--one/snapshots/2/x", "");
    temporary_write("models--a--one/snapshots/33/x", "");
    temporary_write("models--a--one/refs/main", "2");
    temporary_write("models--a--one/refs/v1", "1");
    temporary_write("models--b--two--dashes/snapshots/4/x", "");
    utime(temporary_path("models--b--two--dashes/snapshots/4"), &(struct utimbuf){1000, 1000});
    CHECK(!hub_each(add_name, &all, &err), "%s", err.message);
    CHECK(!strcmp(all.names, "a/one a/one@v1 a/one@33 b/two--dashes b/two--dashes@4 "), "%s",
          all.names);
    check_found("a/one", "models--a--one/snapshots/2");
    check_found("a/one@v1", "models--a--one/snapshots/1");
    check_found("a/one@33", "models--a--one/snapshots/33");
    check_found("b/two--dashes", "models--b--two--dashes/snapshots/1");
    CHECK(hub_each(add_name, &first, &err) == 7 && first.n == 1, "%d calls", first.n);
    setenv("HF_HUB_CACHE", "/no/such/folder", 1);
    CHECK(!hub_each(add_name, &none, &err) && none.n == 0, "%d models", none.n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache_folder), cmocka_unit_test(test_names),
        cmocka_unit_test(test_find),         cmocka_unit_test(test_revisions),
        cmocka_unit_test(test_each),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
