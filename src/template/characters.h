/* template/characters.h: what Python's str knows of characters. */
#ifndef TEMPLATE_CHARACTERS_H
#define TEMPLATE_CHARACTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool character_is_space(int32_t c);
bool character_is_alpha(int32_t c);
bool character_is_mark(int32_t c);    /* may continue an identifier */
bool character_is_decimal(int32_t c); /* str.isdecimal */
bool character_is_digit(int32_t c);   /* str.isdigit */
bool character_is_numeric(int32_t c); /* str.isnumeric */
bool character_is_alnum(int32_t c);
bool character_is_lower(int32_t c);
bool character_is_upper(int32_t c);
bool character_is_title(int32_t c);
bool character_is_printable(int32_t c);
bool character_is_line_end(int32_t c); /* where str.splitlines splits */

/* One character in another case: up to three characters; returns how many. */
int character_upper(int32_t c, int32_t out[3]);
int character_lower(int32_t c, int32_t out[3]);
int character_title(int32_t c, int32_t out[3]);
int character_fold(int32_t c, int32_t out[3]);

/* For the final sigma: a letter with case, and a character that is skipped around it. */
bool character_is_cased(int32_t c);
bool character_is_case_ignorable(int32_t c);

/* Past white space at the beginning; before white space at the end. */
const char *character_skip_space(const char *s, const char *end);
const char *character_strip_end(const char *s, const char *end);

/* Characters in well-formed UTF-8, and the start of the n-th one (the end when there are fewer). */
size_t character_count(const char *s, size_t size);
size_t character_offset(const char *s, size_t size, size_t n);

/* Tables: characters_tables.c. */
struct character_range {
    int32_t first, last;
};
struct character_special {
    int32_t c;
    int32_t to[3];
};
extern const struct character_range character_digits[]; /* isdigit, but not isdecimal */
extern const size_t n_character_digits;
extern const struct character_range character_numerics[]; /* isnumeric, but not isdigit */
extern const size_t n_character_numerics;
extern const struct character_range character_other_lower[]; /* islower, but not of category Ll */
extern const size_t n_character_other_lower;
extern const struct character_range character_other_upper[]; /* isupper, but not of category Lu */
extern const size_t n_character_other_upper;
extern const struct character_special character_special_upper[]; /* more than one character */
extern const size_t n_character_special_upper;
extern const struct character_special character_special_title[];
extern const size_t n_character_special_title;
extern const struct character_special character_special_fold[];
extern const size_t n_character_special_fold;

#endif
