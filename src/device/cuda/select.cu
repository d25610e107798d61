/* device/cuda/select.cu: which keys a row attends to, by scores of heads made for it; by the rules
 * of device/cpu/select.c. arXiv:2512.02556
 *
 * A block of threads has a row at a time: it scores the keys into room of its own in device memory,
 * finds the score of the last one that is kept, digit by digit, and marks. */
#include "device/cuda/kv.cuh"
#include "device/cuda/rows.cuh"

enum { THREADS = 256, BLOCKS_PER_PROCESSOR = 2, DIGITS = 256 };

/* Where the bits of chosen items lie: item i stands for run bits from i apart + first on, as far as
 * there are n_bits. */
struct bit_runs {
    uint32_t *bits;
    int64_t apart, first, run, n_bits;
};

struct select_args {
    struct rows q, w; /* w without data: of select_blocks */
    struct cuda_kv kv;
    struct cuda_batch batch;
    uint32_t *kept;
    int64_t kept_stride;
    int kept_words;
    int n_heads, n;
    int block_size, n_local; /* of select_blocks, or of candidates */
    int ratio, n_blocks;     /* of select_pooled */
    uint32_t *candidates;    /* or NULL */
    int64_t candidates_stride;
    int candidates_words;
    float *room; /* of each block: so many numbers */
    int64_t room_size;
};

/* --- The best of some scores --- */

/* Numbers in the order of what they stand for; both zeros are one. */
static __device__ __forceinline__ unsigned rank_of(float x)
{
    unsigned bits = __float_as_uint(x == 0 ? 0.0f : x);

    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* The rank of the n-th largest of m, 1 <= n <= m, and how many of that rank are among the n. */
struct cut {
    unsigned rank;
    int n_equal, n_all_equal;
};

static __device__ struct cut find_cut(const float *x, int m, int n)
{
    __shared__ int counts[DIGITS];
    __shared__ struct cut shared;
    struct cut cut = {0, n, m};

    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < DIGITS; i += THREADS)
            counts[i] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < m; i += THREADS) {
            unsigned rank = rank_of(x[i]);

            if (shift == 24 || rank >> (shift + 8) == cut.rank >> (shift + 8))
                atomicAdd(&counts[rank >> shift & 255], 1);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int digit = DIGITS - 1;

            while (counts[digit] < cut.n_equal)
                cut.n_equal -= counts[digit--];
            shared = (struct cut){cut.rank | (unsigned)digit << shift, cut.n_equal, counts[digit]};
        }
        __syncthreads();
        cut = shared;
        __syncthreads();
    }
    return cut;
}

static __device__ void set_run(const struct bit_runs &to, int64_t item)
{
    int64_t begin = item * to.apart + to.first, end = min(begin + to.run, to.n_bits);

    for (int64_t b = begin; b < end;) {
        int64_t next = min((b / 32 + 1) * 32, end);
        unsigned ones = next - b == 32 ? 0xFFFFFFFFu : (1u << (next - b)) - 1;

        atomicOr(&to.bits[b / 32], ones << b % 32);
        b = next;
    }
}

/* Of items of the cut's rank, the first, or the last, that are wanted; by one warp. */
static __device__ void mark_equal(const struct bit_runs &to, const float *x, int m,
                                  const struct cut &cut, bool latest)
{
    int lane = threadIdx.x, left = cut.n_equal, n_words = (m + WARP - 1) / WARP;

    for (int word = 0; word < n_words && left > 0; word++) {
        int i = (latest ? n_words - 1 - word : word) * WARP + lane;
        bool equal = i < m && rank_of(x[i]) == cut.rank;
        unsigned all = __ballot_sync(0xFFFFFFFF, equal);
        unsigned before = latest ? all & ~(0xFFFFFFFFu >> (31 - lane)) : all & ((1u << lane) - 1);

        if (equal && __popc(before) < left)
            set_run(to, i);
        left -= __popc(all);
    }
}

/* The n best of m; of those equal to the last of them the latest, or the earliest. */
static __device__ void mark_best(const struct bit_runs &to, const float *x, int m, int n,
                                 bool latest)
{
    struct cut cut = {0, 0, 0};

    __syncthreads();
    if (n < m)
        cut = find_cut(x, m, n);
    for (int i = threadIdx.x; i < m; i += THREADS)
        if (n >= m || rank_of(x[i]) > cut.rank ||
            (rank_of(x[i]) == cut.rank && cut.n_equal == cut.n_all_equal))
            set_run(to, i);
    if (n < m && cut.n_equal < cut.n_all_equal && threadIdx.x < WARP)
        mark_equal(to, x, m, cut, latest);
    __syncthreads();
}

/* --- Scores --- */

static __device__ bool is_seen(const struct cuda_sight &sight, int key)
{
    return key >= sight.first && (key < sight.hole || key >= sight.hole_end);
}

/* q_h k, with the queries of the row in shared memory. */
static __device__ float dot(const struct select_args &a, const struct kv_sequence &s,
                            const float *q, int head, int key)
{
    const struct cuda_pool &pool = pool_at(a.kv, key);
    const char *block = block_at(a.kv, s, key);
    float sum = 0;

    for (int i = 0; i < a.kv.k_dim; i++)
        sum += q[head * a.kv.k_dim + i] *
               kv_number(pool, pool.keys, block, key % a.kv.block_tokens, i);
    return sum;
}

/* sum_h w_h max(q_h k, 0) */
static __device__ float summed(const struct select_args &a, const struct kv_sequence &s,
                               const float *q, const float *w, int key)
{
    float sum = 0;

    for (int h = 0; h < a.n_heads; h++)
        sum += w[h] * fmaxf(dot(a, s, q, h, key), 0.0f);
    return isnan(sum) ? -INFINITY : sum;
}

/* What a block has of its row. */
struct select_row {
    const struct kv_sequence *s;
    int row, n_keys; /* of the batch; that lie before it, its own included */
    struct cuda_sight sight;
    const float *q; /* [n_heads, k_dim] in shared memory */
    uint32_t *bits;
    float *room;
};

static __device__ void fill_words(uint32_t *bits, int n, uint32_t word)
{
    for (int i = threadIdx.x; i < n; i += THREADS)
        bits[i] = word;
    __syncthreads();
}

static __device__ void select_keys_row(const struct select_args &a, const struct select_row &r)
{
    int n_seen = r.n_keys - r.sight.first - (r.sight.hole_end - r.sight.hole);

    fill_words(r.bits, a.kept_words, n_seen <= a.n ? 0xFFFFFFFFu : 0);
    if (n_seen <= a.n)
        return;
    for (int key = threadIdx.x; key < r.n_keys; key += THREADS)
        r.room[key] =
            is_seen(r.sight, key) ? summed(a, *r.s, r.q, row_at(a.w, r.row), key) : -INFINITY;
    mark_best((struct bit_runs){r.bits, 1, 0, 1, r.n_keys}, r.room, r.n_keys, a.n, true);
}

/* The best score of a head with the keys of a block. */
static __device__ float block_score(const struct select_args &a, const struct select_row &r,
                                    int head, int block)
{
    int end = min((block + 1) * a.block_size, r.n_keys);
    float best = -INFINITY;

    for (int key = block * a.block_size; key < end; key++)
        if (is_seen(r.sight, key))
            best = fmaxf(best, dot(a, *r.s, r.q, head, key));
    return best;
}

static __device__ void select_blocks_row(const struct select_args &a, const struct select_row &r)
{
    int n_blocks = (r.n_keys - 1) / a.block_size + 1, words = a.kept_words / a.n_heads;

    fill_words(r.bits, a.kept_words, n_blocks <= a.n ? 0xFFFFFFFFu : 0);
    for (int h = 0; h < a.n_heads && n_blocks > a.n; h++) {
        struct bit_runs to = {r.bits + (int64_t)h * words, a.block_size, 0, a.block_size, r.n_keys};

        for (int b = threadIdx.x; b < n_blocks; b += THREADS)
            r.room[b] = n_blocks - b <= a.n_local ? INFINITY : block_score(a, r, h, b);
        mark_best(to, r.room, n_blocks, a.n, true);
    }
}

/* Blocks of pooled keys by the best in each, the last one first of all. */
static __device__ void mark_candidates(const struct select_args &a, const struct select_row &r,
                                       uint32_t *candidates, int n_keys)
{
    int n = (n_keys - 1) / a.block_size + 1;
    float *blocks = r.room + n_keys;
    struct bit_runs to = {candidates, a.block_size, 0, a.block_size, n_keys};

    for (int b = threadIdx.x; b < n; b += THREADS) {
        float best = b == n - 1 ? INFINITY : -INFINITY;

        for (int k = b * a.block_size; k < min((b + 1) * a.block_size, n_keys); k++)
            best = fmaxf(best, r.room[k]);
        blocks[b] = best;
    }
    mark_best(to, blocks, n, a.n_blocks, false);
}

static __device__ void select_pooled_row(const struct select_args &a, const struct select_row &r)
{
    int n_keys = r.n_keys / a.ratio;
    uint32_t *candidates = a.candidates ? a.candidates + r.row * a.candidates_stride : NULL;
    struct bit_runs to = {r.bits, a.ratio, a.ratio - 1, 1, r.n_keys};

    fill_words(r.bits, a.kept_words, 0);
    if (a.n_blocks > 0)
        fill_words(candidates, a.candidates_words, 0);
    if (n_keys == 0)
        return;
    for (int k = threadIdx.x; k < n_keys; k += THREADS) {
        int key = k * a.ratio + a.ratio - 1;
        bool out = a.n_blocks == 0 && candidates && !(candidates[k / 32] >> k % 32 & 1);

        r.room[k] = is_seen(r.sight, key) && !out ? summed(a, *r.s, r.q, row_at(a.w, r.row), key)
                                                  : -INFINITY;
    }
    __syncthreads();
    if (a.n_blocks > 0)
        mark_candidates(a, r, candidates, n_keys);
    mark_best(to, r.room, n_keys, a.n, false);
}

/* Rows of the batch in turn, by one of the three. */
template <void (*F)(const struct select_args &, const struct select_row &)>
static __global__ void __launch_bounds__(THREADS) select_kernel(struct select_args a)
{
    extern __shared__ float q[];

    cuda_begin();
    for (int row = blockIdx.x; row < a.q.n; row += gridDim.x) {
        const struct kv_sequence *s = &a.batch.sequences[a.batch.of_row[row]];
        int position = s->position + row - s->row;
        struct select_row r = {s,
                               row,
                               position + 1,
                               sight_of(a.kv, position, 0),
                               q,
                               a.kept + row * a.kept_stride,
                               a.room + blockIdx.x * a.room_size};

        for (int i = threadIdx.x; i < a.n_heads * a.kv.k_dim; i += THREADS)
            q[i] = row_at(a.q, row)[i];
        __syncthreads();
        F(a, r);
        __syncthreads();
    }
}

static struct select_args args_of(struct cuda_device *c, const tensor *kept, const tensor *q,
                                  const tensor *w, const struct kv_layer *kv,
                                  const struct kv_batch *batch)
{
    struct select_args a = {};

    a.q = rows_of(q);
    if (w)
        a.w = rows_of(w);
    a.kv = cuda_kv_of(kv);
    a.batch = cuda_batch_of(c, batch);
    a.kept = (uint32_t *)kept->data;
    a.kept_stride = kept->stride;
    a.kept_words = kept->cols;
    a.n_heads = q->cols / kv->k_dim;
    return a;
}

/* room: numbers that a row needs. */
static void run(struct cuda_device *c, void (*kernel)(struct select_args), struct select_args *a,
                int64_t room)
{
    int most = BLOCKS_PER_PROCESSOR * c->n_processors, n = a->q.n < most ? a->q.n : most;
    size_t shared = (size_t)a->n_heads * (size_t)a->kv.k_dim * sizeof(float);

    if (shared + 2048 > c->shared_memory) {
        cuda_fail(c, CLM_ERR_UNSUPPORTED,
                  "cuda: keys chosen by %d heads of %d numbers, %zu bytes; "
                  "%zu are the most",
                  a->n_heads, a->kv.k_dim, shared, c->shared_memory - 2048);
        return;
    }
    a->room_size = room;
    a->room = (float *)cuda_scratch(c, (size_t)n * (size_t)room * sizeof(float));
    cuda_launch(c, kernel, shape_of(dim3((unsigned)n), dim3(THREADS), shared), *a);
}

void cuda_select_keys(device *d, tensor *kept, const tensor *q, const tensor *w,
                      const struct kv_layer *kv, const struct kv_batch *batch, int n)
{
    struct cuda_device *c = cuda_device_of(d);
    struct select_args a = args_of(c, kept, q, w, kv, batch);

    a.n = n;
    run(c, select_kernel<select_keys_row>, &a, (int64_t)kept->cols * 32);
}

void cuda_select_blocks(device *d, tensor *kept, const tensor *q, const struct kv_layer *kv,
                        const struct kv_batch *batch, int n, int block_size, int n_local)
{
    struct cuda_device *c = cuda_device_of(d);
    struct select_args a = args_of(c, kept, q, NULL, kv, batch);

    a.n = n;
    a.block_size = block_size;
    a.n_local = n_local;
    run(c, select_kernel<select_blocks_row>, &a, (int64_t)kept->cols * 32);
}

/* Room for the keys, and for the blocks of them. */
void cuda_select_pooled(device *d, tensor *kept, const tensor *q, const tensor *w,
                        const struct kv_layer *kv, const struct kv_batch *batch,
                        const struct pooled_choice *p)
{
    struct cuda_device *c = cuda_device_of(d);
    struct select_args a = args_of(c, kept, q, w, kv, batch);

    a.n = p->n;
    a.ratio = p->ratio;
    a.n_blocks = p->n_blocks;
    a.block_size = p->block_size;
    if (p->candidates) {
        a.candidates = (uint32_t *)p->candidates->data;
        a.candidates_stride = p->candidates->stride;
        a.candidates_words = p->candidates->cols;
    }
    run(c, select_kernel<select_pooled_row>, &a, 2 * ((int64_t)kept->cols * 32 + 1));
}
