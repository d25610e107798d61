/* tokenizer/scripts.h: the script of a character, as the UnicodeScripts pre-tokenizer sees it. */
#ifndef TOKENIZER_SCRIPTS_H
#define TOKENIZER_SCRIPTS_H

#include <stdint.h>

#define SCRIPT_ANY 0     /* spaces and unassigned characters: of the script that is around them */
#define SCRIPT_NONE (-1) /* before the first character */

/* Hiragana, Katakana and Han are one. */
int script_of(int32_t c);

#endif
