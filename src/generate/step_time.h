/* generate/step_time.h: how long steps take, by their rows, as measured of late.
 *
 * In a step of answers alone the first row costs the most, as the weights are read for it: such
 * steps are measured for each number of rows. Beside parts of prompts the weights are read anyway,
 * and rows are many and of any number: there only what a row more costs is asked for, which a
 * straight line through the measures tells.
 */
#ifndef GENERATE_STEP_TIME_H
#define GENERATE_STEP_TIME_H

/* Steps with more rows of answers than this are not measured. */
#define STEP_ROWS 64

/* Start from {0}. */
struct step_time {
    struct {
        double seconds;     /* on average of late */
        int n;              /* times measured */
    } alone[STEP_ROWS + 1]; /* by rows */
    /* Steps with rows of prompts: averages, variances and covariances of late. */
    struct {
        int n; /* times measured */
        double seconds, prompt, own;
        double prompt_prompt, own_own, prompt_own, prompt_seconds, own_seconds;
    } mixed;
};

/* A step of own rows, 1 to STEP_ROWS, and prompt rows of prompts, maybe 0, took so long; one that
 * took much longer than others of its kind counts as twice as long as they. Returns what counts. */
double step_time_learn(struct step_time *t, int own, int prompt, double seconds);

/* Seconds of steps without prompts by rows: as measured, or as those with more rows where they took
 * less; between measures in proportion, beyond them half as steep. Returns how many rows have been
 * tried; 0: no measure at all, and all is 0. */
int step_time_alone(const struct step_time *t, double seconds[STEP_ROWS + 1]);

/* Seconds that one row more of answers costs beside prompts: in proportion to all rows before much
 * is known, as much as that is at most. 0: no measure at all. */
double step_time_row(const struct step_time *t);

/* Seconds of a step with so many rows. */
double step_time_mixed(const struct step_time *t, int own, int prompt);

#endif
