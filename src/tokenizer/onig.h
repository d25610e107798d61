/* tokenizer/onig.h: Oniguruma expressions, the dialect of tokenizer.json, rewritten for PCRE2. */
#ifndef TOKENIZER_ONIG_H
#define TOKENIZER_ONIG_H

#include "base/strbuf.h"
#include "tokenizer/reader.h"

/**
 * Append to *out an expression that PCRE2 (PCRE2_UTF | PCRE2_UCP, newline LF) matches as Oniguruma
 * matches s. What has no exact counterpart here gives CLM_ERR_UNSUPPORTED with its place.
 *
 *     \s \w \h \b      other sets: explicit characters, lookarounds
 *     \p{..}           Unicode 16; scripts are Script, not Script_Extensions
 *     [a&&[^b]]        (?:(?=[a])[^b])
 *     x{2}+            (?:x{2})+, for only * + ? have a possessive form
 *     ^ $              at every line
 *     (?m:.)           (?s:.)
 */
int onig_translate(const char *s, size_t n, struct strbuf *out, struct reader *r);

#endif
