/* tokenizer/tokenizer.h: text to token ids and back, as a model directory's tokenizer.json says. */
#ifndef TOKENIZER_TOKENIZER_H
#define TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/fingerprint.h"
#include "base/log.h"
#include "base/strbuf.h"

/* Token ids; start from {0}. A failed allocation sets failed, and adding does nothing since. */
struct token_list {
    int32_t *ids;
    size_t count;
    size_t capacity;
    bool failed;
};

bool token_list_grow(struct token_list *list); /* of one that is full; false: it has failed */
static inline void token_list_add(struct token_list *list, int32_t id)
{
    if (list->count < list->capacity || token_list_grow(list))
        list->ids[list->count++] = id;
}
void token_list_clear(struct token_list *list);   /* keeps the memory */
void token_list_release(struct token_list *list); /* back to {0} */

/* Immutable once open: any number of threads may encode and decode with one tokenizer. */
typedef struct tokenizer tokenizer;

/**
 * Read tokenizer.json of a model directory and, where they exist, tokenizer_config.json and
 * special_tokens_map.json. (Chat templates: template/chat.h.) Where there is no tokenizer.json, the
 * files that checkpoints had before it: tokenizer.model (SentencePiece), vocab.json with
 * merges.txt, or tiktoken's ranks; see older.h.
 *
 * What tokenizer.json says and clm cannot do exactly gives CLM_ERR_UNSUPPORTED and its name.
 * log may be NULL; it is not kept.
 */
tokenizer *tokenizer_open(const char *dir, const struct log *log, clm_error *err);

/* Where the tables of large tokenizers are kept for the next opening; see tokenizer/snapshot.h. */
struct snapshot_place {
    const char *folder; /* absolute; NULL: they are not */
    size_t least;       /* bytes of a tokenizer.json that is worth it; 0: a megabyte */
};

/* The same, fast for a large tokenizer.json of a BPE model whose tables are in the folder, and else
 * with the tables put there. Nothing that is wrong with the folder is an error. */
tokenizer *tokenizer_open_kept(const char *dir, const struct snapshot_place *place,
                               const struct log *log, clm_error *err);
bool tokenizer_is_kept(const tokenizer *t); /* whether its tables come from there */

/* The same as tokenizer_open from memory; config, the text of a tokenizer_config.json, may be NULL.
 */
tokenizer *tokenizer_parse(const char *text, size_t size, const char *config, size_t config_size,
                           const char *name, clm_error *err);
void tokenizer_close(tokenizer *t); /* NULL is fine */

/**
 * Append the ids of text[0..size), UTF-8, to *out; add_special wraps them as the post-processor
 * says (BOS and the like). Bytes that are not UTF-8 are read as U+FFFD.
 *
 * Returns 0, or -1 with *err filled and *out as it was.
 */
int tokenizer_encode(const tokenizer *t, const char *text, size_t size, bool add_special,
                     struct token_list *out, clm_error *err);

/* Append the text of ids[0..n) to *out. skip_special leaves out tokens that are marked special;
 * ids that the vocabulary does not have give nothing. */
int tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                     struct strbuf *out, clm_error *err);

/* One more than the largest id. Not every id below it need have a token. */
size_t tokenizer_vocab_size(const tokenizer *t);
/* The token as the vocabulary spells it, NUL-terminated, or NULL for an id that has none. */
const char *tokenizer_token(const tokenizer *t, int32_t id, size_t *size);
int32_t tokenizer_find(const tokenizer *t, const char *token, size_t size); /* -1: not there */
bool tokenizer_is_special(const tokenizer *t, int32_t id);

/* Roles that tokenizer_config.json gives to tokens. */
enum token_role { TOKEN_BOS, TOKEN_EOS, TOKEN_UNK, TOKEN_PAD, TOKEN_SEP, TOKEN_CLS, TOKEN_MASK };
#define TOKEN_ROLES 7
int32_t tokenizer_role(const tokenizer *t, enum token_role role); /* -1: none */

/* Of every token with its number. */
void tokenizer_fingerprint(const tokenizer *t, char out[FINGERPRINT_SIZE]);

/* tool_parser_type of tokenizer_config.json, mlx-lm's name of a syntax of calls; NULL: not said. */
const char *tokenizer_tool_parser(const tokenizer *t);

/**
 * Text from ids as they come. The segments, joined, equal tokenizer_decode of all the ids; a
 * segment holds whole characters and keeps back only what a later token may still change.
 * One thread at a time; the tokenizer must outlive it.
 */
struct detokenizer {
    const tokenizer *t;
    struct decode_state *state;
    bool skip_special;
};

int detokenizer_init(struct detokenizer *d, const tokenizer *t, bool skip_special, clm_error *err);
void detokenizer_release(struct detokenizer *d); /* a zeroed one is fine */
/* Append to *segment what id makes certain; often one token's text, sometimes nothing. */
int detokenizer_add(struct detokenizer *d, int32_t id, struct strbuf *segment, clm_error *err);
/* Append what was kept back; the detokenizer then starts anew. */
int detokenizer_finish(struct detokenizer *d, struct strbuf *segment, clm_error *err);

#endif
