/* base/thread.h: a pool of threads that stay, spin briefly for work, then sleep. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <stdint.h>

#include "base/error.h"

typedef struct thread_pool thread_pool;

/* Physical cores this process may run on (affinity and cgroup quota respected), at least 1. */
int thread_count_default(void);

/* n_threads counts the caller; 0 chooses thread_count_default(). */
thread_pool *thread_pool_open(int n_threads, clm_error *err);
void thread_pool_close(thread_pool *pool); /* NULL is fine */
int thread_pool_size(const thread_pool *pool);

/**
 * Run fn(ctx, thread, n_threads) once on every thread of the pool, the caller being thread 0;
 * returns when all have returned. One caller at a time; not from inside fn.
 */
typedef void (*thread_fn)(void *ctx, int thread, int n_threads);
void thread_pool_run(thread_pool *pool, thread_fn fn, void *ctx);

/**
 * Cut [0, n) into pieces of at most grain items and run fn(ctx, begin, end, thread) on them, each
 * thread taking the next piece when it is done with its last; returns when all are done.
 * n <= grain runs on the caller without waking anyone.
 */
typedef void (*range_fn)(void *ctx, int64_t begin, int64_t end, int thread);
void thread_pool_for(thread_pool *pool, int64_t n, int64_t grain, range_fn fn, void *ctx);

/**
 * The same, but that each thread begins with a part of [0, n) of its own, the same one in every
 * call with this n and grain, and goes through it in order; the last eighth is for whoever is free.
 * For memory that is read in order, and that the same thread has written before.
 */
void thread_pool_for_own(thread_pool *pool, int64_t n, int64_t grain, range_fn fn, void *ctx);

/* All threads of a running thread_pool_run meet here before any goes on. */
void thread_pool_barrier(thread_pool *pool);

/* A thread that runs fn(ctx) once. NULL with *err where there can be none. */
typedef struct thread_task thread_task;

thread_task *thread_task_start(void (*fn)(void *ctx), void *ctx, clm_error *err);
void thread_task_join(thread_task *task); /* waits for its end; NULL is fine */

#endif
