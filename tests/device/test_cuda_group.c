/* GPUs that reach each other's memory, all of them the first one, or two where there are: their
 * sums are those of adding in order, bit for bit on all, alone and with an addition that goes
 * along, whatever the sizes. */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/memory.h"
#include "device/device.h"
#include "testing.h"

enum {
    MOST = 5,
    ROUNDS = 12,
    PIECE = 32 << 10 /* bytes that go to the GPU and back by a kernel */
};

struct shape {
    int rows, cols, gap; /* between rows of what the sum is added to */
};

struct member {
    device *d;
    pthread_t thread;
    tensor x, y; /* on the device */
    float *host_x, *host_y;
    int n_sums; /* then it leaves, if they are fewer than ROUNDS */
    bool
        wait; /* after each launch: early ones of many blocks leave the others no room on one GPU */
    int rc;
    clm_error err;
};

static size_t size_of(const tensor *t)
{
    return ((size_t)(t->rows - 1) * (size_t)t->stride + (size_t)t->cols) * sizeof(float);
}

/* Each time x becomes the sum and y += x / 2; every third time something lies between. */
static void *work(void *arg)
{
    struct member *m = arg;
    const struct device_ops *ops = m->d->ops;

    for (int i = 0; i < m->n_sums; i++) {
        ops->all_reduce(m->d, &m->x);
        if (i % 3 == 2 && m->wait)
            (void)ops->sync(m->d, &m->err);
        if (i % 3 == 2)
            ops->scale(m->d, &m->x, 0.25F);
        ops->add(m->d, &m->y, &m->x, 0.5F);
        if (m->wait)
            (void)ops->sync(m->d, &m->err);
    }
    m->rc = ops->sync(m->d, &m->err);
    if (m->n_sums < ROUNDS)
        ops->leave(m->d);
    return NULL;
}

static void run(struct member *members, int n)
{
    for (int i = 0; i < n; i++)
        CHECK(pthread_create(&members[i].thread, NULL, work, &members[i]) == 0, "no thread");
    for (int i = 0; i < n; i++)
        pthread_join(members[i].thread, NULL);
}

static void move(struct member *m, tensor *t, float *host, bool up)
{
    size_t size = size_of(t);

    for (size_t at = 0; at < size; at += PIECE) {
        size_t n = size - at < PIECE ? size - at : PIECE;
        char *there = (char *)t->data + at, *here = (char *)host + at;

        if (up)
            m->d->ops->upload(m->d, there, here, n);
        else
            m->d->ops->download(m->d, here, there, n);
    }
    CHECK(m->d->ops->sync(m->d, &m->err) == 0, "%s", m->err.message);
}

static void make(struct member *m, tensor *t, float **host, int rows, int cols, int stride)
{
    clm_error err = {0};

    *t = (tensor){NULL, DTYPE_F32, rows, cols, stride};
    *host = mem_alloc(size_of(t));
    t->data = m->d->ops->alloc(m->d, size_of(t), &err);
    CHECK(*host && t->data, "%s", err.message);
    random_floats(*host, size_of(t) / sizeof(float));
    move(m, t, *host, true);
}

static void empty(struct member *members, int n)
{
    for (int r = 0; r < n; r++) {
        members[r].d->ops->free(members[r].d, members[r].x.data);
        members[r].d->ops->free(members[r].d, members[r].y.data);
        mem_free(members[r].host_x);
        mem_free(members[r].host_y);
    }
}

/* All that work() asks for of a device that is alone, so that what CUDA does the first time it does
 * before one waits for another: it may wait for the whole GPU, which all share here. */
static void warm_up(device *d)
{
    struct member m = {.d = d, .n_sums = ROUNDS};

    make(&m, &m.x, &m.host_x, 3, 64, 64);
    make(&m, &m.y, &m.host_y, 3, 64, 64);
    work(&m);
    CHECK(m.rc == 0, "%s", m.err.message);
    move(&m, &m.y, m.host_y, false);
    empty(&m, 1);
}

static void close_members(struct member *members, int n)
{
    for (int r = 0; r < n; r++)
        members[r].d->ops->close(members[r].d);
}

/* A group of n, on a GPU each or all on the first; false: there are no such GPUs. */
static bool open_members(struct member *members, int n, bool apart)
{
    device *ds[MOST];
    clm_error err = {0};

    setenv("CUDA_MODULE_LOADING", "EAGER", 1);
    for (int r = 0; r < n; r++) {
        ds[r] = device_cuda_open_at(apart ? r : 0, &err);
        if (!ds[r]) {
            print_message("%s\n", err.message);
            close_members(members, r);
            return false;
        }
        members[r] = (struct member){.d = ds[r], .n_sums = ROUNDS};
        warm_up(ds[r]);
    }
    CHECK(ds[0]->ops->join(ds, n, &err) == 0, "%s", err.message);
    return true;
}

static void fill(struct member *members, int n, struct shape s, bool wait)
{
    for (int r = 0; r < n; r++) {
        struct member *m = &members[r];

        m->wait = wait;
        make(m, &m->x, &m->host_x, s.rows, s.cols, s.cols);
        make(m, &m->y, &m->host_y, s.rows, s.cols, s.cols + s.gap);
    }
}

/* What work() makes of one number of x, and of y. */
static void expect(const struct member *members, int n, size_t i, float *sum, float y[MOST],
                   size_t at)
{
    float x[MOST];

    for (int r = 0; r < n; r++) {
        x[r] = members[r].host_x[i];
        y[r] = members[r].host_y[at];
    }
    for (int round = 0; round < ROUNDS; round++) {
        *sum = x[0];
        for (int r = 1; r < n; r++)
            *sum += x[r];
        if (round % 3 == 2)
            *sum *= 0.25F;
        for (int r = 0; r < n; r++) {
            x[r] = *sum;
            y[r] += 0.5F * *sum;
        }
    }
}

static bool same(float a, float b)
{
    return a == b || (isnan(a) && isnan(b));
}

static void check(struct member *members, int n, struct shape s)
{
    float *x[MOST], *y[MOST], sum, want[MOST];

    for (int r = 0; r < n; r++) {
        struct member *m = &members[r];

        CHECK(m->rc == 0, "%s", m->err.message);
        x[r] = mem_alloc(size_of(&m->x));
        y[r] = mem_alloc(size_of(&m->y));
        CHECK(x[r] && y[r], "no memory");
        move(m, &m->x, x[r], false);
        move(m, &m->y, y[r], false);
        CHECK(!memcmp(x[r], x[0], size_of(&m->x)), "member %d of %d: other bits", r, n);
    }
    for (int row = 0; row < s.rows; row++)
        for (int col = 0; col < s.cols; col++) {
            size_t i = (size_t)row * (size_t)s.cols + (size_t)col;
            size_t at = i + (size_t)row * (size_t)s.gap;

            expect(members, n, i, &sum, want, at);
            for (int r = 0; r < n; r++)
                CHECK(same(x[r][i], sum) && same(y[r][at], want[r]),
                      "[%d, %d], member %d of %d: %g and %g, not %g and %g", row, col, r, n,
                      (double)x[r][i], (double)y[r][at], (double)sum, (double)want[r]);
        }
    for (int r = 0; r < n; r++) {
        mem_free(x[r]);
        mem_free(y[r]);
    }
}

/* Numbers that are none come through, that among them by which a place is known to be empty. */
static void put_strange(struct member *m)
{
    static const uint32_t strange[] = {0xFFFFFFFF, 0x7FC00000, 0x7F800000, 0xFF800000, 0x80000000};

    memcpy(m->host_x, strange, sizeof strange);
    move(m, &m->x, m->host_x, true);
}

static void check_shapes(struct member *members, int n, const struct shape *shapes, size_t n_shapes,
                         bool wait)
{
    for (size_t i = 0; i < n_shapes; i++) {
        fill(members, n, shapes[i], wait);
        put_strange(&members[n - 1]);
        run(members, n);
        check(members, n, shapes[i]);
        empty(members, n);
    }
}

static const struct shape small[] = {{1, 4096, 0}, {1, 5, 0},    {3, 37, 0},  {3, 37, 1},
                                     {7, 64, 4},   {2, 4098, 2}, {1, 2048, 0}};
static const struct shape middle[] = {{16, 4096, 8}, {64, 4096, 0}, {300, 4096, 4}};
static const struct shape large[] = {{2049, 4096, 4}};

static void test_sums(void **state)
{
    (void)state;
    for (int n = 2; n <= MOST; n++) {
        struct member members[MOST];

        if (!open_members(members, n, false))
            skip();
        check_shapes(members, n, small, COUNT(small), false);
        if (n == 2)
            check_shapes(members, n, middle, COUNT(middle), true);
        close_members(members, n);
    }
}

static void test_two_gpus(void **state)
{
    struct member members[MOST];

    (void)state;
    if (!open_members(members, 2, true))
        skip();
    check_shapes(members, 2, small, COUNT(small), false);
    check_shapes(members, 2, middle, COUNT(middle), false);
    check_shapes(members, 2, large, COUNT(large), false);
    close_members(members, 2);
}

/* Whoever waits for one that has left fails; the next time all is well again. */
static void test_leaving(void **state)
{
    static const struct shape shape = {2, 1024, 0};
    struct member members[MOST];
    clm_error err = {0};

    (void)state;
    for (int gone = 0, n = 3; gone < n; gone++) {
        if (!open_members(members, n, false))
            skip();
        fill(members, n, shape, false);
        members[gone].n_sums = 5;
        run(members, n);
        for (int r = 0; r < n; r++)
            CHECK(r == gone ? members[r].rc == 0
                            : members[r].rc != 0 && members[r].err.code == CLM_ERR_DEVICE &&
                                  strstr(members[r].err.message, "of its group has failed"),
                  "member %d: %s", r, members[r].err.message);
        CHECK(members[0].d->ops->rejoin(members[0].d, &err) == 0, "%s", err.message);
        members[gone].n_sums = ROUNDS;
        empty(members, n);
        fill(members, n, shape, false);
        run(members, n);
        check(members, n, shape);
        empty(members, n);
        close_members(members, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_two_gpus),
        cmocka_unit_test(test_leaving),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
