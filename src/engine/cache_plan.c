#include "engine/cache_plan.h"

#include "nn/state_pieces.h"

int cache_leaf_window(const struct cache_leaf *l)
{
    const struct attention_spec *a;

    if (l->kind != CACHE_KV)
        return 0;
    a = &l->spec->attention;
    return a->chunk ? a->chunk : a->window;
}

struct builder {
    struct cache_leaf *leaves;
    int n_leaves, n_entries;
    bool lists; /* all attention has lists, as some of it has two caches */
};

static bool is_attention(const struct branch_spec *b)
{
    return b->op == OP_MLA || (b->op == OP_ATTENTION && !b->attention.cache_of);
}

static const struct index_spec *index_of(const struct branch_spec *b)
{
    return b->op == OP_MLA ? &b->mla.index : &b->attention.index;
}

static void add(struct builder *b, struct cache_leaf leaf, bool list)
{
    const struct cache_leaf *last = b->n_leaves ? &b->leaves[b->n_leaves - 1] : NULL;

    leaf.entry = b->n_entries;
    leaf.place = !list ? -1 : last && last->entry == leaf.entry ? last->place + 1 : 0;
    b->leaves[b->n_leaves++] = leaf;
}

static void add_attention(struct builder *b, const struct nn_branch *branch, bool list)
{
    const struct branch_spec *s = branch->spec;
    struct cache_leaf leaf = {.spec = s};

    if (s->op == OP_MLA) {
        leaf.kind = CACHE_LATENT;
        leaf.cache_layer = branch->mla.cache_layer;
    } else {
        leaf.kind = CACHE_KV;
        leaf.cache_layer = branch->attention.cache_layer;
    }
    add(b, leaf, list);
    if (index_of(s)->topk) {
        leaf.kind = CACHE_INDEX;
        leaf.cache_layer =
            s->op == OP_MLA ? branch->mla.index.cache_layer : branch->attention.index.cache_layer;
        add(b, leaf, list);
    }
}

/* Layers with a matrix in place of attention have a cache all the same. */
static bool is_idle(const struct nn_layer *l)
{
    return l->n_branches && l->branches[0].spec->op == OP_LINEAR;
}

static int add_layer(struct builder *b, const struct nn_layer *l, int i, clm_error *err)
{
    struct nn_state_piece pieces[NN_STATE_PIECES];
    const struct branch_spec *mixer = NULL;
    int n_attention = 0;

    for (int k = 0; k < l->n_branches; k++) {
        const struct branch_spec *s = l->branches[k].spec;
        int n = nn_state_pieces(s, pieces);

        if (n < 0)
            return fail(err, CLM_ERR_UNSUPPORTED,
                        "what layer %d remembers cannot be kept in a file", i);
        if (n && !mixer)
            mixer = s;
        n_attention += is_attention(s);
    }
    if (mixer)
        add(b, (struct cache_leaf){.kind = CACHE_STATE, .spec = mixer, .layer = l}, n_attention);
    for (int k = 0; k < l->n_branches; k++)
        if (is_attention(l->branches[k].spec))
            add_attention(b, &l->branches[k], b->lists || mixer || n_attention > 1);
    if (!mixer && !n_attention && is_idle(l))
        add(b, (struct cache_leaf){.kind = CACHE_IDLE}, false);
    if (b->n_leaves && b->leaves[b->n_leaves - 1].entry == b->n_entries)
        b->n_entries++;
    return 0;
}

static bool any_index(const struct spec *s)
{
    for (int i = 0; i < s->n_layers; i++)
        for (int k = 0; k < s->layers[i].n_branches; k++)
            if (is_attention(&s->layers[i].branches[k]) &&
                index_of(&s->layers[i].branches[k])->topk)
                return true;
    return false;
}

int cache_plan_make(struct cache_plan *plan, const struct model *m, arena *a, clm_error *err)
{
    const struct spec *s = m->spec;
    struct builder b = {.lists = any_index(s)};

    if (m->n_shares)
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "prompt caches cannot be files where %d devices each have a share of them; use "
                    "one device",
                    m->n_shares);
    b.leaves = arena_array(a, struct cache_leaf, (size_t)s->n_layers * 2 * LAYER_MAX_BRANCHES + 1);
    if (!b.leaves)
        return fail(err, CLM_ERR_NOMEM, "no memory for the caches of %d layers", s->n_layers);
    if (s->ngram.n > 1) {
        add(&b, (struct cache_leaf){.kind = CACHE_TOKENS}, false);
        b.n_entries++;
    }
    for (int i = 0; i < s->n_layers; i++)
        if (add_layer(&b, &m->nn->layers[i], i, err))
            return -1;
    *plan = (struct cache_plan){b.leaves, b.n_leaves, b.n_entries};
    return 0;
}
