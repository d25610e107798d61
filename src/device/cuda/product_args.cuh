/* device/cuda/product_args.cuh: what a launch of a product of few rows is told, by
 * product_stream.cu, and the kernels that it chooses among. */
#ifndef DEVICE_CUDA_PRODUCT_ARGS_CUH
#define DEVICE_CUDA_PRODUCT_ARGS_CUH

#include "device/cuda/products.h"

enum {
    WARPS = 8,
    TILE = 16,   /* outputs */
    COLUMNS = 8, /* of a matrix instruction */
    MAX_ROWS = 32,
    WIDE = 4,      /* matrix instructions side by side where there are more rows than columns */
    STEP = 32,     /* numbers that a warp takes at a time */
    PAD = 64,      /* bytes behind a column of x, so that columns lie in other banks */
    SHARED = 1024, /* bytes of shared memory that a block has besides what it asks for */
    /* Of the kernels of product_direct.cuh. */
    DIRECT_WARPS = 16,
    DIRECT_THREADS = 32 * DIRECT_WARPS,
    /* Of product_bulk.cuh. A copy is an instruction for each lane: of a stage a warp has few. */
    ASKING_WARPS = 4,
    CHUNK_BYTES = 128,   /* of a row */
    ROUTED_EXPERTS = 128 /* that a product may choose among */
};

struct part {
    const uint8_t *data, *scales, *biases;
    float *y;
    const float *bias;
    int64_t y_stride;
    int n_out, first_tile;
    int scale_rows, scale_row;
    const struct weight *experts; /* all of them, in device memory; NULL: steps apart */
    struct cuda_steps steps;
};

/* x is the norm of what x says; y is where it is written down. */
struct norm_ahead {
    bool there;
    const float *w; /* or NULL */
    float eps;
    float *y;
    int64_t y_stride;
};

/* What is done to the outputs, besides. */
struct tail_behind {
    enum cuda_tail_kind kind;
    enum activation act;
    float scale;
    float *y;
    int64_t y_stride;
    const float *weights; /* of experts whose answers are put together, in one row of y */
    float *to;            /* or NULL */
};

/* The experts of the one row of x are found on the way, and written down. */
struct routing_ahead {
    const float *logits;
    int32_t *ids;
    float *weights;
    struct router_params p;
};

/* How product_direct.cuh lays out shared memory: a chunk of zeros in place of x; x as halves, pair
 * by pair of columns; of each pair and group what its sums are multiplied by, and the sum of x; of
 * each warp the squares of a row; the choices, and what their answers are multiplied by; the sums
 * of the warps [2, KEEP, warps, 16, COLS], and before there are any what experts are chosen by. */
struct direct_layout {
    int x, x_pitch, factors, factors_pitch, squares, choices, weights, tiles, size;
};

/* How product_bulk.cuh cuts the work. Behind what direct_layout has: barriers [2, n_stages], scales
 * [n_slots, 2, n_groups, slot], the stages [n_stages, n_groups, group]. */
struct bulk_plan {
    struct direct_layout direct;
    int turns;           /* of each warp in a stage */
    int n_groups, parts; /* groups of warps; stages of a tile */
    int part_bytes;      /* of a row in a stage */
    int rows;            /* of a copy, which are whole where there is more than one */
    int pitch, group;    /* from row to row; bytes of a group's tile */
    int n_slots, slot;   /* for scales of whole tiles; bytes of a group's */
    int n_data, n_items; /* copies of a stage: of codes, and with scales */
    int full, empty, scales, stages, size;
};

struct stream {
    struct part parts[CUDA_STREAM_JOBS];
    struct norm_ahead norm;
    struct tail_behind tail;
    const float *x;
    float *sums; /* where the row is split: [n_slices, n_rows, 16 n_tiles] */
    int64_t x_stride;
    size_t row_bytes, scale_row_bytes;
    int n_parts, n_tiles;
    int n_rows;            /* of an output */
    int x_rows, n_columns; /* in shared memory; columns are twice that where halved */
    int n_in, n_chunks, n_slices, slice_chunks, n_stages;
    int kind, group_shift, scale_pitch, scale_bytes;
    int warps_k;                /* that share a tile */
    int n_units;                /* of n_slices blocks */
    bool halved, wide, aligned; /* aligned: rows of scales begin with a word */
    bool paired;                /* a tile is half of the first part's and half of the second's */
    /* Rows with experts: one for each choice, tiles_each tiles for one after another. */
    const int32_t *ids;
    int64_t ids_stride;
    int per_row, x_share, n_choices, tiles_each;
    bool combined; /* a block has the same outputs of all choices, a group of warps for each */
    bool routed;
    bool known; /* which experts: the launch before wrote it down before it let go */
    bool bulk;
    struct bulk_plan plan;
    struct routing_ahead routing;
};

/* A kernel for such a product: what it wants of shared memory, numbers of a chunk, warps of a
 * block.
 */
struct variant {
    void (*kernel)(const struct stream);
    int (*shared_size)(const struct stream &s);
    int chunk, warps;
    void (*plan)(struct stream *s); /* of product_bulk.cuh: all but turns and n_stages */
};

/* product_direct_int.cu, product_direct_float.cu: the kernel of product_direct.cuh for INT4 and
 * INT8; for BF16, F16, E2M1 and E4M3. */
struct variant direct_variant_int(int codes, const struct stream &s);
struct variant direct_variant_float(int codes, const struct stream &s);

/* product_bulk.cu: that of product_bulk.cuh for INT4 and INT8. */
struct variant bulk_variant(int codes, const struct stream &s);

/* A matrix. */
struct choice {
    const uint8_t *data, *scales, *biases;
    int scale_row;
};

/* What was chosen, in shared memory: the expert of each choice; its matrices [n_choices, n_parts]
 * where they lie wherever they lie. */
struct choices {
    int *ids;
    struct choice *table;
};

static __host__ __device__ inline int choices_size(const struct stream &s)
{
    bool apart = s.n_choices && s.parts[0].experts;

    return (s.n_choices * 4 + 15) / 16 * 16 +
           (apart ? s.n_choices * s.n_parts * (int)sizeof(struct choice) : 0);
}

static __device__ __forceinline__ struct choices choices_at(uint8_t *room, const struct stream &s)
{
    return {(int *)room, (struct choice *)(room + (s.n_choices * 4 + 15) / 16 * 16)};
}

#endif
