/* format/json_dialect.h: the JSON that Python writes, made into the JSON that jansson reads.
 *
 * One pass over the text before it is parsed. It bounds the depth, and where there is something to
 * rewrite (rarely: then the text is copied) it rewrites, outside of strings,
 *     an integer beyond 64 bits    as a real: 1000000000000000019884624838656e0
 *     Infinity, -Infinity, NaN     as transformers does: {"__float__": "Infinity"}
 * and inside of keys
 *     \u0000                       as U+10FFFF, which json.c turns back: jansson's parser refuses
 *                                  a NUL in a key, and vocabularies have one
 * It checks nothing else: what is wrong stays wrong, and jansson finds it.
 */
#ifndef FORMAT_JSON_DIALECT_H
#define FORMAT_JSON_DIALECT_H

#include "base/error.h"
#include "base/strbuf.h"

#define JSON_NUL_STAND_IN "\xF4\x8F\xBF\xBF" /* U+10FFFF, not a character */

struct json_dialect {
    const char *text; /* what to parse: the caller's text, or the copy */
    size_t size;
    size_t n_key_nuls; /* stand-ins in keys */
    struct strbuf copy;
};

/* 0, or -1 with the error; strbuf_release(&d->copy) in either case. */
int json_dialect_rewrite(struct json_dialect *d, const char *text, size_t size, int max_depth,
                         const char *name, clm_error *err);

#endif
