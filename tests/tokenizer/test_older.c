/* tests/tokenizer/test_older.c: checkpoints without tokenizer.json, against make_older.py. */
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "format/json.h"
#include "tokenizer/spm.h"
#include "tokenizer/tokenizer.h"

#include "testing.h"

#define FOLDER CLM_SOURCE_DIR "/tests/tokenizer/older/"

static const char *const names[] = {
    "spm-bpe",       "spm-bpe-nfkc",  "spm-unigram",  "spm-unigram-plain", "spm-bpe-symbols",
    "vocab-merges",  "qwen-tiktoken", "llama3-ranks", "spm-not-legacy",    "spm-no-prefix",
    "gpt2-defaults", "gpt2-wrapped",  "gpt2-map",     "qwen2-added",
};

static void check_row(const char *name, const tokenizer *t, const json *row)
{
    struct token_list ids = {0};
    const json *want = json_at(row, 1);
    clm_error err = {0};
    size_t n;
    const char *text = json_string(json_at(row, 0), &n);

    CHECK(!tokenizer_encode(t, text, n, true, &ids, &err), "%s", err.message);
    for (size_t i = 0; i < ids.count && i < json_size(want); i++)
        CHECK(ids.ids[i] == json_int(json_at(want, i), -1), "%s: \"%s\": id %zu is %d", name, text,
              i, ids.ids[i]);
    CHECK(ids.count == json_size(want), "%s: \"%s\": %zu ids instead of %zu", name, text, ids.count,
          json_size(want));
    token_list_release(&ids);
}

static void check_text(const char *name, const tokenizer *t, const json *row)
{
    struct token_list ids = {0};
    struct strbuf text = {0};
    const char *want = json_string(json_at(row, 2), NULL);
    clm_error err = {0};

    for (size_t i = 0; i < json_size(json_at(row, 1)); i++)
        token_list_add(&ids, (int32_t)json_int(json_at(json_at(row, 1), i), -1));
    CHECK(!tokenizer_decode(t, ids.ids, ids.count, false, &text, &err), "%s", err.message);
    CHECK(!want || !strcmp(text.data ? text.data : "", want), "%s: \"%s\", not \"%s\"", name,
          text.data ? text.data : "", want);
    token_list_release(&ids);
    strbuf_release(&text);
}

static void test_equal(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        char path[4096];
        clm_error err = {0};
        tokenizer *t;
        json *rows;

        snprintf(path, sizeof path, FOLDER "%s", names[i]);
        t = tokenizer_open(path, NULL, &err);
        CHECK(t, "%s", err.message);
        snprintf(path, sizeof path, FOLDER "%s/expected.json", names[i]);
        rows = json_parse_file(path, &err);
        CHECK(rows && json_size(rows) > 10, "%s", err.message);
        for (size_t k = 0; k < json_size(rows); k++) {
            check_row(names[i], t, json_at(rows, k));
            check_text(names[i], t, json_at(rows, k));
        }
        json_free(rows);
        tokenizer_close(t);
    }
}

/* A model cut short anywhere is refused, or is a smaller model; it never reads behind its end. */
static void test_cut_short(void **state)
{
    clm_error err = {0};
    size_t size;
    char *data = file_read(FOLDER "spm-unigram/tokenizer.model", 1 << 20, &size, &err);
    size_t refused = 0;

    (void)state;
    CHECK(data, "%s", err.message);
    for (size_t n = 0; n < size; n += 1 + n / 16) {
        struct strbuf out = {0};
        uint8_t *part = mem_alloc(n + 1);
        int rc;

        err = (clm_error){0};
        memcpy(part, data, n);
        rc = spm_to_json(part, n, NULL, "part", &out, &err);
        CHECK(rc == 0 || (err.code && !strncmp(err.message, "part: ", 6)), "at %zu: %s", n,
              err.message);
        refused += rc != 0;
        mem_free(part);
        strbuf_release(&out);
    }
    CHECK(refused > 10, "%zu parts refused", refused);
    mem_free(data);
}

/* Whatever allocation fails while the files are read, it is said and all is given back. */
static void test_memory(void **state)
{
    static const char *const some[] = {"gpt2-map", "gpt2-wrapped", "llama3-ranks"};

    (void)state;
    for (size_t i = 0; i < COUNT(some); i++) {
        char path[4096];
        bool done = false;

        snprintf(path, sizeof path, FOLDER "%s", some[i]);
        for (long n = 0; !done; n += 1 + n / 40) {
            clm_error err = {0};
            tokenizer *t;

            mem_fail_after(n);
            t = tokenizer_open(path, NULL, &err);
            done = !mem_fail_after(-1);
            CHECK(done ? t != NULL : !t && err.code == CLM_ERR_NOMEM, "%s: allocation %ld: %s",
                  some[i], n, err.message);
            tokenizer_close(t);
        }
    }
}

static void check_refused(const char *data, size_t n, const char *why)
{
    struct strbuf out = {0};
    clm_error err = {0};

    CHECK(spm_to_json((const uint8_t *)data, n, NULL, "m", &out, &err), "accepted: %s", why);
    CHECK(strstr(err.message, why), "\"%s\" does not say \"%s\"", err.message, why);
    strbuf_release(&out);
}

static void test_refused(void **state)
{
    static const char word[] = "\x0A\x03\x0A\x01"
                               "a\x12\x02\x18\x03";
    static const char no_unk[] = "\x0A\x03\x0A\x01"
                                 "a\x12\x03\xC0\x02\x07";
    static const char past_end[] = "\x0A\x7F\x0A\x01"
                                   "a";

    (void)state;
    check_refused("", 0, "no pieces");
    check_refused(word, sizeof word - 1, "model_type 3");
    check_refused(no_unk, sizeof no_unk - 1, "unk_id 7 of 1 pieces");
    check_refused(past_end, sizeof past_end - 1, "the file is damaged");
    check_refused("\x0A\x03\x0A\x01\xFF", 5, "UTF-8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
