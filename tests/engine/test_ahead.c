/* Steps that a device begins with before the host knows their token, on a CPU that plays a device
 * with mail: texts, and what sequences are afterwards, are as without, whatever becomes of the
 * steps ahead. */
#include "rig.h"

enum { N_STEPS = 45 };

static const char *const fixtures[] = {
    "llama",      "gemma2",      "gemma3_text",  "gemma3n", "falcon_h1",
    "mamba2",     "jamba",       "rwkv7",        "afmoe",   "qwen3_moe",
    "qwen3_next", "deepseek_v3", "deepseek_v41", "minimax", "lora_llama_embed"};

/* What is done between a step and the next: nothing, or what makes the step ahead one in vain. */
enum whim { GO_ON, DROP, OTHER_TOKEN, TRIM, OTHER_STEP, FORK, LOGITS, N_WHIMS };

/* A text, and what was taken of it on its way. */
struct text {
    kv_seq *seq, *fork;
    int32_t next;
};

static void step(struct rig *r, struct text *t, bool goes_on)
{
    struct engine_input input = {.seq = t->seq,
                                 .tokens = &t->next,
                                 .n_tokens = 1,
                                 .n_logits = 1,
                                 .best = true,
                                 .goes_on = goes_on};
    clm_error err = {0};

    CHECK(!engine_step(r->engine, &input, 1, NULL, &err), "%s", err.message);
    t->next = engine_best(r->engine)[0];
}

static void follow_whim(struct rig *r, struct text *t, enum whim whim, int i)
{
    kv_seq *other = NULL;
    float row[4096];
    int32_t token = 1;
    clm_error err = {0};

    CHECK(r->vocab_size <= (int)COUNT(row), "a vocabulary of %d", r->vocab_size);
    switch (whim) {
    case DROP:
        engine_drop(r->engine);
        break;
    case OTHER_TOKEN:
        t->next = (t->next + 1) % r->vocab_size;
        break;
    case TRIM:
        CHECK(!engine_trim(r->engine, t->seq, kv_seq_length(t->seq) - 2, &err), "%s", err.message);
        break;
    case OTHER_STEP:
        other = rig_sequence(r);
        rig_feed(r, other, &token, 1, row);
        kv_seq_close(other);
        break;
    case FORK:
        other = kv_seq_fork(t->seq, &err);
        CHECK(other, "%s", err.message);
        if (i % 2)
            engine_drop(r->engine);
        kv_seq_close(t->fork);
        t->fork = other;
        break;
    case LOGITS: /* of the token that the step ahead has */
        rig_feed(r, t->seq, &t->next, 1, row);
        break;
    case GO_ON:
    case N_WHIMS:
        break;
    }
}

/* The tokens of a text with what whims make of it, and then one of a fork of it. */
static void run(struct rig *r, bool whims, bool goes_on, int32_t tokens[N_STEPS + 2])
{
    struct text t = {.seq = rig_sequence(r), .next = 3};
    clm_error err = {0};

    for (int i = 0; i < N_STEPS; i++) {
        step(r, &t, goes_on);
        tokens[i] = t.next;
        follow_whim(r, &t, !whims || i % 3 ? GO_ON : (enum whim)(i / 3 % N_WHIMS), i);
    }
    engine_drop(r->engine);
    if (!t.fork)
        t.fork = kv_seq_fork(t.seq, &err);
    CHECK(t.fork, "%s", err.message);
    kv_seq_close(t.seq);
    t.seq = t.fork;
    step(r, &t, false);
    tokens[N_STEPS] = t.next;
    tokens[N_STEPS + 1] = kv_seq_length(t.seq);
    kv_seq_close(t.seq);
}

static void test_ahead(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t i = 0; i < COUNT(fixtures); i++)
        for (int whims = 0; whims < 2; whims++) {
            int32_t with[N_STEPS + 2] = {0}, without[N_STEPS + 2] = {0};
            int letters;
            struct rig r;
            clm_error err = {0};
            char folder[128];

            snprintf(folder, sizeof folder, "goldens/models/%s", fixtures[i]);
            CHECK(rig_open(&r, shared_path(folder), 2, true, &err) == 0, "%s", err.message);
            run(&r, whims, false, without);
            letters = spread_letters;
            run(&r, whims, true, with);
            letters = spread_letters - letters;
            /* One of each step ahead, of the first one, and of the fork's. */
            CHECK(getenv("CLM_DEVICE") || whims || letters == N_STEPS + 2, "%s: %d letters",
                  fixtures[i], letters);
            for (int j = 0; j < N_STEPS + 2; j++)
                CHECK(with[j] == without[j], "%s, %d, step %d: %d, not %d", fixtures[i], whims, j,
                      with[j], without[j]);
            rig_close(&r);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ahead),
    };

    if (!getenv("CLM_DEVICE"))
        setenv("CLM_TEST_SPLIT", "all", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
