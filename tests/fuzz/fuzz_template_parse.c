/* Any bytes as a template, rendered with a fixed input: no crash, no leak, within the limits. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "template/chat.h"

static const char context[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"},"
    "{\"role\": \"user\", \"content\": \" Hello \\u00e9\\u65e5 <b> \"},"
    "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"c1\", \"function\": "
    "{\"name\": \"f\", \"arguments\": {\"a\": [1, 2.5, true, null, \"x\"]}}}]},"
    "{\"role\": \"tool\", \"content\": [{\"type\": \"text\", \"text\": \"part\"}]}],"
    "\"items\": [3, 1, 2, 1], \"words\": [\"b\", \"A\", \"c\"], \"n\": 7, \"f\": 2.5, \"z\": 0,"
    "\"t\": \"Hello World\", \"u\": \"\\u00e9\\u65e5\\ud83d\\udc4d\", \"yes\": true, \"none\": "
    "null,"
    "\"d\": {\"b\": 2, \"a\": 1}, \"people\": [{\"name\": \"Ann\", \"age\": 30}, {\"name\": "
    "\"bob\"}],"
    "\"tree\": [{\"v\": 1, \"c\": [{\"v\": 2, \"c\": []}]}], \"add_generation_prompt\": true,"
    "\"tools\": null}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct tm now = {.tm_year = 125, .tm_mon = 2, .tm_mday = 9, .tm_hour = 8};
    static const struct template_options options = {
        .now = &now,
        .limits = {.output_bytes = 1 << 20, .memory_bytes = 16 << 20, .steps = 200000},
    };
    static struct template_variable variables[32];
    static json *root;
    static size_t n;
    struct strbuf out = {0};
    clm_error err = {0};
    template *t;

    if (!root) { /* once; kept for the life of the program */
        struct json_iter it;

        root = json_parse(context, strlen(context), "context", &err);
        if (!root)
            abort();
        it = json_first(root);
        while (n < 32 && json_next(&it))
            variables[n++] = (struct template_variable){it.key, it.value};
    }
    t = template_parse((const char *)data, size, "fuzz", &err);
    if (!t != (err.code != 0))
        abort();
    if (t && template_render(t, variables, n, &options, &out, &err) != -(err.code != 0))
        abort();
    if (err.code && out.size)
        abort();
    template_close(t);
    strbuf_release(&out);
    return 0;
}
