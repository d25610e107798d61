/* tests/tokenizer/test_effects.c: what is remembered of ids, against the decoder itself. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "tokenizer/tokenizer.h"

#include "by_stages.h"
#include "small_tokenizers.h"
#include "testing.h"

#define SEQUENCES 4000
#define LONGEST 24

/* Whole words, bytes of both kinds, halves of characters, marks, and tokens that are left out. */
#define WORDS                                                                                      \
    "\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"a\",\"vocab\":{\"a\":0,\"\\u0120b\":1,"     \
    "\"\\u00c3\":2,\"\\u00a9\":3,\"\\u00e4\\u00bd\":4,\"\\u0142\\u00e4\":5,\"\\u00ff\":6,"         \
    "\"<0xC3>\":7,\"<0xA9>\":8,\"<0xe4>\":9,\"<0xFF>\":10,\"<0x41>\":11,\"\":12,"                  \
    "\"\\u2581\":13,\"\\u2581a\":14,\"##b\":15,\"\\u4f60\":16,\" \":17,\" .\":18,\" n't\":19,"     \
    "\"|\":20,\"<pad>\":21,\"b</w>\":22,\"\\u2581\\u2581\\u2581\\u2581\\u2581\\u2581\":23,"        \
    "\"\\u0120interchangeable\":24,\"<0x+4>\":25,\"aaaaaaaaaaaaa\":26,\"aaaaaaaaaaaaaa\":27,"      \
    "\"\\u0120\":28,\"do "                                                                         \
    "not\":29,\"\\u0120\\u0120\\u0120\\u0120\\u0120\\u0120\":32,\"'\":30,\"s\":31,\"  aa  "        \
    "\":33}},"                                                                                     \
    "\"added_tokens\":[{\"id\":34,\"content\":\"<s>\",\"special\":true},{\"id\":35,\"content\":"   \
    "\"<0xA9>x\",\"special\":false},{\"id\":36,\"content\":\"\\u2581\\u4f60 \",\"special\":true}]"

#define SEQUENCE(list) "{\"type\":\"Sequence\",\"decoders\":[" list "]}"
#define REPLACE(from, to)                                                                          \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" from "\"},\"content\":\"" to "\"}"
#define STRIP(start, stop)                                                                         \
    "{\"type\":\"Strip\",\"content\":\" \",\"start\":" #start ",\"stop\":" #stop "}"
#define METASPACE(scheme)                                                                          \
    "{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"" scheme "\"}"
#define WORDPIECE "{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}"
#define BPE "{\"type\":\"BPEDecoder\",\"suffix\":\"</w>\"}"
#define CTC                                                                                        \
    "{\"type\":\"CTC\",\"pad_token\":\"<pad>\",\"word_delimiter_token\":\"|\",\"cleanup\":true}"
#define BYTE_LEVEL "{\"type\":\"ByteLevel\"}"
#define BYTE_FALLBACK "{\"type\":\"ByteFallback\"}"
#define FUSE "{\"type\":\"Fuse\"}"
/* Six of these are more than is remembered of an id. */
#define X4(s) s s s s
#define FILL X4(X4("The quick brown fox jumps over the lazy dog, and more."))

static const char *const decoders[] = {
    "null",
    BYTE_LEVEL,
    SEQUENCE(REPLACE("\\u2581", " ") "," BYTE_LEVEL),
    SEQUENCE(STRIP(1, 1) "," BYTE_LEVEL "," STRIP(1, 0)),
    SEQUENCE(BYTE_LEVEL "," FUSE "," STRIP(1, 1)),
    SEQUENCE(BYTE_LEVEL "," REPLACE("a\\u00e9", "x")),
    SEQUENCE(BYTE_LEVEL "," BYTE_LEVEL),
    SEQUENCE(METASPACE("always") "," BYTE_LEVEL),
    SEQUENCE(BYTE_FALLBACK "," BYTE_LEVEL),
    SEQUENCE(BYTE_LEVEL "," BYTE_FALLBACK),
    SEQUENCE(REPLACE("\\u2581", " ") "," BYTE_FALLBACK "," FUSE),
    SEQUENCE(REPLACE("\\u2581", " ") "," BYTE_FALLBACK "," FUSE "," STRIP(1, 0)),
    SEQUENCE(REPLACE("\\u2581", " ") "," BYTE_FALLBACK "," FUSE "," STRIP(2, 1)),
    SEQUENCE(BYTE_FALLBACK "," STRIP(1, 0)),
    SEQUENCE(BYTE_FALLBACK "," REPLACE("A", "<0x42>") "," BYTE_FALLBACK),
    SEQUENCE(FUSE "," BYTE_FALLBACK),
    BYTE_FALLBACK,
    SEQUENCE(REPLACE("a", "<0xE4>") "," BYTE_FALLBACK),
    SEQUENCE(REPLACE("\\u2581", FILL) "," BYTE_FALLBACK),
    SEQUENCE(REPLACE("\\u0120", FILL "\\u00e4\\u00bd") "," BYTE_LEVEL),
    METASPACE("always"),
    METASPACE("never"),
    SEQUENCE(METASPACE("first") "," BYTE_FALLBACK),
    WORDPIECE,
    SEQUENCE(WORDPIECE "," METASPACE("always")),
    SEQUENCE(FUSE "," WORDPIECE),
    BPE,
    SEQUENCE(BPE "," WORDPIECE),
    CTC,
    SEQUENCE(CTC "," FUSE "," STRIP(1, 2)),
    "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a*\"},\"content\":\"-\"}",
    SEQUENCE(FUSE ",{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a+\"},\"content\":\"-\"}"),
};

static uint32_t drawn(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525 + 1013904223;
    return (*seed >> 8) % n;
}

/* Ids of the vocabulary, some of them often, and now and then one that is none. */
static size_t draw_ids(uint32_t *seed, int32_t n_ids, int32_t *ids)
{
    size_t n = drawn(seed, LONGEST + 1);

    for (size_t i = 0; i < n; i++) {
        uint32_t how = drawn(seed, 16);

        ids[i] = (int32_t)drawn(seed, (uint32_t)n_ids);
        if (how < 4 && i)
            ids[i] = ids[i - 1] + (how & 1);
        else if (how == 4)
            ids[i] = (int32_t[]){-1, INT32_MIN, INT32_MAX, n_ids}[drawn(seed, 4)];
    }
    return n;
}

static bool same(const struct strbuf *a, const struct strbuf *b)
{
    return a->size == b->size && (!a->size || !memcmp(a->data, b->data, a->size));
}

static void check_ids(const tokenizer *t, const char *name, const int32_t *ids, size_t n, bool skip)
{
    struct strbuf whole = {0}, joined = {0}, got = {0}, want = {0};
    struct detokenizer d;
    clm_error err = {0};
    struct decode_state *x = decode_state_open(&t->decoder, &err);

    CHECK(x && !detokenizer_init(&d, t, skip, &err), "%s", err.message);
    for (size_t i = 0; i <= n; i++) {
        strbuf_clear(&got);
        strbuf_clear(&want);
        CHECK(
            !(i < n ? detokenizer_add(&d, ids[i], &got, &err) : detokenizer_finish(&d, &got, &err)),
            "%s", err.message);
        CHECK(!(i < n ? by_stages_add(x, t, ids[i], skip, &want, &err)
                      : decode_finish(x, &want, &err)),
              "%s", err.message);
        CHECK(same(&got, &want), "%s: segment %zu is \"%.*s\", not \"%.*s\"", name, i,
              (int)got.size, got.data ? got.data : "", (int)want.size, want.data ? want.data : "");
        strbuf_add(&joined, want.data ? want.data : "", want.size);
    }
    CHECK(!tokenizer_decode(t, ids, n, skip, &whole, &err), "%s", err.message);
    CHECK(same(&whole, &joined), "%s: %zu ids, first %d, are \"%.*s\", not \"%.*s\"", name, n,
          n ? ids[0] : -1, (int)whole.size, whole.data ? whole.data : "", (int)joined.size,
          joined.data ? joined.data : "");
    detokenizer_release(&d);
    decode_state_close(x);
    strbuf_release(&whole);
    strbuf_release(&joined);
    strbuf_release(&got);
    strbuf_release(&want);
}

static void check_tokenizer(const tokenizer *t, const char *name, size_t sequences)
{
    int32_t ids[LONGEST];
    uint32_t seed = 1;

    for (size_t k = 0; k < sequences; k++) {
        size_t n = draw_ids(&seed, (int32_t)tokenizer_vocab_size(t), ids);

        check_ids(t, name, ids, n, k & 1);
    }
}

static tokenizer *open_decoder(const char *decoder, bool cleanup)
{
    static const char clean[] = "{\"clean_up_tokenization_spaces\":true}";
    struct strbuf spec = {0};
    clm_error err = {0};
    tokenizer *t;

    strbuf_addf(&spec, "{" WORDS ",\"decoder\":%s}", decoder);
    t = tokenizer_parse(spec.data, spec.size, cleanup ? clean : NULL, sizeof clean - 1, "test",
                        &err);
    CHECK(t, "%s", err.message);
    strbuf_release(&spec);
    return t;
}

static void test_decoders(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(decoders); i++) {
        for (int cleanup = 0; cleanup < 2; cleanup++) {
            tokenizer *t = open_decoder(decoders[i], cleanup);

            check_tokenizer(t, decoders[i], SEQUENCES / 4);
            tokenizer_close(t);
        }
    }
}

static void test_small_tokenizers(void **state)
{
    (void)state;
    for (size_t i = 0; i < SMALL_TOKENIZERS; i++) {
        clm_error err = {0};
        tokenizer *t = tokenizer_parse(small_tokenizers[i].text, strlen(small_tokenizers[i].text),
                                       NULL, 0, small_tokenizers[i].name, &err);

        CHECK(t, "%s", err.message);
        check_tokenizer(t, small_tokenizers[i].name, SEQUENCES);
        tokenizer_close(t);
    }
}

/* Ids of several blocks, of which whole ones have no token. */
static void test_gaps(void **state)
{
    static const char spec[] =
        "{\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"a\",\"vocab\":{\"a\":0,\"b\":127,"
        "\"c\":128,\"\\u00e4\":1000,\"\\u00bd\":1001}},\"decoder\":" BYTE_LEVEL "}";
    static const int32_t ids[] = {1000, 500, 1001, 127, 128, 999, 1002, 1000, 0, 1023, 1024, 4096};
    clm_error err = {0};
    tokenizer *t = tokenizer_parse(spec, sizeof spec - 1, NULL, 0, "test", &err);

    (void)state;
    CHECK(t, "%s", err.message);
    for (size_t n = 0; n <= COUNT(ids); n++)
        check_ids(t, "gaps", ids, n, false);
    tokenizer_close(t);
}

/* Which decoders act on tokens alone, so that nearly all ids are looked up. */
static void test_at_rest(void **state)
{
    static const struct {
        const char *decoder;
        int32_t first, id;
        bool rest;
    } cases[] = {
        {BYTE_LEVEL, 0, 1, true},
        {BYTE_LEVEL, 0, 2, false}, /* half a character */
        {SEQUENCE(REPLACE("\\u2581", " ") "," BYTE_FALLBACK "," FUSE "," STRIP(1, 0)), 0, 14, true},
        {SEQUENCE(REPLACE("\\u2581", " ") "," BYTE_FALLBACK "," FUSE), 0, 7, false},
        {METASPACE("always"), 0, 14, true},
        {WORDPIECE, 0, 15, true},
        {"null", 0, 1, true},
        {CTC, 0, 1, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        tokenizer *t = open_decoder(cases[i].decoder, false);
        struct strbuf out = {0};
        clm_error err = {0};
        struct decode_state *x = decode_state_open(&t->decoder, &err);

        CHECK(x && !by_stages_add(x, t, cases[i].first, false, &out, &err) &&
                  !by_stages_add(x, t, cases[i].id, false, &out, &err),
              "%s", err.message);
        CHECK(decode_at_rest(x) == cases[i].rest, "%s: id %d", cases[i].decoder, cases[i].id);
        decode_state_close(x);
        strbuf_release(&out);
        tokenizer_close(t);
    }
}

struct work {
    const tokenizer *t;
    struct strbuf text;
    int failures;
};

static void *decode_all(void *ctx)
{
    struct work *work = ctx;
    clm_error err = {0};

    for (int32_t id = 0; id < 40; id++)
        work->failures += tokenizer_decode(work->t, &id, 1, false, &work->text, &err) != 0;
    return NULL;
}

/* The first to ask make what is remembered, all at the same time. */
static void test_threads(void **state)
{
    (void)state;
    for (int round = 0; round < 50; round++) {
        tokenizer *t = open_decoder(BYTE_LEVEL, false);
        struct work work[4];
        pthread_t threads[COUNT(work)];

        for (size_t i = 0; i < COUNT(work); i++) {
            work[i] = (struct work){.t = t};
            assert_int_equal(pthread_create(&threads[i], NULL, decode_all, &work[i]), 0);
        }
        for (size_t i = 0; i < COUNT(work); i++) {
            pthread_join(threads[i], NULL);
            CHECK(!work[i].failures && work[i].text.size && same(&work[i].text, &work[0].text),
                  "thread %zu: %d failures", i, work[i].failures);
        }
        for (size_t i = 0; i < COUNT(work); i++)
            strbuf_release(&work[i].text);
        tokenizer_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoders), cmocka_unit_test(test_small_tokenizers),
        cmocka_unit_test(test_gaps),     cmocka_unit_test(test_at_rest),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests_name("effects", tests, NULL, NULL);
}
