/* Which syntax a model's tool calls have, and between which tags it thinks: told by the text of its
 * chat template and the tokens of its vocabulary. */
#include "base/memory.h"
#include "parse/syntax.h"

static bool shows(const struct model_traits *m, const char *text)
{
    return m->chat_template && strstr(m->chat_template, text);
}

static bool has_token(const struct model_traits *m, const char *token)
{
    return m->has_token && m->has_token(m->vocabulary, token);
}

/* A rule holds where the template shows the first text and, where there is one, the second. */
struct rule {
    const char *first, *second, *syntax;
};

/* In mlx_lm's order: the first that holds. */
static const struct rule reference_rules[] = {
    {"<minimax:tool_call>", NULL, "minimax_m2"},
    {"<|tool_call>", "<tool_call|>", "gemma4"},
    {"<start_function_call>", NULL, "function_gemma"},
    {"<longcat_tool_call>", NULL, "longcat"},
    {"<arg_key>", NULL, "glm47"},
    {"<|tool_list_start|>", NULL, "pythonic"},
    {"<|tool_call_start|>", NULL, "pythonic"},
    {"<tool_call>\\n<function=", NULL, "qwen3_coder"},
    {"<tool_call>\n<function=", NULL, "qwen3_coder"},
    {"<|tool_calls_section_begin|>", NULL, "kimi_k2"},
    {"<function name=\"", "<param name=\"", "minicpm5"},
    {"[TOOL_CALLS]", NULL, "mistral"},
    {"<atem:function_calls>", NULL, "muse_spark"},
    {"<tool_call>", "tool_call.name", "json_tools"},
};

/* What it does not know. */
static const struct rule more_rules[] = {
    {"<|START_ACTION|>", NULL, "command_r"},
    {"<｜tool▁calls▁begin｜>", NULL, "deepseek_v3"},
    {"｜DSML｜", "function_calls>", "deepseek_v32"},
    {"｜DSML｜", "tool_calls>", "deepseek_v4"},
    {"<|channel|>", "<|message|>", "harmony"},
    {"<TOOLCALL>", NULL, "nemotron"},
    {"<|tools_prefix|>", NULL, "apertus"},
    {"<|open|>", "<|sep|>", "kimi_k3"},
    {"<tool_call>", "\"arguments\"", "json_tools"},
    {"<tool_call>", "\\\"arguments\\\"", "json_tools"},
    {"<|python_start|>", NULL, "llama4"},
    {"<|python_tag|>", NULL, "llama3"},
    {"{\"name\": function name, \"parameters\":", NULL, "llama3"},
    {"Action: ```json", "tool_name", "command_r_plus"},
    {"Action:```json", "tool_name", "command_r_plus"},
};

static const struct tool_syntax *first_that_holds(const struct model_traits *m,
                                                  const struct rule *rules, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (shows(m, rules[i].first) && (!rules[i].second || shows(m, rules[i].second)))
            return syntax_by_name(rules[i].syntax);
    return NULL;
}

/* The vocabulary of Kimi K3's format. */
static bool has_xtml(const struct model_traits *m)
{
    return has_token(m, "<|open|>") && has_token(m, "<|close|>") && has_token(m, "<|sep|>") &&
           has_token(m, "<|end_of_msg|>");
}

const struct tool_syntax *syntax_infer(const struct model_traits *m)
{
    const struct tool_syntax *found = m->tool_parser ? syntax_by_name(m->tool_parser) : NULL;

    if (!found)
        found = first_that_holds(m, reference_rules, COUNT(reference_rules));
    if (found)
        return found;
    if (has_xtml(m))
        return syntax_by_name("kimi_k3");
    if (has_token(m, "<|tool_call_start|>") && has_token(m, "<|tool_call_end|>"))
        return syntax_by_name("pythonic");
    return first_that_holds(m, more_rules, COUNT(more_rules));
}

/* mlx_lm's, in its order, then others. */
static const struct thinking tags[] = {
    {"<think>", "</think>"},
    {"<longcat_think>", "</longcat_think>"},
    {"<|think:start|>", "<|think:end|>"},
    {"<|START_THINKING|>", "<|END_THINKING|>"},
    {"[THINK]", "[/THINK]"},
    {"<seed:think>", "</seed:think>"},
    {"<|inner_prefix|>", "<|inner_suffix|>"},
    {"<|begin_of_thought|>", "<|end_of_thought|>"},
};
#define REFERENCE_TAGS 3

static struct thinking first_in_vocabulary(const struct model_traits *m, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++)
        if (has_token(m, tags[i].start) && has_token(m, tags[i].end))
            return tags[i];
    return (struct thinking){0};
}

struct thinking thinking_infer(const struct model_traits *m)
{
    struct thinking found = first_in_vocabulary(m, 0, REFERENCE_TAGS);

    if (found.start)
        return found;
    if (has_token(m, "<|channel>") && has_token(m, "<channel|>"))
        return (struct thinking){"<|channel>thought", "<channel|>"};
    if (has_xtml(m))
        return (struct thinking){"<|open|>think<|sep|>", "<|close|>think<|sep|>"};
    found = first_in_vocabulary(m, REFERENCE_TAGS, COUNT(tags));
    /* Tags that are no tokens of their own are still written, where the template has them. */
    for (size_t i = 0; i < COUNT(tags) && !found.start; i++)
        if (shows(m, tags[i].start) && shows(m, tags[i].end))
            found = tags[i];
    return found;
}

/* Behind the last place of a text; 0: it is nowhere. */
static size_t behind_last(const char *s, size_t n, const char *what)
{
    size_t size = strlen(what);

    for (size_t i = n >= size ? n - size + 1 : 0; i-- > 0;)
        if (memcmp(s + i, what, size) == 0)
            return i + size;
    return 0;
}

bool thinking_is_open(const struct thinking *t, const struct message_ends *ends, const char *prompt,
                      size_t n)
{
    size_t opened = t->start ? behind_last(prompt, n, t->start) : 0, closed = 0;

    if (!opened)
        return false;
    if (ends->token)
        closed = behind_last(prompt, n, ends->token);
    for (size_t i = 0; i < COUNT(ends->leads); i++)
        if (ends->leads[i][0] && behind_last(prompt, n, ends->leads[i]) > closed)
            closed = behind_last(prompt, n, ends->leads[i]);
    return opened > closed && opened > behind_last(prompt, n, t->end);
}
