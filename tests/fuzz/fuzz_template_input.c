/* Any JSON object as the input of templates that reach all over it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "template/chat.h"

/* A chat template with tools. */
static const char chat_text[] =
    "{%- if tools %}{% for t in tools %}{{ t | tojson(indent=2) }}\n{% endfor %}{% endif %}"
    "{%- for m in messages %}<|{{ m.role }}|>{% if m.content is string %}{{ m.content | trim }}"
    "{% else %}{% for p in m['content'] %}{{ p.text if p.type == 'text' else p | tojson }}"
    "{% endfor %}{% endif %}{% for c in m.tool_calls %}{{ c.function.name }}("
    "{% for k, v in c.function.arguments | items %}{{ k }}={{ v | tojson }}{{ ', ' if not "
    "loop.last }}"
    "{% endfor %}){% endfor %}{% if not loop.last and loop.nextitem.role == m.role %}!{% endif %}"
    "{% endfor %}{{ 'go' if add_generation_prompt }}";

/* Whatever it is: shown, compared, sorted. */
static const char show_text[] =
    "{% macro show(v, depth=0) %}{% if v is mapping %}{% for k, x in v.items() %}{{ k }}:"
    "{{ show(x, depth + 1) }}{% endfor %}{% elif v is iterable and v is not string %}"
    "{% for x in v %}-{{ show(x, depth + 1) }}{% endfor %}{% else %}{{ v }}{% endif %}{% endmacro "
    "%}"
    "{{ show(messages) }}{{ messages }}{{ x == messages }}{{ x in [messages, y, z] }}"
    "{{ [x, y, z] | map('string') | map('upper') | sort | join('|') }}{{ {'a': x} == {'a': y} }}";

static const char *const texts[] = {
    chat_text,
    show_text,
    "{{ x + y }}",
    "{{ x * y }}",
    "{{ x % y }}",
    "{{ x ** y }}",
    "{{ x // y }}",
    "{{ x - y }}",
    "{{ x < y }}",
    "{{ x[y] }}",
    "{{ x[y:z] }}",
    "{{ x[::y] }}",
    "{{ x | round(y) }}",
    "{{ x | int(0, y) }}",
    "{{ x | indent(y, true) }}",
    "{{ x | truncate(y) }}",
    "{{ x.split(y) }}",
    "{{ x.rsplit(y, 1) }}",
    "{{ x.replace(y, z) }}",
    "{{ x.strip(y) }}",
    "{{ x.format(y, z=z) }}",
    "{{ x | format(y) }}",
    "{{ x | sort(attribute=y) }}",
    "{{ x | map(attribute=y) | list }}",
    "{{ x | selectattr(y) | list }}",
    "{{ x | groupby(y) }}",
    "{{ x | batch(y) | list }}",
    "{{ x | slice(y) | list }}",
    "{{ x | unique | list }}",
    "{{ x | dictsort }}",
    "{{ x | join(y) }}",
    "{{ x | sum }}",
    "{{ x | min }}{{ x | max }}",
    "{{ x | tojson(indent=y, sort_keys=true) }}",
    "{{ x | tojson(ensure_ascii=true) }}",
    "{{ x.title() }}{{ x.lower() }}{{ x.swapcase() }}",
    "{{ x | title }}{{ x | capitalize }}{{ x | wordcount }}{{ x | urlencode }}{{ x | striptags }}",
    "{{ x.find(y) }}{{ x.rfind(y) }}{{ x.count(y) }}{{ x.partition(y) }}",
    "{{ x | xmlattr }}",
    "{{ range(x, y, z) | list | length }}",
    "{{ dict(x, **y) }}",
    "{{ strftime_now(x) }}",
    "{{ x.zfill(y) }}{{ x.center(y, z) }}{{ x.expandtabs(y) }}",
    "{{ x.splitlines() }}{{ x | list }}",
    "{{ x | filesizeformat }}{{ x | float }}{{ x | abs }}",
    "{{ '%*.*f' % (x, y, z) }}",
    "{{ '{:{}}'.format(x, y) }}",
    "{{ raise_exception(x) }}",
    "{{ x is divisibleby y }}",
    "{% for a, b in x %}{{ loop.index }}{{ a }}{{ b }}{{ loop.changed(a) }}{% else %}E{% endfor %}",
    "{% for i in x recursive %}{{ i }}{{ loop(i) if i is iterable and i is not string }}{% endfor "
    "%}",
    "{% set ns = namespace(x) %}{{ ns }}{% set a, b = y %}{{ a }}{{ b }}",
};

#define N_TEMPLATES (sizeof texts / sizeof texts[0])

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct tm now = {.tm_year = 125, .tm_mon = 2, .tm_mday = 9, .tm_hour = 8};
    static const struct template_options options = {
        .now = &now,
        .limits = {.output_bytes = 1 << 20, .memory_bytes = 16 << 20, .steps = 100000},
    };
    static template *templates[N_TEMPLATES];
    struct template_variable variables[64];
    struct strbuf out = {0};
    clm_error err = {0};
    size_t n = 0;
    json *root;

    for (size_t i = 0; i < N_TEMPLATES && !templates[i]; i++)
        if (!(templates[i] = template_parse(texts[i], strlen(texts[i]), "fuzz", &err)))
            abort();
    root = json_parse((const char *)data, size, "input", &err);
    if (json_kind(root) == JSON_OBJECT) {
        struct chat_request request = {.messages = json_get(root, "messages"),
                                       .tools = json_get(root, "tools"),
                                       .continue_final_message = json_get(root, "go_on") != NULL,
                                       .variables = variables};
        struct json_iter it = json_first(root);

        while (n < 64 && json_next(&it))
            variables[n++] = (struct template_variable){it.key, it.value};
        request.n_variables = n;
        for (size_t i = 0; i < N_TEMPLATES; i++) {
            clm_error failed = {0};

            strbuf_clear(&out);
            if (template_render(templates[i], variables, n, &options, &out, &failed) !=
                -(failed.code != 0))
                abort();
        }
        strbuf_clear(&out);
        chat_render(templates[0], &request, &options, &out, NULL);
    }
    json_free(root);
    strbuf_release(&out);
    return 0;
}
