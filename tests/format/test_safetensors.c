/* safetensors files: what is read, every way a hostile one is refused, and what is written. */
#include "testing.h"

#include <string.h>

#include "base/memory.h"
#include "base/number.h"
#include "base/strbuf.h"
#include "format/safetensors.h"

/* A file in memory: a header and n_data bytes 0, 1, 2, ... after it. */
static void make_file(struct strbuf *b, const char *header, size_t size, size_t n_data)
{
    uint8_t length[8];

    strbuf_clear(b);
    store_le64(length, size);
    strbuf_add(b, (const char *)length, sizeof length);
    strbuf_add(b, header, size);
    for (size_t i = 0; i < n_data; i++)
        strbuf_add_char(b, (char)i);
}

static int parse(struct safetensors *st, const struct strbuf *b, clm_error *err)
{
    *err = (clm_error){0};
    return safetensors_parse(st, b->data, b->size, "name", err);
}

static void check_refused(const struct strbuf *b, int code, const char *message, const char *what)
{
    struct safetensors st;
    clm_error err;
    int rc = parse(&st, b, &err);

    CHECK(rc == -1, "%s: taken", what);
    CHECK(err.code == code, "%s: code %d: %s", what, err.code, err.message);
    CHECK(strstr(err.message, message), "%s: %s", what, err.message);
    CHECK(!strncmp(err.message, "name: ", 6), "%s: %s", what, err.message);
    CHECK(!st.tensors && !st.memory && !st.n_tensors, "%s: left open", what);
}

static void test_read(void **state)
{
    static const char header[] =
        "{\"b\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[6,14]},"
        " \"__metadata__\" : {\"format\":\"pt\", \"k\\u00e9y\\n\":\"\\ud83d\\ude00\"},\n"
        "\"a\":{\"data_offsets\":[0,6],\"shape\":[3],\"dtype\":\"BF16\",\"more\":[{\"x\":-1.5e3},"
        "null]},"
        "\"scalar\":{\"dtype\":\"F8_E8M0\",\"shape\":[],\"data_offsets\":[14,15]},"
        "\"none\":{\"dtype\":\"I64\",\"shape\":[4,0,7],\"data_offsets\":[6,6]},"
        "\"end\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[15,15]}}   ";
    static const char *const names[] = {"a", "none", "b", "scalar", "end"};
    struct strbuf b = {0};
    struct safetensors st;
    clm_error err;

    (void)state;
    make_file(&b, header, strlen(header), 15);
    CHECK(!parse(&st, &b, &err), "%s", err.message);
    CHECK(st.n_tensors == 5, "%zu tensors", st.n_tensors);
    for (size_t i = 0; i < 5; i++)
        CHECK(!strcmp(st.tensors[i].name, names[i]), "%zu: %s", i, st.tensors[i].name);
    CHECK(st.tensors[0].type == DTYPE_BF16 && st.tensors[0].n_dims == 1, "a");
    CHECK(st.tensors[0].shape[0] == 3 && st.tensors[0].size == 6, "a");
    CHECK((const char *)st.tensors[0].data == b.data + 8 + strlen(header), "a");
    CHECK(st.tensors[1].n_dims == 3 && st.tensors[1].size == 0, "none");
    CHECK(st.tensors[2].type == DTYPE_F32 && st.tensors[2].n_dims == 2, "b");
    CHECK(*(const uint8_t *)st.tensors[2].data == 6, "b");
    CHECK(st.tensors[3].n_dims == 0 && st.tensors[3].size == 1, "scalar");
    CHECK(st.n_metadata == 2 && !strcmp(st.metadata[0], "format"), "metadata");
    CHECK(!strcmp(st.metadata[2], "k\xC3\xA9y\n"), "%s", st.metadata[2]);
    CHECK(!strcmp(st.metadata[3], "\xF0\x9F\x98\x80"), "%s", st.metadata[3]);
    safetensors_close(&st);
    safetensors_close(&st);

    make_file(&b, "{}", 2, 0);
    CHECK(!parse(&st, &b, &err) && st.n_tensors == 0, "no tensors: %s", err.message);
    safetensors_close(&st);
    make_file(&b, "{\"__metadata__\":null}", 21, 0);
    CHECK(!parse(&st, &b, &err) && st.n_metadata == 0, "null metadata: %s", err.message);
    safetensors_close(&st);
    strbuf_release(&b);
}

static void test_dtypes(void **state)
{
    (void)state;
    for (int type = 0; type < DTYPE_COUNT; type++) {
        struct strbuf b = {0}, header = {0};
        struct safetensors st;
        clm_error err;
        size_t size = 3 * dtype_size((enum dtype)type);

        strbuf_addf(&header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%zu]}}",
                    dtype_name((enum dtype)type), size);
        make_file(&b, header.data, header.size, size);
        CHECK(!parse(&st, &b, &err), "%s: %s", dtype_name((enum dtype)type), err.message);
        CHECK(st.tensors[0].type == (enum dtype)type, "%s", dtype_name((enum dtype)type));
        safetensors_close(&st);
        strbuf_release(&b);
        strbuf_release(&header);
    }
}

#define T(dtype, shape, offsets)                                                                   \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

/* Headers with 8 bytes of data after them. */
static const struct {
    const char *header, *message;
    int code;
} refused[] = {
    {" {}", "not a JSON object", CLM_ERR_FORMAT},
    {"[]", "not a JSON object", CLM_ERR_FORMAT},
    {"{", "byte 1 of the JSON: the end, expected", CLM_ERR_FORMAT},
    {"{}", "the last 8 bytes of the data belong to no tensor", CLM_ERR_FORMAT},
    {"{} x", "byte 3 of the JSON: 'x', expected nothing more", CLM_ERR_FORMAT},
    {"{\"a\":1}", "expected '{'", CLM_ERR_FORMAT},
    {"{\"a\":{}}", "tensor \"a\" has no \"dtype\"", CLM_ERR_FORMAT},
    {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,8]}}", "has no \"shape\"", CLM_ERR_FORMAT},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[8]}}", "has no \"data_offsets\"", CLM_ERR_FORMAT},
    {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", "two keys \"dtype\"", CLM_ERR_FORMAT},
    {"{\"a\":" T("Q7", "[8]", "[0,8]") "}", "type \"Q7\", which clm does not know",
     CLM_ERR_UNSUPPORTED},
    {"{\"a\":{\"dtype\":5}}", "expected a string", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[9]", "[0,8]") "}", "has 8 bytes, but its shape and type U8 ask for 9",
     CLM_ERR_FORMAT},
    {"{\"a\":" T("F32", "[8]", "[0,8]") "}", "ask for 32", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[9]", "[0,9]") "}", "only 8 bytes of data; it is cut short",
     CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[8]", "[8,0]") "}", "begins at byte 8 of the data and ends before, at 0",
     CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[8]", "[0,18446744073709551615]") "}", "cut short", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[8]", "[0,18446744073709551624]") "}", "below 2^64", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[-8]", "[0,8]") "}", "expected a whole number", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[8.0]", "[0,8]") "}", "expected a whole number", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[8e0]", "[0,8]") "}", "expected a whole number", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[08]", "[0,8]") "}", "expected a whole number", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[\"8\"]", "[0,8]") "}", "expected a whole number", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[8]", "[0]") "}", "expected ','", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[8]", "[0,8,8]") "}", "expected ']'", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[8]", "{}") "}", "expected '['", CLM_ERR_FORMAT},
    {"{\"a\":" T("F32", "[4611686018427387905]", "[0,4]") "}", "its shape overflows",
     CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[4294967296,4294967296]", "[0,0]") "}", "its shape overflows",
     CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[9223372036854775808]", "[0,8]") "}", "its shape overflows",
     CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[1,1,1,1,1,1,1,1,8]", "[0,8]") "}", "more than 8 dimensions",
     CLM_ERR_UNSUPPORTED},
    {"{\"a\":" T("U8", "[5]", "[0,5]") ",\"b\":" T("U8", "[4]", "[4,8]") "}",
     "tensors \"a\" and \"b\" overlap", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[8]", "[0,8]") ",\"b\":" T("U8", "[8]", "[0,8]") "}", "overlap",
     CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[3]", "[0,3]") ",\"b\":" T("U8", "[4]", "[4,8]") "}",
     "a hole of 1 bytes in the data before tensor \"b\"", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[7]", "[1,8]") "}", "a hole of 1 bytes", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[7]", "[0,7]") "}", "the last 1 bytes of the data", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[4]", "[0,4]") ",\"a\":" T("U8", "[4]", "[4,8]") "}",
     "two tensors are named \"a\"", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[4]", "[0,4]") ",\"\\u0061\":" T("U8", "[4]", "[4,8]") "}",
     "two tensors are named \"a\"", CLM_ERR_FORMAT},
    {"{\"a\\u0000\":" T("U8", "[8]", "[0,8]") "}", "NUL", CLM_ERR_FORMAT},
    {"{\"a\\ud800\":" T("U8", "[8]", "[0,8]") "}", "surrogate", CLM_ERR_FORMAT},
    {"{\"a\\udc00\":" T("U8", "[8]", "[0,8]") "}", "surrogate", CLM_ERR_FORMAT},
    {"{\"a\\ud800\\u0061\":" T("U8", "[8]", "[0,8]") "}", "surrogate", CLM_ERR_FORMAT},
    {"{\"a\\x\":" T("U8", "[8]", "[0,8]") "}", "expected an escape", CLM_ERR_FORMAT},
    {"{\"a\\u00g0\":" T("U8", "[8]", "[0,8]") "}", "hexadecimal", CLM_ERR_FORMAT},
    {"{\"a\n\":" T("U8", "[8]", "[0,8]") "}", "0x0A, expected the end of a string", CLM_ERR_FORMAT},
    {"{\"a\xFF\":" T("U8", "[8]", "[0,8]") "}", "not valid UTF-8", CLM_ERR_FORMAT},
    {"{\"a", "byte 3 of the JSON: the end", CLM_ERR_FORMAT},
    {"{\"a\\", "expected an escape", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[8]", "[0,8]") ",}", "expected a string", CLM_ERR_FORMAT},
    {"{\"a\":" T("U8", "[8]", "[0,8]") " \"b\":1}", "expected ','", CLM_ERR_FORMAT},
    {"{\"__metadata__\":{\"a\":1}}", "expected a string", CLM_ERR_FORMAT},
    {"{\"__metadata__\":[]}", "expected '{'", CLM_ERR_FORMAT},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"},\"t\":" T("U8", "[8]", "[0,8]") "}",
     "two metadata entries are named \"a\"", CLM_ERR_FORMAT},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", "two keys \"__metadata__\"", CLM_ERR_FORMAT},
    {"{\"__metadata__\":{\"a\":\"1\\u0000\"}}", "NUL", CLM_ERR_FORMAT},
    {"{\"a\":{\"more\":[tru]}}", "expected a value", CLM_ERR_FORMAT},
    {"{\"a\":{\"more\":[1.]}}", "expected a digit", CLM_ERR_FORMAT},
    {"{\"a\":{\"more\":[01]}}", "expected ','", CLM_ERR_FORMAT},
    {"{\"a\":{\"more\":[1e]}}", "expected a digit", CLM_ERR_FORMAT},
    {"{\"a\":{\"more\":-}}", "expected a digit", CLM_ERR_FORMAT},
    {"{\"a\":{\"more\":{\"x\" 1}}}", "expected ':'", CLM_ERR_FORMAT},
};

static void test_refused(void **state)
{
    struct strbuf b = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        make_file(&b, refused[i].header, strlen(refused[i].header), 8);
        check_refused(&b, refused[i].code, refused[i].message, refused[i].header);
    }
    strbuf_release(&b);
}

/* The length of the header against the file. */
static void test_frame(void **state)
{
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    static const struct {
        uint64_t length;
        const char *message;
    } cases[] = {
        {0, "not a JSON object"},
        {3, "announced in a file of 10"},
        {UINT64_MAX, "announced in a file of 10"},
        {UINT64_MAX - 7, "announced in a file of 10"},
    };
    struct strbuf b = {0};

    (void)state;
    for (size_t n = 0; n < 8; n++) {
        strbuf_clear(&b);
        strbuf_add(&b, "\0\0\0\0\0\0\0\0", n);
        check_refused(&b, CLM_ERR_FORMAT, "hold no safetensors header", "a short file");
    }
    for (size_t i = 0; i < COUNT(cases); i++) {
        make_file(&b, "{}", 2, 0);
        store_le64(b.data, cases[i].length);
        check_refused(&b, CLM_ERR_FORMAT, cases[i].message, cases[i].message);
    }
    strbuf_clear(&b);
    strbuf_add_str(&b, lfs);
    check_refused(&b, CLM_ERR_FORMAT, "Git LFS pointer", "an LFS pointer");
    strbuf_release(&b);
}

static void test_header_limit(void **state)
{
    enum { LIMIT = 100000000 };
    size_t size = 8 + LIMIT + 1;
    char *file = mem_alloc(size);
    struct safetensors st;
    clm_error err = {0};

    (void)state;
    assert_non_null(file);
    memset(file, ' ', size);
    memcpy(file + 8, "{}", 2);
    store_le64(file, LIMIT);
    CHECK(!safetensors_parse(&st, file, size - 1, "limit", &err), "%s", err.message);
    safetensors_close(&st);
    store_le64(file, LIMIT + 1);
    CHECK(safetensors_parse(&st, file, size, "limit", &err), "beyond the limit: taken");
    CHECK(strstr(err.message, "the format allows 100000000"), "%s", err.message);
    mem_free(file);
}

/* Values that nobody reads may not be nested for ever either. */
static void test_depth(void **state)
{
    struct strbuf b = {0}, header = {0};

    (void)state;
    strbuf_add_str(&header, "{\"a\":{\"more\":");
    for (int i = 0; i < 100000; i++)
        strbuf_add_char(&header, '[');
    make_file(&b, header.data, header.size, 0);
    check_refused(&b, CLM_ERR_FORMAT, "nested deeper than 512", "deep JSON");
    strbuf_release(&header);
    strbuf_release(&b);
}

/* Any prefix of a good file is refused. */
static void test_truncated(void **state)
{
    static const char header[] = "{\"__metadata__\":{\"k\":\"v\"},\"a\":" T(
        "U8", "[4]", "[0,4]") ",\"b\":" T("F16", "[2,1]", "[4,8]") "}";
    struct strbuf b = {0};
    struct safetensors st;
    clm_error err = {0};

    (void)state;
    make_file(&b, header, strlen(header), 8);
    for (size_t n = 0; n < b.size; n++) {
        char *exact = mem_alloc(n); /* of exactly this size, for AddressSanitizer */

        memcpy(exact, b.data, n);
        err = (clm_error){0};
        CHECK(safetensors_parse(&st, exact, n, "cut", &err), "%zu of %zu bytes taken", n, b.size);
        CHECK(err.message[0], "no message for %zu bytes", n);
        mem_free(exact);
    }
    CHECK(!parse(&st, &b, &err), "%s", err.message);
    safetensors_close(&st);
    strbuf_release(&b);
}

static void test_memory(void **state)
{
    static const char header[] = "{\"__metadata__\":{\"k\":\"v\",\"l\":\"w\"},\"a\":" T(
        "U8", "[4]", "[0,4]") ",\"b\":" T("F16", "[2,1]", "[4,8]") "}";
    struct strbuf b = {0};
    bool failed = true;

    (void)state;
    make_file(&b, header, strlen(header), 8);
    for (long n = 0; failed; n++) {
        struct safetensors st;
        clm_error err;
        int rc;

        mem_fail_after(n);
        rc = parse(&st, &b, &err);
        failed = mem_fail_after(-1);
        CHECK(failed == (rc != 0), "allocation %ld: %s", n, err.message);
        CHECK(!rc || err.code == CLM_ERR_NOMEM, "allocation %ld: %s", n, err.message);
        CHECK(n < 100, "it never succeeds");
        safetensors_close(&st);
    }
    strbuf_release(&b);
}

static const char *temporary(const char *name)
{
    static char path[4096];

    snprintf(path, sizeof path, "%s/clm-test-%ld-%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp",
             (long)getpid(), name);
    return path;
}

static const float floats[] = {1, -2, 0.5f, 8};
static const uint8_t bytes[] = {1, 2, 3};
static const struct checkpoint_tensor to_write[] = {
    {"z.bytes", DTYPE_U8, 1, {3}, bytes, sizeof bytes},
    {"b \"quoted\" \xC3\xA9", DTYPE_F32, 2, {2, 2}, floats, sizeof floats},
    {"a.empty", DTYPE_BF16, 2, {0, 5}, NULL, 0},
    {"c.scalar", DTYPE_F32, 0, {0}, floats, 4},
};
static const char *const metadata_to_write[] = {"format", "mlx", "note",
                                                "a\nb\t\"c\" \xF0\x9F\x98\x80"};

static void test_write(void **state)
{
    const char *path = temporary("write.safetensors");
    struct safetensors st;
    clm_error err = {0};
    int rc = safetensors_write(path, to_write, COUNT(to_write), metadata_to_write, 2, &err);

    (void)state;
    CHECK(!rc, "%s", err.message);
    CHECK(!safetensors_open(&st, path, &err), "%s", err.message);
    CHECK(st.n_tensors == COUNT(to_write), "%zu tensors", st.n_tensors);
    for (size_t i = 0; i < st.n_tensors; i++) {
        const struct checkpoint_tensor *t = &st.tensors[i], *from = to_write;

        while (strcmp(from->name, t->name) != 0)
            CHECK(++from < to_write + COUNT(to_write), "\"%s\" was not written", t->name);
        CHECK(t->type == from->type && t->n_dims == from->n_dims, "%s", t->name);
        CHECK(!memcmp(t->shape, from->shape, sizeof t->shape), "%s", t->name);
        CHECK(t->size == from->size, "%s", t->name);
        CHECK(!t->size || !memcmp(t->data, from->data, t->size), "%s", t->name);
        CHECK((uintptr_t)t->data % dtype_size(t->type) == 0, "%s is not aligned", t->name);
    }
    CHECK(st.n_metadata == 2, "%zu metadata", st.n_metadata);
    for (size_t i = 0; i < 4; i++)
        CHECK(!strcmp(st.metadata[i], metadata_to_write[i]), "metadata %s", st.metadata[i]);
    safetensors_close(&st);
    unlink(path);
}

static void check_not_written(const struct checkpoint_tensor *t, size_t n,
                              const char *const *metadata, size_t n_metadata, const char *message)
{
    const char *path = temporary("refused.safetensors");
    clm_error err = {0};

    CHECK(safetensors_write(path, t, n, metadata, n_metadata, &err), "written: %s", message);
    CHECK(err.code == CLM_ERR_ARG && strstr(err.message, message), "%s", err.message);
    CHECK(access(path, F_OK), "a file was left");
}

static void test_write_refused(void **state)
{
    static const struct checkpoint_tensor same[] = {{"a", DTYPE_U8, 1, {3}, bytes, 3},
                                                    {"b", DTYPE_U8, 1, {3}, bytes, 3},
                                                    {"a", DTYPE_U8, 1, {2}, bytes, 2}};
    static const struct checkpoint_tensor size = {"a", DTYPE_U8, 1, {3}, bytes, 2};
    static const struct checkpoint_tensor overflow = {
        "a", DTYPE_F32, 3, {1 << 30, 1 << 30, 1 << 30}, bytes, 2};
    static const struct checkpoint_tensor negative = {"a", DTYPE_U8, 1, {-1}, bytes, 2};
    static const struct checkpoint_tensor dims = {"a", DTYPE_U8, 9, {3}, bytes, 3};
    static const struct checkpoint_tensor name = {"__metadata__", DTYPE_U8, 1, {3}, bytes, 3};
    static const struct checkpoint_tensor utf8 = {"a\xFF", DTYPE_U8, 1, {3}, bytes, 3};
    static const char *const twice[] = {"a", "1", "a", "2"};
    static const char *const bad_value[] = {"a", "\xC0\x80"};
    clm_error err = {0};

    (void)state;
    check_not_written(same, 3, NULL, 0, "two tensors are named \"a\"");
    check_not_written(&size, 1, NULL, 0, "has 2 bytes, its shape asks for 3");
    check_not_written(&overflow, 1, NULL, 0, "its shape overflows");
    check_not_written(&negative, 1, NULL, 0, "its shape overflows");
    check_not_written(&dims, 1, NULL, 0, "has 9 dimensions");
    check_not_written(&name, 1, NULL, 0, "cannot be named");
    check_not_written(&utf8, 1, NULL, 0, "not valid UTF-8");
    check_not_written(same, 2, twice, 2, "two metadata entries");
    check_not_written(same, 2, bad_value, 1, "not valid UTF-8");
    CHECK(safetensors_write("/nonexistent/x.safetensors", same, 2, NULL, 0, &err), "written");
    CHECK(err.code == CLM_ERR_IO, "%s", err.message);
}

static void test_write_memory(void **state)
{
    const char *path = temporary("memory.safetensors");
    bool failed = true;

    (void)state;
    for (long n = 0; failed; n++) {
        clm_error err = {0};
        int rc;

        mem_fail_after(n);
        rc = safetensors_write(path, to_write, COUNT(to_write), metadata_to_write, 2, &err);
        failed = mem_fail_after(-1);
        CHECK(failed == (rc != 0), "allocation %ld: %s", n, err.message);
        CHECK(!rc == !access(path, F_OK), "allocation %ld", n);
        CHECK(n < 100, "it never succeeds");
    }
    unlink(path);
}

/* 50000 tensors, as a mixture of experts has them. */
static void test_many(void **state)
{
    enum { N = 50000 };
    struct strbuf header = {0}, b = {0};
    struct safetensors st;
    clm_error err;

    (void)state;
    strbuf_add_char(&header, '{');
    for (int i = 0; i < N; i++)
        strbuf_addf(&header,
                    "%s\"model.layers.%d.mlp.experts.%d.gate_proj.weight\":{\"dtype\":\"BF16\","
                    "\"shape\":[1,2],\"data_offsets\":[%d,%d]}",
                    i ? "," : "", i / 512, i % 512, i * 4, i * 4 + 4);
    strbuf_add_char(&header, '}');
    make_file(&b, header.data, header.size, N * 4);
    CHECK(!parse(&st, &b, &err), "%s", err.message);
    CHECK(st.n_tensors == N, "%zu", st.n_tensors);
    safetensors_close(&st);
    strbuf_release(&header);
    strbuf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),         cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_frame),
        cmocka_unit_test(test_header_limit), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_truncated),    cmocka_unit_test(test_memory),
        cmocka_unit_test(test_write),        cmocka_unit_test(test_write_refused),
        cmocka_unit_test(test_write_memory), cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
