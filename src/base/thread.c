#include "base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/processors.h"

#define MAX_THREADS 1024

/*
 * How long a thread spins before it sleeps. Between two operations of a decode step lie a few
 * microseconds, waking a sleeper takes some 50. With fewer CPUs than threads spinning keeps the
 * others from running: there a thread offers its CPU at every turn, and soon sleeps (3 threads on
 * 2 CPUs: 13 us a job, not 87). A thread that waits for others at the same job, as one of them has
 * lost its CPU for a while, sleeps later still and offers its CPU meanwhile: else it may wake on
 * the CPU of the one that wakes it.
 */
#define SPIN_NS 50000
#define SPIN_NS_CROWDED 1000
#define SLEEP_NS_AT_WORK 3000000
#define MOVE_NS 2000000 /* after which a worker may leave another's CPU again */

struct spin {
    int64_t ns;       /* after which the CPU is offered at every turn */
    int64_t sleep_ns; /* after which the thread sleeps */
    bool crowded;
};

/* A number that threads wait on until it changes. */
struct gate {
    _Alignas(64) atomic_uint value;
    atomic_int sleepers;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
};

struct range_job {
    _Alignas(64) atomic_llong next; /* piece that the next free thread takes */
    int64_t n;
    int64_t grain;
    int64_t n_pieces;
    range_fn fn;
    void *ctx;
};

struct thread_pool {
    struct gate start;   /* changes when a job is there, or it is time to stop */
    struct gate done;    /* changes when the last worker has finished the job */
    struct gate barrier; /* changes when the last thread has arrived */
    struct range_job range;
    _Alignas(64) atomic_int working; /* workers not done with the job */
    _Alignas(64) atomic_int arrived; /* threads waiting at the barrier */
    /* Written between jobs, read by workers after start has changed. */
    _Alignas(64) thread_fn fn;
    void *ctx;
    bool stop;
    int n_threads;
    int n_started;             /* workers: threads 1 to n_started */
    struct spin idle, at_work; /* how a thread waits for a job, and for others at the same one */
    atomic_int cpu;            /* of the caller, as of the workers below */
    struct worker *workers;
};

struct worker {
    _Alignas(64) atomic_int cpu; /* where it was at the last job, -1: not known */
    thread_pool *pool;
    int thread;
    unsigned n_jobs;
    int64_t moved; /* when it last left another's CPU */
    pthread_t handle;
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int gate_init(struct gate *g)
{
    int rc;

    atomic_init(&g->value, 0);
    atomic_init(&g->sleepers, 0);
    rc = pthread_mutex_init(&g->mutex, NULL);
    if (rc)
        return rc;
    rc = pthread_cond_init(&g->changed, NULL);
    if (rc)
        pthread_mutex_destroy(&g->mutex);
    return rc;
}

static void gate_release(struct gate *g)
{
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->mutex);
}

static unsigned gate_value(struct gate *g)
{
    return atomic_load_explicit(&g->value, memory_order_acquire);
}

/* Spins until the value is not old any more; false when the time for it went by. */
static bool gate_spin(struct gate *g, unsigned old, struct spin spin)
{
    bool offers = spin.crowded;

    for (int64_t begin = 0, waited = 0; waited <= spin.sleep_ns;) {
        for (int i = 0; i < 32; i++) {
            if (gate_value(g) != old)
                return true;
            if (offers)
                sched_yield();
            else
                relax();
        }
        begin = begin ? begin : now_ns();
        waited = now_ns() - begin;
        offers = spin.crowded || waited > spin.ns;
    }
    return false;
}

/*
 * A sleeper counts itself before it looks at the value a last time, an opener changes the value
 * before it looks for sleepers: in the one order of all sequentially consistent operations, one of
 * them sees the other.
 */
static void gate_wait(struct gate *g, unsigned old, struct spin spin)
{
    if (gate_spin(g, old, spin))
        return;
    pthread_mutex_lock(&g->mutex);
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->value) == old)
        pthread_cond_wait(&g->changed, &g->mutex);
    atomic_fetch_sub(&g->sleepers, 1);
    pthread_mutex_unlock(&g->mutex);
}

static void gate_open(struct gate *g)
{
    atomic_fetch_add(&g->value, 1);
    if (atomic_load(&g->sleepers) == 0)
        return;
    pthread_mutex_lock(&g->mutex);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
}

/* --- Threads on one CPU
 *
 * Whatever else the machine does may push two threads of a pool onto one CPU, where the kernel
 * leaves them for 10 to 60 ms, as both always have just run: a job takes twice as long there. The
 * one with the higher number goes away by itself.
 */

static int cpu_of(thread_pool *pool, int thread)
{
    atomic_int *cpu = thread == 0 ? &pool->cpu : &pool->workers[thread - 1].cpu;

    return atomic_load_explicit(cpu, memory_order_relaxed);
}

static void note_cpu(atomic_int *known, int cpu)
{
    if (atomic_load_explicit(known, memory_order_relaxed) != cpu)
        atomic_store_explicit(known, cpu, memory_order_relaxed);
}

static void leave_cpu(struct worker *w)
{
    int taken[MAX_THREADS], n = 0;
    int64_t now = now_ns();

    if (w->moved && now - w->moved < MOVE_NS)
        return;
    w->moved = now;
    for (int i = 0; i < w->pool->n_threads; i++)
        if (i != w->thread)
            taken[n++] = cpu_of(w->pool, i);
    if (processors_leave(taken, n))
        note_cpu(&w->cpu, processors_here());
}

/* Before each job, beside one of the threads with lower numbers in turn. */
static void keep_apart(struct worker *w)
{
    int here = processors_here();

    note_cpu(&w->cpu, here);
    if (here >= 0 && here == cpu_of(w->pool, (int)(w->n_jobs++ % (unsigned)w->thread)))
        leave_cpu(w);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    thread_pool *pool = w->pool;

    for (unsigned seen = 0;; seen++) {
        gate_wait(&pool->start, seen, pool->idle);
        if (pool->stop)
            return NULL;
        if (!pool->idle.crowded)
            keep_apart(w);
        pool->fn(pool->ctx, w->thread, pool->n_threads);
        if (atomic_fetch_sub(&pool->working, 1) == 1)
            gate_open(&pool->done);
    }
}

/* Workers, and tasks, take no signals: Ctrl-C belongs to the thread that called. What a thread does
 * itself comes to its program's handler; blocked, it would be deadly whatever there is. */
static void block_signals(sigset_t *before)
{
    static const int own[] = {SIGBUS, SIGFPE, SIGILL, SIGSEGV};
    sigset_t others;

    sigfillset(&others);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        sigdelset(&others, own[i]);
    pthread_sigmask(SIG_SETMASK, &others, before);
}

static int start_workers(thread_pool *pool)
{
    sigset_t before;
    int rc = 0;

    block_signals(&before);
    for (int i = 1; i < pool->n_threads && !rc; i++) {
        struct worker *w = &pool->workers[i - 1];

        w->pool = pool;
        w->thread = i;
        rc = pthread_create(&w->handle, NULL, worker_main, w);
        if (!rc)
            pool->n_started = i;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static thread_pool *pool_new(int n_threads)
{
    thread_pool *pool = mem_alloc_aligned(sizeof *pool);

    if (!pool)
        return NULL;
    memset(pool, 0, sizeof *pool);
    pool->workers = mem_alloc_aligned((size_t)n_threads * sizeof *pool->workers);
    if (!pool->workers)
        goto no_workers;
    memset(pool->workers, 0, (size_t)n_threads * sizeof *pool->workers);
    for (int i = 0; i < n_threads; i++)
        atomic_init(&pool->workers[i].cpu, -1);
    atomic_init(&pool->cpu, -1);
    if (gate_init(&pool->start))
        goto no_start;
    if (gate_init(&pool->done))
        goto no_done;
    if (gate_init(&pool->barrier))
        goto no_barrier;
    atomic_init(&pool->range.next, 0);
    atomic_init(&pool->working, 0);
    atomic_init(&pool->arrived, 0);
    pool->n_threads = n_threads;
    pool->idle.crowded = processors_allowed() < n_threads;
    pool->idle.ns = pool->idle.crowded ? SPIN_NS_CROWDED : SPIN_NS;
    pool->idle.sleep_ns = pool->idle.ns;
    pool->at_work = pool->idle;
    if (!pool->idle.crowded)
        pool->at_work.sleep_ns = SLEEP_NS_AT_WORK;
    return pool;

no_barrier:
    gate_release(&pool->done);
no_done:
    gate_release(&pool->start);
no_start:
    mem_free_aligned(pool->workers);
no_workers:
    mem_free_aligned(pool);
    return NULL;
}

thread_pool *thread_pool_open(int n_threads, clm_error *err)
{
    thread_pool *pool;
    int rc;

    if (n_threads < 0 || n_threads > MAX_THREADS)
        return fail_null(err, CLM_ERR_ARG, "%d threads: give 1 to %d, or 0 for one per core",
                         n_threads, MAX_THREADS);
    if (n_threads == 0)
        n_threads = thread_count_default();
    if (n_threads > MAX_THREADS)
        n_threads = MAX_THREADS;
    pool = pool_new(n_threads);
    if (!pool)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a pool of %d threads", n_threads);
    rc = start_workers(pool);
    if (rc) {
        fail(err, CLM_ERR_NOMEM, "cannot start thread %d of %d: %s; ask for fewer",
             pool->n_started + 2, n_threads, strerror(rc));
        thread_pool_close(pool);
        return NULL;
    }
    return pool;
}

void thread_pool_close(thread_pool *pool)
{
    if (!pool)
        return;
    pool->stop = true;
    gate_open(&pool->start);
    for (int i = 0; i < pool->n_started; i++)
        pthread_join(pool->workers[i].handle, NULL);
    gate_release(&pool->barrier);
    gate_release(&pool->done);
    gate_release(&pool->start);
    mem_free_aligned(pool->workers);
    mem_free_aligned(pool);
}

int thread_pool_size(const thread_pool *pool)
{
    return pool->n_threads;
}

void thread_pool_run(thread_pool *pool, thread_fn fn, void *ctx)
{
    unsigned done = gate_value(&pool->done);

    if (pool->n_threads == 1) {
        fn(ctx, 0, 1);
        return;
    }
    pool->fn = fn;
    pool->ctx = ctx;
    note_cpu(&pool->cpu, processors_here());
    atomic_store_explicit(&pool->working, pool->n_threads - 1, memory_order_relaxed);
    gate_open(&pool->start);
    fn(ctx, 0, pool->n_threads);
    gate_wait(&pool->done, done, pool->at_work);
}

static void run_piece(const struct range_job *job, int64_t piece, int thread)
{
    int64_t begin = piece * job->grain, left = job->n - begin;

    job->fn(job->ctx, begin, begin + (left < job->grain ? left : job->grain), thread);
}

static int64_t next_piece(struct range_job *job)
{
    return atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
}

static void range_thread(void *ctx, int thread, int n_threads)
{
    struct range_job *job = ctx;
    int64_t piece;

    (void)n_threads;
    while ((piece = next_piece(job)) < job->n_pieces)
        run_piece(job, piece, thread);
}

/* Parts are as long as each other, up to one piece; what they leave to all comes after the parts'
 * own pieces, a piece of each part in turn. */
static void own_thread(void *ctx, int thread, int n_threads)
{
    struct range_job *job = ctx;
    int64_t part = job->n_pieces / n_threads, own = part - part / 8;
    int64_t rest = job->n_pieces - own * n_threads, i;

    for (int64_t piece = 0; piece < own; piece++)
        run_piece(job, part * thread + piece, thread);
    while ((i = next_piece(job)) < rest) {
        int64_t of_parts = (part - own) * n_threads;

        run_piece(job,
                  i < of_parts ? part * (i % n_threads) + own + i / n_threads
                               : part * n_threads + i - of_parts,
                  thread);
    }
}

static void run_pieces(thread_pool *pool, int64_t n, int64_t grain, range_fn fn, void *ctx,
                       thread_fn in_thread)
{
    struct range_job *job = &pool->range;

    if (n <= 0)
        return;
    if (grain < 1)
        grain = 1;
    if (n <= grain) {
        fn(ctx, 0, n, 0);
        return;
    }
    job->n = n;
    job->grain = grain;
    job->n_pieces = (n - 1) / grain + 1;
    job->fn = fn;
    job->ctx = ctx;
    atomic_store_explicit(&job->next, 0, memory_order_relaxed);
    thread_pool_run(pool, in_thread, job);
}

void thread_pool_for(thread_pool *pool, int64_t n, int64_t grain, range_fn fn, void *ctx)
{
    run_pieces(pool, n, grain, fn, ctx, range_thread);
}

void thread_pool_for_own(thread_pool *pool, int64_t n, int64_t grain, range_fn fn, void *ctx)
{
    run_pieces(pool, n, grain, fn, ctx, own_thread);
}

void thread_pool_barrier(thread_pool *pool)
{
    unsigned phase = gate_value(&pool->barrier);

    if (atomic_fetch_add(&pool->arrived, 1) + 1 < pool->n_threads) {
        gate_wait(&pool->barrier, phase, pool->at_work);
        return;
    }
    atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
    gate_open(&pool->barrier);
}

struct thread_task {
    pthread_t handle;
    void (*fn)(void *ctx);
    void *ctx;
};

static void *task_main(void *argument)
{
    thread_task *task = argument;

    task->fn(task->ctx);
    return NULL;
}

thread_task *thread_task_start(void (*fn)(void *ctx), void *ctx, clm_error *err)
{
    thread_task *task = mem_zeroed(1, sizeof *task);
    sigset_t before;
    int rc;

    if (!task)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a thread");
    task->fn = fn;
    task->ctx = ctx;
    block_signals(&before);
    rc = pthread_create(&task->handle, NULL, task_main, task);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!rc)
        return task;
    mem_free(task);
    return fail_null(err, CLM_ERR_NOMEM, "a thread cannot be started: %s", strerror(rc));
}

void thread_task_join(thread_task *task)
{
    if (!task)
        return;
    pthread_join(task->handle, NULL);
    mem_free(task);
}
