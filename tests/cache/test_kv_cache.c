/* The cache against a plain model of it: every sequence is an array of tags, one per token. The
 * tags are written into the blocks and read back the way device kernels address them. */
#include "cache/kv_cache.h"
#include "cache/kv_states.h"
#include "device/kv_layout.h"

#include <limits.h>
#include <string.h>

#include "fake_device.h"
#include "testing.h"

enum { MAX_LAYERS = 6, MAX_SEQUENCES = 12, MAX_LENGTH = 700, MAX_GROUPS = 4 };

struct layout {
    const char *name;
    enum dtype type;
    int n_layers;
    struct kv_layer_spec layers[MAX_LAYERS];
    size_t state_bytes;
    struct kv_cache_options kind; /* what it says of bits and tokens */
};

static const struct layout layouts[] = {
    {"full", DTYPE_F16, 2, {{2, 8, 8, 0, false}, {2, 8, 8, 0, false}}, 0, {0}},
    {"full, odd sizes",
     DTYPE_BF16,
     3,
     {{1, 5, 3, 0, false}, {3, 7, 1, 0, false}, {2, 1, 9, 0, false}},
     0,
     {0}},
    {"window 6 and full",
     DTYPE_F32,
     3,
     {{1, 4, 4, 6, false}, {1, 4, 4, 0, false}, {1, 4, 4, 6, false}},
     0,
     {0}},
    {"window 33 and full", DTYPE_F16, 2, {{2, 4, 4, 0, false}, {1, 8, 4, 33, false}}, 0, {0}},
    {"window 64 only", DTYPE_F32, 1, {{1, 2, 2, 64, false}}, 0, {0}},
    {"windows 1, 32, 65",
     DTYPE_F16,
     4,
     {{1, 4, 4, 1, false}, {1, 4, 4, 65, false}, {2, 4, 4, 32, false}, {1, 2, 2, 1, false}},
     0,
     {0}},
    {"window without end", DTYPE_F32, 2, {{1, 2, 2, INT_MAX, false}, {1, 2, 2, 0, false}}, 0, {0}},
    {"states and full", DTYPE_F16, 1, {{1, 4, 4, 0, false}}, 1000, {0}},
    {"states and window 40", DTYPE_F16, 2, {{1, 4, 4, 0, false}, {1, 4, 4, 40, false}}, 8, {0}},
    {"states alone", DTYPE_F32, 0, {{0}}, 4, {0}},
    {.name = "quantised",
     .type = DTYPE_F16,
     .n_layers = 2,
     .layers = {{2, 64, 64, 0, false}, {1, 20, 3, 0, false}},
     .kind = {.bits = 4, .group_size = 64}},
    {.name = "quantised from a token on, and window 40",
     .type = DTYPE_F32,
     .n_layers = 3,
     .layers = {{2, 32, 64, 0, false}, {1, 8, 8, 40, false}, {1, 8, 1, 0, true}},
     .kind = {.bits = 8, .group_size = 32, .quantised_from = 70}},
    {.name = "9 tokens, the first 4",
     .type = DTYPE_F16,
     .n_layers = 3,
     .layers = {{1, 4, 4, 0, false}, {1, 4, 4, 40, false}, {1, 4, 4, 3, false}},
     .kind = {.max_tokens = 9, .n_first = 4}},
    {.name = "150 tokens, the first 40, states, quantised",
     .type = DTYPE_F16,
     .n_layers = 2,
     .layers = {{1, 32, 32, 0, false}, {1, 32, 32, 130, false}},
     .state_bytes = 8,
     .kind = {.bits = 4, .group_size = 32, .quantised_from = 32, .max_tokens = 150, .n_first = 40}},
    {"no layers", DTYPE_F16, 0, {{0}}, 0, {0}},
    {.name = "states that stay", .type = DTYPE_F16, .state_bytes = 8},
    {.name = "states that stay, and window 40",
     .type = DTYPE_F16,
     .n_layers = 2,
     .layers = {{1, 4, 4, 0, false}, {1, 4, 4, 40, false}},
     .state_bytes = 100},
};

/* The last two are on a device whose states may stay where they are. */
static bool states_stay(const struct layout *l)
{
    return l >= &layouts[COUNT(layouts) - 2];
}

struct model {
    kv_seq *seq;
    int length;
    /* Since it was empty; and for each layer, since no more than its first tokens were there: how
     * far windows have moved. */
    int longest, moved[MAX_LAYERS];
    int last_length; /* before the last append */
    uint32_t tags[MAX_LENGTH];
};

struct world {
    const struct layout *layout;
    struct fake_device device;
    kv_cache *cache;
    size_t max_bytes;
    struct model sequences[MAX_SEQUENCES];
    int n_sequences;
    uint32_t next_tag;
    long n_full;
};

/* Contents of blocks */

/* What every number of the row of a token holds: both halves for a 4-byte type. */
static uint16_t mark(uint32_t tag, int layer, int head, bool value)
{
    uint32_t x = tag * 0x9E3779B1u + (uint32_t)(layer * 64 + head * 2 + value) * 0x85EBCA77u;

    return (uint16_t)(x >> 16 ^ x);
}

static struct kv_part part_of(const struct kv_layer *l, bool value)
{
    return value ? kv_values(l) : kv_keys(l);
}

static int place_in(struct kv_table t, int position)
{
    return kv_block_index(position / KV_BLOCK_TOKENS, t.n_kept, t.n_gone);
}

/* As kernels find it. */
static char *block_at(const struct kv_layer *l, struct kv_table t, int position)
{
    int place = place_in(t, position);
    int32_t id = t.blocks[place];

    CHECK(place >= 0 && place < t.n_blocks, "position %d", position);
    l = kv_at(l, position);
    return (char *)l->slabs[id >> l->slab_shift] +
           (size_t)(id & ((1 << l->slab_shift) - 1)) * l->block_bytes;
}

static uint16_t *row_at(const struct kv_layer *l, struct kv_table t, int position, int head,
                        bool value)
{
    struct kv_part p = part_of(kv_at(l, position), value);
    size_t row = (size_t)head * (size_t)l->block_tokens + (size_t)(position % l->block_tokens);

    return (uint16_t *)(block_at(l, t, position) + p.rows + row * p.row_bytes);
}

static size_t row_halves(const struct kv_layer *l, int position, bool value)
{
    return part_of(kv_at(l, position), value).row_bytes / 2;
}

static void write_token(struct world *w, struct model *m, int position, uint32_t tag)
{
    for (int i = 0; i < w->layout->n_layers; i++) {
        const struct kv_layer *l = kv_cache_layer(w->cache, i);
        struct kv_table t = kv_seq_table(m->seq, kv_cache_group_of(w->cache, i));

        for (int head = 0; head < l->n_kv_heads; head++)
            for (int value = 0; value < 2; value++) {
                uint16_t *row = row_at(l, t, position, head, value);

                for (size_t j = 0; j < row_halves(l, position, value); j++)
                    row[j] = mark(tag, i, head, value);
            }
    }
}

static void check_token(const struct world *w, const struct model *m, int layer, int position)
{
    const struct kv_layer *l = kv_cache_layer(w->cache, layer);
    struct kv_table t = kv_seq_table(m->seq, kv_cache_group_of(w->cache, layer));

    for (int head = 0; head < l->n_kv_heads; head++)
        for (int value = 0; value < 2; value++) {
            const uint16_t *row = row_at(l, t, position, head, value);
            uint16_t want = mark(m->tags[position], layer, head, value);

            CHECK((char *)row >= (char *)kv_seq_place(m->seq, layer, position).block, "position %d",
                  position);
            for (size_t j = 0; j < row_halves(l, position, value); j++)
                CHECK(row[j] == want, "%s: layer %d, position %d of %d, head %d", w->layout->name,
                      layer, position, m->length, head);
        }
}

static int visible_from(int window, int position)
{
    return window && position >= window ? position - window + 1 : 0;
}

/* The last tokens that a layer sees, 0: all. */
static int reach_of(const struct layout *l, int layer)
{
    int window = l->layers[layer].window, last = l->kind.max_tokens - l->kind.n_first;

    return l->kind.max_tokens && (!window || window > last) ? last : window;
}

/* The first tokens that it sees besides. */
static int kept_of(const struct layout *l, int layer)
{
    return reach_of(l, layer) == l->layers[layer].window ? 0 : l->kind.n_first;
}

/* The state says after which token it is. */
static void check_state(const struct world *w, const struct model *m)
{
    const void *from = kv_seq_state(m->seq).from;

    if (!w->layout->state_bytes || !kv_seq_is_whole(m->seq))
        return;
    CHECK(!from == (m->length == 0), "length %d: %s", m->length, from ? "a state" : "no state");
    CHECK(!from || memcmp(from, &m->tags[m->length - 1], sizeof(uint32_t)) == 0, "length %d",
          m->length);
}

/* All that the next token of the sequence will see is there, and little else. */
static void check_sequence(const struct world *w, const struct model *m)
{
    CHECK(kv_seq_length(m->seq) == m->length, "%d, not %d", kv_seq_length(m->seq), m->length);
    CHECK(m->length == 0 || memcmp(kv_seq_tokens(m->seq), m->tags, (size_t)m->length * 4) == 0,
          "other tokens");
    check_state(w, m);
    for (int g = 0; g < kv_cache_groups(w->cache); g++) {
        struct kv_table t = kv_seq_table(m->seq, g);
        int end = (m->length + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;

        CHECK(!t.n_blocks || t.n_gone + t.n_blocks == end, "%s: blocks of %d tokens end at %d",
              w->layout->name, m->length, t.n_gone + t.n_blocks);
        CHECK(!t.n_kept || !t.n_gone || t.n_blocks > t.n_kept, "%s: %d tokens, %d blocks gone",
              w->layout->name, m->length, t.n_gone);
    }
    for (int i = 0; i < w->layout->n_layers; i++)
        for (int p = 0; p < m->length; p++)
            if (p < kept_of(w->layout, i) || p >= visible_from(reach_of(w->layout, i), m->length))
                check_token(w, m, i, p);
}

static const struct kv_layer *layer_of_group(const struct world *w, int group)
{
    for (int i = 0;; i++)
        if (kv_cache_group_of(w->cache, i) == group)
            return kv_cache_layer(w->cache, i);
}

/* Bytes of the different blocks in the tables of all sequences. */
static size_t bytes_in_tables(const struct world *w)
{
    size_t bytes = 0;

    for (int g = 0; g < kv_cache_groups(w->cache); g++) {
        static uint8_t seen[2][1 << 16];
        const struct kv_layer *l = layer_of_group(w, g);

        memset(seen, 0, sizeof seen);
        for (int s = 0; s < w->n_sequences; s++) {
            struct kv_table t = kv_seq_table(w->sequences[s].seq, g);

            for (int i = 0; i < t.n_blocks; i++) {
                int number = i < t.n_kept ? i : i + t.n_gone;
                const struct kv_layer *at = kv_at(l, number * KV_BLOCK_TOKENS);

                CHECK(t.blocks[i] >= 0 && t.blocks[i] < 1 << 16, "block %d", t.blocks[i]);
                bytes += seen[at == l][t.blocks[i]] ? 0 : at->block_bytes;
                seen[at == l][t.blocks[i]] = 1;
            }
        }
    }
    return bytes;
}

static void check_bytes(const struct world *w)
{
    size_t used = kv_cache_bytes_used(w->cache), held = kv_cache_bytes_held(w->cache);

    size_t states = used - bytes_in_tables(w), state_bytes = w->layout->state_bytes;
    size_t most = (size_t)w->n_sequences * (KV_SNAPSHOTS + 1) * state_bytes;

    CHECK(state_bytes ? states % state_bytes == 0 && states <= most : states == 0,
          "%zu bytes used, %zu in tables", used, bytes_in_tables(w));
    CHECK(used <= held, "%zu of %zu", used, held);
    CHECK(held <= w->device.bytes, "%zu held, %zu taken", held, w->device.bytes);
    CHECK(!w->max_bytes || held <= w->max_bytes, "%zu held, bound %zu", held, w->max_bytes);
}

static void check_world(const struct world *w)
{
    for (int s = 0; s < w->n_sequences; s++)
        check_sequence(w, &w->sequences[s]);
    check_bytes(w);
}

/* Operations, done to the cache and to the model */

static struct device_ops staying_ops;

static struct world *open_world(const struct layout *layout, size_t max_bytes)
{
    clm_error err = {0};
    struct kv_cache_options options = layout->kind;
    struct world *w = malloc(sizeof *w);

    CHECK(w, "no memory");
    staying_ops = fake_ops;
    staying_ops.states_stay = true;
    *w = (struct world){.layout = layout, .max_bytes = max_bytes, .next_tag = 1};
    w->device.base.ops = states_stay(layout) ? &staying_ops : &fake_ops;
    options.type = layout->type;
    options.state_bytes = layout->state_bytes;
    options.max_bytes = max_bytes;
    w->cache = kv_cache_open(&w->device.base, layout->layers, layout->n_layers, &options, &err);
    CHECK(w->cache, "%s: %s", layout->name, err.message);
    return w;
}

static void close_world(struct world *w)
{
    for (int s = 0; s < w->n_sequences; s++)
        kv_seq_close(w->sequences[s].seq);
    w->n_sequences = 0;
    CHECK(kv_cache_bytes_used(w->cache) == 0, "%zu bytes", kv_cache_bytes_used(w->cache));
    kv_cache_close(w->cache);
    CHECK(w->device.n_blocks == 0, "%ld blocks of memory are left", w->device.n_blocks);
    free(w);
}

static struct model *add_sequence(struct world *w)
{
    clm_error err = {0};
    struct model *m = &w->sequences[w->n_sequences];

    m->seq = kv_seq_open(w->cache, &err);
    if (!m->seq) {
        CHECK(err.code == CLM_ERR_NOMEM, "%s", err.message);
        return NULL;
    }
    m->length = m->longest = m->last_length = 0;
    memset(m->moved, 0, sizeof m->moved);
    w->n_sequences++;
    return m;
}

static void close_sequence(struct world *w, int s)
{
    kv_seq_close(w->sequences[s].seq);
    w->sequences[s] = w->sequences[--w->n_sequences];
}

static bool fork_sequence(struct world *w, int s)
{
    clm_error err = {0};
    size_t used = kv_cache_bytes_used(w->cache);
    struct model *m = &w->sequences[w->n_sequences];

    *m = w->sequences[s];
    m->seq = kv_seq_fork(w->sequences[s].seq, &err);
    CHECK(kv_cache_bytes_used(w->cache) == used, "a fork took blocks");
    if (!m->seq) {
        CHECK(err.code == CLM_ERR_NOMEM, "%s", err.message);
        return false;
    }
    w->n_sequences++;
    return true;
}

/* The ids in the tables of a sequence, to see that an operation that failed left them alone. */
static uint64_t tables_hash(const struct world *w, const struct model *m)
{
    uint64_t hash = (uint64_t)kv_seq_length(m->seq);

    for (int g = 0; g < kv_cache_groups(w->cache); g++) {
        struct kv_table t = kv_seq_table(m->seq, g);

        hash = hash * 31 + (uint64_t)t.n_blocks;
        hash = hash * 31 + (uint64_t)t.n_gone;
        for (int i = 0; i < t.n_blocks; i++)
            hash = hash * 1000003 + (uint64_t)t.blocks[i];
    }
    return hash;
}

/* Room for n tokens, the first n_stored of which are written and committed. */
static int append(struct world *w, struct model *m, int n, int n_stored)
{
    clm_error err = {0};
    uint64_t before = tables_hash(w, m);

    if (kv_seq_reserve(m->seq, n, &err)) {
        CHECK(err.code == CLM_ERR_NOMEM || (err.code == CLM_ERR_FULL && w->max_bytes), "%s",
              err.message);
        CHECK(tables_hash(w, m) == before, "a reserve that failed changed the sequence");
        w->n_full += err.code == CLM_ERR_FULL;
        return -1;
    }
    if (w->layout->state_bytes && n_stored) {
        check_state(w, m); /* room does not change what is there */
        memcpy(kv_seq_state(m->seq).to, &(uint32_t){w->next_tag + (uint32_t)n_stored - 1},
               sizeof(uint32_t));
    }
    for (int i = 0; i < n_stored; i++) {
        m->tags[m->length + i] = w->next_tag;
        write_token(w, m, m->length + i, w->next_tag++);
    }
    kv_seq_commit(m->seq, (int32_t *)m->tags + m->length, n_stored);
    if (n_stored)
        m->last_length = m->length;
    m->length += n_stored;
    m->longest = m->length > m->longest ? m->length : m->longest;
    for (int i = 0; i < w->layout->n_layers; i++)
        m->moved[i] = m->length > m->moved[i] ? m->length : m->moved[i];
    if (n_stored == 1 && states_stay(w->layout) &&
        m->longest - m->length + KV_STEPS_IN_PLACE <= KV_BLOCK_TOKENS)
        CHECK(kv_seq_trim_point(m->seq, m->length - 1) >= m->length - KV_STEPS_IN_PLACE,
              "of %d tokens can go back to %d", m->length,
              kv_seq_trim_point(m->seq, m->length - 1));
    return 0;
}

/* A step that fails, after it has begun or before. What is lost then has to come again. */
static void fail_step(struct world *w, struct model *m, int n, bool begun)
{
    clm_error err = {0};
    struct kv_state at;
    bool lost;

    if (n < 1 || kv_seq_reserve(m->seq, n, &err))
        return;
    at = kv_seq_state(m->seq);
    lost = begun && w->layout->state_bytes && at.from == at.to;
    if (begun && w->layout->state_bytes)
        memset(at.to, 0xEE, sizeof(uint32_t));
    if (begun)
        kv_seq_fail(m->seq);
    else
        kv_seq_commit(m->seq, NULL, 0);
    CHECK(kv_seq_is_whole(m->seq) != lost, "lost %d", lost);
    check_sequence(w, m);
    if (lost)
        CHECK(kv_seq_reserve(m->seq, 1, &err) && err.code == CLM_ERR_ARG,
              "room behind lost states");
}

/* Those in the blocks of the first ones of a layer. */
static int kept_tokens(const struct layout *l, int layer)
{
    return (kept_of(l, layer) + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
}

/* Whether a trim must, or cannot, be possible; in between a window may or may not have kept a
 * block. */
static void check_point(const struct world *w, const struct model *m, int n, int point)
{
    bool always = n == 0 || m->longest - n <= KV_BLOCK_TOKENS, never = false;

    CHECK(point >= 0 && point <= n, "%s: point %d of %d", w->layout->name, point, n);
    if (w->layout->state_bytes)
        always = n == 0 || (n == m->length && kv_seq_is_whole(m->seq)) ||
                 (always && n == m->last_length && !states_stay(w->layout));
    for (int i = 0; i < w->layout->n_layers; i++) {
        int window = reach_of(w->layout, i), first = kept_tokens(w->layout, i);
        int kept = visible_from(window, m->moved[i]) - 3 * KV_BLOCK_TOKENS;

        if (window > 1 && point > first && kept > first && visible_from(window, point) < kept)
            never = true;
    }
    CHECK(point == n || !always, "%s: cannot trim %d to %d", w->layout->name, m->length, n);
    CHECK(!never, "%s: can trim %d to %d", w->layout->name, m->length, point);
}

/* Trims to n, or to the nearest point before it. */
static void trim(struct world *w, struct model *m, int n)
{
    clm_error err = {0};
    uint64_t before = tables_hash(w, m);
    int point = n;

    if (n >= 0 && n <= m->length) {
        point = kv_seq_trim_point(m->seq, n);
        check_point(w, m, n, point);
        if (point != n) {
            CHECK(kv_seq_trim(m->seq, n, &err) && err.code == CLM_ERR_ARG, "trimmed to %d", n);
            CHECK(tables_hash(w, m) == before, "a trim that failed changed the sequence");
        }
    } else {
        CHECK(kv_seq_trim(m->seq, n, &err) && err.code == CLM_ERR_ARG, "trimmed to %d", n);
        CHECK(tables_hash(w, m) == before, "a trim that failed changed the sequence");
        return;
    }
    CHECK(kv_seq_trim(m->seq, point, &err) == 0, "%s", err.message);
    if (point != m->length)
        m->last_length = 0;
    m->length = point;
    if (point == 0)
        m->longest = 0;
    for (int i = 0; i < w->layout->n_layers; i++)
        if (point <= kept_tokens(w->layout, i))
            m->moved[i] = point;
}

static int some_length(int most)
{
    static const int usual[] = {1, 1, 1, 2, 5, 31, 32, 33, 64, 100};
    int n = usual[random_below(COUNT(usual))];

    return n < most ? n : most;
}

static void random_operation(struct world *w)
{
    int s = w->n_sequences ? (int)random_below((size_t)w->n_sequences) : 0;
    struct model *m = &w->sequences[s];
    size_t what = random_below(100);

    if (!w->n_sequences || (what < 4 && w->n_sequences < MAX_SEQUENCES)) {
        add_sequence(w);
    } else if (what < 10 && w->n_sequences < MAX_SEQUENCES) {
        fork_sequence(w, s);
    } else if (what < 16) {
        close_sequence(w, s);
    } else if (what < 28) {
        /* Often a little, as speculation does; sometimes to anywhere, or beyond the end. */
        int back = what < 20 ? m->length + 2 : 40;

        trim(w, m, m->length + 1 - (int)random_below((size_t)back + 1));
    } else {
        int n = some_length(MAX_LENGTH - m->length);

        int less = w->layout->state_bytes ? 0 : (int)random_below((size_t)n + 1);

        if (!kv_seq_is_whole(m->seq))
            trim(w, m, m->length);
        append(w, m, n, random_below(4) ? n : less);
        if (random_below(8) == 0)
            fail_step(w, m, some_length(MAX_LENGTH - m->length), random_below(2));
    }
}

/* Tests */

static void test_random_operations(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(layouts); i++) {
        struct world *w;

        w = open_world(&layouts[i], 0);
        for (int step = 0; step < 4000; step++) {
            random_operation(w);
            if (step % 16 == 0)
                check_world(w);
        }
        check_world(w);
        close_world(w);
    }
}

static void test_bound(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(layouts); i++) {
        struct world *w;
        size_t bytes;

        if (!layouts[i].n_layers || layouts[i].state_bytes)
            continue;
        w = open_world(&layouts[i], 0);
        bytes = kv_cache_bytes_per_token(w->cache) * KV_BLOCK_TOKENS;
        close_world(w);
        for (size_t n_blocks = 1; n_blocks < 100; n_blocks += 33) {
            w = open_world(&layouts[i], n_blocks * bytes + bytes / 3);
            for (int step = 0; step < 1500; step++) {
                random_operation(w);
                if (step % 16 == 0)
                    check_world(w);
            }
            CHECK(n_blocks > 1 || w->n_full > 0, "%s: %zu blocks were never too few",
                  layouts[i].name, n_blocks);
            close_world(w);
        }
    }
}

/* With one group the bound can be used up to the last block, and no further. */
static void test_bound_is_used(void **state)
{
    struct world *w;
    clm_error err = {0};
    struct model *m;
    size_t block_bytes;

    (void)state;
    w = open_world(&layouts[0], 0);
    block_bytes = kv_cache_bytes_per_token(w->cache) * KV_BLOCK_TOKENS;
    close_world(w);
    w = open_world(&layouts[0], 5 * block_bytes);
    m = add_sequence(w);
    CHECK(append(w, m, 5 * KV_BLOCK_TOKENS, 5 * KV_BLOCK_TOKENS) == 0, "5 blocks do not fit");
    CHECK(kv_seq_reserve(m->seq, 1, &err) && err.code == CLM_ERR_FULL, "a sixth block fits");
    CHECK(strstr(err.message, "bound"), "%s", err.message);
    fork_sequence(w, 0);
    trim(w, m, 4 * KV_BLOCK_TOKENS + 1);
    CHECK(append(w, m, 1, 1), "a copy of a shared block fits");
    close_sequence(w, 1);
    CHECK(append(w, m, 1, 1) == 0, "a block of its own must not be copied");
    check_world(w);
    close_world(w);
}

/* Under a bound, blocks that short sequences held in the group of a window serve a long one later.
 */
static void test_groups_give_to_each_other(void **state)
{
    static const struct layout layout = {
        "window 32 and full", DTYPE_F32, 2, {{1, 4, 4, 32, false}, {1, 4, 4, 0, false}}, 0, {0}};
    struct world *w;
    size_t block_bytes;
    struct model *m;

    (void)state;
    w = open_world(&layout, 0);
    block_bytes = kv_cache_bytes_per_token(w->cache) * KV_BLOCK_TOKENS / 2;
    close_world(w);
    w = open_world(&layout, 20 * block_bytes);
    for (int i = 0; i < 10; i++)
        CHECK(append(w, add_sequence(w), KV_BLOCK_TOKENS, KV_BLOCK_TOKENS) == 0, "%d", i);
    while (w->n_sequences)
        close_sequence(w, 0);
    m = add_sequence(w);
    for (int i = 0; i < 16 * KV_BLOCK_TOKENS; i++)
        CHECK(append(w, m, 1, 1) == 0, "%d tokens", i);
    check_world(w);
    CHECK(kv_cache_bytes_used(w->cache) >= 16 * block_bytes, "%zu", kv_cache_bytes_used(w->cache));
    close_world(w);
}

/* A copy of a shared block is made when it would be written, once, and not for whole blocks. */
static void test_copy_on_write(void **state)
{
    struct world *w;

    (void)state;
    w = open_world(&layouts[0], 0);
    append(w, add_sequence(w), 40, 40);
    fork_sequence(w, 0);
    fork_sequence(w, 0);
    CHECK(w->device.n_copies == 0, "a fork copied");
    append(w, &w->sequences[0], 1, 1);
    append(w, &w->sequences[0], 1, 1);
    CHECK(w->device.n_copies == 1, "%ld copies", w->device.n_copies);
    append(w, &w->sequences[1], 1, 1);
    CHECK(w->device.n_copies == 2, "%ld copies", w->device.n_copies);
    append(w, &w->sequences[2], 1, 1); /* the last one has it for itself */
    CHECK(w->device.n_copies == 2, "%ld copies", w->device.n_copies);
    append(w, &w->sequences[2], 23, 23);
    fork_sequence(w, 2);
    append(w, &w->sequences[3], 5, 5); /* at the start of a block */
    CHECK(w->device.n_copies == 2, "%ld copies", w->device.n_copies);
    check_world(w);
    close_world(w);
}

static void test_windows_let_go(void **state)
{
    static const int windows[] = {1, 6, 32, 33, 64};

    (void)state;
    for (size_t i = 0; i < COUNT(windows); i++) {
        struct layout layout = {"window", DTYPE_F16, 1, {{1, 4, 4, windows[i], false}}, 0, {0}};
        struct world *w;
        struct model *m;

        w = open_world(&layout, 0);
        m = add_sequence(w);
        for (int length = 0; length < MAX_LENGTH - 1; length++) {
            struct kv_table t;
            /* The window, the tokens that a trim may take back, and two blocks partly used. */
            int most = (windows[i] + KV_BLOCK_TOKENS) / KV_BLOCK_TOKENS + 2;

            append(w, m, 1, 1);
            t = kv_seq_table(m->seq, 0);
            CHECK(t.n_blocks <= most, "window %d, length %d: %d blocks", windows[i], m->length,
                  t.n_blocks);
        }
        check_world(w);
        close_world(w);
    }
}

/* Under a bound of tokens a sequence takes no more memory however long it gets, and can be forked,
 * taken back and gone on with. */
static void test_tokens_let_go(void **state)
{
    (void)state;
    for (int n = 5; n < 200; n += 31) {
        struct layout layout = {.name = "a bound of tokens",
                                .type = DTYPE_F16,
                                .n_layers = 1,
                                .layers = {{1, 4, 4, 0, false}},
                                .kind = {.max_tokens = n, .n_first = 4}};
        struct world *w = open_world(&layout, 0);
        struct model *m = add_sequence(w);
        int most = (n + KV_BLOCK_TOKENS) / KV_BLOCK_TOKENS + 3;

        for (int length = 0; length < MAX_LENGTH - 1; length++) {
            append(w, m, 1, 1);
            CHECK(kv_seq_table(m->seq, 0).n_blocks <= most, "bound %d, length %d: %d blocks", n,
                  m->length, kv_seq_table(m->seq, 0).n_blocks);
        }
        fork_sequence(w, 0);
        trim(w, m, m->length - 20);
        append(w, m, 10, 10);
        trim(w, m, 20);
        append(w, m, 100, 100);
        check_world(w);
        close_world(w);
    }
}

/* Tokens one by one: no allocation but when a sequence needs a new slab or a longer table. Room for
 * the tokens' numbers was made once. */
static void test_no_allocation_per_token(void **state)
{
    static const struct layout layout = {
        "windows", DTYPE_F16, 2, {{1, 4, 4, 33, false}, {1, 4, 4, 100, false}}, 0, {0}};
    struct world *w;
    kv_seq *s;
    clm_error err = {0};

    (void)state;
    w = open_world(&layout, 0);
    s = kv_seq_open(w->cache, &err);
    CHECK(s, "%s", err.message);
    CHECK(kv_seq_reserve(s, 20000, &err) == 0, "%s", err.message);
    kv_seq_commit(s, NULL, 0);
    mem_fail_after(-1);
    for (int i = 0; i < 20000; i++) {
        if (i == 1000)
            mem_fail_after(0);
        CHECK(kv_seq_reserve(s, 1, &err) == 0, "token %d: %s", i, err.message);
        kv_seq_commit(s, &(int32_t){i}, 1);
    }
    CHECK(!mem_fail_after(-1), "an allocation was made");
    kv_seq_close(s);
    close_world(w);
}

/* The n-th allocation fails, whatever it is for: the operation reports it and can be repeated. */
static void torture(struct world *w, long n)
{
    mem_fail_after(n);
    while (w->n_sequences < 2)
        add_sequence(w);
    for (int s = 0; s < 2; s++) {
        while (append(w, &w->sequences[s], 70, 70))
            check_world(w);
        while (!fork_sequence(w, s))
            check_world(w);
        while (append(w, &w->sequences[s], 150, 150))
            check_world(w);
        trim(w, &w->sequences[s], w->sequences[s].length - 3);
        while (append(w, &w->sequences[s + 2], 3, w->layout->state_bytes ? 3 : 1))
            check_world(w);
    }
    check_world(w);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(layouts); i++) {
        struct world *w;
        bool failed = true;

        for (long n = 0; failed; n++) {
            w = open_world(&layouts[i], 0);
            torture(w, n);
            failed = mem_fail_after(-1);
            close_world(w);
        }
    }
}

static void test_failing_open(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        struct fake_device d = {.base.ops = &fake_ops};
        clm_error err = {0};
        kv_cache *c;
        bool failed;

        mem_fail_after(n);
        c = kv_cache_open(&d.base, layouts[3].layers, layouts[3].n_layers,
                          &(struct kv_cache_options){.type = DTYPE_F16}, &err);
        failed = mem_fail_after(-1);
        CHECK(failed == !c, "allocation %ld", n);
        CHECK(c || err.code == CLM_ERR_NOMEM, "%s", err.message);
        kv_cache_close(c);
        if (!failed)
            break;
    }
}

static void test_wrong_arguments(void **state)
{
    static const struct kv_layer_spec bad[] = {
        {0, 8, 8, 0, false},  {1, 0, 8, 0, false},  {1, 8, 0, 0, false},
        {1, 8, 8, -1, false}, {-1, 8, 8, 0, false}, {INT_MAX, INT_MAX, INT_MAX, 0, false}};
    static const struct kv_cache_options bad_kinds[] = {
        {.bits = 5, .group_size = 64},
        {.bits = 4, .group_size = 48},
        {.bits = 4, .group_size = 0},
        {.bits = 8, .group_size = 64, .quantised_from = -1},
        {.max_tokens = -1},
        {.max_tokens = 4, .n_first = 4},
        {.n_first = -1},
    };
    struct world *w;
    clm_error err = {0};
    struct model *m;

    (void)state;
    w = open_world(&layouts[2], 0);
    for (size_t i = 0; i < COUNT(bad); i++) {
        err = (clm_error){0};
        CHECK(!kv_cache_open(&w->device.base, &bad[i], 1,
                             &(struct kv_cache_options){.type = DTYPE_F16}, &err),
              "%zu opened", i);
        CHECK(err.code == CLM_ERR_ARG && strstr(err.message, "layer 0"), "%s", err.message);
    }
    err = (clm_error){0};
    CHECK(!kv_cache_open(&w->device.base, layouts[0].layers, 2,
                         &(struct kv_cache_options){.type = DTYPE_I32}, &err),
          "opened");
    CHECK(err.code == CLM_ERR_ARG, "%s", err.message);
    for (size_t i = 0; i < COUNT(bad_kinds); i++) {
        err = (clm_error){0};
        CHECK(!kv_cache_open(&w->device.base, layouts[0].layers, 2, &bad_kinds[i], &err) &&
                  err.code == CLM_ERR_ARG,
              "%zu opened: %s", i, err.message);
    }
    m = add_sequence(w);
    append(w, m, 10, 10);
    err = (clm_error){0};
    CHECK(kv_seq_reserve(m->seq, -1, &err) && err.code == CLM_ERR_ARG, "%s", err.message);
    err = (clm_error){0};
    CHECK(kv_seq_reserve(m->seq, INT_MAX, &err) && err.code == CLM_ERR_FULL, "%s", err.message);
    CHECK(kv_seq_reserve(m->seq, 0, NULL) == 0, "no tokens");
    trim(w, m, -1);
    trim(w, m, 11);
    kv_seq_close(NULL);
    kv_cache_close(NULL);
    check_world(w);
    close_world(w);
}

/* Two devices: layers and states lie where they should, and when there is no memory on one of them
 * nothing is taken of the other. */
static void test_two_devices(void **state)
{
    static const struct kv_layer_spec two[] = {{1, 8, 8, 0, false}, {1, 8, 8, 0, false}};
    struct fake_device first = {.base.ops = &fake_ops}, second = first;
    struct kv_cache_options options = {
        .type = DTYPE_F32, .state_bytes = 64, .rest = {&second.base, 1, 128}};
    const size_t block = (size_t)2 * KV_BLOCK_TOKENS * 8 * sizeof(float);
    const int32_t token = 1;

    (void)state;
    for (long n = 0;; n++) {
        clm_error err = {0};
        kv_cache *c = kv_cache_open(&first.base, two, 2, &options, &err);
        kv_seq *s = kv_seq_open(c, &err), *fork;
        bool failed;
        int rc;

        CHECK(kv_cache_groups(c) == 2 && kv_cache_device(c, 0) == &first.base &&
                  kv_cache_device(c, 1) == &second.base,
              "layers are elsewhere");
        CHECK(kv_cache_state_bytes(c) == 64 + 128, "%zu", kv_cache_state_bytes(c));
        mem_fail_after(n);
        rc = kv_seq_reserve(s, 1, &err);
        failed = mem_fail_after(-1);
        CHECK(failed == (rc != 0), "allocation %ld", n);
        if (failed) {
            CHECK(err.code == CLM_ERR_NOMEM && kv_cache_bytes_used(c) == 0, "%s", err.message);
            CHECK(kv_seq_reserve(s, 1, &err) == 0, "%s", err.message);
        }
        CHECK(kv_cache_bytes_used(c) == 2 * block + 64 + 128, "%zu", kv_cache_bytes_used(c));
        memset(kv_seq_state(s).to, 1, 64);
        memset(kv_seq_rest_state(s).to, 2, 128);
        kv_seq_commit(s, &token, 1);
        fork = kv_seq_fork(s, &err);
        CHECK(fork && kv_seq_rest_state(fork).from == kv_seq_rest_state(s).from &&
                  *(const char *)kv_seq_state(fork).from == 1 &&
                  *(const char *)kv_seq_rest_state(fork).from == 2,
              "%s", err.message);
        kv_seq_close(s);
        kv_seq_close(fork);
        CHECK(kv_cache_bytes_used(c) == 0, "%zu", kv_cache_bytes_used(c));
        kv_cache_close(c);
        CHECK(first.bytes == 0 && second.bytes == 0, "memory is left");
        if (!failed)
            break;
    }
}

/* A step of one token; whether it writes the state where it reads it. */
static bool step_stays(kv_seq *s)
{
    const int32_t token = 7;
    clm_error err = {0};
    struct kv_state at;

    CHECK(kv_seq_reserve(s, 1, &err) == 0, "%s", err.message);
    at = kv_seq_state(s);
    memcpy(at.to, &(int32_t){kv_seq_length(s) + 1}, sizeof(int32_t));
    kv_seq_commit(s, &token, 1);
    return at.from == at.to;
}

static void check_state_of(const kv_seq *s, int length)
{
    CHECK(kv_seq_length(s) == length && *(const int32_t *)kv_seq_state(s).from == length,
          "%d tokens, the state of %d, not %d", kv_seq_length(s),
          *(const int32_t *)kv_seq_state(s).from, length);
}

static void test_states_stay(void **state)
{
    const int32_t tokens[2] = {7, 7};
    struct world *w = open_world(&layouts[COUNT(layouts) - 2], 0);
    clm_error err = {0};
    kv_seq *s = kv_seq_open(w->cache, &err), *fork;

    (void)state;
    for (int i = 0; i < 3 * KV_STEPS_IN_PLACE; i++)
        CHECK(step_stays(s) == (i % KV_STEPS_IN_PLACE != 0), "step %d", i);
    CHECK(kv_cache_bytes_used(w->cache) == 3 * w->layout->state_bytes, "%zu bytes",
          kv_cache_bytes_used(w->cache));
    CHECK(!step_stays(s) && step_stays(s), "a snapshot now and then");

    /* A fork has the state too. */
    fork = kv_seq_fork(s, &err);
    CHECK(!step_stays(s) && step_stays(s), "the other one has the state");
    check_state_of(fork, 3 * KV_STEPS_IN_PLACE + 2);
    check_state_of(s, 3 * KV_STEPS_IN_PLACE + 4);
    CHECK(!step_stays(fork) && step_stays(fork), "the other one has a snapshot of it");
    kv_seq_close(fork);

    /* Room for one token, then for more; a fork in between. */
    CHECK(kv_seq_reserve(s, 1, &err) == 0 && kv_seq_state(s).from == kv_seq_state(s).to, "stays");
    CHECK(!kv_seq_fork(s, &err) && err.code == CLM_ERR_ARG, "forked within a step");
    CHECK(kv_seq_reserve(s, 2, &err) == 0 && kv_seq_state(s).from != kv_seq_state(s).to,
          "two tokens");
    memcpy(kv_seq_state(s).to, &(int32_t){3 * KV_STEPS_IN_PLACE + 6}, sizeof(int32_t));
    kv_seq_commit(s, tokens, 2);
    CHECK(kv_seq_trim_point(s, 3 * KV_STEPS_IN_PLACE + 5) == 3 * KV_STEPS_IN_PLACE + 4, "point %d",
          kv_seq_trim_point(s, 3 * KV_STEPS_IN_PLACE + 5));

    /* Who goes back often keeps every step. */
    fork = kv_seq_fork(s, &err);
    kv_seq_keep_steps(fork);
    for (int i = 0; i < 4; i++)
        CHECK(!step_stays(fork), "step %d", i);
    CHECK(kv_seq_trim(fork, 3 * KV_STEPS_IN_PLACE + 9, &err) == 0, "%s", err.message);
    check_state_of(fork, 3 * KV_STEPS_IN_PLACE + 9);

    /* Exchanged, each has all that the other had. */
    kv_seq_swap(s, fork);
    check_state_of(s, 3 * KV_STEPS_IN_PLACE + 9);
    check_state_of(fork, 3 * KV_STEPS_IN_PLACE + 6);
    kv_seq_close(s);
    kv_seq_close(fork);
    close_world(w);
}

/* Layers of one window share a group, blocks do not waste more than the alignment of their parts.
 */
static void test_layout(void **state)
{
    static const struct kv_layer_spec big[] = {{8, 128, 128, 0, false}, {8, 128, 128, 0, false}};
    struct fake_device d = {.base.ops = &fake_ops};
    clm_error err = {0};
    struct world *w;
    kv_cache *c =
        kv_cache_open(&d.base, big, 2, &(struct kv_cache_options){.type = DTYPE_F16}, &err);
    kv_seq *s = kv_seq_open(c, &err);

    (void)state;
    CHECK(kv_cache_bytes_per_token(c) == 2 * 2 * 8 * 128 * 2, "%zu", kv_cache_bytes_per_token(c));
    CHECK(kv_cache_bytes_held(c) == 0, "memory is taken before it is needed");
    CHECK(kv_seq_reserve(s, 1, &err) == 0, "%s", err.message);
    CHECK(kv_cache_bytes_held(c) <= (size_t)2 << 20, "%zu for one token", kv_cache_bytes_held(c));
    kv_seq_close(s);
    kv_cache_close(c);
    w = open_world(&layouts[5], 0);
    CHECK(kv_cache_groups(w->cache) == 3, "%d groups", kv_cache_groups(w->cache));
    CHECK(kv_cache_group_of(w->cache, 0) == kv_cache_group_of(w->cache, 3), "windows of 1");
    CHECK(kv_cache_group_of(w->cache, 0) != kv_cache_group_of(w->cache, 1), "windows 1 and 65");
    append(w, add_sequence(w), 1, 1);
    CHECK(kv_cache_bytes_held(w->cache) < 100000, "%zu", kv_cache_bytes_held(w->cache));
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_devices),       cmocka_unit_test(test_layout),
        cmocka_unit_test(test_states_stay),       cmocka_unit_test(test_wrong_arguments),
        cmocka_unit_test(test_copy_on_write),     cmocka_unit_test(test_windows_let_go),
        cmocka_unit_test(test_tokens_let_go),     cmocka_unit_test(test_no_allocation_per_token),
        cmocka_unit_test(test_random_operations), cmocka_unit_test(test_bound),
        cmocka_unit_test(test_bound_is_used),     cmocka_unit_test(test_groups_give_to_each_other),
        cmocka_unit_test(test_failing_open),      cmocka_unit_test(test_failing_allocations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
