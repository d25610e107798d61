/* tokenizer/decode_open.c: reading the "decoder" of a tokenizer.json. */
#include <string.h>

#include "base/memory.h"
#include "tokenizer/decode.h"

#define MAX_STAGES 256

const char *const decode_cleanup[CLEANUP_COUNT][2] = {
    {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
    {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
    {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
};

struct opening {
    struct decoder *d;
    struct reader *r;
};

static bool is_fused(const struct decoder *d)
{
    for (size_t i = 0; i < d->n_stages; i++) {
        if (d->stages[i].kind == DECODE_FUSE || d->stages[i].kind == DECODE_LOSSY)
            return true;
    }
    return false;
}

static struct decode_stage *add_stage(struct opening *o, enum decode_kind kind)
{
    struct decode_stage *st;

    if (o->d->n_stages == MAX_STAGES) {
        fail(o->r->err, CLM_ERR_UNSUPPORTED, "%s: more than %d decoders", o->r->name, MAX_STAGES);
        return NULL;
    }
    st = &o->d->stages[o->d->n_stages];
    *st = (struct decode_stage){.kind = kind, .fused = is_fused(o->d)};
    o->d->n_stages++;
    return st;
}

static int add_replace(struct opening *o, struct span from, struct span to)
{
    struct decode_stage *st = add_stage(o, DECODE_REPLACE);

    if (!st)
        return -1;
    st->content = to;
    return pattern_open_string(&st->pattern, from.s, from.n);
}

/* On one token that comes in fragments cleanup is a replacement after another. */
static int add_cleanup(struct opening *o, bool do_not)
{
    for (size_t i = 0; i < CLEANUP_COUNT; i++) {
        const char *from = decode_cleanup[i][0], *to = decode_cleanup[i][1];

        if ((do_not || i != CLEANUP_DO_NOT) &&
            add_replace(o, (struct span){from, strlen(from)}, (struct span){to, strlen(to)}))
            return -1;
    }
    return 0;
}

static int open_replace(struct opening *o, const json *v)
{
    struct decode_stage *st = add_stage(o, DECODE_REPLACE);

    if (!st || pattern_open(&st->pattern, json_get(v, "pattern"), NULL, o->r))
        return -1;
    return read_string(o->r, v, "content", &st->content);
}

static int open_strip(struct opening *o, const json *v)
{
    struct decode_stage *st = add_stage(o, DECODE_STRIP);
    int32_t c;

    if (!st || read_char(o->r, v, "content", &c) || read_string(o->r, v, "content", &st->content) ||
        read_size_or(o->r, v, "start", 0, &st->start))
        return -1;
    return read_size_or(o->r, v, "stop", 0, &st->stop);
}

static int open_metaspace(struct opening *o, const json *v)
{
    struct decode_stage *st = add_stage(o, DECODE_METASPACE);
    struct span scheme;
    bool prefix;
    int32_t c;

    if (!st || read_char(o->r, v, "replacement", &c) ||
        read_string(o->r, v, "replacement", &st->mark) ||
        read_string_or(o->r, v, "prepend_scheme", "always", &scheme) ||
        read_bool_or(o->r, v, "add_prefix_space", true, &prefix))
        return -1;
    if (strcmp(scheme.s, "always") && strcmp(scheme.s, "first") && strcmp(scheme.s, "never"))
        return fail(o->r->err, CLM_ERR_UNSUPPORTED,
                    "%s: decoder: prepend_scheme \"%s\" is not supported", o->r->name, scheme.s);
    st->drop_first = prefix && strcmp(scheme.s, "never");
    return 0;
}

static int open_wordpiece(struct opening *o, const json *v)
{
    struct decode_stage *st;
    struct span prefix;
    bool cleanup;

    if (read_string(o->r, v, "prefix", &prefix) || read_bool(o->r, v, "cleanup", &cleanup))
        return -1;
    if (is_fused(o->d))
        return cleanup ? add_cleanup(o, true) : 0;
    st = add_stage(o, DECODE_WORDPIECE);
    if (!st)
        return -1;
    st->mark = prefix;
    st->cleanup = cleanup;
    return 0;
}

static int open_bpe(struct opening *o, const json *v)
{
    struct decode_stage *st;
    struct span suffix;

    if (read_string(o->r, v, "suffix", &suffix))
        return -1;
    if (!suffix.n)
        return fail(o->r->err, CLM_ERR_UNSUPPORTED, "%s: decoder: an empty suffix", o->r->name);
    if (is_fused(o->d))
        return add_replace(o, suffix, (struct span){"", 0});
    st = add_stage(o, DECODE_BPE);
    if (!st)
        return -1;
    st->mark = suffix;
    return 0;
}

static int open_ctc(struct opening *o, const json *v)
{
    struct decode_stage *st;
    struct span pad, delimiter;
    bool cleanup;

    if (read_string(o->r, v, "pad_token", &pad) ||
        read_string(o->r, v, "word_delimiter_token", &delimiter) ||
        read_bool(o->r, v, "cleanup", &cleanup))
        return -1;
    if (!pad.n || !delimiter.n)
        return fail(o->r->err, CLM_ERR_UNSUPPORTED, "%s: decoder: an empty token of CTC",
                    o->r->name);
    if (is_fused(o->d)) {
        if (add_replace(o, pad, (struct span){"", 0}))
            return -1;
        if (!cleanup)
            return 0;
        return add_cleanup(o, true) ? -1 : add_replace(o, delimiter, (struct span){" ", 1});
    }
    st = add_stage(o, DECODE_CTC);
    if (!st)
        return -1;
    st->pad = pad;
    st->mark = delimiter;
    st->cleanup = cleanup;
    return 0;
}

static int open_stage(void *ctx, const json *v)
{
    struct opening *o = ctx;
    const char *type = read_type(o->r, v);

    if (!type)
        return -1;
    if (!strcmp(type, "Sequence"))
        return read_sequence(o->r, v, "decoders", open_stage, o);
    if (!strcmp(type, "ByteLevel"))
        return add_stage(o, DECODE_BYTE_LEVEL) && add_stage(o, DECODE_LOSSY) ? 0 : -1;
    if (!strcmp(type, "ByteFallback"))
        return add_stage(o, DECODE_BYTE_FALLBACK) ? 0 : -1;
    if (!strcmp(type, "Fuse"))
        return add_stage(o, DECODE_FUSE) ? 0 : -1;
    if (!strcmp(type, "Replace"))
        return open_replace(o, v);
    if (!strcmp(type, "Strip"))
        return open_strip(o, v);
    if (!strcmp(type, "Metaspace"))
        return open_metaspace(o, v);
    if (!strcmp(type, "WordPiece"))
        return open_wordpiece(o, v);
    if (!strcmp(type, "BPEDecoder"))
        return open_bpe(o, v);
    if (!strcmp(type, "CTC"))
        return open_ctc(o, v);
    return unknown_type(o->r, type);
}

static int open_stages(struct opening *o, const json *v, bool cleanup)
{
    if (json_is_null(v) ? !add_stage(o, DECODE_JOIN) : open_stage(o, v))
        return -1;
    if (!cleanup)
        return 0;
    return add_stage(o, DECODE_FUSE) ? add_cleanup(o, false) : -1;
}

static bool acts_alone(const struct decode_stage *st)
{
    return !st->fused && (st->kind == DECODE_REPLACE || st->kind == DECODE_STRIP ||
                          st->kind == DECODE_BYTE_LEVEL);
}

static bool lets_pass(const struct decode_stage *st)
{
    return st->kind == DECODE_FUSE || (st->kind == DECODE_STRIP && st->fused && !st->stop);
}

static size_t find_bytes_stage(const struct decoder *d)
{
    size_t i = 0, after;

    while (i < d->n_stages && acts_alone(&d->stages[i]))
        i++;
    if (i == d->n_stages || d->stages[i].fused ||
        (d->stages[i].kind != DECODE_BYTE_FALLBACK && d->stages[i].kind != DECODE_LOSSY))
        return d->n_stages;
    for (after = i + 1; after < d->n_stages && lets_pass(&d->stages[after]); after++)
        ;
    return after == d->n_stages ? i : d->n_stages;
}

int decoder_open(struct decoder *d, const json *v, bool cleanup, struct reader *r)
{
    struct opening o = {.d = d, .r = r};

    *d = (struct decoder){0};
    r->part = "decoder";
    d->stages = mem_zeroed(MAX_STAGES, sizeof *d->stages);
    if (!d->stages)
        return no_memory(r);
    if (open_stages(&o, v, cleanup)) {
        decoder_close(d);
        return -1;
    }
    d->bytes_stage = find_bytes_stage(d);
    return 0;
}

void decoder_close(struct decoder *d)
{
    for (size_t i = 0; i < d->n_stages; i++)
        pattern_close(&d->stages[i].pattern);
    mem_free(d->stages);
    *d = (struct decoder){0};
}
