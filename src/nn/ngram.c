/* nn/ngram.c: embeddings of tokens with the ones before them, from tables that are indexed by a
 * number made of these. LongCat Flash Lite, arXiv:2601.21204
 *
 *     x = (E[t] + sum over i <= n, tables of i tokens: proj(table[id])) / (1 + (n - 1) k)
 *     id = t + t_-1 V + ... + t_-(i-1) V^(i-1), modulo the length of the table
 */
#include "nn/nn.h"

void nn_add_ngrams(pass *p, tensor *x)
{
    const struct nn_model *m = p->model;
    const struct ngram_spec *s = &m->spec->ngram;
    int n = (s->n - 1) * s->k;
    int32_t *ids = pass_bytes(p, (size_t)x->rows * sizeof *ids);
    tensor *found = pass_tensor(p, DTYPE_F32, x->rows, s->dim);
    struct pass_mark mark = pass_mark(p);

    for (int i = 0; i < n && !p->failed; i++) {
        struct nn_linear proj = {.w = m->ngram_projs.w[i]};
        const struct weight *table = &m->ngram_tables.w[i];
        tensor *y;

        p->ops->ngram_ids(p->dev, ids, p->rows.tokens, p->rows.past, x->rows, s->n - 1,
                          i / s->k + 1, m->spec->vocab_size, table->n_out);
        p->ops->embed(p->dev, found, table, ids, 1);
        y = nn_linear(p, &proj, found);
        if (!p->failed)
            p->ops->add(p->dev, x, y, 1);
        pass_rewind(p, mark);
    }
    if (!p->failed)
        p->ops->scale(p->dev, x, 1 / (float)(n + 1));
}
