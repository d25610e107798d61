/* tests/tokenizer/test_pattern.c: expressions cut texts as the reference does, or are refused. */
#include <string.h>

#include "base/memory.h"
#include "format/json.h"
#include "tokenizer/pattern.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/split_fast.h"
#include "tokenizer/unicode.h"

#include "testing.h"

static uint8_t table[UNICODE_TABLE_SIZE];

/* The pieces of text under a Split of the expression. */
static void check_cut(const json *row, const char *behavior, const json *want)
{
    struct strbuf spec = {0};
    struct pretokenizer p = {0};
    struct pre_scratch scratch = {0};
    const struct pieces *pieces = NULL;
    clm_error err = {0};
    struct reader r = {.name = "test", .memory = arena_open(0), .err = &err};
    size_t n, size;
    const char *text = json_string(json_get(row, "text"), &n);
    const char *regex = json_string(json_get(row, "regex"), &size);
    json *v;

    strbuf_add_str(&spec, "{\"type\":\"Split\",\"invert\":false,\"pattern\":{\"Regex\":");
    strbuf_add_json(&spec, regex, size);
    strbuf_addf(&spec, "},\"behavior\":\"%s\"}", behavior);
    v = json_parse(spec.data, spec.size, "test", &err);
    CHECK(v, "%s", err.message);
    CHECK(!pretokenizer_open(&p, v, table, &r), "%s: %s", regex, err.message);
    CHECK(!pretokenize(&p, &scratch, text, n, n > 0, &pieces, &err), "%s: %s", regex, err.message);
    CHECK(pieces->count == json_size(want), "%s on \"%s\": %zu pieces, not %zu", regex, text,
          pieces->count, json_size(want));
    for (size_t i = 0; i < pieces->count; i++) {
        const struct piece *piece = &pieces->items[i];
        const char *expected = json_string(json_at(want, i), &size);

        CHECK(piece->size == size && !memcmp(pieces->text.data + piece->begin, expected, size),
              "%s on \"%s\": piece %zu is \"%.*s\", not \"%s\"", regex, text, i, (int)piece->size,
              pieces->text.data + piece->begin, expected);
    }
    json_free(v);
    pre_scratch_release(&scratch);
    pretokenizer_close(&p);
    strbuf_release(&spec);
    arena_close(r.memory);
}

static void test_reference(void **state)
{
    clm_error err = {0};
    json *rows = json_parse_file(CLM_TEST_DATA "/tokenizer/patterns.json", &err);

    (void)state;
    CHECK(rows, "%s", err.message);
    CHECK(json_size(rows) > 500, "%zu rows", json_size(rows));
    for (size_t i = 0; i < json_size(rows); i++) {
        check_cut(json_at(rows, i), "Isolated", json_get(json_at(rows, i), "isolated"));
        check_cut(json_at(rows, i), "Removed", json_get(json_at(rows, i), "removed"));
    }
    json_free(rows);
}

/* What PCRE2 would read otherwise, or what no table here can say exactly. */
static void test_refused(void **state)
{
    static const char *const expressions[] = {
        "\\X",      "\\R",      "\\K",   "\\G",         "\\1",         "\\k<a>",
        "(?x:a b)", "a(?i)b|c", "(?~a)", "\\p{Any}",    "\\p{Cn}",     "\\p{NoSuchScript}",
        "(?i:ss)",  "(?i:fi)",  "a{2}?", "a**",         "*a",          "(a",
        "a)",       "[a",       "[b-a]", "[[:alpha:]]", "\\x{110000}", "\\x{D800}",
        "(?<=a*)b", "\\",       "\\p{L", "\\pL",        "[a-[b]]",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(expressions); i++) {
        clm_error err = {0};
        struct reader r = {.name = "test", .part = "split", .memory = arena_open(0), .err = &err};
        struct pattern p;

        CHECK(pattern_open_regex(&p, expressions[i], strlen(expressions[i]), true, table, &r),
              "%s was accepted", expressions[i]);
        CHECK(err.code == CLM_ERR_UNSUPPORTED && strstr(err.message, "test: split: "), "%s: %d %s",
              expressions[i], err.code, err.message);
        arena_close(r.memory);
    }
}

static size_t random_text(char *out, size_t room)
{
    static const char *const parts[] = {"a",
                                        "B",
                                        "\xC3\xA9",
                                        "e\xCC\x81",
                                        "\xE4\xBD\xA0",
                                        "1",
                                        "\xC2\xBD",
                                        " ",
                                        "  ",
                                        "\n",
                                        "\r",
                                        "\t",
                                        "\xC2\xA0",
                                        "\xE3\x80\x80",
                                        "'s",
                                        "'LL",
                                        "'re",
                                        "'\xC5\xBF",
                                        "!",
                                        "/",
                                        ".",
                                        "\xC7\x85",
                                        "\xCA\xB0",
                                        "_",
                                        "\xF0\x9F\x99\x82",
                                        "'",
                                        "\xF0\x90\x90\x80",
                                        "\xE2\x80\xA8",
                                        "\xC2\x85",
                                        "Ab",
                                        "aB",
                                        "\xCC\x81"};
    size_t n = 0;

    for (size_t k = random_below(30); k > 0; k--) {
        const char *part = parts[random_below(COUNT(parts))];

        if (n + strlen(part) > room)
            break;
        memcpy(out + n, part, strlen(part));
        n += strlen(part);
    }
    return n;
}

/* Scanners against PCRE2 with the same expression. */
static void test_scanners(void **state)
{
    struct matcher m = {0};
    const char *text;

    (void)state;
    for (size_t i = 0; (text = split_fast_text(i)) != NULL; i++) {
        clm_error err = {0};
        struct reader r = {.name = "test", .part = "split", .memory = arena_open(0), .err = &err};
        struct pattern fast, slow;

        CHECK(!pattern_open_regex(&fast, text, strlen(text), true, table, &r), "%s", err.message);
        CHECK(!pattern_open_regex(&slow, text, strlen(text), false, table, &r), "%s", err.message);
        CHECK(fast.fast && !slow.fast, "scanner %zu is not found by its expression", i);
        for (int round = 0; round < 20000; round++) {
            char s[200];
            size_t n = random_text(s, sizeof s - 1);
            struct search a = search_start(&fast, &m, s, n), b = search_start(&slow, &m, s, n);
            int more;

            s[n] = '\0';
            do {
                more = search_next(&a, &err);
                CHECK(search_next(&b, &err) == more && a.begin == b.begin && a.end == b.end,
                      "scanner %zu on \"%s\": %zu-%zu, not %zu-%zu", i, s, a.begin, a.end, b.begin,
                      b.end);
            } while (more > 0);
        }
        pattern_close(&fast);
        pattern_close(&slow);
        arena_close(r.memory);
    }
    matcher_release(&m);
}

static int fill_table(void **state)
{
    (void)state;
    unicode_table_fill(table);
    return 0;
}

/* Blocks of the table are not filled one character at a time. */
static void test_unicode_table(void **state)
{
    (void)state;
    for (int32_t c = 0; c < UNICODE_TABLE_SIZE; c++)
        CHECK(table[c] == unicode_bits(c), "U+%04X: %d", (unsigned)c, table[c]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_scanners),
        cmocka_unit_test(test_unicode_table),
    };

    return cmocka_run_group_tests_name("pattern", tests, fill_table, NULL);
}
