/* device/cuda/batch.cu: ragged batches on the device. */
#include "device/cuda/kv.cuh"

#include <string.h>

/* Both in one piece, so that one copy brings them. */
struct cuda_batch cuda_batch_of(struct cuda_device *c, const struct kv_batch *batch)
{
    size_t sequences = (size_t)batch->n_sequences * sizeof *batch->sequences;
    char *room = (char *)cuda_host_room(c, sequences + (size_t)batch->n_rows * sizeof(int32_t));
    int32_t *of_row = (int32_t *)(room + sequences);

    if (!room)
        return (struct cuda_batch){};
    memcpy(room, batch->sequences, sequences);
    for (int i = 0; i < batch->n_sequences; i++)
        for (int r = 0; r < batch->sequences[i].n_rows; r++)
            of_row[batch->sequences[i].row + r] = i;

    const char *staged =
        (const char *)cuda_stage(c, room, sequences + (size_t)batch->n_rows * sizeof(int32_t));
    if (!staged)
        return (struct cuda_batch){};
    return (struct cuda_batch){(const struct kv_sequence *)staged,
                               (const int32_t *)(staged + sequences)};
}
