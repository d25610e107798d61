/* tests/fuzz/fuzz_tokenizer_snapshot.c: a snapshot with numbers of it overwritten, under a checksum
 * that is right. The first byte chooses a tokenizer; eight bytes each then say where, in steps of
 * four from its beginning (from its end with the highest bit), and what. One that is believed has
 * to encode, whatever, and be read to its end. */
#include <stdlib.h>
#include <string.h>

#include "../tokenizer/small_tokenizers.h"
#include "base/memory.h"
#include "base/number.h"
#include "tokenizer/snapshot.h"
#include "tokenizer/tokenizer_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char options[] = "{\"byte_fallback\":true,\"unk_token\":\"a\",\"fuse_unk\":true}";

static uint8_t *good[SMALL_TOKENIZERS];
static size_t sizes[SMALL_TOKENIZERS];

static void make(size_t which)
{
    const char *text = small_tokenizers[which].text;
    clm_error err = {0};
    tokenizer *t = tokenizer_parse(text, strlen(text), NULL, 0, "t", &err);

    if (!t)
        abort();
    if (t->model.kind == MODEL_BPE)
        good[which] = snapshot_make(&sizes[which], text, strlen(text),
                                    (struct span){options, sizeof options - 1}, &t->model.bpe);
    tokenizer_close(t);
}

static void use(const struct snapshot *s)
{
    static const char text[] = "ab aaaa abab\xC3\xA9\xE4\xB8\x80\xE4\xB8\x80 \xF0\x9F\x98\x80low!";
    clm_error err = {0};
    struct reader r = {.name = "t", .part = "model", .memory = arena_open(0), .err = &err};
    json *model = json_parse(options, sizeof options - 1, "t", &err);
    struct bpe_scratch scratch = {0};
    struct token_list ids = {0};
    struct bpe b;
    size_t n;

    if (!model || !r.memory || bpe_open(&b, model, (struct span){0}, &s->merges, &s->vocab, &r) ||
        bpe_prepare(&b, s->tables.raw, &s->tables, &r))
        abort();
    (void)bpe_encode(&b, &scratch, text, sizeof text - 1, &ids, &err);
    for (size_t i = 0; i < ids.count; i++)
        if (vocab_text(&s->vocab, ids.ids[i], &n) &&
            strlen(vocab_text(&s->vocab, ids.ids[i], &n)) > n)
            abort();
    for (size_t id = 0; id < s->vocab.n_ids; id++) {
        const char *token = vocab_text(&s->vocab, (int32_t)id, &n);

        if (token && token[n])
            abort();
    }
    token_list_release(&ids);
    bpe_scratch_release(&scratch);
    b.merges = (struct bpe_pairs){0};
    b.char_ids = NULL;
    b.limits = NULL;
    b.neighbours = NULL;
    bpe_close(&b);
    json_free(model);
    arena_close(r.memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t which = size ? data[0] % SMALL_TOKENIZERS : 0;
    struct snapshot s;
    uint8_t *copy;

    if (!good[which])
        make(which);
    if (!good[which])
        return 0;
    copy = mem_alloc_aligned(sizes[which]);
    if (!copy)
        abort();
    memcpy(copy, good[which], sizes[which]);
    for (size_t i = 1; i + 8 <= size; i += 8) {
        uint32_t at = load_le32(data + i), words = (uint32_t)(sizes[which] / 4);

        at = at >> 31 ? words - 1 - (at & 0x7FFFFFFF) % words : at % words;
        memcpy(copy + 4 * (size_t)at, data + i + 4, 4);
    }
    if (snapshot_seal(copy, sizes[which]) && snapshot_read(&s, copy, sizes[which]))
        use(&s);
    mem_free_aligned(copy);
    return 0;
}
