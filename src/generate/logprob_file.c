#include "generate/logprob_file.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "base/number.h"

static const struct checkpoint_tensor *find(const struct safetensors *s, const char *name,
                                            enum dtype type, int n_dims)
{
    for (size_t i = 0; i < s->n_tensors; i++)
        if (!strcmp(s->tensors[i].name, name))
            return s->tensors[i].type == type && s->tensors[i].n_dims == n_dims ? &s->tensors[i]
                                                                                : NULL;
    return NULL;
}

static const char *metadata(const struct safetensors *s, const char *key)
{
    for (size_t i = 0; i < s->n_metadata; i++)
        if (!strcmp(s->metadata[2 * i], key))
            return s->metadata[2 * i + 1];
    return NULL;
}

/* f->file is open. */
static int read_parts(struct logprob_file *f, const char *name, clm_error *err)
{
    const struct checkpoint_tensor *text = find(&f->file, "text", DTYPE_I32, 1);
    const struct checkpoint_tensor *codes = find(&f->file, "log_probs", DTYPE_U16, 2);
    const char *version = metadata(&f->file, "clm_log_probs");

    f->windows = metadata(&f->file, "windows");
    if (!version || strcmp(version, "1") != 0 || !f->windows || !text || !codes)
        return fail(err, CLM_ERR_FORMAT,
                    "%s holds no log-probabilities of clm perplexity --save-logits", name);
    if (codes->shape[1] < 1 || codes->shape[1] > INT_MAX)
        return fail(err, CLM_ERR_FORMAT, "%s: a vocabulary of %lld", name,
                    (long long)codes->shape[1]);
    f->text = text->data;
    f->n_text = (size_t)text->shape[0];
    f->codes = codes->data;
    f->n_rows = (size_t)codes->shape[0];
    f->vocab_size = (int)codes->shape[1];
    return 0;
}

static int finish(struct logprob_file *f, const char *name, clm_error *err)
{
    int rc = read_parts(f, name, err);

    if (rc)
        logprob_file_close(f);
    return rc;
}

int logprob_file_open(struct logprob_file *f, const char *path, clm_error *err)
{
    *f = (struct logprob_file){0};
    return safetensors_open(&f->file, path, err) ? -1 : finish(f, path, err);
}

int logprob_file_parse(struct logprob_file *f, const void *data, size_t size, const char *name,
                       clm_error *err)
{
    *f = (struct logprob_file){0};
    return safetensors_parse(&f->file, data, size, name, err) ? -1 : finish(f, name, err);
}

void logprob_file_close(struct logprob_file *f)
{
    safetensors_close(&f->file);
    *f = (struct logprob_file){0};
}

int logprob_file_check(const struct logprob_file *f, const int32_t *tokens, size_t n,
                       int vocab_size, const char *windows, size_t n_rows, clm_error *err)
{
    if (f->vocab_size != vocab_size)
        return fail(err, CLM_ERR_FORMAT,
                    "the log-probabilities are of a vocabulary of %d, the model has %d",
                    f->vocab_size, vocab_size);
    for (size_t i = 0; i < n && i < f->n_text; i++)
        if ((int32_t)load_le32(f->text + 4 * i) != tokens[i])
            return fail(err, CLM_ERR_FORMAT,
                        "the log-probabilities are of another text: token %zu is %d, not %d", i,
                        (int)(int32_t)load_le32(f->text + 4 * i), (int)tokens[i]);
    if (f->n_text != n)
        return fail(err, CLM_ERR_FORMAT,
                    "the log-probabilities are of a text of %zu tokens, this one has %zu",
                    f->n_text, n);
    if (strcmp(f->windows, windows) != 0)
        return fail(err, CLM_ERR_FORMAT,
                    "the log-probabilities are of other windows: %.100s, not %s", f->windows,
                    windows);
    if (f->n_rows != n_rows)
        return fail(err, CLM_ERR_FORMAT, "the log-probabilities are of %zu predictions, not %zu",
                    f->n_rows, n_rows);
    return 0;
}

void logprob_file_row(const struct logprob_file *f, size_t row, float *x)
{
    const uint8_t *codes = f->codes + 2 * row * (size_t)f->vocab_size;

    for (int i = 0; i < f->vocab_size; i++)
        x[i] = -(float)load_le16(codes + 2 * (size_t)i) / LOGPROB_STEPS;
}

void logprob_encode(uint16_t *codes, const float *logits, int n, double log_sum)
{
    for (int i = 0; i < n; i++) {
        double steps = (log_sum - (double)logits[i]) * LOGPROB_STEPS + 0.5;

        codes[i] = !(steps < 65535) ? 65535 : steps > 0 ? (uint16_t)steps : 0;
    }
}

int logprob_file_write(const char *path, const int32_t *tokens, size_t n, int vocab_size,
                       const char *windows, size_t n_rows, safetensors_fill fill, void *ctx,
                       clm_error *err)
{
    const char *const pairs[] = {"clm_log_probs", "1", "windows", windows};
    struct checkpoint_tensor tensors[] = {
        {.name = "text",
         .type = DTYPE_I32,
         .n_dims = 1,
         .shape = {(int64_t)n},
         .data = tokens,
         .size = n * sizeof *tokens},
        {.name = "log_probs",
         .type = DTYPE_U16,
         .n_dims = 2,
         .shape = {(int64_t)n_rows, vocab_size},
         .size = n_rows * (size_t)vocab_size * sizeof(uint16_t)},
    };

    return safetensors_write_with(path, tensors, 2, pairs, 2, fill, ctx, err);
}
