/* models/levels.c: BitNet's matrices that are stored as numbers, of three levels.
 *
 *     offline   -1, 0 and 1, and the weight_scale that they are multiplied by
 *     online    numbers as they were trained: of a mean length m, w stands for m * clamp(round(w /
 * m), -1, 1)
 *
 * Both become the codes 0, 1 and 2 of PACK_LEVELS.
 */
#include <math.h>

#include "models/foreign.h"

bool has_levels(const struct binder *b, const struct piece *p, const struct nn_slot *s)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT];
    bool attends = s->role >= ROLE_Q_PROJ && s->role <= ROLE_O_PROJ;

    if (!t || s->n_in == 0 ||
        (t->type != DTYPE_F32 && t->type != DTYPE_F16 && t->type != DTYPE_BF16))
        return false;
    if (p->part[PART_SCALES])
        return b->foreign.levels == LEVELS_STORED;
    return b->foreign.levels == LEVELS_FOUND && s->layer >= 0 && !s->n_experts &&
           (attends || (s->role >= ROLE_GATE_PROJ && s->role <= ROLE_DOWN_PROJ));
}

/* Adds up the lengths of all numbers; what is none of -1, 0 and 1 among them, or 0. */
static float look_through(const struct packed *m, double *lengths)
{
    enum { RUN = 1024 };
    size_t n = (size_t)m->rows * (size_t)m->n_in, size = dtype_size(m->number_type);
    float run[RUN], odd = 0;

    *lengths = 0;
    for (size_t i = 0; i < n; i += RUN) {
        size_t some = n - i < RUN ? n - i : RUN;

        dtype_to_f32(run, m->codes + i * size, m->number_type, some);
        for (size_t j = 0; j < some; j++) {
            *lengths += (double)fabsf(run[j]);
            if (run[j] != 0 && run[j] != 1 && run[j] != -1)
                odd = run[j];
        }
    }
    return odd;
}

int levels_read(const struct binder *b, struct packed *m, const struct piece *p)
{
    bool found = b->foreign.levels == LEVELS_FOUND;
    double lengths, n = (double)m->rows * m->n_in;
    float odd = look_through(m, &lengths);

    m->to_levels = 1;
    if (!found && odd != 0)
        return fail(b->err, CLM_ERR_FORMAT,
                    "%s: tensor %s has a scale and holds %g; BitNet's numbers are -1, 0 and 1",
                    b->path, p->part[PART_WEIGHT]->name, (double)odd);
    if (!found)
        return 0;
    if (!isfinite(lengths))
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s does not hold finite numbers", b->path,
                    p->part[PART_WEIGHT]->name);
    m->to_levels = 1 / fmaxf((float)(lengths / n), 1e-5f);
    m->level = 1 / m->to_levels;
    m->scale_type = DTYPE_F32;
    m->n_groups = 1;
    m->group_size = m->n_in;
    return 0;
}
