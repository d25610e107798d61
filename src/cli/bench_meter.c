#include "cli/bench_meter.h"

#include <string.h>

#include "base/clock.h"
#include "base/memory.h"

#define MEMORY ((size_t)256 << 20) /* far beyond any cache, so that no part of it is met there */
#define WINDOW ((size_t)64 << 20)
#define WINDOWS 2 /* of which the better one counts */
#define TURN 0.01 /* seconds of steps between two readings */

void bench_meter_init(struct bench_meter *m, device *d, double known, size_t weight_bytes)
{
    m->dev = d;
    m->known = known;
    m->keeps_caches = weight_bytes < MEMORY;
}

static double read_now(struct bench_meter *m)
{
    double best = 0;

    if (!m->dev)
        return 0;
    if (m->dev->ops->read_speed && !m->memory) {
        m->memory = mem_alloc_aligned(MEMORY);
        if (m->memory)
            memset(m->memory, 1, MEMORY);
    }
    if (!m->dev->ops->read_speed || !m->memory)
        return m->known;
    for (int i = 0; i < WINDOWS; i++) {
        double speed = m->dev->ops->read_speed(m->dev, m->memory + m->at, WINDOW);

        best = speed > best ? speed : best;
        m->at = (m->at + WINDOW) % MEMORY;
    }
    return best;
}

void bench_meter_begin(struct bench_meter *m)
{
    m->seconds = m->readable = 0;
    m->speed = read_now(m);
    m->begin = clock_seconds();
}

/* Of the readings before and after, the better one counts: what disturbs a reading alone is not to
 * flatter the steps. */
void bench_meter_end(struct bench_meter *m)
{
    double seconds = clock_seconds() - m->begin, before = m->speed;

    m->speed = read_now(m);
    m->seconds += seconds;
    m->readable += seconds * (before > m->speed ? before : m->speed);
    m->begin = clock_seconds();
}

void bench_meter_step(struct bench_meter *m)
{
    if (!m->keeps_caches && clock_seconds() - m->begin >= TURN)
        bench_meter_end(m);
}

void bench_meter_close(struct bench_meter *m)
{
    mem_free_aligned(m->memory);
}
