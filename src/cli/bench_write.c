/* cli/bench_write.c: rows of clm bench: a table for people, and each value by its name. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"
#include "cli/bench.h"
#include "cli/output.h"

const char *const bench_formats[] = {"table", "csv", "json", "jsonl", "markdown", NULL};

static double median(const struct bench_row *r)
{
    return r->n % 2 ? r->speeds[r->n / 2] : (r->speeds[r->n / 2 - 1] + r->speeds[r->n / 2]) / 2;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static double deviation(const struct bench_row *r)
{
    double mean = 0, squares = 0;

    for (int i = 0; i < r->n; i++)
        mean += r->speeds[i] / r->n;
    for (int i = 0; i < r->n; i++)
        squares += (r->speeds[i] - mean) * (r->speeds[i] - mean);
    return r->n > 1 ? sqrt(squares / (r->n - 1)) : 0;
}

/* The part of a limit that was used; 0 where the limit is not known. */
static double fraction(double used, double limit)
{
    return limit > 0 ? used / limit : 0;
}

struct fractions {
    double read, f32, int8, bf16;
};

static struct fractions fractions_of(const struct bench_setup *s, const struct bench_row *r)
{
    return (struct fractions){
        fraction(median(r) * r->bytes, r->read),
        fraction(median(r) * r->flops, s->limits.f32_flops_per_second),
        fraction(median(r) * r->flops, s->limits.int8_ops_per_second),
        fraction(median(r) * r->flops, s->limits.bf16_flops_per_second),
    };
}

static const char *device_name(const struct bench_setup *s)
{
    return s->session->devices.dev->ops->name;
}

static int threads_of(const struct bench_setup *s)
{
    const struct model_devices *d = &s->session->devices;
    const device *cpu = d->dev->ops->reads_host ? d->dev : d->rest;

    return cpu ? device_cpu_threads(cpu) : 0;
}

static const char *test_name(const struct bench_test *t)
{
    static const char *const names[] = {"prompt", "generation", "both", "texts"};

    return names[t->kind];
}

static const char *test_title(const struct bench_test *t, char *out, size_t size)
{
    if (t->kind != BENCH_TEXTS)
        return test_name(t);
    snprintf(out, size, "%d texts", t->texts);
    return out;
}

static const char *test_tokens(const struct bench_test *t, char *out, size_t size)
{
    if (t->kind == BENCH_BOTH)
        snprintf(out, size, "%d+%d", t->prompt, t->generate);
    else
        snprintf(out, size, "%d", t->kind == BENCH_PROMPT ? t->prompt : t->generate);
    return out;
}

/* The tokens before those that are timed. */
static int tokens_before(const struct bench_test *t)
{
    return t->depth + (t->kind == BENCH_TEXTS ? t->prompt : 0);
}

/* --- values by name ----------------------------------------------------------------------------
 */

struct value {
    const char *name, *text; /* text NULL: the number or word in plain */
    char plain[32];
};

struct values {
    struct value list[40];
    int n;
};

static void add_text(struct values *v, const char *name, const char *text)
{
    v->list[v->n++] = (struct value){.name = name, .text = text};
}

static void add_count(struct values *v, const char *name, double number)
{
    struct value *next = &v->list[v->n++];

    *next = (struct value){.name = name};
    snprintf(next->plain, sizeof next->plain, "%.0f", number);
}

static void add_real(struct values *v, const char *name, double number)
{
    struct value *next = &v->list[v->n++];

    *next = (struct value){.name = name};
    snprintf(next->plain, sizeof next->plain, "%.6g", number);
}

static void add_bool(struct values *v, const char *name, bool value)
{
    struct value *next = &v->list[v->n++];

    *next = (struct value){.name = name};
    snprintf(next->plain, sizeof next->plain, "%s", value ? "true" : "false");
}

static void add_setup(struct values *v, const struct bench_setup *s, const char *isa)
{
    const struct model *m = s->session->model;

    add_text(v, "model", s->model);
    add_count(v, "bits", s->bits);
    add_count(v, "group_size", s->group_size);
    add_count(v, "layers", m->spec->n_layers);
    add_count(v, "weight_bytes", (double)m->weight_bytes);
    add_count(v, "activation_bytes", (double)engine_activation_peak(s->session->engine));
    add_text(v, "device", device_name(s));
    add_text(v, "isa", isa);
    add_count(v, "threads", threads_of(s));
    add_bool(v, "exact", s->exact);
    add_text(v, "cache_type", s->cache_type);
    add_count(v, "kv_bits", s->kv_bits);
    add_count(v, "prefill_step_size", engine_max_rows(s->session->engine));
}

static void add_row(struct values *v, const struct bench_setup *s, const struct bench_row *r)
{
    struct fractions used = fractions_of(s, r);
    const struct bench_test *t = &r->test;

    add_text(v, "test", test_name(t));
    add_count(v, "prompt", t->prompt);
    add_count(v, "generate", t->generate);
    add_count(v, "depth", t->depth);
    add_count(v, "texts", t->texts);
    add_count(v, "repetitions", r->n);
    add_real(v, "tokens_per_second", median(r));
    add_real(v, "deviation", deviation(r));
    add_count(v, "bytes_per_token", r->bytes);
    add_count(v, "flops_per_token", r->flops);
    add_real(v, "read_bytes_per_second", r->read);
    add_real(v, "best_read_bytes_per_second", larger(r->read, s->limits.read_bytes_per_second));
    add_real(v, "f32_flops_per_second", s->limits.f32_flops_per_second);
    add_real(v, "int8_ops_per_second", s->limits.int8_ops_per_second);
    add_real(v, "bf16_flops_per_second", s->limits.bf16_flops_per_second);
    add_real(v, "read_fraction", used.read);
    add_real(v, "f32_fraction", used.f32);
    add_real(v, "int8_fraction", used.int8);
    add_real(v, "bf16_fraction", used.bf16);
}

static void write_json(struct strbuf *out, const struct values *v, const struct bench_row *r)
{
    for (int i = 0; i < v->n; i++) {
        strbuf_addf(out, "%s\"%s\": ", i ? ", " : "{", v->list[i].name);
        if (v->list[i].text)
            strbuf_add_json(out, v->list[i].text, strlen(v->list[i].text));
        else
            strbuf_add_str(out, v->list[i].plain);
    }
    strbuf_add_str(out, ", \"samples\": [");
    for (int i = 0; i < r->n; i++)
        strbuf_addf(out, "%s%.6g", i ? ", " : "", r->speeds[i]);
    strbuf_add_str(out, "]}");
}

/* RFC 4180, with a quote doubled within quotes. */
static void write_quoted(struct strbuf *out, const char *text)
{
    strbuf_add_char(out, '"');
    for (; *text; text++) {
        if (*text == '"')
            strbuf_add_char(out, '"');
        strbuf_add_char(out, *text);
    }
    strbuf_add_char(out, '"');
}

static void write_csv(struct strbuf *out, const struct values *v, bool names)
{
    for (int i = 0; i < v->n; i++) {
        if (i)
            strbuf_add_char(out, ',');
        if (names)
            strbuf_add_str(out, v->list[i].name);
        else if (v->list[i].text)
            write_quoted(out, v->list[i].text);
        else
            strbuf_add_str(out, v->list[i].plain);
    }
    strbuf_add_char(out, '\n');
}

/* --- for people --------------------------------------------------------------------------------
 */

/* "70%", or "-" where the limit is not known. */
static const char *percent(char out[16], double part, double limit)
{
    snprintf(out, 16, limit > 0 ? "%.0f%%" : "-", 100 * part);
    return out;
}

/* What keys and values are kept as. */
static const char *cache_name(const struct bench_setup *s, char *out, size_t size)
{
    if (!s->kv_bits)
        return s->cache_type;
    snprintf(out, size, "%d bits", s->kv_bits);
    return out;
}

static void write_heading(struct strbuf *out, const struct bench_setup *s, const char *isa)
{
    char cache[32];

    strbuf_addf(out, "%s, %d layers", s->model, s->session->model->spec->n_layers);
    if (s->bits == 16)
        strbuf_add_str(out, ", bf16");
    else if (s->bits)
        strbuf_addf(out, ", %d bits in groups of %d", s->bits, s->group_size);
    strbuf_addf(out, ", %.3f GB of weights%s", (double)s->session->model->weight_bytes / 1e9,
                s->exact ? ", exact" : "");
    strbuf_addf(out, "\n%s (%s)", device_name(s), isa);
    if (s->limits.read_bytes_per_second > 0)
        strbuf_addf(out, ": reads up to %.1f GB/s, computes %.0f GFLOP/s in f32",
                    s->limits.read_bytes_per_second / 1e9, s->limits.f32_flops_per_second / 1e9);
    if (s->limits.int8_ops_per_second > 0)
        strbuf_addf(out, ", %.0f Gop/s in int8", s->limits.int8_ops_per_second / 1e9);
    if (s->limits.bf16_flops_per_second > 0)
        strbuf_addf(out, ", %.0f GFLOP/s in bf16", s->limits.bf16_flops_per_second / 1e9);
    strbuf_addf(out, "\n%d repetition%s, prompts in steps of %d, cache: %s\n\n", s->repetitions,
                s->repetitions == 1 ? "" : "s", engine_max_rows(s->session->engine),
                cache_name(s, cache, sizeof cache));
    strbuf_addf(out, "%-10s %9s %7s  %-24s %9s %7s %7s %7s %7s\n", "test", "tokens", "depth",
                "  tokens/s (median)", "MB/token", "read", "f32", "int8", "bf16");
}

static void write_line(struct strbuf *out, const struct bench_setup *s, const struct bench_row *r)
{
    char title[32], tokens[32], read[16], f32[16], int8[16], bf16[16];
    struct fractions used = fractions_of(s, r);

    strbuf_addf(out, "%-10s %9s %7d  %10.2f +- %-10.2f %9.2f %7s %7s %7s %7s\n",
                test_title(&r->test, title, sizeof title),
                test_tokens(&r->test, tokens, sizeof tokens), tokens_before(&r->test), median(r),
                deviation(r), r->bytes / 1e6, percent(read, used.read, r->read),
                percent(f32, used.f32, s->limits.f32_flops_per_second),
                percent(int8, used.int8, s->limits.int8_ops_per_second),
                percent(bf16, used.bf16, s->limits.bf16_flops_per_second));
}

static void write_markdown(struct strbuf *out, const struct bench_setup *s,
                           const struct bench_row *r)
{
    char bits[16] = "", cache[32], title[32], tokens[32], read[16], f32[16], int8[16], bf16[16];
    struct fractions used = fractions_of(s, r);
    const char *slash = strrchr(s->model, '/');

    if (s->bits)
        snprintf(bits, sizeof bits, "%d", s->bits);
    strbuf_addf(out, "| %s | %s | %.3f | %s | %d | %s | %d | ", slash ? slash + 1 : s->model, bits,
                (double)s->session->model->weight_bytes / 1e9, device_name(s), threads_of(s),
                cache_name(s, cache, sizeof cache), engine_max_rows(s->session->engine));
    strbuf_addf(out, "%s | %s | %d | %.2f +- %.2f | %.2f | %s | %s | %s | %s |\n",
                test_title(&r->test, title, sizeof title),
                test_tokens(&r->test, tokens, sizeof tokens), tokens_before(&r->test), median(r),
                deviation(r), r->bytes / 1e6, percent(read, used.read, r->read),
                percent(f32, used.f32, s->limits.f32_flops_per_second),
                percent(int8, used.int8, s->limits.int8_ops_per_second),
                percent(bf16, used.bf16, s->limits.bf16_flops_per_second));
}

static const char markdown_head[] =
    "| model | bits | GB | device | threads | cache | step | test | tokens | depth | tokens/s | "
    "MB/token | read | f32 | int8 | bf16 |\n"
    "| --- | --: | --: | --- | --: | --- | --: | --- | --: | --: | --: | --: | --: | --: | --: | "
    "--: "
    "|\n";

/* --- all forms ---------------------------------------------------------------------------------
 */

static void write_row(struct strbuf *out, struct bench_writer *w, const struct bench_setup *s,
                      const struct bench_row *r, const char *isa)
{
    struct values v = {0};

    add_setup(&v, s, isa);
    add_row(&v, s, r);
    switch (w->format) {
    case BENCH_TABLE:
        write_line(out, s, r);
        break;
    case BENCH_MARKDOWN:
        strbuf_add_str(out, w->begun ? "" : markdown_head);
        write_markdown(out, s, r);
        break;
    case BENCH_CSV:
        if (!w->begun)
            write_csv(out, &v, true);
        write_csv(out, &v, false);
        break;
    case BENCH_JSON:
        strbuf_add_str(out, w->begun ? ",\n" : "[");
        write_json(out, &v, r);
        break;
    case BENCH_JSONL:
        write_json(out, &v, r);
        strbuf_add_char(out, '\n');
        break;
    }
    w->begun = true;
}

int bench_write(struct bench_writer *w, const struct bench_setup *setup,
                const struct bench_row *rows, int n, clm_error *err)
{
    struct strbuf out = {0};
    device *d = setup->session->devices.dev;
    char isa[100];
    int rc;

    d->ops->describe(d, isa, sizeof isa);
    if (w->format == BENCH_TABLE && n > 0) {
        strbuf_add_str(&out, w->begun ? "\n" : "");
        write_heading(&out, setup, isa);
    }
    for (int i = 0; i < n; i++)
        write_row(&out, w, setup, &rows[i], isa);
    rc = output_buffer(&out, err);
    strbuf_release(&out);
    return rc;
}

int bench_write_end(struct bench_writer *w, clm_error *err)
{
    return w->format == BENCH_JSON && w->begun ? output_text("]\n", 2, err) : 0;
}
