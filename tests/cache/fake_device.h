/* tests/cache/fake_device.h: the memory functions of a device over the heap, counting what is
 * taken. */
#ifndef FAKE_DEVICE_H
#define FAKE_DEVICE_H

#include <string.h>

#include "base/memory.h"
#include "device/device.h"

struct fake_device {
    device base; /* first */
    size_t bytes;
    long n_blocks, n_copies;
};

/* The size of a block of memory stands before it. */
#define FAKE_HEADER 64

static inline void *fake_alloc(device *d, size_t size, clm_error *err)
{
    struct fake_device *f = (struct fake_device *)d;
    char *p = mem_alloc_aligned(size + FAKE_HEADER);

    if (!p)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for %zu bytes", size);
    memcpy(p, &size, sizeof size);
    memset(p + FAKE_HEADER, 0xA5, size);
    f->bytes += size;
    f->n_blocks++;
    return p + FAKE_HEADER;
}

static inline void fake_free(device *d, void *p)
{
    struct fake_device *f = (struct fake_device *)d;
    size_t size;

    memcpy(&size, (char *)p - FAKE_HEADER, sizeof size);
    f->bytes -= size;
    f->n_blocks--;
    mem_free_aligned((char *)p - FAKE_HEADER);
}

static inline void fake_upload(device *d, void *to, const void *from, size_t size)
{
    (void)d;
    memcpy(to, from, size);
}

static inline void fake_copy(device *d, void *to, const void *from, size_t size)
{
    ((struct fake_device *)d)->n_copies++;
    memcpy(to, from, size);
}

static const struct device_ops fake_ops = {
    .name = "fake",
    .alloc = fake_alloc,
    .free = fake_free,
    .upload = fake_upload,
    .download = fake_upload,
    .copy = fake_copy,
};

#endif
