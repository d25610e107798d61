/* nn/forward.c: all layers, one branch after another; temporaries live as long as their branch. */
#include <math.h>

#include "device/weight.h"
#include "nn/nn.h"
#include "nn/rope.h"

/* ROPE_DYNAMIC: speeds follow the length of each sequence, so each has its part of the table. */
static void dynamic_table(pass *p, const struct nn_rope *r, const tensor *table)
{
    const struct kv_batch *batch = &p->rows.kv[0];
    int n = rope_turning(&r->spec) / 2;
    float *inv_freq = arena_array(p->host, float, n);

    if (!inv_freq) {
        p->failed = true;
        fail(p->err, CLM_ERR_NOMEM, "forward pass: no memory");
    }
    for (int i = 0; i < batch->n_sequences && !p->failed; i++) {
        const struct kv_sequence *s = &batch->sequences[i];
        tensor part = row_range(table, s->row, s->n_rows);
        const float *speeds;

        rope_inv_freq(inv_freq, &r->spec, s->position + s->n_rows);
        speeds = pass_upload(p, inv_freq, (size_t)n * sizeof(float));
        if (!p->failed)
            p->ops->rope_table(p->dev, &part, p->rows.positions + s->row, speeds, r->mscale);
    }
}

/* Cosines and sines of every row, once per pass for all layers that turn alike. */
static void rope_tables(pass *p)
{
    const struct nn_model *m = p->model;

    p->rope_tables = arena_array(p->host, tensor *, m->n_ropes + 1);
    if (!p->rope_tables) {
        p->failed = true;
        fail(p->err, CLM_ERR_NOMEM, "forward pass: no memory");
        return;
    }
    for (int i = 0; i < m->n_ropes; i++) {
        const struct nn_rope *r = &m->ropes[i];
        tensor *table = pass_tensor(p, DTYPE_F32, p->rows.n_rows, rope_turning(&r->spec));

        p->rope_tables[i] = table;
        if (p->failed)
            return;
        if (r->spec.kind == ROPE_DYNAMIC)
            dynamic_table(p, r, table);
        else
            p->ops->rope_table(p->dev, table, p->rows.positions, r->inv_freq[p->part], r->mscale);
    }
}

/* Its x of each token is mixed with that of the one before. */
static tensor *shifted_mlp(pass *p, const struct nn_mlp *m, const tensor *x, size_t state)
{
    tensor *mixed = nn_mix(p, x, nn_shift(p, x, state), m->mix);

    return pass_narrow(p, mixed) ? nn_mlp(p, m, mixed) : mixed;
}

static tensor *run_op(pass *p, const struct nn_branch *b, const tensor *x, const tensor *raw)
{
    size_t state = b->state - p->state;

    switch (b->spec->op) {
    case OP_NONE:
        return pass_row_range(p, x, 0, x->rows);
    case OP_LINEAR:
        return nn_linear(p, &b->linear, x);
    case OP_EMBEDDING:
        return pass_row_range(p, p->embeddings, 0, x->rows);
    case OP_ATTENTION:
        return nn_attention(p, &b->attention, x, state);
    case OP_MLA:
        return nn_mla(p, &b->mla, x);
    case OP_POOLED:
        return nn_pooled_attention(p, &b->pooled, x, state);
    case OP_SHORT_CONV:
        return nn_short_conv(p, &b->short_conv, x, state);
    case OP_CONV_MIXER:
        return nn_conv_mixer(p, &b->conv_mixer, x, state);
    case OP_MLSTM:
        return nn_mlstm(p, &b->mlstm, x, state);
    case OP_MAMBA:
        return nn_mamba(p, &b->mamba, x, state);
    case OP_MAMBA2:
        return nn_mamba2(p, &b->mamba2, x, state);
    case OP_DELTA:
        return nn_delta(p, &b->delta, x, state);
    case OP_LIGHTNING:
        return nn_lightning(p, &b->lightning, x, state);
    case OP_RG_LRU:
        return nn_rg_lru(p, &b->rg_lru, x, state);
    case OP_RWKV7:
        return nn_rwkv7(p, &b->rwkv7, x, state);
    case OP_MLP:
        return b->spec->mlp.shifted ? shifted_mlp(p, &b->mlp, x, state) : nn_mlp(p, &b->mlp, x);
    case OP_MOE:
        return nn_moe(p, &b->moe, x, raw);
    case OP_LAYER_INPUT:
        return nn_layer_input(p, &b->layer_input, x);
    case OP_LOW_RANK:
        return nn_low_rank(p, &b->low_rank, x);
    case OP_ALTUP_PREDICT:
        return nn_altup_predict(p, &b->altup);
    case OP_ALTUP_CORRECT:
        return nn_altup_correct(p, &b->altup, x);
    case OP_ALTUP_ADD:
        nn_altup_add(p, x);
        return pass_row_range(p, x, 0, x->rows);
    case OP_HYPER_READ:
        return nn_hyper_read(p, &b->hyper);
    case OP_HYPER_WRITE:
        nn_hyper_write(p, x);
        return pass_row_range(p, x, 0, x->rows);
    }
    return NULL;
}

static tensor *own_copy(pass *p, const tensor *x)
{
    tensor *y = pass_tensor(p, DTYPE_F32, x->rows, x->cols);

    if (!p->failed)
        p->ops->copy_rows(p->dev, y, x);
    return y;
}

static const tensor *scaled(pass *p, const tensor *x, float scale)
{
    tensor *y;

    if (scale == 0 || scale == 1)
        return x;
    y = own_copy(p, x);
    if (!p->failed)
        p->ops->scale(p->dev, y, scale);
    return y;
}

/* The branches at work are the last to need all rows: what layers find besides x. */
static void begin_narrow(pass *p)
{
    const struct nn_model *m = p->model;
    tensor *handed_on[] = {p->layer_inputs, p->embeddings, p->hyper.read, p->hyper.write,
                           p->hyper.mix};

    p->narrows = true;
    for (size_t i = 0; i < COUNT(handed_on); i++)
        if (handed_on[i])
            pass_keep_asked(p, handed_on[i], 1);
    if (p->streams)
        pass_keep_asked(p, p->streams, m->spec->altup.n + m->spec->hyper.n);
    if (p->kept)
        pass_keep_asked(p, p->kept, p->n_kept);
    p->asked_tables = arena_array(p->host, tensor *, m->n_ropes + 1);
    if (!p->asked_tables) {
        p->failed = true;
        fail(p->err, CLM_ERR_NOMEM, "forward pass: no memory");
    }
    for (int i = 0; i < m->n_ropes && !p->failed; i++) {
        p->asked_tables[i] = pass_row_range(p, p->rope_tables[i], 0, p->rows.n_rows);
        pass_keep_asked(p, p->asked_tables[i], 1);
    }
}

/* One of the last branches to need all rows, which are those that remember something; what it gives
 * has the rows asked for. */
static tensor *run_last_op(pass *p, const struct nn_branch *b, const tensor *x, const tensor *raw)
{
    tensor **tables = p->rope_tables, *y;
    tensor asked = *x, raw_asked = *raw;

    if (nn_remembers(b->spec)) {
        y = run_op(p, b, x, raw);
        if (!p->narrow)
            pass_narrow(p, y);
    } else if (pass_narrow(p, &asked) && pass_narrow(p, &raw_asked)) {
        y = run_op(p, b, &asked, &raw_asked);
    } else {
        y = pass_row_range(p, &asked, 0, 0);
    }
    p->narrow = false;
    p->rows = p->part_rows[p->part];
    p->rope_tables = tables;
    return y;
}

/* The branches have their answers: x and late go on as rows asked for. */
static void end_narrow(pass *p, tensor *x, tensor *late)
{
    pass_narrow(p, x);
    if (late)
        pass_narrow(p, late);
    p->narrows = false;
}

/* Nobody asks for anything more of the step. */
static bool is_over(const pass *p)
{
    return p->failed || ((p->narrows || p->narrow) && p->part_asked[p->part].n_rows == 0);
}

/* What a branch gives, as it is added. */
static tensor *end_branch(pass *p, const struct nn_branch *b, tensor *y)
{
    bool view = b->spec->op == OP_NONE || b->spec->op == OP_EMBEDDING ||
                b->spec->op == OP_ALTUP_ADD || b->spec->op == OP_HYPER_WRITE;

    if (view && (b->gain || b->spec->replace || b->spec->post_norm.kind != NORM_NONE))
        y = own_copy(p, y);
    nn_norm_inplace(p, &b->post_norm, y, y->cols);
    if (b->gain && !p->failed)
        p->ops->scale_groups(p->dev, y, b->gain, y->cols);
    return y;
}

/* y: what each of n branches gives that all read the same rows; normed is of their own norms. */
static void run_parallel(pass *p, const struct nn_branch *b, int n, const tensor *read,
                         bool narrows, tensor **y)
{
    bool together = nn_goes_together(p, b, n);
    const tensor *x[LAYER_MAX_BRANCHES], *normed = NULL;

    for (int i = 0; i < n && !p->failed; i++) {
        if (!b[i].spec->shared_norm)
            normed = nn_norm(p, b[i].spec->final_norm ? &p->model->final_norm : &b[i].pre_norm,
                             read, read->cols);
        x[i] = scaled(p, normed, b[i].spec->in_scale);
        if (together)
            continue;
        y[i] = (narrows ? run_last_op : run_op)(p, &b[i], x[i], read);
        if (!is_over(p))
            y[i] = end_branch(p, &b[i], y[i]);
    }
    if (!together || p->failed)
        return;
    nn_together(p, b, n, x, y);
    for (int i = 0; i < n && !p->failed; i++)
        y[i] = end_branch(p, &b[i], y[i]);
}

/* x += scale * post_norm(op(pre_norm(x))) for n branches that all read the same x. Late ones are
 * added to late instead. */
static void run_branches(pass *p, const struct nn_branch *b, int n, tensor *x, tensor *late,
                         bool narrows)
{
    tensor *y[LAYER_MAX_BRANCHES];
    const tensor *read = b[0].spec->mixes ? nn_residual_mix(p, &b[0].residual, x) : x;

    if (b[0].spec->keeps)
        nn_residual_keep(p, x);
    if (narrows)
        begin_narrow(p);
    run_parallel(p, b, n, read, narrows, y);
    if (narrows)
        end_narrow(p, x, late);
    if (is_over(p))
        return;
    if (b[0].spec->replace)
        p->ops->clear(p->dev, x);
    if (b[0].old_gate) {
        p->ops->scale_columns(p->dev, x, b[0].old_gate);
        p->ops->scale_columns(p->dev, y[0], b[0].new_gate);
    }
    for (int i = 0; i < n; i++)
        p->ops->add(p->dev, b[i].spec->late ? late : x, y[i], b[i].spec->scale);
}

/* Zeros, if any branch of the layer is late. */
static tensor *late_sum(pass *p, const struct nn_layer *l, const tensor *x)
{
    tensor *late = NULL;

    for (int i = 0; i < l->n_branches && !late; i++)
        if (l->branches[i].spec->late)
            late = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    if (late && !p->failed)
        p->ops->clear(p->dev, late);
    return late;
}

/* last: the branch with which those begin that are the last to need all rows; -1: none does. What
 * rows go on as then stays. */
static void run_layer(pass *p, const struct nn_layer *l, tensor *x, int last)
{
    struct pass_mark whole = pass_mark(p);
    tensor *late = late_sum(p, l, x);

    for (int first = 0, n; first < l->n_branches && !is_over(p); first += n) {
        struct pass_mark mark = pass_mark(p);

        for (n = 1; first + n < l->n_branches && l->branches[first + n].spec->parallel; n++)
            ;
        run_branches(p, &l->branches[first], n, x, late, first == last);
        if (first != last)
            pass_rewind(p, mark);
    }
    if (late && !is_over(p))
        p->ops->add(p->dev, x, late, 1);
    if (last < 0)
        pass_rewind(p, whole);
}

/* Embeddings of another size than x. */
static void embed_through(pass *p, tensor *x)
{
    const struct nn_model *m = p->model;
    tensor *found = pass_tensor(p, DTYPE_F32, x->rows, m->spec->embed_size), *made;

    nn_embed(p, &m->embed_tokens, p->rows.tokens, m->spec->embed_scale, found);
    made = nn_linear(p, &m->embed_proj, found);
    if (!p->failed)
        p->ops->copy_rows(p->dev, x, made);
}

/* Embeddings, scaled, with learned positions added, normed. */
static void embed(pass *p, tensor *x)
{
    const struct nn_model *m = p->model;
    struct pass_mark mark = pass_mark(p);

    if (p->failed)
        return;
    if (m->spec->embed_size)
        embed_through(p, x);
    else
        nn_embed(p, &m->embed_tokens, p->rows.tokens, m->spec->embed_scale, x);
    if (m->spec->ngram.n)
        nn_add_ngrams(p, x);
    if (m->spec->n_positions) {
        tensor *learned = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
        struct nn_linear rows = m->positions;

        rows.w = weight_rows(&rows.w, m->spec->position_offset,
                             m->spec->n_positions - m->spec->position_offset);
        nn_embed(p, &rows, p->rows.positions, 1, learned);
        if (!p->failed)
            p->ops->add(p->dev, x, learned, 1);
    }
    nn_norm_inplace(p, &m->embed_norm, x, x->cols);
    pass_rewind(p, mark);
}

/* Of the rows x, which nobody reads any more, those whose logits are asked for. */
static tensor *last_rows(pass *p, tensor *x)
{
    tensor *last;

    if (p->rows.n_logits == x->rows)
        return x;
    last = pass_tensor(p, DTYPE_F32, p->rows.n_logits, x->cols);
    if (!p->failed)
        p->ops->gather_rows(p->dev, last, x, p->rows.logit_rows);
    return last;
}

/* The final norm and the head, for the asked rows alone. */
static tensor *head(pass *p, tensor *x)
{
    tensor *last = last_rows(p, x), *logits;

    last = nn_norm(p, &p->model->final_norm, last, last->cols);
    if (p->model->spec->embed_size)
        last = nn_linear(p, &p->model->head_proj, last);
    if (!p->failed && p->model->head_scale)
        p->ops->scale_columns(p->dev, last, p->model->head_scale);
    logits = nn_linear(p, &p->model->lm_head, last);
    if (!p->failed && p->model->spec->logit_scale != 1)
        p->ops->scale(p->dev, logits, p->model->spec->logit_scale);
    if (!p->failed && p->model->logit_gain)
        p->ops->scale_groups(p->dev, logits, p->model->logit_gain, logits->cols);
    if (!p->failed && p->model->spec->logit_softcap > 0)
        p->ops->softcap(p->dev, logits, p->model->spec->logit_softcap);
    for (int i = 0; i < p->model->spec->n_never && !p->failed; i++) {
        tensor column = nn_part_rows(logits, 1, p->model->spec->never[i], 1);

        p->ops->fill(p->dev, &column, -INFINITY);
    }
    return logits;
}

/* What layers find besides x: embeddings, and keys and values that are kept. */
static void keep_for_layers(pass *p, const tensor *x)
{
    const struct spec *s = p->model->spec;

    if (s->n_kept)
        p->kept = pass_tensor(p, DTYPE_F32, s->n_kept * x->rows, x->cols);

    for (int i = 0; i < s->n_layers; i++) {
        for (int b = 0; b < s->layers[i].n_branches; b++) {
            const struct branch_spec *branch = &s->layers[i].branches[b];
            const struct attention_spec *a = &branch->attention;

            if (branch->op == OP_EMBEDDING && !p->embeddings)
                p->embeddings = own_copy(p, x);
            if (!p->chosen && ((branch->op == OP_POOLED && branch->pooled.chooses) ||
                               (branch->op == OP_MLA && branch->mla.index_of)))
                p->chosen = pass_tensor(p, DTYPE_U32, x->rows, nn_key_words(&p->rows.kv[0]));
            if (!p->candidates && branch->op == OP_POOLED && branch->pooled.chooses)
                p->candidates = pass_tensor(p, DTYPE_U32, x->rows, nn_key_words(&p->rows.kv[0]));
            if (branch->op == OP_RWKV7 && !p->first_values)
                p->first_values = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
            if (branch->op != OP_ATTENTION || a->kv_source != KV_KEPT || p->kept_kv[0])
                continue;
            p->kept_kv[0] = pass_tensor(p, DTYPE_F32, x->rows, a->n_kv_heads * a->head_dim);
            p->kept_kv[1] = pass_tensor(p, DTYPE_F32, x->rows,
                                        a->n_kv_heads * (a->v_dim ? a->v_dim : a->head_dim));
        }
    }
}

/* What the head reads where layers have kept x. */
static void mix_end(pass *p, tensor *x)
{
    struct pass_mark mark = pass_mark(p);
    const tensor *mixed = nn_residual_mix(p, &p->model->residual, x);

    if (!p->failed)
        p->ops->copy_rows(p->dev, x, mixed);
    pass_rewind(p, mark);
}

/* All that one layer leaves to another goes to the device of the next part. */
static tensor *enter_part(pass *p, int part, const tensor *x)
{
    tensor **handed_on[] = {&p->layer_inputs, &p->embeddings,   &p->streams,    &p->hyper.read,
                            &p->hyper.write,  &p->hyper.mix,    &p->chosen,     &p->candidates,
                            &p->kept,         &p->first_values, &p->kept_kv[0], &p->kept_kv[1]};
    tensor *y;

    pass_enter(p, part);
    y = pass_carry(p, x);
    for (size_t i = 0; i < COUNT(handed_on); i++)
        *handed_on[i] = pass_carry(p, *handed_on[i]);
    rope_tables(p);
    return y;
}

tensor *nn_forward(pass *p)
{
    const struct nn_model *m = p->model;
    const struct spec *s = m->spec;
    int last = p->rows.n_logits < p->rows.n_rows ? m->last_layer : -1;
    tensor *x = pass_tensor(p, DTYPE_F32, p->rows.n_rows, s->hidden_size); /* [T, hidden_size] */

    embed(p, x);
    keep_for_layers(p, x);
    if (s->layer_input_size)
        p->layer_inputs = nn_layer_inputs(p, x);
    if (s->altup.n)
        nn_altup_begin(p, x);
    if (s->hyper.n)
        nn_hyper_begin(p, x);
    rope_tables(p);
    for (int part = 0; part < m->n_parts && !is_over(p); part++) {
        if (part > 0)
            x = enter_part(p, part, x);
        for (int i = m->parts[part].first; i < m->parts[part].end && !is_over(p); i++)
            run_layer(p, &m->layers[i], x, i == last ? m->last_branch : -1);
    }
    if (p->rows.n_logits == 0 || p->failed)
        return NULL;
    if (s->altup.n)
        nn_altup_end(p, x);
    if (s->hyper.n)
        nn_hyper_end(p, x);
    if (s->n_kept && !p->failed)
        mix_end(p, x);
    return p->failed ? NULL : head(p, x);
}
