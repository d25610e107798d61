/* device/cuda/recurrent.cu: mixers whose state is a matrix for each head.
 *
 * A block has LANES columns of the matrix of one head of one sequence, in shared memory, while it
 * goes through the tokens; its PARTS rows of threads share the keys of each column, and put their
 * sums together in an order of their own. */
#include "device/cuda/state.cuh"

enum { LANES = 32, PARTS = 8 };

/* struct recurrence_params as kernels take it. */
struct recurrence_args {
    enum recurrence_rule rule;
    int n_heads, n_key_heads, key_dim, value_dim;
    struct rows q, k, v, decay, beta, a, b; /* without data where there is none */
    const float *head_decay, *skip;
};

/* The sum over the parts of a column, for all of them. */
static __device__ float over_parts(float x, float *room)
{
    float sum = 0;

    room[threadIdx.y * LANES + threadIdx.x] = x;
    __syncthreads();
    for (int p = 0; p < PARTS; p++)
        sum += room[p * LANES + threadIdx.x];
    __syncthreads();
    return sum;
}

/* What one token does to the column at state, and its y, for a row of a head. */
static __device__ float step(const struct recurrence_args &p, float *state, float *room, int row,
                             int head, float v)
{
    int64_t key = (int64_t)(head / (p.n_heads / p.n_key_heads)) * p.key_dim;
    int64_t own = (int64_t)head * p.key_dim;
    bool by_key = p.decay.data && p.decay.cols != p.n_heads;
    const float *q = row_at(p.q, row) + key, *k = row_at(p.k, row) + key;
    const float *decays = by_key ? row_at(p.decay, row) + own : NULL;
    float decay = p.decay.data && !by_key ? row_at(p.decay, row)[head]
                  : p.head_decay          ? p.head_decay[head]
                                          : 1.0f;
    float beta = p.beta.data ? row_at(p.beta, row)[head] : 1.0f, known = 0, sum = 0;
    const float *a = p.a.data ? row_at(p.a, row) + own : NULL;
    const float *b = p.b.data ? row_at(p.b, row) + own : NULL;

    if (p.rule != RECUR_ADD) {
        for (int i = threadIdx.y; i < p.key_dim; i += PARTS) {
            float s = state[i * LANES];

            known += p.rule == RECUR_DELTA ? k[i] * ((decays ? decays[i] : decay) * s) : a[i] * s;
        }
        known = over_parts(known, room);
    }
    float change = p.rule == RECUR_DELTA ? beta * (v - known) : beta * v;
    for (int i = threadIdx.y; i < p.key_dim; i += PARTS) {
        float s = (decays ? decays[i] : decay) * state[i * LANES] + k[i] * change;

        if (p.rule == RECUR_RWKV7)
            s += b[i] * known;
        state[i * LANES] = s;
        sum += q[i] * s;
    }
    return over_parts(sum, room) + (p.skip ? p.skip[head] * v : 0);
}

static __global__ void __launch_bounds__(LANES *PARTS)
    recurrence_kernel(struct rows y, struct recurrence_args p, struct cuda_states states)
{
    extern __shared__ float shared[];
    int head = blockIdx.y, lane = blockIdx.x * LANES + threadIdx.x;
    bool inside = lane < p.value_dim;
    float *room = shared, *state = shared + LANES * PARTS + threadIdx.x;
    int64_t at = (int64_t)head * p.key_dim * p.value_dim + lane;
    int64_t place = (int64_t)head * p.value_dim + lane;

    cuda_begin();
    const struct state_sequence s = states.sequences[blockIdx.z];
    const float *from = state_from(s, states.offset);

    if (s.n_rows < 1)
        return;
    for (int i = threadIdx.y; i < p.key_dim; i += PARTS)
        state[i * LANES] = from && inside ? from[at + (int64_t)i * p.value_dim] : 0;
    for (int row = s.row; row < s.row + s.n_rows; row++) {
        float v = inside ? row_at(p.v, row)[place] : 0;
        float out = step(p, state, room, row, head, v);

        if (inside && threadIdx.y == 0)
            row_at(y, row)[place] = out;
    }
    float *to = state_to(s, states.offset);
    for (int i = threadIdx.y; i < p.key_dim && inside; i += PARTS)
        to[at + (int64_t)i * p.value_dim] = state[i * LANES];
}

static struct rows rows_or_none(const tensor *x)
{
    return x ? rows_of(x) : (struct rows){};
}

void cuda_recurrence(device *d, tensor *y, const struct recurrence_params *p,
                     const struct state_batch *batch, size_t offset)
{
    struct cuda_device *c = cuda_device_of(d);
    struct recurrence_args args = {};
    size_t shared = (size_t)LANES * (size_t)(PARTS + p->key_dim) * sizeof(float);
    dim3 grid(blocks_for(p->value_dim, LANES), (unsigned)p->n_heads, (unsigned)batch->n_sequences);

    if (shared > c->shared_memory || batch->n_sequences > MAX_GRID_Y) {
        cuda_fail(c, CLM_ERR_UNSUPPORTED,
                  "cuda: recurrent heads of %d keys, %d sequences; %zu and %d are the most",
                  p->key_dim, batch->n_sequences,
                  c->shared_memory / (LANES * sizeof(float)) - PARTS, (int)MAX_GRID_Y);
        return;
    }
    args.rule = p->rule;
    args.n_heads = p->n_heads;
    args.n_key_heads = p->n_key_heads;
    args.key_dim = p->key_dim;
    args.value_dim = p->value_dim;
    args.q = rows_of(p->q);
    args.k = rows_of(p->k);
    args.v = rows_of(p->v);
    args.decay = rows_or_none(p->decay);
    args.beta = rows_or_none(p->beta);
    args.a = rows_or_none(p->a);
    args.b = rows_or_none(p->b);
    args.head_decay = p->head_decay;
    args.skip = p->skip;
    cuda_launch(c, recurrence_kernel, shape_of(grid, dim3(LANES, PARTS), shared), rows_of(y), args,
                cuda_states_of(c, batch, offset));
}
