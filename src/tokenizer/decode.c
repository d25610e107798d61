/* tokenizer/decode.c: tokens through the stages of a decoder. */
#include "tokenizer/decode.h"

#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/decode_state.h"

/* A string up to this size is found in fragments by keeping back what may be its beginning. */
#define LONGEST_HELD 256

/* Whether the stage treats the first of all tokens unlike the others. */
static bool has_beginning(const struct decode_stage *d)
{
    switch (d->kind) {
    case DECODE_REPLACE:
    case DECODE_FUSE:
    case DECODE_BYTE_LEVEL:
    case DECODE_LOSSY:
        return false;
    case DECODE_STRIP:
    case DECODE_BYTE_FALLBACK:
        return d->fused;
    default:
        return true;
    }
}

static bool is_at_rest(const struct decode_state *x)
{
    for (size_t i = 0; i < x->d->n_stages; i++) {
        const struct stage_state *st = &x->stages[i];

        if (st->held.size || st->started != has_beginning(&x->d->stages[i]))
            return false;
    }
    return true;
}

bool decode_at_rest(const struct decode_state *x)
{
    return x->at_rest;
}

struct decode_state *decode_state_open(const struct decoder *d, clm_error *err)
{
    struct decode_state *x = mem_zeroed(1, sizeof *x + d->n_stages * sizeof x->stages[0]);

    if (!x)
        return fail_null(err, CLM_ERR_NOMEM, "no memory to decode tokens");
    x->d = d;
    x->n_stages = d->n_stages;
    x->at_rest = is_at_rest(x);
    return x;
}

void decode_state_close(struct decode_state *x)
{
    for (size_t i = 0; x && i < x->d->n_stages; i++) {
        strbuf_release(&x->stages[i].held);
        strbuf_release(&x->stages[i].text);
        strbuf_release(&x->stages[i].other);
    }
    if (x)
        matcher_release(&x->matcher);
    mem_free(x);
}

int stage_push_text(struct decode_state *x, size_t i, const struct strbuf *text)
{
    return stage_push(x, i + 1, text->data ? text->data : "", text->size);
}

int stage_push_held(struct decode_state *x, size_t i)
{
    struct strbuf *held = &x->stages[i].held;
    int rc = stage_push_text(x, i, held);

    strbuf_clear(held);
    return rc;
}

static bool starts_with(const char *s, size_t n, const struct span *prefix)
{
    return n >= prefix->n && !memcmp(s, prefix->s, prefix->n);
}

/* Append s with every occurrence of from replaced. */
static void replace_all(struct strbuf *out, const char *s, size_t n, struct span from,
                        struct span to)
{
    const char *end = s + n, *found;

    while (from.n && (found = memmem(s, (size_t)(end - s), from.s, from.n)) != NULL) {
        strbuf_add(out, s, (size_t)(found - s));
        strbuf_add(out, to.s, to.n);
        s = found + from.n;
    }
    strbuf_add(out, s, (size_t)(end - s));
}

/* The text of the stage, cleaned up. */
static void clean_up(struct stage_state *st)
{
    for (size_t i = 0; i < CLEANUP_COUNT; i++) {
        struct span from = {decode_cleanup[i][0], strlen(decode_cleanup[i][0])};
        struct span to = {decode_cleanup[i][1], strlen(decode_cleanup[i][1])};
        struct strbuf swap = st->text;

        if (!swap.size || !memmem(swap.data, swap.size, from.s, from.n))
            continue;
        strbuf_clear(&st->other);
        replace_all(&st->other, swap.data, swap.size, from, to);
        st->text = st->other;
        st->other = swap;
    }
}

/* Replace */

static int replace_text(struct decode_state *x, size_t i, const char *s, size_t n)
{
    const struct decode_stage *d = &x->d->stages[i];
    struct strbuf *text = &x->stages[i].text;
    struct search search = search_start(&d->pattern, &x->matcher, s, n);
    size_t last = 0;
    int rc = 0;

    strbuf_clear(text);
    while (n && (rc = search_next(&search, x->err)) > 0) {
        strbuf_add(text, s + last, search.begin - last);
        strbuf_add(text, d->content.s, d->content.n);
        last = search.end;
    }
    if (rc)
        return rc;
    strbuf_add(text, s + last, n - last);
    return stage_push_text(x, i, text);
}

/* How much of the end of s may be the beginning of the string. */
static size_t partial_match(const char *s, size_t n, const struct span *string)
{
    size_t most = string->n - 1 < n ? string->n - 1 : n;

    while (most && memcmp(s + n - most, string->s, most))
        most--;
    return most;
}

static int replace_fragment(struct decode_state *x, size_t i, const char *s, size_t n)
{
    const struct decode_stage *d = &x->d->stages[i];
    struct stage_state *st = &x->stages[i];
    size_t last = 0, keep;
    const char *found;

    strbuf_add(&st->held, s, n);
    if (d->pattern.regex || d->pattern.fast || !d->pattern.string.n ||
        d->pattern.string.n > LONGEST_HELD || st->held.failed)
        return 0;
    strbuf_clear(&st->text);
    s = st->held.data;
    n = st->held.size;
    while (n > last &&
           (found = memmem(s + last, n - last, d->pattern.string.s, d->pattern.string.n)) != NULL) {
        strbuf_add(&st->text, s + last, (size_t)(found - s) - last);
        strbuf_add(&st->text, d->content.s, d->content.n);
        last = (size_t)(found - s) + d->pattern.string.n;
    }
    keep = n > last ? partial_match(s + last, n - last, &d->pattern.string) : 0;
    strbuf_add(&st->text, s + last, n - last - keep);
    if (last || keep < n) {
        memmove(st->held.data, s + n - keep, keep);
        st->held.size = keep;
        st->held.data[keep] = '\0';
    }
    return st->text.size ? stage_push_text(x, i, &st->text) : 0;
}

/* Strip */

static int strip_token(struct decode_state *x, size_t i, const char *s, size_t n)
{
    const struct decode_stage *d = &x->d->stages[i];

    for (size_t k = 0; k < d->start && starts_with(s, n, &d->content); k++) {
        s += d->content.n;
        n -= d->content.n;
    }
    for (size_t k = 0; k < d->stop && n >= d->content.n; k++) {
        if (memcmp(s + n - d->content.n, d->content.s, d->content.n))
            break;
        n -= d->content.n;
    }
    return stage_push(x, i + 1, s, n);
}

/* Held back are up to stop characters at the end that might go. */
static int strip_fragment(struct decode_state *x, size_t i, const char *s, size_t n)
{
    const struct decode_stage *d = &x->d->stages[i];
    struct stage_state *st = &x->stages[i];
    size_t keep = 0;

    while (!st->started && n) {
        if (st->count == d->start || !starts_with(s, n, &d->content)) {
            st->started = true;
            break;
        }
        st->count++;
        s += d->content.n;
        n -= d->content.n;
    }
    if (!d->stop)
        return n ? stage_push(x, i + 1, s, n) : 0;
    strbuf_add(&st->held, s, n);
    if (st->held.failed)
        return 0;
    s = st->held.data;
    n = st->held.size;
    for (size_t k = 0; k < d->stop && n - keep >= d->content.n; k++) {
        if (memcmp(s + n - keep - d->content.n, d->content.s, d->content.n))
            break;
        keep += d->content.n;
    }
    if (keep == n)
        return 0;
    strbuf_clear(&st->text);
    strbuf_add(&st->text, s, n - keep);
    memmove(st->held.data, s + n - keep, keep);
    st->held.size = keep;
    st->held.data[keep] = '\0';
    return stage_push_text(x, i, &st->text);
}

/* Metaspace */

static int metaspace(struct decode_state *x, size_t i, const char *s, size_t n)
{
    const struct decode_stage *d = &x->d->stages[i];
    struct stage_state *st = &x->stages[i];
    bool drop = d->drop_first && (d->fused || !st->started);

    st->started = true;
    strbuf_clear(&st->text);
    replace_all(&st->text, s, n, d->mark, drop ? (struct span){"", 0} : (struct span){" ", 1});
    return stage_push_text(x, i, &st->text);
}

/* WordPiece, BPE, CTC, and none */

static int wordpiece(struct decode_state *x, size_t i, const char *s, size_t n)
{
    const struct decode_stage *d = &x->d->stages[i];
    struct stage_state *st = &x->stages[i];
    bool inside = starts_with(s, n, &d->mark), first = !st->started;

    st->started = true;
    strbuf_clear(&st->text);
    if (!first && inside) {
        s += d->mark.n;
        n -= d->mark.n;
    } else if (!first) {
        strbuf_add_char(&st->text, ' ');
    }
    strbuf_add(&st->text, s, n);
    if (d->cleanup)
        clean_up(st);
    return stage_push_text(x, i, &st->text);
}

static int push_bpe(struct decode_state *x, size_t i, const char *s, size_t n, const char *space)
{
    struct strbuf *text = &x->stages[i].text;

    strbuf_clear(text);
    replace_all(text, s, n, x->d->stages[i].mark, (struct span){space, strlen(space)});
    return stage_push_text(x, i, text);
}

/* What a suffix becomes depends on whether a token follows. Where no stage follows that would look
 * at whole tokens, what comes before the suffix goes out at once. */
static int bpe(struct decode_state *x, size_t i, const char *s, size_t n)
{
    const struct decode_stage *d = &x->d->stages[i];
    struct stage_state *st = &x->stages[i];
    const char *suffix = NULL;

    if (st->started && push_bpe(x, i, st->held.data ? st->held.data : "", st->held.size, " "))
        return -1;
    strbuf_clear(&st->held);
    st->started = true;
    if (i + 1 == x->d->n_stages) {
        suffix = n ? memmem(s, n, d->mark.s, d->mark.n) : NULL;
        if (stage_push(x, i + 1, s, suffix ? (size_t)(suffix - s) : n))
            return -1;
        n = suffix ? n - (size_t)(suffix - s) : 0;
        s = suffix;
    }
    if (n)
        strbuf_add(&st->held, s, n);
    return 0;
}

static int ctc(struct decode_state *x, size_t i, const char *s, size_t n)
{
    const struct decode_stage *d = &x->d->stages[i];
    struct stage_state *st = &x->stages[i];
    struct strbuf swap;

    if (st->started && st->held.size == n && (!n || !memcmp(st->held.data, s, n)))
        return 0;
    strbuf_clear(&st->held);
    strbuf_add(&st->held, s, n);
    st->started = true;
    strbuf_clear(&st->text);
    replace_all(&st->text, s, n, d->pad, (struct span){"", 0});
    if (d->cleanup) {
        clean_up(st);
        strbuf_clear(&st->other);
        replace_all(&st->other, st->text.data ? st->text.data : "", st->text.size, d->mark,
                    (struct span){" ", 1});
        swap = st->text;
        st->text = st->other;
        st->other = swap;
    }
    return st->text.size ? stage_push_text(x, i, &st->text) : 0;
}

static int join(struct decode_state *x, size_t i, const char *s, size_t n)
{
    bool first = !x->stages[i].started;

    x->stages[i].started = true;
    if (!first && stage_push(x, i + 1, " ", 1))
        return -1;
    return stage_push(x, i + 1, s, n);
}

int stage_push(struct decode_state *x, size_t i, const char *s, size_t n)
{
    bool fused;

    if (i == x->n_stages) {
        strbuf_add(x->out, s, n);
        return 0;
    }
    fused = x->d->stages[i].fused;
    switch (x->d->stages[i].kind) {
    case DECODE_REPLACE:
        return fused ? replace_fragment(x, i, s, n) : replace_text(x, i, s, n);
    case DECODE_BYTE_FALLBACK:
        return stage_byte_fallback(x, i, s, n);
    case DECODE_FUSE:
        return n ? stage_push(x, i + 1, s, n) : 0;
    case DECODE_STRIP:
        return fused ? strip_fragment(x, i, s, n) : strip_token(x, i, s, n);
    case DECODE_BYTE_LEVEL:
        return stage_byte_level(x, i, s, n);
    case DECODE_LOSSY:
        return stage_lossy(x, i, s, n);
    case DECODE_METASPACE:
        return metaspace(x, i, s, n);
    case DECODE_WORDPIECE:
        return wordpiece(x, i, s, n);
    case DECODE_BPE:
        return bpe(x, i, s, n);
    case DECODE_CTC:
        return ctc(x, i, s, n);
    case DECODE_JOIN:
        return join(x, i, s, n);
    }
    return 0;
}

/* There are no more tokens: pass on what stage i keeps. */
static int finish_stage(struct decode_state *x, size_t i)
{
    const struct decode_stage *d = &x->d->stages[i];
    struct stage_state *st = &x->stages[i];

    switch (d->kind) {
    case DECODE_REPLACE:
        if (!d->fused || !st->held.size)
            return 0;
        return d->pattern.regex || d->pattern.fast || d->pattern.string.n > LONGEST_HELD ||
                       !d->pattern.string.n
                   ? replace_text(x, i, st->held.data, st->held.size)
                   : stage_push_held(x, i);
    case DECODE_BYTE_FALLBACK:
        return stage_byte_fallback_end(x, i);
    case DECODE_BYTE_LEVEL:
        return stage_byte_level_end(x, i);
    case DECODE_LOSSY:
        return stage_lossy_end(x, i);
    case DECODE_BPE:
        return st->held.size ? push_bpe(x, i, st->held.data, st->held.size, "") : 0;
    default: /* what Strip and CTC keep is dropped */
        return 0;
    }
}

static int check_memory(struct decode_state *x)
{
    bool failed = x->out->failed;

    for (size_t i = 0; i < x->d->n_stages; i++)
        failed |= x->stages[i].held.failed | x->stages[i].text.failed | x->stages[i].other.failed;
    return failed ? fail(x->err, CLM_ERR_NOMEM, "no memory to decode tokens") : 0;
}

int decode_push(struct decode_state *x, const char *token, size_t n, struct strbuf *out,
                clm_error *err)
{
    int rc;

    x->out = out;
    x->err = err;
    rc = stage_push(x, 0, token, n);
    x->at_rest = is_at_rest(x);
    return rc ? -1 : check_memory(x);
}

static void reset(struct decode_state *x)
{
    for (size_t i = 0; i < x->d->n_stages; i++) {
        struct stage_state *st = &x->stages[i];

        strbuf_clear(&st->held);
        st->count = 0;
        st->started = st->broken = false;
        st->held.failed = st->text.failed = st->other.failed = false;
    }
    x->at_rest = is_at_rest(x);
}

static void put_at_rest(struct decode_state *x)
{
    reset(x);
    for (size_t i = 0; i < x->d->n_stages; i++)
        x->stages[i].started = has_beginning(&x->d->stages[i]);
}

int decode_alone(struct decode_state *x, const char *token, size_t n, struct strbuf *out,
                 enum effect_kind *kind, clm_error *err)
{
    const struct decoder *d = x->d;
    const struct decode_stage *bytes =
        d->bytes_stage < d->n_stages ? &d->stages[d->bytes_stage] : NULL;
    size_t begin = out->size;
    int byte;

    if (!x->at_rest)
        put_at_rest(x);
    x->n_stages = d->bytes_stage;
    if (decode_push(x, token, n, out, err))
        return -1;
    n = out->size - begin;
    *kind = EFFECT_TEXT;
    if (!bytes && !x->at_rest) {
        out->size = begin;
        *kind = EFFECT_OTHER;
    } else if (bytes && bytes->kind == DECODE_LOSSY) {
        *kind = n && utf8_valid(out->data + begin, n) ? EFFECT_TEXT : EFFECT_BYTES;
    } else if (bytes && n && (byte = decode_byte_token(out->data + begin, n)) >= 0) {
        out->data[begin] = (char)byte;
        out->size = begin + 1;
        *kind = EFFECT_BYTES;
    }
    return 0;
}

int decode_finish(struct decode_state *x, struct strbuf *out, clm_error *err)
{
    int rc = 0;

    x->out = out;
    x->err = err;
    for (size_t i = 0; i < x->d->n_stages && !rc; i++)
        rc = finish_stage(x, i);
    rc = rc ? rc : check_memory(x);
    reset(x);
    return rc;
}
