/* cli/main.c: finds the command, reads its options, runs it, says what failed. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/distance.h"
#include "cli/command.h"
#include "cli/lost_pages.h"
#include "cli/other_names.h"
#include "cli/output.h"

const struct command *const commands[] = {
    &command_generate,     &command_chat,
    &command_cache_prompt, &command_bench,
    &command_perplexity,   &command_score,
    &command_tokenize,     &command_detokenize,
    &command_render,       &command_logits,
    &command_inspect,      &command_models,
    &command_help,         NULL,
};

const struct command *command_find(const char *name)
{
    for (int i = 0; commands[i]; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

/* The command whose name is most like this one, or NULL when none is. */
static const struct command *command_nearest(const char *name)
{
    const struct command *best = NULL;
    int best_distance = INT_MAX;

    for (int i = 0; *name && commands[i]; i++)
        if (strncmp(commands[i]->name, name, strlen(name)) == 0)
            return commands[i];
    for (int i = 0; commands[i]; i++) {
        int distance = edit_distance(name, commands[i]->name);

        if (distance < best_distance && is_misspelling(distance, commands[i]->name)) {
            best = commands[i];
            best_distance = distance;
        }
    }
    return best;
}

static int report(const struct command *c, const clm_error *err)
{
    bool of_command = c && c != &command_help; /* whose own help is of no help */
    char line[sizeof err->message + 64];

    output_end_if_unread();
    if (err->code != CLM_ERR_ARG) {
        output_error(err->message);
        return STATUS_FAILED;
    }
    snprintf(line, sizeof line, "%s (see clm help%s%s)", err->message, of_command ? " " : "",
             of_command ? c->name : "");
    output_error(line);
    return STATUS_USAGE;
}

static int run_command(const struct command *c, int argc, char *const *argv)
{
    clm_error err = {0};
    int status = -1;
    arena *a = arena_open(0);
    void *args = a ? arena_zeroed(a, 1, c->args_size ? c->args_size : 1) : NULL;

    if (!args) {
        fail(&err, CLM_ERR_NOMEM, "no memory for the command line");
        goto cleanup;
    }
    if (c->defaults)
        c->defaults(args);
    status = options_parse(c->options, &c->operands, argc, argv, args, a, &err);
    if (status == 1)
        help_command(c);
    status = status ? (status > 0 ? STATUS_DONE : -1) : c->run(args, &err);
    if (status >= 0 && output_flush(&err))
        status = -1;

cleanup:
    arena_close(a);
    return status < 0 ? report(c, &err) : status;
}

int command_unknown(const char *name, clm_error *err)
{
    const struct command *nearest = command_nearest(name);
    const char *elsewhere = other_command(name);

    if (elsewhere)
        return fail(err, CLM_ERR_ARG, "unknown command %s; %s", name, elsewhere);
    if (name[0] == '-')
        return fail(
            err, CLM_ERR_ARG,
            "there is no command before %s; a text is clm generate, a conversation clm chat", name);
    if (name[strcspn(name, " /")]) /* a prompt, or a model */
        return fail(err, CLM_ERR_ARG,
                    "unknown command \"%.60s\"; a text is clm generate -m MODEL -p PROMPT, a "
                    "conversation clm chat -m MODEL",
                    name);
    if (nearest)
        return fail(err, CLM_ERR_ARG, "unknown command %s; did you mean %s?", name, nearest->name);
    return fail(err, CLM_ERR_ARG, "unknown command %s", name);
}

static int overview(bool version)
{
    clm_error err = {0};

    if (version)
        printf("clm %s\n", clm_version());
    else
        help_overview();
    return output_flush(&err) ? report(NULL, &err) : STATUS_DONE;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "--help";
    const struct command *c;
    clm_error err = {0};

    output_init();
    lost_pages_watch();
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return overview(false);
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        return overview(true);
    c = command_find(name);
    if (c)
        return run_command(c, argc - 2, argv + 2);
    command_unknown(name, &err);
    return report(NULL, &err);
}
