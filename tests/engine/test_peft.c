/* Adapters as PEFT saves them, against what PEFT and transformers compute with them: stacks of
 * experts, latents, tied embeddings, biases, patterns, towers. */
#include "adapters.h"
#include "hashed.h"

/* Folders base and adapter of a case. */
static void write_case(const struct adapter_case *c)
{
    temporary_clear();
    temporary_write("base/config.json", c->config);
    hashed_write(c->tensors, "base/model.safetensors");
    temporary_write("adapter/adapter_config.json", c->adapter_config);
    hashed_write(c->adapter, "adapter/adapter_model.safetensors");
}

static void test_recorded(void **state)
{
    static float got[COUNT(adapter_tokens) * COUNT(adapter_cases[0].logits)];

    (void)state;
    for (size_t i = 0; i < COUNT(adapter_cases); i++) {
        const struct adapter_case *c = &adapter_cases[i];
        clm_error err = {0};
        struct rig r;
        kv_seq *seq;

        write_case(c);
        CHECK(rig_open_adapted(&r, temporary_path("base"), temporary_path("adapter"), 2, true,
                               &err) == 0,
              "%s: %s", c->name, err.message);
        assert_true((size_t)r.vocab_size <= COUNT(c->logits));
        seq = rig_sequence(&r);
        rig_feed(&r, seq, adapter_tokens, (int)COUNT(adapter_tokens), got);
        hashed_check(got + (COUNT(adapter_tokens) - 1) * (size_t)r.vocab_size, c->logits,
                     r.vocab_size, c->name);
        kv_seq_close(seq);
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_recorded)};

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
