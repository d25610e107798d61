/* device/cuda/attend.cu: attention over the paged cache, a block of threads for each row and head:
 * the plain way, which does all that a call can ask for.
 *
 * A block visits the keys that the row sees in chunks of as many as it has threads. Each thread
 * scores one key; then the softmax is carried on, in f32; then each thread adds up its numbers of
 * the values. arXiv:1805.02867 */
#include "device/cuda/kv.cuh"
#include "device/cuda/rows.cuh"

enum { THREADS = 128, DIMS = 8 /* numbers of the result for a thread, at most */ };

/* struct attend_params as kernels take it. */
struct attend_args {
    int n_heads, tiled;
    float scale, softcap;
    int window, chunk;
    const float *slopes, *sinks;
    int block_size, local_blocks, block_stride, block_step;
    const uint32_t *kept; /* or NULL */
    int64_t kept_stride;
    int kept_words, heads_per_set; /* words of a set */
    float *log_sums;
    int64_t log_stride;
};

static __device__ bool seen(const struct attend_args &p, const struct cuda_sight &sight, int t,
                            int head, int position, int key)
{
    if (key >= sight.hole && key < sight.hole_end)
        return false;
    if (p.kept) {
        const uint32_t *bits =
            p.kept + t * p.kept_stride + (int64_t)(head / p.heads_per_set) * p.kept_words;

        if (!(bits[key / 32] >> key % 32 & 1))
            return false;
    }
    if (!p.block_size)
        return true;

    int row_block = position / p.block_size, block = key / p.block_size;
    return row_block - block < p.local_blocks ||
           (block + (int64_t)head * p.block_step + 1) % p.block_stride == 0;
}

static __device__ float score(const struct attend_args &p, const struct cuda_kv &kv,
                              const struct kv_sequence &s, const float *q, int kv_head, int head,
                              int position, int key)
{
    const struct cuda_pool &pool = pool_at(kv, key);
    const char *block = block_at(kv, s, key);
    int row = kv_head * kv.block_tokens + key % kv.block_tokens;
    float sum = 0;

    for (int i = 0; i < kv.k_dim; i++)
        sum += q[i] * kv_number(pool, pool.keys, block, row, i);
    sum *= p.scale;
    if (p.softcap > 0)
        sum = p.softcap * tanhf(sum / p.softcap);
    if (p.slopes)
        sum -= p.slopes[head] * (float)(position - key);
    return sum;
}

static __device__ int first_seen(const struct attend_args &p, const struct cuda_kv &kv,
                                 const struct kv_sequence &s, int position)
{
    int first = p.window > 0 ? max(position - p.window + 1, 0) : 0;

    if (p.chunk > 0)
        first = max(first, position / p.chunk * p.chunk);
    if (s.n_kept == 0)
        first = max(first, s.n_gone * kv.block_tokens);
    return first;
}

/* q of the row and head, in shared memory, comes before the chunk's weights. */
static __device__ void attend_row(const struct rows &y, const struct rows &x,
                                  const struct cuda_kv &kv, const struct kv_sequence &s,
                                  const struct attend_args &p, int t, int head, float *q)
{
    __shared__ float room[WARP];
    float *weights = q + kv.k_dim, acc[DIMS] = {};
    int group = p.n_heads / kv.n_kv_heads, position = s.position + t - s.row;
    int kv_head = p.tiled ? head % kv.n_kv_heads : head / group;
    struct cuda_sight sight = sight_of(kv, position, first_seen(p, kv, s, position));
    float most = p.sinks ? p.sinks[head] : -INFINITY, sum = p.sinks ? 1 : 0;

    for (int i = threadIdx.x; i < kv.k_dim; i += THREADS)
        q[i] = row_at(x, t)[(int64_t)head * kv.k_dim + i];
    __syncthreads();
    for (int base = sight.first; base <= position; base += THREADS) {
        int key = base + threadIdx.x, n = min(THREADS, position + 1 - base);
        float w = -INFINITY;

        if (key <= position && seen(p, sight, t, head, position, key))
            w = score(p, kv, s, q, kv_head, head, position, key);

        float higher = fmaxf(most, over_block(w, room, most_of()));
        if (higher == -INFINITY)
            continue;
        weights[threadIdx.x] = w = expf(w - higher);
        float factor = expf(most - higher);
        sum = sum * factor + over_block(w, room, sum_of());
        most = higher;
        for (int j = 0; j < DIMS; j++) {
            int i = j * THREADS + threadIdx.x;

            acc[j] *= factor;
            for (int k = 0; i < kv.v_dim && k < n; k++) {
                const struct cuda_pool &pool = pool_at(kv, base + k);
                int row = kv_head * kv.block_tokens + (base + k) % kv.block_tokens;

                if (weights[k] != 0)
                    acc[j] += weights[k] *
                              kv_number(pool, pool.values, block_at(kv, s, base + k), row, i);
            }
        }
        __syncthreads();
    }
    for (int j = 0; j < DIMS; j++)
        if (j * THREADS + (int)threadIdx.x < kv.v_dim)
            row_at(y, t)[(int64_t)head * kv.v_dim + j * THREADS + threadIdx.x] =
                p.log_sums && sum == 0 ? 0 : acc[j] / sum;
    if (p.log_sums && threadIdx.x == 0)
        p.log_sums[t * p.log_stride + head] = sum == 0 ? -INFINITY : most + logf(sum);
    __syncthreads();
}

static __global__ void __launch_bounds__(THREADS)
    attend_kernel(struct rows y, struct rows q, struct cuda_kv kv, struct cuda_batch batch,
                  struct attend_args p)
{
    extern __shared__ float shared[];

    cuda_begin();
    for (int t = blockIdx.y; t < y.n; t += gridDim.y)
        attend_row(y, q, kv, batch.sequences[batch.of_row[t]], p, t, blockIdx.x, shared);
}

static struct attend_args args_of(const struct attend_params *p)
{
    struct attend_args a = {};

    a.n_heads = p->n_heads;
    a.tiled = p->tiled;
    a.scale = p->scale;
    a.softcap = p->softcap;
    a.window = p->window;
    a.chunk = p->chunk;
    a.slopes = p->slopes;
    a.sinks = p->sinks;
    a.block_size = p->block_size;
    a.local_blocks = p->local_blocks;
    a.block_stride = p->block_stride;
    a.block_step = p->block_step;
    if (p->kept) {
        int n_sets = p->kept_sets > 1 ? p->kept_sets : 1;

        a.kept = (const uint32_t *)p->kept->data;
        a.kept_stride = p->kept->stride;
        a.kept_words = p->kept->cols / n_sets;
        a.heads_per_set = p->n_heads / n_sets;
    }
    if (p->log_sums) {
        a.log_sums = (float *)p->log_sums->data;
        a.log_stride = p->log_sums->stride;
    }
    return a;
}

void cuda_attend(device *d, tensor *y, const tensor *q, const struct kv_layer *kv,
                 const struct kv_batch *batch, const struct attend_params *p)
{
    struct cuda_device *c = cuda_device_of(d);
    dim3 grid((unsigned)p->n_heads, grid_rows(batch->n_rows));

    if (kv->v_dim > DIMS * THREADS) {
        cuda_fail(c, CLM_ERR_UNSUPPORTED, "cuda: values of %d numbers; %d are the most", kv->v_dim,
                  DIMS * THREADS);
        return;
    }
    cuda_launch(c, attend_kernel,
                shape_of(grid, dim3(THREADS), (size_t)(kv->k_dim + THREADS) * sizeof(float)),
                rows_of(y), rows_of(q), cuda_kv_of(kv), cuda_batch_of(c, batch), args_of(p));
}
