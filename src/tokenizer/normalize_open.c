/* tokenizer/normalize_open.c: reading the "normalizer" of a tokenizer.json. */
#include <string.h>

#include "base/memory.h"
#include "tokenizer/normalize.h"

#define MAX_STAGES 256

struct opening {
    struct normalizer *n;
    const uint8_t *table;
    struct reader *r;
};

static struct normal_stage *add_stage(struct opening *o, enum normal_kind kind)
{
    struct normal_stage *st;

    if (o->n->n_stages == MAX_STAGES) {
        fail(o->r->err, CLM_ERR_UNSUPPORTED, "%s: more than %d normalizers", o->r->name,
             MAX_STAGES);
        return NULL;
    }
    st = &o->n->stages[o->n->n_stages++];
    *st = (struct normal_stage){.kind = kind};
    return st;
}

static int open_strip(struct opening *o, const json *v)
{
    struct normal_stage *st = add_stage(o, NORMAL_STRIP);

    if (!st || read_bool(o->r, v, "strip_left", &st->left))
        return -1;
    return read_bool(o->r, v, "strip_right", &st->right);
}

static int open_replace(struct opening *o, const json *v)
{
    struct normal_stage *st = add_stage(o, NORMAL_REPLACE);

    if (!st || pattern_open(&st->pattern, json_get(v, "pattern"), o->table, o->r))
        return -1;
    return read_string(o->r, v, "content", &st->content);
}

static int open_prepend(struct opening *o, const json *v)
{
    struct normal_stage *st = add_stage(o, NORMAL_PREPEND);

    return st ? read_string(o->r, v, "prepend", &st->content) : -1;
}

static int open_precompiled(struct opening *o, const json *v)
{
    struct normal_stage *st = add_stage(o, NORMAL_PRECOMPILED);
    size_t n;
    const char *map = json_string(json_get(v, "precompiled_charsmap"), &n);

    if (!st)
        return -1;
    if (!map)
        return fail(o->r->err, CLM_ERR_FORMAT, "%s: normalizer: no precompiled_charsmap",
                    o->r->name);
    return precompiled_open(&st->map, map, n, o->r);
}

/* Clean, set Chinese apart, strip accents, lower: in this order. Accents go with the case, unless
 * it is said. */
static int open_bert(struct opening *o, const json *v)
{
    bool clean, chinese, accents, lowercase;

    if (read_bool(o->r, v, "clean_text", &clean) ||
        read_bool(o->r, v, "handle_chinese_chars", &chinese) ||
        read_bool(o->r, v, "lowercase", &lowercase) ||
        read_bool_or(o->r, v, "strip_accents", lowercase, &accents))
        return -1;
    if ((clean && !add_stage(o, NORMAL_BERT_CLEAN)) ||
        (chinese && !add_stage(o, NORMAL_BERT_CHINESE)) ||
        (accents && (!add_stage(o, NORMAL_NFD) || !add_stage(o, NORMAL_STRIP_NONSPACING))) ||
        (lowercase && !add_stage(o, NORMAL_LOWERCASE)))
        return -1;
    return 0;
}

static int open_stage(void *ctx, const json *v)
{
    struct opening *o = ctx;
    static const struct {
        const char *name;
        enum normal_kind kind;
    } plain[] = {
        {"NFC", NORMAL_NFC},
        {"NFD", NORMAL_NFD},
        {"NFKC", NORMAL_NFKC},
        {"NFKD", NORMAL_NFKD},
        {"Lowercase", NORMAL_LOWERCASE},
        {"StripAccents", NORMAL_STRIP_ACCENTS},
        {"Nmt", NORMAL_NMT},
        {"ByteLevel", NORMAL_BYTE_LEVEL},
    };
    const char *type = read_type(o->r, v);

    if (!type)
        return -1;
    for (size_t i = 0; i < COUNT(plain); i++) {
        if (!strcmp(type, plain[i].name))
            return add_stage(o, plain[i].kind) ? 0 : -1;
    }
    if (!strcmp(type, "Sequence"))
        return read_sequence(o->r, v, "normalizers", open_stage, o);
    if (!strcmp(type, "Strip"))
        return open_strip(o, v);
    if (!strcmp(type, "Replace"))
        return open_replace(o, v);
    if (!strcmp(type, "Prepend"))
        return open_prepend(o, v);
    if (!strcmp(type, "BertNormalizer"))
        return open_bert(o, v);
    if (!strcmp(type, "Precompiled"))
        return open_precompiled(o, v);
    return unknown_type(o->r, type);
}

int normalizer_open(struct normalizer *n, const json *v, const uint8_t *table, struct reader *r)
{
    struct opening o = {.n = n, .table = table, .r = r};

    *n = (struct normalizer){0};
    r->part = "normalizer";
    if (json_is_null(v))
        return 0;
    n->stages = mem_zeroed(MAX_STAGES, sizeof *n->stages);
    if (!n->stages)
        return no_memory(r);
    if (open_stage(&o, v)) {
        normalizer_close(n);
        return -1;
    }
    return 0;
}

void normalizer_close(struct normalizer *n)
{
    for (size_t i = 0; i < n->n_stages; i++)
        pattern_close(&n->stages[i].pattern);
    mem_free(n->stages);
    *n = (struct normalizer){0};
}
