/* Whatever is wrong with a prompt cache's file, or happens while one is written, is told and does
 * no harm. */
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "base/memory.h"
#include "base/number.h"
#include "cache_files.h"
#include "format/safetensors.h"

/* The file of a sequence of n tokens, in memory (free). */
static uint8_t *saved(struct rig *r, int n, size_t *size)
{
    char path[2048];
    clm_error err = {0};
    kv_seq *seq = rig_sequence(r);
    float *out = malloc((size_t)n * (size_t)r->vocab_size * sizeof *out);
    int32_t *tokens = malloc((size_t)n * sizeof *tokens);
    struct file_map map;
    uint8_t *data;

    CHECK(out && tokens, "no memory");
    for (int i = 0; i < n; i++)
        tokens[i] = i % r->vocab_size;
    rig_feed(r, seq, tokens, n, out);
    snprintf(path, sizeof path, "%s", temporary_path("saved.safetensors"));
    save(r, seq, path);
    kv_seq_close(seq);
    CHECK(file_map(&map, path, &err) == 0, "%s", err.message);
    data = malloc(map.size);
    CHECK(data, "no memory");
    *size = map.size;
    memcpy(data, map.data, map.size);
    file_unmap(&map);
    free(tokens);
    free(out);
    return data;
}

/* A file that is refused, with a line that says why, or else goes on. */
static bool parses(struct rig *r, const uint8_t *data, size_t size)
{
    clm_error err = {0};
    kv_seq *seq = cache_file_parse(r->engine, data, size, "input", NULL, &err);
    struct engine_input input = {.seq = seq, .tokens = &(int32_t){1}, .n_tokens = 1, .n_logits = 1};
    const float *logits;

    if (!seq) {
        CHECK(err.code && err.message[0] && !strchr(err.message, '\n'), "%s", err.message);
        return false;
    }
    if (engine_step(r->engine, &input, 1, &logits, &err))
        CHECK(err.message[0], "no message");
    kv_seq_close(seq);
    return true;
}

static const char *const damaged_models[] = {"llama", "gemma3_text", "falcon_h1", "rwkv7"};

static void test_damaged(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t m = 0; m < COUNT(damaged_models); m++) {
        char folder[128];
        size_t size, header;
        uint8_t *data, *copy;
        struct rig r;

        snprintf(folder, sizeof folder, "goldens/models/%s", damaged_models[m]);
        open_rig(&r, shared_path(folder), true);
        data = saved(&r, 9, &size);
        header = 8 + (size_t)load_le64(data);
        CHECK(parses(&r, data, size), "it is whole");
        for (size_t n = 0; n < size; n += 97) {
            copy = malloc(n ? n : 1); /* so that a sanitizer sees the first byte beyond */
            CHECK(copy, "no memory");
            memcpy(copy, data, n);
            CHECK(!parses(&r, copy, n), "%s: %zu of %zu bytes are taken", folder, n, size);
            free(copy);
        }
        for (size_t i = 0; i < header; i++) {
            uint8_t before = data[i];

            data[i] = (uint8_t)(before ^ 1u << random_below(8));
            parses(&r, data, size);
            data[i] = before;
        }
        free(data);
        CHECK(kv_cache_bytes_used(engine_cache(r.engine)) == 0, "blocks are left");
        rig_close(&r);
    }
}

/* Numbers and arrays of a cache that do not fit each other or the model. */
static void test_contradictions(void **state)
{
    static const struct {
        const char *tensor; /* an I32 number to be changed */
        int32_t value;
        const char *said;
    } cases[] = {
        {"2.2", 10, "fewer rows than tokens"}, /* length */
        {"0.2", -1, "no number of tokens"},
        {"0.2", 8, "cache"}, /* others say 9 */
        {"0.5", 100, "next place"},
        {"0.5", -4, "no number of tokens"},
        {"0.3", 7, "next place"},   /* keeps more than it has */
        {"4", 48000, "vocabulary"}, /* a token */
    };
    size_t size;
    uint8_t *data;
    struct rig r;

    (void)state;
    SKIP_IF_NO_SHARED();
    open_rig(&r, shared_path("goldens/models/gemma3_text"), true);
    data = saved(&r, 9, &size);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct safetensors st;
        clm_error err = {0};
        uint8_t *at = NULL;
        int32_t before;

        CHECK(safetensors_parse(&st, data, size, "input", &err) == 0, "%s", err.message);
        for (size_t t = 0; t < st.n_tensors; t++)
            if (!strcmp(st.tensors[t].name, cases[i].tensor))
                at = data + ((const uint8_t *)st.tensors[t].data - data);
        safetensors_close(&st);
        CHECK(at, "no tensor %s", cases[i].tensor);
        memcpy(&before, at, sizeof before);
        memcpy(at, &cases[i].value, sizeof before);
        CHECK(!cache_file_parse(r.engine, data, size, "input", NULL, &err) &&
                  strstr(err.message, cases[i].said),
              "%s = %d: %s", cases[i].tensor, cases[i].value, err.message);
        memcpy(at, &before, sizeof before);
    }
    CHECK(parses(&r, data, size), "it is whole again");
    free(data);
    rig_close(&r);
}

static void test_other_models(void **state)
{
    static const char *const others[] = {"llama_tied", "gemma3_text", "mamba2", "falcon_h1"};
    size_t size;
    uint8_t *data;
    struct rig r;

    (void)state;
    SKIP_IF_NO_SHARED();
    open_rig(&r, shared_path("goldens/models/llama"), true);
    data = saved(&r, 9, &size);
    rig_close(&r);
    for (size_t i = 0; i < COUNT(others); i++) {
        char folder[128];
        clm_error err = {0};

        snprintf(folder, sizeof folder, "goldens/models/%s", others[i]);
        open_rig(&r, shared_path(folder), true);
        CHECK(!cache_file_parse(r.engine, data, size, "input", NULL, &err) &&
                  strstr(err.message, "model"),
              "%s: %s", others[i], err.message);
        rig_close(&r);
    }
    free(data);
}

static void test_origin(void **state)
{
    static const struct cache_origin others[] = {
        {.model = "another name", .tokenizer = "tokenizer 2", .chat_template = "template 1"},
        {.model = "another name", .tokenizer = "tokenizer 1", .chat_template = ""},
        {.model = "another name", .tokenizer = "tokenizer 1", .chat_template = "template 1"},
        {.model = "another name"}};
    static const char *const said[] = {"another tokenizer", "another chat template", NULL, NULL};
    size_t size;
    uint8_t *data;
    struct rig r;

    (void)state;
    SKIP_IF_NO_SHARED();
    open_rig(&r, shared_path("goldens/models/llama"), true);
    data = saved(&r, 9, &size);
    for (size_t i = 0; i < COUNT(others); i++) {
        clm_error err = {0};
        kv_seq *seq = cache_file_parse(r.engine, data, size, "input", &others[i], &err);

        CHECK(said[i] ? !seq && strstr(err.message, said[i]) : seq != NULL, "%zu: %s", i,
              err.message);
        kv_seq_close(seq);
    }
    free(data);
    rig_close(&r);
}

/* An adapter makes another model. */
static void test_adapter(void **state)
{
    char adapter[4096];
    const char *folder;
    clm_error err = {0};
    size_t size;
    uint8_t *data;
    struct rig r;

    (void)state;
    SKIP_IF_NO_SHARED();
    folder = shared_path("goldens/models/lora_llama");
    snprintf(adapter, sizeof adapter, "%s/adapters", folder);
    CHECK(rig_open_adapted(&r, folder, adapter, 1, true, &err) == 0, "%s", err.message);
    data = saved(&r, 9, &size);
    CHECK(parses(&r, data, size), "it is of this model");
    rig_close(&r);
    open_rig(&r, folder, true);
    CHECK(!cache_file_parse(r.engine, data, size, "input", NULL, &err) &&
              strstr(err.message, "another model"),
          "%s", err.message);
    free(data);
    rig_close(&r);
}

/* A cache that does not tell its tokens cannot go back to where they are needed. */
static void test_unknown_tokens(void **state)
{
    clm_error err = {0};
    struct rig r;
    kv_seq *seq;

    (void)state;
    SKIP_IF_NO_SHARED();
    open_rig(&r, shared_path("goldens/models/gemma3_text"), true);
    seq = load(&r, shared_path("goldens/models/gemma3_text/prompt_cache.safetensors"));
    CHECK(kv_seq_tokens(seq)[0] == -1, "it tells them");
    CHECK(engine_trim(r.engine, seq, 9, &err) && err.code == CLM_ERR_ARG &&
              strstr(err.message, "not known"),
          "%s", err.message);
    kv_seq_close(seq);
    rig_close(&r);
}

/* What can go wrong on the way */

/* Saves one, then the other, for ever. */
static _Noreturn void save_for_ever(struct rig *r, kv_seq *const seqs[2], const char *path)
{
    clm_error err = {0};

    for (int i = 0;; i = !i)
        if (cache_file_save(r->engine, seqs[i], path, &origin, &err))
            _exit(1);
}

/* Killed at any time, it leaves the file as it was before or as it is after; what else it leaves,
 * the next one removes. */
static void test_killed(void **state)
{
    enum { KILLS = 200, LENGTHS = 2 };
    static const int lengths[LENGTHS] = {3, 200};
    char path[2048];
    int32_t tokens[200];
    kv_seq *seqs[LENGTHS];
    struct rig r;
    float *out;
    int seen[LENGTHS] = {0}, kills = 0;

    (void)state;
    SKIP_IF_NO_SHARED();
    temporary_clear();
    open_rig(&r, shared_path("goldens/models/llama"), true);
    out = malloc(COUNT(tokens) * (size_t)r.vocab_size * sizeof *out);
    CHECK(out, "no memory");
    snprintf(path, sizeof path, "%s", temporary_path("killed.safetensors"));
    for (size_t i = 0; i < COUNT(tokens); i++)
        tokens[i] = (int32_t)i % r.vocab_size;
    for (int i = 0; i < LENGTHS; i++) {
        seqs[i] = rig_sequence(&r);
        rig_feed(&r, seqs[i], tokens, lengths[i], out);
    }
    save(&r, seqs[0], path);
    /* Where the disk or the machine is slow it takes more of them, that have more time. */
    for (; kills < KILLS || (kills < 6 * KILLS && !(seen[0] && seen[1])); kills++) {
        struct timespec wait = {.tv_nsec = (long)random_below((size_t)4000000 << kills / KILLS)};
        pid_t child = fork();
        kv_seq *loaded;
        int length, status;

        CHECK(child >= 0, "no process");
        if (child == 0)
            save_for_ever(&r, seqs, path);
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status), "it has failed");
        loaded = load(&r, path);
        length = kv_seq_length(loaded);
        CHECK((length == lengths[0] || length == lengths[1]) &&
                  !memcmp(kv_seq_tokens(loaded), tokens, (size_t)length * sizeof *tokens),
              "%d tokens", length);
        seen[length == lengths[1]]++;
        kv_seq_close(loaded);
    }
    print_message("killed %d times: %d short, %d long files\n", kills, seen[0], seen[1]);
    CHECK(seen[0] && seen[1], "nothing was written");
    save(&r, seqs[0], path);
    CHECK(temporary_count() == 1, "%d files are left of the killed", temporary_count() - 1);
    for (int i = 0; i < LENGTHS; i++)
        kv_seq_close(seqs[i]);
    free(out);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged),      cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_other_models), cmocka_unit_test(test_origin),
        cmocka_unit_test(test_adapter),      cmocka_unit_test(test_unknown_tokens),
        cmocka_unit_test(test_killed),
    };

    return cmocka_run_group_tests(tests, cache_files_setup, temporary_teardown);
}
