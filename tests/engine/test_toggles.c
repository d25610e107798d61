/* Configs with a key other than in any golden checkpoint, against what transformers and mlx-lm
 * compute for them. */
#include <math.h>

#include "hashed.h"
#include "toggles_mlx.h"

static void check_toggle(const struct toggle *t, size_t number, const char *format)
{
    static float got[COUNT(toggle_tokens) * COUNT(t->logits)];
    char folder[32], name[64];
    clm_error err = {0};
    struct rig r;
    kv_seq *seq;

    snprintf(folder, sizeof folder, "toggle%zu", number);
    snprintf(name, sizeof name, "%s/config.json", folder);
    temporary_write(name, t->config);
    snprintf(name, sizeof name, "%s/model.safetensors", folder);
    hashed_write_as(t->tensors, name, format);
    CHECK(rig_open(&r, temporary_path(folder), 1, true, &err) == 0, "%s: %s", t->name, err.message);
    assert_true((size_t)r.vocab_size <= COUNT(t->logits));
    seq = rig_sequence(&r);
    rig_feed(&r, seq, toggle_tokens, (int)COUNT(toggle_tokens), got);
    hashed_check(got + (COUNT(toggle_tokens) - 1) * (size_t)r.vocab_size, t->logits, r.vocab_size,
                 t->name);
    kv_seq_close(seq);
    rig_close(&r);
}

static void test_toggles(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(toggles); i++)
        check_toggle(&toggles[i], i, "pt");
    for (size_t i = 0; i < COUNT(toggles_mlx); i++)
        check_toggle(&toggles_mlx[i], COUNT(toggles) + i, "mlx");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_toggles)};

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
