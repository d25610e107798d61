/* tokenizer/bpe_seeds.c: characters whose bytes can be taken together from the start.
 *
 * Byte-level BPE begins with bytes, and most of the merging of a Chinese text puts three bytes at
 * a time together to its characters. Where that is sure to happen, the character's token can be
 * there from the start. It is sure for a character c if all of these come after the last of the
 * merges that make c of its bytes (m is their highest rank):
 *   - merges of a beginning of c, on their right, with what stands before c;
 *   - merges of an end of c, on their left, with what stands behind it, which begins with no
 *     continuation byte; or what stands behind is none of what these merges begin with;
 *   - merges of all of c with anything: else these might be done too early.
 * As long as c is not complete, then, its next merge inside has a rank up to m, and no merge across
 * its borders has.
 */
#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/bpe_merge.h"
#include "tokenizer/byte_level.h"

/* The least ranks of merges by id: with the id on the left and no continuation byte behind it; and
 * with the id on the right. Those with ASCII on the other side are apart, as many characters are
 * sure except where a space or so stands beside them: at 2 * id, the others at 2 * id + 1. */
struct borders {
    uint32_t *left, *right;
    bool unknown; /* an end of a character merges with what is not known to be bytes */
};

/* The first and the last byte of a token, and their number up to 255; 0 where one id has several
 * texts, or stands for what is not its text. */
struct edges {
    unsigned char first, last, size;
};

static bool is_continuation(int byte)
{
    return (byte & 0xC0) == 0x80;
}

/* byte is what stands on the other side; of one that is not known both may be true. */
static void note_rank(uint32_t *ranks, uint32_t id, int byte, uint32_t rank)
{
    if (byte < 0x80 && rank < ranks[2 * id])
        ranks[2 * id] = rank;
    if ((byte < 0 || byte >= 0x80) && rank < ranks[2 * id + 1])
        ranks[2 * id + 1] = rank;
}

/* The bytes that the characters of s[0..n) stand for; 0xFF, which is in no text, for those that
 * stand for none. */
static size_t read_bytes(const char *s, size_t n, char *out)
{
    ptrdiff_t size = byte_level_read(s, n, out);

    if (size >= 0)
        return (size_t)size;
    size = 0;
    for (size_t i = 0; i < n;) {
        int32_t c;

        i += utf8_decode(s + i, n - i, &c);
        out[size++] = (char)byte_level_byte(c);
    }
    return (size_t)size;
}

/* A merge of an end of a character, a part of it of which last is the last byte, with what begins
 * with another. */
static void note_disturbance(struct bpe *b, unsigned char last, uint32_t right)
{
    char bytes[2 * UTF8_MAX];
    size_t n, size, h;
    const char *s = vocab_text(b->vocab, (int32_t)right, &n);
    int32_t c;

    size = read_bytes(s, n < sizeof bytes ? n : sizeof bytes, bytes);
    if (utf8_decode(bytes, size, &c) < utf8_length((unsigned char)*bytes))
        c = BPE_LEAD | (unsigned char)*bytes;
    h = bpe_disturbed_hash(last, c);
    b->disturbed[h / 64] |= (uint64_t)1 << h % 64;
}

static int find_borders(struct bpe *b, const struct edges *edges, struct borders *border,
                        struct reader *r)
{
    size_t n = b->vocab->n_ids;

    border->left = mem_alloc((4 * n + 1) * sizeof *border->left);
    if (!border->left)
        return no_memory(r);
    border->right = border->left + 2 * n;
    memset(border->left, 0xFF, 4 * n * sizeof *border->left); /* BPE_NO_RANK */
    for (size_t i = 0; i < b->merges.count; i++) {
        uint32_t left = b->merges.rules[i].left, right = b->merges.rules[i].right;
        int before = edges[left].size ? edges[left].last : -1;
        int after = edges[right].size ? edges[right].first : -1;

        if (edges[right].size < UTF8_MAX) /* it can be of a character */
            note_rank(border->right, right, before, (uint32_t)i);
        if ((after >= 0 && is_continuation(after)) || edges[left].size >= UTF8_MAX)
            continue;
        note_rank(border->left, left, after, (uint32_t)i);
        if (after < 0 || before < 0)
            border->unknown = true;
        else if (after >= 0x80 && is_continuation(edges[left].first))
            note_disturbance(b, (unsigned char)before, right);
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
            struct bpe_pair pair = bpe_find_pair(&b->merges, ids[i], ids[i + 1]);

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

/* What may not stand beside the character, as BPE_NOT_AFTER_ASCII and the others say it. */
static unsigned find_limits(const struct bpe *b, const struct borders *border, const char *s,
                            size_t n, int32_t whole, uint32_t highest)
{
    unsigned limits = 0;

    for (size_t i = 1; i <= n; i++) {
        int32_t beginning = i < n ? find_bytes(b, s, i) : whole;
        int32_t end = i < n ? find_bytes(b, s + i, n - i) : whole;

        for (size_t high = 0; high < 2; high++) {
            if (beginning >= 0 && border->right[2 * (size_t)beginning + high] <= highest)
                limits |= high ? BPE_NEVER : BPE_NOT_AFTER_ASCII;
            if (end >= 0 && border->left[2 * (size_t)end + high] <= highest)
                limits |= !high                       ? BPE_NOT_BEFORE_ASCII
                          : i < n && !border->unknown ? BPE_NOT_BEFORE_SOME
                                                      : BPE_NEVER;
        }
    }
    return limits;
}

/* Whether the character is a seed, whose limits are set then. */
static bool try_character(struct bpe *b, const struct borders *border, int32_t c)
{
    uint32_t bytes[UTF8_MAX], highest;
    char s[UTF8_MAX];
    size_t n = utf8_encode(c, s);
    unsigned limits;

    for (size_t i = 0; i < n; i++) {
        if (b->byte_ids[(unsigned char)s[i]] < 0)
            return false;
        bytes[i] = (uint32_t)b->byte_ids[(unsigned char)s[i]];
    }
    b->char_ids[c] = merge_alone(b, bytes, n, &highest);
    if (b->char_ids[c] < 0)
        return false;
    limits = find_limits(b, border, s, n, b->char_ids[c], highest);
    b->limits[c] = (unsigned char)limits;
    return !(limits & BPE_NEVER);
}

/* The characters side by side in the bytes of a token. */
static void note_neighbours(struct bpe *b, const char *s, size_t n)
{
    int32_t before = -1, c;

    for (size_t i = 0; i < n;) {
        size_t size = 1;

        if (s[i] & 0x80)
            size = utf8_decode(s + i, n - i, &c);
        if (before >= 0 && size > 1)
            bpe_allow_neighbours(b, before, c);
        before = size > 1 ? c : -1;
        i += size;
    }
}

/* What a token of these bytes says about its first byte, its characters and its edges. */
static void look_at_token(struct bpe *b, struct edges *edges, const struct vocab_entry *entry,
                          bool alone, const char *bytes, size_t n)
{
    size_t *longest = &b->longest[(unsigned char)*bytes];
    int32_t c;

    *longest = n > *longest ? n : *longest;
    if (alone && entry->id != b->unk)
        edges[entry->id] = (struct edges){.first = (unsigned char)*bytes,
                                          .last = (unsigned char)bytes[n - 1],
                                          .size = (unsigned char)(n < 255 ? n : 255)};
    note_neighbours(b, bytes, n);
    if ((n == 2 || n == 3) && utf8_decode(bytes, n, &c) == n && utf8_valid(bytes, n))
        b->char_ids[c] = entry->id;
}

static int look_at_tokens(struct bpe *b, struct edges *edges, struct reader *r)
{
    const struct vocab *v = b->vocab;
    char *bytes = NULL;
    size_t capacity = 0;

    for (size_t e = 0; e < v->n_entries; e++) {
        const struct vocab_entry *entry = &v->entries[e];
        size_t n;

        if (entry->size > capacity || !bytes) {
            mem_free(bytes);
            capacity = 2 * (size_t)entry->size + 256;
            bytes = mem_alloc(capacity);
            if (!bytes)
                return no_memory(r);
        }
        n = read_bytes(v->text + entry->offset, entry->size, bytes);
        if (n)
            look_at_token(b, edges, entry, v->entry_of_id[entry->id] == e + 1, bytes, n);
    }
    mem_free(bytes);
    for (int byte = 0; byte < 256; byte++) {
        if (b->fallback_ids[byte] >= 0)
            edges[b->fallback_ids[byte]].size = 0;
    }
    return 0;
}

int bpe_fill_seeds(struct bpe *b, struct reader *r)
{
    struct borders border = {0};
    struct edges *edges = mem_zeroed(b->vocab->n_ids + 1, sizeof *edges);
    int rc = -1;

    b->limits = mem_zeroed(BPE_CHARACTERS, 1);
    b->neighbours = mem_zeroed(BPE_NEIGHBOUR_WORDS, sizeof *b->neighbours);
    if (!edges || !b->limits || !b->neighbours) {
        no_memory(r);
        goto cleanup;
    }
    for (size_t i = 0; i < BPE_CHARACTERS; i++)
        b->char_ids[i] = -1;
    if (look_at_tokens(b, edges, r) || find_borders(b, edges, &border, r))
        goto cleanup;
    for (int32_t c = 0; c < BPE_CHARACTERS; c++) {
        if (b->char_ids[c] >= 0 && !try_character(b, &border, c))
            b->char_ids[c] = -1;
    }
    rc = 0;

cleanup:
    mem_free(border.left);
    mem_free(edges);
    return rc;
}
