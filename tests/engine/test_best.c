/* The most likely tokens without their logits: of some inputs of a step, they must be those of the
 * logits, and the logits of the others what they are without. */
#include "rig.h"

enum { N_INPUTS = 5, N_TOKENS = 6 };

static const char *const fixtures[] = {"llama", "gemma2", "falcon_h1", "mamba2"};

static int32_t largest(const float *x, int n)
{
    int32_t best = 0;

    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* Inputs of 2 to N_TOKENS tokens, with the logits of none to 4 rows each; wants: bit i is whether
 * input i wants most likely tokens alone. */
static void check_step(struct rig *r, unsigned wants, const float *all)
{
    int32_t tokens[N_INPUTS][N_TOKENS];
    struct engine_input inputs[N_INPUTS];
    size_t row = 0, size = (size_t)r->vocab_size;
    const float *logits;
    clm_error err = {0};

    for (int i = 0; i < N_INPUTS; i++) {
        for (int j = 0; j < N_TOKENS; j++)
            tokens[i][j] = (7 * i + 3 * j + 1) % r->vocab_size;
        inputs[i] = (struct engine_input){.seq = rig_sequence(r),
                                          .tokens = tokens[i],
                                          .n_tokens = 2 + i,
                                          .n_logits = i < 2 ? 1 : i - 1,
                                          .best = wants >> i & 1};
    }
    inputs[2].n_logits = 0;
    CHECK(engine_step(r->engine, inputs, N_INPUTS, &logits, &err) == 0, "%s", err.message);
    for (int i = 0; i < N_INPUTS; i++) {
        for (int j = 0; j < inputs[i].n_logits; j++, row++, all += size) {
            int32_t best = inputs[i].best ? engine_best(r->engine)[row] : 0;

            if (inputs[i].best)
                CHECK(best == largest(all, r->vocab_size), "input %d: token %d, not %d", i, best,
                      largest(all, r->vocab_size));
            else
                CHECK(!memcmp(logits + row * size, all, size * sizeof *all),
                      "input %d: other logits", i);
        }
        kv_seq_close(inputs[i].seq);
    }
}

/* What check_step is to find, input after input. */
static float *run_alone(struct rig *r)
{
    size_t size = (size_t)r->vocab_size;
    float *all = malloc(N_INPUTS * N_TOKENS * size * sizeof *all), *to = all;
    float *rows = malloc(N_TOKENS * size * sizeof *rows);

    CHECK(all && rows, "no memory");
    for (int i = 0; i < N_INPUTS; i++) {
        int32_t tokens[N_TOKENS];
        int n = i < 2 ? 1 : i == 2 ? 0 : i - 1;
        kv_seq *seq = rig_sequence(r);

        for (int j = 0; j < N_TOKENS; j++)
            tokens[j] = (7 * i + 3 * j + 1) % r->vocab_size;
        rig_feed(r, seq, tokens, 2 + i, rows);
        memcpy(to, rows + (size_t)(2 + i - n) * size, (size_t)n * size * sizeof *rows);
        to += (size_t)n * size;
        kv_seq_close(seq);
    }
    free(rows);
    return all;
}

static void test_best(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t f = 0; f < COUNT(fixtures); f++) {
        struct rig r;
        clm_error err = {0};
        char folder[128];
        float *all;

        snprintf(folder, sizeof folder, "goldens/models/%s", fixtures[f]);
        CHECK(rig_open(&r, shared_path(folder), 2, true, &err) == 0, "%s", err.message);
        all = run_alone(&r);
        for (unsigned wants = 0; wants < 1U << N_INPUTS; wants++)
            check_step(&r, wants, all);
        free(all);
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
