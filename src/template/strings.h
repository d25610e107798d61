/* template/strings.h: what can be done with a string, for filters, tests and methods alike. */
#ifndef TEMPLATE_STRINGS_H
#define TEMPLATE_STRINGS_H

#include "template/render.h"

enum letter_case { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITALIZE, CASE_SWAP, CASE_FOLD };

/* The results of all these are strings of the rendering. */
int string_case(struct render *r, const struct value *s, enum letter_case how, struct value *out);
/* As the filter title does it: a capital after white space or one of -({[<. */
int string_title(struct render *r, const struct value *s, struct value *out);

enum strip_side { STRIP_LEFT = 1, STRIP_RIGHT = 2, STRIP_BOTH = 3 };

/* chars: V_MISSING or V_NONE for white space. */
int string_strip(struct render *r, const struct value *s, const struct value *chars,
                 enum strip_side side, struct value *out);
int string_replace(struct render *r, const struct value *s, const struct value *old,
                   const struct value *new, int64_t count, struct value *out);
/* separator: V_MISSING or V_NONE for runs of white space. max < 0: no limit. */
int string_split(struct render *r, const struct value *s, const struct value *separator,
                 int64_t max, bool from_right, struct value *out);
int string_lines(struct render *r, const struct value *s, bool keep_ends, struct value *out);
/* Joins what can be walked. as_text: items that are no strings are converted. */
int string_join(struct render *r, const struct value *separator, const struct value *items,
                bool as_text, struct value *out);
/* Pads to a width in characters; fill is one character. */
int string_pad(struct render *r, const struct value *s, int64_t left, int64_t right,
               const struct value *fill, struct value *out);
int string_center(struct render *r, const struct value *s, int64_t width, const struct value *fill,
                  struct value *out);
bool string_all(const struct value *s, bool (*test)(int32_t c)); /* false when it is empty */
bool string_is_lower(const struct value *s);
bool string_is_upper(const struct value *s);
bool string_is_title(const struct value *s);

#endif
