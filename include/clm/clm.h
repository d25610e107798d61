/* clm.h: the public interface. Open a model, keep sequences on it, evaluate tokens, sample, make
 * text. */
#ifndef CLM_CLM_H
#define CLM_CLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CLM_API __attribute__((visibility("default")))
#else
#define CLM_API
#endif

/* Of the library that is linked, such as "0.1.0". */
CLM_API const char *clm_version(void);

enum clm_error_code {
    CLM_OK = 0,
    CLM_ERR_ARG,         /* a value given by the caller is out of range */
    CLM_ERR_NOMEM,       /* no memory */
    CLM_ERR_IO,          /* a file cannot be opened, read or written */
    CLM_ERR_FORMAT,      /* a file does not say what its format demands */
    CLM_ERR_UNSUPPORTED, /* well formed, but not something clm can do */
    CLM_ERR_FULL,        /* no room left for more tokens */
    CLM_ERR_DEVICE,      /* the device failed */
    CLM_ERR_CANCELLED    /* stopped on request */
};

/* What went wrong: a code and one line that says what, where and what to do. Start from {0}. */
typedef struct clm_error {
    int code;
    char message[500];
} clm_error;

/**
 * A model: weights, tokenizer, and the device they run on. It is opened from a folder with
 * config.json, tokenizer.json and safetensors files, as Hugging Face and MLX write it. Weights are
 * mapped, not read: whoever cuts such a file off while it is in use ends the process by SIGBUS,
 * unless the program has a handler of its own. To replace a file, rename another to its name.
 *
 * Threads: a model and all that is opened on it (engines, sequences) run one call at a time.
 * Encoding, decoding and the functions that only tell something may be called from any thread at
 * any time. Everything opened on a model must be closed before it.
 */
typedef struct clm_model clm_model;

/* Zero in every field means the default. */
typedef struct clm_model_options {
    int n_threads; /* 0: one per physical core */
    /* Told of every warning, a line each; NULL: no one is. */
    void (*warn)(void *ctx, const char *message);
    void *warn_ctx;
    /* A folder with a LoRA or DoRA adapter, in mlx-lm's form or PEFT's, which is applied as the
     * model runs; NULL: none. */
    const char *adapter_path;
    /* Where to compute: "cpu" or "cuda". NULL: what the environment variable CLM_DEVICE names, else
     * a GPU that CUDA shows, else the CPU. */
    const char *device;
    /* How many layers, the last ones, and with them the head, are on the GPU, where the device is
     * one; the CPU computes the others. 0: as many as its free memory has room for; -1: none;
     * INT_MAX: all. Without a GPU a number is an error, and all is a warning. */
    int gpu_layers;
    /* How many devices compute every layer together, each with its share of the heads, feed-forward
     * blocks and experts: the first GPUs that CUDA shows, or as many groups of the CPU's threads.
     * 0 or 1: one. Not with gpu_layers or prompt cache files. */
    int tensor_parallel;
} clm_model_options;

/**
 * Open the model of a folder. options may be NULL.
 *
 * Errors: CLM_ERR_IO, CLM_ERR_FORMAT (files that contradict themselves or each other),
 * CLM_ERR_UNSUPPORTED (an architecture or tokenizer that clm does not have), CLM_ERR_NOMEM.
 * Returns the model, or NULL with *err filled.
 */
CLM_API clm_model *clm_model_open(const char *path, const clm_model_options *options,
                                  clm_error *err);
CLM_API void clm_model_close(clm_model *m); /* NULL is fine */

CLM_API int clm_model_vocab_size(const clm_model *m);             /* logits of a token */
CLM_API int clm_model_context_length(const clm_model *m);         /* 0: the model does not say */
CLM_API bool clm_model_is_end(const clm_model *m, int32_t token); /* does it end a text? */

/**
 * The tokens of a text.
 *
 * text         [size] UTF-8; what is not UTF-8 is read as U+FFFD.
 * add_special  wrap them as the model expects a text: a begin token, say.
 * tokens       [capacity] may be NULL when capacity is 0.
 *
 * Returns how many tokens the text has, of which the first `capacity` were stored: call again with
 * more room when it is larger. -1 with *err filled.
 */
CLM_API int clm_model_tokenize(const clm_model *m, const char *text, size_t size, bool add_special,
                               int32_t *tokens, int capacity, clm_error *err);

/**
 * Text from tokens as they come. One thread at a time.
 *
 * Each call gives the text [*size] that the token makes certain: whole characters, often the
 * token's own text, sometimes none; it is owned by d and valid until the next call. _finish gives
 * what was kept back, after which d starts anew.
 */
typedef struct clm_detokenizer clm_detokenizer;

CLM_API clm_detokenizer *clm_detokenizer_open(const clm_model *m, bool skip_special,
                                              clm_error *err);
CLM_API void clm_detokenizer_close(clm_detokenizer *d); /* NULL is fine */
CLM_API int clm_detokenizer_add(clm_detokenizer *d, int32_t token, const char **text, size_t *size,
                                clm_error *err);
CLM_API int clm_detokenizer_finish(clm_detokenizer *d, const char **text, size_t *size,
                                   clm_error *err);

/**
 * How a model is spoken to: the chat templates in its folder, and how it writes what it thinks and
 * calls of tools. Immutable: any thread may use it at any time.
 */
typedef struct clm_chat clm_chat;

/* CLM_ERR_UNSUPPORTED: the model has no chat template; CLM_ERR_FORMAT, CLM_ERR_IO, CLM_ERR_NOMEM.
 * It must be closed before the model. */
CLM_API clm_chat *clm_chat_open(const clm_model *m, clm_error *err);
CLM_API void clm_chat_close(clm_chat *c); /* NULL is fine */

/* Texts of JSON, NUL-terminated. Zero in every field means the default. */
typedef struct clm_chat_options {
    const char *tools;     /* a list of what the model may call; NULL: nothing */
    const char *variables; /* an object, for the template: {"enable_thinking": false} */
    const char *name;      /* of the template; NULL: tool_use for tools, if there, or default */
    bool continue_last;    /* the reply goes on with the last message */
} clm_chat_options;

/**
 * The text that a model reads for a conversation, up to where its reply begins. It has all special
 * tokens in it: tokenize it without add_special.
 *
 * messages  a list in JSON, NUL-terminated: [{"role": "user", "content": "Hello"}].
 * options   may be NULL.
 *
 * Errors: CLM_ERR_FORMAT (what is no JSON, or a conversation that the template refuses),
 * CLM_ERR_ARG (no such template, a variable that has a place of its own), CLM_ERR_FULL (more text
 * than any model reads), CLM_ERR_NOMEM.
 * Returns the text [*size], NUL-terminated, to be given back to clm_text_free; or NULL with *err.
 * size may be NULL.
 */
CLM_API char *clm_chat_render(const clm_chat *c, const char *messages,
                              const clm_chat_options *options, size_t *size, clm_error *err);
CLM_API void clm_text_free(char *text); /* NULL is fine */

typedef enum clm_reply_part {
    CLM_REPLY_CONTENT,        /* text for the user */
    CLM_REPLY_REASONING,      /* text of what the model thinks */
    CLM_REPLY_CALL_BEGIN,     /* text is the name of the tool; id, where the model gave one */
    CLM_REPLY_CALL_ARGUMENTS, /* text is the next piece of the arguments' JSON */
    CLM_REPLY_CALL_END,       /* id, where it came only now */
    CLM_REPLY_CALL_FAILED     /* text says why, raw is what the model wrote; the call is void */
} clm_reply_part;

/* Texts are not NUL-terminated and valid during the call. */
typedef struct clm_reply_event {
    clm_reply_part part;
    const char *text;
    size_t size;
    size_t call; /* which call of the reply, from 0 */
    const char *id;
    size_t id_size;
    const char *raw;
    size_t raw_size;
} clm_reply_event;

/**
 * The text of one reply made into content, reasoning and calls, as it comes. What is told does not
 * depend on where pieces of text end; text is held back only where it may still become a marker.
 * One thread at a time.
 *
 * prompt   [size] what clm_chat_render gave: the reply may begin within the model's thinking.
 * options  as for clm_chat_render; may be NULL.
 * event    called within clm_reply_add and clm_reply_finish.
 *
 * NULL with *err filled: CLM_ERR_FORMAT (tools are no JSON list), CLM_ERR_NOMEM. It must be closed
 * before the chat.
 */
typedef struct clm_reply clm_reply;

CLM_API clm_reply *clm_reply_open(const clm_chat *c, const char *prompt, size_t size,
                                  const clm_chat_options *options,
                                  void (*event)(void *ctx, const clm_reply_event *e), void *ctx,
                                  clm_error *err);
CLM_API void clm_reply_close(clm_reply *r); /* NULL is fine */

/* Text with the special tokens in it, as requests and a detokenizer that skips none give it. 0, or
 * -1 with CLM_ERR_NOMEM. */
CLM_API int clm_reply_add(clm_reply *r, const char *text, size_t size, clm_error *err);
CLM_API int clm_reply_finish(clm_reply *r, clm_error *err); /* what was held back */

/* An engine evaluates tokens. It holds the cache of all its sequences. */
typedef struct clm_engine clm_engine;

enum clm_cache_type { CLM_CACHE_AUTO, CLM_CACHE_F32, CLM_CACHE_F16, CLM_CACHE_BF16 };

/* Zero in every field means the default. */
typedef struct clm_engine_options {
    bool exact;                     /* no approximations; the cache is F32 unless said otherwise */
    enum clm_cache_type cache_type; /* AUTO: F16 */
    size_t cache_bytes;             /* bound of the cache; 0: none */
    int max_rows;                   /* tokens of one step at most; 0: 512, on a GPU 2048 */
    /* Keys and values quantised to 4 or 8 bits in groups of 32, 64 or 128 numbers (0: 64), but for
     * the first quantized_kv_start tokens of a sequence; kv_bits 0: none. */
    int kv_bits, kv_group_size, quantized_kv_start;
    /* So many tokens of a sequence are kept at most, the first 4 and the last, 5 or more; 0: all.
     */
    int max_kv_size;
} clm_engine_options;

/* One engine with `exact` and one without exclude each other on a model: the last one opened
 * counts. */
CLM_API clm_engine *clm_engine_open(clm_model *m, const clm_engine_options *options,
                                    clm_error *err);
CLM_API void clm_engine_close(clm_engine *e); /* NULL is fine; its sequences must be closed */

/* What has been evaluated so far, in an engine's cache. */
typedef struct clm_sequence clm_sequence;

CLM_API clm_sequence *clm_sequence_open(clm_engine *e, clm_error *err);
CLM_API void clm_sequence_close(clm_sequence *s); /* NULL is fine */
CLM_API int clm_sequence_length(const clm_sequence *s);

/* The tokens evaluated so far, [length]; -1 where a file that the sequence came from does not tell.
 * Owned by s, valid until it changes. */
CLM_API const int32_t *clm_sequence_tokens(const clm_sequence *s);

/* A sequence with the same past, which both share in memory until one of them goes on. */
CLM_API clm_sequence *clm_sequence_fork(const clm_sequence *s, clm_error *err);

/* Forget all but the first n tokens, whatever the model: what a sliding window or a recurrent layer
 * no longer has is evaluated again. CLM_ERR_ARG, and no change, when n is beyond the end; another
 * error leaves the sequence at n tokens or fewer. */
CLM_API int clm_sequence_trim(clm_sequence *s, int n, clm_error *err);

/**
 * Evaluate n tokens at the end of a sequence and give the logits after the last one.
 *
 * tokens  [n] ids in [0, vocab_size), n >= 1; more than a step takes are evaluated in several. A
 *         sequence longer than clm_model_context_length is evaluated, too, though what comes of it
 *         may be of no use; CLM_ERR_FULL where the model has learned so many positions alone.
 * logits  set to [vocab_size] f32, unnormalised; owned by the engine, valid until its next call.
 *
 * Errors: CLM_ERR_ARG (a token is out of range) and CLM_ERR_FULL (no room for n more) leave s as it
 * was unless n exceeds max_rows; after CLM_ERR_DEVICE s can only be closed. Returns 0, or -1 with
 * *err filled.
 */
CLM_API int clm_sequence_eval(clm_sequence *s, const int32_t *tokens, int n, const float **logits,
                              clm_error *err);

/**
 * Write what has been evaluated to a file, in the form of mlx-lm's prompt caches, whole or not at
 * all.
 *
 * Errors: CLM_ERR_ARG (an empty sequence), CLM_ERR_UNSUPPORTED (a kind of model that files cannot
 * hold), CLM_ERR_IO, CLM_ERR_NOMEM. Returns 0, or -1 with *err filled.
 */
CLM_API int clm_sequence_save(const clm_sequence *s, const char *path, clm_error *err);

/**
 * A sequence that goes on from a file, by clm or by mlx-lm. Where its numbers have the types of the
 * engine's cache they are used in the mapped file.
 *
 * Errors: CLM_ERR_FORMAT (damaged, or made with another model or tokenizer), CLM_ERR_UNSUPPORTED (a
 * kind of cache that clm does not have), CLM_ERR_IO, CLM_ERR_FULL, CLM_ERR_NOMEM. NULL with *err
 * filled.
 */
CLM_API clm_sequence *clm_sequence_load(clm_engine *e, const char *path, clm_error *err);

/* A part of a step: tokens [n_tokens] to append to a sequence, and of how many of its last ones the
 * logits are wanted, 0 to n_tokens. */
typedef struct clm_input {
    clm_sequence *sequence;
    const int32_t *tokens;
    int n_tokens;
    int n_logits;
} clm_input;

/**
 * Evaluate tokens of several sequences in one step, in which each weight is read once.
 *
 * inputs  [n], 1 <= n; all of this engine, each sequence at most once, no more than max_rows tokens
 *         together.
 * logits  set to [sum of n_logits, vocab_size] f32, input after input; owned by the engine, valid
 * until its next call. May be NULL when none are asked for.
 *
 * Errors leave every sequence as it was, except CLM_ERR_DEVICE: they can then only be closed.
 */
CLM_API int clm_engine_step(clm_engine *e, const clm_input *inputs, int n, const float **logits,
                            clm_error *err);

/**
 * What later prompts may begin with: pasts of an engine's sequences, kept by their tokens. A prompt
 * goes on from the one that has most in common with it, any number of tokens long; blocks of the
 * cache are shared, so that memory grows by what differs. When the cache is full, those go that
 * were used longest ago; with a folder they are written there and found again, in later processes
 * too.
 */
typedef struct clm_prefix_index clm_prefix_index;

/* Zero in every field means no bound, but that of the cache. */
typedef struct clm_prefix_options {
    size_t max_bytes;    /* of the cache; what pasts share counts once */
    int max_entries;     /* pasts in memory */
    const char *folder;  /* made where there is none; NULL: none */
    size_t folder_bytes; /* of the files of all models there */
} clm_prefix_options;

/* options may be NULL. CLM_ERR_ARG, CLM_ERR_IO (the folder), CLM_ERR_NOMEM. It must be closed
 * before the engine. */
CLM_API clm_prefix_index *clm_prefix_index_open(clm_engine *e, const clm_prefix_options *options,
                                                clm_error *err);
CLM_API void clm_prefix_index_close(clm_prefix_index *x); /* NULL is fine; writes nothing */

/* Write what is in memory to the folder, if there is one. */
CLM_API void clm_prefix_index_write(clm_prefix_index *x);

/* A sequence that holds the first tokens of a prompt [n], n >= 1, as many as can be had but n - 1
 * at most, so that one is left to evaluate; maybe none. It is the caller's. NULL with *err:
 * CLM_ERR_ARG, CLM_ERR_NOMEM. */
CLM_API clm_sequence *clm_prefix_index_lookup(clm_prefix_index *x, const int32_t *prompt, int n,
                                              clm_error *err);

/* Keep what a sequence holds; the sequence stays the caller's. One without tokens, or larger than
 * the index may be, is not kept, which is no error. CLM_ERR_ARG: it is of another engine;
 * CLM_ERR_NOMEM. */
CLM_API int clm_prefix_index_insert(clm_prefix_index *x, const clm_sequence *s, clm_error *err);

/* Keep the past of exactly these tokens [n], whatever the limits, until it is unpinned as often.
 * CLM_ERR_ARG: it is not there, insert it first; CLM_ERR_NOMEM. */
CLM_API int clm_prefix_index_pin(clm_prefix_index *x, const int32_t *tokens, int n, clm_error *err);
CLM_API void clm_prefix_index_unpin(clm_prefix_index *x, const int32_t *tokens, int n);

/* Added to the logit of a token, before everything else; -inf forbids it. */
typedef struct clm_logit_bias {
    int32_t token;
    float bias;
} clm_logit_bias;

/* Chooses tokens. Names are those of mlx-lm's options and, where it has none, of llama.cpp's; what
 * 0 turns off is off by default. Start from clm_sampler_defaults(): the most likely token. All zero
 * is CLM_ERR_ARG. */
typedef struct clm_sampler_options {
    double temp;
    double dynatemp_range, dynatemp_exponent;
    double top_n_sigma, typical_p;
    double top_p, min_p;
    int top_k;
    double xtc_probability, xtc_threshold;
    double repetition_penalty, presence_penalty, frequency_penalty;
    int penalty_context; /* how many tokens the penalties look back; 0: all */
    double dry_multiplier, dry_base;
    int dry_allowed_length, dry_penalty_last_n; /* -1: looks back at all tokens */
    const char *const *dry_sequence_breakers;   /* [n] texts; NULL: the usual ones */
    int n_dry_sequence_breakers;
    int mirostat; /* 2, in place of all filters; 0: off */
    double mirostat_tau, mirostat_eta;
    const clm_logit_bias *logit_bias; /* [n] tokens must differ */
    int n_logit_bias;
    int top_logprobs; /* how many clm_sampler_top gives, up to 1000 */
    uint64_t seed;    /* the same seed, the same tokens, whatever other samplers do */
} clm_sampler_options;

/* Of a token, after penalties, before filters and temperature; -inf: impossible. */
typedef struct clm_token_logprob {
    int32_t token;
    float logprob;
} clm_token_logprob;

typedef struct clm_sampler clm_sampler;

CLM_API clm_sampler_options clm_sampler_defaults(void);

/* options may be NULL. CLM_ERR_ARG names the option that is out of range. One thread at a time. */
CLM_API clm_sampler *clm_sampler_open(const clm_model *m, const clm_sampler_options *options,
                                      clm_error *err);
CLM_API void clm_sampler_close(clm_sampler *s); /* NULL is fine */

/**
 * Choose a token.
 *
 * logits   [vocab_size], left as they are.
 * history  [n] the tokens so far, for penalties and DRY; may be NULL without any.
 * logprob  set to the token's log-probability before filters and temperature; may be NULL.
 *
 * Returns the token, or -1 with *err filled.
 */
CLM_API int32_t clm_sampler_next(clm_sampler *s, const float *logits, const int32_t *history,
                                 size_t n, float *logprob, clm_error *err);

/* The most likely tokens at the last clm_sampler_next, from the top. Returns how many, 0 before the
 * first call and after an error; *top is owned by s and valid until its next call. */
CLM_API int clm_sampler_top(const clm_sampler *s, const clm_token_logprob **top);

/**
 * Many texts at once: requests may come at any time, and each step evaluates one token of every
 * answer that goes on together with parts of the prompts that wait. What a request gives does not
 * depend on the others; with `exact` to the bit. When the engine's cache is full, the request that
 * came last gives its memory back and is evaluated again later.
 */
typedef struct clm_scheduler clm_scheduler;
typedef struct clm_request clm_request;

/* Zero in every field means the default. */
typedef struct clm_scheduler_options {
    int max_running;  /* requests with a past in the cache at once; 0: 64 */
    int step_tokens;  /* tokens of one step at most; 0: the engine's max_rows */
    int prompt_share; /* of which so many of prompts while answers go on; 0: 64 */
    /* What guesses tokens ahead, at most one of the two; text is the same as without. An engine of
     * a smaller model with the same tokenizer, to be closed after the scheduler; or what the text
     * itself went on with where it had the same few tokens before. */
    clm_engine *draft_engine;
    bool prompt_lookup;
    int max_drafts; /* tokens guessed at a time at most; 0: as many as are worth their time */
    /* Where prompts go on from what earlier texts began with, and texts are kept for later ones; of
     * the same engine, to be closed after the scheduler. NULL: none. */
    clm_prefix_index *prefixes;
} clm_scheduler_options;

/* A token as it comes. Text that a later token may still change, or that may still become a stop,
 * comes with that one; with the last token comes all that is left. End tokens and stops have no
 * text. */
typedef struct clm_token {
    int32_t token;
    float logprob;                /* as clm_sampler_next says it */
    const clm_token_logprob *top; /* [n_top] */
    int n_top;
    const char *text; /* [size], not NUL-terminated; valid during the call, as is top */
    size_t size;
    bool last;       /* no more will come */
    bool from_draft; /* it was guessed */
} clm_token;

typedef enum clm_finish {
    CLM_FINISH_STOP,      /* an end token, or a stop */
    CLM_FINISH_LENGTH,    /* max_tokens, or the model's context is full */
    CLM_FINISH_CANCELLED, /* by a callback or clm_request_cancel */
    CLM_FINISH_TIMEOUT,
    CLM_FINISH_ERROR
} clm_finish;

typedef struct clm_result {
    clm_finish finish;
    int prompt_tokens, generated_tokens; /* an end token counts */
    int cached_tokens;                   /* of the prompt, that did not have to be evaluated */
    double prompt_seconds;               /* until the first token was chosen */
    double generation_seconds;           /* from then until the last */
    int drafted_tokens, draft_tokens;    /* guessed, and of these right */
} clm_result;

/* Start from clm_request_defaults(). All that is pointed to is copied, but ctx. */
typedef struct clm_request_options {
    const int32_t *prompt; /* [n_prompt], n_prompt >= 1 */
    size_t n_prompt;
    int max_tokens;           /* 0: as many as the model's context takes */
    double timeout;           /* seconds from when it is submitted; 0: none */
    bool ignore_end_tokens;   /* go on behind them */
    const char *const *stops; /* [n_stops] texts that end the text, and are not part of it */
    int n_stops;
    clm_sampler_options sampler;

    /* The callbacks, each of which may be NULL, are called within clm_scheduler_step. They may
     * submit and cancel requests, but not step or close. */
    void *ctx;
    /* Prompt tokens that are done, after each step of the prompt. */
    void (*progress)(void *ctx, int done, int total);
    /* May change the logits [vocab_size] of the next token before the sampler sees them; history
     * [n] is prompt and text so far. -1, with *err filled, ends the request with that error. */
    int (*process)(void *ctx, float *logits, int vocab_size, const int32_t *history, size_t n,
                   clm_error *err);
    /* false ends the request, with no further token. */
    bool (*token)(void *ctx, const clm_token *t);
    /* Told once in the end, when the handle is no longer good. err is NULL unless finish is
     * CLM_FINISH_ERROR. */
    void (*done)(void *ctx, const clm_result *result, const clm_error *err);
} clm_request_options;

/* The most likely tokens, to the end of the context. */
CLM_API clm_request_options clm_request_defaults(void);

/* options may be NULL. Between steps the engine may be used in other ways too. CLM_ERR_ARG: an
 * option is out of range, the draft model has another tokenizer, or the prefix index is of another
 * engine. */
CLM_API clm_scheduler *clm_scheduler_open(clm_engine *e, const clm_scheduler_options *options,
                                          clm_error *err);

/* NULL is fine. Requests that are not done are dropped, without a call of done. */
CLM_API void clm_scheduler_close(clm_scheduler *s);

/**
 * Queue a request behind those that are there.
 *
 * Errors: CLM_ERR_ARG (an empty prompt, a token that is out of range, an option of the sampler, an
 * empty stop), CLM_ERR_FULL (the prompt is longer than the model's context), CLM_ERR_NOMEM. What
 * goes wrong later is told by done, to the request that it concerns.
 * Returns a handle that is good until done is called, or NULL with *err filled.
 */
CLM_API clm_request *clm_scheduler_submit(clm_scheduler *s, const clm_request_options *options,
                                          clm_error *err);

/* End it at the next step, unless its last token has come. */
CLM_API void clm_request_cancel(clm_request *r);

/* One step for all requests; false when none is left. */
CLM_API bool clm_scheduler_step(clm_scheduler *s);

#ifdef __cplusplus
}
#endif

#endif
