/* device/cpu/four.h: four numbers at a time in plain C, on any processor: sanitizers check each
 * access, of one number or of four.
 */
#ifndef DEVICE_CPU_FOUR_H
#define DEVICE_CPU_FOUR_H

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

static inline const four *four_at(const float *p)
{
    return (const void *)p;
}

#endif
