/* tokenizer/punctuation.h: categories in the Unicode version (8) of the reference's Bert parts. */
#ifndef TOKENIZER_PUNCTUATION_H
#define TOKENIZER_PUNCTUATION_H

#include <stdbool.h>
#include <stdint.h>

bool punctuation_is(int32_t c);     /* P, and the ASCII symbols */
bool nonspacing_mark_is(int32_t c); /* Mn */
bool other_is(int32_t c);           /* Cc, Cf, Co; unassigned characters are not */
/* M in the version (9 or so) of the StripAccents normalizer. */
bool combining_mark_is(int32_t c);
/* Whether a mark has its combining class in the version (11 or so) of the normalization forms. */
bool combining_class_known(int32_t c);

#endif
