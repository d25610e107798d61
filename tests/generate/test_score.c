/* Texts that begin alike are scored as each alone, bit by bit, and what they begin with is
 * evaluated once. */
#include <string.h>

#include "engine/rig.h"
#include "generate/score.h"

enum { N_TEXTS = 40, MOST = 150 };

struct world {
    struct rig rig;
    int32_t tokens[N_TEXTS][MOST];
    struct score_text texts[N_TEXTS];
    size_t offset;        /* of the texts that are scored, in all */
    uint64_t *want, *got; /* [N_TEXTS, MOST] of the rows */
    size_t last_text;
    int last_token, n_steps;
};

/* FNV-1a */
static uint64_t hash_of(const float *logits, int n)
{
    const unsigned char *bytes = (const unsigned char *)logits;
    uint64_t hash = 0xCBF29CE484222325u;

    for (size_t i = 0; i < (size_t)n * sizeof *logits; i++)
        hash = (hash ^ bytes[i]) * 0x100000001B3u;
    return hash;
}

static int take_row(void *ctx, size_t text, int i, const float *logits, int32_t best,
                    clm_error *err)
{
    struct world *w = ctx;

    (void)best;
    (void)err;
    text += w->offset;
    CHECK(text > w->last_text || (text == w->last_text && i > w->last_token),
          "text %zu, token %d after %zu, %d", text, i, w->last_text, w->last_token);
    w->last_text = text;
    w->last_token = i;
    w->got[text * MOST + (size_t)i] = hash_of(logits, w->rig.vocab_size);
    return 0;
}

static bool count_step(void *ctx)
{
    ((struct world *)ctx)->n_steps++;
    return true;
}

static void score(struct world *w, size_t first, size_t n)
{
    struct score_sink sink = {w, take_row, count_step};
    clm_error err = {0};

    w->offset = first;
    w->last_text = first;
    w->last_token = 0;
    CHECK(score_texts(w->rig.engine, w->texts + first, n, &sink, &err) == 0, "%s", err.message);
    CHECK(kv_cache_bytes_used(engine_cache(w->rig.engine)) == 0, "blocks are left");
}

/* Some begin as the one before does, for a while; some have nothing that is foretold. */
static void make_texts(struct world *w)
{
    for (size_t i = 0; i < N_TEXTS; i++) {
        int n = 1 + (int)random_below(MOST), same = 0;

        if (i > 0 && random_below(4))
            same = (int)random_below((size_t)w->texts[i - 1].n + 1);
        if (i > 0 && random_below(3) == 0)
            same = w->texts[i - 1].first - 1;
        n = n < same + 1 ? same + 1 : n;
        n = n < MOST ? n : MOST;
        for (int t = 0; t < n; t++)
            w->tokens[i][t] =
                t < same ? w->tokens[i - 1][t] : (int32_t)random_below((size_t)w->rig.vocab_size);
        w->texts[i] = (struct score_text){w->tokens[i], n, 1 + (int)random_below((size_t)n)};
        if (same > 1 && same < n && random_below(2))
            w->texts[i].first = same + 1;
    }
}

static void open_world(struct world *w, const char *name, size_t cache_bytes, int max_rows)
{
    struct engine_options o = {.exact = true, .cache_bytes = cache_bytes, .max_rows = max_rows};
    clm_error err = {0};
    char path[100];

    snprintf(path, sizeof path, "goldens/models/%s", name);
    *w = (struct world){0};
    CHECK(rig_open_with(&w->rig, shared_path(path), NULL, 1, &o, &err) == 0, "%s", err.message);
    w->want = calloc(N_TEXTS * MOST, sizeof *w->want);
    w->got = calloc(N_TEXTS * MOST, sizeof *w->got);
    CHECK(w->want && w->got, "no memory");
}

static void close_world(struct world *w)
{
    free(w->want);
    free(w->got);
    rig_close(&w->rig);
}

static void test_as_alone(void **state)
{
    static const char *const names[] = {"llama", "gemma3_text", "qwen3_next"};
    static struct world w;

    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t i = 0; i < 12; i++) {
        size_t token;

        open_world(&w, names[i % COUNT(names)], 0, 7 + (int)random_below(60));
        make_texts(&w);
        for (size_t t = 0; t < N_TEXTS; t++)
            score(&w, t, 1);
        memcpy(w.want, w.got, N_TEXTS * MOST * sizeof *w.got);
        memset(w.got, 0, N_TEXTS * MOST * sizeof *w.got);
        score(&w, 0, N_TEXTS);
        CHECK(!memcmp(w.want, w.got, N_TEXTS * MOST * sizeof *w.got), "%s: other bits",
              names[i % COUNT(names)]);

        /* Room for little more than one text. */
        token = kv_cache_bytes_per_token(engine_cache(w.rig.engine));
        engine_close(w.rig.engine);
        struct engine_options small = {.exact = true,
                                       .cache_bytes =
                                           200 * token + 7 * w.rig.model->nn->state_bytes,
                                       .max_rows = 64};
        clm_error err = {0};
        w.rig.engine = engine_open(w.rig.model, &small, &err);
        CHECK(w.rig.engine, "%s", err.message);
        memset(w.got, 0, N_TEXTS * MOST * sizeof *w.got);
        score(&w, 0, N_TEXTS);
        CHECK(!memcmp(w.want, w.got, N_TEXTS * MOST * sizeof *w.got), "%s: other bits, little room",
              names[i % COUNT(names)]);
        close_world(&w);
    }
}

/* Forty continuations of one context take hardly more steps than one. */
static void test_once(void **state)
{
    static struct world w;
    int32_t context[MOST - 4];

    (void)state;
    SKIP_IF_NO_SHARED();
    open_world(&w, "llama", 0, 64);
    for (int t = 0; t < MOST - 4; t++)
        context[t] = (int32_t)random_below((size_t)w.rig.vocab_size);
    for (size_t i = 0; i < N_TEXTS; i++) {
        memcpy(w.tokens[i], context, sizeof context);
        for (int t = MOST - 4; t < MOST; t++)
            w.tokens[i][t] = (int32_t)random_below((size_t)w.rig.vocab_size);
        w.texts[i] = (struct score_text){w.tokens[i], MOST, MOST - 4};
    }
    score(&w, 0, N_TEXTS);
    /* 145 tokens in steps of 64, then 40 times 4. */
    CHECK(w.n_steps == 3 + 3, "%d steps", w.n_steps);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_alone),
        cmocka_unit_test(test_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
