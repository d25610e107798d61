/* tokenizer/older.c: which files there are, and what is known of their families. */
#include "tokenizer/older.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "tokenizer/ranks.h"
#include "tokenizer/spm.h"

#define MAX_FILE ((size_t)256 << 20)
#define LLAMA3_RANKS 128000 /* released ones; its own code takes any number */
#define LLAMA3_SPECIAL 256
#define QWEN_EXTRAS 205
#define END_OF_TEXT "<|endoftext|>"

#define SPLIT_BEFORE "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define SPLIT_AFTER "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SPLIT_QWEN SPLIT_BEFORE "\\p{N}" SPLIT_AFTER
#define SPLIT_LLAMA3 SPLIT_BEFORE "\\p{N}{1,3}" SPLIT_AFTER

static bool is_qwen(const char *class)
{
    return class && !strncmp(class, "Qwen2Tokenizer", 14);
}

/* pattern: NULL for that of GPT-2, which the byte level stage has itself. */
static void write_byte_level(struct strbuf *out, const char *pattern, bool nfc, bool prefix_space)
{
    const char *prefix = prefix_space ? "true" : "false";

    strbuf_add_str(out, ",\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":");
    if (pattern) {
        strbuf_add_str(out, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                            "\"behavior\":\"Isolated\",\"invert\":false,\"pattern\":{\"Regex\":");
        strbuf_add_json(out, pattern, strlen(pattern));
        strbuf_addf(out,
                    "}},{\"type\":\"ByteLevel\",\"use_regex\":false,\"add_prefix_space\":%s}]}",
                    prefix);
    } else {
        strbuf_addf(out, "{\"type\":\"ByteLevel\",\"use_regex\":true,\"add_prefix_space\":%s}",
                    prefix);
    }
    if (nfc)
        strbuf_add_str(out, ",\"normalizer\":{\"type\":\"NFC\"}");
}

static void write_special(struct strbuf *out, const char *text, bool first)
{
    strbuf_add_str(out, first ? "" : ",");
    strbuf_add_str(out, "{\"special\":true,\"normalized\":false,\"content\":");
    strbuf_add_json(out, text, strlen(text));
    strbuf_add_char(out, '}');
}

/* The special tokens of Qwen 1, behind the ranks. */
static void write_qwen_special(struct strbuf *out)
{
    char text[32];

    write_special(out, END_OF_TEXT, true);
    write_special(out, "<|im_start|>", false);
    write_special(out, "<|im_end|>", false);
    for (int i = 0; i < QWEN_EXTRAS; i++) {
        snprintf(text, sizeof text, "<|extra_%d|>", i);
        write_special(out, text, false);
    }
}

/* Those of Llama 3: some at known places, the others reserved. */
static void write_llama3_special(struct strbuf *out)
{
    static const char *const names[] = {[0] = "<|begin_of_text|>",
                                        [1] = "<|end_of_text|>",
                                        [6] = "<|start_header_id|>",
                                        [7] = "<|end_header_id|>",
                                        [9] = "<|eot_id|>"};
    int reserved = 0;

    for (int i = 0; i < LLAMA3_SPECIAL; i++) {
        char text[48];

        snprintf(text, sizeof text, "<|reserved_special_token_%d|>", reserved);
        if ((size_t)i < COUNT(names) && names[i])
            write_special(out, names[i], i == 0);
        else
            write_special(out, text, false);
        reserved += !((size_t)i < COUNT(names) && names[i]);
    }
}

static int read_ranks(struct strbuf *out, const char *text, size_t n, bool qwen, const json *config,
                      const char *path, clm_error *err)
{
    if (!qwen && ranks_count(text, n) > LLAMA3_RANKS) /* Llama 4's, say */
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "%s: %zu ranks of an unknown family, and the file does not say how text is "
                    "split: convert it to a tokenizer.json",
                    path, ranks_count(text, n));
    strbuf_add_str(out, "{\"model\":");
    if (ranks_write_model(text, n, path, out, err))
        return -1;
    write_byte_level(out, qwen ? SPLIT_QWEN : SPLIT_LLAMA3, qwen, false);
    strbuf_add_str(out, ",\"added_tokens\":[");
    if (qwen) {
        write_qwen_special(out);
        strbuf_add_str(out, "]}");
        return 0;
    }
    write_llama3_special(out);
    strbuf_add_char(out, ']');
    if (json_bool(json_get(config, "add_bos_token"), true))
        strbuf_addf(out,
                    ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"pair\":[],\"single\":["
                    "{\"SpecialToken\":{\"id\":\"bos\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\","
                    "\"type_id\":0}}],\"special_tokens\":{\"bos\":{\"id\":\"bos\",\"ids\":[%zu],"
                    "\"tokens\":[\"<|begin_of_text|>\"]}}}",
                    ranks_count(text, n));
    strbuf_add_char(out, '}');
    return 0;
}

static int read_model_file(struct strbuf *out, const json *config, const char *path, clm_error *err)
{
    struct file_map file;
    const char *text;
    int rc;

    if (file_map(&file, path, err))
        return -1;
    text = (const char *)file.data;
    rc = ranks_recognise(text, file.size)
             ? read_ranks(out, text, file.size, false, config, path, err)
             : spm_to_json(file.data, file.size, config, path, out, err);
    file_unmap(&file);
    return rc;
}

/* Lines of merges.txt; the first one may be a head. */
static void write_merges(struct strbuf *out, const char *text, size_t n)
{
    const char *at = text, *end = text + n, *comma = "";

    strbuf_add_str(out, ",\"merges\":[");
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at)), *next;

        next = stop ? stop + 1 : end;
        stop = stop ? stop : end;
        if (stop > at && stop[-1] == '\r')
            stop--;
        if (stop > at) {
            strbuf_add_str(out, comma);
            strbuf_add_json(out, at, (size_t)(stop - at));
            comma = ",";
        }
        at = next;
    }
    strbuf_add_char(out, ']');
}

/* The classes that have a token for roles that nobody gives. Where no class is named, the token has
 * to be in the vocabulary. */
static void set_defaults(struct config_files *files, const char *class, const char *vocab)
{
    bool gpt2 = class && !strncmp(class, "GPT2Tokenizer", 13), qwen = is_qwen(class);

    files->wraps = true;
    if (gpt2 || qwen || (!class && strstr(vocab, "\"" END_OF_TEXT "\"")))
        files->end_of_text = END_OF_TEXT;
    files->default_bos = !qwen;
}

static int read_vocab_and_merges(struct strbuf *out, const char *dir, struct config_files *files,
                                 const char *path, clm_error *err)
{
    const json *config = files->config;
    const char *class = json_string(json_get(config, "tokenizer_class"), NULL);
    bool qwen = is_qwen(class);
    char *vocab = NULL, *merges = NULL, merges_path[4096];
    size_t n_vocab, n_merges;
    int rc = -1;

    if (file_join(merges_path, sizeof merges_path, dir, "merges.txt", err))
        return -1;
    vocab = file_read(path, MAX_FILE, &n_vocab, err);
    merges = vocab ? file_read(merges_path, MAX_FILE, &n_merges, err) : NULL;
    if (!merges)
        goto cleanup;
    strbuf_add_str(out, "{\"model\":{\"type\":\"BPE\",\"vocab\":");
    strbuf_add(out, vocab, n_vocab);
    write_merges(out, merges, n_merges);
    strbuf_add_char(out, '}');
    write_byte_level(out, qwen ? SPLIT_QWEN : NULL, qwen,
                     json_bool(json_get(config, "add_prefix_space"), false));
    strbuf_add_char(out, '}');
    set_defaults(files, class, vocab);
    rc = 0;

cleanup:
    mem_free(vocab);
    mem_free(merges);
    return rc;
}

static int read_qwen(struct strbuf *out, const char *path, clm_error *err)
{
    size_t n;
    char *text = file_read(path, MAX_FILE, &n, err);
    int rc = text ? read_ranks(out, text, n, true, NULL, path, err) : -1;

    mem_free(text);
    return rc;
}

/* 1 and path set where the file is there, 0 where not, -1. */
static int find_file(char *path, size_t size, const char *dir, const char *name, clm_error *err)
{
    return file_join(path, size, dir, name, err) ? -1 : file_exists(path);
}

int older_files_read(struct strbuf *out, const char *dir, struct config_files *files, char *path,
                     size_t path_size, clm_error *err)
{
    int found = find_file(path, path_size, dir, "tokenizer.model", err), rc;

    if (found > 0) {
        rc = read_model_file(out, files->config, path, err);
    } else if (!found && (found = find_file(path, path_size, dir, "qwen.tiktoken", err)) > 0) {
        rc = read_qwen(out, path, err);
    } else if (!found && (found = find_file(path, path_size, dir, "vocab.json", err)) > 0) {
        rc = read_vocab_and_merges(out, dir, files, path, err);
    } else {
        rc = -1;
        if (!found)
            fail(err, CLM_ERR_IO,
                 "%s: no tokenizer.json, tokenizer.model, qwen.tiktoken or vocab.json: give a "
                 "model directory that holds one",
                 dir);
    }
    if (!rc && out->failed)
        rc = fail(err, CLM_ERR_NOMEM, "%s: no memory for the tokenizer", path);
    return rc;
}
