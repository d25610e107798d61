/* tests/fuzz/fuzz_generate_batch.c: any bytes as a line of a batch.
 *
 * It is read or refused with an error that says why. What was read is within the ranges that the
 * header gives, and a sampler can be opened with it, or refuses it too.
 */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "generate/batch_line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VOCABULARY 1000

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void check_line(const struct batch_line *l)
{
    clm_error err = {0};
    sampler *s;

    must(l->max_tokens >= 1 && l->timeout >= 0);
    must(!l->messages != (!l->prompt && l->prompt_ids.count == 0));
    must(!l->messages || json_kind(l->messages) == JSON_ARRAY);
    must(!l->variables || json_kind(l->variables) == JSON_OBJECT);
    must(l->sampling.top_logprobs >= 0 && l->sampling.top_logprobs <= MAX_TOP_LOGPROBS);
    s = sampler_open(&l->sampling, VOCABULARY, &err);
    must(!s == (err.code != 0));
    sampler_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct batch_line l = {.sampling = sampler_defaults(), .max_tokens = 10};
    char *text = malloc(size + 1);
    clm_error err = {0};
    int rc;

    must(text != NULL);
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    rc = batch_line_read(&l, text, size, "line", &err);
    must((rc != 0) == (err.code != 0));
    must(!rc || err.message[0]);
    if (rc == 0)
        check_line(&l);
    batch_line_release(&l);
    free(text);
    return 0;
}
