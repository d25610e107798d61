/* cli/session.h: what commands have in common: which model, on how many threads, with what cache.
 */
#ifndef CLI_SESSION_H
#define CLI_SESSION_H

#include "cli/options.h"
#include "engine/engine.h"
#include "tokenizer/tokenizer.h"

struct model_options {
    const char *model;
    int device;             /* 0: the best, 1: cpu, 2: cuda */
    const char *gpu_layers; /* NULL: as many as fit */
    int tensor_parallel;    /* devices that compute together; 0 counts as 1 */
    int threads;
    bool exact;
    const char *adapter_path; /* NULL: none */
    int cache_type;           /* 0: the engine's choice */
    size_t cache_bytes;       /* 0: no bound */
    int kv_bits;              /* 0: none, 1: 4, 2: 8 */
    int kv_group_size;        /* 0: 64, 1: 32, 2: 128 */
    int quantized_kv_start;
    int max_kv_size; /* 0: no bound */
    /* A prompt cache's file: where the options do not say how keys and values are kept, they are
     * kept as there. NULL: none */
    const char *like;
    bool described; /* it is not going to run, so that its weights stay on the disk */
};

extern const struct option option_model[];    /* --model, for a struct model_options */
extern const struct option options_running[]; /* --model and how to run it */
/* What cache_type and kv_bits count in, ends with NULL. */
extern const char *const model_cache_types[], *const model_kv_bits[];

/* Where warnings of the library go: standard error. */
extern const struct log cli_log;

struct session {
    char dir[4096];
    struct model_devices devices;
    struct model *model;
    engine *engine;
    tokenizer *tokenizer;
};

/* The devices that the options say. */
int session_open_devices(struct session *s, const struct model_options *o, clm_error *err);

/* Find the folder, unless that is done, and open devices and model. */
int session_open_model(struct session *s, const struct model_options *o, clm_error *err);
/* Find the folder and open device, model and engine; max_rows 0: the engine's choice. */
int session_open(struct session *s, const struct model_options *o, int max_rows, clm_error *err);
/* The same, and the tokenizer, which is read while a device is being opened. */
int session_open_text(struct session *s, const struct model_options *o, int max_rows,
                      clm_error *err);
/* Find the folder, unless that is done, and open the tokenizer. */
int session_open_tokenizer(struct session *s, const struct model_options *o, clm_error *err);
/* CLM_ERR_FORMAT: the tokenizer has given tokens that the model does not have. */
int session_check_tokens(const struct session *s, const struct token_list *tokens, clm_error *err);
/* How many tokens in a row the model was made for, though nothing in it ends there; 0: not known.
 */
size_t session_made_for(const struct session *s);
/* Warns, and says so, where so many tokens in a row, which are evaluated all the same, are more. */
bool session_warn_length(const struct session *s, size_t n_tokens);
void session_close(struct session *s); /* a zeroed one is fine */

/* Commands that make text begin to quantise where mlx-lm does. */
#define QUANTIZED_KV_START 5000

/* What the options say of an engine; max_rows 0: its choice. */
struct engine_options model_options_engine(const struct model_options *o, int max_rows);

#endif
