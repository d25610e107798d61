#include <sched.h>
#include <string.h>

#include "base/memory.h"
#include "base/processors.h"
#include "base/thread.h"

#include "temporary.h"
#include "testing.h"

static void write_siblings(int cpu, const char *list)
{
    char name[128];

    snprintf(name, sizeof name, "sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    temporary_write(name, list);
}

/* Eight CPUs, four cores: 0 with 4, 1 with 5, and so on. */
static void write_topology(void)
{
    for (int i = 0; i < 8; i++) {
        char list[16];

        snprintf(list, sizeof list, "%d,%d\n", i % 4, i % 4 + 4);
        write_siblings(i, list);
    }
}

static int usable(const char *allowed)
{
    bool set[64] = {false};
    int n = (int)strlen(allowed);

    for (int i = 0; i < n; i++)
        set[i] = allowed[i] == '1';
    return processors_usable(temporary_folder, set, n);
}

static void test_cores(void **state)
{
    (void)state;
    temporary_clear();
    write_topology();
    assert_int_equal(usable("11111111"), 4);
    assert_int_equal(usable("10001000"), 1);
    assert_int_equal(usable("00001111"), 4); /* the second threads of all cores */
    assert_int_equal(usable("01100001"), 3);
    assert_int_equal(usable("00000000"), 1);
    write_siblings(0, "0-1,4-5\n"); /* four threads in a core */
    write_siblings(1, "0-1,4-5\n");
    write_siblings(4, "0-1,4-5\n");
    write_siblings(5, "0-1,4-5\n");
    assert_int_equal(usable("11111111"), 3);
    assert_int_equal(usable("01001100"), 1);
}

static void test_without_topology(void **state)
{
    (void)state;
    temporary_clear();
    assert_int_equal(usable("1111"), 4);
    write_siblings(1, "rubbish");
    write_siblings(2, "");
    write_siblings(3, "9-");
    assert_int_equal(usable("1111"), 4);
}

static void test_quota_v2(void **state)
{
    static const struct {
        const char *inner, *outer;
        int cores;
    } cases[] = {
        {"max 100000\n", "max 100000\n", 4},       {"200000 100000\n", "max 100000\n", 2},
        {"150000 100000\n", "max 100000\n", 2},    {"max 100000\n", "100000 100000\n", 1},
        {"300000 100000\n", "200000 100000\n", 2}, {"1000 100000\n", "max 100000\n", 1},
        {"900000 100000\n", "max 100000\n", 4},    {"rubbish\n", "-1 0\n", 4},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        int cores;

        temporary_clear();
        write_topology();
        temporary_write("proc/self/cgroup", "0::/outer/inner\n");
        temporary_write("sys/fs/cgroup/outer/cpu.max", cases[i].outer);
        temporary_write("sys/fs/cgroup/outer/inner/cpu.max", cases[i].inner);
        cores = usable("11111111");
        CHECK(cores == cases[i].cores, "case %zu: %d", i, cores);
    }
}

/* In a container the group's path may be the host's; the quota stands at the mount point. */
static void test_quota_of_a_container(void **state)
{
    (void)state;
    temporary_clear();
    write_topology();
    temporary_write("proc/self/cgroup", "0::/host/only/path\n");
    temporary_write("sys/fs/cgroup/cpu.max", "300000 100000\n");
    assert_int_equal(usable("11111111"), 3);
    temporary_write("proc/self/cgroup", "0::/\n");
    assert_int_equal(usable("11111111"), 3);
}

static void test_quota_v1(void **state)
{
    (void)state;
    temporary_clear();
    write_topology();
    temporary_write("proc/self/cgroup", "12:memory:/a\n5:cpu,cpuacct:/a\n4:cpuset:/a\n");
    temporary_write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "250000\n");
    temporary_write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
    temporary_write("sys/fs/cgroup/cpuset/a/cpu.cfs_quota_us", "100000\n");
    temporary_write("sys/fs/cgroup/cpuset/a/cpu.cfs_period_us", "100000\n");
    assert_int_equal(usable("11111111"), 3);
    temporary_write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(usable("11111111"), 4);
}

static void test_broken_cgroup_file(void **state)
{
    (void)state;
    temporary_clear();
    write_topology();
    temporary_write("proc/self/cgroup", "\n:\nno colons\n0::\n::::\n");
    assert_int_equal(usable("11111111"), 4);
}

static void test_this_machine(void **state)
{
    int cores = thread_count_default(), cpus = processors_allowed();

    (void)state;
    CHECK(cores >= 1 && cores <= cpus, "%d cores among %d CPUs", cores, cpus);
}

#ifdef __linux__
/* With all CPUs taken but the n-th allowed one; -1: all. */
static bool leave_for(int nth, int *to)
{
    cpu_set_t allowed;
    int taken[CPU_SETSIZE], n = 0, seen = 0;

    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &allowed) && seen++ == nth)
            *to = i;
        else
            taken[n++] = i;
    return processors_leave(taken, n);
}

/* Where the kernel may move it on at once, so that a few tries count. */
static void test_leave(void **state)
{
    cpu_set_t before, after;
    int to = -1;

    (void)state;
    if (processors_here() < 0)
        skip();
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_false(leave_for(-1, &to));
    for (int i = 0; i < CPU_COUNT(&before); i++) {
        bool moved = false;

        for (int try = 0; try < 100 && !moved; try++) {
            assert_true(leave_for(i, &to));
            moved = processors_here() == to;
        }
        CHECK(moved, "never on CPU %d", to);
        assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
        assert_true(CPU_EQUAL(&before, &after));
    }
    assert_true(processors_leave((const int[]){-1, 1 << 30}, 2)); /* no CPU's numbers */
}
#else
static void test_leave(void **state)
{
    (void)state;
    skip();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cores),        cmocka_unit_test(test_without_topology),
        cmocka_unit_test(test_quota_v2),     cmocka_unit_test(test_quota_of_a_container),
        cmocka_unit_test(test_quota_v1),     cmocka_unit_test(test_broken_cgroup_file),
        cmocka_unit_test(test_this_machine), cmocka_unit_test(test_leave),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
