/* Times the choice of a token beside one step of a model.
 *
 *     bench_sampling [vocabulary [rounds]]
 *
 * Logits are normal numbers, peaked as those of a trained model and flat as those of random
 * weights. Shown are microseconds of sampler_next, the least of all rounds, in which the cases take
 * turns. What a step of a model takes says clm bench: 1 % of it is what sampling may cost.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "generate/rng.h"
#include "generate/sampler.h"

#define HISTORY 1000

struct timed {
    const char *name;
    struct sampler_options o;
    sampler *samplers[2];
    double best[2];
};

static double now(void)
{
    return 1e6 * clock_seconds();
}

/* Box and Muller's, one of the two. */
static float normal(struct rng *r)
{
    double u = 1 - rng_unit(r), v = rng_unit(r);

    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

#define N_CASES 14

static void make_cases(struct timed cases[N_CASES])
{
    static const char *const names[N_CASES] = {
        "greedy",    "greedy, 20 logprobs", "temp",         "temp 0.7",
        "top-p 0.9", "top-p 0.9, top-k 40", "top-k 40",     "min-p 0.05",
        "XTC",       "typical 0.9",         "top-nsigma 1", "dynatemp",
        "mirostat",  "penalties, DRY"};

    for (int i = 0; i < N_CASES; i++) {
        struct sampler_options *o = &cases[i].o;

        cases[i] = (struct timed){.name = names[i], .best = {DBL_MAX, DBL_MAX}};
        *o = sampler_defaults();
        o->temp = i < 2 || i == 13 ? 0 : i == 3 ? 0.7 : 1;
        o->top_logprobs = i == 1 ? 20 : 0;
        o->top_p = i == 4 || i == 5 ? 0.9 : 0;
        o->top_k = i == 5 || i == 6 ? 40 : 0;
        o->min_p = i == 7 ? 0.05 : 0;
        o->xtc_probability = i == 8;
        o->typical_p = i == 9 ? 0.9 : 0;
        o->top_n_sigma = i == 10;
        o->dynatemp_range = i == 11 ? 0.5 : 0;
        o->mirostat = i == 12 ? 2 : 0;
        o->repetition.value = i == 13 ? 1.1 : 0;
        o->dry.multiplier = i == 13;
    }
}

static void run(struct timed *t, int kind, const float *logits, const int32_t *history)
{
    struct sample sample;
    clm_error err = {0};
    double begin = now(), time;

    if (sampler_next(t->samplers[kind], logits, history, HISTORY, &sample, &err)) {
        fprintf(stderr, "bench_sampling: %s: %s\n", t->name, err.message);
        exit(1);
    }
    time = now() - begin;
    t->best[kind] = time < t->best[kind] ? time : t->best[kind];
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 150000, rounds = argc > 2 ? atoi(argv[2]) : 200;
    struct timed cases[N_CASES];
    int32_t history[HISTORY];
    float *logits[2] = {NULL, NULL};
    struct rng r;

    if (n < 100 || rounds < 1) {
        fprintf(stderr, "usage: bench_sampling [vocabulary [rounds]], of 100 tokens or more\n");
        return 2;
    }
    rng_seed(&r, 1);
    make_cases(cases);
    for (int kind = 0; kind < 2; kind++) {
        logits[kind] = mem_zeroed((size_t)n, sizeof **logits);
        for (int i = 0; logits[kind] && i < n; i++)
            logits[kind][i] = normal(&r) * (kind ? 1 : 2) + (kind == 0 && i % 30011 == 7 ? 15 : 0);
        for (int i = 0; i < N_CASES; i++)
            cases[i].samplers[kind] = sampler_open(&cases[i].o, n, NULL);
    }
    for (int i = 0; i < HISTORY; i++)
        history[i] = (int32_t)(rng_next(&r) % 100);
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < 2 * N_CASES; i++)
            run(&cases[i / 2], i % 2, logits[i % 2], history);
    printf("%-22s %10s %10s   (us, vocabulary of %d)\n", "", "peaked", "flat", n);
    for (int i = 0; i < N_CASES; i++) {
        printf("%-22s %10.1f %10.1f\n", cases[i].name, cases[i].best[0], cases[i].best[1]);
        sampler_close(cases[i].samplers[0]);
        sampler_close(cases[i].samplers[1]);
    }
    mem_free(logits[0]);
    mem_free(logits[1]);
    return 0;
}
