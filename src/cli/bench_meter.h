/* cli/bench_meter.h: how long the steps of a repetition take, and how much could have been read
 * meanwhile. Memory is read between them, every few milliseconds and off the clock, as the speed it
 * has may change at any moment with what others do.
 */
#ifndef CLI_BENCH_METER_H
#define CLI_BENCH_METER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device/device.h"

struct bench_meter {
    device *dev;       /* NULL: memory is not read, and nothing could have been */
    double known;      /* bytes per second, where the device cannot tell what they are now */
    bool keeps_caches; /* nothing is read between steps */
    uint8_t *memory;   /* that is read; NULL: none yet */
    size_t at;         /* what comes next of it */
    double speed;      /* bytes per second, just before what is timed */
    double begin;
    double seconds, readable; /* of the repetition so far: its time, and bytes in that time */
};

/* *m is zero, or was for other tests. known: bytes per second, where d cannot tell what they are
 * now. A model of few weight_bytes may live in the processor's caches, which readings between its
 * steps would take from it: memory is read before and after its repetitions alone. */
void bench_meter_init(struct bench_meter *m, device *d, double known, size_t weight_bytes);

/* Begins a repetition, after what it took to begin. */
void bench_meter_begin(struct bench_meter *m);

/* A step is done: where the last reading is long ago, it is time for another. */
void bench_meter_step(struct bench_meter *m);

/* All is done: seconds and readable are complete. */
void bench_meter_end(struct bench_meter *m);

void bench_meter_close(struct bench_meter *m);

#endif
