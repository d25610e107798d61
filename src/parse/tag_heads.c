/* The heads of calls and arguments in the formats that read_tags reads. */
#include "parse/read_tags.h"

static void as_it_is(struct span name, struct strbuf *out)
{
    strbuf_add(out, name.size ? name.at : "", name.size);
}

/* Strips white space, then one pair of quotes. */
static void unquote(struct span name, struct strbuf *out)
{
    name = span_strip(name);
    if (name.size >= 2 && (name.at[0] == '"' || name.at[0] == '\'') &&
        name.at[name.size - 1] == name.at[0])
        name = (struct span){name.at + 1, name.size - 2};
    else if (name.size == 1 && (name.at[0] == '"' || name.at[0] == '\''))
        name.size = 0;
    as_it_is(name, out);
}

static void replace_entities(struct span name, struct strbuf *out)
{
    static const struct {
        struct span entity;
        char c;
    } entities[] = {{{"&quot;", 6}, '"'}, {{"&amp;", 5}, '&'}};

    while (name.size) {
        size_t used = 0;

        for (size_t i = 0; i < 2 && !used; i++)
            if (span_starts(name, entities[i].entity)) {
                strbuf_add_char(out, entities[i].c);
                used = entities[i].entity.size;
            }
        if (!used) {
            strbuf_add_char(out, name.at[0]);
            used = 1;
        }
        name = span_from(name, used);
    }
}

static size_t skip_until(struct span s, size_t i, const char *stops)
{
    while (i < s.size && (s.at[i] == '\0' || !strchr(stops, s.at[i])))
        i++;
    return i;
}

/* Where the first white space or one of the ASCII stops is. */
static size_t bare_end(struct span s, size_t i, const char *stops)
{
    while (i < s.size && (s.at[i] == '\0' || !strchr(stops, s.at[i])) &&
           !regex_space_at_start(span_from(s, i)))
        i++;
    return i;
}

static enum tag_match no_more(bool final)
{
    return final ? TAG_NO : TAG_MORE;
}

/* NAME> with white space before: <function=NAME>, <parameter=NAME> of Qwen3-Coder. */
static enum tag_match bare_head(struct span s, bool final, struct tag_head *head)
{
    size_t begin = regex_space_at_start(s), end = bare_end(s, begin, "<>");

    if (end == s.size && !final)
        return TAG_MORE;
    if (end == begin)
        return TAG_NO;
    head->name = (struct span){s.at + begin, end - begin};
    head->size = end + (end < s.size && s.at[end] == '>');
    return TAG_YES;
}

/* Anything up to > or the tag that closes: <invoke name=NAME>. */
static enum tag_match open_head(struct span s, bool final, struct tag_head *head, struct span close)
{
    size_t end = skip_until(s, 0, ">"), without = close.size - 1;

    if (end == s.size)
        return no_more(final);
    head->name = span_first(s, end);
    head->size = end + 1;
    if (end >= without &&
        span_starts(span_from(head->name, end - without), span_first(close, without))) {
        head->name.size -= without;
        head->size = end - without;
    }
    return TAG_YES;
}

static enum tag_match minimax_call(struct span s, bool final, struct tag_head *head)
{
    return open_head(s, final, head, SPAN("</invoke>"));
}

static enum tag_match minimax_parameter(struct span s, bool final, struct tag_head *head)
{
    enum tag_match match = open_head(s, final, head, SPAN("</parameter>"));

    return match == TAG_YES && (!head->name.size || s.at[head->size - 1] != '>') ? TAG_NO : match;
}

/* ... name="NAME"...> where the tag's own name has just ended; with last, name is the last of its
 * attributes. */
static enum tag_match attribute_head(struct span s, bool final, struct tag_head *head, bool last)
{
    struct span name = SPAN("name=\"");

    if (s.size && word_at_start(s, '\0'))
        return TAG_NO;
    for (size_t i = 0; i < s.size && s.at[i] != '>'; i++) {
        size_t begin = i + name.size, end, close;

        if (i == 0 || !span_starts(span_from(s, i), name) || word_at_end(span_first(s, i), '\0'))
            continue;
        end = skip_until(s, begin, "\"");
        close = last ? end + 1 : skip_until(s, end, ">");
        if (end == s.size || close >= s.size)
            return no_more(final);
        if (end == begin || s.at[close] != '>')
            continue;
        head->name = (struct span){s.at + begin, end - begin};
        head->size = close + 1;
        return TAG_YES;
    }
    return skip_until(s, 0, ">") == s.size ? no_more(final) : TAG_NO;
}

static enum tag_match last_attribute_head(struct span s, bool final, struct tag_head *head)
{
    return attribute_head(s, final, head, true);
}

static enum tag_match any_attribute_head(struct span s, bool final, struct tag_head *head)
{
    return attribute_head(s, final, head, false);
}

/* DeepSeek says in the tag whether the value is a string. */
static enum tag_match dsml_parameter(struct span s, bool final, struct tag_head *head)
{
    enum tag_match match = attribute_head(s, final, head, false);

    if (match == TAG_YES)
        head->is_string =
            span_find(span_first(s, head->size), 0, SPAN("string=\"false\"")) == SIZE_MAX;
    return match;
}

/* A name in quotes or bare, at i; sets its end. */
static enum tag_match cpm_name(struct span s, size_t i, bool final, size_t *end)
{
    if (i == s.size)
        return no_more(final);
    if (s.at[i] == '"' || s.at[i] == '\'') {
        *end = skip_until(s, i + 1, s.at[i] == '"' ? "\"" : "'") + 1;
        return *end > s.size ? no_more(final) : TAG_YES;
    }
    *end = bare_end(s, i, "\"'<>");
    if (*end == s.size)
        return no_more(final);
    return *end > i ? TAG_YES : TAG_NO;
}

/* NAME> with white space between. */
static enum tag_match cpm_named(struct span s, size_t i, bool final, struct tag_head *head)
{
    size_t end = 0;
    enum tag_match match = cpm_name(s, i, final, &end);

    if (match != TAG_YES)
        return match;
    head->name = (struct span){s.at + i, end - i};
    end += regex_space_at_start(span_from(s, end));
    if (end == s.size)
        return no_more(final);
    head->size = end + 1;
    return s.at[end] == '>' ? TAG_YES : TAG_NO;
}

/* name = at i, with white space; sets its end. */
static enum tag_match cpm_assignment(struct span s, size_t i, bool final, size_t *end)
{
    struct span word = SPAN("name"), rest = span_from(s, i);

    if (rest.size < word.size)
        return span_starts(word, rest) ? no_more(final) : TAG_NO;
    if (!span_starts(rest, word))
        return TAG_NO;
    i += word.size;
    i += regex_space_at_start(span_from(s, i));
    if (i == s.size)
        return no_more(final);
    if (s.at[i] != '=')
        return TAG_NO;
    i++;
    *end = i + regex_space_at_start(span_from(s, i));
    return TAG_YES;
}

/* How far a head that failed at the start of s cannot begin either: to the end of its word, but for
 * what may be "name=" there. */
static size_t cpm_skip(struct span s)
{
    size_t end = bare_end(s, 0, "\"'<>");

    return end > 6 ? end - 5 : 1;
}

/* <function name="NAME">, of which only the name and > are required: the marker that led here was
 * the beginning of it. */
static enum tag_match cpm_call(struct span s, bool final, struct tag_head *head)
{
    struct span word = SPAN("<function");
    enum tag_match match;
    size_t i = 0, space, named;

    head->size = 0;
    if (s.size < word.size && span_starts(word, s))
        return no_more(final);
    if (span_starts(s, word)) {
        space = regex_space_at_start(span_from(s, word.size));
        i = word.size + space;
        if (i == s.size)
            return no_more(final);
        if (!space)
            return TAG_NO;
    }
    match = cpm_assignment(s, i, final, &named);
    if (match == TAG_YES)
        match = cpm_named(s, named, final, head);
    if (match == TAG_NO)
        match = cpm_named(s, i, final, head);
    if (match == TAG_NO)
        head->size = cpm_skip(s);
    return match;
}

/* <param name="NAME">, after <param. */
static enum tag_match cpm_parameter(struct span s, bool final, struct tag_head *head)
{
    size_t i = regex_space_at_start(s), named;
    enum tag_match match;

    if (i == s.size)
        return no_more(final);
    match = i ? cpm_assignment(s, i, final, &named) : TAG_NO;
    return match == TAG_YES ? cpm_named(s, named, final, head) : match;
}

/* The value of an attribute KEY="VALUE" of s; of several the last. */
static struct span attribute(struct span s, struct span key)
{
    struct span value = {0};

    for (size_t i = 0; i < s.size;) {
        size_t begin, end = span_find(s, i, SPAN("=\"")), word;

        if (end == SIZE_MAX)
            break;
        word = word_at_end((struct span){s.at + i, end - i}, '\0');
        begin = end + 2;
        if (!word) {
            i = end + 1;
            continue;
        }
        i = skip_until(s, begin, "\"");
        if (i == s.size)
            break;
        if (span_equal((struct span){s.at + end - word, word}, key))
            value = (struct span){s.at + begin, i - begin};
        i++;
    }
    return value;
}

/* All up to <|sep|>. */
static enum tag_match k3_head(struct span s, bool final, struct tag_head *head, struct span *inner)
{
    size_t end = span_find(s, 0, SPAN("<|sep|>"));

    if (end == SIZE_MAX)
        return no_more(final);
    *inner = span_first(s, end);
    head->size = end + SPAN("<|sep|>").size;
    return TAG_YES;
}

static enum tag_match k3_call(struct span s, bool final, struct tag_head *head)
{
    struct span inner;
    enum tag_match match = k3_head(s, final, head, &inner);

    if (match == TAG_YES)
        head->name = attribute(inner, SPAN("tool"));
    return match;
}

static enum tag_match k3_argument(struct span s, bool final, struct tag_head *head)
{
    struct span inner, type;
    enum tag_match match = k3_head(s, final, head, &inner);
    struct span close = SPAN("<|close|>call");

    if (match != TAG_YES)
        return match;
    if (inner.size >= close.size && span_starts(span_from(inner, inner.size - close.size), close))
        return TAG_NO; /* the call ends here */
    type = attribute(inner, SPAN("type"));
    head->name = attribute(inner, SPAN("key"));
    head->is_string = !type.at || span_is(type, "string");
    return match;
}

const struct tag_format tags_qwen3_coder = {
    .call_open = SPAN_INIT("<function="),
    .call_close = SPAN_INIT("</function>"),
    .parameter_open = SPAN_INIT("<parameter="),
    .parameter_close = SPAN_INIT("</parameter>"),
    .call_head = bare_head,
    .parameter_head = bare_head,
    .unescape = as_it_is,
    .close = CLOSE_LAST,
    .trim = TRIM_NEWLINES,
    .value_kind = VALUE_TYPED_BY_SCHEMA,
    .convert = convert_by_type,
    .always_string = convert_always_string_by_type,
    .nullable = true,
};

const struct tag_format tags_minimax_m2 = {
    .call_open = SPAN_INIT("<invoke name="),
    .call_close = SPAN_INIT("</invoke>"),
    .parameter_open = SPAN_INIT("<parameter name="),
    .parameter_close = SPAN_INIT("</parameter>"),
    .call_head = minimax_call,
    .parameter_head = minimax_parameter,
    .unescape = unquote,
    .close = CLOSE_REQUIRED,
    .trim = TRIM_SPACE,
    .value_kind = VALUE_TYPED_BY_SCHEMA,
    .convert = convert_by_types,
    .always_string = convert_always_string_by_types,
    .nullable = true,
};

const struct tag_format tags_muse_spark = {
    .call_open = SPAN_INIT("<atem:invoke"),
    .call_close = SPAN_INIT("</atem:invoke>"),
    .parameter_open = SPAN_INIT("<atem:parameter"),
    .parameter_close = SPAN_INIT("</atem:parameter>"),
    .call_head = last_attribute_head,
    .parameter_head = any_attribute_head,
    .unescape = as_it_is,
    .close = CLOSE_OPTIONAL,
    .trim = TRIM_SPACE,
    .value_kind = VALUE_JSON,
    .convert = convert_json,
    .values_hide_close = true,
};

const struct tag_format tags_minicpm5 = {
    .call_close = SPAN_INIT("</function>"),
    .parameter_open = SPAN_INIT("<param"),
    .parameter_close = SPAN_INIT("</param>"),
    .call_head = cpm_call,
    .parameter_head = cpm_parameter,
    .unescape = unquote,
    .close = CLOSE_OPTIONAL,
    .trim = TRIM_SPACE,
    .value_kind = VALUE_TYPED_BY_SCHEMA,
    .convert = convert_by_types,
    .always_string = convert_always_string_by_types,
    .nullable = true,
    .cdata = true,
};

const struct tag_format tags_kimi_k3 = {
    .call_open = SPAN_INIT("<|open|>call"),
    .call_close = SPAN_INIT("<|close|>call<|sep|>"),
    .parameter_open = SPAN_INIT("<|open|>argument"),
    .parameter_close = SPAN_INIT("<|close|>argument<|sep|>"),
    .raw_open = SPAN_INIT("<|open|>json"),
    .raw_close = SPAN_INIT("<|close|>json<|sep|>"),
    .head_end = SPAN_INIT("<|sep|>"),
    .call_head = k3_call,
    .parameter_head = k3_argument,
    .unescape = replace_entities,
    .close = CLOSE_REQUIRED,
    .trim = TRIM_NOTHING,
    .value_kind = VALUE_TYPED_BY_TAG,
};

const struct tag_format tags_dsml = {
    .call_open = SPAN_INIT("<｜DSML｜invoke"),
    .call_close = SPAN_INIT("</｜DSML｜invoke>"),
    .parameter_open = SPAN_INIT("<｜DSML｜parameter"),
    .parameter_close = SPAN_INIT("</｜DSML｜parameter>"),
    .call_head = any_attribute_head,
    .parameter_head = dsml_parameter,
    .unescape = as_it_is,
    .close = CLOSE_REQUIRED,
    .trim = TRIM_NOTHING,
    .value_kind = VALUE_TYPED_BY_TAG,
};
