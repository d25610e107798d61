/* tokenizer/spm_read.h: the fields of a SentencePiece model. */
#ifndef TOKENIZER_SPM_READ_H
#define TOKENIZER_SPM_READ_H

#include "tokenizer/reader.h"

enum spm_type { SPM_NORMAL = 1, SPM_UNKNOWN, SPM_CONTROL, SPM_USER_DEFINED, SPM_UNUSED, SPM_BYTE };
enum spm_kind { SPM_UNIGRAM = 1, SPM_BPE, SPM_WORD, SPM_CHAR };

struct spm_piece {
    struct span text; /* in the file */
    float score;
    uint64_t type;
};

struct spm {
    const char *name;
    struct spm_piece *pieces;
    size_t n_pieces, capacity;
    struct span charsmap;
    uint64_t kind;
    uint64_t unk, bos, eos; /* ids; those the model lacks are no ids of pieces */
    bool byte_fallback;
    bool whitespace_as_suffix;
    bool add_dummy_prefix;
    bool remove_extra_whitespaces;
    bool escape_whitespaces;
};

/* data must outlive it. Every piece is valid UTF-8, of 1 to SPM_MAX_PIECE bytes, with a finite
 * score and a known type. */
#define SPM_MAX_PIECE 1024
int spm_read(struct spm *m, const uint8_t *data, size_t n, const char *name, clm_error *err);
void spm_release(struct spm *m);

#endif
