/* device/cpu/attention_piece.h: what the ways to treat a chunk of keys share; see attention.c. */
#ifndef DEVICE_CPU_ATTENTION_PIECE_H
#define DEVICE_CPU_ATTENTION_PIECE_H

#include "device/cpu/cpu.h"
#include "device/cpu/kv_rows.h"

enum {
    CHUNK = CPU_ATTEND_CHUNK,
    ATTEND_TOGETHER = 16 /* pieces of as many heads at most, treated together */
};

static inline int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static inline int min_int(int a, int b)
{
    return a < b ? a : b;
}

static inline int max_int(int a, int b)
{
    return a > b ? a : b;
}

/* How a chunk is treated. */
enum piece_way { WAY_PACKED, WAY_DIRECT, WAY_INTEGERS };

struct piece {
    const struct kv_sequence *s;
    int kv_head;
    int row, n_rows;        /* of the sequence's rows */
    int first_key, end_key; /* what it visits of what its rows may see, */
    int hole, hole_end;     /* all but [hole, hole_end) */
    enum piece_way way;
    int range, n_ranges; /* the pieces of one set of rows follow one another */
    int64_t partial; /* where its queries' results go in partials, if there are several ranges */
};

struct attend_call {
    struct cpu_device *d;
    const struct cpu_vector_kernels *kernels;
    const struct kv_layer *kv;
    const struct attend_params *p;
    const tensor *y, *q;
    int group;            /* query heads of a kv head */
    int k_cols, v_cols;   /* k_dim and v_dim, rounded up to panels */
    struct piece *pieces; /* in the device's shared scratch, as is partials */
    int64_t n_pieces;
    int64_t n_turns, whole_turns, turn, last_turn; /* so many of turn pieces, then of last_turn */
    float *partials; /* per query: max, sum, padding to a panel, then v_cols of acc */
    int64_t n_partials;
};

/* What a piece in whole numbers has besides; queries in whole tiles, the panels of
 * kernels->integers.
 */
struct int_state {
    int8_t *q;
    int32_t *starts;
    float *steps, *offsets;
    float *balance; /* [k_dim]: what keys are multiplied by, and queries divided */
    float *rows;    /* [chunk, k_dim or v_dim] */
    uint8_t *keys;
    float *middle; /* [k_dim] */
    float key_step;
    void *values;
    float *value_steps; /* [v_cols] */
    void *weights;      /* [CPU_INT_ROWS, chunk], of 16 bits */
};

/* The state of a piece, in the scratch of its thread. n_queries = n_rows * group; query i is row
 * i / group, head i % group of the group. */
struct state {
    const struct attend_call *call;
    const struct piece *piece;
    int n_queries, n_held;    /* that there is room for */
    int first_head, end_head; /* of the kv heads that are treated together */
    int chunk, base;          /* keys of a chunk; position of the one that is visited */
    float *q;                 /* [n_held, k_cols], scaled, padded with zeros */
    float *s;                 /* [n_held, chunk]; in whole numbers [CPU_INT_ROWS, chunk] */
    float *acc;               /* [n_held, v_cols] */
    float *max, *sum;         /* [n_held] */
    float *keys;              /* panels; packed pieces only */
    float *values;
    float *room; /* of quantised rows */
    struct int_state ints;
    struct cpu_rounded rounded; /* queries of a direct piece, for codes of so many bits in such */
    int rounded_bits, rounded_group; /* groups; 0: not yet */
    uint16_t *turned;                /* the queries of a direct piece for keys of this type, */
    cpu_turn *turned_by;             /* as this has written them; NULL: none yet */
    enum dtype turned_type;
    struct cpu_stretch waiting[CPU_STRETCHES];        /* to be treated at once, of this type */
    struct cpu_stretch values_waiting[CPU_STRETCHES]; /* where keys and values are */
    enum dtype waiting_type;
    int n_waiting, keys_waiting;
    const struct piece *next; /* that the thread will treat after these, or NULL */
};

/* Takes count numbers from a block of scratch, 64-byte aligned; with base NULL only adds up. */
static inline float *take(float *base, size_t *used, int64_t count)
{
    size_t at = *used;

    *used += (size_t)round_up(count, 16);
    return base ? base + at : NULL;
}

/* Keys of the chunk, counted from its base. */
struct span {
    int begin, end;
};

/* Those that lie in [first, end) of the sequence. */
static inline struct span attention_span(const struct state *st, int first, int end)
{
    return (struct span){max_int(first - st->base, 0), min_int(end - st->base, st->chunk)};
}

/* Those from the first to the last that query may see. */
struct span attention_visible(const struct state *st, int query);

/* Makes scores [from, from + n) of a query, q k^T, what the softmax takes, and tells in seen where
 * those lie that it sees, between which others are -INFINITY. False when it sees none. */
bool attention_see(const struct state *st, int query, float *s, int from, int n, struct span *seen);

/* The step of the softmax for one query, over the scores [from, from + n) of a chunk. */
void attention_soften(struct state *st, int query, int from, int n);

/* Calls fn for every stretch of the keys [begin, end) of a chunk that lies in one block, of the
 * pool that at describes; what the piece leaves out lies in none. */
typedef void (*stretch_fn)(struct state *st, const struct kv_layer *at, char *block, int place,
                           int key, int n);
static inline void attention_stretches(struct state *st, struct span keys, stretch_fn fn)
{
    const struct kv_layer *kv = st->call->kv;
    struct span hole = attention_span(st, st->piece->hole, st->piece->hole_end);
    int most = st->piece->way == WAY_DIRECT && !kv->bits ? st->chunk : CHUNK;

    for (int key = keys.begin, n; key < keys.end; key += n) {
        int place, end = keys.end;
        char *block;

        if (key < hole.begin && hole.begin < hole.end)
            end = min_int(end, hole.begin);
        if (key >= hole.begin && key < hole.end) {
            n = hole.end - key;
            continue;
        }
        block = kv_block_of(kv, st->piece->s, st->base + key, &place);
        n = kv_run(kv, st->piece->s, st->base + key, min_int(end - key, most));
        fn(st, kv_of(kv, st->piece->s, st->base + key), block, place, key, n);
    }
}

/* attention_direct.c: a chunk, for the pieces of n heads that follow one another. */
void attention_direct_chunk(struct state *states, int n, struct span keys);

/* attention_int.c: its part of the scratch, see take; the queries, once they are in st->q; and a
 * chunk. */
void attention_int_lay_out(struct state *st, float *base, size_t *used);
void attention_int_begin(struct state *st);
void attention_int_chunk(struct state *st, struct span keys);

#endif
