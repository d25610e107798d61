#include "cli/options.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/distance.h"
#include "base/strbuf.h"
#include "cli/other_names.h"

/* The options of a command line, the last one first. */
struct given {
    const struct option *option;
    const struct given *next;
};

struct parser {
    const struct option *table;
    const struct operands *operands;
    int argc, at; /* argv[at] is next */
    char *const *argv;
    char *args;
    arena *memory;
    clm_error *err;
    const struct given *given;
};

/* An option found: its line in a table, and where its value goes. */
struct place {
    const struct option *option;
    char *value;
};

static bool is_end(const struct option *o)
{
    return !o->name && o->kind != OPTION_GROUP;
}

/* By name [size], or by letter when name is NULL. */
static struct place find_option(const struct option *table, char *args, const char *name,
                                size_t size, char letter)
{
    for (const struct option *o = table; !is_end(o); o++) {
        if (o->kind == OPTION_GROUP) {
            struct place p =
                find_option(o->group, args ? args + o->offset : NULL, name, size, letter);

            if (p.option)
                return p;
        } else if (name ? strlen(o->name) == size && strncmp(o->name, name, size) == 0
                        : o->letter == letter) {
            return (struct place){o, args ? args + o->offset : NULL};
        }
    }
    return (struct place){0};
}

const struct option *options_find(const struct option *table, const char *name)
{
    return find_option(table, NULL, name, strlen(name), 0).option;
}

static void nearest_option(const struct option *table, const char *name, const char **best,
                           int *best_distance)
{
    for (const struct option *o = table; !is_end(o); o++) {
        if (o->kind == OPTION_GROUP) {
            nearest_option(o->group, name, best, best_distance);
            continue;
        }
        size_t size = strlen(name);
        bool cut = size > 2 && strncmp(name, o->name, size) == 0; /* off, as other programs allow */
        int distance = cut ? 1 : edit_distance(name, o->name);

        if (distance < *best_distance) {
            *best = o->name;
            *best_distance = distance;
        }
    }
}

/* Has this command what the answer names? */
static bool leads_somewhere(const struct parser *p, const char *text)
{
    const char *here = strstr(text, "--");

    if (!here)
        return !strstr(text, " FILE") || p->operands->name;
    here += 2;
    return find_option(p->table, NULL, here, strcspn(here, " ,:;"), 0).option;
}

/* What an option of other programs is called here. */
static const char *option_elsewhere(const struct parser *p, const char *name, size_t size)
{
    const char *text;

    for (int i = 0; (text = other_option(name, size, i)); i++)
        if (leads_somewhere(p, text))
            return text;
    return NULL;
}

/* dashes is how the name begins. */
static int unknown_option(struct parser *p, const char *dashes, const char *name)
{
    const char *best = NULL;
    int distance = INT_MAX;
    char plain[64];
    size_t size = strcspn(name, "=");
    const char *elsewhere = option_elsewhere(p, name, size);

    if (elsewhere)
        return fail(p->err, CLM_ERR_ARG, "unknown option %s%.*s; %s", dashes, (int)size, name,
                    elsewhere);
    if (size < sizeof plain) {
        memcpy(plain, name, size);
        plain[size] = '\0';
        nearest_option(p->table, plain, &best, &distance);
    }
    if (best && is_misspelling(distance, best))
        return fail(p->err, CLM_ERR_ARG, "unknown option %s%.*s; did you mean --%s?", dashes,
                    (int)size, name, best);
    return fail(p->err, CLM_ERR_ARG, "unknown option %s%.*s", dashes, (int)size, name);
}

static int parse_int(const struct option *o, int *out, const char *text, clm_error *err)
{
    char *end;
    long long value;

    if (o->or_all && !strcmp(text, "all")) {
        *out = (int)o->high;
        return 0;
    }
    errno = 0;
    value = strtoll(text, &end, 10);
    if (end == text || *end || errno || value < (long long)o->low || value > (long long)o->high)
        return fail(err, CLM_ERR_ARG, "--%s must be a whole number from %.0f to %.0f%s, not %s",
                    o->name, o->low, o->high, o->or_all ? " or all" : "", text);
    *out = (int)value;
    return 0;
}

static int parse_real(const struct option *o, double *out, const char *text, clm_error *err)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= o->low && value <= o->high) || !isfinite(value))
        return fail(err, CLM_ERR_ARG, "--%s must be a number from %g to %g, not %s", o->name,
                    o->low, o->high, text);
    *out = value;
    return 0;
}

static int parse_seed(const struct option *o, struct seed *out, const char *text, clm_error *err)
{
    char *end;

    errno = 0;
    out->value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno)
        return fail(
            err, CLM_ERR_ARG,
            "--%s must be a whole number below 2^64, not %s; without it each run has another",
            o->name, text);
    out->given = true;
    return 0;
}

/* "1073741824", "1G", "1.5GiB" */
static int parse_bytes(const struct option *o, size_t *out, const char *text, clm_error *err)
{
    static const char units[] = "KMGT";
    char *end;
    double value = strtod(text, &end);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;

    if (unit) {
        value *= pow(1024, (double)(unit - units) + 1);
        end++;
    }
    if (strcmp(end, "iB") == 0 || strcmp(end, "B") == 0)
        end += strlen(end);
    if (!isdigit((unsigned char)text[0]) || *end || !(value < 0x1p63))
        return fail(err, CLM_ERR_ARG, "--%s must be a number of bytes such as 800M or 4G, not %s",
                    o->name, text);
    *out = (size_t)value;
    return 0;
}

static int parse_bool(const struct option *o, bool *out, const char *text, clm_error *err)
{
    static const char *const names[] = {"false", "true", "f", "t", "0", "1", "no", "yes"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcasecmp(text, names[i]) == 0) {
            *out = i % 2;
            return 0;
        }
    }
    return fail(err, CLM_ERR_ARG, "--%s must be true or false, not %s", o->name, text);
}

static int parse_choice(const struct option *o, int *out, const char *text, clm_error *err)
{
    char all[128] = "";

    for (int i = 0; o->choices[i]; i++) {
        if (strcmp(o->choices[i], text) == 0) {
            *out = i;
            return 0;
        }
        if (i > 0)
            strncat(all, ", ", sizeof all - strlen(all) - 1);
        strncat(all, o->choices[i], sizeof all - strlen(all) - 1);
    }
    return fail(err, CLM_ERR_ARG, "--%s must be one of %s, not %s", o->name, all, text);
}

static int parse_ids(const struct option *o, struct ids *out, const char *text, arena *a,
                     clm_error *err)
{
    size_t commas = 0;

    for (const char *s = text; *s; s++)
        commas += *s == ',';
    out->n = 0;
    if (commas >= INT_MAX)
        return fail(err, CLM_ERR_ARG, "--%s: too many ids", o->name);
    out->items = arena_array(a, int32_t, commas + 1);
    if (!out->items)
        return fail(err, CLM_ERR_NOMEM, "no memory for %zu ids", commas + 1);
    while (*text) {
        char *end;
        long long id;

        errno = 0;
        id = strtoll(text, &end, 10);
        if (end == text || (*end && *end != ',') || errno || id < 0 || id > INT32_MAX ||
            (*end == ',' && !end[1]))
            return fail(err, CLM_ERR_ARG,
                        "--%s must be token ids with commas between them, not \"%.40s\"", o->name,
                        text);
        out->items[out->n++] = (int32_t)id;
        text = end + (*end == ',');
    }
    return 0;
}

/* The digits at *text, which moves behind them; false where there are none or too many. */
static bool take_digits(long long *value, const char **text)
{
    char *end;

    if (!isdigit((unsigned char)**text))
        return false;
    errno = 0;
    *value = strtoll(*text, &end, 10);
    *text = end;
    return !errno;
}

/* "512", "1-4", "1-9+2" or "64-512*2" at *text, which moves behind it. */
static bool take_range(const struct option *o, struct ids *out, const char **text)
{
    long long first, last, step = 1;
    char by = '+';

    if (!take_digits(&first, text))
        return false;
    last = first;
    if (**text == '-') {
        ++*text;
        if (!take_digits(&last, text))
            return false;
        if (**text == '+' || **text == '*') {
            by = *(*text)++;
            if (!take_digits(&step, text))
                return false;
        }
    }
    if (first < (long long)o->low || last > (long long)o->high || last < first || step < 1 ||
        step > INT_MAX || (by == '*' && (step < 2 || first < 1)))
        return false;
    for (long long i = first; i <= last; i = by == '+' ? i + step : i * step) {
        if (out->n == OPTIONS_MAX_INTS)
            return false;
        out->items[out->n++] = (int32_t)i;
    }
    return true;
}

static int parse_ints(const struct option *o, struct ids *out, const char *text, arena *a,
                      clm_error *err)
{
    const char *at = text;

    out->n = 0;
    out->items = arena_array(a, int32_t, OPTIONS_MAX_INTS);
    if (!out->items)
        return fail(err, CLM_ERR_NOMEM, "no memory for the command line");
    while (take_range(o, out, &at)) {
        if (!*at)
            return 0;
        if (*at++ != ',')
            break;
    }
    return fail(err, CLM_ERR_ARG,
                "--%s must be whole numbers from %.0f to %.0f with commas between them, or ranges "
                "such as 1-4, 1-9+2 or 64-512*2, %d at most, not %s",
                o->name, o->low, o->high, OPTIONS_MAX_INTS, text);
}

/* These name something that is there, or is to be: no name is none of it. */
static bool is_nameless(const char *kind, const char *text)
{
    return !*text &&
           (strcmp(kind, "FILE") == 0 || strcmp(kind, "DIR") == 0 || strcmp(kind, "MODEL") == 0);
}

static int parse_string(const struct option *o, const char **out, const char *text, clm_error *err)
{
    if (is_nameless(o->value, text))
        return fail(err, CLM_ERR_ARG, "--%s is empty; give a name: --%s %s", o->name, o->name,
                    o->value);
    *out = text;
    return 0;
}

static int add_string(struct strings *list, const char *text, arena *a, clm_error *err)
{
    const char **items = arena_array(a, const char *, (size_t)list->n + 1);

    if (!items)
        return fail(err, CLM_ERR_NOMEM, "no memory for the command line");
    if (list->n)
        memcpy(items, list->items, (size_t)list->n * sizeof *items);
    items[list->n++] = text;
    list->items = items;
    return 0;
}

/* The names between commas, one after another. */
static int parse_names(struct strings *list, const char *text, arena *a, clm_error *err)
{
    for (;;) {
        size_t size = strcspn(text, ",");
        char *name = arena_array(a, char, size + 1);

        if (!name)
            return fail(err, CLM_ERR_NOMEM, "no memory for the command line");
        memcpy(name, text, size);
        if (add_string(list, name, a, err))
            return -1;
        if (!text[size])
            return 0;
        text += size + 1;
    }
}

static int parse_choices(const struct option *o, struct ids *out, const char *text, arena *a,
                         clm_error *err)
{
    struct strings names = {0};

    if (parse_names(&names, text, a, err))
        return -1;
    out->n = 0;
    out->items = arena_array(a, int32_t, names.n);
    if (!out->items)
        return fail(err, CLM_ERR_NOMEM, "no memory for the command line");
    for (; out->n < names.n; out->n++)
        if (parse_choice(o, &out->items[out->n], names.items[out->n], err))
            return -1;
    return 0;
}

static int parse_value(struct parser *p, struct place at, const char *text)
{
    const struct option *o = at.option;

    switch (o->kind) {
    case OPTION_BOOL:
        return parse_bool(o, (bool *)at.value, text, p->err);
    case OPTION_INT:
        return parse_int(o, (int *)(void *)at.value, text, p->err);
    case OPTION_REAL:
        return parse_real(o, (double *)(void *)at.value, text, p->err);
    case OPTION_SEED:
        return parse_seed(o, (struct seed *)(void *)at.value, text, p->err);
    case OPTION_BYTES:
        return parse_bytes(o, (size_t *)(void *)at.value, text, p->err);
    case OPTION_CHOICE:
        return parse_choice(o, (int *)(void *)at.value, text, p->err);
    case OPTION_IDS:
        return parse_ids(o, (struct ids *)(void *)at.value, text, p->memory, p->err);
    case OPTION_INTS:
        return parse_ints(o, (struct ids *)(void *)at.value, text, p->memory, p->err);
    case OPTION_CHOICES:
        return parse_choices(o, (struct ids *)(void *)at.value, text, p->memory, p->err);
    case OPTION_NAMES:
        return parse_names((struct strings *)(void *)at.value, text, p->memory, p->err);
    case OPTION_STRINGS:
        return add_string((struct strings *)(void *)at.value, text, p->memory, p->err);
    case OPTION_STRING:
        return parse_string(o, (const char **)(void *)at.value, text, p->err);
    case OPTION_FLAG:
    case OPTION_GROUP:
        break;
    }
    return fail(p->err, CLM_ERR_ARG, "--%s takes no value", o->name);
}

/* Of an option that takes several values a next option would be one without a word. */
static bool is_option(const struct parser *p, const char *text)
{
    if (text[0] != '-' || !text[1])
        return false;
    if (text[1] == '-')
        return find_option(p->table, NULL, text + 2, strcspn(text + 2, "="), 0).option;
    return !text[2] && find_option(p->table, NULL, NULL, 0, text[1]).option;
}

/* Shells put the home folder in the place of a tilde that an argument begins with, but leave one as
 * it is that stands behind --option= or is quoted. NULL without memory. */
static const char *with_home(struct parser *p, const struct option *o, const char *text)
{
    static const char *const kinds[] = {"FILE", "DIR", "MODEL"};
    const char *home = text[0] == '~' && text[1] == '/' ? getenv("HOME") : NULL;

    for (size_t i = 0; home && *home && o->value && i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(o->value, kinds[i]) == 0)
            return arena_printf(p->memory, "%s%s", home, text + 1);
    return text;
}

static int note_given(struct parser *p, const struct option *o)
{
    struct given *g = arena_array(p->memory, struct given, 1);

    if (!g)
        return fail(p->err, CLM_ERR_NOMEM, "no memory for the command line");
    *g = (struct given){o, p->given};
    p->given = g;
    return 0;
}

/* text is the value that stands in the same argument, or NULL: it is the next one. */
static int take_option(struct parser *p, struct place at, const char *text)
{
    const struct option *o = at.option;

    if (note_given(p, o))
        return -1;
    if (o->kind == OPTION_FLAG) {
        if (text)
            return fail(p->err, CLM_ERR_ARG, "--%s takes no value", o->name);
        *(bool *)at.value = true;
        return 0;
    }
    if (!text) {
        if (p->at == p->argc)
            return fail(p->err, CLM_ERR_ARG, "--%s needs a value: --%s %s", o->name, o->name,
                        o->value);
        text = p->argv[p->at++];
        if (o->kind == OPTION_STRINGS && is_option(p, text))
            return fail(p->err, CLM_ERR_ARG,
                        "--%s needs a value before %s; if that is the value, say --%s=%s", o->name,
                        text, o->name, text);
    }
    text = with_home(p, o, text);
    if (!text)
        return fail(p->err, CLM_ERR_NOMEM, "no memory for the command line");
    if (parse_value(p, at, text))
        return -1;
    while (o->kind == OPTION_STRINGS && p->at < p->argc && p->argv[p->at][0] != '-')
        if (parse_value(p, at, p->argv[p->at++]))
            return -1;
    return 0;
}

static int take_long(struct parser *p, const char *name)
{
    size_t size = strcspn(name, "=");
    struct place at = find_option(p->table, p->args, name, size, 0);

    if (!at.option)
        return unknown_option(p, "--", name);
    return take_option(p, at, name[size] ? name + size + 1 : NULL);
}

/* Other programs have names of several letters behind one dash: "-ngl" is no "-n gl", and "-md" not
 * the model d. */
static bool is_from_elsewhere(const struct parser *p, const char *letters)
{
    bool is_ours = !letters[1] && find_option(p->table, NULL, NULL, 0, *letters).option;

    return !is_ours && option_elsewhere(p, letters, strcspn(letters, "="));
}

/* The letters of one argument: flags, of which the last may be an option with its value behind it.
 */
static int take_letters(struct parser *p, const char *letters)
{
    if (is_from_elsewhere(p, letters))
        return unknown_option(p, "-", letters);
    for (; *letters; letters++) {
        struct place at = find_option(p->table, p->args, NULL, 0, *letters);

        if (!at.option)
            return fail(p->err, CLM_ERR_ARG, "unknown option -%c", *letters);
        if (at.option->kind != OPTION_FLAG)
            return take_option(p, at, letters[1] ? letters + 1 : NULL);
        if (take_option(p, at, NULL))
            return -1;
    }
    return 0;
}

static int no_use(const struct parser *p, const char *text)
{
    const struct option *o = options_find(p->table, "prompt");
    bool prompt = o && o->kind == OPTION_STRING, model = options_find(p->table, "model");

    if (p->operands->instead)
        return fail(p->err, CLM_ERR_ARG, "there is no use for \"%.60s\"; %s", text,
                    p->operands->instead);
    return fail(p->err, CLM_ERR_ARG, "there is no use for \"%.60s\"%s%s%s", text,
                prompt ? "; a prompt is given with --prompt" : "",
                prompt && model ? ", "
                : model         ? "; "
                                : "",
                model ? "a model with --model" : "");
}

static int take_operand(struct parser *p, const char *text)
{
    struct strings *list = (struct strings *)(void *)(p->args + p->operands->offset);

    if (!p->operands->name)
        return no_use(p, text);
    if (is_nameless(p->operands->name, text))
        return fail(p->err, CLM_ERR_ARG, "%s is an empty name", p->operands->name);
    if (list->n == p->operands->max)
        return fail(p->err, CLM_ERR_ARG, "\"%s\" is one %s too many", text, p->operands->name);
    return add_string(list, text, p->memory, p->err);
}

static bool asks_for_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

static int check_operands(const struct parser *p)
{
    const struct operands *o = p->operands;

    if (o->name && ((struct strings *)(void *)(p->args + o->offset))->n < o->min)
        return fail(p->err, CLM_ERR_ARG, "%s is missing", o->name);
    return 0;
}

static bool is_given(const struct parser *p, const char *name, size_t size)
{
    for (const struct given *g = p->given; g; g = g->next)
        if (strlen(g->option->name) == size && strncmp(g->option->name, name, size) == 0)
            return true;
    return false;
}

/* None of the options without which o changes nothing is there: says which the command has. */
static int lonely(const struct parser *p, const struct option *o)
{
    struct strbuf names = {0};

    for (const char *s = o->with; *s; s += strcspn(s, " "), s += *s == ' ') {
        int size = (int)strcspn(s, " ");

        if (find_option(p->table, NULL, s, (size_t)size, 0).option)
            strbuf_addf(&names, "%s--%.*s", names.size ? " or " : "", size, s);
    }
    fail(p->err, CLM_ERR_ARG, "--%s changes nothing without %s", o->name,
         names.data ? names.data : "another option");
    strbuf_release(&names);
    return -1;
}

static int check_company(const struct parser *p)
{
    for (const struct given *g = p->given; g; g = g->next) {
        const char *s = g->option->with;

        if (!s)
            continue;
        while (*s && !is_given(p, s, strcspn(s, " "))) {
            s += strcspn(s, " ");
            s += *s == ' ';
        }
        if (!*s)
            return lonely(p, g->option);
    }
    return 0;
}

int options_parse(const struct option *table, const struct operands *operands, int argc,
                  char *const *argv, void *args, arena *a, clm_error *err)
{
    struct parser p = {table, operands, argc, 0, argv, args, a, err, NULL};
    bool only_operands = false;

    while (p.at < argc) {
        const char *argument = argv[p.at++];
        int rc = 0;

        if (only_operands || argument[0] != '-' || !argument[1])
            rc = take_operand(&p, argument);
        else if (asks_for_help(argument))
            return 1;
        else if (strcmp(argument, "--") == 0)
            only_operands = true;
        else if (argument[1] == '-')
            rc = take_long(&p, argument + 2);
        else
            rc = take_letters(&p, argument + 1);
        if (rc)
            return -1;
    }
    return check_operands(&p) || check_company(&p) ? -1 : 0;
}
