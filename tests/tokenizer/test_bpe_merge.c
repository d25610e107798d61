/* Merging, in stretches and by the queue, beside its definition: again and again the pair of the
 * least rank, of several places the first. Merges and words are random. */
#include <string.h>

#include "tokenizer/bpe_merge.h"

#include "testing.h"

#define LETTERS 4
#define MOST_IDS 64
#define LONGEST 400

static uint32_t draw(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

/* Each merge makes a symbol of its own, or one of the same size that another makes too. */
static void random_merges(struct bpe *b, uint64_t *state)
{
    uint32_t n_ids = LETTERS, n = 1 + draw(state, 60);
    uint64_t sizes[MOST_IDS] = {1, 1, 1, 1};
    clm_error err = {0};

    *b = (struct bpe){0};
    for (uint32_t i = 0; i < n && n_ids < MOST_IDS; i++) {
        struct bpe_rule rule = {draw(state, n_ids), draw(state, n_ids), draw(state, n_ids)};
        uint64_t size = sizes[rule.left] + sizes[rule.right];

        if (sizes[rule.merged] != size) {
            rule.merged = n_ids;
            sizes[n_ids++] = size;
        }
        assert_int_equal(bpe_pairs_add(&b->merges, rule, &err), 0);
    }
    assert_int_equal(bpe_pairs_finish(&b->merges, &err), 0);
}

static size_t merge_by_definition(const struct bpe *b, uint32_t *ids, size_t n)
{
    for (;;) {
        struct bpe_pair best = {BPE_NO_RANK, 0};
        size_t at = 0;

        for (size_t i = 0; i + 1 < n; i++) {
            struct bpe_pair pair = bpe_find_pair(&b->merges, ids[i], ids[i + 1]);

            if (pair.rank < best.rank) {
                best = pair;
                at = i;
            }
        }
        if (best.rank == BPE_NO_RANK)
            return n;
        ids[at] = best.merged;
        n--;
        for (size_t i = at + 1; i < n; i++)
            ids[i] = ids[i + 1];
    }
}

static void check_word(const struct bpe *b, const uint32_t *word, size_t n)
{
    uint32_t want[LONGEST], by_queue[LONGEST], lost[LONGEST];
    struct token_list got = {0};
    clm_error err = {0};
    size_t n_want;

    for (size_t i = 0; i < n; i++)
        want[i] = by_queue[i] = lost[i] = word[i];
    n_want = merge_by_definition(b, want, n);
    assert_int_equal(bpe_merge_queue(b, by_queue, n, &err), n_want);
    assert_memory_equal(by_queue, want, n_want * sizeof *want);
    assert_int_equal(bpe_merge(b, lost, n, &got, &err), 0);
    assert_int_equal(got.count, n_want);
    assert_memory_equal(got.ids, want, n_want * sizeof *want);
    token_list_release(&got);
}

static void test_random(void **unused)
{
    uint64_t state = 1;

    (void)unused;
    for (int i = 0; i < 400; i++) {
        struct bpe b;

        random_merges(&b, &state);
        for (int k = 0; k < 10; k++) {
            uint32_t word[LONGEST], n = 1 + draw(&state, LONGEST), period = 1 + draw(&state, n);

            for (uint32_t at = 0; at < n; at++)
                word[at] = at < period ? draw(&state, LETTERS) : word[at - period];
            check_word(&b, word, n);
        }
        bpe_pairs_release(&b.merges);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
