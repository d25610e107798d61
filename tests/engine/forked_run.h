/* tests/engine/forked_run.h: what a model gives in chunks, in a batch, and taken back: logits to
 * compare with those of the same model computed in another way. */
#ifndef FORKED_RUN_H
#define FORKED_RUN_H

#include "cache_files.h"
#include "rig.h"

enum { N_TOKENS = 60, CHUNK = 13, BEFORE_FORK = 40 }; /* learned positions end at 64 */

/* How many numbers forked_run gives. */
static inline size_t n_numbers(const struct rig *r)
{
    return (size_t)r->vocab_size * (BEFORE_FORK + 2 * (N_TOKENS - BEFORE_FORK) + 5);
}

/* Room for them (free). */
static inline float *new_numbers(const struct rig *r)
{
    float *numbers = malloc(n_numbers(r) * sizeof *numbers);

    CHECK(numbers, "no memory");
    return numbers;
}

/* A prompt in chunks, a fork that goes on beside it in one batch, and what was taken back once
 * more: the logits of all of it in out. path: where the cache is left, or NULL; false: it is not,
 * as mlx-lm has no such file. */
static inline bool forked_run(struct rig *r, float *out, const char *path)
{
    int32_t tokens[N_TOKENS], n = r->vocab_size;
    size_t row = (size_t)n;
    kv_seq *seq = rig_sequence(r), *fork;
    clm_error err = {0};
    bool saved;

    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = (i * 37 + 11) % n;
    for (int at = 0; at < BEFORE_FORK; at += CHUNK) {
        int count = BEFORE_FORK - at < CHUNK ? BEFORE_FORK - at : CHUNK;

        rig_feed(r, seq, tokens + at, count, out);
        out += row * (size_t)count;
    }
    fork = kv_seq_fork(seq, &err);
    CHECK(fork, "%s", err.message);
    for (int i = BEFORE_FORK; i < N_TOKENS; i++) {
        struct engine_input inputs[] = {{seq, tokens + i, 1, .n_logits = 1},
                                        {fork, tokens + N_TOKENS - 1 - i, 1, .n_logits = 1}};
        const float *logits;

        CHECK(engine_step(r->engine, inputs, 2, &logits, &err) == 0, "%s", err.message);
        memcpy(out, logits, 2 * row * sizeof *out);
        out += 2 * row;
    }
    saved = path && cache_file_save(r->engine, seq, path, &origin, &err) == 0;
    CHECK(!path || saved || err.code == CLM_ERR_UNSUPPORTED, "%s", err.message);
    CHECK(engine_trim(r->engine, fork, BEFORE_FORK + 3, &err) == 0, "%s", err.message);
    rig_feed(r, fork, tokens, 5, out);
    kv_seq_close(fork);
    kv_seq_close(seq);
    CHECK(kv_cache_bytes_used(engine_cache(r->engine)) == 0, "blocks are left");
    return saved;
}

#endif
