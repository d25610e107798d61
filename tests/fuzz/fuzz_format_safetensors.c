/* Any bytes as a safetensors file: refused, or every byte of every tensor is there. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

/* What the reader promises: tensors in order cover the data, from the first byte to the last. */
static void check(const struct safetensors *st, const uint8_t *data, size_t size)
{
    const uint8_t *at = st->n_tensors ? st->tensors[0].data : NULL;
    uint64_t sum = 0;

    for (size_t i = 0; i < st->n_tensors; i++) {
        const struct checkpoint_tensor *t = &st->tensors[i];
        size_t bytes = dtype_size(t->type);

        require(t->data == at && at >= data + 8 && t->size <= (size_t)(data + size - at));
        for (int d = 0; d < t->n_dims; d++) {
            require(t->shape[d] >= 0);
            bytes *= (size_t)t->shape[d];
        }
        require(bytes == t->size);
        for (size_t k = 0; k < t->size; k++)
            sum += at[k];
        at += t->size;
        require(strlen(t->name) < size);
    }
    require(!st->n_tensors || at == data + size);
    require(sum <= 255 * (uint64_t)size);
    for (size_t i = 0; i < 2 * st->n_metadata; i++)
        require(strlen(st->metadata[i]) < size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors st;
    clm_error err = {0};

    if (safetensors_parse(&st, data, size, "fuzz", &err))
        require(err.code && err.message[0] && !strchr(err.message, '\n'));
    else
        check(&st, data, size);
    safetensors_close(&st);
    return 0;
}
