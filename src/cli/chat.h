/* cli/chat.h: a conversation with a model, which remembers what it has read between the turns.
 *
 * Each turn renders the whole conversation anew; of its tokens only those are evaluated that come
 * after what it has in common with any text that is still kept.
 */
#ifndef CLI_CHAT_H
#define CLI_CHAT_H

#include "cli/conversation.h"
#include "cli/prefix_args.h"
#include "cli/sampling.h"
#include "parse/reply.h"

struct chat {
    const struct session *session;
    const struct sampling *sampling;
    struct chat_template format;
    struct reply_rules rules;
    struct reply reply;
    prefix_index *prefixes;  /* of this conversation, and of others before */
    kv_seq *seq;             /* what the model remembers of this one; NULL: nothing */
    struct token_list text;  /* of the turn at hand */
    struct strbuf system;    /* the system prompt; empty: none */
    struct strbuf messages;  /* without it */
    size_t asked;            /* bytes of these before the last reply; 0: there is none */
    struct said said;        /* the reply at hand */
    struct tool_calls calls; /* of the last reply */
    size_t n_results;        /* of these, given so far */
};

enum chat_end {
    CHAT_DONE,
    CHAT_LENGTH,  /* max_tokens */
    CHAT_FULL,    /* of the model's context */
    CHAT_STOPPED, /* interrupted; without any answer what was said is forgotten too */
};

struct chat_turn {
    enum chat_end end;
    bool same; /* as the answer in the place of which it is */
    struct generate_result figures;
};

struct chat_options {
    int max_tokens;
    int prefill_step_size;
    speculation *speculation; /* NULL: none */
    void *ctx;                /* of all callbacks */
    void (*progress)(void *ctx, int done, int total);
    bool (*interrupted)(void *ctx);
    /* A piece of the reply. */
    parse_sink *sink;
    /* After each token; false, as when writing has failed, ends the turn. */
    bool (*go_on)(void *ctx);
};

/* session and sampling stay the caller's. CLM_ERR_UNSUPPORTED when the model has no chat template.
 * Whatever comes of it, c is to be closed. */
int chat_open(struct chat *c, const struct session *session, const struct sampling *sampling,
              const struct template_args *args, const struct prefix_args *kept, clm_error *err);
void chat_close(struct chat *c);

/* Forget all that was said, but not the system prompt. */
void chat_clear(struct chat *c);
int chat_length(const struct chat *c);  /* tokens remembered */
int chat_context(const struct chat *c); /* the most there may be; 0: not known */

/* Calls of the last reply that have no result yet; the first of them, or NULL. */
size_t chat_open_calls(const struct chat *c);
const struct tool_call *chat_next_call(const struct chat *c);

/* Give the first of several open calls its result. */
void chat_give_result(struct chat *c, const char *text, size_t size);

/* Is there an answer in the place of which another can be made? */
bool chat_can_retry(const struct chat *c);

enum chat_input {
    CHAT_USER,   /* the user says something */
    CHAT_RESULT, /* what the last open call has given */
    CHAT_AGAIN,  /* no text: the last answer is dropped and made anew */
};

/**
 * Say something and have it answered.
 *
 * Errors leave the conversation as it was before, as does a turn without any answer. CLM_ERR_FULL:
 * it does not fit the model's context any more.
 */
int chat_say(struct chat *c, enum chat_input kind, const char *text, size_t size,
             const struct chat_options *o, struct chat_turn *turn, clm_error *err);

#endif
