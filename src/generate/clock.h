/* generate/clock.h: how long things take. */
#ifndef GENERATE_CLOCK_H
#define GENERATE_CLOCK_H

/* Seconds since some moment in the past; never runs backwards. */
double clock_seconds(void);

#endif
