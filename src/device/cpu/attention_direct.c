/* device/cpu/attention_direct.c: attention the direct way, see attention.c.
 *
 * Keys and values are read where they lie, as far as can be in the order of memory, where the same
 * rows of all heads are neighbours: of each chunk the keys and values of one head after another, if
 * kernels take both at once, or else the keys of each and then the values.
 */
#include "device/cpu/attention_piece.h"

enum {
    WAITING_NUMBERS = 16384, /* of stretches that meet several fours of queries at once */
    LONG_RUN = 16384,        /* bytes of a head's rows that follow one another, of which */
    LEAD = 8192              /* so many are called for before they are read */
};

/* The queries as kernels that read codes take them. */
static const struct cpu_rounded *rounded(struct state *st, const struct kv_layer *at)
{
    if (st->rounded_bits != at->bits || st->rounded_group != at->group_size)
        st->call->kernels->round_queries(&st->rounded, st->q, st->call->k_cols, st->n_queries,
                                         at->k_dim, at->group_size, at->bits);
    st->rounded_bits = at->bits;
    st->rounded_group = at->group_size;
    return &st->rounded;
}

/* Do kernels->paired take the rows of this pool? */
static bool is_paired(const struct state *st, const struct kv_layer *at)
{
    return st->call->kernels->paired && st->n_queries >= 3 && !at->bits && at->type != DTYPE_F32;
}

static struct cpu_paired_queries turned(struct state *st, cpu_turn *turn, enum dtype type)
{
    const struct attend_call *call = st->call;

    if (st->turned_by != turn || st->turned_type != type)
        turn(st->turned, st->q, call->k_cols, st->n_queries, call->kv->k_dim, type);
    st->turned_by = turn;
    st->turned_type = type;
    return (struct cpu_paired_queries){st->q, call->k_cols, st->n_queries, st->turned};
}

/* The scores of the stretches that wait, or with values what these weigh. */
static void treat_waiting(struct state *st, bool values)
{
    const struct attend_call *call = st->call;
    const struct cpu_paired_attention *k = call->kernels->paired;
    enum dtype type = st->waiting_type;
    struct cpu_paired_queries q;

    if (st->n_waiting == 0)
        return;
    if (values) {
        k->weigh[type](st->acc, call->v_cols, st->s, st->chunk, st->n_queries, st->waiting,
                       st->n_waiting, call->kv->v_dim);
    } else {
        q = turned(st, k->turn, type);
        k->scores[type](st->s, st->chunk, &q, st->waiting, st->n_waiting, call->kv->k_dim);
    }
    st->n_waiting = st->keys_waiting = 0;
}

/* Stretches that several fours of queries meet in turn should be found in the nearest cache. */
static void wait_with(struct state *st, const struct kv_rows *rows, const void *ahead, int key,
                      int n, int dim, bool values)
{
    int most = st->n_queries > 4 ? WAITING_NUMBERS / dim : st->chunk;

    if (rows->type != st->waiting_type || st->n_waiting == CPU_STRETCHES ||
        st->keys_waiting + n > most)
        treat_waiting(st, values);
    st->waiting_type = rows->type;
    st->waiting[st->n_waiting++] = (struct cpu_stretch){rows->data, ahead, key, n};
    st->keys_waiting += n;
}

/* Do so many rows of a head follow one another that what is read next lies LEAD further on? */
static bool is_long(const struct kv_layer *at, int dim)
{
    return !at->bits && (size_t)kv_row_tokens(at) * dtype_size(at->type) * (size_t)dim >= LONG_RUN;
}

/* What to call for during n keys of a head: those of the next one, or values. */
static const void *after_keys(const struct state *st, const struct kv_layer *at, const char *block,
                              int place, int n)
{
    int head = st->piece->kv_head;
    bool further = is_long(at, at->k_dim), last = !further && head + 1 == st->end_head;
    struct kv_part part = last ? kv_values(at) : kv_keys(at);
    const char *rows = kv_rows_ahead(at, &part, block,
                                     further ? head
                                     : last  ? st->first_head
                                             : head + 1,
                                     place, n);

    return further ? rows + LEAD : rows;
}

static void score_stretch(struct state *st, const struct kv_layer *at, char *block, int place,
                          int key, int n)
{
    const struct attend_call *call = st->call;
    int head = st->piece->kv_head;
    const void *ahead = after_keys(st, at, block, place, n);

    if (kv_reads_codes(call->kernels, at, at->k_dim)) {
        struct cpu_codes codes = kv_key_codes(call->kernels, at, block, head, place, n, st->room);

        codes.ahead = at->v_dim == at->k_dim ? ahead : NULL;
        call->kernels->score_codes(st->s + key, st->chunk, rounded(st, at), st->n_queries, &codes,
                                   n);
    } else {
        struct kv_rows rows = kv_read_keys(call->kernels, at, block, head, place, n, st->room);

        if (is_paired(st, at))
            wait_with(st, &rows, ahead, key, n, at->k_dim, false);
        else
            call->kernels->scores[rows.type](st->s + key, st->chunk, st->q, call->k_cols,
                                             st->n_queries, rows.data, n, at->k_dim,
                                             at->bits ? NULL : ahead);
    }
}

/* Those keys of a piece [key, key + n), all of which it visits. */
static bool has_keys(const struct piece *p, int key, int n)
{
    return key >= p->first_key && key + n <= p->end_key &&
           (key >= p->hole_end || key + n <= p->hole);
}

/* Where the next head's keys or values lie, or else those of the next chunk, or piece. */
static const void *rows_of_next(const struct state *st, const struct kv_layer *at,
                                const char *block, int place, int key, int n, bool values,
                                bool values_else)
{
    const struct kv_layer *kv = st->call->kv;
    const struct piece *p = st->piece;
    int head = p->kv_head + 1, next = st->base + key + st->chunk;
    struct kv_part part;

    if (head < st->end_head) {
        part = values ? kv_values(at) : kv_keys(at);
        return kv_rows_ahead(at, &part, block, head, place, n);
    }
    head = st->first_head;
    if (next >= p->end_key && st->next) {
        p = st->next;
        head = p->kv_head;
        next = p->first_key / st->chunk * st->chunk + key;
    }
    if (!has_keys(p, next, n) || kv_of(kv, p->s, next) != at)
        return NULL;
    part = values_else ? kv_values(at) : kv_keys(at);
    block = kv_block_of(kv, p->s, next, &place);
    return kv_rows_ahead(at, &part, block, head, place, n);
}

/* And during values: those of the next head, or keys. */
static const void *after_values(const struct state *st, const struct kv_layer *at,
                                const char *block, int place, int key, int n)
{
    struct kv_part part;

    if (!is_long(at, at->v_dim))
        return rows_of_next(st, at, block, place, key, n, true, false);
    part = kv_values(at);
    return (const char *)kv_rows_ahead(at, &part, block, st->piece->kv_head, place, n) + LEAD;
}

static void weigh_stretch(struct state *st, const struct kv_layer *at, char *block, int place,
                          int key, int n)
{
    const struct attend_call *call = st->call;
    int head = st->piece->kv_head;
    const void *ahead = after_values(st, at, block, place, key, n);

    if (kv_reads_codes(call->kernels, at, at->v_dim)) {
        struct cpu_codes codes = kv_value_codes(call->kernels, at, block, head, place, n, st->room);

        codes.ahead = at->v_dim == at->k_dim ? ahead : NULL;
        call->kernels->weigh_codes(st->acc, call->v_cols, st->s + key, st->chunk, st->n_queries,
                                   &codes, n);
    } else {
        struct kv_rows rows = kv_read_values(call->kernels, at, block, head, place, n, st->room);

        if (is_paired(st, at))
            wait_with(st, &rows, ahead, key, n, at->v_dim, true);
        else
            call->kernels->weigh[rows.type](st->acc, call->v_cols, st->s + key, st->chunk,
                                            st->n_queries, rows.data, n, at->v_dim,
                                            at->bits ? NULL : ahead);
    }
}

/* --- Keys and values at once --- */

/* Can kernels->at_once treat these rows, all of which every query sees? */
static bool is_plain(const struct state *st)
{
    const struct attend_call *call = st->call;
    const struct attend_params *p = call->p;

    return is_paired(st, call->kv) && st->piece->n_rows == 1 &&
           (st->n_queries % 4 == 0 || st->n_queries % 4 == 3) && !p->slopes && p->softcap == 0 &&
           !p->kept && !p->block_size && call->kv->k_dim % 32 == 0 && call->kv->v_dim % 32 == 0 &&
           call->kv->v_dim <= CPU_ATTEND_DIM;
}

/* With keys_waiting < 0 there are stretches that attend does not take. */
static void gather_stretch(struct state *st, const struct kv_layer *at, char *block, int place,
                           int key, int n)
{
    int head = st->piece->kv_head, i = st->n_waiting;

    if (st->keys_waiting < 0 || i == CPU_STRETCHES || !is_paired(st, at) ||
        (i > 0 && at->type != st->waiting_type)) {
        st->keys_waiting = -1;
        return;
    }
    st->waiting_type = at->type;
    st->waiting[i] = (struct cpu_stretch){
        .rows = kv_read_keys(st->call->kernels, at, block, head, place, n, st->room).data,
        .ahead = rows_of_next(st, at, block, place, key, n, false, false),
        .at = key,
        .n = n};
    st->values_waiting[i] = (struct cpu_stretch){
        .rows = kv_read_values(st->call->kernels, at, block, head, place, n, st->room).data,
        .ahead = rows_of_next(st, at, block, place, key, n, true, true),
        .at = key,
        .n = n};
    if (i > 0) {
        st->waiting[i - 1].ahead = st->waiting[i].rows;
        st->values_waiting[i - 1].ahead = st->values_waiting[i].rows;
    }
    st->n_waiting++;
}

static bool attend_at_once(struct state *st, struct span keys)
{
    const struct attend_call *call = st->call;
    bool done = false;

    if (!is_plain(st))
        return false;
    attention_stretches(st, keys, gather_stretch);
    if (st->keys_waiting == 0) {
        const struct cpu_attention_at_once *k = call->kernels->at_once[st->waiting_type];
        struct cpu_paired_queries q = turned(st, k->turn, st->waiting_type);

        done = k->attend(st->acc, call->v_cols, st->max, st->sum, &q, st->waiting,
                         st->values_waiting, st->n_waiting, call->kv->k_dim, call->kv->v_dim);
    }
    st->n_waiting = st->keys_waiting = 0;
    return done;
}

/* --- A chunk --- */

static void score_and_soften(struct state *st, struct span keys)
{
    int panel = st->call->kernels->panel;
    int from = keys.begin / panel * panel, to = (int)round_up(keys.end, panel);

    attention_stretches(st, keys, score_stretch);
    treat_waiting(st, false);
    for (int i = 0; i < st->n_queries; i++)
        attention_soften(st, i, from, to - from);
}

void attention_direct_chunk(struct state *states, int n, struct span keys)
{
    bool done[ATTEND_TOGETHER];

    for (int i = 0; i < n; i++) {
        done[i] = attend_at_once(&states[i], keys);
        if (!done[i])
            score_and_soften(&states[i], keys);
    }
    for (int i = 0; i < n; i++)
        if (!done[i]) {
            attention_stretches(&states[i], keys, weigh_stretch);
            treat_waiting(&states[i], true);
        }
}
