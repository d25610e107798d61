/* tokenizer/map.h: hash tables over numbers and byte strings, for tables that only grow. */
#ifndef TOKENIZER_MAP_H
#define TOKENIZER_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"

/* A pair of numbers to two others. The key is stored plus one, so that zero marks a free slot. */
struct pair_slot {
    uint64_t key;
    uint32_t a;
    uint32_t b;
};

struct pair_map {
    struct pair_slot *slots; /* a power of two of them, at most three quarters taken */
    size_t mask;
    size_t count;
};

static inline uint64_t pair_key(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 32 | right;
}

/* The middle bits of the product, which all bits of both numbers reach. */
static inline size_t pair_hash(uint64_t key)
{
    return (size_t)(key * 0x9E3779B97F4A7C15u >> 32);
}

/* The slot of the pair, or NULL. left must not be UINT32_MAX. */
static inline const struct pair_slot *pair_map_find(const struct pair_map *m, uint32_t left,
                                                    uint32_t right)
{
    uint64_t key = pair_key(left, right);

    if (!m->slots)
        return NULL;
    for (size_t i = pair_hash(key) & m->mask;; i = (i + 1) & m->mask) {
        if (m->slots[i].key == key + 1)
            return &m->slots[i];
        if (!m->slots[i].key)
            return NULL;
    }
}

/* Set the pair's values, new or not; 0 or -1 without memory. */
int pair_map_set(struct pair_map *m, uint32_t left, uint32_t right, uint32_t a, uint32_t b,
                 clm_error *err);
void pair_map_release(struct pair_map *m);

static inline uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = n * 0x9E3779B97F4A7C15u, word;

    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&word, s, 8);
        h = (h ^ word) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    word = 0;
    switch (n) {
    case 7:
        word |= (uint64_t)(unsigned char)s[6] << 48; /* fallthrough */
    case 6:
        word |= (uint64_t)(unsigned char)s[5] << 40; /* fallthrough */
    case 5:
        word |= (uint64_t)(unsigned char)s[4] << 32; /* fallthrough */
    case 4:
        word |= (uint64_t)(unsigned char)s[3] << 24; /* fallthrough */
    case 3:
        word |= (uint64_t)(unsigned char)s[2] << 16; /* fallthrough */
    case 2:
        word |= (uint64_t)(unsigned char)s[1] << 8; /* fallthrough */
    case 1:
        word |= (uint64_t)(unsigned char)s[0];
    }
    h = (h ^ word) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

#endif
