#include "parse/syntax.h"

#include "base/memory.h"
#include "parse/read_gemma.h"
#include "parse/read_headed.h"
#include "parse/read_json.h"
#include "parse/read_pairs.h"
#include "parse/read_python.h"
#include "parse/read_tags.h"

static const struct tool_syntax syntaxes[] = {
    {"json_tools", "<tool_call>", "</tool_call>", read_json_calls, &json_tools},
    {"function_gemma", "<start_function_call>", "<end_function_call>", read_function_gemma, NULL},
    {"gemma4", "<|tool_call>", "<tool_call|>", read_gemma4, NULL},
    {"glm47", "<tool_call>", "</tool_call>", read_glm47, NULL},
    {"laguna", "<tool_call>", "</tool_call>", read_glm47, NULL},
    {"longcat", "<longcat_tool_call>", "</longcat_tool_call>", read_longcat, NULL},
    {"kimi_k2", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", read_kimi_k2, NULL},
    {"kimi_k3", "<|open|>tools<|sep|>", "<|close|>tools<|sep|>", read_tags, &tags_kimi_k3},
    {"minicpm5", "<function name=", "</function>", read_tags, &tags_minicpm5},
    {"minimax_m2", "<minimax:tool_call>", "</minimax:tool_call>", read_tags, &tags_minimax_m2},
    {"mistral", "[TOOL_CALLS]", "", read_mistral, NULL},
    {"muse_spark", "<atem:function_calls>", "</atem:function_calls>", read_tags, &tags_muse_spark},
    {"pythonic", "<|tool_call_start|>", "<|tool_call_end|>", read_pythonic, NULL},
    {"qwen3_coder", "<tool_call>", "</tool_call>", read_tags, &tags_qwen3_coder},
    /* Those that mlx_lm has no parser for. */
    {"hermes", "<tool_call>", "</tool_call>", read_json_calls, &json_tools},
    {"llama3", NULL, "", read_llama, NULL},
    {"llama4", "<|python_start|>", "<|python_end|>", read_llama, NULL},
    {"deepseek_v3", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", read_deepseek, NULL},
    {"deepseek_v32", "<｜DSML｜function_calls>", "</｜DSML｜function_calls>", read_tags,
     &tags_dsml},
    {"deepseek_v4", "<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>", read_tags, &tags_dsml},
    {"command_r", "<|START_ACTION|>", "<|END_ACTION|>", read_json_calls, &json_cohere},
    {"command_r_plus", "Action:", "", read_json_calls, &json_cohere},
    {"nemotron", "<TOOLCALL>", "</TOOLCALL>", read_json_calls, &json_tools},
    {"apertus", "<|tools_prefix|>", "<|tools_suffix|>", read_json_calls, &json_apertus},
    {"harmony", NULL, "", read_harmony, NULL},
};

const struct tool_syntax *syntax_at(size_t i)
{
    return i < COUNT(syntaxes) ? &syntaxes[i] : NULL;
}

const struct tool_syntax *syntax_by_name(const char *name)
{
    for (size_t i = 0; i < COUNT(syntaxes); i++)
        if (strcmp(syntaxes[i].name, name) == 0)
            return &syntaxes[i];
    return NULL;
}

static char *copy(const char *s, size_t n)
{
    char *p = mem_alloc(n + 1);

    if (!p)
        return NULL;
    if (n)
        memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

static struct tool_call *last(struct tool_calls *c)
{
    return c->count ? &c->calls[c->count - 1] : NULL;
}

static void drop_last(struct tool_calls *c)
{
    struct tool_call *call = last(c);

    mem_free(call->name);
    mem_free(call->id);
    mem_free(call->arguments);
    c->count--;
}

static void begin(struct tool_calls *c, const struct parse_event *e)
{
    struct tool_call *calls = mem_resize(c->calls, (c->count + 1) * sizeof *calls);

    if (!calls) {
        c->failed = true;
        return;
    }
    c->calls = calls;
    calls[c->count] = (struct tool_call){.name = copy(e->text, e->size), .name_size = e->size};
    if (e->id_size)
        calls[c->count].id = copy(e->id, e->id_size);
    if (!calls[c->count].name || (e->id_size && !calls[c->count].id))
        c->failed = true;
    c->count++;
    c->failed |= c->arguments.failed;
    strbuf_clear(&c->arguments);
}

static void end(struct tool_calls *c, const struct parse_event *e)
{
    struct tool_call *call = last(c);

    call->arguments = copy(c->arguments.data, c->arguments.size);
    call->arguments_size = c->arguments.size;
    if (e->id_size && !call->id) {
        call->id = copy(e->id, e->id_size);
        c->failed |= !call->id;
    }
    c->failed |= !call->arguments || c->arguments.failed;
}

void tool_calls_take(void *calls, const struct parse_event *e)
{
    struct tool_calls *c = calls;

    if (c->failed)
        return;
    switch (e->kind) {
    case PARSE_CALL_BEGIN:
        begin(c, e);
        break;
    case PARSE_CALL_ARGUMENTS:
        strbuf_add(&c->arguments, e->text, e->size);
        break;
    case PARSE_CALL_END:
        end(c, e);
        break;
    case PARSE_CALL_FAILED:
        if (c->count && !last(c)->arguments)
            drop_last(c);
        break;
    default:
        break;
    }
}

void tool_calls_release(struct tool_calls *c)
{
    while (c->count)
        drop_last(c);
    mem_free(c->calls);
    strbuf_release(&c->arguments);
    *c = (struct tool_calls){0};
}

int tool_calls_read(struct tool_calls *calls, const struct tool_syntax *s, const char *text,
                    size_t n, const json *tools, clm_error *err)
{
    struct tool_reader r = {
        .syntax = s, .tools = tools, .out = {.sink = tool_calls_take, .user = calls}};
    int rc;

    *calls = (struct tool_calls){0};
    reader_section(&r);
    strbuf_add(&r.text, text, n);
    rc = r.text.failed ? -1 : reader_finish(&r);
    if (rc || calls->failed || calls->arguments.failed)
        rc = fail(err, CLM_ERR_NOMEM, "the tool calls in a text of %zu bytes", n);
    else if (r.why)
        rc = fail(err, CLM_ERR_FORMAT, "tool call (%s): %s", s->name, r.why);
    reader_release(&r);
    if (rc)
        tool_calls_release(calls);
    return rc;
}
