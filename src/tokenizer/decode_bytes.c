/* tokenizer/decode_bytes.c: the stages of a decoder that make text of bytes. */
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/decode_state.h"

#define REPLACEMENT "\xEF\xBF\xBD"

/* Byte fallback */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The reference's number reader takes a sign too. */
int decode_byte_token(const char *s, size_t n)
{
    int high, low;

    if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>')
        return -1;
    high = s[3] == '+' ? 0 : hex_value(s[3]);
    low = hex_value(s[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static int push_replacements(struct decode_state *x, size_t i, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        if (stage_push(x, i + 1, REPLACEMENT, strlen(REPLACEMENT)))
            return -1;
    }
    return 0;
}

/* What is held of a run that is no text: each byte its own replacement. */
static int replace_held(struct decode_state *x, size_t i)
{
    struct stage_state *st = &x->stages[i];
    size_t n = st->held.size;

    strbuf_clear(&st->held);
    return push_replacements(x, i, n);
}

/* A run of bytes is text as a whole or not at all; once it cannot be, nothing is kept. */
static int add_byte(struct decode_state *x, size_t i, int byte)
{
    struct stage_state *st = &x->stages[i];
    size_t n, tail;

    if (st->broken)
        return push_replacements(x, i, 1);
    strbuf_add_char(&st->held, (char)byte);
    if (st->held.failed)
        return 0;
    st->started = true;
    /* Only the last few bytes can have become wrong: the rest was looked at before. */
    n = st->held.size - st->count;
    tail = utf8_incomplete_tail(st->held.data + st->count, n);
    if (utf8_valid(st->held.data + st->count, n - tail)) {
        st->count += n - tail;
        return 0;
    }
    st->broken = true;
    return replace_held(x, i);
}

static int end_run(struct decode_state *x, size_t i)
{
    struct stage_state *st = &x->stages[i];
    bool broken = st->broken, complete = st->count == st->held.size, started = st->started;

    st->broken = st->started = false;
    st->count = 0;
    if (broken || !started)
        return 0;
    return complete ? stage_push_held(x, i) : replace_held(x, i);
}

/* The one token there is can only be a byte while it is short. */
static int byte_fallback_fragment(struct decode_state *x, size_t i, const char *s, size_t n)
{
    struct stage_state *st = &x->stages[i];

    if (st->started)
        return stage_push(x, i + 1, s, n);
    strbuf_add(&st->held, s, n);
    if (st->held.size <= 6)
        return 0;
    st->started = true;
    return stage_push_held(x, i);
}

static int end_byte_fallback_fragments(struct decode_state *x, size_t i)
{
    struct stage_state *st = &x->stages[i];
    int byte = st->started || !st->held.size ? -1 : decode_byte_token(st->held.data, st->held.size);

    if (byte < 0)
        return st->held.size ? stage_push_held(x, i) : 0;
    st->held.data[0] = (char)byte;
    return byte < 0x80 ? stage_push(x, i + 1, st->held.data, 1) : push_replacements(x, i, 1);
}

int stage_byte_fallback(struct decode_state *x, size_t i, const char *s, size_t n)
{
    int byte;

    if (x->d->stages[i].fused)
        return byte_fallback_fragment(x, i, s, n);
    byte = decode_byte_token(s, n);
    if (byte >= 0)
        return add_byte(x, i, byte);
    return end_run(x, i) ? -1 : stage_push(x, i + 1, s, n);
}

int stage_byte_fallback_end(struct decode_state *x, size_t i)
{
    return x->d->stages[i].fused ? end_byte_fallback_fragments(x, i) : end_run(x, i);
}

/* Byte level: the bytes of a token, and the bytes of all as text. */

static int push_bytes(struct decode_state *x, size_t i, const char *s, size_t n)
{
    struct strbuf *bytes = &x->stages[i].text;
    ptrdiff_t size;

    strbuf_clear(bytes);
    strbuf_add(bytes, s, n); /* as many as it can be, to be written over */
    if (bytes->failed || !n)
        return 0;
    size = byte_level_read(s, n, bytes->data);
    return size < 0 ? stage_push(x, i + 1, s, n) : stage_push(x, i + 1, bytes->data, (size_t)size);
}

int stage_byte_level(struct decode_state *x, size_t i, const char *s, size_t n)
{
    if (!x->d->stages[i].fused)
        return push_bytes(x, i, s, n);
    strbuf_add(&x->stages[i].held, s, n);
    return 0;
}

int stage_byte_level_end(struct decode_state *x, size_t i)
{
    struct strbuf *held = &x->stages[i].held;
    int rc = held->size ? push_bytes(x, i, held->data, held->size) : 0;

    strbuf_clear(held);
    return rc;
}

/* Each longest invalid part as one U+FFFD. */
static void add_lossy(struct strbuf *out, const char *s, size_t n)
{
    for (size_t k = 0; k < n;) {
        size_t valid = utf8_valid_part(s + k, n - k);
        int32_t c;

        strbuf_add(out, s + k, valid);
        k += valid;
        if (k < n) {
            k += utf8_decode(s + k, n - k, &c);
            strbuf_add_str(out, REPLACEMENT);
        }
    }
}

static int push_lossy(struct decode_state *x, size_t i, const char *s, size_t n)
{
    struct strbuf *text = &x->stages[i].text;

    if (!n || utf8_valid(s, n))
        return n ? stage_push(x, i + 1, s, n) : 0;
    strbuf_clear(text);
    add_lossy(text, s, n);
    return stage_push_text(x, i, text);
}

/* Kept back is the beginning of a character. */
int stage_lossy(struct decode_state *x, size_t i, const char *s, size_t n)
{
    struct strbuf *held = &x->stages[i].held;
    char tail[UTF8_MAX];
    size_t n_tail;
    int rc;

    if (held->size) {
        strbuf_add(held, s, n);
        s = held->data;
        n = held->size;
    }
    n_tail = n ? utf8_incomplete_tail(s, n) : 0;
    memcpy(tail, s + n - n_tail, n_tail);
    rc = push_lossy(x, i, s, n - n_tail);
    held->size = 0;
    if (n_tail)
        strbuf_add(held, tail, n_tail);
    return rc;
}

int stage_lossy_end(struct decode_state *x, size_t i)
{
    struct strbuf *held = &x->stages[i].held;
    int rc = held->size ? push_lossy(x, i, held->data, held->size) : 0;

    strbuf_clear(held);
    return rc;
}

void decode_end_run(const struct decoder *d, struct strbuf *out, size_t begin)
{
    size_t n = out->size - begin;
    struct strbuf bytes = {0};

    if (!n || utf8_valid(out->data + begin, n))
        return;
    strbuf_add(&bytes, out->data + begin, n);
    out->failed |= bytes.failed;
    out->size = begin;
    if (d->stages[d->bytes_stage].kind == DECODE_LOSSY && !bytes.failed)
        add_lossy(out, bytes.data, n);
    for (size_t k = 0; d->stages[d->bytes_stage].kind == DECODE_BYTE_FALLBACK && k < n; k++)
        strbuf_add_str(out, REPLACEMENT);
    strbuf_release(&bytes);
}
