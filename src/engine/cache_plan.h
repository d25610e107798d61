/* engine/cache_plan.h: the caches that mlx-lm makes for a model, in its order, and what of a
 * sequence each of them holds.
 *
 * mlx-lm's list has an entry for each layer that remembers something. Where a layer has several
 * caches the entry is a list of them; where layers share one, the first of them has the entry.
 */
#ifndef ENGINE_CACHE_PLAN_H
#define ENGINE_CACHE_PLAN_H

#include "base/arena.h"
#include "models/model.h"

enum cache_kind {
    CACHE_KV,     /* keys and values */
    CACHE_LATENT, /* latents as keys, rotary parts of keys as values */
    CACHE_INDEX,  /* keys for choosing keys */
    CACHE_STATE,  /* of the recurrent mixers of a layer */
    CACHE_TOKENS, /* the last few tokens */
    CACHE_IDLE    /* a layer's that has no use for it */
};

struct cache_leaf {
    enum cache_kind kind;
    int cache_layer;                /* of the first three kinds */
    const struct branch_spec *spec; /* of them; of the layer's first mixer */
    const struct nn_layer *layer;   /* CACHE_STATE */
    int entry, place; /* in the file: place -1 alone in its entry, else in the entry's list */
};

struct cache_plan {
    const struct cache_leaf *leaves;
    int n_leaves, n_entries;
};

/* How far back a token sees in its chunk or window; 0: everything. */
int cache_leaf_window(const struct cache_leaf *l);

/* In the arena. CLM_ERR_UNSUPPORTED: a model with a kind of layer that files cannot hold, or one
 * that several devices compute together. */
int cache_plan_make(struct cache_plan *plan, const struct model *m, arena *a, clm_error *err);

#endif
