/* tests/tokenizer/by_stages.h: text of ids by the stages of a decoder alone. What a tokenizer
 * remembers of its ids must not be seen in what it gives. */
#ifndef BY_STAGES_H
#define BY_STAGES_H

#include "tokenizer/tokenizer_parts.h"

static int by_stages_add(struct decode_state *x, const tokenizer *t, int32_t id, bool skip_special,
                         struct strbuf *segment, clm_error *err)
{
    size_t n;
    bool special;
    const char *token = tokenizer_decoded(t, id, &n, &special);

    if (!token || (special && skip_special))
        return 0;
    return decode_push(x, token, n, segment, err);
}

#endif
