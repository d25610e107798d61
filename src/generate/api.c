/* generate/api.c: the public interface, over the layers below. */
#include "generate/api.h"

#include "base/memory.h"
#include "engine/cache_file.h"
#include "generate/end_tokens.h"

struct clm_detokenizer {
    struct detokenizer state;
    struct strbuf text;
};

const char *clm_version(void)
{
    return CLM_VERSION;
}

static void pass_warning(void *ctx, enum log_level level, const char *message)
{
    const clm_model *m = ctx;

    if (m->warn && level == LOG_WARNING)
        m->warn(m->warn_ctx, message);
}

static int open_devices(struct model_devices *where, const clm_model_options *o, clm_error *err)
{
    if (o->tensor_parallel < 0)
        return fail(err, CLM_ERR_ARG, "tensor_parallel must be 0 or more, not %d",
                    o->tensor_parallel);
    if (o->tensor_parallel < 2)
        return model_devices_open(where, o->device, o->n_threads, o->gpu_layers, err);
    if (o->gpu_layers != GPU_LAYERS_AUTO && o->gpu_layers != GPU_LAYERS_ALL)
        return fail(err, CLM_ERR_ARG,
                    "tensor_parallel has all layers on its devices; gpu_layers must be 0, not %d",
                    o->gpu_layers);
    return model_devices_open_group(where, o->tensor_parallel, o->device, o->n_threads, err);
}

static bool go_on(void *ctx)
{
    (void)ctx;
    return true;
}

clm_model *clm_model_open(const char *path, const clm_model_options *options, clm_error *err)
{
    clm_model_options o = options ? *options : (clm_model_options){0};
    clm_model *m = path ? mem_zeroed(1, sizeof *m) : NULL;

    if (!path || !*path)
        return fail_null(err, CLM_ERR_ARG, "the path of a model is %s; give its folder",
                         path ? "empty" : "NULL");
    if (!m)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a model");
    m->warn = o.warn;
    m->warn_ctx = o.warn_ctx;
    m->log = (struct log){pass_warning, m};
    m->path = mem_strdup(path);
    if (!m->path)
        fail(err, CLM_ERR_NOMEM, "no memory for a model");
    else if (o.gpu_layers < GPU_LAYERS_NONE)
        fail(err, CLM_ERR_ARG, "gpu_layers must be -1 or more, not %d", o.gpu_layers);
    else if (open_devices(&m->devices, &o, err) == 0) {
        if (o.gpu_layers == GPU_LAYERS_ALL && m->devices.dev->ops->reads_host)
            log_say(&m->log, LOG_WARNING,
                    "gpu_layers: the device is the CPU, so that no layer is on a GPU");
        m->devices.read_ahead = go_on;
        m->model = model_open_over(path, o.adapter_path, &m->devices, &m->log, err);
    }
    if (m->model)
        m->tokenizer = tokenizer_open(path, &m->log, err);
    if (m->tokenizer && end_tokens_load(&m->end_tokens, path, m->tokenizer, err) == 0)
        return m;
    clm_model_close(m);
    return NULL;
}

void clm_model_close(clm_model *m)
{
    if (!m)
        return;
    token_list_release(&m->end_tokens);
    tokenizer_close(m->tokenizer);
    model_close(m->model);
    model_devices_close(&m->devices);
    mem_free(m->path);
    mem_free(m);
}

int clm_model_vocab_size(const clm_model *m)
{
    return m->model->spec->vocab_size;
}

int clm_model_context_length(const clm_model *m)
{
    return m->model->spec->context_length;
}

bool clm_model_is_end(const clm_model *m, int32_t token)
{
    return end_tokens_have(&m->end_tokens, token);
}

int clm_model_tokenize(const clm_model *m, const char *text, size_t size, bool add_special,
                       int32_t *tokens, int capacity, clm_error *err)
{
    struct token_list list = {0};
    int n = -1;

    if (tokenizer_encode(m->tokenizer, text, size, add_special, &list, err) == 0) {
        if (list.failed || list.count > INT32_MAX)
            fail(err, CLM_ERR_NOMEM, "no memory for the tokens of %zu bytes", size);
        else
            n = (int)list.count;
    }
    for (int i = 0; i < n && i < capacity; i++)
        tokens[i] = list.ids[i];
    token_list_release(&list);
    return n;
}

clm_detokenizer *clm_detokenizer_open(const clm_model *m, bool skip_special, clm_error *err)
{
    clm_detokenizer *d = mem_zeroed(1, sizeof *d);

    if (!d)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a detokenizer");
    if (detokenizer_init(&d->state, m->tokenizer, skip_special, err) == 0)
        return d;
    mem_free(d);
    return NULL;
}

void clm_detokenizer_close(clm_detokenizer *d)
{
    if (!d)
        return;
    detokenizer_release(&d->state);
    strbuf_release(&d->text);
    mem_free(d);
}

/* Hand out the text of a call that returned rc. */
static int give_text(clm_detokenizer *d, int rc, const char **text, size_t *size, clm_error *err)
{
    if (rc == 0 && d->text.failed)
        rc = fail(err, CLM_ERR_NOMEM, "no memory for text");
    *text = rc == 0 && d->text.data ? d->text.data : "";
    *size = rc == 0 ? d->text.size : 0;
    return rc;
}

int clm_detokenizer_add(clm_detokenizer *d, int32_t token, const char **text, size_t *size,
                        clm_error *err)
{
    strbuf_clear(&d->text);
    return give_text(d, detokenizer_add(&d->state, token, &d->text, err), text, size, err);
}

int clm_detokenizer_finish(clm_detokenizer *d, const char **text, size_t *size, clm_error *err)
{
    strbuf_clear(&d->text);
    return give_text(d, detokenizer_finish(&d->state, &d->text, err), text, size, err);
}

static int engine_options_of(struct engine_options *out, const clm_engine_options *o,
                             clm_error *err)
{
    static const enum dtype types[] = {DTYPE_F16, DTYPE_F32, DTYPE_F16, DTYPE_BF16};

    if ((unsigned)o->cache_type >= COUNT(types))
        return fail(err, CLM_ERR_ARG, "cache_type %d is none of enum clm_cache_type",
                    (int)o->cache_type);
    if (o->max_rows < 0)
        return fail(err, CLM_ERR_ARG, "max_rows must be 0 or more, not %d", o->max_rows);
    *out = (struct engine_options){
        .exact = o->exact,
        .cache_type = types[o->cache_type],
        .cache_type_set = o->cache_type != CLM_CACHE_AUTO,
        .cache_bytes = o->cache_bytes,
        .max_rows = o->max_rows,
        .kv_bits = o->kv_bits,
        .kv_group_size = o->kv_group_size,
        .quantized_kv_start = o->quantized_kv_start,
        .max_kv_size = o->max_kv_size,
    };
    return 0;
}

clm_engine *clm_engine_open(clm_model *m, const clm_engine_options *options, clm_error *err)
{
    struct engine_options o = {0};
    clm_engine *e;

    if (options && engine_options_of(&o, options, err))
        return NULL;
    e = mem_zeroed(1, sizeof *e);
    if (!e)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for an engine");
    e->model = m;
    e->engine = engine_open(m->model, &o, err);
    if (e->engine)
        return e;
    mem_free(e);
    return NULL;
}

void clm_engine_close(clm_engine *e)
{
    if (!e)
        return;
    engine_close(e->engine);
    mem_free(e->inputs);
    mem_free(e);
}

/* Takes seq, NULL included. */
clm_sequence *clm_sequence_of(clm_engine *e, kv_seq *seq, clm_error *err)
{
    clm_sequence *s = seq ? mem_zeroed(1, sizeof *s) : NULL;

    if (!seq)
        return NULL;
    if (!s) {
        kv_seq_close(seq);
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a sequence");
    }
    *s = (clm_sequence){e, seq};
    return s;
}

clm_sequence *clm_sequence_open(clm_engine *e, clm_error *err)
{
    return clm_sequence_of(e, kv_seq_open(engine_cache(e->engine), err), err);
}

void clm_sequence_close(clm_sequence *s)
{
    if (!s)
        return;
    kv_seq_close(s->seq);
    mem_free(s);
}

int clm_sequence_length(const clm_sequence *s)
{
    return kv_seq_length(s->seq);
}

const int32_t *clm_sequence_tokens(const clm_sequence *s)
{
    return kv_seq_tokens(s->seq);
}

/* Of caches; text holds the tokenizer's fingerprint. */
static struct cache_origin origin_of(const clm_model *m, char text[FINGERPRINT_SIZE])
{
    tokenizer_fingerprint(m->tokenizer, text);
    return (struct cache_origin){.model = m->path, .tokenizer = text};
}

int clm_sequence_save(const clm_sequence *s, const char *path, clm_error *err)
{
    char text[FINGERPRINT_SIZE];
    struct cache_origin origin = origin_of(s->owner->model, text);

    if (!path)
        return fail(err, CLM_ERR_ARG, "the path of a prompt cache is NULL");
    return cache_file_save(s->owner->engine, s->seq, path, &origin, err);
}

clm_sequence *clm_sequence_load(clm_engine *e, const char *path, clm_error *err)
{
    char text[FINGERPRINT_SIZE];
    struct cache_origin origin = origin_of(e->model, text);

    if (!path)
        return fail_null(err, CLM_ERR_ARG, "the path of a prompt cache is NULL");
    return clm_sequence_of(e, cache_file_load(e->engine, path, &origin, err), err);
}

clm_sequence *clm_sequence_fork(const clm_sequence *s, clm_error *err)
{
    return clm_sequence_of(s->owner, kv_seq_fork(s->seq, err), err);
}

int clm_sequence_trim(clm_sequence *s, int n, clm_error *err)
{
    if (n < 0 || n > kv_seq_length(s->seq))
        return fail(err, CLM_ERR_ARG, "cannot trim a sequence of %d tokens to %d",
                    kv_seq_length(s->seq), n);
    return engine_trim(s->owner->engine, s->seq, n, err);
}

int clm_sequence_eval(clm_sequence *s, const int32_t *tokens, int n, const float **logits,
                      clm_error *err)
{
    if (n < 1 || !tokens)
        return fail(err, CLM_ERR_ARG, "cannot evaluate %d tokens%s", n, tokens ? "" : " at NULL");
    return engine_prefill(s->owner->engine, s->seq, tokens, n, 0, NULL, NULL, logits, err);
}

/* Room for n inputs. */
static int reserve_inputs(clm_engine *e, int n, clm_error *err)
{
    struct engine_input *grown;
    size_t size;

    if (n <= e->capacity)
        return 0;
    if (n < 1 || !size_mul((size_t)n, sizeof *grown, &size))
        return fail(err, CLM_ERR_ARG, "a step of %d inputs", n);
    grown = mem_resize(e->inputs, size);
    if (!grown)
        return fail(err, CLM_ERR_NOMEM, "no memory for a step of %d inputs", n);
    e->inputs = grown;
    e->capacity = n;
    return 0;
}

int clm_engine_step(clm_engine *e, const clm_input *inputs, int n, const float **logits,
                    clm_error *err)
{
    if (n < 1 || !inputs)
        return fail(err, CLM_ERR_ARG, "a step of %d inputs", inputs ? n : 0);
    if (reserve_inputs(e, n, err))
        return -1;
    for (int i = 0; i < n; i++) {
        if (!inputs[i].sequence || inputs[i].sequence->owner != e)
            return fail(err, CLM_ERR_ARG, "input %d is not a sequence of this engine", i);
        if (!inputs[i].tokens)
            return fail(err, CLM_ERR_ARG, "input %d has no tokens", i);
        e->inputs[i] = (struct engine_input){
            .seq = inputs[i].sequence->seq,
            .tokens = inputs[i].tokens,
            .n_tokens = inputs[i].n_tokens,
            .n_logits = inputs[i].n_logits,
        };
    }
    return engine_step(e->engine, e->inputs, n, logits, err);
}

clm_sampler_options clm_sampler_defaults(void)
{
    struct sampler_options o = sampler_defaults();

    return (clm_sampler_options){
        .dynatemp_exponent = o.dynatemp_exponent,
        .xtc_threshold = o.xtc_threshold,
        .penalty_context = o.repetition.context,
        .dry_base = o.dry.base,
        .dry_allowed_length = o.dry.allowed_length,
        .dry_penalty_last_n = o.dry.last_n,
        .mirostat_tau = o.mirostat_tau,
        .mirostat_eta = o.mirostat_eta,
    };
}

static struct sampler_options sampler_options_of(const clm_sampler_options *o)
{
    struct sampler_options out = sampler_defaults();

    out.temp = o->temp;
    out.dynatemp_range = o->dynatemp_range;
    out.dynatemp_exponent = o->dynatemp_exponent;
    out.top_n_sigma = o->top_n_sigma;
    out.typical_p = o->typical_p;
    out.top_p = o->top_p;
    out.min_p = o->min_p;
    out.top_k = o->top_k;
    out.xtc_probability = o->xtc_probability;
    out.xtc_threshold = o->xtc_threshold;
    out.repetition = (struct penalty){o->repetition_penalty, o->penalty_context};
    out.presence = (struct penalty){o->presence_penalty, o->penalty_context};
    out.frequency = (struct penalty){o->frequency_penalty, o->penalty_context};
    out.dry.multiplier = o->dry_multiplier;
    out.dry.base = o->dry_base;
    out.dry.allowed_length = o->dry_allowed_length;
    out.dry.last_n = o->dry_penalty_last_n;
    out.mirostat = o->mirostat;
    out.mirostat_tau = o->mirostat_tau;
    out.mirostat_eta = o->mirostat_eta;
    out.logit_bias = o->logit_bias;
    out.n_logit_bias = o->n_logit_bias;
    out.seed = o->seed;
    out.logprobs = true;
    out.top_logprobs = o->top_logprobs;
    return out;
}

/* The texts that o names, or the usual ones, in the model's tokens; none when DRY is off. */
static int find_breakers(struct dry_breakers *b, const clm_model *m, const clm_sampler_options *o,
                         clm_error *err)
{
    if (o->dry_multiplier == 0)
        return 0;
    if (!o->dry_sequence_breakers)
        return dry_breakers_build(b, m->tokenizer, dry_default_breakers, DRY_DEFAULT_BREAKERS, err);
    return dry_breakers_build(b, m->tokenizer, o->dry_sequence_breakers, o->n_dry_sequence_breakers,
                              err);
}

clm_sampler *clm_sampler_open(const clm_model *m, const clm_sampler_options *options,
                              clm_error *err)
{
    clm_sampler_options given = options ? *options : clm_sampler_defaults();
    struct sampler_options o = sampler_options_of(&given);
    struct token_list special = {0};
    clm_sampler *s = mem_zeroed(1, sizeof *s);

    if (!s)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a sampler");
    if (given.dry_base == 0) /* which it never is, but where all is */
        fail(err, CLM_ERR_ARG,
             "dry_base must be 1 or more, not 0: start from clm_sampler_defaults(), or "
             "clm_request_defaults() of a request");
    else if (end_tokens_for_xtc(&special, m->tokenizer, &m->end_tokens, err) == 0 &&
             find_breakers(&o.dry.breakers, m, &given, err) == 0) {
        o.xtc_special = special.ids;
        o.n_xtc_special = (int)special.count;
        s->sampler = sampler_open(&o, m->model->spec->vocab_size, err);
    }
    dry_breakers_release(&o.dry.breakers);
    token_list_release(&special);
    if (s->sampler)
        return s;
    mem_free(s);
    return NULL;
}

void clm_sampler_close(clm_sampler *s)
{
    if (!s)
        return;
    sampler_close(s->sampler);
    mem_free(s);
}

int32_t clm_sampler_next(clm_sampler *s, const float *logits, const int32_t *history, size_t n,
                         float *logprob, clm_error *err)
{
    if (!logits)
        return fail(err, CLM_ERR_ARG, "there are no logits to choose from");
    if (sampler_next(s->sampler, logits, history, n, &s->last, err)) {
        s->last = (struct sample){0};
        return -1;
    }
    if (logprob)
        *logprob = s->last.logprob;
    return s->last.token;
}

int clm_sampler_top(const clm_sampler *s, const clm_token_logprob **top)
{
    *top = s->last.top;
    return s->last.n_top;
}
