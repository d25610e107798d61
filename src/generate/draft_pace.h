/* generate/draft_pace.h: how many drafts are worth their time.
 *
 * Checking a draft costs a row in a step, guessing it time of its own; what comes of it is a token
 * more, as often as guesses are right. All three are measured as text is made, and the number of
 * drafts is chosen that gives the most tokens a second. What is not known is thought of well, and
 * so tried; an account of time saved and lost, which starts with little, bounds what trying may
 * cost: drafts must be affordable even if all of them are wrong, where only much trusted ones may
 * take a little more than is there. So text never takes more than a few percent longer than without
 * drafts.
 *
 * Steps of answers alone and steps that also have rows of prompts differ in what a draft costs, and
 * have one account. What drafters read of texts has an account of its own. Before it is known
 * how well one guesses it must not be overdrawn; then it may be, and drafts pay for it.
 */
#ifndef GENERATE_DRAFT_PACE_H
#define GENERATE_DRAFT_PACE_H

#include <stdbool.h>

#include "generate/drafter.h"
#include "generate/step_time.h"

/* Steps with more rows of answers than this have no drafts: there arithmetic costs more than
 * weights. */
#define PACE_ROWS STEP_ROWS

/* Drafts so far into a guess count together. */
#define PACE_DEPTHS 8

/* How often the drafts of each trust were right whose predecessors were, at each depth. Start from
 * {0}. */
struct draft_odds {
    float hits[DRAFT_TRUSTS][PACE_DEPTHS], tries[DRAFT_TRUSTS][PACE_DEPTHS];
};

/* Start from {0}. */
struct draft_pace {
    struct draft_odds odds; /* of all texts */
    struct step_time times;
    double guess_seconds; /* to guess one token more, for all texts at once */
    int n_guesses;        /* times that was measured */
    double read_seconds;  /* of the drafter, to read a token that it is behind */
    int n_reads;
    double account, reading; /* seconds; the second for reading */
    double granted;          /* part of what both begin with that they have */
    int steps, left;         /* made, and to come if every text goes as far as it may */
    bool goes_back;          /* a wrong draft makes right ones be evaluated again */
    /* Of steps of answers alone, and of those with rows of prompts: */
    bool opened[2];     /* enough is known to go by */
    int since_plain[2]; /* steps since the last one without drafts */
    int since_probe, probe_interval;
};

/* A text before a step. */
struct paced_text {
    const struct draft_odds *odds; /* its own */
    int rows;                      /* of the step without drafts, >= 1 */
    int trust, possible;           /* of its draft_job, as are behind and tail */
    int behind, tail;
    int left; /* tokens that may come of it at most */
    /* Set by draft_pace_plan: */
    int n_drafts;
    int reads;   /* tokens to read before; 0: so few that guessing includes it */
    bool whole;  /* all that it is behind, and not only the tail */
    bool proven; /* how often drafts of its trust are right is known */
};

/* Choose how many drafts each of texts [n] gets, n >= 1: all that go on in the step, which can have
 * so many rows besides those of prompts. */
void draft_pace_plan(struct draft_pace *p, struct paced_text *texts, int n, int prompt_rows,
                     int most_rows);

/* A text's drafts were checked, and so many of them were right. */
void draft_odds_learn(struct draft_odds *o, int trust, int n_drafts, int n_right);

/* A step and what came of it. */
struct paced_step {
    int n_texts, rows; /* rows: of the texts, with drafts */
    int prompt_rows;
    int n_tokens; /* chosen */
    int depth;    /* drafts of the text that had most */
    int read;     /* tokens, of all that had drafts */
    double guess_seconds, step_seconds;
};

void draft_pace_learn(struct draft_pace *p, const struct paced_step *s);

#endif
