/* Adapters as PEFT saves them, against what PEFT and transformers compute with them: stacks of
 * experts, latents, tied embeddings, biases, patterns, towers. And those that do not fit. */
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

static const struct adapter_case *find_case(const char *name)
{
    const struct adapter_case *c = adapter_cases;

    while (strncmp(c->name, name, strlen(name)) != 0)
        c++;
    return c;
}

static void test_recorded(void **state)
{
    static float got[COUNT(adapter_tokens) * COUNT(adapter_cases[0].logits)];
    int n = COUNT(adapter_tokens);

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
        rig_feed(&r, seq, adapter_tokens, n - 2, got);
        rig_feed(&r, seq, adapter_tokens + n - 2, 1, got);
        rig_feed(&r, seq, adapter_tokens + n - 1, 1, got);
        hashed_check(got, c->logits, r.vocab_size, c->name);
        kv_seq_close(seq);
        rig_close(&r);
    }
}

#define EXPERTS_A "base_model.model.model.layers.0.mlp.experts.lora_A.weight"
#define EXPERTS_B "base_model.model.model.layers.0.mlp.experts.lora_B.weight"
#define LATER_A "base_model.model.model.layers.1.mlp.experts.lora_A.weight"
#define LATER_B "base_model.model.model.layers.1.mlp.experts.lora_B.weight"
#define Q "base_model.model.model.layers.0.self_attn.q_proj"
#define CONFIG(more) "{\"peft_type\": \"LORA\", \"r\": 3" more "}"
#define PARAMETERS(names) CONFIG(", \"target_parameters\": [" names "]")

/* Of models 32 wide; qwen3_moe has 4 experts of 16. */
static const struct bad_adapter {
    const char *of, *config, *tensors, *says[2];
} bad[] = {
    {"deepseek_v3",
     PARAMETERS("\"experts.gate_proj\", \"experts.up_proj\""),
     LATER_A ":12:32 " LATER_B ":16:12",
     {LATER_A, "gate_proj or up_proj"}},
    {"qwen3_moe",
     PARAMETERS("\"experts.gate_up_proj\""),
     EXPERTS_A ":12:16 " EXPERTS_B ":32:12",
     {EXPERTS_A, "no place"}},
    {"qwen3_moe",
     PARAMETERS("\"0.mlp.experts.down_proj\", \"7.mlp.experts.gate_up_proj\""),
     EXPERTS_A ":12:32 " EXPERTS_B ":32:12",
     {EXPERTS_A, "no place"}},
    {"qwen3_moe", CONFIG(""), EXPERTS_A ":12:16 " EXPERTS_B ":32:12", {EXPERTS_A, "no place"}},
    {"qwen3_moe",
     PARAMETERS("\"experts.down_proj\""),
     EXPERTS_A ":13:16 " EXPERTS_B ":32:13",
     {EXPERTS_A, "rank 0"}},
    {"qwen3_moe",
     PARAMETERS("\"experts.down_proj\""),
     EXPERTS_A ":12:16 " EXPERTS_B ":32:16",
     {EXPERTS_B, "[32, 12]"}},
    {"qwen3_moe",
     PARAMETERS("\"experts.down_proj\""),
     EXPERTS_A ":16:16 " EXPERTS_B ":32:16",
     {"experts.down_proj has rank 4", "3"}},
    {"qwen3_moe",
     CONFIG(", \"lora_bias\": true"),
     Q ".lora_A.weight:3:32 " Q ".lora_B.weight:64:3",
     {Q ".lora_B.weight", "lora_bias"}},
    {"qwen3_moe",
     CONFIG(""),
     Q ".lora_A.weight:3:32 " Q ".lora_B.weight:64:3 " Q ".lora_B.bias:64",
     {Q ".lora_B.bias", "no lora_bias"}},
    {"qwen3_moe",
     CONFIG(", \"lora_bias\": true"),
     Q ".lora_A.weight:3:32 " Q ".lora_B.weight:64:3 " Q ".lora_B.bias:63",
     {Q ".lora_B.bias", "[64]"}},
    {"qwen3_moe",
     CONFIG(", \"use_dora\": true"),
     "base_model.model.model.embed_tokens.lora_embedding_A:3:80 "
     "base_model.model.model.embed_tokens.lora_embedding_B:32:3 "
     "base_model.model.model.embed_tokens.lora_magnitude_vector:80",
     {"embed_tokens.lora_magnitude_vector", "[32]"}},
    {"qwen3_moe", CONFIG(", \"kasa_config\": {}"), Q ".lora_A.weight:3:32", {"kasa_config", ""}},
    {"qwen3_moe",
     CONFIG(", \"rank_pattern\": {\"(q_proj\": 3}"),
     Q ".lora_A.weight:3:32 " Q ".lora_B.weight:64:3",
     {"(q_proj", "pattern"}},
};

static void test_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        const char *const tensors[2] = {bad[i].tensors, NULL};
        clm_error err = {0};
        struct rig r;

        write_case(find_case(bad[i].of));
        temporary_write("adapter/adapter_config.json", bad[i].config);
        hashed_write(tensors, "adapter/adapter_model.safetensors");
        CHECK(rig_open_adapted(&r, temporary_path("base"), temporary_path("adapter"), 1, true,
                               &err) == -1,
              "%zu is taken", i);
        CHECK(strstr(err.message, bad[i].says[0]) && strstr(err.message, bad[i].says[1]), "%zu: %s",
              i, err.message);
    }
}

/* Opening fails with the n-th allocation, for every n. */
static void test_failing_allocations(void **state)
{
    static const char *const of[] = {"llama", "qwen2", "qwen3_moe", "deepseek_v3"};

    (void)state;
    for (size_t i = 0; i < COUNT(of); i++) {
        bool failed = true;

        write_case(find_case(of[i]));
        for (long n = 0; failed; n++) {
            clm_error err = {0};
            struct rig r;
            bool done;

            mem_fail_after(n);
            done = rig_open_adapted(&r, temporary_path("base"), temporary_path("adapter"), 1, true,
                                    &err) == 0;
            failed = mem_fail_after(-1);
            CHECK(done || failed, "%s fails by itself: %s", of[i], err.message);
            CHECK(done || err.message[0], "%s says nothing", of[i]);
            if (done)
                rig_close(&r);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_failing_allocations),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
