#include "template/chat.h"

#include "template/characters.h"
#include "template/render.h"

/* What marks the place in the last message after which the text is cut off. */
#define CONTINUE_TAG "CONTINUE_FINAL_MESSAGE_TAG "

static struct value text_key(const char *name)
{
    return value_cstring(name);
}

/* NULL where there is none. */
static const struct value *field(const struct dict *d, const char *name)
{
    struct value key = text_key(name);
    const struct dict_entry *e = dict_find_text(d, &key, hash_bytes(key.s, key.size));

    return e ? &e->value : NULL;
}

/* The same mapping with another value; the document's own stays as it is. */
static int with_field(struct render *r, const struct dict *d, const char *name, struct value v,
                      struct value *out)
{
    struct value key = text_key(name);
    struct dict *copy = dict_new(r, d->size);

    if (!copy)
        return -1;
    for (uint32_t i = 0; i < d->size; i++)
        if (dict_set_hashed(r, copy, &d->entries[i].key, d->entries[i].hash, d->entries[i].value))
            return -1;
    *out = value_dict(copy);
    return dict_set(r, copy, &key, v);
}

/* {"thinking": reasoning, **message, "reasoning_content": reasoning} */
static int alias_reasoning(struct render *r, struct value *message, bool *changed)
{
    /* the first of these that is there and not None */
    static const struct value names[] = {{.kind = V_STRING, .size = 17, .s = "reasoning_content"},
                                         {.kind = V_STRING, .size = 8, .s = "thinking"},
                                         {.kind = V_STRING, .size = 9, .s = "reasoning"}};
    const struct dict_entry *found[COUNT(names)] = {NULL}, *chosen = NULL;
    struct dict *d;
    bool any = false;

    *changed = false;
    for (uint32_t i = 0; i < message->dict->size; i++) {
        const struct dict_entry *e = &message->dict->entries[i];

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
    d = dict_new(r, (size_t)message->dict->size + 2);
    if (!d || dict_set(r, d, &names[1], chosen->value))
        return -1;
    for (uint32_t i = 0; i < message->dict->size; i++) {
        const struct dict_entry *e = &message->dict->entries[i];

        if (dict_set_hashed(r, d, &e->key, e->hash, e->value))
            return -1;
    }
    if (dict_set(r, d, &names[0], chosen->value))
        return -1;
    *message = value_dict(d);
    *changed = true;
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

static int copy_list(struct render *r, const struct list *list, struct list **out)
{
    *out = list_new(r, list->size);
    if (!*out)
        return -1;
    if (list->size)
        memcpy((*out)->items, list->items, list->size * sizeof *list->items);
    return 0;
}

/* The last part of the content that has a text gets the tag. */
static int tag_parts(struct render *r, const struct list *parts, struct value *content)
{
    struct list *copy;

    if (copy_list(r, parts, &copy))
        return -1;
    for (uint32_t i = parts->size; i-- > 0;) {
        const struct value *part = &parts->items[i];
        const struct value *text = part->kind == V_DICT ? field(part->dict, "text") : NULL;
        struct value tagged;

        if (!text)
            continue;
        *content = value_list(copy);
        return add_tag(r, text, &tagged) ||
                       with_field(r, part->dict, "text", tagged, &copy->items[i])
                   ? -1
                   : 0;
    }
    return fail(r->err, CLM_ERR_ARG, "the last message has no text to be gone on with");
}

static int tag_message(struct render *r, struct value *message)
{
    const struct value *content = field(message->dict, "content");
    struct value tagged;

    if (!content || content->kind == V_NONE)
        return fail(r->err, CLM_ERR_ARG, "the last message has no content to be gone on with");
    if (content->kind == V_LIST ? tag_parts(r, content->list, &tagged)
                                : add_tag(r, content, &tagged))
        return -1;
    return with_field(r, message->dict, "content", tagged, message);
}

static int objects_only(struct render *r, const json *list, const char *what)
{
    if (!list || list->kind != V_LIST)
        return fail(r->err, CLM_ERR_ARG, "%s: an array is expected", what);
    for (uint32_t i = 0; i < list->list->size; i++)
        if (list->list->items[i].kind != V_DICT)
            return fail(r->err, CLM_ERR_ARG, "%s[%u]: an object is expected", what, i);
    return 0;
}

/* The messages as they are, or as they are to be shown: a copy where one of them changes. */
static int load_messages(struct render *r, const struct chat_request *request)
{
    const struct list *given;
    struct list *copy = NULL;

    if (objects_only(r, request->messages, "messages"))
        return -1;
    given = request->messages->list;
    for (uint32_t i = 0; i < given->size; i++) {
        struct value message = given->items[i];
        bool changed;

        if (alias_reasoning(r, &message, &changed))
            return -1;
        if (!changed)
            continue;
        if (!copy && copy_list(r, given, &copy))
            return -1;
        copy->items[i] = message;
    }
    if (request->continue_final_message) {
        if (!given->size)
            return fail(r->err, CLM_ERR_ARG, "messages: there is none to be gone on with");
        if ((!copy && copy_list(r, given, &copy)) || tag_message(r, &copy->items[given->size - 1]))
            return -1;
    }
    return render_variable(r, "messages", value_list(copy ? copy : given));
}

/* A list of objects, or None. */
static int load_list(struct render *r, const char *name, const json *list)
{
    if (!list || list->kind == V_NONE)
        return render_variable(r, name, value_none());
    return objects_only(r, list, name) ? -1 : render_variable(r, name, *list);
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
