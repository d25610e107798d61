#include "generate/messages.h"

#include <string.h>

#include "format/json_write.h"

static void add_key(struct strbuf *out, const char *key, size_t size)
{
    strbuf_add_str(out, out->size && out->data[out->size - 1] != '{' ? ", " : "");
    strbuf_add_json(out, key, size);
    strbuf_add_str(out, ": ");
}

void messages_add_arguments(struct strbuf *out, const char *text, size_t size)
{
    json *value = json_parse(text, size, "arguments", NULL);

    if (value)
        strbuf_add(out, text, size);
    else
        strbuf_add_json(out, text, size);
    json_free(value);
}

/* {"type": "function", "function": {"name": ..., "arguments": ...}}; what is not so stays. */
static void add_function(struct strbuf *out, const json *function)
{
    strbuf_add_char(out, '{');
    for (struct json_iter it = json_first(function); json_next(&it);) {
        add_key(out, it.key, it.key_size);
        if (it.kind == JSON_STRING && !strcmp(it.key, "arguments"))
            messages_add_arguments(out, it.text, it.size);
        else
            json_write(out, it.value);
    }
    strbuf_add_char(out, '}');
}

static void add_call(struct strbuf *out, const json *call)
{
    if (json_kind(call) != JSON_OBJECT) {
        json_write(out, call);
        return;
    }
    strbuf_add_char(out, '{');
    for (struct json_iter it = json_first(call); json_next(&it);) {
        add_key(out, it.key, it.key_size);
        if (it.kind == JSON_OBJECT && !strcmp(it.key, "function"))
            add_function(out, it.value);
        else
            json_write(out, it.value);
    }
    strbuf_add_char(out, '}');
}

static void add_calls(struct strbuf *out, const json *calls)
{
    strbuf_add_char(out, '[');
    for (size_t i = 0; i < json_size(calls); i++) {
        strbuf_add_str(out, i ? ", " : "");
        add_call(out, json_at(calls, i));
    }
    strbuf_add_char(out, ']');
}

static int join_parts(struct strbuf *text, const json *parts, size_t message, clm_error *err)
{
    for (size_t i = 0; i < json_size(parts); i++) {
        const json *part = json_at(parts, i);
        const char *type = json_string(json_get(part, "type"), NULL);
        size_t size;
        const char *words = json_string(json_get(part, "text"), &size);

        if (type && strcmp(type, "text") != 0)
            return fail(err, CLM_ERR_UNSUPPORTED,
                        "the content of message %zu has a part of type \"%.40s\"; only text is "
                        "supported",
                        message + 1, type);
        if (!type || !words)
            return fail(err, CLM_ERR_ARG,
                        "part %zu of the content of message %zu must be {\"type\": \"text\", "
                        "\"text\": ...}",
                        i + 1, message + 1);
        strbuf_add(text, words, size);
    }
    return 0;
}

static int add_content(struct strbuf *out, const json *content, size_t message, clm_error *err)
{
    struct strbuf text = {0};
    int rc = 0;

    if (json_kind(content) == JSON_ARRAY) {
        rc = join_parts(&text, content, message, err);
        strbuf_add_json(out, text.data ? text.data : "", text.size);
        out->failed |= text.failed;
    } else if (json_kind(content) == JSON_NULL) {
        strbuf_add_str(out, "\"\"");
    } else {
        json_write(out, content);
    }
    strbuf_release(&text);
    return rc;
}

static int add_message(struct strbuf *out, const json *message, size_t i, clm_error *err)
{
    if (json_kind(message) != JSON_OBJECT)
        return fail(err, CLM_ERR_ARG, "message %zu must be an object", i + 1);
    strbuf_add_char(out, '{');
    for (struct json_iter it = json_first(message); json_next(&it);) {
        add_key(out, it.key, it.key_size);
        if (!strcmp(it.key, "content")) {
            if (add_content(out, it.value, i, err))
                return -1;
        } else if (it.kind == JSON_ARRAY && !strcmp(it.key, "tool_calls")) {
            add_calls(out, it.value);
        } else {
            json_write(out, it.value);
        }
    }
    if (!json_get(message, "content")) {
        add_key(out, "content", strlen("content"));
        strbuf_add_str(out, "\"\"");
    }
    strbuf_add_char(out, '}');
    return 0;
}

json *messages_for_template(const json *messages, clm_error *err)
{
    struct strbuf out = {0};
    json *made = NULL;
    int rc = 0;

    strbuf_add_char(&out, '[');
    for (size_t i = 0; rc == 0 && i < json_size(messages); i++) {
        strbuf_add_str(&out, i ? ", " : "");
        rc = add_message(&out, json_at(messages, i), i, err);
    }
    strbuf_add_char(&out, ']');
    if (rc == 0 && out.failed)
        fail(err, CLM_ERR_NOMEM, "no memory for the messages");
    else if (rc == 0)
        made = json_parse(out.data, out.size, "messages", err);
    strbuf_release(&out);
    return made;
}
