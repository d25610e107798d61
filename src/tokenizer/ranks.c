/* tokenizer/ranks.c: reading tiktoken's ranks, and finding the merges that they stand for. */
#include "tokenizer/ranks.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tokenizer/base64.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/vocab.h"

#define MAX_TOKEN 1024 /* bytes */

/* One line; false where it is none. *rest is set behind it. */
struct line {
    unsigned char bytes[MAX_TOKEN];
    size_t n;
    int64_t rank;
};

static bool read_line(const char **text, const char *end, struct line *line)
{
    const char *s = *text, *stop = memchr(s, '\n', (size_t)(end - s)), *space;
    ptrdiff_t n;

    *text = stop ? stop + 1 : end;
    stop = stop ? stop : end;
    if (stop > s && stop[-1] == '\r')
        stop--;
    space = memchr(s, ' ', (size_t)(stop - s));
    if (!space || space == s || (size_t)(space - s) > MAX_TOKEN / 3 * 4)
        return false;
    n = base64_read(s, (size_t)(space - s), line->bytes);
    line->n = n > 0 ? (size_t)n : 0;
    line->rank = 0;
    s = space + 1;
    if (n <= 0 || s == stop || stop - s > 9)
        return false;
    for (; s < stop; s++) {
        if (*s < '0' || *s > '9')
            return false;
        line->rank = line->rank * 10 + (*s - '0');
    }
    return true;
}

bool ranks_recognise(const char *text, size_t n)
{
    struct line line;
    const char *end = text + n;

    return n && read_line(&text, end, &line);
}

size_t ranks_count(const char *text, size_t n)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += text[i] == '\n';
    return count + (n && text[n - 1] != '\n');
}

static int read_all(struct vocab *vocab, const char *text, size_t n, const char *name,
                    clm_error *err)
{
    struct line line;

    if (vocab_init(vocab, ranks_count(text, n), n, name, err))
        return -1;
    for (const char *at = text, *end = text + n; at < end;) {
        size_t before = vocab->n_entries;

        if (*at == '\n') {
            at++;
            continue;
        }
        if (!read_line(&at, end, &line))
            return fail(err, CLM_ERR_FORMAT, "%s: line %zu is not a token in base64 and its rank",
                        name, before + 1);
        if (vocab_add(vocab, (const char *)line.bytes, line.n, line.rank, err))
            return -1;
        if (vocab->n_entries == before)
            return fail(err, CLM_ERR_FORMAT, "%s: the token of rank %lld is there twice", name,
                        (long long)line.rank);
    }
    return 0;
}

struct cut {
    int32_t left, right;
    size_t at;
};

static int by_ranks(const void *a, const void *b)
{
    const struct cut *x = a, *y = b;

    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

static void write_token(struct strbuf *out, struct strbuf *mapped, const char *s, size_t n)
{
    strbuf_clear(mapped);
    byte_level_write(mapped, s, n);
    strbuf_add_json(out, mapped->data ? mapped->data : "", mapped->size);
    out->failed |= mapped->failed;
}

/* All ways to make one token of two. */
static void write_cuts(const struct vocab *vocab, const char *s, size_t n, bool *first,
                       struct strbuf *out, struct strbuf *mapped)
{
    struct cut cuts[MAX_TOKEN];
    size_t count = 0;

    for (size_t i = 1; i < n; i++) {
        struct cut cut = {vocab_find(vocab, s, i), vocab_find(vocab, s + i, n - i), i};

        if (cut.left >= 0 && cut.right >= 0)
            cuts[count++] = cut;
    }
    if (count)
        qsort(cuts, count, sizeof *cuts, by_ranks);
    for (size_t i = 0; i < count; i++) {
        strbuf_add_str(out, *first ? "[" : ",[");
        write_token(out, mapped, s, cuts[i].at);
        strbuf_add_char(out, ',');
        write_token(out, mapped, s + cuts[i].at, n - cuts[i].at);
        strbuf_add_char(out, ']');
        *first = false;
    }
}

static void write_model(const struct vocab *vocab, struct strbuf *out)
{
    struct strbuf mapped = {0};
    bool first = true;

    strbuf_add_str(out, "{\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{");
    for (size_t id = 0; id < vocab->n_ids; id++) {
        size_t n;
        const char *s = vocab_text(vocab, (int32_t)id, &n);

        if (!s)
            continue;
        strbuf_add_str(out, first ? "" : ",");
        write_token(out, &mapped, s, n);
        strbuf_addf(out, ":%zu", id);
        first = false;
    }
    strbuf_add_str(out, "},\"merges\":[");
    first = true;
    for (size_t id = 0; id < vocab->n_ids; id++) {
        size_t n;
        const char *s = vocab_text(vocab, (int32_t)id, &n);

        if (s)
            write_cuts(vocab, s, n, &first, out, &mapped);
    }
    strbuf_add_str(out, "]}");
    strbuf_release(&mapped);
}

int ranks_write_model(const char *text, size_t n, const char *name, struct strbuf *out,
                      clm_error *err)
{
    struct vocab vocab = {0};
    int rc = read_all(&vocab, text, n, name, err);

    if (!rc)
        write_model(&vocab, out);
    if (!rc && out->failed)
        rc = fail(err, CLM_ERR_NOMEM, "%s: no memory for %zu tokens", name, vocab.n_entries);
    vocab_release(&vocab);
    return rc;
}
