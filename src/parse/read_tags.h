/* parse/read_tags.h: calls written as nested tags. */
#ifndef PARSE_READ_TAGS_H
#define PARSE_READ_TAGS_H

#include "parse/tool_reader.h"

enum tag_match { TAG_NO, TAG_MORE, TAG_YES };

/* What stands in the head of a call or of an argument. */
struct tag_head {
    size_t size; /* of the head; with TAG_NO how many bytes begin no head, or 0 */
    struct span name;
    bool is_string; /* of an argument whose tag says its type */
};

/* Reads the head that s begins with, after the text that opens the tag. With final, no more comes.
 */
typedef enum tag_match tag_head_function(struct span s, bool final, struct tag_head *head);

enum tag_close {
    CLOSE_REQUIRED, /* without its end, a call is none */
    CLOSE_OPTIONAL, /* the end of the section ends it too */
    CLOSE_LAST      /* only the end of the section ends it, and must be its closing tag */
};
enum tag_trim { TRIM_NOTHING, TRIM_SPACE, TRIM_NEWLINES };
enum tag_value {
    VALUE_STRING,
    VALUE_JSON,    /* or a string, where it is none */
    VALUE_CONVERT, /* known at its end */
    VALUE_TYPED_BY_TAG,
    VALUE_TYPED_BY_SCHEMA
};

struct tag_format {
    struct span call_open, call_close, parameter_open, parameter_close;
    struct span raw_open, raw_close, head_end; /* arguments in one piece, where there are such */
    tag_head_function *call_head, *parameter_head;
    void (*unescape)(struct span name, struct strbuf *out);
    enum tag_close close;
    enum tag_trim trim;
    enum tag_value value_kind;
    convert_function *convert;
    bool (*always_string)(const json *schema);
    bool nullable;          /* null in any case is no string */
    bool cdata;             /* a value may stand in <![CDATA[...]]> */
    bool values_hide_close; /* what closes the call may stand in a value */
};

enum step read_tags(struct tool_reader *r);

extern const struct tag_format tags_qwen3_coder, tags_minimax_m2, tags_muse_spark, tags_minicpm5,
    tags_kimi_k3, tags_dsml;

#endif
