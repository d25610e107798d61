#include "cli/session.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "cli/cache_folder.h"
#include "cli/interrupt.h"
#include "cli/locate.h"
#include "engine/cache_file.h"
#include "models/read_ahead.h"

static const char *const devices[] = {"auto", "cpu", "cuda", NULL};
const char *const model_cache_types[] = {"auto", "f32", "f16", "bf16", NULL};
const char *const model_kv_bits[] = {"none", "4", "8", NULL};
static const char *const kv_group_sizes[] = {"64", "32", "128", NULL};

const struct option option_model[] = {
    {STRING_OPTION("model", 'm', struct model_options, model, "MODEL",
                   "a model's folder, or org/model[@revision] from the local Hugging Face cache; "
                   "without it what CLM_MODEL in the environment names, else the small model that "
                   "comes with clm")},
    {0},
};

const struct option options_running[] = {
    {.kind = OPTION_GROUP, .group = option_model},
    {STRING_OPTION(
        "adapter-path", 0, struct model_options, adapter_path, "DIR",
        "a folder with a LoRA or DoRA adapter of mlx-lm's or PEFT's form, applied as the "
        "model runs")},
    {CHOICE_OPTION("device", 0, struct model_options, device, devices,
                   "where to compute: cpu, cuda, or auto (the default: what CLM_DEVICE in the "
                   "environment names, else a GPU that CUDA shows, else the CPU)")},
    {STRING_OPTION("gpu-layers", 0, struct model_options, gpu_layers, "N|all|auto",
                   "how many layers, the last ones, to have on the GPU while the CPU computes the "
                   "others: a number, all, or auto (the default: as many as its free memory has "
                   "room for)")},
    {INT_OPTION("tensor-parallel", 0, struct model_options, tensor_parallel, 1, DEVICE_MAX_GROUP,
                "how many GPUs, the first that CUDA shows, compute every layer together, each with "
                "its share of the heads, feed-forward blocks and experts (default: 1); with "
                "--device cpu so many groups of threads")},
    {INT_OPTION("threads", 't', struct model_options, threads, 0, 1024,
                "threads of the CPU to compute with (default: 0, one for each physical core)")},
    {FLAG_OPTION("exact", 0, struct model_options, exact,
                 "no approximations: activations and cache stay in float32")},
    {CHOICE_OPTION("cache-type", 0, struct model_options, cache_type, model_cache_types,
                   "how keys and values are kept: auto (the default: f16, with --exact f32), f32, "
                   "f16 or bf16")},
    {BYTES_OPTION("cache-bytes", 0, struct model_options, cache_bytes,
                  "how much memory keys, values and states may take, such as 800M or 4G; texts "
                  "that are made at a time wait for one another where it is not enough (default: "
                  "no bound)")},
    {CHOICE_OPTION("kv-bits", 0, struct model_options, kv_bits, model_kv_bits,
                   "quantise keys and values to 4 or 8 bits; none, the default: they stay as they "
                   "are")},
    {CHOICE_OPTION(
         "kv-group-size", 0, struct model_options, kv_group_size, kv_group_sizes,
         "with --kv-bits, numbers that share a scale: 32, 64 (the default) or 128, or the "
         "largest smaller of these that the model's heads are made of"),
     .with = "kv-bits"},
    {INT_OPTION("quantized-kv-start", 0, struct model_options, quantized_kv_start, 0, INT_MAX,
                "with --kv-bits, so many first tokens are not quantised (default: 5000 where text "
                "is made, 0 for bench, perplexity, score, logits and inspect)"),
     .with = "kv-bits"},
    {INT_OPTION("max-kv-size", 0, struct model_options, max_kv_size, ENGINE_FIRST_TOKENS + 1,
                INT_MAX,
                "keep so many tokens of a text at most: the first 4, and the last; what lies "
                "between is forgotten (default: all are kept)")},
    {0},
};

static void print_log(void *ctx, enum log_level level, const char *message)
{
    (void)ctx;
    if (level == LOG_PROGRESS && isatty(STDERR_FILENO)) {
        fprintf(stderr, *message ? "\r%s\033[K" : "\r\033[K%s", message);
        fflush(stderr);
    }
    if (level == LOG_INFO)
        fprintf(stderr, "clm: %s\n", message);
    if (level == LOG_WARNING)
        fprintf(stderr, "clm: warning: %s\n", message);
}

const struct log cli_log = {print_log, NULL};

struct engine_options model_options_engine(const struct model_options *o, int max_rows)
{
    static const enum dtype types[] = {DTYPE_F16, DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    static const int bits[] = {0, 4, 8}, group_sizes[] = {64, 32, 128};

    return (struct engine_options){
        .exact = o->exact,
        .cache_type = types[o->cache_type],
        .cache_type_set = o->cache_type != 0,
        .kv_bits = bits[o->kv_bits],
        .kv_group_size = group_sizes[o->kv_group_size],
        .quantized_kv_start = o->quantized_kv_start,
        .max_kv_size = o->max_kv_size,
        .cache_bytes = o->cache_bytes,
        .max_rows = max_rows,
    };
}

/* What the options leave open becomes what the file says. */
static void take_kind(struct engine_options *options, const struct model *m, const char *path)
{
    struct kv_cache_options kind = cache_file_kind(m, path);

    if (!options->kv_bits && kind.bits) {
        options->kv_bits = kind.bits;
        options->kv_group_size = kind.group_size;
        options->quantized_kv_start = kind.quantised_from;
    }
    if (!options->max_kv_size) {
        options->max_kv_size = kind.max_tokens;
        options->n_first_tokens = kind.n_first;
    }
}

static int parse_gpu_layers(int *out, const char *text, clm_error *err)
{
    char *end;
    long n;

    *out = GPU_LAYERS_AUTO;
    if (!text || !strcmp(text, "auto"))
        return 0;
    *out = GPU_LAYERS_ALL;
    if (!strcmp(text, "all"))
        return 0;
    n = strtol(text, &end, 10);
    if (end == text || *end || n < 0 || n >= INT_MAX)
        return fail(err, CLM_ERR_ARG,
                    "--gpu-layers must be a number of layers, all or auto, not %s", text);
    *out = n ? (int)n : GPU_LAYERS_NONE;
    return 0;
}

int session_open_devices(struct session *s, const struct model_options *o, clm_error *err)
{
    const char *name = o->device ? devices[o->device] : NULL;
    int gpu_layers;

    if (parse_gpu_layers(&gpu_layers, o->gpu_layers, err))
        return -1;
    if (o->tensor_parallel > 1 && gpu_layers != GPU_LAYERS_AUTO && gpu_layers != GPU_LAYERS_ALL)
        return fail(err, CLM_ERR_ARG,
                    "--tensor-parallel computes all layers on its GPUs; leave --gpu-layers out");
    if (o->tensor_parallel > 1
            ? model_devices_open_group(&s->devices, o->tensor_parallel, name, o->threads, err)
            : model_devices_open(&s->devices, name, o->threads, gpu_layers, err))
        return -1;
    s->devices.cache_bytes = o->cache_bytes;
    if (gpu_layers == GPU_LAYERS_ALL && s->devices.dev->ops->reads_host)
        log_say(&cli_log, LOG_WARNING,
                "--gpu-layers all: the device is the CPU, so that no layer is on a GPU; clm models "
                "--devices says what there is");
    return 0;
}

/* ctx: a flag that says no more; NULL: there is none. */
static bool go_on(void *ctx)
{
    return !interrupt_seen() && !(ctx && atomic_load((atomic_bool *)ctx));
}

/* On the devices that are open. */
static int open_model(struct session *s, const struct model_options *o, atomic_bool *stopped,
                      clm_error *err)
{
    s->devices.read_ahead = o->described ? NULL : go_on;
    s->devices.read_ahead_ctx = stopped;
    s->model = model_open_over(s->dir, o->adapter_path, &s->devices, &cli_log, err);
    s->devices.read_ahead_ctx = NULL; /* which ends before the devices do */
    return s->model ? 0 : -1;
}

int session_open_model(struct session *s, const struct model_options *o, clm_error *err)
{
    if (!s->dir[0] && locate_model(s->dir, sizeof s->dir, o->model, err))
        return -1;
    return session_open_devices(s, o, err) || open_model(s, o, NULL, err) ? -1 : 0;
}

static int open_engine(struct session *s, const struct model_options *o, int max_rows,
                       clm_error *err)
{
    struct engine_options options = model_options_engine(o, max_rows);

    if (o->like)
        take_kind(&options, s->model, o->like);
    s->engine = engine_open(s->model, &options, err);
    return s->engine ? 0 : -1;
}

int session_open(struct session *s, const struct model_options *o, int max_rows, clm_error *err)
{
    return session_open_model(s, o, err) || open_engine(s, o, max_rows, err) ? -1 : 0;
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
    char folder[4096];
    const struct snapshot_place place = {
        .folder = cache_folder(folder, sizeof folder, "tokenizers") ? folder : NULL};

    if (!s->dir[0] && locate_model(s->dir, sizeof s->dir, o->model, err))
        return -1;
    s->tokenizer = tokenizer_open_kept(s->dir, &place, &cli_log, err);
    return s->tokenizer ? check_vocabulary(s->tokenizer, s->dir, err) : -1;
}

/* A session's devices, opened by a thread of their own; and where weights are used in place, so
 * that no long copying stands between a bad tokenizer and its message, model and engine. */
struct opening {
    struct session *s;
    const struct model_options *o;
    int max_rows;
    atomic_bool text_done, text_failed;
    int rc;
    clm_error err;
};

static bool text_waited_for(void *ctx)
{
    return !atomic_load((atomic_bool *)ctx);
}

static void open_beside_text(void *ctx)
{
    struct opening *p = ctx;
    struct session *s = p->s;

    p->rc = session_open_devices(s, p->o, &p->err);
    if (p->rc || !s->devices.dev->ops->reads_host || s->devices.n_group)
        return;
    p->rc =
        open_model(s, p->o, &p->text_failed, &p->err) || open_engine(s, p->o, p->max_rows, &p->err);
    if (!p->rc)
        model_map_ahead(s->model, text_waited_for, &p->text_done);
}

int session_open_text(struct session *s, const struct model_options *o, int max_rows,
                      clm_error *err)
{
    struct opening opening = {.s = s, .o = o, .max_rows = max_rows};
    thread_task *task;
    int rc;

    if (!s->dir[0] && locate_model(s->dir, sizeof s->dir, o->model, err))
        return -1;
    task = thread_task_start(open_beside_text, &opening, err);
    if (!task)
        return -1;
    rc = session_open_tokenizer(s, o, err);
    atomic_store(&opening.text_failed, rc != 0);
    atomic_store(&opening.text_done, true);
    thread_task_join(task);
    if (!rc && opening.rc)
        rc = fail(err, opening.err.code, "%s", opening.err.message);
    if (rc)
        return -1;
    if (!s->model && open_model(s, o, NULL, err))
        return -1;
    return !s->engine && open_engine(s, o, max_rows, err) ? -1 : 0;
}

int session_check_tokens(const struct session *s, const struct token_list *tokens, clm_error *err)
{
    int vocab_size = s->model->spec->vocab_size;

    for (size_t i = 0; i < tokens->count; i++)
        if (tokens->ids[i] >= vocab_size)
            return fail(err, CLM_ERR_FORMAT,
                        "%s: the tokenizer gives token %d, the model has %d tokens: get the files "
                        "of one and the same model",
                        s->dir, (int)tokens->ids[i], vocab_size);
    return 0;
}

size_t session_made_for(const struct session *s)
{
    const struct spec *spec = s->model->spec;

    return spec->context_length > 0 && !spec->n_positions ? (size_t)spec->context_length : 0;
}

bool session_warn_length(const struct session *s, size_t n_tokens)
{
    size_t most = session_made_for(s);

    if (!most || n_tokens <= most)
        return false;
    log_say(&cli_log, LOG_WARNING,
            "%zu tokens, where the model was made for %zu: what it says of those beyond may be of "
            "no use",
            n_tokens, most);
    return true;
}

void session_close(struct session *s)
{
    tokenizer_close(s->tokenizer);
    engine_close(s->engine);
    model_close(s->model);
    model_devices_close(&s->devices);
    *s = (struct session){0};
}
