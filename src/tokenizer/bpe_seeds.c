/* tokenizer/bpe_seeds.c: characters whose bytes can be taken together from the start.
 *
 * Byte-level BPE begins with bytes, and most of the merging of a Chinese text puts three bytes at
 * a time together to its characters. Where that is sure to happen, the character's token can be
 * there from the start. It is sure for a character c if all of these come after the last of the
 * merges that make c of its bytes (m is their highest rank):
 *   - merges of a beginning of c, on their right, with what stands before c;
 *   - merges of an end of c, on their left, with what stands behind it, which begins with no
 *     continuation byte;
 *   - merges of all of c with anything: else these might be done too early.
 * As long as c is not complete, then, its next merge inside has a rank up to m, and no merge across
 * its borders has.
 */
#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/bpe_merge.h"
#include "tokenizer/byte_level.h"

/* The least ranks of merges by id: with the id on the left and no continuation byte behind it; and
 * with the id on the right. */
struct borders {
    uint32_t *left, *right;
};

static bool begins_inside(const struct bpe *b, uint32_t id)
{
    size_t n;
    const char *s = vocab_text(b->vocab, (int32_t)id, &n);
    int32_t c;

    if (!s || !n || (int32_t)id == b->unk)
        return false;
    utf8_decode(s, n, &c);
    return byte_level_byte(c) >= 0 && (byte_level_byte(c) & 0xC0) == 0x80;
}

static int find_borders(const struct bpe *b, struct borders *border, struct reader *r)
{
    size_t n = b->vocab->n_ids;

    border->left = mem_alloc((2 * n + 1) * sizeof *border->left);
    if (!border->left)
        return no_memory(r);
    border->right = border->left + n;
    for (size_t i = 0; i < 2 * n; i++)
        border->left[i] = BPE_NO_RANK;
    for (size_t i = 0; b->merges.slots && i <= b->merges.mask; i++) {
        const struct pair_slot *slot = &b->merges.slots[i];
        uint32_t left = (uint32_t)((slot->key - 1) >> 32), right = (uint32_t)(slot->key - 1);

        if (!slot->key)
            continue;
        if (slot->a < border->right[right])
            border->right[right] = slot->a;
        if (slot->a < border->left[left] && !begins_inside(b, right))
            border->left[left] = slot->a;
    }
    return 0;
}

/* Merge the character's bytes by themselves: the token, or -1; *highest is the last rank. */
static int32_t merge_alone(const struct bpe *b, const uint32_t *bytes, size_t n, uint32_t *highest)
{
    uint32_t ids[UTF8_MAX];

    *highest = 0;
    for (size_t i = 0; i < n; i++)
        ids[i] = bytes[i];
    while (n > 1) {
        struct bpe_pair best = {BPE_NO_RANK, 0};
        size_t at = 0;

        for (size_t i = 0; i + 1 < n; i++) {
            struct bpe_pair pair = bpe_find_pair(b, ids[i], ids[i + 1]);

            if (pair.rank < best.rank) {
                best = pair;
                at = i;
            }
        }
        if (best.rank == BPE_NO_RANK)
            return -1;
        *highest = best.rank > *highest ? best.rank : *highest;
        ids[at] = best.merged;
        n--;
        for (size_t i = at + 1; i < n; i++)
            ids[i] = ids[i + 1];
    }
    return (int32_t)ids[0];
}

/* The token of bytes, or -1. */
static int32_t find_bytes(const struct bpe *b, const char *s, size_t n)
{
    char text[UTF8_MAX * UTF8_MAX];
    size_t size = 0;

    for (size_t i = 0; i < n; i++)
        size += utf8_encode(byte_level_char((unsigned char)s[i]), text + size);
    return vocab_find(b->vocab, text, size);
}

static bool is_sure(const struct bpe *b, const struct borders *border, const char *s, size_t n,
                    int32_t whole, uint32_t highest)
{
    if (border->left[whole] <= highest || border->right[whole] <= highest)
        return false;
    for (size_t i = 1; i < n; i++) {
        int32_t beginning = find_bytes(b, s, i), end = find_bytes(b, s + i, n - i);

        if ((beginning >= 0 && border->right[beginning] <= highest) ||
            (end >= 0 && border->left[end] <= highest))
            return false;
    }
    return true;
}

static void try_character(struct bpe *b, const struct borders *border, const char *s, size_t n)
{
    uint32_t bytes[UTF8_MAX], highest;
    int32_t c, whole;

    if (n < 2 || n > 3 || !utf8_valid(s, n) || utf8_decode(s, n, &c) != n)
        return;
    for (size_t i = 0; i < n; i++) {
        if (b->byte_ids[(unsigned char)s[i]] < 0)
            return;
        bytes[i] = (uint32_t)b->byte_ids[(unsigned char)s[i]];
    }
    whole = merge_alone(b, bytes, n, &highest);
    if (whole >= 0 && is_sure(b, border, s, n, whole, highest))
        b->char_ids[c] = whole;
}

int bpe_fill_seeds(struct bpe *b, struct reader *r)
{
    struct borders border = {0};

    if (find_borders(b, &border, r))
        return -1;
    for (size_t i = 0; i < BPE_CHARACTERS; i++)
        b->char_ids[i] = -1;
    for (size_t e = 0; e < b->vocab->n_entries; e++) {
        const struct vocab_entry *entry = &b->vocab->entries[e];
        char bytes[8];
        ptrdiff_t n = -1;

        if (entry->size <= sizeof bytes)
            n = byte_level_read(b->vocab->text + entry->offset, entry->size, bytes);
        if (n > 0)
            try_character(b, &border, bytes, (size_t)n);
    }
    mem_free(border.left);
    return 0;
}
