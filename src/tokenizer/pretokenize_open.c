/* tokenizer/pretokenize_open.c: the "pre_tokenizer" of a tokenizer.json. */
#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/punctuation.h"
#include "tokenizer/unicode.h"

#define MAX_STAGES 256

static const char gpt2_expression[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

struct opening {
    struct pretokenizer *p;
    const uint8_t *table;
    struct reader *r;
};

static bool is_space(int32_t c, int32_t unused)
{
    (void)unused;
    return unicode_is_space(c);
}

/* N, and what Unicode 17 adds to it, which the reference's language knows and its expressions do
 * not. */
static bool is_number(int32_t c, int32_t unused)
{
    (void)unused;
    return unicode_category(c)[0] == 'N' || (c >= 0x11DE0 && c <= 0x11DE9) ||
           (c >= 0x16FF4 && c <= 0x16FF6);
}

static bool is_punctuation(int32_t c, int32_t unused)
{
    (void)unused;
    return punctuation_is(c);
}

static bool is_same(int32_t c, int32_t delimiter)
{
    return c == delimiter;
}

static struct pre_stage *add_stage(struct opening *o, enum pre_kind kind)
{
    struct pre_stage *st;

    if (o->p->n_stages == MAX_STAGES) {
        fail(o->r->err, CLM_ERR_UNSUPPORTED, "%s: more than %d pre-tokenizers", o->r->name,
             MAX_STAGES);
        return NULL;
    }
    st = &o->p->stages[o->p->n_stages++];
    *st = (struct pre_stage){.kind = kind};
    return st;
}

static int read_behavior(struct reader *r, const json *v, const char *otherwise,
                         enum split_behavior *out)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    struct span name;

    if (otherwise ? read_string_or(r, v, "behavior", otherwise, &name)
                  : read_string(r, v, "behavior", &name))
        return -1;
    for (size_t i = 0; i < COUNT(names); i++) {
        if (!strcmp(name.s, names[i])) {
            *out = (enum split_behavior)i;
            return 0;
        }
    }
    return fail(r->err, CLM_ERR_UNSUPPORTED, "%s: %s: split behavior \"%s\" is not supported",
                r->name, r->part, name.s);
}

static int open_split(struct opening *o, const json *v)
{
    struct pre_stage *st = add_stage(o, PRE_SPLIT);

    if (!st || pattern_open(&st->pattern, json_get(v, "pattern"), o->table, o->r) ||
        read_behavior(o->r, v, NULL, &st->behavior))
        return -1;
    return read_bool(o->r, v, "invert", &st->invert);
}

static int open_characters(struct opening *o, bool (*is_match)(int32_t, int32_t),
                           enum split_behavior behavior, int32_t parameter)
{
    struct pre_stage *st = add_stage(o, PRE_CHARACTERS);

    if (!st)
        return -1;
    st->is_match = is_match;
    st->behavior = behavior;
    st->parameter = parameter;
    return 0;
}

static int open_digits(struct opening *o, const json *v)
{
    bool individual;

    if (read_bool(o->r, v, "individual_digits", &individual))
        return -1;
    return open_characters(o, is_number, individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, 0);
}

static int open_punctuation(struct opening *o, const json *v)
{
    enum split_behavior behavior = SPLIT_ISOLATED;

    if (read_behavior(o->r, v, "Isolated", &behavior))
        return -1;
    return open_characters(o, is_punctuation, behavior, 0);
}

static int open_bert(struct opening *o)
{
    if (open_characters(o, is_space, SPLIT_REMOVED, 0))
        return -1;
    return open_characters(o, is_punctuation, SPLIT_ISOLATED, 0);
}

static int open_delimiter(struct opening *o, const json *v)
{
    int32_t delimiter;

    if (read_char(o->r, v, "delimiter", &delimiter))
        return -1;
    return open_characters(o, is_same, SPLIT_REMOVED, delimiter);
}

static int open_byte_level(struct opening *o, const json *v)
{
    struct pre_stage *st = add_stage(o, PRE_BYTE_LEVEL);

    if (!st)
        return -1;
    st->behavior = SPLIT_ISOLATED;
    if (read_bool(o->r, v, "add_prefix_space", &st->add_prefix_space) ||
        read_bool_or(o->r, v, "use_regex", true, &st->use_regex))
        return -1;
    return st->use_regex ? pattern_open_regex(&st->pattern, gpt2_expression,
                                              sizeof gpt2_expression - 1, true, o->table, o->r)
                         : 0;
}

/* The older spelling has add_prefix_space instead of prepend_scheme. */
static int read_scheme(struct reader *r, const json *v, enum prepend_scheme *out)
{
    static const char *const names[] = {"always", "first", "never"};
    struct span name;
    bool prefix;
    size_t i = 0;

    if (read_string_or(r, v, "prepend_scheme", "always", &name) ||
        read_bool_or(r, v, "add_prefix_space", true, &prefix))
        return -1;
    while (i < COUNT(names) && strcmp(name.s, names[i]))
        i++;
    if (i == COUNT(names))
        return fail(r->err, CLM_ERR_UNSUPPORTED, "%s: %s: prepend_scheme \"%s\" is not supported",
                    r->name, r->part, name.s);
    if (!prefix && i != PREPEND_NEVER)
        return fail(r->err, CLM_ERR_FORMAT,
                    "%s: %s: add_prefix_space contradicts prepend_scheme \"%s\"", r->name, r->part,
                    name.s);
    *out = (enum prepend_scheme)i;
    return 0;
}

static int open_metaspace(struct opening *o, const json *v)
{
    struct pre_stage *st = add_stage(o, PRE_METASPACE);
    int32_t mark;

    if (!st)
        return -1;
    st->behavior = SPLIT_MERGED_WITH_NEXT;
    if (read_char(o->r, v, "replacement", &mark) ||
        read_string(o->r, v, "replacement", &st->replacement) ||
        read_scheme(o->r, v, &st->scheme) || read_bool_or(o->r, v, "split", true, &st->split))
        return -1;
    return pattern_open_string(&st->pattern, st->replacement.s, st->replacement.n);
}

static int open_fixed_length(struct opening *o, const json *v)
{
    struct pre_stage *st = add_stage(o, PRE_FIXED_LENGTH);

    if (!st || read_size_or(o->r, v, "length", 5, &st->length))
        return -1;
    if (!st->length)
        return fail(o->r->err, CLM_ERR_FORMAT, "%s: %s: a length of 0", o->r->name, o->r->part);
    return 0;
}

static int open_stage(void *ctx, const json *v)
{
    struct opening *o = ctx;
    const char *type = read_type(o->r, v);

    if (!type)
        return -1;
    if (!strcmp(type, "Sequence"))
        return read_sequence(o->r, v, "pretokenizers", open_stage, o);
    if (!strcmp(type, "Split"))
        return open_split(o, v);
    if (!strcmp(type, "ByteLevel"))
        return open_byte_level(o, v);
    if (!strcmp(type, "Metaspace"))
        return open_metaspace(o, v);
    if (!strcmp(type, "Digits"))
        return open_digits(o, v);
    if (!strcmp(type, "Punctuation"))
        return open_punctuation(o, v);
    if (!strcmp(type, "BertPreTokenizer"))
        return open_bert(o);
    if (!strcmp(type, "CharDelimiterSplit"))
        return open_delimiter(o, v);
    if (!strcmp(type, "FixedLength"))
        return open_fixed_length(o, v);
    if (!strcmp(type, "WhitespaceSplit"))
        return open_characters(o, is_space, SPLIT_REMOVED, 0);
    if (!strcmp(type, "Whitespace"))
        return add_stage(o, PRE_WORDS) ? 0 : -1;
    if (!strcmp(type, "UnicodeScripts"))
        return add_stage(o, PRE_SCRIPTS) ? 0 : -1;
    return unknown_type(o->r, type);
}

int pretokenizer_open(struct pretokenizer *p, const json *v, const uint8_t *table, struct reader *r)
{
    struct opening o = {.p = p, .table = table, .r = r};

    *p = (struct pretokenizer){0};
    r->part = "pre_tokenizer";
    if (json_is_null(v))
        return 0;
    p->stages = mem_zeroed(MAX_STAGES, sizeof *p->stages);
    if (!p->stages)
        return no_memory(r);
    if (open_stage(&o, v)) {
        pretokenizer_close(p);
        return -1;
    }
    return 0;
}

void pretokenizer_close(struct pretokenizer *p)
{
    for (size_t i = 0; i < p->n_stages; i++)
        pattern_close(&p->stages[i].pattern);
    mem_free(p->stages);
    *p = (struct pretokenizer){0};
}
