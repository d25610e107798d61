#include "cli/logits_batch.h"

#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/memory.h"
#include "cli/line_reader.h"
#include "cli/lines.h"
#include "generate/score.h"

struct checkpoint_tensor logits_tensor(const char *name, const float *rows, int n, int vocab_size)
{
    return (struct checkpoint_tensor){
        .name = name,
        .type = DTYPE_F32,
        .n_dims = 2,
        .shape = {n, vocab_size},
        .data = rows,
        .size = (size_t)n * (size_t)vocab_size * sizeof *rows,
    };
}

/* Several lists of tokens, one behind another, of which token 0 ends each: what is foretold there
 * the model says after the last one. */
struct lists {
    struct token_list tokens;
    size_t *begins; /* [n] */
    size_t n, capacity;
    struct checkpoint_tensor *tensors; /* [n], of the rows */
    int vocab_size;
};

static int begin_list(struct lists *l, clm_error *err)
{
    size_t *grown = mem_grow(l->begins, &l->capacity, l->n + 1, sizeof *grown);

    if (!grown)
        return fail(err, CLM_ERR_NOMEM, "no memory for %zu lists of tokens", l->n);
    l->begins = grown;
    l->begins[l->n] = l->tokens.count;
    return 0;
}

/* Those of the list that was read last. */
static int check_ids(const struct lists *l, clm_error *err)
{
    size_t begin = l->begins[l->n];

    if (l->tokens.count == begin)
        return fail(err, CLM_ERR_FORMAT, "\"ids\" needs one token at least");
    for (size_t i = begin; i < l->tokens.count; i++)
        if (l->tokens.ids[i] >= l->vocab_size)
            return fail(err, CLM_ERR_FORMAT, "token %d is outside the model's vocabulary of %d",
                        (int)l->tokens.ids[i], l->vocab_size);
    return 0;
}

static int read_list(struct lists *l, const char *text, size_t size, const char *name,
                     clm_error *err)
{
    clm_error inner = {0};
    json *line = json_parse(text, size, name, err);
    int rc = -1;

    if (!line || begin_list(l, err))
        goto cleanup;
    if (line_ids(&l->tokens, line, "ids", &inner) || check_ids(l, &inner))
        fail(err, inner.code, "%s: %s", name, inner.message);
    else if (token_list_add(&l->tokens, 0), l->tokens.failed)
        fail(err, CLM_ERR_NOMEM, "no memory for the tokens");
    else
        rc = 0;
    l->n++;

cleanup:
    json_free(line);
    return rc;
}

static int read_lists(struct lists *l, const char *path, clm_error *err)
{
    struct line_reader r = {0};
    enum line_state state = LINE_READ;
    int rc = line_reader_open(&r, path, err);

    while (rc == 0 && state != LINE_END) {
        const char *text;
        char name[300];
        size_t size;

        state = line_reader_next(&r, true, &text, &size, err);
        snprintf(name, sizeof name, "%.200s, line %ld", r.name, r.number);
        if (state == LINE_FAILED)
            rc = -1;
        if (state == LINE_TOO_LONG)
            rc = fail(err, CLM_ERR_FORMAT, "%s: longer than %zu bytes", name, LINE_MAX_BYTES);
        if (state == LINE_READ && !line_is_blank(text, size))
            rc = read_list(l, text, size, name, err);
    }
    if (rc == 0 && l->n == 0)
        rc = fail(err, CLM_ERR_FORMAT, "%s: no lists of tokens", r.name);
    line_reader_close(&r);
    return rc;
}

static int keep_row(void *ctx, size_t text, int i, const float *logits, int32_t best,
                    clm_error *err)
{
    struct lists *l = ctx;
    float *rows = (float *)(uintptr_t)l->tensors[text].data;

    (void)best;
    (void)err;
    memcpy(rows + (size_t)(i - 1) * (size_t)l->vocab_size, logits,
           (size_t)l->vocab_size * sizeof *rows);
    return 0;
}

/* Room for the rows of each list, under its name. */
static int open_rows(struct lists *l, struct score_text *texts, arena *a, clm_error *err)
{
    l->tensors = arena_array(a, struct checkpoint_tensor, l->n);
    for (size_t i = 0; l->tensors && i < l->n; i++) {
        size_t end = i + 1 < l->n ? l->begins[i + 1] : l->tokens.count, n = end - l->begins[i];
        float *rows = n <= SIZE_MAX / (size_t)l->vocab_size
                          ? arena_array(a, float, (n - 1) * (size_t)l->vocab_size)
                          : NULL;
        const char *name = arena_printf(a, "logits.%zu", i);

        if (!rows || !name || n > INT32_MAX)
            return fail(err, CLM_ERR_NOMEM, "no memory for the logits of %zu tokens", n);
        texts[i] = (struct score_text){l->tokens.ids + l->begins[i], (int)n, 1};
        l->tensors[i] = logits_tensor(name, rows, (int)n - 1, l->vocab_size);
    }
    return l->tensors ? 0 : fail(err, CLM_ERR_NOMEM, "no memory for %zu lists of tokens", l->n);
}

int logits_batch(struct session *s, const char *path, const char *out, clm_error *err)
{
    struct lists l = {.vocab_size = s->model->spec->vocab_size};
    const struct score_sink sink = {.ctx = &l, .row = keep_row};
    struct score_text *texts = NULL;
    arena *memory = NULL;
    int rc = -1;

    if (read_lists(&l, path, err))
        goto cleanup;
    memory = arena_open(0);
    texts = memory ? arena_array(memory, struct score_text, l.n) : NULL;
    if (!texts) {
        fail(err, CLM_ERR_NOMEM, "no memory for %zu lists of tokens", l.n);
        goto cleanup;
    }
    if (open_rows(&l, texts, memory, err) == 0 &&
        score_texts(s->engine, texts, l.n, &sink, err) == 0)
        rc = safetensors_write(out, l.tensors, l.n, NULL, 0, err);

cleanup:
    arena_close(memory);
    mem_free(l.begins);
    token_list_release(&l.tokens);
    return rc;
}
