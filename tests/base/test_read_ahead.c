#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/read_ahead.h"

#include "temporary.h"
#include "testing.h"

enum { SIZE = (9 << 20) + 1234 };

/* The part of a map's pages that are in memory. */
static double resident(const struct file_map *map)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (map->size + page - 1) / page, there = 0;
    unsigned char *pages = mem_alloc(n);

    assert_int_equal(mincore((void *)map->data, map->size, pages), 0);
    for (size_t i = 0; i < n; i++)
        there += pages[i] & 1;
    mem_free(pages);
    return (double)there / (double)n;
}

/* A file that is not in memory, mapped; tests are skipped where there is no disk. */
static struct file_map cold_map(void)
{
    const char *path = temporary_path("cold");
    struct file_map map;
    clm_error err = {0};
    char *data = mem_zeroed(1, SIZE);
    FILE *f = fopen(path, "wb");
    int fd;

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, SIZE, f), SIZE);
    assert_int_equal(fclose(f), 0);
    mem_free(data);
    fd = open(path, O_RDONLY);
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
    CHECK(file_map(&map, path, &err) == 0, "%s", err.message);
    if (resident(&map) > 0) {
        file_unmap(&map);
        skip();
    }
    return map;
}

struct told {
    size_t last, total, most; /* most: where to stop */
    int times;
};

static bool tell(void *ctx, size_t done, size_t total)
{
    struct told *t = ctx;

    CHECK(done > t->last && done <= total && (t->times == 0 || total == t->total), "%zu of %zu",
          done, total);
    t->last = done;
    t->total = total;
    t->times++;
    return done < t->most;
}

static void test_whole(void **state)
{
    struct file_map map = cold_map();
    struct file_part part = {map.data, map.size};
    struct told told = {.most = SIZE_MAX};

    (void)state;
    CHECK(!map.in_memory, "on a disk");
    CHECK(read_ahead_wanted(&part, 1), "nothing is there");
    CHECK(read_ahead(&part, 1, tell, &told), "to the end");
    CHECK(resident(&map) == 1, "%g is there", resident(&map));
    CHECK(!read_ahead_wanted(&part, 1), "all is there");
    CHECK(told.total >= SIZE && told.total < SIZE + 65536, "%zu bytes", told.total);
    CHECK(map.data[0] == 0 && map.data[SIZE - 1] == 0, "what was written");
    file_unmap(&map);
}

/* Parts that begin and end within pages; those between them stay on the disk. */
static void test_parts(void **state)
{
    struct file_map map = cold_map();
    struct file_part parts[] = {
        {map.data + 100, 50}, {map.data + (1 << 20) + 1, 5000}, {map.data + SIZE - 10, 10}, {0}};
    struct told told = {.most = SIZE_MAX};

    (void)state;
    CHECK(read_ahead_wanted(parts, 4), "nothing is there");
    CHECK(read_ahead(parts, 4, tell, &told), "to the end");
    for (int i = 0; i < 3; i++)
        CHECK(!read_ahead_wanted(&parts[i], 1), "part %d", i);
    CHECK(!read_ahead_wanted(parts + 3, 1) && !read_ahead_wanted(parts, 0), "nothing is wanted");
    CHECK(read_ahead(parts + 3, 1, tell, &told), "nothing to read");
    file_unmap(&map);
}

/* Where it is told to stop, most is left. */
static void test_stopped(void **state)
{
    struct file_map map = cold_map();
    struct file_part part = {map.data, map.size};
    struct told told = {.most = 0};

    (void)state;
    /* The calling thread may find nothing left to do, when all is read without it being asked. */
    CHECK(!read_ahead(&part, 1, tell, &told) == (told.times == 1), "told %d times", told.times);
    file_unmap(&map);
}

static void test_no_memory(void **state)
{
    struct file_map map = cold_map();
    struct file_part part = {map.data, map.size};
    struct told told = {.most = SIZE_MAX};
    bool failed = true;

    (void)state;
    for (long n = 0; failed; n++) {
        told = (struct told){.most = SIZE_MAX};
        mem_fail_after(n);
        CHECK(read_ahead(&part, 1, tell, &told), "allocation %ld", n);
        failed = mem_fail_after(-1);
    }
    CHECK(resident(&map) == 1, "%g is there", resident(&map));
    file_unmap(&map);
}

struct count {
    int asked, most;
};

static bool ask(void *ctx)
{
    struct count *c = ctx;

    return c->asked++ < c->most;
}

/* Mapping reads what is not there too; each step is asked for, and the last one left. */
static void test_map_ahead(void **state)
{
    struct file_map map = cold_map();
    const uint8_t *far = map.data + (4 << 20);
    struct file_part parts[] = {{map.data, 1}, {far, 2 * MAP_AHEAD}, {0}};
    struct file_part used[] = {{map.data, 1}, {far, 1}, {far + MAP_AHEAD, 1}};
    struct count count = {.most = 2};

    (void)state;
    map_ahead(parts, 3, ask, &count);
    CHECK(count.asked == 3, "asked %d times", count.asked);
    CHECK(!read_ahead_wanted(used, 2), "two are there");
    count = (struct count){.most = 100};
    map_ahead(parts, 3, ask, &count);
    CHECK(count.asked == 3 && !read_ahead_wanted(used, 3), "asked %d times", count.asked);
    file_unmap(&map);
}

static void test_in_memory(void **state)
{
    char path[] = "/dev/shm/clm-XXXXXX";
    int fd = mkstemp(path);
    struct file_map map;

    (void)state;
    if (fd < 0)
        skip();
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
    assert_int_equal(file_map(&map, path, NULL), 0);
    unlink(path);
    CHECK(map.in_memory, "%s", path);
    file_unmap(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),     cmocka_unit_test(test_parts),
        cmocka_unit_test(test_stopped),   cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_map_ahead), cmocka_unit_test(test_in_memory),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
