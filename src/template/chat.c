#include "template/chat.h"

#include "template/characters.h"
#include "template/render.h"

/* What marks the place in the last message after which the text is cut off. */
#define CONTINUE_TAG "CONTINUE_FINAL_MESSAGE_TAG "

static struct value text_key(const char *name)
{
    return value_cstring(name);
}

/* 1, 0, -1 */
static int field(struct render *r, const struct dict *d, const char *name, const struct value **out)
{
    struct value key = text_key(name);

    return dict_get_text(r, d, &key, hash_bytes(key.s, key.size), out);
}

/* {"thinking": reasoning, **message, "reasoning_content": reasoning} */
static int alias_reasoning(struct render *r, struct value *message)
{
    /* the first of these that is there and not None */
    static const struct value names[] = {{.kind = V_STRING, .size = 17, .s = "reasoning_content"},
                                         {.kind = V_STRING, .size = 8, .s = "thinking"},
                                         {.kind = V_STRING, .size = 9, .s = "reasoning"}};
    struct dict_entry *found[COUNT(names)] = {NULL}, *chosen = NULL;
    const struct value *reasoning;
    struct dict *d;
    bool any = false;

    for (uint32_t i = 0; i < message->dict->size; i++) {
        struct dict_entry *e = &message->dict->entries[i];

        if (e->key.size < 8) /* as most are: role, content */
            continue;
        for (size_t k = 0; k < COUNT(names); k++)
            if (string_same(&e->key, &names[k]))
                found[k] = e, any = true;
    }
    if (!any)
        return 0;
    for (size_t k = 0; k < COUNT(names) && !chosen; k++)
        if (found[k] && found[k]->value.kind != V_NONE)
            chosen = found[k];
    if (!chosen)
        return 0;
    reasoning = entry_value(r, chosen);
    d = dict_new(r, (size_t)message->dict->size + 2);
    if (!d || !reasoning || dict_set(r, d, &names[1], *reasoning))
        return -1;
    for (uint32_t i = 0; i < message->dict->size; i++) {
        const struct dict_entry *e = &message->dict->entries[i];

        if (dict_set_hashed(r, d, &e->key, e->hash, e->value))
            return -1;
    }
    if (dict_set(r, d, &names[0], *reasoning))
        return -1;
    *message = value_dict(d);
    return 0;
}

static int add_tag(struct render *r, const struct value *text, struct value *out)
{
    static const struct value tag = {
        .kind = V_STRING, .size = sizeof CONTINUE_TAG - 1, .s = CONTINUE_TAG};

    if (text->kind != V_STRING)
        return fail(r->err, CLM_ERR_ARG, "the last message has no text to be gone on with");
    return string_join2(r, text, &tag, out);
}

/* The last part of the content that has a text gets the tag. */
static int tag_parts(struct render *r, const struct list *parts, struct value *content)
{
    struct value text_name = text_key("text");
    struct list *copy = list_new(r, parts->size);

    if (!copy)
        return -1;
    if (parts->size)
        memcpy(copy->items, parts->items, parts->size * sizeof *copy->items);
    for (uint32_t i = parts->size; i-- > 0;) {
        const struct value *part = &parts->items[i], *text;
        struct dict *d;
        struct value tagged;
        int has = part->kind == V_DICT ? field(r, part->dict, "text", &text) : 0;

        if (has < 0)
            return -1;
        if (!has)
            continue;
        d = dict_new(r, part->dict->size);
        if (!d || add_tag(r, text, &tagged))
            return -1;
        for (uint32_t k = 0; k < part->dict->size; k++)
            if (dict_set(r, d, &part->dict->entries[k].key, part->dict->entries[k].value))
                return -1;
        if (dict_set(r, d, &text_name, tagged))
            return -1;
        copy->items[i] = value_dict(d);
        *content = value_list(copy);
        return 0;
    }
    return fail(r->err, CLM_ERR_ARG, "the last message has no text to be gone on with");
}

static int tag_message(struct render *r, struct value *message)
{
    const struct value *content;
    struct value name = text_key("content"), tagged;
    int has = field(r, message->dict, "content", &content);

    if (has < 0)
        return -1;
    if (!has || content->kind == V_NONE)
        return fail(r->err, CLM_ERR_ARG, "the last message has no content to be gone on with");
    if (content->kind == V_LIST) {
        if (tag_parts(r, content->list, &tagged))
            return -1;
    } else if (add_tag(r, content, &tagged)) {
        return -1;
    }
    return dict_set(r, message->dict, &name, tagged);
}

static int objects_only(struct render *r, const json *list, const char *what)
{
    if (json_kind(list) != JSON_ARRAY)
        return fail(r->err, CLM_ERR_ARG, "%s: an array is expected", what);
    for (size_t i = 0; i < json_size(list); i++)
        if (json_kind(json_at(list, i)) != JSON_OBJECT)
            return fail(r->err, CLM_ERR_ARG, "%s[%zu]: an object is expected", what, i);
    return 0;
}

static int load_messages(struct render *r, const struct chat_request *request)
{
    struct value messages;

    if (json_kind(request->messages) != JSON_ARRAY)
        return fail(r->err, CLM_ERR_ARG, "messages: an array is expected");
    if (json_value(r, request->messages, &messages))
        return -1;
    for (uint32_t i = 0; i < messages.list->size; i++) {
        if (messages.list->items[i].kind != V_DICT)
            return fail(r->err, CLM_ERR_ARG, "messages[%u]: an object is expected", i);
        if (alias_reasoning(r, &messages.list->items[i]))
            return -1;
    }
    if (request->continue_final_message) {
        if (!messages.list->size)
            return fail(r->err, CLM_ERR_ARG, "messages: there is none to be gone on with");
        if (tag_message(r, &messages.list->items[messages.list->size - 1]))
            return -1;
    }
    return render_variable(r, "messages", messages);
}

/* A list of objects, or None. */
static int load_list(struct render *r, const char *name, const json *list)
{
    struct value v = value_none();

    if (json_kind(list) != JSON_ABSENT && json_kind(list) != JSON_NULL &&
        (objects_only(r, list, name) || json_value_later(r, list, &v)))
        return -1;
    return render_variable(r, name, v);
}

static int load_chat(struct render *r, void *ctx)
{
    const struct chat_request *request = ctx;

    return load_messages(r, request) || load_list(r, "tools", request->tools) ||
                   load_list(r, "documents", request->documents) ||
                   render_variable(r, "add_generation_prompt",
                                   value_bool(request->add_generation_prompt)) ||
                   render_variables(r, request->variables, request->n_variables)
               ? -1
               : 0;
}

/* Where the tag stands for the last time in out behind the mark; NULL: nowhere. */
static char *find_tag(const struct strbuf *out, size_t mark)
{
    const size_t n = sizeof CONTINUE_TAG - 2; /* a template may have cut the space off */

    for (size_t at = out->size; at >= mark + n; at--)
        if (!memcmp(out->data + at - n, CONTINUE_TAG, n))
            return out->data + at - n;
    return NULL;
}

static int cut_at_tag(struct strbuf *out, size_t mark, clm_error *err)
{
    char *tag = find_tag(out, mark);
    size_t left = tag ? (size_t)(out->data + out->size - tag) : 0;
    const char *end = tag;

    if (!tag)
        return fail(err, CLM_ERR_FORMAT,
                    "the template does not show the last message, which is to be gone on with");
    if (left < sizeof CONTINUE_TAG - 1 || memcmp(tag, CONTINUE_TAG, sizeof CONTINUE_TAG - 1))
        end = character_strip_end(out->data + mark, tag); /* the template trims the text */
    out->size = (size_t)(end - out->data);
    out->data[out->size] = '\0';
    return 0;
}

int chat_render(const template *t, const struct chat_request *request,
                const struct template_options *options, struct strbuf *out, clm_error *err)
{
    size_t mark = out->size;

    if (render_with(t, options, load_chat, (void *)request, out, err))
        return -1;
    if (!request->continue_final_message || !cut_at_tag(out, mark, err))
        return 0;
    out->size = mark;
    if (out->data)
        out->data[mark] = '\0';
    return -1;
}
