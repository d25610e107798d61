/* What steps are taken to cost, in worlds where it is known. */
#include "testing.h"

#include <math.h>

#include "base/memory.h"
#include "generate/step_time.h"

static double noise(double most)
{
    return 1 + most * ((double)(random_u64() >> 11) * 0x1p-53 - 0.5);
}

/* One row of an answer beside prompts costs what it does, whatever a row of a prompt costs and
 * however many there are of both. */
static void test_row(void **state)
{
    static const struct {
        double first, prompt, own, noise;
        int prompts, least_prompts, owns;
    } worlds[] = {
        {1, 0.02, 0.05, 0, 64, 1, 20},    {1, 0.02, 0.05, 0.1, 64, 1, 20},
        {1, 0.02, 0.02, 0.1, 64, 64, 20}, {1, 0.001, 0.001, 0.02, 64, 1, 60},
        {1, 0.1, 0.12, 0.05, 64, 40, 9},
    };

    (void)state;
    for (size_t w = 0; w < COUNT(worlds); w++) {
        struct step_time t = {0};
        double row, step;

        for (int i = 0; i < 300; i++) {
            int prompt =
                worlds[w].prompts -
                (int)random_below((size_t)(worlds[w].prompts - worlds[w].least_prompts + 1));
            int own = 1 + (int)random_below((size_t)worlds[w].owns);
            double seconds = worlds[w].first + worlds[w].prompt * prompt + worlds[w].own * own;

            step_time_learn(&t, own, prompt, seconds * noise(worlds[w].noise));
        }
        row = step_time_row(&t);
        step = worlds[w].first + worlds[w].prompt * 60 + worlds[w].own * 5;
        CHECK(fabs(row - worlds[w].own) <= 0.25 * worlds[w].own + 1e-3, "world %zu: a row takes %g",
              w, row);
        CHECK(fabs(step_time_mixed(&t, 5, 60) / step - 1) <= 0.03,
              "world %zu: a step takes %g, not %g", w, step_time_mixed(&t, 5, 60), step);
    }
}

/* Before anything differs a row costs its part of the step. */
static void test_unknown_row(void **state)
{
    struct step_time t = {0};

    (void)state;
    CHECK(step_time_row(&t) == 0, "something is known at the start");
    for (int i = 0; i < 100; i++) {
        step_time_learn(&t, 6, 64, 7);
        CHECK(fabs(step_time_row(&t) - 0.1) < 1e-9, "after %d: %g", i, step_time_row(&t));
    }
    /* One that was in the way of something else, and counts no more than twice. */
    CHECK(step_time_learn(&t, 6, 64, 1000) == 14 && step_time_mixed(&t, 6, 64) < 7.2, "%g",
          step_time_mixed(&t, 6, 64));
}

static void test_alone(void **state)
{
    struct step_time t = {0};
    double seconds[STEP_ROWS + 1];

    (void)state;
    CHECK(step_time_alone(&t, seconds) == 0 && seconds[1] == 0, "something is known at the start");
    step_time_learn(&t, 2, 0, 1);
    step_time_learn(&t, 6, 0, 2);
    CHECK(step_time_alone(&t, seconds) == 6, "another number of rows");
    CHECK(seconds[1] == 1 && seconds[2] == 1 && seconds[4] == 1.5 && seconds[6] == 2,
          "between measures: %g, %g, %g, %g", seconds[1], seconds[2], seconds[4], seconds[6]);
    CHECK(seconds[8] == 2.25, "beyond them: %g", seconds[8]);
    for (int i = 0; i < 3; i++)
        step_time_learn(&t, 2, 0, 1);
    CHECK(step_time_learn(&t, 2, 0, 1000) == 2, "what is much too long");
    step_time_learn(&t, 3, 0, 9);
    step_time_alone(&t, seconds);
    CHECK(seconds[3] == 2, "fewer rows do not take longer than more: %g", seconds[3]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row),
        cmocka_unit_test(test_unknown_row),
        cmocka_unit_test(test_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
