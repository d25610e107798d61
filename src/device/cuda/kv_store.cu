/* device/cuda/kv_store.cu: keys and values into the blocks of the paged cache. */
#include "device/cuda/kv.cuh"
#include "device/cuda/rows.cuh"

/* One group of a row as device/affine.h has it; its codes are written by whole bytes, which a group
 * does not share, since groups are of an even size. */
static __device__ void quantise_group(uint8_t *codes, float *scale, float *bias, const float *x,
                                      int begin, int end, int bits)
{
    float most = bits == 4 ? 15 : 255, lo = x[begin], hi = x[begin], edge, step, whole;

    for (int i = begin + 1; i < end; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    step = fmaxf((hi - lo) / most, 1e-7f);
    edge = fabsf(lo) > fabsf(hi) ? lo : hi;
    step = fabsf(lo) > fabsf(hi) ? step : -step;
    whole = rintf(edge / step);
    *scale = whole == 0 ? step : edge / whole;
    *bias = whole == 0 ? 0 : edge;
    for (int i = begin, byte = 0; i < end; i++) {
        int code = (int)fminf(fmaxf(rintf((x[i] - *bias) / *scale), 0), most);

        if (bits == 8) {
            codes[i] = (uint8_t)code;
            continue;
        }
        byte |= code << i % 2 * 4;
        if (i % 2 || i == end - 1) {
            codes[i / 2] = (uint8_t)byte;
            byte = 0;
        }
    }
}

/* A head's row of a token, by the threads of a block. */
static __device__ void store_head(const struct cuda_pool &pool, const struct kv_part &part,
                                  char *block, int row, const float *x)
{
    char *to = block + part.rows + (size_t)row * part.row_bytes;
    char *scales = block + part.scales + (size_t)row * part.group_bytes;
    char *biases = block + part.biases + (size_t)row * part.group_bytes;

    for (int i = threadIdx.x; !pool.bits && i < part.dim; i += blockDim.x)
        store_number(to, pool.type, i, x[i]);
    for (int g = threadIdx.x; pool.bits && g < part.n_groups; g += blockDim.x) {
        int begin = g * pool.group_size, end = min(part.dim, begin + pool.group_size);
        float scale, bias;

        quantise_group((uint8_t *)to, &scale, &bias, x, begin, end, pool.bits);
        store_number(scales, pool.type, g, scale);
        store_number(biases, pool.type, g, bias);
    }
    /* Rows are filled up to 4 bytes. */
    int used = (part.dim * pool.bits + 7) / 8;
    for (int b = used + threadIdx.x; pool.bits && b < (int)part.row_bytes; b += blockDim.x)
        to[b] = 0;
}

static __global__ void store_kernel(struct cuda_kv kv, struct cuda_batch batch, struct rows k,
                                    struct rows v)
{
    int head = blockIdx.x;

    cuda_begin();
    for (int t = blockIdx.y; t < k.n; t += gridDim.y) {
        const struct kv_sequence s = batch.sequences[batch.of_row[t]];
        int position = s.position + t - s.row;
        const struct cuda_pool &pool = pool_at(kv, position);
        char *block = block_at(kv, s, position);
        int row = head * kv.block_tokens + position % kv.block_tokens;

        store_head(pool, pool.keys, block, row, row_at(k, t) + (int64_t)head * kv.k_dim);
        store_head(pool, pool.values, block, row, row_at(v, t) + (int64_t)head * kv.v_dim);
    }
}

void cuda_kv_store(device *d, const struct kv_layer *kv, const struct kv_batch *batch,
                   const tensor *k, const tensor *v)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_batch b = cuda_batch_of(c, batch);
    dim3 grid((unsigned)kv->n_kv_heads, grid_rows(batch->n_rows));

    cuda_launch(c, store_kernel, shape_of(grid, dim3(64), 0), cuda_kv_of(kv), b, rows_of(k),
                rows_of(v));
}
