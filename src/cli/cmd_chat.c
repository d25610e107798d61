/* cli/cmd_chat.c: a conversation in the terminal. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "cli/chat_file.h"
#include "cli/command.h"
#include "cli/draft.h"
#include "cli/interrupt.h"
#include "cli/line_input.h"
#include "cli/lines.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/reply_screen.h"

/* A prompt this long may take a while. */
#define LONG_PROMPT 128
/* Of a file that is said; the model's context is the bound that counts. */
#define MAX_READ ((size_t)64 << 20)
#define BLOCK "\"\"\""

struct chat_args {
    struct model_options model;
    struct template_args chat;
    struct sampling_args sampling;
    struct prefix_args kept;
    struct draft_args draft;
    int max_tokens;
    int prefill_step_size;
    bool cache_files;
};

struct talk {
    const struct chat_args *args;
    struct session session;
    struct draft_session draft;
    struct sampling sampling;
    struct chat chat;
    line_input *in;
    struct reply_screen screen;
    struct progress progress;
    struct strbuf message;
    struct strbuf read;    /* from files, to go before what is said next */
    struct chat_turn turn; /* the last one that was answered */
    int turns, tokens;     /* answered and generated so far */
    bool terminal, leave, failed;
    bool warned;    /* of the length of the conversation */
    clm_error *err; /* of writing: the end of the talk */
};

/* What clm itself has to say: not among the answers when these go to a file. */
static void say(const struct talk *t, const char *text)
{
    FILE *f = t->terminal ? stdout : stderr;

    fprintf(f, "%s\n", text);
    fflush(f);
}

static void complain(struct talk *t, const char *text)
{
    if (t->terminal)
        say(t, text);
    else
        output_error(text);
    t->failed = true;
}

/* Commands. Texts stay within 40 columns. */

struct chat_command {
    const char *name, *value, *help;
    void (*run)(struct talk *t, const char *value);
    const char *others; /* names in other programs, a space behind each; NULL: none */
};

#define N_COMMANDS 10
static const struct chat_command chat_commands[N_COMMANDS];

static void answer(struct talk *t, enum chat_input kind, const char *text, size_t size);

static void run_help(struct talk *t, const char *value)
{
    char line[80];

    (void)value;
    for (const struct chat_command *c = chat_commands; c < chat_commands + N_COMMANDS; c++) {
        snprintf(line, sizeof line, "/%s %-*s %s", c->name, 12 - (int)strlen(c->name), c->value,
                 c->help);
        say(t, line);
    }
    say(t, "\\ at the end of a line: it goes on\n" BLOCK " begins and ends several lines\n"
           "// begins a line that begins with /\n"
           "Ctrl-C stops an answer, Ctrl-D leaves");
}

static void run_clear(struct talk *t, const char *value)
{
    (void)value;
    chat_clear(&t->chat);
    strbuf_clear(&t->read);
    t->warned = false;
    say(t, "The conversation starts anew.");
}

static void run_system(struct talk *t, const char *value)
{
    strbuf_clear(&t->chat.system);
    strbuf_add_str(&t->chat.system, value);
    say(t, *value ? "The system prompt is set." : "There is no system prompt now.");
}

static void say_drafts(const struct talk *t, const struct generate_result *r)
{
    struct strbuf line = {0};

    if (!t->draft.speculation)
        return;
    draft_add_statistics(&line, r);
    if (line.data)
        say(t, line.data);
    strbuf_release(&line);
}

static void run_stats(struct talk *t, const char *value)
{
    const struct generate_result *r = &t->turn.figures;
    int kept = t->args->model.max_kv_size;
    char line[80];

    (void)value;
    if (t->turns > 0) {
        snprintf(line, sizeof line, "Prompt: %d tokens, %d of them kept", r->prompt_tokens,
                 r->cached_tokens);
        say(t, line);
        snprintf(line, sizeof line, "        %.3f tokens-per-sec", prompt_speed(r));
        say(t, line);
        snprintf(line, sizeof line, "Answer: %d tokens", r->generated_tokens);
        say(t, line);
        snprintf(line, sizeof line, "        %.3f tokens-per-sec", generation_speed(r));
        say(t, line);
        say_drafts(t, r);
    }
    snprintf(line, sizeof line, "All answers: %d, %d tokens", t->turns, t->tokens);
    say(t, line);
    if (chat_context(&t->chat) > 0)
        snprintf(line, sizeof line, "Context: %d of %d tokens", chat_length(&t->chat),
                 chat_context(&t->chat));
    else if (kept > 0 && kept < chat_length(&t->chat))
        snprintf(line, sizeof line, "Context: %d of %d tokens kept", kept, chat_length(&t->chat));
    else
        snprintf(line, sizeof line, "Context: %d tokens", chat_length(&t->chat));
    say(t, line);
    snprintf(line, sizeof line, "Peak memory: %.3f GB", peak_gigabytes());
    say(t, line);
}

static const char *model_name(const struct talk *t)
{
    const char *slash = strrchr(t->session.dir, '/');

    if (t->args->model.model)
        return t->args->model.model;
    return slash && slash[1] ? slash + 1 : t->session.dir;
}

/* A file's name as it is typed: without blanks at its end, "~/" standing for the home folder. */
static int file_named(char *out, size_t size, const char *value, clm_error *err)
{
    const char *home = strncmp(value, "~/", 2) == 0 ? getenv("HOME") : NULL;
    int n = snprintf(out, size, "%s%s", home ? home : "", home ? value + 1 : value);

    if (n < 0 || (size_t)n >= size)
        return fail(err, CLM_ERR_ARG, "%.100s...: the name is too long", value);
    while (n > 0 && strchr(" \t", out[n - 1]))
        out[--n] = '\0';
    return 0;
}

static void run_save(struct talk *t, const char *value)
{
    clm_error problem = {0};
    char name[PATH_MAX];

    if (!*value)
        complain(t, "/save wants the name of a file");
    else if (file_named(name, sizeof name, value, &problem) ||
             chat_save(&t->chat, name, t->args->cache_files, t->args->model.model, &problem))
        complain(t, problem.message);
    else
        say(t, "The conversation is saved.");
}

static void run_load(struct talk *t, const char *value)
{
    clm_error problem = {0};
    char name[PATH_MAX];

    if (!*value)
        complain(t, "/load wants the name of a file");
    else if (file_named(name, sizeof name, value, &problem) ||
             chat_load(&t->chat, name, t->args->cache_files, &problem))
        complain(t, problem.message);
    else
        say(t, "The conversation goes on.");
}

static void run_read(struct talk *t, const char *value)
{
    clm_error problem = {0};
    char name[PATH_MAX];
    char *text = NULL;
    size_t size;

    if (!*value) {
        complain(t, "/read wants the name of a file");
        return;
    }
    if (file_named(name, sizeof name, value, &problem) == 0)
        text = file_read(name, MAX_READ, &size, &problem);
    if (!text) {
        complain(t, problem.message);
        return;
    }
    strbuf_add(&t->read, text, size);
    if (size > 0 && text[size - 1] != '\n')
        strbuf_add_char(&t->read, '\n');
    mem_free(text);
    say(t, "It goes before what is said next.");
}

static void run_result(struct talk *t, const char *value)
{
    char line[120];

    if (!chat_next_call(&t->chat)) {
        complain(t, "no call waits for its result");
    } else if (chat_open_calls(&t->chat) > 1) {
        chat_give_result(&t->chat, value, strlen(value));
        snprintf(line, sizeof line, "Next: the result of %.40s", chat_next_call(&t->chat)->name);
        say(t, line);
    } else {
        answer(t, CHAT_RESULT, value, strlen(value));
    }
}

static void run_again(struct talk *t, const char *value)
{
    (void)value;
    if (chat_can_retry(&t->chat))
        answer(t, CHAT_AGAIN, NULL, 0);
    else
        complain(t, "there is no answer to make anew");
}

static void run_quit(struct talk *t, const char *value)
{
    (void)value;
    t->leave = true;
}

static const struct chat_command chat_commands[N_COMMANDS] = {
    {"help", "", "this list", run_help, "? h "},
    {"clear", "", "forget what was said", run_clear, "new reset "},
    {"again", "", "answer once more", run_again, "regen retry "},
    {"read", "FILE", "say it, with what is next", run_read, NULL},
    {"system", "TEXT", "set the system prompt", run_system, NULL},
    {"stats", "", "speeds and sizes", run_stats, NULL},
    {"save", "FILE", "write what was said", run_save, NULL},
    {"load", "FILE", "go on from there", run_load, NULL},
    {"result", "TEXT", "what a call has given", run_result, NULL},
    {"quit", "", "leave; also /exit, /bye", run_quit, "exit bye q "},
};

/* Is it one of the names in a list, with a space behind each? */
static bool is_listed(const char *list, const char *name, size_t size)
{
    for (; list && *list; list += strcspn(list, " ") + 1)
        if (strcspn(list, " ") == size && strncmp(list, name, size) == 0)
            return true;
    return false;
}

static void run_command(struct talk *t, const char *line)
{
    size_t size = strcspn(line + 1, " \t");
    const char *value = line + 1 + size;
    char text[120];

    value += strspn(value, " \t");
    for (const struct chat_command *c = chat_commands; c < chat_commands + N_COMMANDS; c++) {
        if ((strlen(c->name) == size && strncmp(c->name, line + 1, size) == 0) ||
            is_listed(c->others, line + 1, size)) {
            c->run(t, value);
            return;
        }
    }
    snprintf(text, sizeof text, "no command /%.*s: see /help", size < 40 ? (int)size : 40,
             line + 1);
    complain(t, text);
}

/* Answers. */

static void take_piece(void *ctx, const struct parse_event *e)
{
    struct talk *t = ctx;

    reply_screen_add(&t->screen, e);
}

static bool show_pieces(void *ctx)
{
    struct talk *t = ctx;

    progress_erase(&t->progress);
    return reply_screen_flush(&t->screen, t->err) == 0;
}

static void show_progress(void *ctx, int done, int total)
{
    struct talk *t = ctx;

    if (total >= LONG_PROMPT)
        progress_show(&t->progress, done, total);
}

static bool was_interrupted(void *ctx)
{
    (void)ctx;
    return interrupt_seen();
}

static void say_end(const struct talk *t, enum chat_end end)
{
    char line[80];

    if (end == CHAT_STOPPED) {
        say(t, "(stopped)");
    } else if (end == CHAT_FULL) {
        say(t, "(The model's context is full:\n/clear starts a new conversation.)");
    } else if (end == CHAT_LENGTH) {
        snprintf(line, sizeof line, "(cut off: --max-tokens is %d)", t->args->max_tokens);
        say(t, line);
    }
}

/* With --max-kv-size a conversation goes on where the model's context ends. */
static void warn_length(struct talk *t)
{
    size_t most = session_made_for(&t->session);
    char line[80];

    if (t->warned || !most || (size_t)chat_length(&t->chat) <= most)
        return;
    snprintf(line, sizeof line, "(The model was made for %zu tokens:\n/clear starts anew.)", most);
    say(t, line);
    t->warned = true;
}

static void answer(struct talk *t, enum chat_input kind, const char *text, size_t size)
{
    struct chat_options o = {
        .max_tokens = t->args->max_tokens,
        .prefill_step_size = t->args->prefill_step_size,
        .speculation = t->draft.speculation,
        .ctx = t,
        .progress = show_progress,
        .interrupted = was_interrupted,
        .sink = take_piece,
        .go_on = show_pieces,
    };
    struct chat_turn turn;
    clm_error problem = {0};
    int rc;

    t->screen.begun = t->screen.line_open = false;
    rc = chat_say(&t->chat, kind, text, size, &o, &turn, &problem);
    progress_erase(&t->progress);
    reply_screen_end(&t->screen);
    if (reply_screen_flush(&t->screen, t->err))
        return;
    if (rc) {
        complain(t, problem.message);
        return;
    }
    t->turn = turn;
    t->turns++;
    t->tokens += turn.figures.generated_tokens;
    say_end(t, turn.end);
    warn_length(t);
    if (turn.same)
        say(t, sampler_draws(&t->args->sampling.sampler) ? "(the same as before)"
                                                         : "(the same as before, as --temp is 0)");
    if (chat_next_call(&t->chat))
        say(t, "(/result TEXT gives the model what\nits call has given)");
}

/* What the user says. */

static void chop(struct strbuf *b, size_t n)
{
    b->size -= n;
    b->data[b->size] = '\0';
}

static bool ends_with(const struct strbuf *b, size_t from, const char *end)
{
    size_t n = strlen(end);

    return b->size >= from + n && memcmp(b->data + b->size - n, end, n) == 0;
}

/* The lines up to one that ends with the sign, which is dropped. */
static enum line_result read_block(struct talk *t)
{
    struct strbuf *m = &t->message;
    size_t from = 0, skipped = strlen(BLOCK) + (m->data[strlen(BLOCK)] == '\n');

    memmove(m->data, m->data + skipped, m->size - skipped + 1);
    m->size -= skipped;
    while (!ends_with(m, from, BLOCK)) {
        enum line_result r;

        if (m->size > 0)
            strbuf_add_char(m, '\n');
        from = m->size;
        r = line_input_read(t->in, ". ", m, t->err);
        if (r == LINE_END)
            return LINE_READ;
        if (r != LINE_READ)
            return r;
    }
    chop(m, strlen(BLOCK));
    if (ends_with(m, 0, "\n"))
        chop(m, 1);
    return LINE_READ;
}

/* One line and those it goes on in, or a block; *command says that it is neither but a command. */
static enum line_result read_message(struct talk *t, bool *command)
{
    struct strbuf *m = &t->message;
    enum line_result r;
    bool pasted;

    *command = false;
    strbuf_clear(m);
    r = line_input_read(t->in, "> ", m, t->err);
    if (r != LINE_READ || m->size == 0)
        return r;
    if (strncmp(m->data, BLOCK, strlen(BLOCK)) == 0)
        return read_block(t);
    pasted = strchr(m->data, '\n') != NULL; /* several lines are no command */
    *command = !pasted && m->data[0] == '/' && m->data[1] != '/';
    if (!pasted && m->data[0] == '/' && !*command) {
        memmove(m->data, m->data + 1, m->size);
        m->size--;
    }
    while (!*command && r == LINE_READ && ends_with(m, 0, "\\")) {
        chop(m, 1);
        strbuf_add_char(m, '\n');
        r = line_input_read(t->in, ". ", m, t->err);
    }
    return r == LINE_END && m->size > 0 ? LINE_READ : r;
}

/* One message. Without a terminal Ctrl-C is meant for all of it. */
static int take_turn(struct talk *t)
{
    bool command;
    enum line_result r;

    interrupt_forget();
    r = read_message(t, &command);
    if (r == LINE_FAILED)
        return -1;
    if (r == LINE_END) {
        if (t->terminal)
            say(t, "");
        t->leave = true;
    } else if (r == LINE_INTERRUPTED && t->terminal && t->message.size == 0) {
        say(t, "(Ctrl-D or /quit leaves)");
    } else if (r == LINE_READ && t->message.failed) {
        return fail(t->err, CLM_ERR_NOMEM, "no memory for what was said");
    } else if (r == LINE_READ && command) {
        run_command(t, t->message.data);
    } else if (r == LINE_READ && !line_is_blank(t->message.data, t->message.size)) {
        strbuf_add(&t->read, t->message.data, t->message.size);
        if (t->read.failed)
            return fail(t->err, CLM_ERR_NOMEM, "no memory for what was said");
        answer(t, CHAT_USER, t->read.data, t->read.size);
        strbuf_clear(&t->read);
        if (t->terminal && is_listed("exit quit q ", t->message.data, t->message.size))
            say(t, "(/quit leaves)");
    }
    return t->err->code ? -1 : 0;
}

static void greet(const struct talk *t)
{
    if (!t->terminal)
        return;
    say(t, model_name(t));
    if (line_input_is_plain())
        say(t, "(clm was built without libedit:\nno line editing, no history)");
    say(t, "/help lists commands, Ctrl-D leaves\n");
}

static int talk(struct talk *t)
{
    const struct chat_args *a = t->args;
    uint64_t seed = sampling_seed(&a->sampling);

    if (session_open_text(&t->session, &a->model, a->prefill_step_size, t->err) ||
        draft_session_open(&t->draft, &a->draft, &a->model, &t->session, t->err) ||
        sampling_open(&t->sampling, &a->sampling, &t->session, seed, false, t->err) ||
        chat_open(&t->chat, &t->session, &t->sampling, &a->chat, &a->kept, t->err))
        return -1;
    sampling_warn_unused(&a->sampling);
    interrupt_catch();
    t->in = line_input_open(t->err);
    if (!t->in)
        return -1;
    t->terminal = line_input_is_terminal(t->in);
    t->screen.terminal = t->terminal;
    t->screen.dims = t->terminal && reply_screen_can_dim();
    greet(t);
    while (!t->leave) {
        if (take_turn(t))
            return -1;
        if (!t->terminal && interrupt_seen())
            return STATUS_INTERRUPTED;
    }
    return t->failed && !t->terminal ? STATUS_FAILED : STATUS_DONE;
}

static int chat_run(const void *args, clm_error *err)
{
    struct chat_args a = *(const struct chat_args *)args;
    struct talk t = {.args = &a, .progress = progress_open("Prompt", "tokens"), .err = err};
    int rc = -1;

    if (sampling_read(&a.sampling, err) == 0)
        rc = talk(&t);

    line_input_close(t.in);
    chat_close(&t.chat);
    sampling_close(&t.sampling);
    sampling_release(&a.sampling);
    draft_session_close(&t.draft);
    session_close(&t.session);
    strbuf_release(&t.screen.out);
    strbuf_release(&t.message);
    strbuf_release(&t.read);
    return rc;
}

static void chat_defaults(void *args)
{
    struct chat_args *a = args;

    a->model.quantized_kv_start = QUANTIZED_KV_START;
    sampling_defaults(&a->sampling);
    prefix_defaults(&a->kept);
    a->max_tokens = 256;
}

#define A struct chat_args

static const struct option chat_options_table[] = {
    {TABLE_OPTION(A, model, options_running)},
    {TABLE_OPTION(A, chat, options_template)},
    {TABLE_OPTION(A, chat, options_replies)},
    {INT_OR_ALL_OPTION("max-tokens", 'n', A, max_tokens, 1,
                       "how many tokens an answer has at most; all: until it or the model's "
                       "context ends (default: 256)")},
    {TABLE_OPTION(A, sampling, options_sampling)},
    {TABLE_OPTION(A, draft, options_draft)},
    {INT_OPTION("prefill-step-size", 0, A, prefill_step_size, 0, 65536,
                "how many tokens of a prompt to process at a time; fewer take less memory "
                "(default: 512, on a GPU 2048)")},
    {TABLE_OPTION(A, kept, options_prefix)},
    {FLAG_OPTION("cache-files", 0, A, cache_files,
                 "/save FILE also keeps what the model remembers, in FILE.safetensors, and /load "
                 "takes it from there instead of processing the conversation anew")},
    {0},
};

#undef A

const struct command command_chat = {
    .name = "chat",
    .summary = "a conversation in the terminal",
    .details =
        "Each line is said to the model, which answers; /help lists the commands that a line may "
        "be instead. A line that ends in a backslash goes on in the next one, and \"\"\" begins "
        "and ends several lines.\n"
        "Ctrl-C stops an answer, Ctrl-D leaves. On a terminal lines are edited and kept in "
        "~/.local/state/clm/history ($XDG_STATE_HOME). Elsewhere lines are read without a "
        "prompt; the exit status is then 1 when any of them failed.",
    .options = chat_options_table,
    .args_size = sizeof(struct chat_args),
    .defaults = chat_defaults,
    .run = chat_run,
};
