#include "models/share.h"

#include "base/memory.h"

/* Ranges begin at multiples of this where that leaves something for every device: kernels like it.
 */
#define PREFERRED 64

/* The share number rank of n of count things, in whole units; n is 0 where there are too few. */
static struct range share_of(int count, int unit, int rank, int n)
{
    int64_t units = ((int64_t)count + unit - 1) / unit;
    int64_t first = units * rank / n * unit, end = units * (rank + 1) / n * unit;

    if (units < n)
        return (struct range){0, 0};
    return (struct range){(int)first, (int)((end < count ? end : count) - first)};
}

/* The fewest of count things of so many numbers each that are whole groups; all if no fewer are. */
static int unit_of(int count, int size, int group)
{
    for (int unit = 1; unit < count; unit++)
        if ((int64_t)unit * size % group == 0)
            return unit;
    return count;
}

static int common_multiple(int a, int b)
{
    int64_t m = a;

    while (m % b)
        m += a;
    return m <= INT32_MAX ? (int)m : INT32_MAX;
}

/* The columns of a matrix can be parted at multiples of this; 0: nowhere. */
static int column_group(const struct nn_linear *l)
{
    int group = l->w.group_size > 0 ? l->w.group_size : 1;

    if (l->order)
        return 0;
    return l->rotation.signs ? common_multiple(group, l->rotation.block) : group;
}

/* Attention */

/* The matrix that reads what heads have found; NULL: there are no heads that could be parted. */
static const struct nn_linear *reads_heads(const struct nn_branch *b)
{
    const struct attention_spec *a = &b->spec->attention;

    if (b->spec->op == OP_MLA)
        return b->spec->mla.index.block_size ? NULL : &b->mla.o_proj;
    if (b->spec->op == OP_DELTA)
        return &b->delta.o_proj;
    if (b->spec->op != OP_ATTENTION || a->tiled || a->kv_conv || a->blocks.size ||
        a->index.block_size || a->o_norm.kind != NORM_NONE ||
        (a->qk_norm_span == QK_NORM_ALL &&
         (a->q_norm.kind != NORM_NONE || a->k_norm.kind != NORM_NONE)))
        return NULL;
    return &b->attention.o_proj;
}

/* Heads of so many numbers, of which some share one of n_kv_heads, as many as there are devices or
 * more: these are parted. */
static struct branch_share by_kv_heads(int n_heads, int n_kv_heads, int size, int group, int rank,
                                       int n)
{
    int per = n_heads / n_kv_heads;
    struct range kv = share_of(n_kv_heads, unit_of(n_kv_heads, per * size, group), rank, n);

    return (struct branch_share){
        .heads_cut = kv.n > 0, .heads = {kv.first * per, kv.n * per}, .kv_heads = kv};
}

/* Or fewer: the heads of each are parted, among as many devices for every one. */
static struct branch_share by_heads(const struct attention_spec *a, int size, int group, int rank,
                                    int n)
{
    int per = a->n_heads / a->n_kv_heads, sharing = n / a->n_kv_heads;
    int kv_head = rank / sharing;
    struct range heads;

    if (n % a->n_kv_heads || (a->n_kv_heads > 1 && (int64_t)per * size % group))
        return (struct branch_share){0};
    heads = share_of(per, unit_of(per, size, group), rank % sharing, sharing);
    return (struct branch_share){.heads_cut = heads.n > 0,
                                 .heads = {kv_head * per + heads.first, heads.n},
                                 .kv_heads = {kv_head, 1}};
}

static struct branch_share share_of_heads(const struct branch_spec *s, int group, int rank, int n)
{
    const struct attention_spec *a = &s->attention;
    int size = s->op == OP_MLA ? s->mla.v_dim : a->v_dim ? a->v_dim : a->head_dim;

    if (s->op == OP_MLA) {
        struct range heads =
            share_of(s->mla.n_heads, unit_of(s->mla.n_heads, size, group), rank, n);

        return (struct branch_share){.heads_cut = heads.n > 0, .heads = heads};
    }
    if (s->op == OP_DELTA)
        return by_kv_heads(s->delta.n_heads, s->delta.n_key_heads, s->delta.value_dim, group, rank,
                           n);
    return a->n_kv_heads >= n ? by_kv_heads(a->n_heads, a->n_kv_heads, size, group, rank, n)
                              : by_heads(a, size, group, rank, n);
}

/* Plan */

static bool heads_alike(const struct branch_spec *a, const struct branch_spec *b)
{
    return a->op == OP_ATTENTION && b->op == OP_ATTENTION &&
           a->attention.n_heads == b->attention.n_heads &&
           a->attention.n_kv_heads == b->attention.n_kv_heads &&
           a->attention.head_dim == b->attention.head_dim &&
           a->attention.v_dim == b->attention.v_dim;
}

/* The first attention of a layer, whose keys others read. */
static const struct branch_spec *attention_of(const struct layer_spec *l)
{
    for (int b = 0; b < l->n_branches; b++)
        if (l->branches[b].op == OP_ATTENTION)
            return &l->branches[b];
    return NULL;
}

/* What is known of layers whose attention reads what others have: linked at all, and whether all of
 * it is cut alike if it is cut. */
struct links {
    bool any, alike;
    const struct branch_spec *kept; /* the last whose keys are kept for later ones */
};

static void add_link(struct links *l, const struct branch_spec *s, const struct branch_spec *other)
{
    l->any = true;
    l->alike = l->alike && other && heads_alike(s, other);
}

static void look_at(struct links *l, const struct spec *spec, const struct branch_spec *s)
{
    const struct attention_spec *a = &s->attention;

    if (a->cache_of)
        add_link(l, s, attention_of(&spec->layers[a->cache_of - 1]));
    if (a->mixed_with)
        add_link(l, s, attention_of(&spec->layers[a->mixed_with - 1]));
    if (a->kv_source == KV_TAKEN)
        add_link(l, s, l->kept);
    if (a->kv_source == KV_KEPT) {
        /* All of them keep keys in the same place. */
        add_link(l, s, l->kept ? l->kept : s);
        l->kept = s;
    }
}

struct share_plan share_plan_of(const struct nn_model *m, int n)
{
    struct share_plan p = {.model = m, .n = n, .head_group = 1};
    struct links links = {.alike = true};
    bool all_parted = true;

    for (int i = 0; i < m->spec->n_layers; i++)
        for (int b = 0; b < m->layers[i].n_branches; b++) {
            const struct nn_branch *branch = &m->layers[i].branches[b];
            const struct nn_linear *out = reads_heads(branch);
            int group = out ? column_group(out) : 0;

            if (branch->spec->op == OP_ATTENTION) {
                look_at(&links, m->spec, branch->spec);
                all_parted = all_parted && group;
            }
            if (group)
                p.head_group = common_multiple(p.head_group, group);
        }
    for (int i = 0; i < m->spec->n_layers && all_parted; i++)
        for (int b = 0; b < m->layers[i].n_branches; b++) {
            const struct branch_spec *s = m->layers[i].branches[b].spec;

            if (s->op == OP_ATTENTION && !share_of_heads(s, p.head_group, 0, n).heads_cut)
                all_parted = false;
        }
    p.whole_heads = links.any && !(links.alike && all_parted);
    return p;
}

/* Feed-forward blocks */

static struct range share_of_numbers(int count, int group, int rank, int n)
{
    int preferred = common_multiple(group, PREFERRED);

    return share_of(count, (int64_t)preferred * n <= count ? preferred : group, rank, n);
}

static struct range share_of_mlp(const struct mlp_spec *s, const struct nn_linear *down, int rank,
                                 int n)
{
    int group = column_group(down);

    if (!group || s->thinned || s->shifted || s->inner_norm.kind != NORM_NONE)
        return (struct range){0, 0};
    return share_of_numbers(s->intermediate_size, group, rank, n);
}

static struct branch_share share_of_moe(const struct nn_moe *m, int rank, int n)
{
    const struct moe_spec *s = m->spec;
    struct nn_linear down = {.w = m->down_proj.w[0]}; /* all are stored alike */
    struct branch_share share = {.inner = share_of_mlp(&s->expert, &down, rank, n)};

    if (s->shared.intermediate_size)
        share.shared = share_of_mlp(&s->shared, &m->shared.down_proj, rank, n);
    share.inner_cut = share.inner.n > 0;
    share.shared_cut = share.shared.n > 0;
    return share;
}

struct branch_share share_of_branch(const struct share_plan *p, int layer, int branch, int rank)
{
    const struct nn_branch *b = &p->model->layers[layer].branches[branch];
    struct branch_share share = {0};

    switch (b->spec->op) {
    case OP_ATTENTION:
    case OP_MLA:
    case OP_DELTA:
        if (!(p->whole_heads && b->spec->op == OP_ATTENTION) && reads_heads(b) &&
            column_group(reads_heads(b)))
            share = share_of_heads(b->spec, p->head_group, rank, p->n);
        return share;
    case OP_MLP:
        share.inner = share_of_mlp(&b->spec->mlp, &b->mlp.down_proj, rank, p->n);
        share.inner_cut = share.inner.n > 0;
        return share;
    case OP_MOE:
        return share_of_moe(&b->moe, rank, p->n);
    default:
        return share;
    }
}

struct range share_of_logits(const struct share_plan *p, int rank)
{
    return share_of_numbers(p->model->spec->vocab_size, 1, rank, p->n);
}

/* Places */

static struct share_cut cut(int kind, struct range range, int size)
{
    return (struct share_cut){kind, {range.first * size, range.n * size}};
}

static struct share_cut cut_of_attention(const struct attention_spec *a,
                                         const struct branch_share *s, enum weight_role role)
{
    int v_dim = a->v_dim ? a->v_dim : a->head_dim;
    bool each = a->qk_norm_span == QK_NORM_EACH;

    switch (role) {
    case ROLE_Q_PROJ:
        return cut(CUT_ROWS, s->heads, a->head_dim);
    case ROLE_K_PROJ:
        return cut(CUT_ROWS, s->kv_heads, a->head_dim);
    case ROLE_V_PROJ:
        return cut(CUT_ROWS, s->kv_heads, v_dim);
    case ROLE_O_PROJ:
        return cut(CUT_COLUMNS, s->heads, v_dim);
    case ROLE_ATTENTION_GATE:
        return cut(CUT_ROWS, s->heads, a->gate == GATE_HEADS ? 1 : v_dim);
    case ROLE_SINKS:
    case ROLE_HEAD_GAIN:
        return cut(CUT_ROWS, s->heads, 1);
    case ROLE_MIX_GATE:
        return cut(CUT_PARTS, s->heads, 1);
    case ROLE_Q_NORM:
        return each ? cut(CUT_PARTS, s->heads, 1) : (struct share_cut){0};
    case ROLE_K_NORM:
        return each ? cut(CUT_PARTS, s->kv_heads, 1) : (struct share_cut){0};
    default:
        return (struct share_cut){0};
    }
}

static struct share_cut cut_of_mla(const struct mla_spec *m, const struct branch_share *s,
                                   enum weight_role role)
{
    switch (role) {
    case ROLE_MLA_Q:
        return cut(CUT_ROWS, s->heads, m->nope_dim + m->rope_dim);
    case ROLE_MLA_EMBED_Q:
    case ROLE_MLA_UNEMBED:
        return cut(CUT_PARTS, s->heads, 1);
    case ROLE_ATTENTION_GATE:
        return cut(CUT_ROWS, s->heads, m->gate == GATE_HEADS ? 1 : m->v_dim);
    case ROLE_MLA_O:
        return cut(CUT_COLUMNS, s->heads, m->v_dim);
    default:
        return (struct share_cut){0};
    }
}

static struct share_cut cut_of_delta(const struct delta_spec *d, const struct branch_share *s,
                                     enum weight_role role)
{
    switch (role) {
    case ROLE_DELTA_Q:
    case ROLE_DELTA_K:
        return cut(CUT_ROWS, s->kv_heads, d->key_dim);
    case ROLE_DELTA_CONV_Q:
    case ROLE_DELTA_CONV_K:
        return cut(CUT_ROWS, s->kv_heads, d->key_dim * d->conv_width);
    case ROLE_DELTA_V:
    case ROLE_DELTA_GATE:
        return cut(CUT_ROWS, s->heads, d->value_dim);
    case ROLE_DELTA_CONV_V:
        return cut(CUT_ROWS, s->heads, d->value_dim * d->conv_width);
    case ROLE_DELTA_DECAY:
    case ROLE_DELTA_DT_BIAS:
        return cut(CUT_ROWS, s->heads, d->keywise ? d->key_dim : 1);
    case ROLE_DELTA_BETA:
    case ROLE_DELTA_A:
        return cut(CUT_ROWS, s->heads, 1);
    case ROLE_DELTA_O:
        return cut(CUT_COLUMNS, s->heads, d->value_dim);
    default:
        return (struct share_cut){0};
    }
}

static struct share_cut cut_of_inner(const struct branch_share *s, enum weight_role role)
{
    switch (role) {
    case ROLE_GATE_PROJ:
    case ROLE_UP_PROJ:
    case ROLE_EXPERT_GATE:
    case ROLE_EXPERT_UP:
        return s->inner_cut ? cut(CUT_ROWS, s->inner, 1) : (struct share_cut){0};
    case ROLE_DOWN_PROJ:
    case ROLE_EXPERT_DOWN:
        return s->inner_cut ? cut(CUT_COLUMNS, s->inner, 1) : (struct share_cut){0};
    case ROLE_SHARED_GATE:
    case ROLE_SHARED_UP:
        return s->shared_cut ? cut(CUT_ROWS, s->shared, 1) : (struct share_cut){0};
    case ROLE_SHARED_DOWN:
        return s->shared_cut ? cut(CUT_COLUMNS, s->shared, 1) : (struct share_cut){0};
    default:
        return (struct share_cut){0};
    }
}

struct share_cut share_cut_of(const struct share_plan *p, const struct nn_slot *slot, int rank)
{
    const struct branch_spec *b;
    struct branch_share share;

    if (slot->role == ROLE_LM_HEAD || slot->role == ROLE_HEAD_BIAS)
        return cut(CUT_ROWS, share_of_logits(p, rank), 1);
    if (slot->layer < 0)
        return (struct share_cut){0};
    b = &p->model->spec->layers[slot->layer].branches[slot->branch];
    share = share_of_branch(p, slot->layer, slot->branch, rank);
    if (b->op == OP_DELTA && share.heads_cut)
        return cut_of_delta(&b->delta, &share, slot->role);
    if (b->op == OP_MLA && share.heads_cut)
        return cut_of_mla(&b->mla, &share, slot->role);
    if (b->op == OP_ATTENTION && share.heads_cut)
        return cut_of_attention(&b->attention, &share, slot->role);
    return cut_of_inner(&share, slot->role);
}
