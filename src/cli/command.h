/* cli/command.h: what a sub-command of clm is, and the list of all of them. */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include "base/error.h"
#include "cli/options.h"

/* How clm ends; docs and man page say the same. */
enum exit_status {
    STATUS_DONE = 0,
    STATUS_FAILED = 1,       /* one line on stderr says what, where and what to do */
    STATUS_USAGE = 2,        /* likewise, of the command line */
    STATUS_INTERRUPTED = 130 /* Ctrl-C; what there was until then has been written */
};

struct command {
    const char *name;
    const char *summary; /* one line, no full stop */
    const char *details; /* paragraphs, one line each; NULL: none */
    const struct option *options;
    struct operands operands;
    size_t args_size;
    /* Fill zeroed args with what holds when an option is not given; NULL: zero will do. */
    void (*defaults)(void *args);
    /* An exit_status, or -1 with *err: 2 for CLM_ERR_ARG, else 1. */
    int (*run)(const void *args, clm_error *err);
};

/* In the order of help; ends with NULL. */
extern const struct command *const commands[];

const struct command *command_find(const char *name); /* NULL: there is none */

/* -1, with an error that says what such a command is called here, or may have been meant. */
int command_unknown(const char *name, clm_error *err);

extern const struct command command_generate, command_chat, command_cache_prompt, command_bench,
    command_perplexity, command_score, command_tokenize, command_detokenize, command_render,
    command_logits, command_inspect, command_models, command_help;

/* cmd_help.c */
void help_overview(void);
void help_command(const struct command *c);

#endif
