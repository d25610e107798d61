#include "cli/chat_file.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/prompt_cache.h"
#include "format/json_write.h"

static int cache_path(char out[4096], const char *path, clm_error *err)
{
    int n = snprintf(out, 4096, "%s.safetensors", path);

    return n < 4096 ? 0 : fail(err, CLM_ERR_ARG, "%.100s...: the name is too long", path);
}

/* Saving */

static int write_text(const char *path, const struct strbuf *text, clm_error *err)
{
    file_writer *w;

    if (text->failed)
        return fail(err, CLM_ERR_NOMEM, "no memory for the conversation");
    w = file_writer_open(path, err);
    if (!w)
        return -1;
    if (file_writer_write(w, text->data, text->size, err)) {
        file_writer_abort(w);
        return -1;
    }
    return file_writer_commit(w, err);
}

static int write_conversation(const struct chat *c, const char *path, clm_error *err)
{
    struct strbuf text = {0};
    int rc;

    strbuf_add_str(&text, "{");
    if (c->system.size) {
        strbuf_add_str(&text, "\"system\": ");
        strbuf_add_json(&text, c->system.data, c->system.size);
        strbuf_add_str(&text, ", ");
    }
    strbuf_add_str(&text, "\"messages\": [");
    strbuf_add(&text, c->messages.data ? c->messages.data : "", c->messages.size);
    strbuf_add_str(&text, "]}\n");
    text.failed = text.failed || c->messages.failed || c->system.failed;
    rc = write_text(path, &text, err);
    strbuf_release(&text);
    return rc;
}

int chat_save(const struct chat *c, const char *path, bool cache, const char *model, clm_error *err)
{
    struct text_identity identity;
    struct cache_origin origin;
    char name[4096];

    if (chat_open_calls(c))
        return fail(err, CLM_ERR_ARG, "a call waits for its result: give it first");
    if (write_conversation(c, path, err))
        return -1;
    if (!cache || chat_length(c) == 0)
        return 0;
    origin = prompt_cache_origin(&identity, c->session, &c->format, model);
    return cache_path(name, path, err)
               ? -1
               : cache_file_save(c->session->engine, c->seq, name, &origin, err);
}

/* Loading */

/* The messages as a conversation keeps them, and where the last begins if it is a reply. */
static int read_messages(struct strbuf *out, size_t *asked, const json *messages, const char *path,
                         clm_error *err)
{
    if (json_kind(messages) != JSON_ARRAY)
        return fail(err, CLM_ERR_FORMAT, "%s holds no conversation", path);
    for (size_t i = 0; i < json_size(messages); i++) {
        const json *message = json_at(messages, i);
        const char *role = json_string(json_get(message, "role"), NULL);

        if (!role)
            return fail(err, CLM_ERR_FORMAT, "%s: message %zu has no role", path, i);
        *asked = strcmp(role, "assistant") == 0 ? out->size : 0;
        strbuf_add_str(out, i ? ", " : "");
        json_write(out, message);
    }
    return out->failed ? fail(err, CLM_ERR_NOMEM, "no memory for the conversation") : 0;
}

static int read_conversation(struct chat *c, const char *path, clm_error *err)
{
    json *file = json_parse_file(path, err);
    struct strbuf messages = {0};
    const char *system;
    size_t size, asked = 0;
    int rc;

    if (!file)
        return -1;
    rc = read_messages(&messages, &asked, json_get(file, "messages"), path, err);
    if (rc) {
        strbuf_release(&messages);
    } else {
        chat_clear(c);
        strbuf_release(&c->messages);
        c->messages = messages;
        c->asked = asked;
        strbuf_clear(&c->system);
        system = json_string(json_get(file, "system"), &size);
        if (system)
            strbuf_add(&c->system, system, size);
    }
    json_free(file);
    return rc;
}

/* The conversation goes on from what the file holds, if it tells its tokens. */
static int take_cache(struct chat *c, const char *path, clm_error *err)
{
    struct text_identity identity;
    struct cache_origin origin = prompt_cache_origin(&identity, c->session, &c->format, NULL);
    kv_seq *seq = cache_file_load(c->session->engine, path, &origin, err);

    if (!seq)
        return -1;
    kv_seq_close(c->seq);
    c->seq = seq;
    return prefix_index_insert(c->prefixes, seq, err);
}

int chat_load(struct chat *c, const char *path, bool cache, clm_error *err)
{
    char name[4096];

    if (read_conversation(c, path, err))
        return -1;
    if (!cache || cache_path(name, path, err))
        return cache ? -1 : 0;
    return file_exists(name) ? take_cache(c, name, err) : 0;
}
