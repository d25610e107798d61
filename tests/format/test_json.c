/* JSON documents: what is understood, in which order, what is refused and where. */
#include "testing.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/strbuf.h"
#include "format/json.h"
#include "format/value.h"

static json *parse(const char *text, size_t size)
{
    clm_error err = {0};
    json *root = json_parse(text, size, "test", &err);

    CHECK(root, "%s: %s", text, err.message);
    return root;
}

static json *parse_string(const char *text)
{
    return parse(text, strlen(text));
}

static void test_values(void **state)
{
    json *root =
        parse_string(" {\"a\": [1, -2, 2.5, true, false, null, \"x\", {}], \"b\": {\"c\": 3}} ");
    const json *a = json_get(root, "a");
    static const enum json_kind kinds[] = {JSON_INT,  JSON_INT,  JSON_REAL,   JSON_BOOL,
                                           JSON_BOOL, JSON_NULL, JSON_STRING, JSON_OBJECT};
    size_t size = 0;

    (void)state;
    CHECK(json_kind(root) == JSON_OBJECT && json_size(root) == 2, "root");
    CHECK(json_kind(a) == JSON_ARRAY && json_size(a) == 8, "a");
    for (size_t i = 0; i < 8; i++)
        CHECK(json_kind(json_at(a, i)) == kinds[i], "item %zu", i);
    CHECK(json_int(json_at(a, 1), 7) == -2, "an integer");
    CHECK(json_int(json_at(a, 2), 7) == 7, "a real is no integer");
    CHECK(json_real(json_at(a, 2), 7) == 2.5 && json_real(json_at(a, 0), 7) == 1, "a real");
    CHECK(json_bool(json_at(a, 3), false) && !json_bool(json_at(a, 4), true), "bools");
    CHECK(json_bool(json_at(a, 5), true), "null is no bool");
    CHECK(!strcmp(json_string(json_at(a, 6), &size), "x") && size == 1, "a string");
    CHECK(!json_string(json_at(a, 0), NULL), "a number is no string");
    CHECK(json_int(json_get(json_get(root, "b"), "c"), 0) == 3, "nested");
    json_free(root);
}

/* A byte order mark before the text is none of it; elsewhere it is wrong. */
static void test_mark(void **state)
{
    json *root = parse_string("\xEF\xBB\xBF{\"a\": 1}");
    clm_error err = {0};

    (void)state;
    CHECK(json_int(json_get(root, "a"), 0) == 1, "behind a mark");
    json_free(root);
    CHECK(!json_parse("\xEF\xBB\xBF", 3, "x", &err) && err.code == CLM_ERR_FORMAT, "a mark alone");
    CHECK(!json_parse("{}\xEF\xBB\xBF", 5, "x", &err), "a mark behind");
    CHECK(!json_parse("\xEF\xBB", 2, "x", &err), "a part of one");
}

static void test_absent(void **state)
{
    json *root = parse_string("[1]");

    (void)state;
    CHECK(json_kind(NULL) == JSON_ABSENT && json_size(NULL) == 0, "absent");
    CHECK(!json_get(NULL, "a") && !json_at(NULL, 0) && !json_get(root, "a"), "absent");
    CHECK(!json_at(root, 1) && !json_at(root, SIZE_MAX), "past the end");
    CHECK(!json_at(json_at(root, 0), 0) && json_size(json_at(root, 0)) == 0, "in a number");
    CHECK(json_int(NULL, 5) == 5 && json_real(NULL, 0.5) == 0.5 && json_bool(NULL, true), "others");
    for (struct json_iter it = json_first(root); json_next(&it);)
        CHECK(false, "an array has no keys");
    for (struct json_iter it = json_first(NULL); json_next(&it);)
        CHECK(false, "nothing has no keys");
    json_free(root);
    json_free(NULL);
}

static void test_order(void **state)
{
    json *root = parse_string("{\"z\": 0, \"a\": 1, \"m\": 2, \"\": 3, \"\\u00e9\": 4}");
    static const char *const keys[] = {"z", "a", "m", "", "\xC3\xA9"};
    int n = 0;

    (void)state;
    for (struct json_iter it = json_first(root); json_next(&it); n++) {
        CHECK(!strcmp(it.key, keys[n]) && it.key_size == strlen(keys[n]), "key %d: %s", n, it.key);
        CHECK(json_int(it.value, -1) == n, "value %d", n);
    }
    CHECK(n == 5, "%d keys", n);
    json_free(root);
}

static void test_nul(void **state)
{
    static const char text[] = "{\"v\": {\"\\u0000\": 1, \"a\\u0000b\" : \"x\\u0000y\", \"c\": 3,"
                               " \"\\\\u0000\": 4, \"a\\u0000\": [{\"\\u0000\\u0000\": 5}]}}";
    static const struct {
        const char *key;
        size_t size;
    } keys[] = {{"\0", 1}, {"a\0b", 3}, {"c", 1}, {"\\u0000", 6}, {"a\0", 2}};
    json *root = parse_string(text);
    const json *v = json_get(root, "v");
    struct json_iter it = json_first(v);
    size_t n = 0, size = 0;

    (void)state;
    for (; json_next(&it); n++) {
        CHECK(it.key_size == keys[n].size && !memcmp(it.key, keys[n].key, it.key_size), "key %zu",
              n);
        CHECK(it.key[it.key_size] == '\0', "key %zu ends", n);
        if (n == 1)
            CHECK(!memcmp(json_string(it.value, &size), "x\0y", 4) && size == 3, "a value");
    }
    CHECK(n == 5, "%zu keys", n);
    it = json_first(json_at(it.value, 0));
    CHECK(json_next(&it) && it.key_size == 2 && json_int(it.value, 0) == 5, "in an array");
    json_free(root);
}

static void test_python(void **state)
{
    json *root = parse_string(
        "{\"max\": 9223372036854775807, \"min\": -9223372036854775808, \"big\": "
        "1000000000000000019884624838656, \"over\": 9223372036854775808, \"under\": "
        "-9223372036854775809, \"inf\": Infinity, \"neg\": [-Infinity], \"nan\": NaN, \"s\": "
        "\"NaN Infinity 99999999999999999999\", \"long\": 1.00000000000000000000001, "
        "\"float\": {\"__float__\": \"-Infinity\"}, \"other\": {\"__float__\": \"12\"}, "
        "\"two\": {\"__float__\": \"NaN\", \"a\": 1}}");

    (void)state;
    CHECK(json_int(json_get(root, "max"), 0) == INT64_MAX, "max");
    CHECK(json_int(json_get(root, "min"), 0) == INT64_MIN, "min");
    CHECK(json_kind(json_get(root, "big")) == JSON_REAL, "big is no integer");
    CHECK(json_real(json_get(root, "big"), 0) == 1e30, "big");
    CHECK(json_real(json_get(root, "over"), 0) == 0x1p63, "over");
    CHECK(json_real(json_get(root, "under"), 0) == -0x1p63, "under");
    CHECK(json_kind(json_get(root, "under")) == JSON_REAL, "under is no integer");
    CHECK(json_real(json_get(root, "long"), 0) == 1, "long");
    CHECK(json_real(json_get(root, "inf"), 0) == HUGE_VAL, "inf");
    CHECK(json_real(json_at(json_get(root, "neg"), 0), 0) == -HUGE_VAL, "negative");
    CHECK(isnan(json_real(json_get(root, "nan"), 0)), "nan");
    CHECK(json_real(json_get(root, "float"), 0) == -HUGE_VAL, "an object that stands for one");
    CHECK(json_kind(json_get(root, "other")) == JSON_OBJECT, "one that does not");
    CHECK(json_kind(json_get(root, "two")) == JSON_OBJECT, "nor this");
    CHECK(!strcmp(json_string(json_get(root, "s"), NULL), "NaN Infinity 99999999999999999999"),
          "s");
    json_free(root);
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *message;
        int code;
    } cases[] = {
        {"", "name: column 1: bad JSON: the end, expected a value", CLM_ERR_FORMAT},
        {"{", "bad JSON", CLM_ERR_FORMAT},
        {"{\"a\": 1,}", "bad JSON", CLM_ERR_FORMAT},
        {"{\n\"a\": x}", "line 2, column 6: bad JSON: 'x', expected a value", CLM_ERR_FORMAT},
        {"x\n", "line 1, column 1: bad JSON: 'x', expected a value", CLM_ERR_FORMAT},
        {"{\"a\": 1, \"a\": 2}", "duplicate", CLM_ERR_FORMAT},
        {"{\"a\\u0000\": 1, \"a\\u0000\": 2}", "duplicate", CLM_ERR_FORMAT},
        {"[\"\xC0\xAF\"]", "bad JSON", CLM_ERR_FORMAT},
        {"[\"\xED\xA0\x80\"]", "bad JSON", CLM_ERR_FORMAT},
        {"[\"\\ud800\"]", "bad JSON", CLM_ERR_FORMAT},
        {"[\"a\nb\"]", "bad JSON", CLM_ERR_FORMAT},
        {"[1e999]", "overflow", CLM_ERR_FORMAT},
        {"[01]", "bad JSON", CLM_ERR_FORMAT},
        {"{} {}", "bad JSON", CLM_ERR_FORMAT},
        {"[NaNs]", "bad JSON", CLM_ERR_FORMAT},
        {"[--Infinity]", "bad JSON", CLM_ERR_FORMAT},
        {"[\"abc", "bad JSON", CLM_ERR_FORMAT},
        {"[\"abc\\", "bad JSON", CLM_ERR_FORMAT},
        {"{'a': 1}", "bad JSON", CLM_ERR_FORMAT},
        {"version https://git-lfs.github.com/spec/v1", "run git lfs pull", CLM_ERR_FORMAT},
        {"[1, \xFF]", "name: column 5: bad JSON: bytes that are not UTF-8", CLM_ERR_FORMAT},
        {"[nul]", "expected a value", CLM_ERR_FORMAT},
        {"[1.]", "expected a digit", CLM_ERR_FORMAT},
        {"[-]", "expected a digit", CLM_ERR_FORMAT},
        {"[1e+]", "expected a digit", CLM_ERR_FORMAT},
        {"[\"\\ud83d\\u0041\"]", "surrogate", CLM_ERR_FORMAT},
        {"[\"\\x\"]", "an escape that JSON knows", CLM_ERR_FORMAT},
        {"{\"a\" 1}", "expected ':'", CLM_ERR_FORMAT},
        {"{1: 2}", "expected a string", CLM_ERR_FORMAT},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        clm_error err = {0};
        json *root = json_parse(cases[i].text, strlen(cases[i].text), "name", &err);

        CHECK(!root, "%s: taken", cases[i].text);
        CHECK(err.code == cases[i].code, "%s: code %d", cases[i].text, err.code);
        CHECK(strstr(err.message, cases[i].message), "%s: %s", cases[i].text, err.message);
        CHECK(!strncmp(err.message, "name: ", 6), "%s: %s", cases[i].text, err.message);
    }
}

static void nested(struct strbuf *b, const char *open, const char *close, int depth)
{
    strbuf_clear(b);
    for (int i = 0; i < depth; i++)
        strbuf_add_str(b, open);
    strbuf_add_str(b, "1");
    for (int i = 0; i < depth; i++)
        strbuf_add_str(b, close);
}

static void test_depth(void **state)
{
    static const char *const brackets[2][2] = {{"[", "]"}, {"{\"a\":", "}"}};
    static const int deep[] = {513, 100000};
    struct strbuf b = {0};

    (void)state;
    for (int k = 0; k < 2; k++) {
        nested(&b, brackets[k][0], brackets[k][1], 512);
        json_free(parse(b.data, b.size));
        for (size_t i = 0; i < COUNT(deep); i++) {
            clm_error err = {0};

            nested(&b, brackets[k][0], brackets[k][1], deep[i]);
            CHECK(!json_parse(b.data, b.size, "deep", &err), "depth %d taken", deep[i]);
            CHECK(strstr(err.message, "deeper than 512"), "%s", err.message);
        }
    }
    strbuf_release(&b);
}

static void test_file(void **state)
{
    clm_error err = {0};

    (void)state;
    CHECK(!json_parse_file("/nonexistent/a.json", &err), "taken");
    CHECK(err.code == CLM_ERR_IO && strstr(err.message, "/nonexistent/a.json"), "%s", err.message);
}

/* Every tokenizer of the goldens: a vocabulary with a NUL in a key among them. */
static void test_goldens(void **state)
{
    static const char *const files[] = {
        "goldens/tokenizers/gpt2/tokenizer.json",
        "goldens/tokenizers/synthetic/wordlevel-whitespace/tokenizer.json",
    };
    bool found = false;

    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t i = 0; i < COUNT(files); i++) {
        clm_error err = {0};
        json *root = json_parse_file(shared_path(files[i]), &err);
        const json *vocab = json_get(json_get(root, "model"), "vocab");

        CHECK(root, "%s", err.message);
        CHECK(json_size(vocab) > 20, "%s: %zu tokens", files[i], json_size(vocab));
        for (struct json_iter it = json_first(vocab); json_next(&it);)
            found |= it.key_size == 1 && it.key[0] == '\0';
        json_free(root);
    }
    CHECK(found, "the vocabulary has a token that is a NUL character");
}

/* Of an object with many keys all are found, in their order, and a key that stands twice is too. */
static void test_many_keys(void **state)
{
    struct strbuf b = {0};
    clm_error err = {0};
    json *root;
    int n = 0;

    (void)state;
    strbuf_add_str(&b, "{");
    for (int i = 0; i < 5000; i++)
        strbuf_addf(&b, "%s\"key %d\": %d", i ? ", " : "", i, i);
    strbuf_add_str(&b, "}");
    root = parse(b.data, b.size);
    for (struct json_iter it = json_first(root); json_next(&it); n++) {
        CHECK(json_int(it.value, -1) == n, "value %d", n);
        CHECK(json_get(root, it.key) == it.value, "%s", it.key);
    }
    CHECK(n == 5000 && json_size(root) == 5000 && !json_get(root, "key 5000"), "%d keys", n);
    json_free(root);
    b.size--;
    strbuf_add_str(&b, ", \"key 17\": 0}");
    CHECK(!json_parse(b.data, b.size, "name", &err) && strstr(err.message, "duplicate"), "taken");
    strbuf_release(&b);
}

/* Keys that all belong in one place of the index would take the square of their number to read. */
static void test_alike_keys(void **state)
{
    struct strbuf b = {0};
    clm_error err = {0};

    (void)state;
    strbuf_add_str(&b, "{");
    for (int i = 0, n = 0; n < 600; i++) {
        char key[16];
        int size = snprintf(key, sizeof key, "%d", i);

        if (hash_bytes(key, (size_t)size) & (dict_slots(600) - 1))
            continue;
        strbuf_addf(&b, "%s\"%s\": 0", n++ ? ", " : "", key);
    }
    strbuf_add_str(&b, "}");
    CHECK(!json_parse(b.data, b.size, "name", &err) && strstr(err.message, "one hash"), "%s",
          err.message);
    strbuf_release(&b);
}

/* Allocations fail in turn. */
static void test_memory(void **state)
{
    static const char *const texts[] = {
        "{\"a\": [1, 2.5, true, null, \"xy\", {\"b\": \"c\"}], \"d\": {\"e\": [], \"f\": {}}}",
        "[{\"a\": 1, \"b\": 2, \"c\": 3, \"d\": 4, \"e\": 5, \"f\": 6, \"g\": 7, \"h\": 8, \"i\": "
        "9}]",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        bool failed = true;

        for (long n = 0; failed; n++) {
            clm_error err = {0};
            json *root;

            mem_fail_after(n);
            root = json_parse(texts[i], strlen(texts[i]), "memory", &err);
            failed = mem_fail_after(-1);
            CHECK(failed == !root, "allocation %ld: %s", n, err.message);
            CHECK(root || err.code == CLM_ERR_NOMEM, "%s", err.message);
            CHECK(n < 1000, "it never succeeds");
            json_free(root);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),    cmocka_unit_test(test_mark),
        cmocka_unit_test(test_absent),    cmocka_unit_test(test_order),
        cmocka_unit_test(test_nul),       cmocka_unit_test(test_python),
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_depth),
        cmocka_unit_test(test_file),      cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_many_keys), cmocka_unit_test(test_alike_keys),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
