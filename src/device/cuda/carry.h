/* device/cuda/carry.h: much memory to the device and back, in pieces that several threads copy. */
#ifndef DEVICE_CUDA_CARRY_H
#define DEVICE_CUDA_CARRY_H

#include "device/cuda/cuda.h"

struct carrier;

/* Host to device: what is at from has been read when this returns, and is there for what is queued
 * after. Device to host: what was queued before is waited for. *carrier is opened where it is NULL.
 * A failure is kept. */
void cuda_carry(struct cuda_device *c, struct carrier **carrier, void *to, const void *from,
                size_t size, enum cudaMemcpyKind kind);

/* Host to device, of bytes that stay where they are until cuda_carry_end(): other threads read them
 * meanwhile. They go to memory that nothing has been queued for. */
void cuda_carry_later(struct cuda_device *c, struct carrier **carrier, void *to, const void *from,
                      size_t size);

/* Whether there may be something that nobody has waited for. */
bool cuda_carries(const struct carrier *carrier); /* NULL is fine */

/* All of that has been read, and is there for what is queued after. */
void cuda_carry_end(struct cuda_device *c, struct carrier *carrier);

void carrier_close(struct carrier *c); /* NULL is fine */

#endif
