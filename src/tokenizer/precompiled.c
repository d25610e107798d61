/* tokenizer/precompiled.c: reading the table and looking characters up in its trie. */
#include "tokenizer/precompiled.h"

#include <string.h>
#include <utf8proc.h>

#include "base/number.h"
#include "base/utf8.h"
#include "tokenizer/base64.h"

/* A grapheme of this many bytes is looked up character by character only. */
#define LONG_GRAPHEME 6

int precompiled_open(struct precompiled *p, const char *text, size_t n, struct reader *r)
{
    unsigned char *data = arena_array(r->memory, unsigned char, n / 4 * 3 + 1);
    ptrdiff_t size;
    uint32_t trie_size;

    if (!data)
        return no_memory(r);
    size = base64_read(text, n, data);
    trie_size = size >= 4 ? load_le32(data) : 0;
    if (size < 4 || trie_size > (size_t)size - 4 || trie_size % 4 || !trie_size)
        return fail(r->err, CLM_ERR_FORMAT,
                    "%s: %s: precompiled_charsmap of %zu characters is not a table", r->name,
                    r->part, n);
    p->trie = data + 4;
    p->n_units = trie_size / 4;
    p->texts = (const char *)data + 4 + trie_size;
    p->text_size = (size_t)size - 4 - trie_size + 1; /* with the arena's zero behind it */
    return 0;
}

static bool unit_at(const struct precompiled *p, size_t at, uint32_t *unit)
{
    if (at >= p->n_units)
        return false;
    *unit = load_le32(p->trie + 4 * at);
    return true;
}

static size_t unit_offset(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & 0x200) >> 6);
}

/* The replacement of the shortest beginning of s that has one, or NULL. */
static const char *look_up(const struct precompiled *p, const char *s, size_t n)
{
    uint32_t unit;
    size_t at;

    if (!unit_at(p, 0, &unit))
        return NULL;
    at = unit_offset(unit);
    for (size_t i = 0; i < n && s[i]; i++) {
        unsigned char c = (unsigned char)s[i];

        at ^= c;
        if (!unit_at(p, at, &unit) || (unit & 0x800000FFu) != c)
            return NULL;
        at ^= unit_offset(unit);
        if (unit >> 8 & 1) {
            if (!unit_at(p, at, &unit) || (unit & 0x7FFFFFFF) >= p->text_size)
                return NULL;
            return p->texts + (unit & 0x7FFFFFFF);
        }
    }
    return NULL;
}

static void apply_grapheme(const struct precompiled *p, const char *s, size_t n, struct strbuf *out)
{
    const char *replacement = n < LONG_GRAPHEME ? look_up(p, s, n) : NULL;

    if (replacement) {
        strbuf_add_str(out, replacement);
        return;
    }
    for (size_t i = 0; i < n;) {
        int32_t c;
        size_t size = utf8_decode(s + i, n - i, &c);

        replacement = look_up(p, s + i, size);
        if (replacement)
            strbuf_add_str(out, replacement);
        else
            strbuf_add(out, s + i, size);
        i += size;
    }
}

void precompiled_apply(const struct precompiled *p, const char *s, size_t n, struct strbuf *out,
                       size_t *head)
{
    utf8proc_int32_t state = 0;
    int32_t before = -1;
    size_t begin = 0, start = out->size;
    bool inside = *head > 0; /* the head is not passed yet */

    for (size_t i = 0; i <= n && n;) {
        int32_t c = 0;
        size_t size = i < n ? utf8_decode(s + i, n - i, &c) : 1;

        if (i == n || (before >= 0 && utf8proc_grapheme_break_stateful(before, c, &state))) {
            apply_grapheme(p, s + begin, i - begin, out);
            begin = i;
            if (inside && begin >= *head) {
                *head = out->size - start;
                inside = false;
            }
        }
        before = c;
        i += size;
    }
}
