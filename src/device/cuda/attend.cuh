/* device/cuda/attend.cuh: what the kernels that attend to the paged cache share: their arguments,
 * where the keys of a sequence lie, and which of them a row sees. device.h says what all of it
 * means. */
#ifndef DEVICE_CUDA_ATTEND_CUH
#define DEVICE_CUDA_ATTEND_CUH

#include <stdint.h>

#include "device/cuda/halves.h"
#include "device/cuda/kv.cuh"
#include "device/cuda/rows.cuh"

#define LOG2_E 1.44269504088896340736f

struct attend_args {
    struct cuda_kv kv;
    struct cuda_batch batch;
    int n_sequences;
    struct rows q, y;
    bool wide;          /* rows of y begin at 16 bytes */
    int n_heads, group; /* query heads, and those of one kv head */
    int tiled;
    float scale, softcap;
    int window, chunk;
    const float *slopes, *sinks;
    int block_size, local_blocks, block_stride, block_step;
    const uint32_t *kept;
    int64_t kept_stride;
    int kept_words, heads_per_set; /* of one set */
    float *log_sums;
    int64_t log_stride;
    struct cuda_halves halves; /* of y, if it is to have a copy */
    /* Where keys are split among blocks: what each has found, and who comes last. */
    float *partials;
    unsigned *tickets; /* all 0 before and after */
    int max_splits;
    int cluster;      /* blocks, of the same queries, that share their memory; or 1 */
    int block_shift;  /* the logarithm of block_tokens */
    bool one_each;    /* decode: every sequence is one block's work */
    int most_queries; /* decode: of sequences with more of them (rows times group) others take care;
                         prompts: those of no more are left out */
};

/* What has been let go of ahead of all that is held, in tokens. */
static __device__ __forceinline__ int attend_held(const attend_args &a, int n_kept, int n_gone)
{
    return n_kept == 0 ? n_gone * a.kv.block_tokens : 0;
}

/* What a row at p sees of a sequence. */
static __device__ __forceinline__ struct cuda_sight attend_sight(const attend_args &a, int held,
                                                                 int p)
{
    int first = max(held, a.window > 0 ? p - a.window + 1 : 0);

    if (a.chunk > 0)
        first = max(first, p / a.chunk * a.chunk);
    return sight_of(a.kv, p, first);
}

/* Does the head of a row at p see the key, by the blocks that both are in? */
static __device__ __forceinline__ bool attend_sees_block(const attend_args &a, int p, int head,
                                                         int key)
{
    int b = key / a.block_size;

    return p / a.block_size - b < a.local_blocks ||
           (b + (int64_t)head * a.block_step + 1) % a.block_stride == 0;
}

/* The words of bits, a key each, of those that the head of a row may see. */
static __device__ __forceinline__ const uint32_t *attend_kept(const attend_args &a, int64_t row,
                                                              int head)
{
    return a.kept + row * a.kept_stride + (int64_t)(head / a.heads_per_set) * a.kept_words;
}

/* Does the head see the key? row counts in the batch. */
static __device__ __forceinline__ bool attend_sees(const attend_args &a,
                                                   const struct cuda_sight &sight, int64_t row,
                                                   int p, int head, int key)
{
    if (key < sight.first || key > p || (key >= sight.hole && key < sight.hole_end))
        return false;
    if (a.kept && !(__ldg(attend_kept(a, row, head) + key / 32) >> key % 32 & 1))
        return false;
    return !a.block_size || attend_sees_block(a, p, head, key);
}

/* Head number i of those that share a kv head. */
static __device__ __forceinline__ int attend_head(const attend_args &a, int kv_head, int i)
{
    return a.tiled ? i * a.kv.n_kv_heads + kv_head : kv_head * a.group + i;
}

/* A result from what was found: the sum of 2^(s - max) v and of 2^(s - max), with the sink, which
 * adds to the latter alone. Gives the factor for the former, and the logarithm of the sum. */
static __device__ __forceinline__ float attend_finish(const attend_args &a, int head, float max,
                                                      float sum, float *log_sum)
{
    float factor = 1;

    if (a.sinks) {
        float sink = a.sinks[head] * LOG2_E, most = fmaxf(max, sink);

        factor = exp2f(max - most);
        sum = sum * factor + exp2f(sink - most);
        max = most;
    }
    *log_sum = sum == 0 ? -INFINITY : (max + log2f(sum)) / LOG2_E;
    return a.log_sums && sum == 0 ? 0 : factor / sum;
}

/* Queries, rows times heads that share a kv head, are taken so many at a time: the items of a
 * sequence. Prompts are sequences of more than most_queries, all others are for decode. */
static __host__ __device__ __forceinline__ int attend_items(const attend_args &a, int n_rows,
                                                            int take, bool prompts)
{
    int64_t n = (int64_t)n_rows * a.group;

    return (n > a.most_queries) == prompts ? (int)((n + take - 1) / take) : 0;
}

/* Of all sequences' items, counted through, the one with this number: its sequence, and the first
 * of its queries. By all threads of a block. */
static __device__ __forceinline__ void attend_find_item(const attend_args &a, int item, int take,
                                                        bool prompts, int *sequence,
                                                        int *first_query)
{
    __shared__ int found[2];
    int lane = threadIdx.x, left = item;

    *sequence = item;
    *first_query = 0;
    if (a.one_each)
        return;
    if (threadIdx.x < 32)
        for (int base = 0; base < a.n_sequences && left >= 0; base += 32) {
            int i = base + lane, n = 0, until;

            if (i < a.n_sequences)
                n = attend_items(a, a.batch.sequences[i].n_rows, take, prompts);
            until = n;
            for (int ahead = 1; ahead < 32; ahead *= 2) {
                int before = __shfl_up_sync(0xffffffffu, until, ahead);

                until += lane >= ahead ? before : 0;
            }
            if (left >= until - n && left < until) {
                found[0] = i;
                found[1] = (left - (until - n)) * take;
            }
            left -= __shfl_sync(0xffffffffu, until, 31);
        }
    __syncthreads();
    *sequence = found[0];
    *first_query = found[1];
}

/* The kernels, by file. */
void attend_general(struct cuda_device *c, const struct attend_args *a);

/* Is the cache laid out so that the others can read it, with heads of so many numbers at most? */
bool attend_halves_fit(const struct attend_args *a, int most);

void attend_decode(struct cuda_device *c, const struct attend_args *a,
                   const struct kv_batch *batch);

/* False: not on this GPU, or not so. */
bool attend_few(struct cuda_device *c, const struct attend_args *a, const struct kv_batch *batch,
                const tensor *q, const tensor *y);
bool attend_prompt(struct cuda_device *c, const struct attend_args *a,
                   const struct kv_batch *batch);
bool attend_latent_sm90(struct cuda_device *c, const struct attend_args *a,
                        const struct kv_batch *batch);
bool attend_prompt_sm90(struct cuda_device *c, const struct attend_args *a,
                        const struct kv_batch *batch);

#endif
