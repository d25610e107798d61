/* tests/fuzz/fuzz_tokenizer_encode.c: any bytes as a text for the small tokenizers; the first byte
 * chooses. What the byte-level one encodes it decodes to the same. */
#include <stdlib.h>
#include <string.h>

#include "../tokenizer/small_tokenizers.h"
#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tokenizer *open[SMALL_TOKENIZERS];
    size_t which = size ? data[0] % SMALL_TOKENIZERS : 0;
    const char *text = (const char *)data + (size > 0);
    size_t n = size - (size > 0);
    struct token_list ids = {0};
    struct strbuf out = {0};
    clm_error err = {0};

    if (!open[which])
        open[which] =
            tokenizer_parse(small_tokenizers[which].text, strlen(small_tokenizers[which].text),
                            NULL, 0, small_tokenizers[which].name, &err);
    if (!open[which] || tokenizer_encode(open[which], text, n, true, &ids, &err) ||
        tokenizer_decode(open[which], ids.ids, ids.count, false, &out, &err))
        abort();
    if (which == 0 && utf8_valid(text, n) && (out.size != n || (n && memcmp(out.data, text, n))))
        abort();
    strbuf_release(&out);
    token_list_release(&ids);
    return 0;
}
