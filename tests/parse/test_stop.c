/* Stops: on ids against mlx_lm's, on text against a search in all of it. */
#include "../testing.h"

#include <string.h>

#include "base/memory.h"
#include "format/json.h"
#include "parse/stop.h"

static void check_ids(const json *c)
{
    const json *stops = json_get(c, "stop"), *tokens = json_get(c, "tokens");
    const json *matched = json_get(c, "matched");
    struct stop_set set = {0};
    struct stop_matcher m;

    for (size_t i = 0; i < json_size(stops); i++) {
        const json *stop = json_at(stops, i);
        int32_t ids[16];

        for (size_t k = 0; k < json_size(stop); k++)
            ids[k] = (int32_t)json_int(json_at(stop, k), -1);
        assert_int_equal(stop_set_add_ids(&set, ids, json_size(stop)), 0);
    }
    assert_int_equal(stop_set_build(&set), 0);
    stop_start(&m, &set);
    for (size_t i = 0; i < json_size(tokens); i++)
        assert_int_equal(stop_id(&m, (int32_t)json_int(json_at(tokens, i), -1)),
                         json_bool(json_at(matched, i), false));
    stop_release(&m);
    stop_set_release(&set);
}

static void test_ids(void **state)
{
    clm_error err = {0};
    json *cases;

    (void)state;
    SKIP_IF_NO_SHARED();
    cases = json_parse_file(shared_path("goldens/parsing/stop_sequences.json"), &err);
    CHECK(json_size(cases) > 50, "%s", err.message);
    for (size_t i = 0; i < json_size(cases); i++)
        check_ids(json_at(cases, i));
    json_free(cases);
}

/* The stop that ends first, of several the one that begins first; its begin, or n. */
static size_t first_stop(const char *text, size_t n, const char *const *stops, size_t n_stops)
{
    for (size_t end = 1; end <= n; end++)
        for (size_t begin = 0; begin < end; begin++)
            for (size_t s = 0; s < n_stops; s++)
                if (strlen(stops[s]) == end - begin && !memcmp(text + begin, stops[s], end - begin))
                    return begin;
    return n;
}

/* Text that has come out and may not be held: no stop begins within it or crosses its end. */
static size_t must_be_out(const char *text, size_t n, const char *const *stops, size_t n_stops)
{
    size_t out = n;

    for (size_t s = 0; s < n_stops; s++)
        for (size_t k = 1; k < strlen(stops[s]) && k <= n; k++)
            if (!memcmp(text + n - k, stops[s], k) && n - k < out)
                out = n - k;
    return out;
}

static void check_text(const char *text, const char *const *stops, size_t n_stops)
{
    size_t n = strlen(text), want = first_stop(text, n, stops, n_stops), at = 0;
    struct stop_set set = {0};
    struct stop_matcher m;
    struct strbuf out = {0};
    bool stopped = false;

    for (size_t i = 0; i < n_stops; i++)
        assert_int_equal(stop_set_add_text(&set, stops[i], strlen(stops[i])), 0);
    assert_int_equal(stop_set_build(&set), 0);
    stop_start(&m, &set);
    while (at < n && !stopped) {
        size_t piece = 1 + random_below(n - at < 5 ? n - at : 5);

        stopped = stop_text(&m, text + at, piece, &out);
        at += piece;
        if (!stopped)
            CHECK(out.size == must_be_out(text, at, stops, n_stops), "%s: %zu of %zu are out", text,
                  out.size, at);
    }
    if (!stopped)
        stop_flush(&m, &out);
    CHECK(stopped == (want < n) && out.size == want &&
              !memcmp(out.data ? out.data : "", text, want),
          "%s: %zu bytes, not %zu", text, out.size, want);
    stop_release(&m);
    stop_set_release(&set);
    strbuf_release(&out);
}

static void test_text(void **state)
{
    static const char *const sets[][4] = {{"STOP"},           {"\n\nUser:", "\n\n"},
                                          {"aab", "ba"},      {"aaa"},
                                          {"abab", "bab"},    {"\xE6\x80\x9D\xE8\x80\x83", "a"},
                                          {"abcd", "bc", "d"}};
    static const char alphabet[] = "abcdSTOP\n:Us\xE6\x80\x9D\xE8\x83";

    (void)state;
    for (int i = 0; i < 20000; i++) {
        const char *const *stops = sets[random_below(COUNT(sets))];
        size_t n = random_below(24), n_stops = 0;
        char text[64] = "";

        while (n_stops < 4 && stops[n_stops])
            n_stops++;
        for (size_t k = 0; k < n && strlen(text) < 32; k++)
            if (random_below(4))
                text[strlen(text)] = alphabet[random_below(4)];
            else
                strncat(text, stops[random_below(n_stops)], 1 + random_below(6));
        check_text(text, stops, n_stops);
    }
}

static void test_memory(void **state)
{
    bool done = false;

    (void)state;
    for (long n = 0; !done; n++) {
        struct stop_set set = {0};
        struct stop_matcher m = {0};
        struct strbuf out = {0};
        int32_t ids[] = {1, 2};
        bool failed;

        mem_fail_after(n);
        failed = stop_set_add_ids(&set, ids, 2) || stop_set_add_text(&set, "stop", 4) ||
                 stop_set_build(&set);
        if (!failed) {
            stop_start(&m, &set);
            stop_text(&m, "some sto", 8, &out);
            stop_flush(&m, &out);
            failed = out.failed || m.held.failed;
        }
        done = !mem_fail_after(-1);
        CHECK(done != failed, "allocation %ld", n);
        stop_release(&m);
        stop_set_release(&set);
        strbuf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
