/* cli/draft.h: what guesses tokens ahead of the model, as the user says it. */
#ifndef CLI_DRAFT_H
#define CLI_DRAFT_H

#include "cli/session.h"
#include "generate/generate.h"

struct draft_args {
    const char *model; /* NULL: none */
    bool lookup;
    int n_tokens; /* at most; 0: as many as are worth it */
};

extern const struct option options_draft[]; /* for a struct draft_args */

/* Start from {0}. */
struct draft_session {
    struct session small;     /* on the device of the model; empty without one */
    speculation *speculation; /* NULL: nothing guesses */
};

/* For the model of a session, which is run as o says. Nothing asked for is not an error. */
int draft_session_open(struct draft_session *d, const struct draft_args *a,
                       const struct model_options *o, const struct session *session,
                       clm_error *err);
void draft_session_close(struct draft_session *d); /* after all texts; a zeroed one is fine */

/* "Drafts: 12 guessed, 8 right, 40.0 % of the text" */
void draft_add_statistics(struct strbuf *b, const struct generate_result *r);

#endif
