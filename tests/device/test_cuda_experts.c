/* Products of many rows with the experts that they chose, as they are without --exact, held against
 * the scalar CPU. */
#include "cuda_pair.h"

#include "device/weight.h"

enum { EXPERTS = 5, JOBS = 2 };

static void *bf16s(size_t n, float scale, float offset)
{
    uint16_t *to = mem_alloc(n * sizeof *to);
    float *x = mem_alloc(n * sizeof *x);

    assert_non_null(to);
    assert_non_null(x);
    random_floats(x, n);
    for (size_t i = 0; i < n; i++) {
        float v = offset + scale * x[i];
        uint32_t bits;

        memcpy(&bits, &v, sizeof bits);
        to[i] = (uint16_t)(bits >> 16);
    }
    mem_free(x);
    return to;
}

/* All experts' matrices, of numbers below 1; the first numbers are shared by all for scales. */
static void make_weights(struct pair *p, struct weight w[PAIR_DEVICES][EXPERTS],
                         const struct weight *like)
{
    size_t size = (size_t)like->n_out * weight_row_bytes(like);
    size_t n_scales = (size_t)like->n_out * weight_scale_row_bytes(like) / 2;
    float scale = 1 / (float)(1 << like->bits);
    void *scales = bf16s(n_scales + 1, scale / 2, scale), *biases = bf16s(n_scales + 1, 0.5f, 0);
    struct pair_operand *data, *more[2];
    uint8_t *codes;

    if (like->format == WEIGHT_BF16) {
        codes = bf16s(size * EXPERTS / 2, 1, 0);
    } else {
        codes = mem_alloc(size * EXPERTS);
        assert_non_null(codes);
        for (size_t i = 0; i < size * EXPERTS; i++)
            codes[i] = (uint8_t)random_below(256);
    }
    data = pair_bytes(p, codes, size * EXPERTS, true);
    more[0] = pair_bytes(p, scales, 2 * n_scales + 2, true);
    more[1] = pair_bytes(p, biases, 2 * n_scales + 2, true);
    for (int d = 0; d < PAIR_DEVICES; d++)
        for (int e = 0; e < EXPERTS; e++) {
            w[d][e] = *like;
            w[d][e].data = (char *)data->at[d] + (size_t)e * size;
            w[d][e].scales = like->bits ? more[0]->at[d] : NULL;
            w[d][e].biases = like->bits ? more[1]->at[d] : NULL;
        }
    mem_free(codes);
    mem_free(scales);
    mem_free(biases);
}

/* x is rounded to bf16, by 2^-8 of a number at most, and so are weights that are codes: of n_in
 * products of numbers of some 1/2 the sum is off by 2^-10 times the root of n_in, about; that a
 * row took another's expert would show as some 1/3 of the root. */
static void check(struct pair *p, const struct weight *like, int rows, int per_row, bool each)
{
    struct weight w[JOBS][PAIR_DEVICES][EXPERTS];
    tensor x[PAIR_DEVICES], y[JOBS][PAIR_DEVICES];
    struct pair_operand *ids, *bias;
    char what[64];

    if (!next_case())
        return;
    ids = pair_ids(p, (size_t)(rows * per_row), EXPERTS);
    bias = pair_numbers(p, (size_t)(like->n_out * EXPERTS));
    pair_tensor(p, x, each ? rows * per_row : rows, like->n_in);
    for (int i = 0; i < JOBS; i++) {
        make_weights(p, w[i], like);
        pair_tensor(p, y[i], rows * per_row, like->n_out);
    }
    for (int d = 0; d < PAIR_DEVICES; d++) {
        struct matmul_job jobs[JOBS] = {{.y = &y[0][d], .w = w[0][d], .bias = bias->at[d]},
                                        {.y = &y[1][d], .w = w[1][d]}};
        tensor chosen = {ids->at[d], DTYPE_I32, rows, per_row, per_row};

        p->dev[d]->ops->matmul_experts(p->dev[d], jobs, JOBS, EXPERTS, &x[d], &chosen);
    }
    snprintf(what, sizeof what, "%s, %d bits, [%d, %d], %d rows of %d",
             weight_format_name(like->format), like->bits, like->n_out, like->n_in, rows, per_row);
    pair_check(p, sqrt((double)like->n_in) / 100, what);
    pair_clear(p);
}

static void test_experts(void **state)
{
    static const struct weight formats[] = {
        {.format = WEIGHT_BF16},
        {.format = WEIGHT_AFFINE, .bits = 4, .group_size = 32, .scale_type = DTYPE_BF16},
        {.format = WEIGHT_AFFINE, .bits = 8, .group_size = 64, .scale_type = DTYPE_BF16},
    };
    static const int sizes[][2] = {{40, 64}, {129, 192}, {300, 320}};
    static const int rows[][2] = {{1, 2}, {10, 2}, {70, 3}, {300, 2}};
    struct pair p;

    (void)state;
    pair_open(&p);
    p.dev[PAIR_GPU]->ops->set_exact(p.dev[PAIR_GPU], false);
    for (size_t f = 0; f < COUNT(formats); f++)
        for (size_t s = 0; s < COUNT(sizes); s++)
            for (size_t r = 0; r < COUNT(rows); r++) {
                struct weight like = formats[f];

                like.n_out = sizes[s][0];
                like.n_in = sizes[s][1];
                check(&p, &like, rows[r][0], rows[r][1], r % 2);
            }
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_experts)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
