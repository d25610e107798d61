/* Configs with a key other than in any golden checkpoint, against what transformers and mlx-lm
 * compute for them. */
#include <math.h>

#include "hashed.h"
#include "toggles_mlx.h"

static void write_toggle(const struct toggle *t, const char *folder, const char *format)
{
    char name[64];

    snprintf(name, sizeof name, "%s/config.json", folder);
    temporary_write(name, t->config);
    snprintf(name, sizeof name, "%s/model.safetensors", folder);
    hashed_write_as(t->tensors, name, format);
}

static void check_toggle(const struct toggle *t, size_t number, const char *format)
{
    static float got[COUNT(toggle_tokens) * COUNT(t->logits)];
    char folder[32];
    clm_error err = {0};
    struct rig r;
    kv_seq *seq;

    snprintf(folder, sizeof folder, "toggle%zu", number);
    write_toggle(t, folder, format);
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

static struct toggle toggle_named(const char *name)
{
    for (size_t i = 0; i < COUNT(toggles); i++)
        if (strcmp(toggles[i].name, name) == 0)
            return toggles[i];
    CHECK(false, "there is no toggle %s", name);
    return (struct toggle){0};
}

/* What makes the text of a model that also speaks is one level further down. */
static void test_thinker(void **state)
{
    struct toggle t = toggle_named("qwen2_5_omni_thinker of qwen2");
    char whole[4096];

    (void)state;
    snprintf(whole, sizeof whole,
             "{\"model_type\": \"qwen2_5_omni\", \"transformers_version\": \"5.24.0\", "
             "\"talker_config\": {}, \"thinker_config\": %s}",
             t.config);
    t.config = whole;
    check_toggle(&t, COUNT(toggles) + COUNT(toggles_mlx), "pt");
}

/* Layers that see the keys which another chose are not parted from it: of five, of which the fourth
 * has an index, too, the last two can be on another device, the last alone cannot. */
static void test_shared_index_is_whole(void **state)
{
    const struct toggle *t = NULL;

    (void)state;
    for (size_t i = 0; i < COUNT(toggles); i++)
        if (strstr(toggles[i].config, "FSSFS"))
            t = &toggles[i];
    assert_non_null(t);
    write_toggle(t, "shared", "pt");
    for (int n = 1; n < 5; n++) {
        clm_error err = {0};
        struct rig r = {0};

        CHECK(spread_two(&r.devices, n, 1, &err) == 0, "%s", err.message);
        r.model = model_open_over(temporary_path("shared"), NULL, &r.devices, NULL, &err);
        CHECK(!!r.model == (n == 2), "%d layers apart: %s", n, err.message);
        CHECK(r.model || strstr(err.message, "cannot be on another device"), "%s", err.message);
        rig_close(&r);
    }
}

/* Two groups of two experts do not have five for a token, where no other may be chosen. */
static void test_too_few_experts_are_kept(void **state)
{
    const char *key = "\"num_experts_per_tok\":2", *at;
    struct toggle t = toggle_named("deepseek_v32 {}");
    char changed[4096];
    clm_error err = {0};
    struct rig r = {0};

    (void)state;
    at = strstr(t.config, key);
    assert_non_null(at);
    snprintf(changed, sizeof changed, "%.*s\"num_experts_per_tok\":5%s", (int)(at - t.config),
             t.config, at + strlen(key));
    t.config = changed;
    write_toggle(&t, "few", "pt");
    CHECK(rig_open(&r, temporary_path("few"), 1, true, &err) < 0, "it was opened");
    CHECK(strstr(err.message, "topk_group") && strstr(err.message, "4 experts"), "%s", err.message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_toggles),
                                       cmocka_unit_test(test_thinker),
                                       cmocka_unit_test(test_too_few_experts_are_kept),
                                       cmocka_unit_test(test_shared_index_is_whole)};

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
