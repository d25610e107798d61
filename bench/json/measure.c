/* bench/json/measure.c: what a JSON library costs on a tokenizer.json, and what it takes.
 *
 * `measure FILE` reports the time to parse, the heap that the document keeps, by how much parsing
 * raised the peak of the process, the times to walk it and to free it, and what stays resident
 * then. `measure FILE N` looks up N names of model.vocab besides (the peak then means nothing).
 * Without arguments it shows what becomes of hostile input.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "measure.h"

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static char *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    char *text;

    if (!f) {
        perror(path);
        exit(1);
    }
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    text = malloc(*size + 1);
    if (!text || fread(text, 1, *size, f) != *size)
        exit(1);
    text[*size] = '\0';
    fclose(f);
    return text;
}

/* The names of model.vocab, in a scattered order, so that a lookup cannot follow the file. */
static char **vocab_keys(const char *text, size_t size, size_t *n)
{
    enum { MAX = 200000 };
    void *root = library_parse(text, size);
    char **keys = malloc(MAX * sizeof *keys), **scattered = malloc(MAX * sizeof *keys);

    if (!root || !keys || !scattered)
        exit(1);
    *n = library_vocab(root, keys, MAX);
    for (size_t i = 0; i < *n; i++)
        scattered[i * 7919 % *n] = keys[i]; /* 7919 is a prime: no place is taken twice */
    library_release(root);
    free(keys);
    malloc_trim(0);
    return scattered;
}

static long peak_kib(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

/* What of the process is in memory now. */
static double resident_mib(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long total = 0, pages = 0;

    if (!f || fscanf(f, "%ld %ld", &total, &pages) != 2)
        exit(1);
    fclose(f);
    return (double)(pages * sysconf(_SC_PAGESIZE)) / 1048576;
}

static void measure(const char *path, size_t n_keys)
{
    size_t size, n_vocab = 0, before, values;
    char *text = read_file(path, &size);
    char **keys = n_keys ? vocab_keys(text, size, &n_vocab) : NULL;
    long peak = peak_kib();
    double t[6], resident = resident_mib();
    void *root;
    long long sum = 0;

    if (n_keys > n_vocab)
        n_keys = n_vocab;
    before = mallinfo2().uordblks + mallinfo2().hblkhd;
    t[0] = now();
    root = library_parse(text, size);
    t[1] = now();
    if (!root)
        exit(1);
    printf(
        "%.1f MB, parse %.1f ms (%.0f MB/s), kept %.1f MiB, peak of the process grew by %.1f MiB\n",
        (double)size / 1e6, t[1] - t[0], (double)size / 1e3 / (t[1] - t[0]),
        (double)(mallinfo2().uordblks + mallinfo2().hblkhd - before) / 1048576,
        (double)(peak_kib() - peak) / 1024);
    t[2] = now();
    values = library_walk(root);
    t[3] = now();
    printf("    walk %zu values %.1f ms", values, t[3] - t[2]);
    if (n_keys) {
        t[2] = now();
        sum = library_lookup(root, keys, n_keys);
        t[3] = now();
        printf(", %zu lookups %.0f ns each (sum %lld)", n_keys,
               (t[3] - t[2]) * 1e6 / (double)n_keys, sum);
    }
    t[4] = now();
    library_release(root);
    t[5] = now();
    printf(", free %.1f ms, still resident %.1f MiB\n", t[5] - t[4], resident_mib() - resident);
}

/* A NUL is a byte like others here: sizes are given. */
static void hostile(void)
{
    static const struct {
        const char *what, *text;
        size_t size;
    } cases[] = {
#define CASE(what, s) {what, s, sizeof(s) - 1}
        CASE("duplicate key", "{\"a\":1,\"a\":2}"),
        CASE("NUL in a string", "{\"a\":\"x\\u0000y\"}"),
        CASE("NUL in a key", "{\"a\\u0000b\":1}"),
        CASE("integer 2^63", "[9223372036854775808]"),
        CASE("integer 10^30", "[1000000000000000019884624838656]"),
        CASE("integer 2^53 + 1", "[9007199254740993]"),
        CASE("real 1e999", "[1e999]"),
        CASE("invalid UTF-8", "[\"\xC0\xAF\"]"),
        CASE("lone surrogate", "[\"\\ud800\"]"),
        CASE("control character in a string", "[\"a\nb\"]"),
        CASE("leading zero", "[012]"),
        CASE("trailing text", "{} x"),
        CASE("NaN", "[NaN]"),
        CASE("single quotes", "{'a':1}"),
#undef CASE
    };
    size_t deep = 100000;
    char *text = malloc(deep + 1);
    void *root;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        printf("  %s: %.*s\n", cases[i].what, 50, cases[i].text);
        root = library_parse(cases[i].text, cases[i].size);
        if (root)
            printf("    taken as %s\n", library_print(root));
    }
    memset(text, '[', deep);
    text[deep] = '\0';
    printf("  100000 times [\n");
    root = library_parse(text, deep);
    if (root)
        printf("    taken\n");
    free(text);
}

int main(int argc, char **argv)
{
    if (argc == 1)
        hostile();
    else
        measure(argv[1], argc > 2 ? strtoul(argv[2], NULL, 10) : 0);
    return 0;
}
