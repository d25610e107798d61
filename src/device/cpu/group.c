/* device/cpu/group.c: CPUs that compute one model together, each on threads of its own: sums in
 * memory that all of them see.
 *
 * A group outlives none of its devices: the last to be closed releases it.
 */
#include <pthread.h>

#include "base/memory.h"
#include "device/cpu/cpu.h"
#include "device/cpu/ops.h"

struct cpu_group {
    pthread_mutex_t mutex;
    pthread_cond_t moved; /* the meeting is over, or one has left */
    int n, n_open;
    int n_here;        /* of the meeting at hand */
    unsigned meetings; /* that are over */
    bool left;
    tensor *x[DEVICE_MAX_GROUP]; /* of the sum at work, by rank */
};

int cpu_join(device *const *ds, int n, clm_error *err)
{
    struct cpu_group *g = mem_zeroed(1, sizeof *g);

    if (!g)
        return fail(err, CLM_ERR_NOMEM, "cpu: no memory for a group of %d", n);
    if (pthread_mutex_init(&g->mutex, NULL)) {
        mem_free(g);
        return fail(err, CLM_ERR_NOMEM, "cpu: no lock for a group of %d", n);
    }
    if (pthread_cond_init(&g->moved, NULL)) {
        pthread_mutex_destroy(&g->mutex);
        mem_free(g);
        return fail(err, CLM_ERR_NOMEM, "cpu: no lock for a group of %d", n);
    }
    g->n = g->n_open = n;
    for (int i = 0; i < n; i++) {
        cpu_device_of(ds[i])->group = g;
        cpu_device_of(ds[i])->rank = i;
    }
    return 0;
}

void cpu_group_close(struct cpu_device *c)
{
    struct cpu_group *g = c->group;

    c->group = NULL;
    if (!g || --g->n_open > 0)
        return;
    pthread_cond_destroy(&g->moved);
    pthread_mutex_destroy(&g->mutex);
    mem_free(g);
}

/* Waits until all of the group are here; false: one has left, or does while the others wait. */
static bool meet(struct cpu_group *g)
{
    unsigned meeting;
    bool all;

    pthread_mutex_lock(&g->mutex);
    meeting = g->meetings;
    if (!g->left && ++g->n_here == g->n) {
        g->n_here = 0;
        g->meetings++;
        pthread_cond_broadcast(&g->moved);
    }
    while (!g->left && g->meetings == meeting)
        pthread_cond_wait(&g->moved, &g->mutex);
    all = g->meetings != meeting;
    pthread_mutex_unlock(&g->mutex);
    return all;
}

/* Numbers [begin, end) of the sum, to all tensors. */
static void sum_range(tensor *const *x, int n, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++) {
        float sum = ((const float *)x[0]->data)[i];

        for (int r = 1; r < n; r++)
            sum += ((const float *)x[r]->data)[i];
        for (int r = 0; r < n; r++)
            ((float *)x[r]->data)[i] = sum;
    }
}

void cpu_all_reduce(device *d, tensor *x)
{
    struct cpu_device *c = cpu_device_of(d);
    struct cpu_group *g = c->group;
    int64_t size = (int64_t)x->rows * x->cols;
    bool met;

    if (!g)
        return;
    g->x[c->rank] = x;
    met = meet(g);
    if (met) {
        /* Each sums a share of the numbers, which no other reads or writes. */
        sum_range(g->x, g->n, size * c->rank / g->n, size * (c->rank + 1) / g->n);
        met = meet(g);
    }
    if (!met)
        fail(&c->failure, CLM_ERR_DEVICE, "cpu: another device of its group has failed");
}

void cpu_leave(device *d)
{
    struct cpu_group *g = cpu_device_of(d)->group;

    if (!g)
        return;
    pthread_mutex_lock(&g->mutex);
    g->left = true;
    pthread_cond_broadcast(&g->moved);
    pthread_mutex_unlock(&g->mutex);
}

int cpu_rejoin(device *d, clm_error *err)
{
    struct cpu_group *g = cpu_device_of(d)->group;

    (void)err;
    if (!g)
        return 0;
    pthread_mutex_lock(&g->mutex);
    g->left = false;
    g->n_here = 0;
    pthread_mutex_unlock(&g->mutex);
    return 0;
}
