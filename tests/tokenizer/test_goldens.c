/* tests/tokenizer/test_goldens.c: every tokenizer of the shared goldens against the reference.
 *
 * Each folder is a test of its own: ids with and without special tokens, decoded text with and
 * without them, and that streamed segments join to the decoded text, whole characters each.
 * CLM_GOLDENS names one folder (as "gpt2" or "synthetic/ctc") to run alone.
 */
#include "testing.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "base/utf8.h"
#include "format/json.h"
#include "tokenizer/tokenizer.h"

#include "../base/temporary.h"

#define MAX_FOLDERS 512
#define MAX_SHOWN 5

struct folder {
    char name[200]; /* below goldens/tokenizers, or an absolute path */
    char path[4096];
};

struct run {
    const char *name;
    tokenizer *t;
    int checks, failures;
};

static struct folder folders[MAX_FOLDERS];
static size_t n_folders;

static void show(struct run *run, const char *what, const json *record, const char *got, size_t n)
{
    size_t size = 0;
    const char *text = json_string(json_get(record, "text"), &size);
    struct strbuf out = {0};

    if (run->failures++ >= MAX_SHOWN)
        return;
    strbuf_add_json(&out, text ? text : "(ids)", text ? size > 120 ? 120 : size : 5);
    strbuf_add_str(&out, " gives ");
    strbuf_add_json(&out, got, n > 200 ? 200 : n);
    print_error("%s: %s: %s\n", run->name, what, out.data);
    strbuf_release(&out);
}

static void check_ids(struct run *run, const json *record, const char *key, bool add_special)
{
    const json *want = json_get(record, key);
    struct token_list ids = {0};
    struct strbuf got = {0};
    clm_error err = {0};
    size_t size, at = 0;
    const char *text = json_string(json_get(record, "text"), &size);
    int rc;

    if (!text || json_kind(want) != JSON_ARRAY)
        return;
    run->checks++;
    rc = tokenizer_encode(run->t, text, size, add_special, &ids, &err);
    while (!rc && at < ids.count && at < json_size(want) &&
           ids.ids[at] == (int32_t)json_int(json_at(want, at), -1))
        at++;
    if (rc || at != ids.count || at != json_size(want)) {
        strbuf_addf(&got, "%s; %zu ids instead of %zu, differ at %zu:", err.message, ids.count,
                    json_size(want), at);
        for (size_t i = at; i < ids.count && i < at + 8; i++)
            strbuf_addf(&got, " %d", ids.ids[i]);
        strbuf_addf(&got, " instead of");
        for (size_t i = at; i < json_size(want) && i < at + 8; i++)
            strbuf_addf(&got, " %d", (int)json_int(json_at(want, i), -1));
        show(run, key, record, got.data, got.size);
    }
    strbuf_release(&got);
    token_list_release(&ids);
}

static struct token_list read_ids(const json *list)
{
    struct token_list ids = {0};

    for (size_t i = 0; i < json_size(list); i++)
        token_list_add(&ids, (int32_t)json_int(json_at(list, i), -1));
    return ids;
}

static void check_same(struct run *run, const char *what, const json *record,
                       const struct strbuf *got, const char *want, size_t size)
{
    run->checks++;
    if (got->failed || got->size != size || (size && memcmp(got->data, want, size) != 0))
        show(run, what, record, got->data ? got->data : "", got->size);
}

/* The decoded text at once and in segments. */
static void check_decoded(struct run *run, const json *record, const char *key, bool skip)
{
    struct token_list ids = read_ids(json_get(record, "ids"));
    struct strbuf whole = {0}, joined = {0}, segment = {0};
    struct detokenizer d = {0};
    clm_error err = {0};
    size_t size;
    const char *want = json_string(json_get(record, key), &size);
    int rc;

    if (want && json_kind(json_get(record, "ids")) == JSON_ARRAY) {
        rc = tokenizer_decode(run->t, ids.ids, ids.count, skip, &whole, &err);
        rc = rc ? rc : detokenizer_init(&d, run->t, skip, &err);
        for (size_t i = 0; i <= ids.count && !rc; i++) {
            strbuf_clear(&segment);
            rc = i < ids.count ? detokenizer_add(&d, ids.ids[i], &segment, &err)
                               : detokenizer_finish(&d, &segment, &err);
            if (segment.size && !utf8_valid(segment.data, segment.size))
                show(run, "a segment that is not UTF-8", record, segment.data, segment.size);
            if (segment.size)
                strbuf_add(&joined, segment.data, segment.size);
        }
        if (rc)
            show(run, err.message, record, "", 0);
        check_same(run, key, record, &whole, want, size);
        check_same(run, "segments", record, &joined, want, size);
    }
    detokenizer_release(&d);
    strbuf_release(&whole);
    strbuf_release(&joined);
    strbuf_release(&segment);
    token_list_release(&ids);
}

static void check_file(struct run *run, const char *folder, const char *name)
{
    char path[4200];
    clm_error err = {0};
    json *records;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (access(path, R_OK) != 0)
        return;
    records = json_parse_file(path, &err);
    CHECK(records, "%s", err.message);
    for (size_t i = 0; i < json_size(records); i++) {
        const json *record = json_at(records, i);

        check_ids(run, record, "ids", true);
        check_ids(run, record, "ids_plain", false);
        check_decoded(run, record, "decoded", false);
        check_decoded(run, record, "decoded_skip", true);
    }
    json_free(records);
}

static void check_info(struct run *run, const char *folder)
{
    char path[4200];
    clm_error err = {0};
    json *info;
    const json *special;

    snprintf(path, sizeof path, "%s/info.json", folder);
    if (access(path, R_OK) != 0)
        return;
    info = json_parse_file(path, &err);
    CHECK(info, "%s", err.message);
    CHECK(tokenizer_role(run->t, TOKEN_BOS) == json_int(json_get(info, "bos_token_id"), -1) &&
              tokenizer_role(run->t, TOKEN_EOS) == json_int(json_get(info, "eos_token_id"), -1),
          "%s: roles", run->name);
    CHECK((int64_t)tokenizer_vocab_size(run->t) == json_int(json_get(info, "max_id"), -1) + 1,
          "%s: vocabulary of %zu", run->name, tokenizer_vocab_size(run->t));
    special = json_get(info, "special_ids");
    for (size_t i = 0; i < json_size(special); i++) {
        int32_t id = (int32_t)json_int(json_at(special, i), -1);
        size_t size;
        const char *text = tokenizer_token(run->t, id, &size);

        CHECK(tokenizer_is_special(run->t, id), "%s: token %d is not special", run->name, id);
        CHECK(text && tokenizer_find(run->t, text, size) == id, "%s: token %d", run->name, id);
    }
    json_free(info);
}

/* Closes t. */
static void check_folder(const struct folder *folder, tokenizer *t, const clm_error *err)
{
    struct run run = {.name = folder->name, .t = t};

    CHECK(run.t, "%s", err->message);
    check_info(&run, folder->path);
    check_file(&run, folder->path, "goldens.json");
    check_file(&run, folder->path, "decode.json");
    tokenizer_close(run.t);
    CHECK(!run.failures, "%s: %d of %d checks failed", run.name, run.failures, run.checks);
    CHECK(run.checks, "%s: nothing to check", run.name);
}

static void test_folder(void **state)
{
    const struct folder *folder = *state;
    clm_error err = {0};

    check_folder(folder, tokenizer_open(folder->path, NULL, &err), &err);
}

/* The same with tables that were kept, where there are such. */
static void test_kept(void **state)
{
    const struct folder *folder = *state;
    const struct snapshot_place place = {.folder = temporary_path("kept"), .least = 1};
    clm_error err = {0};
    tokenizer *t;

    temporary_clear();
    tokenizer_close(tokenizer_open_kept(folder->path, &place, NULL, &err));
    t = tokenizer_open_kept(folder->path, &place, NULL, &err);
    if (t && tokenizer_is_kept(t))
        check_folder(folder, t, &err);
    else
        tokenizer_close(t);
}

static void add_folders(const char *below)
{
    char rest[300];
    const char *found;
    struct dirent *entry;
    char base[4096];
    DIR *dir;

    snprintf(rest, sizeof rest, "goldens/tokenizers%s", below);
    found = shared_path(rest);
    if (!found)
        return;
    snprintf(base, sizeof base, "%s", found);
    dir = opendir(base);
    while (dir && (entry = readdir(dir)) != NULL && n_folders < MAX_FOLDERS) {
        struct folder *folder = &folders[n_folders];
        const char *only = getenv("CLM_GOLDENS");
        char path[4400];

        snprintf(path, sizeof path, "%.3900s/%.250s/goldens.json", base, entry->d_name);
        if (access(path, R_OK) != 0)
            continue;
        snprintf(folder->path, sizeof folder->path, "%.3800s/%.250s", base, entry->d_name);
        snprintf(folder->name, sizeof folder->name, "%s%.150s", *below ? "synthetic/" : "",
                 entry->d_name);
        n_folders += !only || !strcmp(only, folder->name);
    }
    if (dir)
        closedir(dir);
}

static int compare_folders(const void *a, const void *b)
{
    return strcmp(((const struct folder *)a)->name, ((const struct folder *)b)->name);
}

int main(void)
{
    static struct CMUnitTest tests[2 * MAX_FOLDERS];

    add_folders("");
    add_folders("/synthetic");
    if (!n_folders) {
        print_message("no shared goldens: set CLM_SHARED to their folder\n");
        return 77;
    }
    qsort(folders, n_folders, sizeof folders[0], compare_folders);
    for (size_t i = 0; i < 2 * n_folders; i++)
        tests[i] = (struct CMUnitTest){.name = folders[i / 2].name,
                                       .test_func = i % 2 ? test_kept : test_folder,
                                       .initial_state = &folders[i / 2]};
    return _cmocka_run_group_tests("goldens", tests, 2 * n_folders, temporary_setup,
                                   temporary_teardown);
}
