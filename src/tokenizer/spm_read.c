/* tokenizer/spm_read.c: a reader of protobuf's wire format, and the messages of SentencePiece. */
#include "tokenizer/spm_read.h"

#include <math.h>

#include "base/memory.h"
#include "base/number.h"
#include "base/utf8.h"

/* The fields of one message, one after the other. */
struct message {
    const uint8_t *at, *end;
    uint64_t field, wire;
    uint64_t number;  /* of a field with wire type 0, 1 or 5 */
    struct span text; /* of one with wire type 2 */
};

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static bool read_varint(struct message *m, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && m->at < m->end; shift += 7) {
        uint8_t byte = *m->at++;

        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

static bool read_fixed(struct message *m, size_t size)
{
    if ((size_t)(m->end - m->at) < size)
        return false;
    m->number = load_le32(m->at);
    m->at += size;
    return true;
}

/* 1, 0 at the end, -1 where the bytes are no message. */
static int next_field(struct message *m)
{
    uint64_t tag, size;

    if (m->at == m->end)
        return 0;
    if (!read_varint(m, &tag))
        return -1;
    m->field = tag >> 3;
    m->wire = tag & 7;
    switch (m->wire) {
    case WIRE_VARINT:
        return read_varint(m, &m->number) ? 1 : -1;
    case WIRE_64:
        return read_fixed(m, 8) ? 1 : -1;
    case WIRE_32:
        return read_fixed(m, 4) ? 1 : -1;
    case WIRE_BYTES:
        if (!read_varint(m, &size) || size > (size_t)(m->end - m->at))
            return -1;
        m->text = (struct span){(const char *)m->at, (size_t)size};
        m->at += size;
        return 1;
    default:
        return -1;
    }
}

static struct message message_of(struct span text)
{
    const uint8_t *data = (const uint8_t *)text.s;

    return (struct message){.at = data, .end = data + text.n};
}

static int bad_message(const struct spm *m, const char *what, clm_error *err)
{
    return fail(err, CLM_ERR_FORMAT, "%s: %s is damaged: is it a SentencePiece model?", m->name,
                what);
}

static int check_piece(const struct spm *m, const struct spm_piece *piece, clm_error *err)
{
    if (!piece->text.n || piece->text.n > SPM_MAX_PIECE ||
        !utf8_valid(piece->text.s, piece->text.n))
        return fail(err, CLM_ERR_FORMAT,
                    "%s: piece %zu is not 1 to %d bytes of UTF-8: the file is damaged", m->name,
                    m->n_pieces, SPM_MAX_PIECE);
    if (!isfinite(piece->score) || piece->type < SPM_NORMAL || piece->type > SPM_BYTE)
        return fail(err, CLM_ERR_FORMAT, "%s: piece %zu has no score or a type of %llu", m->name,
                    m->n_pieces, (unsigned long long)piece->type);
    return 0;
}

static int read_piece(struct spm *m, struct span text, clm_error *err)
{
    struct spm_piece piece = {.type = SPM_NORMAL};
    struct message fields = message_of(text);
    int rc;

    while ((rc = next_field(&fields)) > 0) {
        if (fields.field == 1 && fields.wire == WIRE_BYTES)
            piece.text = fields.text;
        else if (fields.field == 2 && fields.wire == WIRE_32)
            piece.score = bits_f32((uint32_t)fields.number);
        else if (fields.field == 3 && fields.wire == WIRE_VARINT)
            piece.type = fields.number;
    }
    if (rc)
        return bad_message(m, "a piece", err);
    if (check_piece(m, &piece, err))
        return -1;
    if (m->n_pieces == m->capacity) {
        void *pieces = mem_grow(m->pieces, &m->capacity, m->n_pieces + 1, sizeof *m->pieces);

        if (!pieces)
            return fail(err, CLM_ERR_NOMEM, "%s: no memory for more than %zu pieces", m->name,
                        m->n_pieces);
        m->pieces = pieces;
    }
    m->pieces[m->n_pieces++] = piece;
    return 0;
}

static int read_trainer(struct spm *m, struct span text, clm_error *err)
{
    struct message fields = message_of(text);
    int rc;

    while ((rc = next_field(&fields)) > 0) {
        if (fields.wire != WIRE_VARINT)
            continue;
        switch (fields.field) {
        case 3:
            m->kind = fields.number;
            break;
        case 24:
            m->whitespace_as_suffix = fields.number;
            break;
        case 35:
            m->byte_fallback = fields.number;
            break;
        case 40:
            m->unk = fields.number;
            break;
        case 41:
            m->bos = fields.number;
            break;
        case 42:
            m->eos = fields.number;
            break;
        default:
            break;
        }
    }
    return rc ? bad_message(m, "trainer_spec", err) : 0;
}

static int read_normalizer(struct spm *m, struct span text, clm_error *err)
{
    struct message fields = message_of(text);
    int rc;

    while ((rc = next_field(&fields)) > 0) {
        if (fields.field == 2 && fields.wire == WIRE_BYTES)
            m->charsmap = fields.text;
        else if (fields.field == 3 && fields.wire == WIRE_VARINT)
            m->add_dummy_prefix = fields.number;
        else if (fields.field == 4 && fields.wire == WIRE_VARINT)
            m->remove_extra_whitespaces = fields.number;
        else if (fields.field == 5 && fields.wire == WIRE_VARINT)
            m->escape_whitespaces = fields.number;
    }
    return rc ? bad_message(m, "normalizer_spec", err) : 0;
}

static int check_whole(const struct spm *m, clm_error *err)
{
    if (!m->n_pieces)
        return fail(err, CLM_ERR_FORMAT, "%s: no pieces: is it a SentencePiece model?", m->name);
    if (m->kind != SPM_UNIGRAM && m->kind != SPM_BPE)
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "%s: model_type %llu is not supported: only 1 (unigram) and 2 (bpe) are",
                    m->name, (unsigned long long)m->kind);
    if (m->whitespace_as_suffix || !m->escape_whitespaces)
        return fail(err, CLM_ERR_UNSUPPORTED, "%s: %s is not supported", m->name,
                    m->escape_whitespaces ? "treat_whitespace_as_suffix"
                                          : "escape_whitespaces of false");
    if (m->unk >= m->n_pieces)
        return fail(err, CLM_ERR_FORMAT, "%s: unk_id %llu of %zu pieces", m->name,
                    (unsigned long long)m->unk, m->n_pieces);
    return 0;
}

int spm_read(struct spm *m, const uint8_t *data, size_t n, const char *name, clm_error *err)
{
    struct message fields = {.at = data, .end = data + n};
    int rc, failed = 0;

    *m = (struct spm){.name = name,
                      .kind = SPM_UNIGRAM,
                      .bos = 1,
                      .eos = 2,
                      .add_dummy_prefix = true,
                      .remove_extra_whitespaces = true,
                      .escape_whitespaces = true};
    while (!failed && (rc = next_field(&fields)) > 0) {
        if (fields.wire != WIRE_BYTES)
            continue;
        if (fields.field == 1)
            failed = read_piece(m, fields.text, err);
        else if (fields.field == 2)
            failed = read_trainer(m, fields.text, err);
        else if (fields.field == 3)
            failed = read_normalizer(m, fields.text, err);
    }
    if (!failed && rc)
        failed = bad_message(m, "the file", err);
    if (!failed)
        failed = check_whole(m, err);
    if (failed)
        spm_release(m);
    return failed;
}

void spm_release(struct spm *m)
{
    mem_free(m->pieces);
    *m = (struct spm){0};
}
