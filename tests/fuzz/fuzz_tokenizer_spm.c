/* tests/fuzz/fuzz_tokenizer_spm.c: a tokenizer.model, or a file of ranks, becomes a tokenizer.json
 * that opens or is refused, and encodes. */
#include <stdlib.h>

#include "tokenizer/ranks.h"
#include "tokenizer/spm.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct strbuf *text)
{
    static const char sample[] = "  a sample \xE2\x96\x81 of\ttext \xF0\x9F\x98\x80 <s> ab";
    clm_error err = {0};
    struct token_list ids = {0};
    struct strbuf back = {0};
    tokenizer *t = tokenizer_parse(text->data, text->size, NULL, 0, "fuzz", &err);

    if (!t && !err.code)
        abort();
    if (t && !tokenizer_encode(t, sample, sizeof sample - 1, true, &ids, &err) &&
        tokenizer_decode(t, ids.ids, ids.count, false, &back, &err))
        abort();
    token_list_release(&ids);
    strbuf_release(&back);
    tokenizer_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct strbuf out = {0};
    clm_error err = {0};
    int rc;

    if (ranks_recognise((const char *)data, size)) {
        strbuf_add_str(&out, "{\"model\":");
        rc = ranks_write_model((const char *)data, size, "fuzz", &out, &err);
        strbuf_add_str(&out, "}");
    } else {
        rc = spm_to_json(data, size, NULL, "fuzz", &out, &err);
    }
    if (!rc != !err.code)
        abort();
    if (!rc)
        use(&out);
    strbuf_release(&out);
    return 0;
}
