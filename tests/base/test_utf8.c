#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"

#include "testing.h"

static bool is_scalar(int32_t c)
{
    return c >= 0 && c <= 0x10FFFF && !(c >= 0xD800 && c <= 0xDFFF);
}

/* Every character there and back; every cut of it is incomplete, and one replacement. */
static void test_every_character(void **state)
{
    (void)state;
    for (int32_t c = 0; c <= 0x10FFFF; c++) {
        char s[UTF8_MAX];
        size_t n = utf8_encode(c, s);
        int32_t back;

        CHECK(n == utf8_length((unsigned char)s[0]), "U+%04X", (unsigned)c);
        CHECK(utf8_decode(s, n, &back) == n, "U+%04X", (unsigned)c);
        CHECK(back == (is_scalar(c) ? c : UTF8_REPLACEMENT), "U+%04X", (unsigned)c);
        CHECK(utf8_valid(s, n), "U+%04X", (unsigned)c);
        assert_int_equal(utf8_incomplete_tail(s, n), 0);
        for (size_t cut = 1; cut < n; cut++) {
            CHECK(utf8_decode(s, cut, &back) == cut && back == UTF8_REPLACEMENT,
                  "U+%04X cut at %zu", (unsigned)c, cut);
            CHECK(utf8_incomplete_tail(s, cut) == cut, "U+%04X cut at %zu", (unsigned)c, cut);
            CHECK(!utf8_valid(s, cut), "U+%04X cut at %zu", (unsigned)c, cut);
        }
    }
}

/* What is well formed, said again by arithmetic: decode without looking, then see whether encoding
 * gives the same bytes. */
static bool well_formed_4(const unsigned char *b, size_t n)
{
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = b[0] < 0x80 ? 1 : b[0] < 0xC0 ? 0 : b[0] < 0xE0 ? 2 : b[0] < 0xF0 ? 3 : 4;
    int32_t c = length == 1 ? b[0] : b[0] & (0x7F >> length);

    if (length == 0 || b[0] >= 0xF8 || n < length)
        return false;
    for (size_t i = 1; i < length; i++) {
        if (b[i] >> 6 != 2)
            return false;
        c = c * 64 + (b[i] - 0x80);
    }
    return c >= least[length] && is_scalar(c);
}

/* All triples of bytes, then all second bytes of four-byte forms. */
static void test_every_sequence(void **state)
{
    unsigned char b[4];

    (void)state;
    for (uint32_t i = 0; i < 1u << 24; i++) {
        int32_t c;
        size_t n;
        bool good;

        b[0] = (unsigned char)(i >> 16);
        b[1] = (unsigned char)(i >> 8);
        b[2] = (unsigned char)i;
        b[3] = (unsigned char)(0x80 | (i & 0x3F));
        n = utf8_decode((char *)b, 4, &c);
        good = well_formed_4(b, 4);
        if (good ? n != utf8_length(b[0]) : c != UTF8_REPLACEMENT || n > 3 || n < 1)
            CHECK(false, "%02x %02x %02x %02x: U+%04X, %zu bytes", b[0], b[1], b[2], b[3],
                  (unsigned)c, n);
    }
}

/* The examples of Unicode 3.9 (tables 3-8 to 3-11): lengths of the parts, one U+FFFD each. */
static void test_maximal_parts(void **state)
{
    static const struct {
        const char *bytes;
        const char *lengths;
    } cases[] = {
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "111111111"},
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "111111111"},
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "111111111"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "21321"},
        {"\xF5\x80\xC1\xBF", "1111"},
        {"\xF0\x90\x80", "3"},
        {"\xE2\x82", "2"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *s = cases[i].bytes;
        size_t n = strlen(s);

        for (const char *want = cases[i].lengths; *want; want++) {
            int32_t c;
            size_t length = utf8_decode(s, n, &c);

            CHECK(length == (size_t)(*want - '0'), "case %zu, at %s: %zu", i, want, length);
            CHECK(c == UTF8_REPLACEMENT || (unsigned char)*s < 0x80, "case %zu, at %s", i, want);
            s += length;
            n -= length;
        }
        assert_int_equal(n, 0);
    }
}

static void test_incomplete_tail(void **state)
{
    static const struct {
        const char *bytes;
        size_t tail;
    } cases[] = {
        {"", 0},
        {"abc", 0},
        {"abc\xC3", 1},
        {"abc\xC3\xA9", 0},
        {"\xC3\xA9\xE2\x82", 2},
        {"x\xF0\x9F\x90", 3},
        {"\xF0\x9F\x90\xB1", 0},
        {"\xA9", 0},         /* nothing before it leads */
        {"\xE0\x80", 0},     /* never becomes a character */
        {"\xED\xA0", 0},     /* a surrogate */
        {"\xF4\x90", 0},     /* above U+10FFFF */
        {"\xF5", 0},         /* cannot lead */
        {"\xC3\xA9\xA9", 0}, /* a stray byte after a whole character */
        {"\x80\x80\x80\x80", 0},
        {"\xF0\x9F\x90\xB1\xB1", 0},
        {"\xE2(\xE2", 1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t tail = utf8_incomplete_tail(cases[i].bytes, strlen(cases[i].bytes));

        CHECK(tail == cases[i].tail, "case %zu: %zu", i, tail);
    }
}

/* A text torn anywhere: what is held back, with what follows, gives the text again. */
static void test_torn_text(void **state)
{
    static const char text[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x90\xB1z\xD0\xB6\xE4\xB8\xAD";
    size_t n = sizeof text - 1;

    (void)state;
    for (size_t cut = 0; cut <= n; cut++) {
        size_t tail = utf8_incomplete_tail(text, cut);

        CHECK(utf8_valid(text, cut - tail), "cut at %zu", cut);
        CHECK(utf8_valid(text + cut - tail, n - cut + tail), "cut at %zu", cut);
    }
}

/* A bad byte anywhere in a text of characters of all lengths is found, and only there. */
static void test_valid_part(void **state)
{
    static const char text[] = "plain text, \xE4\xB8\xAD\xE6\x96\x87, caf\xC3\xA9 \xE2\x82\xAC"
                               "\xF0\x9F\x98\x80\xEA\xB0\x80\xED\x9F\xBF more of it at the end.";
    const size_t n = sizeof text - 1;

    (void)state;
    CHECK(utf8_valid_part(text, n) == n && utf8_valid(text, n), "a valid text");
    CHECK(utf8_ascii_part(text, n) == 12, "its beginning of ASCII");
    for (size_t i = 0; i < n; i++) {
        char copy[sizeof text];
        size_t begin = i; /* of the character that is spoilt */

        memcpy(copy, text, sizeof text);
        while (begin && (copy[begin] & 0xC0) == 0x80)
            begin--;
        copy[i] = '\xFF';
        CHECK(utf8_valid_part(copy, n) == begin, "byte %zu", i);
        CHECK(utf8_ascii_part(copy, n) == (i < 12 ? i : 12), "byte %zu", i);
    }
}

static void test_encode_refuses(void **state)
{
    static const int32_t bad[] = {-1, INT32_MIN, 0xD800, 0xDFFF, 0x110000, INT32_MAX};

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        char s[UTF8_MAX];

        assert_int_equal(utf8_encode(bad[i], s), 3);
        assert_memory_equal(s, "\xEF\xBF\xBD", 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_character), cmocka_unit_test(test_every_sequence),
        cmocka_unit_test(test_maximal_parts),   cmocka_unit_test(test_incomplete_tail),
        cmocka_unit_test(test_torn_text),       cmocka_unit_test(test_valid_part),
        cmocka_unit_test(test_encode_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
