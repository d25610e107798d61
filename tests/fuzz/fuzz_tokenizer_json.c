/* tests/fuzz/fuzz_tokenizer_json.c: any bytes as a tokenizer.json; what opens must also work. */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] =
        "Hello  it's\n\n 123 caf\xC3\xA9 e\xCC\x81 \xE4\xBD\xA0\xE5\xA5\xBD <s> a.b!";
    static const char config[] = "{\"bos_token\":\"<s>\",\"clean_up_tokenization_spaces\":true}";
    clm_error err = {0};
    tokenizer *t = tokenizer_parse((const char *)data, size, size & 1 ? config : NULL,
                                   sizeof config - 1, "fuzz", &err);
    struct token_list ids = {0};
    struct strbuf out = {0};

    if (!t && !err.message[0])
        abort();
    if (t) {
        tokenizer_encode(t, text, sizeof text - 1, true, &ids, &err);
        for (int32_t id = 0; id < 300; id++)
            token_list_add(&ids, id);
        tokenizer_decode(t, ids.ids, ids.count, size & 2, &out, &err);
    }
    strbuf_release(&out);
    token_list_release(&ids);
    tokenizer_close(t);
    return 0;
}
