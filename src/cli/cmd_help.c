/* cli/cmd_help.c: help made from the tables that the parser reads. */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/command.h"

/* Columns of a line, and before the text of an option; fewer on a terminal that is narrow. */
#define WIDTH 79
#define INDENT 30
#define NARROW 60
#define NARROW_INDENT 8
#define LEAST_WIDTH 20

static int line_width(void)
{
    struct winsize size;
    int width = WIDTH;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_col <= WIDTH)
        width = size.ws_col - 1;
    return width > LEAST_WIDTH ? width : LEAST_WIDTH;
}

/* Text broken at spaces to the lines' width, continued at the given column. */
static void print_wrapped(const char *text, int column, int at)
{
    int width = line_width();

    while (*text) {
        int size = (int)strcspn(text, " \n");

        if (at > column && at + 1 + size > width) {
            printf("\n%*s", column, "");
            at = column;
        }
        at += printf("%s%.*s", at > column ? " " : "", size, text);
        text += size;
        if (*text == '\n') {
            printf("\n%*s", column, "");
            at = column;
        }
        text += *text != '\0';
    }
    putchar('\n');
}

static void print_option(const struct option *o)
{
    int at, indent = line_width() < NARROW ? NARROW_INDENT : INDENT;
    char head[128];

    snprintf(head, sizeof head, "  %c%c%s --%s%s%s%s", o->letter ? '-' : ' ',
             o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name, o->value ? " " : "",
             o->value ? o->value : "", o->kind == OPTION_STRINGS ? " ..." : "");
    at = printf("%s", head);
    if (at > indent - 2)
        at = printf("\n") - 1;
    printf("%*s", indent - at, "");
    print_wrapped(o->help, indent, indent);
}

/* Those of a table that no line of the whole one before it hides. */
static void print_options(const struct option *table, const struct option *whole)
{
    for (const struct option *o = table; o->name || o->kind == OPTION_GROUP; o++) {
        if (o->kind == OPTION_GROUP)
            print_options(o->group, whole);
        else if (options_find(whole, o->name) == o)
            print_option(o);
    }
}

void help_command(const struct command *c)
{
    printf("usage: clm %s [options]", c->name);
    if (c->operands.name)
        printf(c->operands.min ? " %s" : " [%s]", c->operands.name);
    printf("\n\n");
    print_wrapped(c->summary, 0, 0);
    if (c->details) {
        putchar('\n');
        print_wrapped(c->details, 0, 0);
    }
    printf("\noptions:\n");
    print_options(c->options, c->options);
    print_option(&(struct option){.name = "help", .letter = 'h', .help = "show this and exit"});
}

void help_overview(void)
{
    printf("usage: clm COMMAND [options]\n\nRuns language models.\n\ncommands:\n");
    for (int i = 0; commands[i]; i++) {
        int at = printf("  %-12s ", commands[i]->name);

        print_wrapped(commands[i]->summary, at, at);
    }
    putchar('\n');
    print_wrapped("clm help COMMAND tells the options of a command; clm --version the version.\n"
                  "Without -m the small model that comes with clm is used.\n"
                  "Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
                  0, 0);
}

struct help_args {
    struct strings command;
};

static int help_run(const void *args, clm_error *err)
{
    const struct help_args *a = args;
    const struct command *c;

    if (a->command.n == 0) {
        help_overview();
        return STATUS_DONE;
    }
    c = command_find(a->command.items[0]);
    if (!c)
        return command_unknown(a->command.items[0], err);
    help_command(c);
    return STATUS_DONE;
}

static const struct option help_options[] = {{0}};

const struct command command_help = {
    .name = "help",
    .summary = "explain a command",
    .options = help_options,
    .operands = {"COMMAND", 0, 1, offsetof(struct help_args, command)},
    .args_size = sizeof(struct help_args),
    .run = help_run,
};
