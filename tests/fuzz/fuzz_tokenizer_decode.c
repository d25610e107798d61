/* tests/fuzz/fuzz_tokenizer_decode.c: bytes as ids for the small tokenizers; the first byte
 * chooses. Segments are whole characters, those that the stages of the decoder give by themselves,
 * and joined they are the decoded text. */
#include <stdlib.h>
#include <string.h>

#include "../tokenizer/by_stages.h"
#include "../tokenizer/small_tokenizers.h"
#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void stream(const tokenizer *t, const uint8_t *data, size_t size, bool skip,
                   struct strbuf *joined)
{
    struct strbuf segment = {0}, want = {0};
    struct detokenizer d;
    clm_error err = {0};
    struct decode_state *x = decode_state_open(&t->decoder, &err);

    if (!x || detokenizer_init(&d, t, skip, &err))
        abort();
    for (size_t i = 0; i <= size; i++) {
        strbuf_clear(&segment);
        strbuf_clear(&want);
        if (i < size ? detokenizer_add(&d, data[i], &segment, &err)
                     : detokenizer_finish(&d, &segment, &err))
            abort();
        if (i < size ? by_stages_add(x, t, data[i], skip, &want, &err)
                     : decode_finish(x, &want, &err))
            abort();
        if (segment.size != want.size ||
            (want.size && memcmp(segment.data, want.data, want.size) != 0))
            abort();
        if (segment.size && !utf8_valid(segment.data, segment.size))
            abort();
        if (segment.size)
            strbuf_add(joined, segment.data, segment.size);
    }
    detokenizer_release(&d);
    decode_state_close(x);
    strbuf_release(&segment);
    strbuf_release(&want);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tokenizer *open[SMALL_TOKENIZERS];
    size_t which = size ? data[0] % SMALL_TOKENIZERS : 0;
    bool skip = size && data[0] >= 128;
    struct token_list ids = {0};
    struct strbuf out = {0}, joined = {0};
    clm_error err = {0};

    if (!open[which])
        open[which] =
            tokenizer_parse(small_tokenizers[which].text, strlen(small_tokenizers[which].text),
                            NULL, 0, small_tokenizers[which].name, &err);
    if (!open[which])
        abort();
    for (size_t i = 1; i < size; i++)
        token_list_add(&ids, data[i]);
    if (tokenizer_decode(open[which], ids.ids, ids.count, skip, &out, &err))
        abort();
    stream(open[which], data + (size > 0), size - (size > 0), skip, &joined);
    if (joined.size != out.size || (out.size && memcmp(joined.data, out.data, out.size)))
        abort();
    strbuf_release(&out);
    strbuf_release(&joined);
    token_list_release(&ids);
    return 0;
}
