/* nn/forward.c: all layers, one branch after another; temporaries live as long as their branch. */
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
        tensor *part = pass_row_range(p, table, s->row, s->n_rows);
        const float *speeds;

        rope_inv_freq(inv_freq, &r->spec, s->position + s->n_rows);
        speeds = pass_upload(p, inv_freq, (size_t)n * sizeof(float));
        if (!p->failed)
            p->ops->rope_table(p->dev, part, p->rows.positions + s->row, speeds, r->mscale);
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
            p->ops->rope_table(p->dev, table, p->rows.positions, r->inv_freq, r->mscale);
    }
}

/* x += scale * post_norm(op(pre_norm(x))) */
static void run_branch(pass *p, const struct nn_branch *b, tensor *x)
{
    tensor *n = nn_norm(p, &b->pre_norm, x, x->cols);
    tensor *y = NULL;

    switch (b->spec->op) {
    case OP_ATTENTION:
        y = nn_attention(p, &b->attention, n);
        break;
    case OP_MLP:
        y = nn_mlp(p, &b->mlp, n);
        break;
    case OP_MOE:
        y = nn_moe(p, &b->moe, n);
        break;
    }
    if (p->failed || !y)
        return;
    nn_norm_inplace(p, &b->post_norm, y, y->cols);
    p->ops->add(p->dev, x, y, b->spec->scale);
}

/* The final norm and the head, for the asked rows alone. */
static tensor *head(pass *p, const tensor *x, const int32_t *logit_rows, int n_logits)
{
    const int32_t *rows = pass_upload(p, logit_rows, (size_t)n_logits * sizeof(int32_t));
    tensor *last = pass_tensor(p, DTYPE_F32, n_logits, x->cols);
    tensor *logits;

    if (!p->failed)
        p->ops->gather_rows(p->dev, last, x, rows);
    nn_norm_inplace(p, &p->model->final_norm, last, last->cols);
    logits = nn_linear(p, &p->model->lm_head, last);
    if (!p->failed && p->model->spec->logit_softcap > 0)
        p->ops->softcap(p->dev, logits, p->model->spec->logit_softcap);
    return logits;
}

tensor *nn_forward(pass *p, const int32_t *logit_rows, int n_logits)
{
    const struct nn_model *m = p->model;
    const struct spec *s = m->spec;
    tensor *x = pass_tensor(p, DTYPE_F32, p->rows.n_rows, s->hidden_size); /* [T, hidden_size] */

    if (!p->failed)
        p->ops->embed(p->dev, x, &m->embed_tokens.w, p->rows.tokens, s->embed_scale);
    rope_tables(p);
    for (int i = 0; i < s->n_layers; i++) {
        for (int b = 0; b < m->layers[i].n_branches && !p->failed; b++) {
            struct pass_mark mark = pass_mark(p);

            run_branch(p, &m->layers[i].branches[b], x);
            pass_rewind(p, mark);
        }
    }
    return n_logits > 0 && !p->failed ? head(p, x, logit_rows, n_logits) : NULL;
}
