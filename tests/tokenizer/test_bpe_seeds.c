/* Byte-level BPE, whose characters are taken together from the start where that is sure to be
 * exact, beside its definition: bytes, and again and again the pair of the least rank, of several
 * places the first. Merges are random, of a few characters that share their bytes. */
#include <string.h>

#include "base/strbuf.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/tokenizer.h"

#include "small_tokenizers.h"
#include "testing.h"

#define MOST_MERGES 120
#define MOST_CHARACTERS 24
#define MOST_BYTES (4 * MOST_CHARACTERS)

static const char *const characters[] = {
    "\xE4\xB8\x80",
    "\xE4\xB8\xB8",
    "\xE4\xB8\xB9",
    "\xE4\xB9\x80",
    "\xE4\xB9\xB8",
    "\xE4\xB9\xB9",
    "\xE5\xB8\x80",
    "\xE5\xB8\xB8",
    "\xE5\x80\xB9",
    "\xE5\x80\x80",
    "\xF0\x9F\x98\x80",
    "\xC3\xA9",
    "\xC3\x80",
    "a",
    "b",
    "\n",
};

/* By rank. */
struct merges {
    struct merge {
        int left, right, made;
    } of[MOST_MERGES];
    size_t n;
};

static uint32_t draw(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

static size_t draw_text(char *text, uint32_t n, uint64_t *state)
{
    size_t size = 0;

    for (uint32_t i = 0; i < n; i++) {
        const char *c = characters[draw(state, sizeof characters / sizeof *characters)];

        memcpy(text + size, c, strlen(c));
        size += strlen(c);
    }
    return size;
}

static size_t merge_by_definition(const struct merges *m, const char *text, size_t n, int *ids)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (unsigned char)text[i];
    for (size_t rank = 0; rank < m->n;) {
        size_t at = 0;

        while (at + 1 < n && (ids[at] != m->of[rank].left || ids[at + 1] != m->of[rank].right))
            at++;
        if (at + 1 >= n) {
            rank++;
            continue;
        }
        ids[at] = m->of[rank].made;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
        rank = 0;
    }
    return n;
}

/* Merges of what stands side by side in texts, characters' own first. */
static void draw_merges(struct merges *m, uint64_t *state)
{
    uint32_t wanted = 1 + draw(state, MOST_MERGES), of_characters = draw(state, wanted);
    char text[MOST_BYTES];
    int ids[MOST_BYTES];

    m->n = 0;
    for (uint32_t tries = 0; m->n < wanted && tries < 10 * MOST_MERGES; tries++) {
        uint32_t length = m->n < of_characters ? 1 : 1 + draw(state, 6);
        size_t n = merge_by_definition(m, text, draw_text(text, length, state), ids), at;

        if (n < 2)
            continue;
        at = draw(state, (uint32_t)n - 1);
        m->of[m->n] = (struct merge){ids[at], ids[at + 1], 256 + (int)m->n};
        m->n++;
    }
}

/* Of merges that are still in the order of their tokens. */
static void spell(struct strbuf *out, const struct merges *m, int id)
{
    if (id < 256) {
        const char byte = (char)id;

        byte_level_write(out, &byte, 1);
        return;
    }
    spell(out, m, m->of[id - 256].left);
    spell(out, m, m->of[id - 256].right);
}

/* Two merges may make the same text: the token is the first's then. */
static bool is_new(const struct merges *m, size_t i)
{
    struct strbuf one = {0}, other = {0};
    bool is = true;

    spell(&one, m, 256 + (int)i);
    for (size_t k = 0; is && k < i; k++) {
        strbuf_clear(&other);
        spell(&other, m, 256 + (int)k);
        is = one.size != other.size || memcmp(one.data, other.data, one.size) != 0;
    }
    strbuf_release(&one);
    strbuf_release(&other);
    return is;
}

static void drop_doubles(struct merges *m)
{
    for (size_t i = 0; i < m->n; i++) {
        if (!is_new(m, i)) {
            m->n = i;
            return;
        }
    }
}

/* Now and then a token's merges come before the one that makes it, as nobody's training has it. */
static struct merges mixed(const struct merges *m, uint64_t *state)
{
    struct merges other = *m;

    for (uint32_t swaps = draw(state, 2) * draw(state, 20); swaps; swaps--) {
        uint32_t i = draw(state, (uint32_t)m->n), k = draw(state, (uint32_t)m->n);
        struct merge one = other.of[i];

        other.of[i] = other.of[k];
        other.of[k] = one;
    }
    return other;
}

/* ranked: the merges of m in the order that counts. */
static tokenizer *make(const struct merges *m, const struct merges *ranked)
{
    static const char bytes[] = BYTE_TOKENS;
    struct strbuf text = {0};
    clm_error err = {0};
    tokenizer *t;

    strbuf_addf(&text, "{\"model\":{\"type\":\"BPE\",\"vocab\":{%.*s", (int)sizeof bytes - 2,
                bytes);
    for (size_t i = 0; i < m->n; i++) {
        strbuf_addf(&text, ",\"");
        spell(&text, m, 256 + (int)i);
        strbuf_addf(&text, "\":%zu", 256 + i);
    }
    strbuf_addf(&text, "},\"merges\":[");
    for (size_t i = 0; i < m->n; i++) {
        strbuf_addf(&text, i ? ",[\"" : "[\"");
        spell(&text, m, ranked->of[i].left);
        strbuf_addf(&text, "\",\"");
        spell(&text, m, ranked->of[i].right);
        strbuf_addf(&text, "\"]");
    }
    strbuf_addf(&text, "]},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                       "\"use_regex\":false}}");
    t = tokenizer_parse(text.data, text.size, NULL, 0, "random merges", &err);
    CHECK(t, "%s", err.message);
    strbuf_release(&text);
    return t;
}

static void test_random(void **unused)
{
    uint64_t state = 1;
    size_t n_merges = 0;

    (void)unused;
    for (int i = 0; i < 600; i++) {
        struct merges m, ranked;
        tokenizer *t;

        draw_merges(&m, &state);
        drop_doubles(&m);
        n_merges += m.n;
        ranked = mixed(&m, &state);
        t = make(&m, &ranked);
        for (int k = 0; k < 30; k++) {
            char text[MOST_BYTES];
            int want[MOST_BYTES];
            size_t size = draw_text(text, 1 + draw(&state, MOST_CHARACTERS), &state);
            size_t n = merge_by_definition(&ranked, text, size, want);
            struct token_list got = {0};
            clm_error err = {0};

            assert_int_equal(tokenizer_encode(t, text, size, false, &got, &err), 0);
            assert_int_equal(got.count, n);
            assert_memory_equal(got.ids, want, n * sizeof *want);
            token_list_release(&got);
        }
        tokenizer_close(t);
    }
    assert_true(n_merges > 600 * MOST_MERGES / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
