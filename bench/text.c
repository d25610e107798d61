/* Encodes and decodes with a tokenizer, once for each command, so that bench/text.py can measure
 * others in between.
 *
 *     bench_text DIR
 *
 * Commands are lines on stdin: "load", "encode FILE", "decode FILE" (the ids of the file's text).
 * Each is answered by a line: microseconds of processor time, and a number to compare: ids, or
 * bytes of the text. "ids FILE" answers with the ids themselves.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/memory.h"
#include "tokenizer/tokenizer.h"

/* What else the machine does counts little then. */
static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int load(const char *dir, clm_error *err)
{
    double begin = now();
    tokenizer *t = tokenizer_open(dir, NULL, err);

    if (!t)
        return -1;
    printf("%.1f %zu\n", now() - begin, tokenizer_vocab_size(t));
    tokenizer_close(t);
    return 0;
}

static int encode(const tokenizer *t, const char *text, size_t n, bool show, clm_error *err)
{
    struct token_list list = {0};
    double begin = now();
    int rc = tokenizer_encode(t, text, n, false, &list, err);
    double taken = now() - begin;

    for (size_t i = 0; show && !rc && i < list.count; i++)
        printf("%d ", list.ids[i]);
    if (!rc && show)
        printf("\n");
    else if (!rc)
        printf("%.1f %zu\n", taken, list.count);
    token_list_release(&list);
    return rc;
}

static int decode(const tokenizer *t, const char *text, size_t n, clm_error *err)
{
    struct token_list list = {0};
    struct strbuf out = {0};
    int rc = tokenizer_encode(t, text, n, false, &list, err);
    double begin = now();

    rc = rc ? rc : tokenizer_decode(t, list.ids, list.count, false, &out, err);
    if (!rc)
        printf("%.1f %zu\n", now() - begin, out.size);
    token_list_release(&list);
    strbuf_release(&out);
    return rc;
}

static int obey(const tokenizer *t, const char *dir, char *line, clm_error *err)
{
    char *path = strchr(line, ' '), *text;
    size_t n;
    int rc;

    if (!path)
        return load(dir, err);
    *path++ = '\0';
    text = file_read(path, (size_t)1 << 30, &n, err);
    if (!text)
        return -1;
    rc = !strcmp(line, "decode") ? decode(t, text, n, err)
                                 : encode(t, text, n, !strcmp(line, "ids"), err);
    mem_free(text);
    return rc;
}

int main(int argc, char **argv)
{
    char line[4096];
    clm_error err = {0};
    tokenizer *t;

    if (argc != 2) {
        fprintf(stderr, "usage: bench_text DIR\n");
        return 2;
    }
    t = tokenizer_open(argv[1], NULL, &err);
    while (t && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (obey(t, argv[1], line, &err))
            break;
        fflush(stdout);
    }
    tokenizer_close(t);
    if (err.code)
        fprintf(stderr, "bench_text: %s\n", err.message);
    return err.code != 0;
}
