/* Any bytes as a file of log-probabilities: refused, or all rows are there and can be compared. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/number.h"
#include "generate/divergence.h"
#include "generate/logprob_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

/* Each row with itself: no divergence but what the rounding of one of both makes. */
static void compare(const struct logprob_file *f)
{
    size_t n = f->n_rows < 16 ? f->n_rows : 16;
    float *x = mem_zeroed((size_t)f->vocab_size, sizeof *x);
    struct divergences *d = divergences_open((long long)n + 1, f->vocab_size, NULL);
    struct divergence result;

    require(x && d);
    for (size_t row = 0; row < n; row++) {
        int32_t best = 0;

        logprob_file_row(f, row, x);
        for (int i = 0; i < f->vocab_size; i++) {
            require(x[i] <= 0 && x[i] >= LOGPROB_LEAST);
            best = x[i] > x[best] ? i : best;
        }
        divergences_add(d, x, x, best, 0, best);
    }
    divergences_result(d, &result);
    require(n == 0 || result.same_top == 1);
    divergences_close(d);
    mem_free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int32_t text[] = {1, 2, 3};
    struct logprob_file f;
    clm_error err = {0};
    uint64_t sum = 0;

    if (logprob_file_parse(&f, data, size, "input", &err)) {
        require(err.code && err.message[0] && !strchr(err.message, '\n'));
        return 0;
    }
    for (size_t i = 0; i < f.n_text; i++)
        sum += load_le32(f.text + 4 * i);
    require(sum <= (uint64_t)UINT32_MAX * f.n_text);
    if (logprob_file_check(&f, text, COUNT(text), 4, "window 2", 2, &err))
        require(err.code == CLM_ERR_FORMAT && !strchr(err.message, '\n'));
    if (f.vocab_size <= 1 << 16)
        compare(&f);
    logprob_file_close(&f);
    return 0;
}
