#include "cli/session.h"

#include <stdio.h>
#include <unistd.h>

#include "cli/locate.h"

static const char *const cache_types[] = {"auto", "f32", "f16", "bf16", NULL};

const struct option option_model[] = {
    {STRING_OPTION("model", 'm', struct model_options, model, "MODEL",
                   "a model's folder, or org/model from the local Hugging Face cache; without it "
                   "the small model that comes with clm is used")},
    {0},
};

const struct option options_running[] = {
    {.kind = OPTION_GROUP, .group = option_model},
    {STRING_OPTION(
        "adapter-path", 0, struct model_options, adapter_path, "DIR",
        "a folder with a LoRA or DoRA adapter of mlx-lm's or PEFT's form, applied as the "
        "model runs")},
    {INT_OPTION("threads", 't', struct model_options, threads, 0, 1024,
                "threads to compute with (default: 0, one for each physical core)")},
    {FLAG_OPTION("exact", 0, struct model_options, exact,
                 "no approximations: activations and cache stay in float32")},
    {CHOICE_OPTION("cache-type", 0, struct model_options, cache_type, cache_types,
                   "how keys and values are kept: auto (the default: f16, with --exact f32), f32, "
                   "f16 or bf16")},
    {BYTES_OPTION("cache-bytes", 0, struct model_options, cache_bytes,
                  "how much memory keys, values and states may take, such as 800M or 4G; texts "
                  "that are made at a time wait for one another where it is not enough (default: "
                  "no bound)")},
    {0},
};

static void print_log(void *ctx, enum log_level level, const char *message)
{
    (void)ctx;
    if (level == LOG_PROGRESS && isatty(STDERR_FILENO)) {
        fprintf(stderr, *message ? "\r%s\033[K" : "\r\033[K%s", message);
        fflush(stderr);
    }
    if (level == LOG_WARNING)
        fprintf(stderr, "clm: warning: %s\n", message);
}

const struct log cli_log = {print_log, NULL};

enum dtype model_options_cache(const struct model_options *o)
{
    static const enum dtype types[] = {DTYPE_F16, DTYPE_F32, DTYPE_F16, DTYPE_BF16};

    return o->cache_type == 0 && o->exact ? DTYPE_F32 : types[o->cache_type];
}

int session_open(struct session *s, const struct model_options *o, int max_rows, clm_error *err)
{
    struct engine_options options = {
        .exact = o->exact, .cache_bytes = o->cache_bytes, .max_rows = max_rows};

    options.cache_type = model_options_cache(o);
    options.cache_type_set = true;
    if (!s->dir[0] && locate_model(s->dir, sizeof s->dir, o->model, err))
        return -1;
    s->dev = device_cpu_open(o->threads, err);
    if (!s->dev)
        return -1;
    s->model = model_open_adapted(s->dir, o->adapter_path, s->dev, &cli_log, err);
    if (!s->model)
        return -1;
    s->engine = engine_open(s->model, &options, err);
    return s->engine ? 0 : -1;
}

/* A vocabulary of special tokens alone cannot say anything. */
static int check_vocabulary(const tokenizer *t, const char *dir, clm_error *err)
{
    size_t n = tokenizer_vocab_size(t);

    for (size_t id = 0; id < n; id++)
        if (tokenizer_token(t, (int32_t)id, NULL) && !tokenizer_is_special(t, (int32_t)id))
            return 0;
    return fail(err, CLM_ERR_FORMAT,
                "%s/tokenizer.json: it has no vocabulary; get the model's own tokenizer.json", dir);
}

int session_open_tokenizer(struct session *s, const struct model_options *o, clm_error *err)
{
    if (!s->dir[0] && locate_model(s->dir, sizeof s->dir, o->model, err))
        return -1;
    s->tokenizer = tokenizer_open(s->dir, &cli_log, err);
    return s->tokenizer ? check_vocabulary(s->tokenizer, s->dir, err) : -1;
}

void session_close(struct session *s)
{
    tokenizer_close(s->tokenizer);
    engine_close(s->engine);
    model_close(s->model);
    if (s->dev)
        s->dev->ops->close(s->dev);
    *s = (struct session){0};
}
