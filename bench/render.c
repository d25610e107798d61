/* Renders a conversation with a chat template again and again.
 *
 *     bench_render TEMPLATE.jinja CONVERSATION.json [times]
 *
 * The conversation is an object as clm render takes it. Shown are microseconds for parsing the
 * template, for parsing the conversation (the least), and for one rendering of it: the least and
 * the median. bench/render.py does the same with Jinja2, and compares.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "template/chat.h"

#define MAX_TIMES 100000
#define MAX_VARIABLES 64
#define DOCUMENTS 100 /* how often the conversation is parsed */

static double now(void)
{
    return 1e6 * clock_seconds();
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static int fail_with(const clm_error *err)
{
    fprintf(stderr, "bench_render: %s\n", err->message);
    return 1;
}

/* The document of the text; *least is the time of the fastest of many. */
static json *parse_document(const char *text, size_t size, const char *name, double *least,
                            clm_error *err)
{
    json *document = NULL;

    for (int i = 0; i < DOCUMENTS; i++) {
        double begin, taken;

        json_free(document);
        begin = now();
        document = json_parse(text, size, name, err);
        taken = now() - begin;
        if (!document)
            return NULL;
        *least = !i || taken < *least ? taken : *least;
    }
    return document;
}

/* What chat_render is given apart from the variables. */
static bool is_request_key(const char *key)
{
    return !strcmp(key, "messages") || !strcmp(key, "tools") ||
           !strcmp(key, "add_generation_prompt");
}

int main(int argc, char **argv)
{
    static double times[MAX_TIMES];
    struct template_variable variables[MAX_VARIABLES];
    long n = argc > 3 ? strtol(argv[3], NULL, 10) : 1000;
    struct strbuf out = {0};
    clm_error err = {0};
    size_t size, chat_size;
    char *text, *chat_text;
    double begin, parsing, document = 0;
    template *t;
    json *chat = NULL;

    if (argc < 3 || n < 1 || n > MAX_TIMES) {
        fprintf(stderr, "usage: bench_render TEMPLATE.jinja CONVERSATION.json [times]\n");
        return 2;
    }
    text = file_read(argv[1], (size_t)1 << 20, &size, &err);
    chat_text = file_read(argv[2], (size_t)1 << 24, &chat_size, &err);
    if (chat_text)
        chat = parse_document(chat_text, chat_size, argv[2], &document, &err);
    if (!text || !chat)
        return fail_with(&err);
    begin = now();
    t = template_parse(text, size, argv[1], &err);
    parsing = now() - begin;
    if (!t)
        return fail_with(&err);

    struct chat_request request = {
        .messages = json_get(chat, "messages"),
        .tools = json_get(chat, "tools"),
        .add_generation_prompt = json_bool(json_get(chat, "add_generation_prompt"), false),
        .variables = variables,
    };
    struct json_iter it = json_first(chat);

    while (request.n_variables < MAX_VARIABLES && json_next(&it))
        if (!is_request_key(it.key))
            variables[request.n_variables++] = (struct template_variable){it.key, it.value};
    for (long i = 0; i < n; i++) {
        strbuf_clear(&out);
        begin = now();
        if (chat_render(t, &request, NULL, &out, &err))
            return fail_with(&err);
        times[i] = now() - begin;
    }
    qsort(times, (size_t)n, sizeof times[0], by_value);
    printf("{\"parse_us\": %.1f, \"document_us\": %.1f, \"least_us\": %.1f, \"median_us\": %.1f, "
           "\"bytes\": %zu}\n",
           parsing, document, times[0], times[n / 2], out.size);
    strbuf_release(&out);
    template_close(t);
    json_free(chat);
    mem_free(chat_text);
    mem_free(text);
    return 0;
}
