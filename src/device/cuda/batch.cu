/* device/cuda/batch.cu: ragged batches on the device: the sequences, then for each row the number
 * of its sequence, in one piece. */
#include <string.h>

#include "device/cuda/kv.cuh"
#include "device/cuda/state.cuh"

/* sequences of whatever kind, of which row and n_rows are the first members. */
template <typename S>
static const void *stage_batch(struct cuda_device *c, const S *sequences, int n, int n_rows)
{
    size_t bytes = (size_t)n * sizeof *sequences, all = bytes + (size_t)n_rows * sizeof(int32_t);
    char *room = (char *)cuda_host_room(c, all);
    int32_t *of_row = (int32_t *)(room + bytes);

    if (!room)
        return NULL;
    memcpy(room, sequences, bytes);
    for (int i = 0; i < n; i++)
        for (int r = 0; r < sequences[i].n_rows; r++)
            of_row[sequences[i].row + r] = i;
    return cuda_stage(c, room, all);
}

struct cuda_batch cuda_batch_of(struct cuda_device *c, const struct kv_batch *batch)
{
    struct cuda_batch b = {};

    b.sequences = (const struct kv_sequence *)stage_batch(c, batch->sequences, batch->n_sequences,
                                                          batch->n_rows);
    if (b.sequences)
        b.of_row = (const int32_t *)(b.sequences + batch->n_sequences);
    return b;
}

struct cuda_states cuda_states_of(struct cuda_device *c, const struct state_batch *batch,
                                  size_t offset)
{
    struct cuda_states s = {};

    s.offset = offset;
    s.n = batch->n_sequences;
    s.sequences = (const struct state_sequence *)stage_batch(c, batch->sequences,
                                                             batch->n_sequences, batch->n_rows);
    if (s.sequences)
        s.of_row = (const int32_t *)(s.sequences + batch->n_sequences);
    return s;
}
