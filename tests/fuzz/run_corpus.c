/* Runs a fuzz target once on every file of the folders, and on the files, given as arguments. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static _Noreturn void die(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    exit(1);
}

/* The input lies in a block of exactly its size, so that a sanitizer sees the first byte beyond. */
static void run_file(const char *path, size_t size)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(size ? size : 1);

    if (!f || !data)
        die(path);
    if (fread(data, 1, size, f) != size)
        die(path);
    fclose(f);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
}

static int run_path(const char *path);

static int run_folder(const char *path)
{
    struct dirent **entries;
    int n = scandir(path, &entries, NULL, alphasort);
    int inputs = 0;

    if (n < 0)
        die(path);
    for (int i = 0; i < n; i++) {
        char inner[4096];
        int length = snprintf(inner, sizeof inner, "%s/%s", path, entries[i]->d_name);

        if (entries[i]->d_name[0] != '.' && length > 0 && (size_t)length < sizeof inner)
            inputs += run_path(inner);
        free(entries[i]);
    }
    free(entries);
    return inputs;
}

static int run_path(const char *path)
{
    struct stat st;

    if (stat(path, &st))
        die(path);
    if (S_ISDIR(st.st_mode))
        return run_folder(path);
    run_file(path, (size_t)st.st_size);
    return 1;
}

int main(int argc, char **argv)
{
    int inputs = 0;

    for (int i = 1; i < argc; i++)
        inputs += run_path(argv[i]);
    printf("%d inputs\n", inputs);
    return 0;
}
