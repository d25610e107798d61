/* The public interface to conversations, replies and cache files; the model is the bundled one with
 * a template that shows thoughts and calls. */
#include "engine/copy.h"

#include <clm/clm.h>

#define BUNDLED_MODEL CLM_SOURCE_DIR "/models/storyteller-4bit"
#define TEMPLATE                                                                                   \
    "{% if tools %}<tool_call>{\"name\": ...}</tool_call>{{ tools | tojson }}{% endif %}"          \
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"                             \
    "{% if add_generation_prompt %}[assistant]{{ start or '<think>' }}{% endif %}"                 \
    "{# replies think: </think> #}"
#define TOOLS "[{\"type\": \"function\", \"function\": {\"name\": \"look\"}}]"
#define HELLO "[{\"role\": \"user\", \"content\": \"Hello\"}]"

static clm_model *model;
static clm_chat *chat;

static int open_all(void **state)
{
    static const char *const files[] = {"config.json", "model.safetensors",
                                        "model.safetensors.index.json", "generation_config.json",
                                        "tokenizer.json"};
    clm_error err = {0};

    if (temporary_setup(state))
        return -1;
    temporary_write("model/chat_template.jinja", TEMPLATE);
    temporary_write("model/tokenizer_config.json",
                    "{\"tool_parser_type\": \"json_tools\", \"eos_token\": \"<|end_of_text|>\"}");
    for (size_t i = 0; i < COUNT(files); i++)
        copy_link(BUNDLED_MODEL, "model", files[i]);
    model = clm_model_open(temporary_path("model"), NULL, &err);
    chat = model ? clm_chat_open(model, &err) : NULL;
    CHECK(chat, "%s", err.message);
    return 0;
}

static int close_all(void **state)
{
    clm_chat_close(chat);
    clm_chat_close(NULL);
    clm_model_close(model);
    return temporary_teardown(state);
}

static void check_render(const char *messages, clm_chat_options o, const char *want)
{
    clm_error err = {0};
    size_t size = 0;
    char *text = clm_chat_render(chat, messages, &o, &size, &err);

    CHECK(text, "%s", err.message);
    CHECK(size == strlen(want) && !strcmp(text, want), "\"%s\", not \"%s\"", text, want);
    clm_text_free(text);
}

static void check_refused(const char *messages, clm_chat_options o, int code)
{
    clm_error err = {0};
    size_t size = 0;

    CHECK(!clm_chat_render(chat, messages, &o, &size, &err), "%s was taken", messages);
    CHECK(err.code == code && *err.message, "code %d, not %d: %s", err.code, code, err.message);
}

static void test_render(void **state)
{
    clm_chat_options none = {0};

    (void)state;
    check_render(HELLO, none, "[user]Hello[assistant]<think>");
    check_render("[]", none, "[assistant]<think>");
    check_render(HELLO, (clm_chat_options){.variables = "{\"start\": \"!\"}"},
                 "[user]Hello[assistant]!");
    check_render("[{\"role\": \"assistant\", \"content\": \"Once\"}]",
                 (clm_chat_options){.continue_last = true}, "[assistant]Once");
    check_render(HELLO, (clm_chat_options){.tools = TOOLS},
                 "<tool_call>{\"name\": ...}</tool_call>" TOOLS "[user]Hello[assistant]<think>");
    check_refused("", none, CLM_ERR_FORMAT);
    check_refused("{}", none, CLM_ERR_FORMAT);
    check_refused("[1]", none, CLM_ERR_ARG);
    check_refused(HELLO, (clm_chat_options){.tools = "[}"}, CLM_ERR_FORMAT);
    check_refused(HELLO, (clm_chat_options){.variables = "[]"}, CLM_ERR_FORMAT);
    check_refused(HELLO, (clm_chat_options){.variables = "{\"messages\": 1}"}, CLM_ERR_ARG);
    check_refused(HELLO, (clm_chat_options){.name = "poetry"}, CLM_ERR_ARG);
}

/* Every event as a line of letter, call and text; texts of one kind are joined. */
struct heard {
    char text[1000];
    size_t size;
    clm_reply_part last;
};

static void hear(void *ctx, const clm_reply_event *e)
{
    static const char letters[] = "TRcaef";
    struct heard *h = ctx;
    bool joined = h->size && h->last == e->part &&
                  (e->part <= CLM_REPLY_REASONING || e->part == CLM_REPLY_CALL_ARGUMENTS);

    if (!joined)
        h->size += (size_t)snprintf(h->text + h->size, sizeof h->text - h->size,
                                    "|%c%d:", letters[e->part], (int)e->call);
    h->size += (size_t)snprintf(h->text + h->size, sizeof h->text - h->size, "%.*s", (int)e->size,
                                e->text ? e->text : "");
    h->last = e->part;
}

static void check_reply(const char *prompt, size_t piece, const char *want)
{
    static const char reply[] = "I see.</think>Well <b>\xC3\xA9 <tool_call>{\"name\": \"look\", "
                                "\"arguments\": {\"at\": 1}}</tool_call>"
                                "<tool_call>nothing</tool_call>";
    clm_chat_options o = {.tools = TOOLS};
    struct heard h = {.size = 0};
    clm_error err = {0};
    clm_reply *r = clm_reply_open(chat, prompt, strlen(prompt), &o, hear, &h, &err);

    CHECK(r, "%s", err.message);
    for (size_t i = 0; i < sizeof reply - 1; i += piece) {
        size_t left = sizeof reply - 1 - i;

        CHECK(!clm_reply_add(r, reply + i, left < piece ? left : piece, &err), "%s", err.message);
    }
    CHECK(!clm_reply_finish(r, &err), "%s", err.message);
    clm_reply_close(r);
    CHECK(!strncmp(h.text, want, strlen(want)), "pieces of %zu: %s", piece, h.text);
}

static void test_reply(void **state)
{
    clm_chat_options bad = {.tools = "{}"};
    clm_error err = {0};

    (void)state;
    for (size_t piece = 1; piece < 200; piece = piece * 2 + 1) {
        check_reply("[assistant]<think>", piece,
                    "|R0:I see.|T0:Well <b>\xC3\xA9 |c0:look|a0:{\"at\": 1}|e0:|f1:");
        check_reply("[assistant]<think>no</think>", piece, "|T0:I see.");
        check_reply("[user]What is <think>?[assistant]", piece, "|T0:I see.");
        check_reply("[user]What is </think>?[assistant]<think>", piece, "|R0:I see.|T0:Well");
    }
    CHECK(!clm_reply_open(chat, NULL, 0, &bad, hear, NULL, &err) && err.code == CLM_ERR_FORMAT,
          "tools that are no list were taken");
    clm_reply_close(NULL);
}

/* What is loaded goes on as what was saved does, to the bit, and tells its tokens. */
static void test_files(void **state)
{
    static const int32_t tokens[] = {0, 100, 200, 300, 400, 7};
    const char *path = temporary_path("cache.safetensors");
    clm_error err = {0};
    clm_engine *e = clm_engine_open(model, NULL, &err);
    clm_sequence *s = clm_sequence_open(e, &err), *loaded;
    size_t size = (size_t)clm_model_vocab_size(model) * sizeof(float);
    const float *logits;
    float *first = malloc(size);

    (void)state;
    CHECK(s && first, "%s", err.message);
    CHECK(clm_sequence_save(s, path, &err) && err.code == CLM_ERR_ARG, "nothing was saved");
    err = (clm_error){0};
    CHECK(!clm_sequence_eval(s, tokens, 5, &logits, &err), "%s", err.message);
    CHECK(!clm_sequence_save(s, path, &err), "%s", err.message);
    CHECK(!clm_sequence_eval(s, tokens + 5, 1, &logits, &err), "%s", err.message);
    memcpy(first, logits, size);
    loaded = clm_sequence_load(e, path, &err);
    CHECK(loaded, "%s", err.message);
    CHECK(clm_sequence_length(loaded) == 5 &&
              !memcmp(clm_sequence_tokens(loaded), tokens, 5 * sizeof *tokens),
          "other tokens");
    CHECK(!clm_sequence_eval(loaded, tokens + 5, 1, &logits, &err), "%s", err.message);
    CHECK(!memcmp(first, logits, size), "it goes on in another way");
    CHECK(clm_sequence_tokens(loaded)[5] == 7, "the new token is not told");
    CHECK(!clm_sequence_load(e, temporary_path("none"), &err) && err.code == CLM_ERR_IO, "%s",
          err.message);
    err = (clm_error){0};
    CHECK(clm_sequence_save(loaded, temporary_path("no/folder"), &err) && err.code == CLM_ERR_IO,
          "no folder");
    clm_sequence_close(loaded);
    clm_sequence_close(s);
    clm_engine_close(e);
    free(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_render),
        cmocka_unit_test(test_reply),
        cmocka_unit_test(test_files),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
