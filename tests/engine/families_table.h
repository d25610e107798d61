/* tests/engine/families_table.h: docs/families.md, made of what the golden tests have seen agree.
 */
#ifndef FAMILIES_TABLE_H
#define FAMILIES_TABLE_H

#include "base/strbuf.h"
#include "models/family.h"
#include "models/model.h"
#include "testing.h"

enum { TABLE_MLX, TABLE_HF, TABLE_TRANSFORMERS, TABLE_QUANTISED, TABLE_ADAPTERS, TABLE_KINDS };

static const char table_head[] =
    "# Families\n\n"
    "What each family was seen to agree on with its reference (mlx-lm 0.32.2, or transformers 5 "
    "for "
    "its own schema), within\nrounding: whole prompts, in chunks, in ragged batches, forked, "
    "trimmed, and decoded token by token. A number counts\nfixtures of that kind: `MLX` converted "
    "checkpoints, `Hugging Face` the original layout with the old config schema,\n`transformers 5` "
    "what `save_pretrained` writes today, `quantised` in any packing, `adapters` LoRA, DoRA or "
    "full.\nAn empty cell has no fixture. The golden tests make this page: "
    "`CLM_UPDATE_DOCS=1 build/tests/engine_goldens`.\n\n";

static const char table_exempt[] =
    "\nFixtures that are not held to all of it:\n\n| fixture | why |\n| --- | --- |\n";

enum { TABLE_ROWS = 256 };
static int table_counts[TABLE_ROWS][TABLE_KINDS];

/* What a fixture shows, by its name: "models/q_llama_b4", "models_hf/llama". */
static inline int table_kind(const char *name)
{
    static const struct {
        const char *part;
        int kind;
    } kinds[] = {
        {"models_hf/", TABLE_TRANSFORMERS},
        {"models/q_", TABLE_QUANTISED},
        {"models/lora_", TABLE_ADAPTERS},
        {"models/dora_", TABLE_ADAPTERS},
        {"models/full_", TABLE_ADAPTERS},
        {"models/hf_awq_", TABLE_QUANTISED},
        {"models/hf_gptq_", TABLE_QUANTISED},
        {"models/hf_fp8_", TABLE_QUANTISED},
        {"models/hf_bitnet_", TABLE_QUANTISED},
        {"models/hf_pack_", TABLE_QUANTISED},
        {"models/hf_", TABLE_HF},
        {"models/sharded_hf_", TABLE_HF},
    };

    for (size_t i = 0; i < COUNT(kinds); i++)
        if (!strncmp(name, kinds[i].part, strlen(kinds[i].part)))
            return kinds[i].kind;
    return TABLE_MLX;
}

static inline void table_count(const char *name, const struct family *f)
{
    for (int i = 0; i < TABLE_ROWS && model_family(i); i++)
        if (model_family(i) == f)
            table_counts[i][table_kind(name)]++;
}

static inline void table_write(struct strbuf *b)
{
    strbuf_add_str(b, "| family | model_type | MLX | Hugging Face | transformers 5 | quantised | "
                      "adapters |\n| --- | --- | --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < TABLE_ROWS && model_family(i); i++) {
        const struct family *f = model_family(i);

        strbuf_addf(b, "| %s |", f->name);
        for (size_t t = 0; t < COUNT(f->model_types) && f->model_types[t]; t++)
            strbuf_addf(b, " `%s`", f->model_types[t]);
        for (int k = 0; k < TABLE_KINDS; k++)
            if (table_counts[i][k])
                strbuf_addf(b, " | %d", table_counts[i][k]);
            else
                strbuf_add_str(b, " | ");
        strbuf_add_str(b, " |\n");
    }
}

#endif
