/* Any config.json against tiny checkpoints of all families: errors at most. */
#include "config_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count(void *ctx, const struct nn_slot *slot)
{
    *(size_t *)ctx += (size_t)slot->n_out;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model *m = open_input(data, size);
    size_t numbers = 0;

    if (!m)
        return 0;
    nn_slots(m->nn, count, &numbers);
    if (!numbers || model_bytes_per_token(m) > m->weight_bytes)
        abort();
    model_close(m);
    return 0;
}
