/* tests/fuzz/fuzz_generate_sampler.c: any numbers as a sampler's options and as logits.
 *
 * The input is eaten from its beginning, in the order of read_options; what is missing is zero. A
 * sampler is opened or refused with an error; it draws tokens that exist, and the same ones again
 * with the same seed.
 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "generate/sampler.h"

#define MAX_VOCABULARY 700
#define STEPS 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t size;
};

static void must(bool condition)
{
    if (!condition)
        abort();
}

static unsigned byte(struct input *in)
{
    if (in->size == 0)
        return 0;
    in->size--;
    return *in->data++;
}

static uint32_t word(struct input *in)
{
    uint32_t low = byte(in) | byte(in) << 8;

    return low | (uint32_t)byte(in) << 16 | (uint32_t)byte(in) << 24;
}

/* Often one that makes sense: eighths up to 6, less often any pattern of bits. */
static double number(struct input *in)
{
    unsigned b = byte(in);
    uint32_t bits;
    float f;

    if (b < 250)
        return b < 50 ? b / 8.0 : b < 150 ? (b - 50) / 100.0 : 0;
    bits = word(in);
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

static int integer(struct input *in)
{
    unsigned b = byte(in);

    return b < 240 ? (int)(b % 60) : (int)(word(in) >> 1) * (b & 1 ? 1 : -1);
}

static struct sampler_options read_options(struct input *in)
{
    struct sampler_options o = sampler_defaults();

    o.temp = number(in);
    o.dynatemp_range = number(in);
    o.dynatemp_exponent = number(in);
    o.top_n_sigma = number(in);
    o.typical_p = number(in);
    o.top_p = number(in);
    o.min_p = number(in);
    o.min_tokens_to_keep = integer(in);
    o.top_k = integer(in);
    o.xtc_probability = number(in);
    o.xtc_threshold = number(in);
    o.repetition = (struct penalty){number(in), integer(in)};
    o.presence = (struct penalty){number(in), integer(in)};
    o.frequency = (struct penalty){number(in), integer(in)};
    o.dry.multiplier = number(in);
    o.dry.base = number(in);
    o.dry.allowed_length = integer(in);
    o.dry.last_n = integer(in) - 1;
    o.mirostat = integer(in) % 4;
    o.mirostat_tau = number(in);
    o.mirostat_eta = number(in);
    o.top_logprobs = integer(in);
    o.seed = word(in);
    return o;
}

/* A history of what was read, of which the last ones are what was drawn. */
static void draw(sampler *s, const float *logits, int n, int32_t history[STEPS + 64],
                 size_t n_history, int32_t drawn[STEPS])
{
    for (int i = 0; i < STEPS; i++) {
        clm_error err = {0};
        struct sample got;

        drawn[i] = -1;
        if (sampler_next(s, logits, history, n_history, &got, &err)) {
            must(err.code == CLM_ERR_FORMAT);
            continue;
        }
        must(got.token >= 0 && got.token < n && got.n_top <= n);
        must(logits[got.token] > -INFINITY);
        for (int k = 1; k < got.n_top; k++)
            must(got.top[k].logprob <= got.top[k - 1].logprob);
        history[n_history++] = drawn[i] = got.token;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static float logits[MAX_VOCABULARY];
    struct input in = {data, size};
    struct sampler_options o = read_options(&in);
    int n = 1 + (int)(word(&in) % MAX_VOCABULARY);
    int32_t history[STEPS + 64], drawn[2][STEPS], tail = (int32_t)byte(&in) % 8;
    struct dry_breaker breakers[] = {{(int32_t)byte(&in) % 8, 0, 0}, {8, 0, 1}};
    clm_logit_bias bias = {(int32_t)byte(&in), (float)number(&in)};
    size_t n_history = byte(&in) % 64;

    o.logit_bias = &bias;
    o.n_logit_bias = bias.token % 2;
    o.xtc_special = &tail;
    o.n_xtc_special = 1;
    o.dry.breakers = (struct dry_breakers){breakers, 2, {.ids = &tail, .count = 1}};
    for (size_t i = 0; i < n_history; i++)
        history[i] = integer(&in) % 10;
    for (int i = 0; i < n; i++)
        logits[i] = in.size ? (float)(number(&in) * 4) : (float)(i * 37 % 64) / 8;
    for (int round = 0; round < 2; round++) {
        clm_error err = {0};
        sampler *s = sampler_open(&o, n, &err);

        must(!s == (err.code != 0) && !s == (sampler_check(&o, n, &err) != 0));
        if (!s)
            return 0;
        draw(s, logits, n, history, n_history, drawn[round]);
        sampler_close(s);
    }
    must(memcmp(drawn[0], drawn[1], sizeof drawn[0]) == 0);
    return 0;
}
