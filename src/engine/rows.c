/* engine/rows.c: the rows of all inputs of a step end to end, and where their sequences keep what
 * they remember. */
#include "engine/rows.h"

#include <string.h>

/* Blocks that a table on a device has room for. */
#define LEAST_TABLE ((size_t)64)

void *buffer_need(struct buffer *b, size_t count, size_t size, clm_error *err)
{
    size_t need;
    void *grown;

    if (!size_mul(count, size, &need))
        return fail_null(err, CLM_ERR_NOMEM, "engine: %zu items of %zu bytes are too many", count,
                         size);
    if (need <= b->size && b->data)
        return b->data;
    grown = mem_resize(b->data, need + need / 2 + 64);
    if (!grown)
        return fail_null(err, CLM_ERR_NOMEM, "engine: no memory for %zu bytes", need);
    b->data = grown;
    b->size = need + need / 2 + 64;
    return grown;
}

void buffer_release(struct buffer *b)
{
    mem_free(b->data);
    *b = (struct buffer){0};
}

/* Groups of cache layers; one where there are none. */
static size_t n_batches(const kv_cache *c)
{
    int groups = kv_cache_groups(c);

    return groups ? (size_t)groups : 1;
}

/* The tokens before each of an input's, the nearest first. */
static void lay_out_past(const struct engine_input *in, int32_t *past, int n)
{
    const int32_t *earlier = kv_seq_tokens(in->seq);
    int position = kv_seq_length(in->seq);

    for (int t = 0; t < in->n_tokens; t++)
        for (int i = 1; i <= n; i++)
            past[(size_t)t * (size_t)n + (size_t)i - 1] = t >= i ? in->tokens[t - i]
                                                          : position + t >= i
                                                              ? earlier[position + t - i]
                                                              : 0;
}

/* Row lists of input i, whose rows begin at row, and whose rows of logits at logit. */
static void lay_out_input(const struct step *s, struct rows *r, size_t n_lists, int i, int row,
                          int logit)
{
    const struct engine_input *in = &s->inputs[i];
    size_t n_inputs = (size_t)s->n_inputs;
    int position = kv_seq_length(in->seq), n_before = in->n_tokens - in->n_logits;
    int n_states = r->n_shares > 1 ? r->n_shares : NN_MAX_PARTS;

    for (int p = 0; p < n_states; p++) {
        struct kv_state state = r->n_shares > 1 ? kv_seq_share_state(in->seq, p)
                                : p             ? kv_seq_rest_state(in->seq)
                                                : kv_seq_state(in->seq);

        r->states[(size_t)p * n_inputs + (size_t)i] = (struct state_sequence){
            .row = row, .n_rows = in->n_tokens, .from = state.from, .to = state.to};
    }
    for (size_t g = 0; g < n_lists; g++) {
        r->sequences[g * n_inputs + (size_t)i] =
            (struct kv_sequence){.row = row, .n_rows = in->n_tokens, .position = position};
        r->asked_sequences[g * n_inputs + (size_t)i] = (struct kv_sequence){
            .row = logit, .n_rows = in->n_logits, .position = position + n_before};
    }
    if (!s->chosen) {
        memcpy(r->tokens + row, in->tokens, (size_t)in->n_tokens * sizeof(int32_t));
        lay_out_past(in, r->past + (size_t)row * (size_t)r->n_past, r->n_past);
    }
    for (int t = 0; t < in->n_tokens; t++)
        r->positions[row + t] = position + t;
    for (int l = 0; l < in->n_logits; l++) {
        r->logit_rows[logit + l] = row + n_before + l;
        r->asked_positions[logit + l] = position + n_before + l;
    }
}

int rows_lay_out(struct rows *r, const struct step *s, const kv_cache *c, clm_error *err)
{
    size_t n_lists = n_batches(c) * (size_t)r->n_shares, n_inputs = (size_t)s->n_inputs;
    int row = 0, logit = 0;

    r->tokens = buffer_need(&r->memory[0], (size_t)s->n_rows, sizeof(int32_t), err);
    r->past =
        buffer_need(&r->memory[1], (size_t)s->n_rows * (size_t)r->n_past, sizeof(int32_t), err);
    r->positions = buffer_need(&r->memory[2], (size_t)s->n_rows, sizeof(int32_t), err);
    r->logit_rows = buffer_need(&r->memory[3], (size_t)s->n_logits, sizeof(int32_t), err);
    r->batches = buffer_need(&r->memory[4], n_lists, sizeof(struct kv_batch), err);
    r->sequences = buffer_need(&r->memory[5], n_lists * n_inputs, sizeof(struct kv_sequence), err);
    r->states = buffer_need(&r->memory[6], n_inputs * (size_t)(NN_MAX_PARTS + r->n_shares),
                            sizeof(struct state_sequence), err);
    r->asked_positions = buffer_need(&r->memory[7], (size_t)s->n_logits, sizeof(int32_t), err);
    r->asked = buffer_need(&r->memory[8], n_lists, sizeof(struct kv_batch), err);
    r->asked_sequences =
        buffer_need(&r->memory[9], n_lists * n_inputs, sizeof(struct kv_sequence), err);
    if (!r->tokens || !r->past || !r->positions || !r->logit_rows || !r->batches || !r->sequences ||
        !r->states || !r->asked_positions || !r->asked || !r->asked_sequences)
        return -1;
    for (int i = 0; i < s->n_inputs; i++) {
        lay_out_input(s, r, n_lists, i, row, logit);
        row += s->inputs[i].n_tokens;
        logit += s->inputs[i].n_logits;
    }
    for (size_t g = 0; g < n_lists; g++) {
        r->batches[g] = (struct kv_batch){.sequences = r->sequences + g * n_inputs,
                                          .n_sequences = s->n_inputs,
                                          .n_rows = s->n_rows};
        r->asked[g] = (struct kv_batch){.sequences = r->asked_sequences + g * n_inputs,
                                        .n_sequences = s->n_inputs,
                                        .n_rows = s->n_logits};
    }
    return 0;
}

static void set_table(struct kv_sequence *seq, const struct kv_table *table, const int32_t *blocks)
{
    seq->n_kept = table->n_kept;
    seq->n_gone = table->n_gone;
    seq->n_mapped = table->n_mapped;
    seq->mapped = table->mapped;
    seq->blocks = blocks;
}

/* With room behind it, so that its size, and with it what is launched, seldom changes as a sequence
 * grows. */
static const int32_t *upload_table(const struct kv_table *t, pass *p)
{
    size_t n = LEAST_TABLE;
    int32_t *blocks;

    while (n < (size_t)t->n_blocks)
        n *= 2;
    blocks = arena_array(p->host, int32_t, n);
    if (!blocks) {
        p->failed = true;
        fail(p->err, CLM_ERR_NOMEM, "forward pass: no memory");
        return NULL;
    }
    if (t->n_blocks > 0)
        memcpy(blocks, t->blocks, (size_t)t->n_blocks * sizeof *blocks);
    return pass_upload(p, blocks, n * sizeof *blocks);
}

/* Block tables go to the device of the part with the pass. */
static void upload_tables(const struct rows *r, const struct step *s, pass *p)
{
    size_t first = n_batches(p->cache) * (size_t)p->model->share;

    for (int g = 0; g < kv_cache_groups(p->cache); g++) {
        if (r->n_shares == 1 && kv_cache_group_device(p->cache, g) != p->dev)
            continue;
        for (int i = 0; i < s->n_inputs; i++) {
            struct kv_table table = kv_seq_table(s->inputs[i].seq, g);
            size_t at = (first + (size_t)g) * (size_t)s->n_inputs + (size_t)i;
            const int32_t *blocks = upload_table(&table, p);

            set_table(&r->sequences[at], &table, blocks);
            set_table(&r->asked_sequences[at], &table, blocks);
        }
    }
}

void rows_upload(const struct rows *r, const struct step *s, pass *p)
{
    size_t bytes = (size_t)s->n_rows * sizeof(int32_t);
    size_t asked_bytes = (size_t)s->n_logits * sizeof(int32_t);
    size_t first = n_batches(p->cache) * (size_t)p->model->share;
    int states = r->n_shares > 1 ? p->model->share : p->part;

    p->rows = (struct pass_rows){
        .tokens = s->chosen ? s->chosen : pass_upload(p, r->tokens, bytes),
        .past = pass_upload(p, r->past, bytes * (size_t)r->n_past),
        .positions = pass_upload(p, r->positions, bytes),
        .n_rows = s->n_rows,
        .logit_rows = pass_upload(p, r->logit_rows, asked_bytes),
        .n_logits = s->n_logits,
        .kv = r->batches + first,
        .states = {.sequences = r->states + (size_t)states * (size_t)s->n_inputs,
                   .n_sequences = s->n_inputs,
                   .n_rows = s->n_rows},
    };
    p->part_rows[p->part] = p->rows;
    p->part_asked[p->part] =
        (struct pass_rows){.n_rows = s->n_logits, .n_logits = s->n_logits, .kv = r->asked + first};
    if (s->n_logits < s->n_rows)
        p->part_asked[p->part].positions = pass_upload(p, r->asked_positions, asked_bytes);
    upload_tables(r, s, p);
}

void rows_release(struct rows *r)
{
    for (size_t i = 0; i < COUNT(r->memory); i++)
        buffer_release(&r->memory[i]);
}
