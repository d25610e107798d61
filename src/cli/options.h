/* cli/options.h: options from the command line, read by one parser from tables.
 *
 * A command keeps the values in a struct of its own; its table says at which offset each one lies.
 * Both
 * `--name value` and `--name=value` work, `-n value` and `-nvalue`; `--` ends the options. A line
 * hides those of its name further down, so that a command can read an option of a group in a way of
 * its own.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

enum option_kind {
    OPTION_FLAG,    /* bool, takes no value */
    OPTION_BOOL,    /* bool: true or false */
    OPTION_INT,     /* int in [low, high] */
    OPTION_REAL,    /* double in [low, high] */
    OPTION_SEED,    /* struct seed */
    OPTION_BYTES,   /* size_t: a number, with K, M, G or T for 1024 of the one before */
    OPTION_STRING,  /* const char * */
    OPTION_CHOICE,  /* int: the index in choices */
    OPTION_STRINGS, /* struct strings: one or more values, up to the next option; adds up */
    OPTION_IDS,     /* struct ids: numbers with commas between them */
    OPTION_INTS,    /* struct ids: the same in [low, high], and ranges: 1-4, 1-9+2, 64-512*2 */
    OPTION_CHOICES, /* struct ids: indices in choices, of names with commas between them */
    OPTION_NAMES,   /* struct strings: names with commas between them */
    OPTION_GROUP    /* a table of its own, with offsets within this one */
};

struct option {
    const char *name; /* "max-tokens"; NULL in the end of a table and in a group's line */
    char letter;      /* 'n'; 0: none */
    enum option_kind kind;
    size_t offset;
    const char *value; /* what help calls the value: "N" */
    const char *help;
    double low, high;
    bool or_all;                /* OPTION_INT: "all" stands for high */
    const char *const *choices; /* ends with NULL */
    const struct option *group;
    /* Names with spaces between them: without one of these options it changes nothing, and is an
     * error. NULL: it stands alone. */
    const char *with;
};

/* Lines of a table, to stand in braces: name, letter, struct and member that take the value, what
 * help says. A table ends with {0}. */
#define OPTION_LINE(n, l, k, type, member, v, text)                                                \
    .name = (n), .letter = (l), .kind = (k), .offset = offsetof(type, member), .value = (v),       \
    .help = (text)
#define FLAG_OPTION(n, l, type, member, text)                                                      \
    OPTION_LINE(n, l, OPTION_FLAG, type, member, NULL, text)
#define BOOL_OPTION(n, l, type, member, text)                                                      \
    OPTION_LINE(n, l, OPTION_BOOL, type, member, "true|false", text)
#define INT_OPTION(n, l, type, member, from, to, text)                                             \
    OPTION_LINE(n, l, OPTION_INT, type, member, "N", text), .low = (from), .high = (to)
#define INT_OR_ALL_OPTION(n, l, type, member, from, text)                                          \
    OPTION_LINE(n, l, OPTION_INT, type, member, "N|all", text), .low = (from), .high = INT_MAX,    \
                                                                .or_all = true
#define REAL_OPTION(n, l, type, member, from, to, text)                                            \
    OPTION_LINE(n, l, OPTION_REAL, type, member, "X", text), .low = (from), .high = (to)
#define SEED_OPTION(n, l, type, member, text)                                                      \
    OPTION_LINE(n, l, OPTION_SEED, type, member, "N", text)
#define BYTES_OPTION(n, l, type, member, text)                                                     \
    OPTION_LINE(n, l, OPTION_BYTES, type, member, "BYTES", text)
#define STRING_OPTION(n, l, type, member, v, text)                                                 \
    OPTION_LINE(n, l, OPTION_STRING, type, member, v, text)
#define STRINGS_OPTION(n, l, type, member, v, text)                                                \
    OPTION_LINE(n, l, OPTION_STRINGS, type, member, v, text)
#define IDS_OPTION(n, l, type, member, text)                                                       \
    OPTION_LINE(n, l, OPTION_IDS, type, member, "ID,ID,...", text)
#define INTS_OPTION(n, l, type, member, from, to, text)                                            \
    OPTION_LINE(n, l, OPTION_INTS, type, member, "N,N,...", text), .low = (from), .high = (to)
#define CHOICES_OPTION(n, l, type, member, names, text)                                            \
    OPTION_LINE(n, l, OPTION_CHOICES, type, member, "NAME,NAME,...", text), .choices = (names)
#define NAMES_OPTION(n, l, type, member, text)                                                     \
    OPTION_LINE(n, l, OPTION_NAMES, type, member, "NAME,NAME,...", text)
#define CHOICE_OPTION(n, l, type, member, names, text)                                             \
    OPTION_LINE(n, l, OPTION_CHOICE, type, member, "NAME", text), .choices = (names)
#define TABLE_OPTION(type, member, table)                                                          \
    .kind = OPTION_GROUP, .offset = offsetof(type, member), .group = (table)

struct seed {
    uint64_t value;
    bool given;
};

struct strings {
    const char **items;
    int n;
};

struct ids {
    int32_t *items;
    int n;
};

/* Arguments that are no options: how many at most, what help calls them, where they go. */
struct operands {
    const char *name; /* "FILE"; NULL: there are none */
    int min, max;
    size_t offset;       /* of a struct strings */
    const char *instead; /* where there are none: what to do; NULL: as the options say */
};

/* The most values of OPTION_INTS. */
#define OPTIONS_MAX_INTS 1000

/* The line of a name, NULL: there is none. */
const struct option *options_find(const struct option *table, const char *name);

/**
 * Read argv[0..argc) into args. Lists come from the arena; strings are those of argv.
 *
 * Returns 0; 1 when --help or -h was met; or -1 with CLM_ERR_ARG and a line that names the option.
 */
int options_parse(const struct option *table, const struct operands *operands, int argc,
                  char *const *argv, void *args, arena *a, clm_error *err);

#endif
