/* tokenizer/spm.c: writing a SentencePiece model as the tokenizer.json that says the same.
 *
 * A BPE model has no list of merges: every two pieces that make a third are one, ranked by the
 * score of the third, and of equal scores as transformers ranks them.
 */
#include "tokenizer/spm.h"

#include <stdlib.h>
#include <string.h>

#include "base/decimal.h"
#include "base/memory.h"
#include "tokenizer/base64.h"
#include "tokenizer/spm_read.h"
#include "tokenizer/vocab.h"

#define MARK "\xE2\x96\x81" /* U+2581 stands for a space */

struct spm_merge {
    float score;
    uint32_t piece; /* that the two make */
    uint32_t cut;   /* bytes of the left one */
    uint32_t left_chars, right_chars;
};

struct spm_merges {
    struct spm_merge *items;
    size_t count, capacity;
};

static int by_rank(const void *a, const void *b)
{
    const struct spm_merge *x = a, *y = b;

    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->left_chars != y->left_chars)
        return x->left_chars > y->left_chars ? -1 : 1;
    if (x->right_chars != y->right_chars)
        return x->right_chars > y->right_chars ? -1 : 1;
    return (x->piece > y->piece) - (x->piece < y->piece);
}

static int merge_push(struct spm_merges *list, struct spm_merge merge, clm_error *err)
{
    if (list->count == list->capacity) {
        void *items = mem_grow(list->items, &list->capacity, list->count + 1, sizeof *list->items);

        if (!items)
            return fail(err, CLM_ERR_NOMEM, "no memory for more than %zu merges", list->count);
        list->items = items;
    }
    list->items[list->count++] = merge;
    return 0;
}

/* Whether a piece is text, and so may be merged and be what is merged. */
static bool is_text(const struct spm *m, int32_t id)
{
    uint64_t type = id < 0 ? SPM_CONTROL : m->pieces[id].type;

    return type == SPM_NORMAL || type == SPM_USER_DEFINED || type == SPM_UNUSED;
}

static uint32_t count_chars(const char *s, size_t n)
{
    uint32_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += (s[i] & 0xC0) != 0x80;
    return count;
}

static int cut_piece(const struct spm *m, const struct vocab *vocab, uint32_t piece,
                     struct spm_merges *list, clm_error *err)
{
    struct span text = m->pieces[piece].text;

    for (size_t i = 1; i < text.n; i++) {
        if ((text.s[i] & 0xC0) == 0x80 || !is_text(m, vocab_find(vocab, text.s, i)) ||
            !is_text(m, vocab_find(vocab, text.s + i, text.n - i)))
            continue;
        if (merge_push(list,
                       (struct spm_merge){.score = m->pieces[piece].score,
                                          .piece = piece,
                                          .cut = (uint32_t)i,
                                          .left_chars = count_chars(text.s, i),
                                          .right_chars = count_chars(text.s + i, text.n - i)},
                       err))
            return -1;
    }
    return 0;
}

static int write_merges(const struct spm *m, const struct vocab *vocab, struct strbuf *out,
                        clm_error *err)
{
    struct spm_merges list = {0};
    int rc = 0;

    for (size_t i = 0; i < m->n_pieces && !rc; i++) {
        if (is_text(m, (int32_t)i))
            rc = cut_piece(m, vocab, (uint32_t)i, &list, err);
    }
    if (list.count)
        qsort(list.items, list.count, sizeof *list.items, by_rank);
    strbuf_add_str(out, ",\"merges\":[");
    for (size_t i = 0; i < list.count && !rc; i++) {
        const struct spm_merge *merge = &list.items[i];
        struct span text = m->pieces[merge->piece].text;

        strbuf_add_str(out, i ? ",[" : "[");
        strbuf_add_json(out, text.s, merge->cut);
        strbuf_add_char(out, ',');
        strbuf_add_json(out, text.s + merge->cut, text.n - merge->cut);
        strbuf_add_char(out, ']');
    }
    strbuf_add_char(out, ']');
    mem_free(list.items);
    return rc;
}

static int write_bpe(const struct spm *m, struct strbuf *out, clm_error *err)
{
    struct vocab vocab;
    int rc = vocab_init(&vocab, m->n_pieces, m->n_pieces * 8, m->name, err);

    strbuf_add_str(out, "\"type\":\"BPE\",\"fuse_unk\":true,\"unk_token\":");
    strbuf_add_json(out, m->pieces[m->unk].text.s, m->pieces[m->unk].text.n);
    strbuf_add_str(out, ",\"vocab\":{");
    for (size_t i = 0; i < m->n_pieces && !rc; i++) {
        struct span text = m->pieces[i].text;

        strbuf_add_str(out, i ? "," : "");
        strbuf_add_json(out, text.s, text.n);
        strbuf_addf(out, ":%zu", i);
        rc = vocab_add(&vocab, text.s, text.n, (int64_t)i, err);
    }
    strbuf_add_char(out, '}');
    rc = rc ? rc : write_merges(m, &vocab, out, err);
    vocab_release(&vocab);
    return rc;
}

static void write_unigram(const struct spm *m, struct strbuf *out)
{
    strbuf_addf(out, "\"type\":\"Unigram\",\"unk_id\":%zu,\"vocab\":[", (size_t)m->unk);
    for (size_t i = 0; i < m->n_pieces; i++) {
        char score[DECIMAL_ROOM];

        decimal_write(score, (double)m->pieces[i].score);
        strbuf_add_str(out, i ? ",[" : "[");
        strbuf_add_json(out, m->pieces[i].text.s, m->pieces[i].text.n);
        strbuf_addf(out, ",%s]", score);
    }
    strbuf_add_char(out, ']');
}

static void write_replace(struct strbuf *out, const char *comma, const char *kind,
                          const char *pattern, const char *content)
{
    strbuf_addf(out, "%s{\"type\":\"Replace\",\"pattern\":{\"%s\":\"%s\"},\"content\":\"%s\"}",
                comma, kind, pattern, content);
}

/* The space before a text is there even if the text begins with one; and behind a special token
 * too, as transformers has it unless "legacy" is false. */
static void write_pipeline(const struct spm *m, const json *config, struct strbuf *out)
{
    bool legacy = json_bool(json_get(config, "legacy"), true);
    bool prefix = m->add_dummy_prefix && json_bool(json_get(config, "add_prefix_space"), true);

    strbuf_add_str(out, ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    if (m->charsmap.n) {
        strbuf_add_str(out, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"");
        base64_write(out, m->charsmap.s, m->charsmap.n);
        strbuf_add_str(out, "\"},");
    }
    if (m->remove_extra_whitespaces) {
        write_replace(out, "", "Regex", "^ +| +$", "");
        write_replace(out, ",", "Regex", " {2,}", " ");
        strbuf_add_char(out, ',');
    }
    if (prefix && legacy)
        strbuf_add_str(out, "{\"type\":\"Prepend\",\"prepend\":\"" MARK "\"},");
    write_replace(out, "", "String", " ", MARK);
    strbuf_add_str(out, "]}");
    if (prefix && !legacy)
        strbuf_add_str(out, ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"" MARK
                            "\",\"prepend_scheme\":\"first\",\"split\":false}");
    strbuf_add_str(out, ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
                        "\"pattern\":{\"String\":\"" MARK "\"},\"content\":\" \"}");
    if (m->byte_fallback)
        strbuf_add_str(out, ",{\"type\":\"ByteFallback\"}");
    strbuf_add_str(out, ",{\"type\":\"Fuse\"}");
    if (prefix)
        strbuf_add_str(out, ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}");
    strbuf_add_str(out, "]}");
}

static void write_added(const struct spm *m, struct strbuf *out)
{
    const char *comma = "";

    strbuf_add_str(out, ",\"added_tokens\":[");
    for (size_t i = 0; i < m->n_pieces; i++) {
        const struct spm_piece *piece = &m->pieces[i];

        if (piece->type != SPM_UNKNOWN && piece->type != SPM_CONTROL &&
            piece->type != SPM_USER_DEFINED)
            continue;
        strbuf_addf(out, "%s{\"id\":%zu,\"normalized\":false,\"special\":%s,\"content\":", comma, i,
                    piece->type == SPM_USER_DEFINED ? "false" : "true");
        strbuf_add_json(out, piece->text.s, piece->text.n);
        strbuf_add_char(out, '}');
        comma = ",";
    }
    strbuf_add_char(out, ']');
}

/* Classes whose own code adds a token where the configuration does not say. */
static bool class_adds(const json *config, bool bos, bool is_bpe)
{
    const char *name = json_string(json_get(config, "tokenizer_class"), NULL);

    if (!name)
        return bos && is_bpe;
    if (bos)
        return strstr(name, "Llama") || strstr(name, "Gemma");
    return !strncmp(name, "T5", 2);
}

static void write_special(const struct spm *m, const json *config, struct strbuf *out)
{
    const char *comma = "";
    struct strbuf ids = {0};

    strbuf_add_str(out, ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[");
    for (int end = 0; end < 2; end++) {
        uint64_t id = end ? m->eos : m->bos;

        if (end) {
            strbuf_addf(out, "%s{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}", comma);
            comma = ",";
        }
        if (id >= m->n_pieces ||
            !json_bool(json_get(config, end ? "add_eos_token" : "add_bos_token"),
                       class_adds(config, !end, m->kind == SPM_BPE)))
            continue;
        strbuf_addf(out, "%s{\"SpecialToken\":{\"id\":\"%d\",\"type_id\":0}}", comma, end);
        strbuf_addf(&ids, "%s\"%d\":{\"id\":\"%d\",\"ids\":[%zu],\"tokens\":[", ids.size ? "," : "",
                    end, end, (size_t)id);
        strbuf_add_json(&ids, m->pieces[id].text.s, m->pieces[id].text.n);
        strbuf_add_str(&ids, "]}");
        comma = ",";
    }
    strbuf_add_str(out, "],\"pair\":[],\"special_tokens\":{");
    strbuf_add(out, ids.data ? ids.data : "", ids.size);
    strbuf_add_str(out, "}}");
    out->failed |= ids.failed;
    strbuf_release(&ids);
}

int spm_to_json(const uint8_t *data, size_t n, const json *config, const char *name,
                struct strbuf *out, clm_error *err)
{
    struct spm m;
    int rc = spm_read(&m, data, n, name, err);

    if (rc)
        return rc;
    strbuf_addf(out, "{\"model\":{\"byte_fallback\":%s,", m.byte_fallback ? "true" : "false");
    if (m.kind == SPM_BPE)
        rc = write_bpe(&m, out, err);
    else
        write_unigram(&m, out);
    strbuf_add_char(out, '}');
    write_pipeline(&m, config, out);
    write_added(&m, out);
    write_special(&m, config, out);
    strbuf_add_char(out, '}');
    if (!rc && out->failed)
        rc = fail(err, CLM_ERR_NOMEM, "%s: no memory for %zu pieces", name, m.n_pieces);
    spm_release(&m);
    return rc;
}
