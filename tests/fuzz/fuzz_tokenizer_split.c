/* tests/fuzz/fuzz_tokenizer_split.c: every scanner finds what PCRE2 finds with its expression. */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/utf8.h"
#include "tokenizer/pattern.h"
#include "tokenizer/split_fast.h"
#include "tokenizer/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST 16

static void compare(const struct pattern *fast, const struct pattern *slow, struct matcher *m,
                    const char *s, size_t n)
{
    struct search a = search_start(fast, m, s, n), b = search_start(slow, m, s, n);
    clm_error err = {0};
    int more;

    do {
        more = search_next(&a, &err);
        if (search_next(&b, &err) != more || a.begin != b.begin || a.end != b.end)
            abort();
    } while (more > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t table[UNICODE_TABLE_SIZE];
    static struct pattern fast[MOST], slow[MOST];
    static struct matcher matcher;
    static size_t count;
    clm_error err = {0};

    if (!count) {
        struct reader r = {.name = "fuzz", .part = "split", .err = &err, .memory = arena_open(0)};

        unicode_table_fill(table);
        for (; count < MOST && split_fast_text(count); count++) {
            const char *text = split_fast_text(count);

            if (pattern_open_regex(&fast[count], text, strlen(text), true, table, &r) ||
                pattern_open_regex(&slow[count], text, strlen(text), false, table, &r) ||
                !fast[count].fast || slow[count].fast)
                abort();
        }
        arena_close(r.memory);
    }
    if (!utf8_valid((const char *)data, size))
        return 0;
    for (size_t i = 0; i < count; i++)
        compare(&fast[i], &slow[i], &matcher, (const char *)data, size);
    return 0;
}
