#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/thread.h"

#include "testing.h"

#define MAX_POOL 5

static const int pool_sizes[] = {1, 2, MAX_POOL};

static thread_pool *open_pool(int n_threads)
{
    clm_error err = {0};
    thread_pool *pool = thread_pool_open(n_threads, &err);

    CHECK(pool, "%s", err.message);
    CHECK(thread_pool_size(pool) == n_threads, "%d threads", thread_pool_size(pool));
    return pool;
}

static void pause_ms(int ms)
{
    struct timespec t = {0, ms * 1000000L};

    nanosleep(&t, NULL);
}

/* Plain memory on purpose: the pool must order what threads write before what the caller reads,
 * and ThreadSanitizer would say if it did not. */
struct run_job {
    int calls[MAX_POOL];
    int n_threads;
    int input;
    int output[MAX_POOL];
};

static void run_once(void *ctx, int thread, int n_threads)
{
    struct run_job *job = ctx;

    job->calls[thread]++;
    job->output[thread] = job->input + thread;
    if (n_threads != job->n_threads)
        job->calls[thread] += 1000000;
}

static void check_runs(thread_pool *pool, int n_jobs, int pause_every)
{
    struct run_job job = {.n_threads = thread_pool_size(pool)};

    for (int i = 1; i <= n_jobs; i++) {
        job.input = i * 10;
        thread_pool_run(pool, run_once, &job);
        for (int t = 0; t < job.n_threads; t++)
            CHECK(job.calls[t] == i && job.output[t] == i * 10 + t, "job %d, thread %d of %d", i, t,
                  job.n_threads);
        if (pause_every && i % pause_every == 0)
            pause_ms(1);
    }
}

static void test_run(void **state)
{
    (void)state;
    for (size_t p = 0; p < COUNT(pool_sizes); p++) {
        thread_pool *pool = open_pool(pool_sizes[p]);

        check_runs(pool, 5000, 0);
        thread_pool_close(pool);
    }
}

/* Workers fall asleep between jobs, and sometimes just before one comes. */
static void test_run_after_sleep(void **state)
{
    (void)state;
    for (size_t p = 0; p < COUNT(pool_sizes); p++) {
        thread_pool *pool = open_pool(pool_sizes[p]);

        pause_ms(2);
        check_runs(pool, 200, 1);
        check_runs(pool, 200, 3);
        thread_pool_close(pool);
    }
}

static void slow_worker(void *ctx, int thread, int n_threads)
{
    int *done = ctx;

    (void)n_threads;
    if (thread)
        pause_ms(3);
    done[thread]++;
}

/* The caller is done first and sleeps until the workers are. */
static void test_caller_sleeps(void **state)
{
    thread_pool *pool = open_pool(MAX_POOL);
    int done[MAX_POOL] = {0};

    (void)state;
    for (int i = 1; i <= 20; i++) {
        thread_pool_run(pool, slow_worker, done);
        for (int t = 0; t < MAX_POOL; t++)
            assert_int_equal(done[t], i);
    }
    thread_pool_close(pool);
}

struct for_job {
    unsigned char *seen;
    int64_t n;
    int64_t grain;
    int n_threads;
    atomic_int errors;
};

static void for_piece(void *ctx, int64_t begin, int64_t end, int thread)
{
    struct for_job *job = ctx;
    bool whole = end == job->n || end - begin == job->grain;

    if (begin < 0 || begin >= end || end > job->n || !whole || thread < 0 ||
        thread >= job->n_threads) {
        atomic_fetch_add(&job->errors, 1);
        return;
    }
    for (int64_t i = begin; i < end; i++)
        job->seen[i]++;
}

/* Both ways to cut a range. */
static void (*const ways[])(thread_pool *, int64_t, int64_t, range_fn,
                            void *) = {thread_pool_for, thread_pool_for_own};

static void test_for_covers_each_once(void **state)
{
    static const int64_t sizes[] = {0, 1, 2, 3, 7, 64, 1000, 4099};
    static const int64_t grains[] = {1, 2, 3, 64, 999, 5000};
    static unsigned char seen[4099];

    (void)state;
    for (size_t p = 0; p < COUNT(pool_sizes); p++) {
        thread_pool *pool = open_pool(pool_sizes[p]);

        for (size_t s = 0; s < COUNT(sizes); s++)
            for (size_t g = 0; g < COUNT(ways) * COUNT(grains); g++) {
                struct for_job job = {seen, sizes[s], grains[g / COUNT(ways)], pool_sizes[p], 0};

                memset(seen, 0, sizeof seen);
                ways[g % COUNT(ways)](pool, job.n, job.grain, for_piece, &job);
                CHECK(atomic_load(&job.errors) == 0, "n %d, grain %d", (int)job.n, (int)job.grain);
                for (int64_t i = 0; i < (int64_t)sizeof seen; i++)
                    CHECK(seen[i] == (i < job.n), "n %d, grain %d: item %d seen %d times",
                          (int)job.n, (int)job.grain, (int)i, seen[i]);
            }
        thread_pool_close(pool);
    }
}

static void test_for_many_tiny_jobs(void **state)
{
    static unsigned char seen[12];

    (void)state;
    for (size_t p = 0; p < COUNT(pool_sizes); p++) {
        thread_pool *pool = open_pool(pool_sizes[p]);

        for (int i = 0; i < 4000; i++) {
            struct for_job job = {seen, 1 + i % 12, 1, pool_sizes[p], 0};

            memset(seen, 0, sizeof seen);
            ways[i / 12 % COUNT(ways)](pool, job.n, job.grain, for_piece, &job);
            for (int64_t k = 0; k < job.n; k++)
                CHECK(seen[k] == 1, "job %d, item %d", i, (int)k);
        }
        thread_pool_close(pool);
    }
}

static void add_length(void *ctx, int64_t begin, int64_t end, int thread)
{
    atomic_llong *sum = ctx;

    (void)thread;
    atomic_fetch_add(sum, end - begin);
}

static void test_for_extremes(void **state)
{
    thread_pool *pool = open_pool(2);
    atomic_llong sum = 0;

    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        atomic_store(&sum, 0);
        ways[i](pool, INT64_MAX, INT64_MAX / 3, add_length, &sum);
        CHECK(atomic_load(&sum) == INT64_MAX, "the largest range");
        atomic_store(&sum, 0);
        ways[i](pool, 100, 0, add_length, &sum);
        CHECK(atomic_load(&sum) == 100, "no grain is a grain of one");
        ways[i](pool, -5, 1, add_length, &sum);
        CHECK(atomic_load(&sum) == 100, "a negative range is empty");
    }
    thread_pool_close(pool);
}

struct noted {
    int thread[1024];
};

static void note_item(void *ctx, int64_t begin, int64_t end, int thread)
{
    struct noted *noted = ctx;

    for (int64_t i = begin; i < end; i++)
        noted->thread[i] = thread;
}

/* Most of a part goes to its thread every time. */
static void test_own_parts(void **state)
{
    struct noted noted;

    (void)state;
    for (size_t p = 0; p < COUNT(pool_sizes); p++) {
        thread_pool *pool = open_pool(pool_sizes[p]);
        int part = 1000 / pool_sizes[p];

        for (int turn = 0; turn < 100; turn++) {
            thread_pool_for_own(pool, 1000, 1, note_item, &noted);
            for (int i = 0; i < 1000; i++)
                CHECK(i % part >= part - part / 8 || noted.thread[i] == i / part,
                      "item %d went to thread %d of %d", i, noted.thread[i], pool_sizes[p]);
        }
        thread_pool_close(pool);
    }
}

static void note_thread(void *ctx, int64_t begin, int64_t end, int thread)
{
    pthread_t *who = ctx;

    CHECK(begin == 0 && end == 8 && thread == 0, "one piece, on thread 0");
    *who = pthread_self();
}

static void test_small_range_stays_with_the_caller(void **state)
{
    thread_pool *pool = open_pool(2);
    pthread_t who;

    (void)state;
    thread_pool_for(pool, 8, 8, note_thread, &who);
    CHECK(pthread_equal(who, pthread_self()), "it ran elsewhere");
    thread_pool_close(pool);
}

struct barrier_job {
    thread_pool *pool;
    int phases;
    int at[MAX_POOL];
    int errors[MAX_POOL];
};

/* Two barriers a phase: all have written before anyone reads, all have read before anyone writes.
 */
static void meet(void *ctx, int thread, int n_threads)
{
    struct barrier_job *job = ctx;

    for (int phase = 1; phase <= job->phases; phase++) {
        job->at[thread] = phase;
        thread_pool_barrier(job->pool);
        for (int t = 0; t < n_threads; t++)
            job->errors[thread] += job->at[t] != phase;
        thread_pool_barrier(job->pool);
        if (phase % 500 == 0 && thread == phase / 500 % n_threads)
            pause_ms(1); /* the others fall asleep at the barrier */
    }
}

static void test_barrier(void **state)
{
    (void)state;
    for (size_t p = 0; p < COUNT(pool_sizes); p++) {
        thread_pool *pool = open_pool(pool_sizes[p]);

        for (int round = 0; round < 2; round++) {
            struct barrier_job job = {.pool = pool, .phases = 1500};

            thread_pool_run(pool, meet, &job);
            for (int t = 0; t < pool_sizes[p]; t++)
                CHECK(job.at[t] == job.phases && job.errors[t] == 0, "thread %d of %d: %d errors",
                      t, pool_sizes[p], job.errors[t]);
        }
        thread_pool_close(pool);
    }
}

static void test_open_and_close(void **state)
{
    (void)state;
    thread_pool_close(NULL);
    for (int i = 0; i < 100; i++)
        thread_pool_close(open_pool(pool_sizes[i % 3])); /* without any job */
    for (int i = 0; i < 20; i++) {
        thread_pool *pool = open_pool(MAX_POOL);

        check_runs(pool, 1, 0);
        thread_pool_close(pool);
    }
}

static void test_default_size(void **state)
{
    clm_error err = {0};
    thread_pool *pool = thread_pool_open(0, &err);

    (void)state;
    CHECK(pool && thread_pool_size(pool) == thread_count_default(), "%s", err.message);
    thread_pool_close(pool);
}

static void test_open_refuses(void **state)
{
    static const int sizes[] = {-1, INT32_MIN, 1000000};

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        clm_error err = {0};

        CHECK(!thread_pool_open(sizes[i], &err), "%d threads", sizes[i]);
        assert_int_equal(err.code, CLM_ERR_ARG);
    }
}

static void test_failing_allocations(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        clm_error err = {0};
        thread_pool *pool;

        mem_fail_after(n);
        pool = thread_pool_open(2, &err);
        /* The pool and its workers must be there; reading the machine may fail without harm. */
        CHECK(pool || err.code == CLM_ERR_NOMEM, "n %ld: code %d", n, err.code);
        CHECK(n >= 2 || !pool, "n %ld", n);
        thread_pool_close(pool);
        if (!mem_fail_after(-1))
            return;
    }
}

static bool blocks(int number)
{
    sigset_t blocked;

    return pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0 && sigismember(&blocked, number) == 1;
}

static void look_at_signals(void *ctx, int thread, int n_threads)
{
    int *good = ctx;

    (void)n_threads;
    good[thread] = blocks(SIGINT) == (thread > 0) && blocks(SIGTERM) == (thread > 0) &&
                   !blocks(SIGBUS) && !blocks(SIGSEGV);
}

static void look_as_a_task(void *ctx)
{
    look_at_signals(ctx, 1, 2);
}

/* Ctrl-C comes to the caller, what a thread does wrong to that thread. */
static void test_signals(void **state)
{
    thread_pool *pool = open_pool(MAX_POOL);
    clm_error err = {0};
    thread_task *task;
    int good[MAX_POOL] = {0};

    (void)state;
    thread_pool_run(pool, look_at_signals, good);
    for (int t = 0; t < MAX_POOL; t++)
        CHECK(good[t], "thread %d", t);
    thread_pool_close(pool);
    good[1] = 0;
    task = thread_task_start(look_as_a_task, good, &err);
    CHECK(task, "%s", err.message);
    thread_task_join(task);
    CHECK(good[1], "a task");
}

static void add_one(void *ctx)
{
    int *n = ctx;

    ++*n;
}

/* What a task has written is there once it was joined. */
static void test_task(void **state)
{
    clm_error err = {0};
    int n = 0;

    (void)state;
    for (int i = 1; i <= 20; i++) {
        thread_task *task = thread_task_start(add_one, &n, &err);

        CHECK(task, "%s", err.message);
        thread_task_join(task);
        CHECK(n == i, "%d, not %d", n, i);
    }
    thread_task_join(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_run_after_sleep),
        cmocka_unit_test(test_caller_sleeps),
        cmocka_unit_test(test_for_covers_each_once),
        cmocka_unit_test(test_for_many_tiny_jobs),
        cmocka_unit_test(test_for_extremes),
        cmocka_unit_test(test_own_parts),
        cmocka_unit_test(test_small_range_stays_with_the_caller),
        cmocka_unit_test(test_barrier),
        cmocka_unit_test(test_open_and_close),
        cmocka_unit_test(test_default_size),
        cmocka_unit_test(test_open_refuses),
        cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_task),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
