/* tokenizer/pattern.c: compiling patterns and walking their matches. */
#include "tokenizer/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/memory.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "tokenizer/onig.h"

/* A run of a million characters under (?:..)* needs this much; past it the search is an error. */
#define JIT_STACK_FIRST (32 * 1024)
#define JIT_STACK_MOST (64 * 1024 * 1024)
#define HEAP_LIMIT_KIB (256 * 1024)
#define MATCH_LIMIT 50000000u

struct regex {
    pcre2_code *code;
};

static void *regex_alloc(size_t size, void *ctx)
{
    (void)ctx;
    return mem_alloc(size);
}

static void regex_free(void *p, void *ctx)
{
    (void)ctx;
    mem_free(p);
}

static int compile(struct pattern *p, const char *s, size_t n, struct reader *r)
{
    pcre2_general_context *general = pcre2_general_context_create(regex_alloc, regex_free, NULL);
    pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
    size_t where = 0;
    int code = 0;

    p->regex = mem_zeroed(1, sizeof *p->regex);
    if (context && p->regex) {
        pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        p->regex->code = pcre2_compile(
            (PCRE2_SPTR)s, n, PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK | PCRE2_NEVER_BACKSLASH_C,
            &code, &where, context);
    }
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    if (p->regex && p->regex->code) {
        pcre2_jit_compile(p->regex->code, PCRE2_JIT_COMPLETE); /* without it the search is slower */
        return 0;
    }
    if (!code || code == PCRE2_ERROR_NOMEMORY || code == 121 /* heap failed while compiling */)
        return no_memory(r);
    return -code;
}

static int compile_onig(struct pattern *p, const char *s, size_t n, struct reader *r)
{
    struct strbuf translated = {0};
    int rc = onig_translate(s, n, &translated, r);

    if (!rc)
        rc = compile(p, translated.data ? translated.data : "", translated.size, r);
    if (rc < -1) {
        PCRE2_UCHAR message[128] = "";

        pcre2_get_error_message(-rc, message, sizeof message);
        rc = fail(r->err, CLM_ERR_UNSUPPORTED, "%s: %s: expression \"%.120s\": %s", r->name,
                  r->part, s, (const char *)message);
    }
    strbuf_release(&translated);
    return rc;
}

int pattern_open_string(struct pattern *p, const char *s, size_t n)
{
    *p = (struct pattern){.string = {s, n}};
    return 0;
}

int pattern_open_regex(struct pattern *p, const char *s, size_t n, bool use_scanner,
                       const uint8_t *table, struct reader *r)
{
    *p = (struct pattern){.table = table};
    if (use_scanner)
        p->fast = split_fast_find(s, n);
    if (p->fast)
        return 0;
    if (!utf8_valid(s, n))
        return fail(r->err, CLM_ERR_FORMAT, "%s: %s: an expression that is not UTF-8", r->name,
                    r->part);
    if (compile_onig(p, s, n, r)) {
        pattern_close(p);
        return -1;
    }
    return 0;
}

int pattern_open(struct pattern *p, const json *v, const uint8_t *table, struct reader *r)
{
    size_t n;
    const char *s = json_string(json_get(v, "String"), &n);
    struct span copy;

    *p = (struct pattern){0};
    if (s) {
        copy = span_copy(r, s, n);
        return copy.s ? pattern_open_string(p, copy.s, n) : -1;
    }
    s = json_string(json_get(v, "Regex"), &n);
    if (!s)
        return fail(r->err, CLM_ERR_FORMAT,
                    "%s: %s: a pattern is {\"String\": ..} or {\"Regex\": ..}", r->name, r->part);
    return pattern_open_regex(p, s, n, true, table, r);
}

void pattern_close(struct pattern *p)
{
    if (p->regex) {
        pcre2_code_free(p->regex->code);
        mem_free(p->regex);
    }
    *p = (struct pattern){0};
}

void matcher_release(struct matcher *m)
{
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    *m = (struct matcher){0};
}

static int matcher_prepare(struct matcher *m, clm_error *err)
{
    pcre2_general_context *general;

    if (m->context)
        return 0;
    general = pcre2_general_context_create(regex_alloc, regex_free, NULL);
    if (general) {
        m->data = pcre2_match_data_create(1, general);
        m->stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MOST, general);
        m->context = m->data ? pcre2_match_context_create(general) : NULL;
    }
    pcre2_general_context_free(general);
    if (!m->context) {
        matcher_release(m);
        return fail(err, CLM_ERR_NOMEM, "no memory to search with a regular expression");
    }
    pcre2_set_match_limit(m->context, MATCH_LIMIT);
    pcre2_set_heap_limit(m->context, HEAP_LIMIT_KIB);
    if (m->stack)
        pcre2_jit_stack_assign(m->context, NULL, m->stack);
    return 0;
}

struct search search_start(const struct pattern *p, struct matcher *m, const char *s, size_t n)
{
    return (struct search){.pattern = p, .matcher = m, .s = s, .n = n, .last_end = SIZE_MAX};
}

static int find_regex(struct search *x, clm_error *err)
{
    struct matcher *m = x->matcher;
    const PCRE2_SIZE *place;
    int rc;

    if (matcher_prepare(m, err))
        return -1;
    rc = pcre2_match(x->pattern->regex->code, (PCRE2_SPTR)x->s, x->n, x->position,
                     PCRE2_NO_UTF_CHECK, m->data, m->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0)
        return fail(err, rc == PCRE2_ERROR_NOMEMORY ? CLM_ERR_NOMEM : CLM_ERR_UNSUPPORTED,
                    "the tokenizer's regular expression gives up on this text (PCRE2 error %d)",
                    rc);
    place = pcre2_get_ovector_pointer(m->data);
    x->begin = place[0];
    x->end = place[1];
    return 1;
}

static int find_string(struct search *x)
{
    const struct span *string = &x->pattern->string;
    const char *found = string->n
                            ? memmem(x->s + x->position, x->n - x->position, string->s, string->n)
                            : x->s + x->position;

    if (!found)
        return 0;
    x->begin = (size_t)(found - x->s);
    x->end = x->begin + string->n;
    return 1;
}

/* An empty match right behind the last match is passed over by one character. */
int search_next(struct search *x, clm_error *err)
{
    const struct pattern *p = x->pattern;

    if (p->fast) {
        if (x->position >= x->n)
            return 0;
        x->begin = x->position;
        x->end = x->position = split_fast_next(p->fast, p->table, x->s, x->n, x->position);
        return 1;
    }
    while (x->position <= x->n) {
        int rc = p->regex ? find_regex(x, err) : find_string(x);
        int32_t c;

        if (rc <= 0)
            return rc;
        if (x->begin != x->end || x->end != x->last_end) {
            x->position = x->last_end = x->end;
            return 1;
        }
        x->position +=
            x->position < x->n ? utf8_decode(x->s + x->position, x->n - x->position, &c) : 1;
    }
    return 0;
}
