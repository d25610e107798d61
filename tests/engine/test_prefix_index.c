/* The index of prefixes: what follows a hit is, bit by bit, what follows without one; what it finds
 * is the best there is; and of its memory nothing is left. */
#include "prefixes.h"

/* Equality */

enum { LENGTH = 75, SUFFIX = 3 };

/* In chunks, the last of which are short, as a prompt and an answer come. */
static void feed(struct rig *r, kv_seq *s, const int32_t *tokens, int n, float *out)
{
    while (kv_seq_length(s) < n) {
        int at = kv_seq_length(s), chunk = at < 40 ? 20 : 7;

        chunk = chunk < n - at ? chunk : n - at;
        rig_feed(r, s, tokens + at, chunk, out + (size_t)at * (size_t)r->vocab_size);
    }
}

/* The first n tokens of the long text and then others. */
static void check_hit(struct rig *r, prefix_index *x, const char *name, const int32_t *text, int n,
                      float *want, float *got)
{
    size_t row = (size_t)r->vocab_size;
    int32_t prompt[LENGTH + SUFFIX];
    kv_seq *fresh = rig_sequence(r), *hit;
    int all = n + SUFFIX, kept, cut;

    memcpy(prompt, text, (size_t)n * sizeof *text);
    for (int i = n; i < all; i++)
        prompt[i] = (text[i % LENGTH] + 1) % r->vocab_size;
    rig_feed(r, fresh, prompt, all, want);
    for (int again = 0; again < 2; again++) {
        hit = lookup(x, prompt, all, &cut);
        kept = kv_seq_length(hit);
        CHECK(kept <= n && (!cut || (cut > kept && cut == n)), "%s: %d of %d, cut %d", name, kept,
              n, cut);
        CHECK(!again || n - kept < 16, "%s: only %d of %d after a cut", name, kept, n);
        if (cut) {
            rig_feed(r, hit, prompt + kept, cut - kept, got + (size_t)kept * row);
            insert(x, hit);
        }
        feed(r, hit, prompt, all, got);
        CHECK(!memcmp(want + (size_t)kept * row, got + (size_t)kept * row,
                      (size_t)(all - kept) * row * sizeof *got),
              "%s: other bits after a hit of %d for %d", name, kept, n);
        kv_seq_close(hit);
    }
    kv_seq_close(fresh);
}

static void test_equal(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t k = 0; k < COUNT(kinds); k++) {
        int32_t text[LENGTH];
        struct rig r;
        prefix_index *x;
        kv_seq *s;
        float *want, *got;

        open_kind(&r, kinds[k]);
        x = open_index(&r, (struct prefix_limits){0});
        random_tokens(text, LENGTH, r.vocab_size);
        want = malloc((size_t)(LENGTH + SUFFIX) * (size_t)r.vocab_size * sizeof *want);
        got = malloc((size_t)(LENGTH + SUFFIX) * (size_t)r.vocab_size * sizeof *got);
        CHECK(want && got, "no memory");
        s = rig_sequence(&r);
        feed(&r, s, text, LENGTH, got);
        insert(x, s);
        kv_seq_close(s);
        for (int n = LENGTH; n >= 0; n--)
            check_hit(&r, x, kinds[k], text, n, want, got);
        free(want);
        free(got);
        close_all(&r, x);
    }
}

/* The very same prompt once more: all but its last token are there. */
static void test_same_prompt(void **state)
{
    int32_t text[LENGTH];

    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t k = 0; k < COUNT(kinds); k++) {
        struct rig r;
        prefix_index *x;
        clm_error err = {0};
        int cut = 0;

        open_kind(&r, kinds[k]);
        x = open_index(&r, (struct prefix_limits){0});
        random_tokens(text, LENGTH, r.vocab_size);
        for (int i = 0; i < 3; i++) {
            kv_seq *s = lookup(x, text, LENGTH, &cut);
            int kept = kv_seq_length(s);

            CHECK(i < 2 || kept == LENGTH - 1, "%s: %d kept, then %d", kinds[k], kept, cut);
            if (cut) {
                CHECK(engine_prefill(r.engine, s, text + kept, cut - kept, 0, NULL, NULL, NULL,
                                     &err) == 0,
                      "%s", err.message);
                insert(x, s);
                kept = cut;
            }
            CHECK(engine_prefill(r.engine, s, text + kept, LENGTH - kept, 0, NULL, NULL, NULL,
                                 &err) == 0,
                  "%s", err.message);
            insert(x, s);
            kv_seq_close(s);
        }
        close_all(&r, x);
    }
}

/* Without a model: tokens that are stored but never looked at */

static int append(kv_seq *s, const int32_t *tokens, int n, clm_error *err)
{
    if (kv_seq_reserve(s, n, err))
        return -1;
    kv_seq_commit(s, tokens, n);
    return 0;
}

static kv_seq *sequence_of(struct rig *r, const int32_t *tokens, int n)
{
    kv_seq *s = rig_sequence(r);
    clm_error err = {0};

    CHECK(append(s, tokens, n, &err) == 0, "%s", err.message);
    return s;
}

static bool has(prefix_index *x, const int32_t *tokens, int n)
{
    int32_t prompt[4096];
    kv_seq *s;
    bool found;

    memcpy(prompt, tokens, (size_t)n * sizeof *tokens);
    prompt[n] = 0;
    s = lookup(x, prompt, n + 1, NULL);
    found = kv_seq_length(s) == n;
    kv_seq_close(s);
    return found;
}

/* What was not used for longest goes first, by number and by bytes. */
static void test_limits(void **state)
{
    enum { N = 5, EACH = 64 };
    int32_t tokens[N][EACH];
    kv_seq *s;
    struct rig r;
    size_t each;

    (void)state;
    SKIP_IF_NO_SHARED();
    open_kind(&r, "llama");
    for (int i = 0; i < N; i++) {
        random_tokens(tokens[i], EACH, r.vocab_size);
        tokens[i][0] = i;
    }
    each = EACH * kv_cache_bytes_per_token(engine_cache(r.engine));
    for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
        struct prefix_limits limits = {.max_entries = by_bytes ? 0 : 3,
                                       .max_bytes = by_bytes ? 3 * each : 0};
        prefix_index *x = open_index(&r, limits);

        for (int i = 0; i < N; i++) {
            s = sequence_of(&r, tokens[i], EACH);
            insert(x, s);
            kv_seq_close(s);
            CHECK(i < 1 || has(x, tokens[0], EACH), "what is used has gone");
            CHECK(prefix_index_stats(x).entries == (i < 3 ? i + 1 : 3) &&
                      prefix_index_stats(x).bytes == (size_t)prefix_index_stats(x).entries * each &&
                      kv_cache_bytes_used(engine_cache(r.engine)) == prefix_index_stats(x).bytes,
                  "%d: %d entries of %zu bytes", i, prefix_index_stats(x).entries,
                  prefix_index_stats(x).bytes);
        }
        CHECK(!has(x, tokens[1], EACH) && !has(x, tokens[2], EACH) && has(x, tokens[3], EACH) &&
                  has(x, tokens[4], EACH),
              "the wrong ones have gone");
        prefix_index_close(x);
    }
    close_all(&r, NULL);
}

/* Larger than the whole index may be: it does not drive out what is there. */
static void test_too_large(void **state)
{
    int32_t tokens[200];
    prefix_index *x;
    struct rig r;
    kv_seq *s;

    (void)state;
    SKIP_IF_NO_SHARED();
    open_kind(&r, "llama");
    x = open_index(&r, (struct prefix_limits){
                           .max_bytes = 96 * kv_cache_bytes_per_token(engine_cache(r.engine))});
    random_tokens(tokens, 200, r.vocab_size);
    s = sequence_of(&r, tokens + 100, 90);
    insert(x, s);
    kv_seq_close(s);
    s = sequence_of(&r, tokens, 100);
    insert(x, s);
    kv_seq_close(s);
    CHECK(has(x, tokens + 100, 90) && !has(x, tokens, 100), "the large one was kept");
    close_all(&r, x);
}

static void test_pins(void **state)
{
    int32_t tokens[3][64];
    struct rig r;
    prefix_index *x;
    clm_error err = {0};
    kv_seq *s;

    (void)state;
    SKIP_IF_NO_SHARED();
    open_kind(&r, "llama");
    x = open_index(&r, (struct prefix_limits){.max_entries = 1});
    for (int i = 0; i < 3; i++) {
        random_tokens(tokens[i], 64, r.vocab_size);
        tokens[i][0] = i;
    }
    CHECK(prefix_index_pin(x, tokens[0], 40, &err) && err.code == CLM_ERR_ARG, "what is not there");
    s = sequence_of(&r, tokens[0], 64);
    insert(x, s);
    kv_seq_close(s);
    /* A part of what is there, twice. */
    for (int i = 0; i < 2; i++)
        CHECK(prefix_index_pin(x, tokens[0], 40, &err) == 0 || i == 2, "%s", err.message);
    for (int i = 1; i < 3; i++) {
        s = sequence_of(&r, tokens[i], 64);
        insert(x, s);
        kv_seq_close(s);
        prefix_index_evict(x, SIZE_MAX);
        CHECK(has(x, tokens[0], 40) && !has(x, tokens[0], 41) && !has(x, tokens[i], 1), "pins");
        prefix_index_unpin(x, tokens[0], 40);
    }
    CHECK(has(x, tokens[0], 40), "an unpinned one is like others");
    CHECK(prefix_index_evict(x, 1) && prefix_index_stats(x).entries == 0 &&
              !prefix_index_evict(x, 1),
          "an unpinned one can go");
    close_all(&r, x);
}

/* What others are at work on is let go of last, as that frees nothing. */
static void test_evict(void **state)
{
    int32_t tokens[3][64];
    struct rig r;
    prefix_index *x;
    kv_seq *s, *busy;

    (void)state;
    SKIP_IF_NO_SHARED();
    open_kind(&r, "llama");
    x = open_index(&r, (struct prefix_limits){0});
    for (int i = 0; i < 3; i++) {
        random_tokens(tokens[i], 64, r.vocab_size);
        tokens[i][0] = i;
    }
    busy = sequence_of(&r, tokens[0], 64);
    insert(x, busy);
    for (int i = 1; i < 3; i++) {
        s = sequence_of(&r, tokens[i], 64);
        insert(x, s);
        kv_seq_close(s);
    }
    CHECK(prefix_index_evict(x, 1) && prefix_index_stats(x).entries == 2, "not one");
    CHECK(has(x, tokens[0], 64) && !has(x, tokens[1], 1) && has(x, tokens[2], 64), "the wrong one");
    CHECK(prefix_index_evict(x, SIZE_MAX) && has(x, tokens[0], 64) && !has(x, tokens[2], 1),
          "the busy one");
    CHECK(prefix_index_evict(x, 1) && prefix_index_stats(x).bytes == 0, "it can go too");
    CHECK(!prefix_index_evict(x, 1), "nothing is left");
    kv_seq_close(busy);
    close_all(&r, x);
}

/* A second request with the same long beginning costs the blocks of its own end. */
static void test_memory(void **state)
{
    enum { SHARED = 1000, OWN = 70 };
    int32_t tokens[SHARED + OWN];
    struct rig r;
    prefix_index *x;
    kv_seq *first, *second;
    size_t used, block;

    (void)state;
    SKIP_IF_NO_SHARED();
    open_kind(&r, "llama");
    x = open_index(&r, (struct prefix_limits){0});
    block = KV_BLOCK_TOKENS * kv_cache_bytes_per_token(engine_cache(r.engine));
    random_tokens(tokens, SHARED + OWN, r.vocab_size);
    first = sequence_of(&r, tokens, SHARED);
    insert(x, first);
    used = kv_cache_bytes_used(engine_cache(r.engine));
    CHECK(used == (SHARED + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS * block, "%zu bytes", used);
    second = lookup(x, tokens, SHARED + OWN, NULL);
    CHECK(kv_seq_length(second) == SHARED && kv_cache_bytes_used(engine_cache(r.engine)) == used,
          "a hit takes blocks");
    CHECK(append(second, tokens + SHARED, OWN, NULL) == 0, "no room");
    insert(x, second);
    used = kv_cache_bytes_used(engine_cache(r.engine)) - used;
    CHECK(used <= (OWN / KV_BLOCK_TOKENS + 2) * block, "%zu bytes for %d tokens", used, OWN);
    kv_seq_close(first);
    kv_seq_close(second);
    close_all(&r, x);
}

/* Random work, against all that was ever put in */

enum { MAX_KEPT = 400, MAX_TOKENS = 200 };

struct world {
    struct rig r;
    prefix_index *x;
    kv_seq *kept[MAX_KEPT]; /* everything that was put in */
    int n_kept;
    int32_t pinned[MAX_TOKENS];
    int n_pinned;
};

static int common_tokens(const kv_seq *s, const int32_t *tokens, int n)
{
    int i = 0;

    while (i < n && i < kv_seq_length(s) && kv_seq_tokens(s)[i] == tokens[i])
        i++;
    return i;
}

/* The most that any sequence that was put in could give, and what any has in common. */
static int best_of(const struct world *w, const int32_t *tokens, int n, int *common)
{
    int best = 0;

    *common = 0;
    for (int i = 0; i < w->n_kept; i++) {
        int shared = common_tokens(w->kept[i], tokens, n);
        int point = kv_seq_trim_point(w->kept[i], shared);

        best = point > best ? point : best;
        *common = shared > *common ? shared : *common;
    }
    return best;
}

/* Few tokens, so that texts meet; long runs, so that blocks are shared. */
static int random_prompt(int32_t *out)
{
    int n = 1 + (int)random_below(MAX_TOKENS - 1), token = 0;

    for (int i = 0; i < n; i++) {
        if (random_below(40) == 0)
            token = (int)random_below(3);
        out[i] = token;
    }
    return n;
}

static void run_request(struct world *w, bool bounded)
{
    int32_t prompt[MAX_TOKENS];
    int n = random_prompt(prompt), cut, common, best = best_of(w, prompt, n - 1, &common);
    kv_seq *s = lookup(w->x, prompt, n, &cut);
    int kept = kv_seq_length(s);

    CHECK(bounded ? kept <= best : kept == best, "%d of %d, not %d", kept, n, best);
    CHECK(bounded || cut == (common - kept >= 16 ? common : 0), "%d: cut %d, common %d", kept, cut,
          common);
    while (kv_seq_length(s) < n) {
        int at = kv_seq_length(s), left = (cut > at ? cut : n) - at;

        CHECK(append(s, prompt + at, left > 64 ? 64 : left, NULL) == 0, "no room");
        if (cut && kv_seq_length(s) == cut && w->n_kept < MAX_KEPT) {
            insert(w->x, s);
            w->kept[w->n_kept++] = kv_seq_fork(s, NULL);
        }
    }
    if (w->n_kept < MAX_KEPT) {
        insert(w->x, s);
        w->kept[w->n_kept++] = kv_seq_fork(s, NULL);
    }
    kv_seq_close(s);
}

static void move_pin(struct world *w)
{
    int32_t prompt[MAX_TOKENS];
    int n = random_prompt(prompt);

    if (prefix_index_pin(w->x, prompt, n, NULL))
        return;
    if (w->n_pinned)
        prefix_index_unpin(w->x, w->pinned, w->n_pinned);
    memcpy(w->pinned, prompt, (size_t)n * sizeof *prompt);
    w->n_pinned = n;
}

static void run_world(const char *kind, struct prefix_limits limits, bool evict)
{
    bool bounded = limits.max_bytes || limits.max_entries || evict;
    struct world w = {0};

    open_kind(&w.r, kind);
    if (limits.max_bytes)
        limits.max_bytes *= KV_BLOCK_TOKENS * kv_cache_bytes_per_token(engine_cache(w.r.engine)) +
                            kv_cache_state_bytes(engine_cache(w.r.engine));
    w.x = open_index(&w.r, limits);
    for (int i = 0; i < 300; i++) {
        struct prefix_stats stats;

        run_request(&w, bounded);
        if (bounded && random_below(4) == 0)
            move_pin(&w);
        if (evict && random_below(8) == 0)
            prefix_index_evict(w.x, random_below(1 << 20));
        stats = prefix_index_stats(w.x);
        CHECK(!limits.max_entries || stats.entries <= limits.max_entries + (w.n_pinned > 0),
              "%d entries", stats.entries);
        CHECK(!limits.max_bytes || w.n_pinned || stats.bytes <= limits.max_bytes, "%zu bytes",
              stats.bytes);
        CHECK(!w.n_pinned || has(w.x, w.pinned, w.n_pinned), "a pinned one has gone");
    }
    while (w.n_kept)
        kv_seq_close(w.kept[--w.n_kept]);
    CHECK(prefix_index_stats(w.x).bytes == kv_cache_bytes_used(engine_cache(w.r.engine)),
          "%s: %zu bytes counted, %zu used", kind, prefix_index_stats(w.x).bytes,
          kv_cache_bytes_used(engine_cache(w.r.engine)));
    close_all(&w.r, w.x);
}

static void test_random(void **state)
{
    static const char *const some[] = {"llama", "gemma3_text", "mamba2", "recurrent_gemma"};

    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t i = 0; i < COUNT(some); i++) {
        run_world(some[i], (struct prefix_limits){0}, false);
        run_world(some[i], (struct prefix_limits){.max_entries = 7}, false);
        run_world(some[i], (struct prefix_limits){.max_bytes = 12}, false);
        run_world(some[i], (struct prefix_limits){0}, true);
    }
}

/* Every allocation fails once. */
static void test_no_memory(void **state)
{
    int32_t text[90];
    struct rig r;
    prefix_index *x;
    kv_seq *one, *other;
    bool failed = true;

    (void)state;
    SKIP_IF_NO_SHARED();
    open_kind(&r, "falcon_h1");
    random_tokens(text, 90, r.vocab_size);
    one = sequence_of(&r, text, 80);
    text[60]++;
    other = sequence_of(&r, text, 80);
    for (long n = 0; failed; n++) {
        clm_error err = {0};
        kv_seq *hit = NULL;
        int rc = -1;

        mem_fail_after(n);
        x = prefix_index_open(r.engine, NULL, &err);
        if (x && !prefix_index_insert(x, one, &err) && !prefix_index_insert(x, other, &err) &&
            !prefix_index_pin(x, text, 80, &err)) {
            hit = prefix_index_lookup(x, text, 90, NULL, &err);
            rc = hit ? 0 : -1;
        }
        failed = mem_fail_after(-1);
        CHECK(rc == 0 || (failed && err.code == CLM_ERR_NOMEM), "%ld: %s", n, err.message);
        kv_seq_close(hit);
        prefix_index_close(x);
    }
    kv_seq_close(one);
    kv_seq_close(other);
    close_all(&r, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),     cmocka_unit_test(test_same_prompt),
        cmocka_unit_test(test_limits),    cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_pins),      cmocka_unit_test(test_evict),
        cmocka_unit_test(test_memory),    cmocka_unit_test(test_random),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
