/* tests/tokenizer/test_tokenizer.c: what needs no reference: errors, limits, memory, threads. */
#include <pthread.h>
#include <string.h>

#include "base/memory.h"
#include "tokenizer/tokenizer.h"

#include "small_tokenizers.h"
#include "testing.h"

static tokenizer *open_small(const char *name, clm_error *err)
{
    for (size_t i = 0; i < SMALL_TOKENIZERS; i++) {
        if (!strcmp(small_tokenizers[i].name, name))
            return tokenizer_parse(small_tokenizers[i].text, strlen(small_tokenizers[i].text), NULL,
                                   0, name, err);
    }
    return NULL;
}

static void test_errors(void **state)
{
    static const struct {
        const char *text;
        int code;
        const char *message;
    } cases[] = {
        {"", CLM_ERR_FORMAT, "test"},
        {"[]", CLM_ERR_FORMAT, "no model"},
        {"{}", CLM_ERR_FORMAT, "no model"},
        {"{\"model\":{\"type\":\"Magic\"}}", CLM_ERR_UNSUPPORTED, "model of type \"Magic\""},
        {"{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", CLM_ERR_FORMAT, "\"vocab\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", CLM_ERR_FORMAT,
         "merge 0"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", CLM_ERR_FORMAT,
         "merge 0"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", CLM_ERR_FORMAT,
         "\"a\" has no id"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2000000000},\"merges\":[]}}",
         CLM_ERR_UNSUPPORTED, "2000000000"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}",
         CLM_ERR_UNSUPPORTED, "dropout"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"fuse_unk\":3}}",
         CLM_ERR_FORMAT, "fuse_unk"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", CLM_ERR_FORMAT, "no score"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"a\",0]]}}", CLM_ERR_UNSUPPORTED,
         "twice"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"unk_id\":1}}", CLM_ERR_FORMAT,
         "unk_id"},
        {"{\"model\":{\"vocab\":{\"a\":0}},\"normalizer\":{\"type\":\"Upper\"}}",
         CLM_ERR_UNSUPPORTED, "normalizer of type \"Upper\""},
        {"{\"model\":{\"vocab\":{\"a\":0}},\"normalizer\":{\"type\":\"Precompiled\","
         "\"precompiled_charsmap\":\"AAAA\"}}",
         CLM_ERR_FORMAT, "precompiled_charsmap"},
        {"{\"model\":{\"vocab\":{\"a\":0}},\"pre_tokenizer\":{\"type\":\"Scissors\"}}",
         CLM_ERR_UNSUPPORTED, "pre_tokenizer of type \"Scissors\""},
        {"{\"model\":{\"vocab\":{\"a\":0}},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{"
         "\"Regex\":\"\\\\X\"},\"behavior\":\"Isolated\",\"invert\":false}}",
         CLM_ERR_UNSUPPORTED, "byte 1"},
        {"{\"model\":{\"vocab\":{\"a\":0}},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{"
         "\"String\":\"x\"},\"behavior\":\"Doubled\",\"invert\":false}}",
         CLM_ERR_UNSUPPORTED, "Doubled"},
        {"{\"model\":{\"vocab\":{\"a\":0}},\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":"
         "0}}",
         CLM_ERR_FORMAT, "length of 0"},
        {"{\"model\":{\"vocab\":{\"a\":0}},\"post_processor\":{\"type\":\"Wrap\"}}",
         CLM_ERR_UNSUPPORTED, "post_processor of type \"Wrap\""},
        {"{\"model\":{\"vocab\":{\"a\":0}},\"post_processor\":{\"type\":\"TemplateProcessing\","
         "\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],\"special_tokens\":{}}}",
         CLM_ERR_FORMAT, "\"x\""},
        {"{\"model\":{\"vocab\":{\"a\":0}},\"decoder\":{\"type\":\"Guess\"}}", CLM_ERR_UNSUPPORTED,
         "decoder of type \"Guess\""},
        {"{\"model\":{\"vocab\":{\"a\":0}},\"added_tokens\":[{\"content\":1}]}", CLM_ERR_FORMAT,
         "content"},
        {"{\"model\":{\"vocab\":{\"a\":0}},\"normalizer\":{\"type\":\"Strip\",\"strip_left\":true,"
         "\"strip_right\":true},\"added_tokens\":[{\"content\":\" \",\"normalized\":true}]}",
         CLM_ERR_UNSUPPORTED, "leaves nothing"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        clm_error err = {0};
        tokenizer *t = tokenizer_parse(cases[i].text, strlen(cases[i].text), NULL, 0, "test", &err);

        CHECK(!t, "%s was accepted", cases[i].text);
        CHECK(err.code == cases[i].code && strstr(err.message, cases[i].message) &&
                  strstr(err.message, "test"),
              "%s: %d %s", cases[i].text, err.code, err.message);
    }
}

static void test_no_file(void **state)
{
    clm_error err = {0};

    (void)state;
    CHECK(!tokenizer_open("/nonexistent", NULL, &err), "opened");
    CHECK(err.code == CLM_ERR_IO && strstr(err.message, "/nonexistent: no tokenizer.json"), "%d %s",
          err.code, err.message);
}

/* Everything there is to do with a tokenizer; 0, or -1 with the error. */
static int use(const tokenizer *t, struct token_list *ids, struct strbuf *out, clm_error *err)
{
    static const char text[] = " a ab\xC3\xA9 aaaa [x] <s> aba.n't \xFF";
    struct detokenizer d = {0};
    int rc = tokenizer_encode(t, text, sizeof text - 1, true, ids, err);

    rc = rc ? rc : tokenizer_decode(t, ids->ids, ids->count, false, out, err);
    rc = rc ? rc : detokenizer_init(&d, t, true, err);
    for (size_t i = 0; i < ids->count && !rc; i++)
        rc = detokenizer_add(&d, ids->ids[i], out, err);
    rc = rc ? rc : detokenizer_finish(&d, out, err);
    detokenizer_release(&d);
    return rc;
}

static void test_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < SMALL_TOKENIZERS; i++) {
        const char *config = "{\"bos_token\":\"<s>\",\"chat_template\":\"{{x}}\"}";
        bool failed = true;
        struct token_list want = {0};
        struct strbuf text = {0};

        for (long n = 0; failed; n++) {
            clm_error err = {0};
            struct token_list ids = {0};
            struct strbuf out = {0};
            tokenizer *t;
            int rc;

            mem_fail_after(n);
            t = tokenizer_parse(small_tokenizers[i].text, strlen(small_tokenizers[i].text), config,
                                strlen(config), "test", &err);
            rc = t ? use(t, &ids, &out, &err) : -1;
            failed = mem_fail_after(-1);
            CHECK(failed ? true : rc == 0, "%s: %s", small_tokenizers[i].name, err.message);
            if (rc)
                CHECK(err.code == CLM_ERR_NOMEM, "%s: allocation %ld: %d %s",
                      small_tokenizers[i].name, n, err.code, err.message);
            if (!rc && !failed) {
                want = ids;
                text = out;
            } else {
                token_list_release(&ids);
                strbuf_release(&out);
            }
            tokenizer_close(t);
        }
        CHECK(want.count && text.size, "%s gives nothing", small_tokenizers[i].name);
        token_list_release(&want);
        strbuf_release(&text);
    }
}

/* A word as long as the text is, for every model. */
static void test_long_text(void **state)
{
    size_t n = 1 << 20;
    char *text = malloc(n);

    (void)state;
    assert_non_null(text);
    for (int round = 0; round < 3; round++) {
        for (size_t k = 0; k < n; k++)
            text[k] = "a a"[round == 2 ? k % 3 : (size_t)round];
        for (size_t i = 0; i < SMALL_TOKENIZERS; i++) {
            clm_error err = {0};
            struct token_list ids = {0};
            tokenizer *t = open_small(small_tokenizers[i].name, &err);

            CHECK(t && !tokenizer_encode(t, text, n, true, &ids, &err), "%s", err.message);
            if (!round && !strcmp(small_tokenizers[i].name, "bytes"))
                CHECK(ids.count == n / 4, "%zu tokens", ids.count);
            token_list_release(&ids);
            tokenizer_close(t);
        }
    }
    free(text);
}

static void test_failed_encode_leaves_list(void **state)
{
    static const char spec[] = "{\"model\":{\"vocab\":{\"a\":7}},\"pre_tokenizer\":{\"type\":"
                               "\"WhitespaceSplit\"}}";
    clm_error err = {0};
    struct token_list ids = {0};
    tokenizer *t = tokenizer_parse(spec, sizeof spec - 1, NULL, 0, "test", &err);

    (void)state;
    CHECK(t, "%s", err.message);
    CHECK(!tokenizer_encode(t, "a a", 3, true, &ids, &err) && ids.count == 2, "%s", err.message);
    CHECK(tokenizer_encode(t, "a b", 3, true, &ids, &err), "b was encoded");
    CHECK(ids.count == 2 && ids.ids[0] == 7 && ids.ids[1] == 7, "%zu ids", ids.count);
    CHECK(err.code == CLM_ERR_FORMAT && strstr(err.message, "unknown token"), "%s", err.message);
    token_list_release(&ids);
    tokenizer_close(t);
}

struct thread_work {
    const tokenizer *t;
    const struct token_list *want;
    int differ;
};

static const char shared_text[] = "a ab aab  abab\n\n aaaa aaaaaaaaaaaaaaaaab it's 12345 ab ab";

static void *encode_often(void *ctx)
{
    struct thread_work *work = ctx;

    for (int i = 0; i < 2000; i++) {
        struct token_list ids = {0};
        clm_error err = {0};

        if (tokenizer_encode(work->t, shared_text, sizeof shared_text - 1, true, &ids, &err) ||
            ids.count != work->want->count ||
            memcmp(ids.ids, work->want->ids, ids.count * sizeof *ids.ids) != 0)
            work->differ++;
        token_list_release(&ids);
    }
    return NULL;
}

static void test_threads(void **state)
{
    clm_error err = {0};
    tokenizer *alone = open_small("bytes", &err), *t = open_small("bytes", &err);
    struct token_list want = {0};
    struct thread_work work[4];
    pthread_t threads[4];

    (void)state;
    CHECK(alone && t, "%s", err.message);
    CHECK(!tokenizer_encode(alone, shared_text, sizeof shared_text - 1, true, &want, &err), "%s",
          err.message);
    for (size_t i = 0; i < COUNT(work); i++) {
        work[i] = (struct thread_work){.t = t, .want = &want};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &work[i]), 0);
    }
    for (size_t i = 0; i < COUNT(work); i++) {
        pthread_join(threads[i], NULL);
        CHECK(!work[i].differ, "thread %zu: %d encodings differ", i, work[i].differ);
    }
    token_list_release(&want);
    tokenizer_close(alone);
    tokenizer_close(t);
}

static void test_config(void **state)
{
    static const char spec[] =
        "{\"model\":{\"vocab\":{\"a\":0,\"<s>\":1,\"<unk>\":2},\"unk_token\":\"<unk>\"},"
        "\"added_tokens\":[{\"id\":9,\"content\":\"<x>\",\"special\":false,\"normalized\":false}]}";
    static const char config[] =
        "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\",\"lstrip\":true},"
        "\"additional_special_tokens\":[\"<y>\"]}";
    clm_error err = {0};
    struct token_list ids = {0};
    tokenizer *t = tokenizer_parse(spec, sizeof spec - 1, config, sizeof config - 1, "test", &err);
    static const int32_t want[] = {1, 0, 4, 3, 5};

    (void)state;
    CHECK(t, "%s", err.message);
    /* Ids in order: the vocabulary's, then <x>, </s>, <y>. */
    CHECK(tokenizer_role(t, TOKEN_BOS) == 1 && tokenizer_role(t, TOKEN_EOS) == 4 &&
              tokenizer_role(t, TOKEN_PAD) == -1,
          "roles %d %d", tokenizer_role(t, TOKEN_BOS), tokenizer_role(t, TOKEN_EOS));
    CHECK(tokenizer_is_special(t, 1) && tokenizer_is_special(t, 4) && tokenizer_is_special(t, 5) &&
              !tokenizer_is_special(t, 3) && !tokenizer_is_special(t, 0),
          "special");
    CHECK(tokenizer_vocab_size(t) == 6, "%zu", tokenizer_vocab_size(t));
    CHECK(!tokenizer_encode(t, "<s>a  </s><x><y>", 16, true, &ids, &err), "%s", err.message);
    CHECK(ids.count == COUNT(want) && !memcmp(ids.ids, want, sizeof want), "%zu ids", ids.count);
    token_list_release(&ids);
    tokenizer_close(t);
}

/* What the configuration says of a token overrides tokenizer.json; one with a role is special. */
static void test_config_overrides(void **state)
{
    static const char spec[] =
        "{\"model\":{\"vocab\":{\"a\":0,\"<unk>\":1},\"unk_token\":\"<unk>\"},\"added_tokens\":["
        "{\"id\":2,\"content\":\"<x>\",\"normalized\":false,\"special\":false}]}";
    static const char config[] =
        "{\"eos_token\":\"<x>\",\"added_tokens_decoder\":{\"10\":{\"content\":\"<z>\","
        "\"special\":true},\"2\":{\"content\":\"<x>\",\"rstrip\":true,\"special\":false},"
        "\"9\":{\"content\":\"<y>\"}}}";
    static const int32_t want[] = {2, 0, 3, 4};
    clm_error err = {0};
    struct token_list ids = {0};
    tokenizer *t = tokenizer_parse(spec, sizeof spec - 1, config, sizeof config - 1, "test", &err);

    (void)state;
    CHECK(t, "%s", err.message);
    CHECK(!tokenizer_encode(t, "<x>  a<y><z>", 12, true, &ids, &err), "%s", err.message);
    CHECK(ids.count == COUNT(want) && !memcmp(ids.ids, want, sizeof want), "%zu ids", ids.count);
    CHECK(tokenizer_is_special(t, 2) && !tokenizer_is_special(t, 3) && tokenizer_is_special(t, 4),
          "special");
    token_list_release(&ids);
    tokenizer_close(t);
}

/* Spaces before full stops are what transformers 5 leaves and takes away, of a BPE only where the
 * longer name asks for it too. */
static void test_cleanup(void **state)
{
#define CLEAN "\"clean_up_tokenization_spaces\":true"
#define FORCE "\"clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output\":true"
    static const char bpe[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\".\":1},"
                              "\"merges\":[]}}";
    static const char words[] = "{\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"a\","
                                "\"vocab\":{\"a\":0,\".\":1}}}";
    static const struct {
        const char *spec, *config, *want;
    } cases[] = {
        {bpe, "{}", "a . a ."},
        {bpe, "{" CLEAN "}", "a . a ."},
        {bpe, "{" FORCE "}", "a . a ."},
        {bpe, "{" CLEAN "," FORCE "}", "a. a."},
        {words, "{}", "a . a ."},
        {words, "{" CLEAN "}", "a. a."},
        {words, "{" FORCE "}", "a . a ."},
        {words, "{" CLEAN "," FORCE "}", "a. a."},
    };
    static const int32_t ids[] = {0, 1, 0, 1};

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct strbuf out = {0};
        clm_error err = {0};
        tokenizer *t = tokenizer_parse(cases[i].spec, strlen(cases[i].spec), cases[i].config,
                                       strlen(cases[i].config), "test", &err);

        CHECK(t && !tokenizer_decode(t, ids, COUNT(ids), false, &out, &err), "%s", err.message);
        CHECK(!strcmp(out.data, cases[i].want), "%zu: \"%s\"", i, out.data);
        strbuf_release(&out);
        tokenizer_close(t);
    }
}

/* "first" prepends to the piece that begins with the first character of the text, wherever the
 * normalizer has put it; ids as the reference gives them. */
static void test_first(void **state)
{
    static const struct {
        const char *normalizers;
        const char *text;
        int32_t ids[4];
    } cases[] = {
        {"", "a b", {2, 3, -1}},
        {"", " a", {2, -1}},
        {"{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}", "  a", {0, -1}},
        {"{\"type\":\"Strip\",\"strip_left\":false,\"strip_right\":true},{\"type\":\"ByteLevel\"},"
         "{\"type\":\"NFC\"},{\"type\":\"NFKD\"}",
         "   ",
         {-1}},
        {"{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+\"},\"content\":\"a\"}", "xx", {0, -1}},
        {"{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+\"},\"content\":\"a\"}", "x", {2, -1}},
        {"{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\" a\"}",
         "xx",
         {2, 2, -1}},
        {"{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\"\"}", "xa", {0, -1}},
        {"{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\"\"}", "ax", {2, -1}},
        {"{\"type\":\"NFD\"},{\"type\":\"StripAccents\"}", "\xC3\xA0", {2, -1}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct strbuf spec = {0};
        struct token_list ids = {0};
        clm_error err = {0};
        tokenizer *t;
        size_t n = 0;

        strbuf_addf(&spec,
                    "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"\xE2\x96\x81"
                    "a\":2,\"\xE2\x96\x81"
                    "b\":3}},\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[%s]},"
                    "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\","
                    "\"prepend_scheme\":\"first\"}}",
                    cases[i].normalizers);
        t = tokenizer_parse(spec.data, spec.size, NULL, 0, "test", &err);
        CHECK(t, "%s", err.message);
        CHECK(!tokenizer_encode(t, cases[i].text, strlen(cases[i].text), true, &ids, &err),
              "case %zu: %s", i, err.message);
        while (cases[i].ids[n] >= 0 && n < ids.count && ids.ids[n] == cases[i].ids[n])
            n++;
        CHECK(n == ids.count && cases[i].ids[n] < 0, "case %zu: %zu ids, first %d", i, ids.count,
              ids.count ? ids.ids[0] : -1);
        token_list_release(&ids);
        strbuf_release(&spec);
        tokenizer_close(t);
    }
}

/* Each segment is what its token makes certain, no more and no less. */
static void test_segments(void **state)
{
    static const struct {
        const char *name;
        int32_t ids[8];
        const char *segments[9]; /* the last one is of detokenizer_finish */
    } cases[] = {
        /* é and a cut 你, then a letter. */
        {"bytes",
         {0xC3, 0xA9, 0xE4, 0xBD, 'a', -1},
         {"", "\xC3\xA9", "", "",
          "\xEF\xBF\xBD"
          "a",
          ""}},
        {"bytes", {0xFF, 'b', 0xE4, -1}, {"\xEF\xBF\xBD", "b", "", "\xEF\xBF\xBD"}},
        /* The first space goes; bytes wait for the end of their run. */
        {"pieces", {8, 5, 7, 2, 6, -1}, {"a", " ", "b", "", "\na", ""}},
        {"pieces",
         {3, 4, 3, 6, -1},
         {"", "", "",
          "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
          "a",
          ""}},
        {"pieces", {4, 4, 3, -1}, {"\xEF\xBF\xBD", "\xEF\xBF\xBD", "\xEF\xBF\xBD", ""}},
        {"subwords", {3, 4, 6, 7, 8, 9, -1}, {"a", "a", " n", " '", " t", ".", ""}},
        /* "ab" becomes "c"; up to two spaces at the end go. */
        {"signal", {1, 2, 2, 3, 1, 0, 1, -1}, {"", "", "", "c", "", "", "", ""}},
        {"suffixes", {1, 3, 5, -1}, {"a", "a", " ab", ""}},
        {"words", {0, 99, 1, -1}, {"a", "", " b", ""}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        clm_error err = {0};
        struct detokenizer d = {0};
        struct strbuf segment = {0};
        tokenizer *t = open_small(cases[i].name, &err);
        size_t k = 0;

        CHECK(t && !detokenizer_init(&d, t, false, &err), "%s", err.message);
        do {
            strbuf_clear(&segment);
            CHECK(!(cases[i].ids[k] >= 0 ? detokenizer_add(&d, cases[i].ids[k], &segment, &err)
                                         : detokenizer_finish(&d, &segment, &err)),
                  "%s", err.message);
            CHECK(!strcmp(segment.data && segment.size ? segment.data : "", cases[i].segments[k]),
                  "%s, case %zu: segment %zu is \"%.*s\", not \"%s\"", cases[i].name, i, k,
                  (int)segment.size, segment.data ? segment.data : "", cases[i].segments[k]);
        } while (cases[i].ids[k++] >= 0);
        detokenizer_release(&d);
        strbuf_release(&segment);
        tokenizer_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_no_file),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_failed_encode_leaves_list),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_config_overrides),
        cmocka_unit_test(test_cleanup),
        cmocka_unit_test(test_first),
        cmocka_unit_test(test_segments),
    };

    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
