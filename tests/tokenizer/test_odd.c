/* tests/tokenizer/test_odd.c: legal tokenizer.json files of unusual forms, against make_odd.py. */
#include <string.h>

#include "format/json.h"
#include "tokenizer/tokenizer.h"

#include "testing.h"

/* {"normalizer": ...} and the model, as one tokenizer. */
static tokenizer *open_case(const char *parts, const char *model)
{
    struct strbuf spec = {0};
    clm_error err = {0};
    tokenizer *t;

    strbuf_addf(&spec, "{\"model\": %s, %s", model, parts + 1);
    t = tokenizer_parse(spec.data, spec.size, NULL, 0, parts, &err);
    CHECK(t, "%s", err.message);
    strbuf_release(&spec);
    return t;
}

static void check_ids(const tokenizer *t, const json *row, bool special, const char *parts)
{
    struct token_list ids = {0};
    const json *want = json_at(row, special ? 1 : 2);
    clm_error err = {0};
    size_t n;
    const char *text = json_string(json_at(row, 0), &n);
    bool same;

    CHECK(!tokenizer_encode(t, text, n, special, &ids, &err), "%s", err.message);
    same = ids.count == json_size(want);
    for (size_t i = 0; same && i < ids.count; i++)
        same = ids.ids[i] == json_int(json_at(want, i), -1);
    CHECK(same, "%s: \"%s\" differs, special tokens: %d", parts, text, special);
    token_list_release(&ids);
}

/* Decoded at once, and as it streams. */
static void check_text(const tokenizer *t, const json *row, const char *parts)
{
    struct token_list ids = {0};
    struct strbuf whole = {0}, streamed = {0};
    struct detokenizer d;
    clm_error err = {0};
    const char *want = json_string(json_at(row, 3), NULL);

    for (size_t i = 0; i < json_size(json_at(row, 2)); i++)
        token_list_add(&ids, (int32_t)json_int(json_at(json_at(row, 2), i), -1));
    CHECK(!tokenizer_decode(t, ids.ids, ids.count, true, &whole, &err), "%s", err.message);
    CHECK(!detokenizer_init(&d, t, true, &err), "%s", err.message);
    for (size_t i = 0; i < ids.count; i++)
        CHECK(!detokenizer_add(&d, ids.ids[i], &streamed, &err), "%s", err.message);
    CHECK(!detokenizer_finish(&d, &streamed, &err), "%s", err.message);
    CHECK(!strcmp(whole.data ? whole.data : "", want), "%s: \"%s\", not \"%s\"", parts,
          whole.data ? whole.data : "", want);
    CHECK(!strcmp(streamed.data ? streamed.data : "", want), "%s: \"%s\" streams, not \"%s\"",
          parts, streamed.data ? streamed.data : "", want);
    detokenizer_release(&d);
    token_list_release(&ids);
    strbuf_release(&whole);
    strbuf_release(&streamed);
}

static void test_equal(void **state)
{
    clm_error err = {0};
    json *file = json_parse_file(CLM_TEST_DATA "/tokenizer/odd.json", &err);
    const json *cases = json_get(file, "cases");

    (void)state;
    CHECK(json_size(cases) > 100, "%s", err.message);
    for (size_t i = 0; i < json_size(cases); i++) {
        const char *parts = json_string(json_get(json_at(cases, i), "parts"), NULL);
        const json *rows = json_get(json_at(cases, i), "rows");
        tokenizer *t = open_case(parts, json_string(json_get(file, "model"), NULL));

        for (size_t k = 0; k < json_size(rows); k++) {
            check_ids(t, json_at(rows, k), true, parts);
            check_ids(t, json_at(rows, k), false, parts);
            check_text(t, json_at(rows, k), parts);
        }
        tokenizer_close(t);
    }
    json_free(file);
}

/* The reference has no template for any other number of parts. */
static void test_refused(void **state)
{
    static const char model[] =
        "{\"model\": {\"type\": \"WordLevel\", \"unk_token\": \"u\", \"vocab\": {\"u\": 0}}, "
        "\"post_processor\": {\"type\": \"Sequence\", \"processors\": ["
        "{\"type\": \"TemplateProcessing\", \"single\": [], \"pair\": [], \"special_tokens\": {}}, "
        "{\"type\": \"TemplateProcessing\", \"single\": [], \"pair\": [], \"special_tokens\": "
        "{}}]}}";
    clm_error err = {0};

    (void)state;
    assert_null(tokenizer_parse(model, sizeof model - 1, NULL, 0, "m", &err));
    CHECK(strstr(err.message, "a template for 0 parts"), "%s", err.message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
