/* Devices in a group, CPUs or what CLM_DEVICE names: exact sums are the same bits on all of them
 * and those of adding in order; one that leaves wakes the others, and the group can begin anew. */
#include <pthread.h>
#include <string.h>

#include "device/device.h"
#include "testing.h"

enum { ROWS = 3, COLS = 37, N = ROWS * COLS, ROUNDS = 50 };

struct member {
    device *d;
    pthread_t thread;
    float x[N], *on_device;
    int n_sums; /* to make before it leaves */
    int rc;     /* of sync after the last of them */
    clm_error err;
};

static void *work(void *arg)
{
    struct member *m = arg;
    tensor x = {m->on_device, DTYPE_F32, ROWS, COLS, COLS};

    m->d->ops->upload(m->d, m->on_device, m->x, sizeof m->x);
    for (int i = 0; i < m->n_sums; i++)
        m->d->ops->all_reduce(m->d, &x);
    m->d->ops->download(m->d, m->x, m->on_device, sizeof m->x);
    m->rc = m->d->ops->sync(m->d, &m->err);
    if (m->n_sums < ROUNDS)
        m->d->ops->leave(m->d);
    return NULL;
}

static void run(struct member *members, int n)
{
    for (int i = 0; i < n; i++)
        CHECK(pthread_create(&members[i].thread, NULL, work, &members[i]) == 0, "no thread");
    for (int i = 0; i < n; i++)
        pthread_join(members[i].thread, NULL);
}

/* What one sum after another gives, by adding in order. */
static void expect(const struct member *members, int n, int n_sums, float *want)
{
    float x[DEVICE_MAX_GROUP];

    for (int i = 0; i < N; i++) {
        for (int r = 0; r < n; r++)
            x[r] = members[r].x[i];
        for (int s = 0; s < n_sums; s++) {
            float sum = x[0];

            for (int r = 1; r < n; r++)
                sum += x[r];
            for (int r = 0; r < n; r++)
                x[r] = sum;
        }
        want[i] = x[0];
    }
}

static const char *kind(void)
{
    return getenv("CLM_DEVICE") ? NULL : "cpu";
}

/* False: there are not so many. */
static bool open_members(struct member *members, int n)
{
    device *ds[DEVICE_MAX_GROUP];
    clm_error err = {0};

    if (device_open_group(ds, n, kind(), n, &err)) {
        CHECK(!kind() && err.code == CLM_ERR_ARG && strstr(err.message, "no more"), "%s",
              err.message);
        return false;
    }
    for (int r = 0; r < n; r++) {
        members[r] = (struct member){.d = ds[r], .n_sums = ROUNDS};
        ds[r]->ops->set_exact(ds[r], true);
        members[r].on_device = ds[r]->ops->alloc(ds[r], sizeof members[r].x, &err);
        CHECK(members[r].on_device, "%s", err.message);
        for (int i = 0; i < N; i++)
            members[r].x[i] = (float)((i * 7919 + r * 104729) % 2003) * 1e-3f - 1;
    }
    return true;
}

static void close_members(struct member *members, int n)
{
    for (int r = 0; r < n; r++) {
        members[r].d->ops->free(members[r].d, members[r].on_device);
        members[r].d->ops->close(members[r].d);
    }
}

static void test_sums(void **state)
{
    struct member members[DEVICE_MAX_GROUP];
    float want[N];

    (void)state;
    for (int n = 1; n <= DEVICE_MAX_GROUP && open_members(members, n); n++) {
        expect(members, n, n > 1 ? ROUNDS : 0, want);
        run(members, n);
        for (int r = 0; r < n; r++) {
            CHECK(members[r].rc == 0, "%s", members[r].err.message);
            CHECK(!memcmp(members[r].x, want, sizeof want), "device %d of %d: other bits", r, n);
        }
        close_members(members, n);
    }
}

/* Whoever waits for one that has left fails; the next time all is well again. */
static void test_leaving(void **state)
{
    struct member members[3];
    clm_error err = {0};

    (void)state;
    for (int gone = 0, n = 3; gone < n; gone++) {
        if (!open_members(members, n) && (--n < 2 || !open_members(members, n)))
            return;
        members[gone].n_sums = 5;
        run(members, n);
        for (int r = 0; r < n; r++)
            CHECK(r == gone ? members[r].rc == 0
                            : members[r].rc != 0 && members[r].err.code == CLM_ERR_DEVICE &&
                                  strstr(members[r].err.message, "of its group has failed"),
                  "device %d: %s", r, members[r].err.message);
        CHECK(members[0].d->ops->rejoin(members[0].d, &err) == 0, "%s", err.message);
        members[gone].n_sums = ROUNDS;
        run(members, n);
        for (int r = 0; r < n; r++)
            CHECK(members[r].rc == 0 && !memcmp(members[r].x, members[0].x, sizeof members[r].x),
                  "device %d: %s", r, members[r].err.message);
        close_members(members, n);
    }
}

static void test_sizes(void **state)
{
    static const int bad[] = {-1, 0, DEVICE_MAX_GROUP + 1};
    device *ds[DEVICE_MAX_GROUP + 1];
    clm_error err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(device_open_group(ds, bad[i], "cpu", 1, &err) && err.code == CLM_ERR_ARG, "%s",
              err.message);
        err = (clm_error){0};
    }
    CHECK(device_open_group(ds, 2, "nothing", 1, &err) && err.code == CLM_ERR_ARG, "%s",
          err.message);
    CHECK(device_open_group(ds, 2, "cpu", 5, &err) == 0 && device_cpu_threads(ds[1]) == 2, "%s",
          err.message);
    for (int i = 0; i < 2; i++)
        ds[i]->ops->close(ds[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
