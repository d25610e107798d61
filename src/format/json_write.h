/* format/json_write.h: a parsed value as JSON text again. */
#ifndef FORMAT_JSON_WRITE_H
#define FORMAT_JSON_WRITE_H

#include "base/strbuf.h"
#include "format/json.h"

/* On one line, keys in their order; an absent value is null, infinite numbers are written as
 * transformers does: {"__float__": "Infinity"}. */
void json_write(struct strbuf *out, const json *value);

#endif
