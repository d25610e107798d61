/* Whatever config.json is accepted for a tiny checkpoint can be run: prompt, single token, trim. */
#include "config_input.h"
#include "engine/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Layers beyond this make a step slow and show nothing new. */
enum { MAX_LAYERS = 64 };

static void run(struct model *m)
{
    static const int32_t tokens[] = {0, 1, 5, 9, 13, 2, 7, 30, 39, 39};
    struct engine_options options = {.exact = m->spec->n_layers % 2, .cache_bytes = 1 << 24};
    clm_error err = {0};
    engine *e = engine_open(m, &options, &err);
    kv_seq *seq = e ? kv_seq_open(engine_cache(e), &err) : NULL;
    struct engine_input inputs[] = {
        {.seq = seq, .tokens = tokens, .n_tokens = 9, .n_logits = 9},
        {.seq = seq, .tokens = tokens + 9, .n_tokens = 1, .n_logits = 1},
    };
    const float *logits;

    for (int i = 0; seq && i < 2; i++)
        if (engine_step(e, &inputs[i], 1, &logits, &err))
            break;
    if (seq && !err.code && (kv_seq_length(seq) != 10 || engine_trim(e, seq, 4, &err)) &&
        err.code != CLM_ERR_FULL)
        abort();
    if (seq && !err.code && engine_step(e, &inputs[1], 1, &logits, &err) == 0 &&
        kv_seq_length(seq) != 5)
        abort();
    if (err.code && (!err.message[0] || strchr(err.message, '\n')))
        abort();
    kv_seq_close(seq);
    engine_close(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model *m = open_input(data, size);

    if (m && m->spec->vocab_size >= TINY_VOCAB && m->spec->n_layers <= MAX_LAYERS)
        run(m);
    model_close(m);
    return 0;
}
