#include "template/template.h"

#include "base/memory.h"
#include "template/parse.h"
#include "template/scope.h"

/* Kept beside the tree: what the tokens and nodes point into lives in the same arena. */
template *template_parse(const char *text, size_t size, const char *name, clm_error *err)
{
    struct template *t = mem_zeroed(1, sizeof *t);
    struct tokens tokens;

    if (t)
        t->memory = arena_open(0);
    if (t && t->memory)
        t->name = arena_strdup(t->memory, name ? name : "template");
    if (!t || !t->memory || !t->name) {
        template_close(t);
        return fail_null(err, CLM_ERR_NOMEM, "%s: no memory for the template",
                         name ? name : "template");
    }
    if (lex_template(&tokens, text, size, t->name, t->memory, err) ||
        parse_template(t, &tokens, err) || scope_bind(t, err)) {
        template_close(t);
        return NULL;
    }
    return t;
}

void template_close(template *t)
{
    if (!t)
        return;
    arena_close(t->memory);
    mem_free(t);
}
