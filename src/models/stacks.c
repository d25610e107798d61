/* models/stacks.c: which stack of experts PEFT's tensors are for. transformers 5 holds all experts
 * of a layer as parameters of one module, which target_parameters name and file names do not.
 */
#include "models/stacks.h"

#include <stdio.h>
#include <string.h>

bool stack_is_turned(const struct checkpoint_tensor *a, const struct checkpoint_tensor *b,
                     int64_t rows, int64_t cols)
{
    return a->n_dims == 2 && b->n_dims == 2 && a->shape[1] == rows && b->shape[0] == cols &&
           rows != cols;
}

/* The place of a stack of experts by the name that transformers 5 has for it in memory, also where
 * files hold one tensor for each expert. */
static struct tensor_place stack_place(const struct binder *b, const char *module, const char *name)
{
    static const struct {
        const char *stack, *one[2];
        struct weight_target to;
    } stacks[] = {
        {"gate_up_proj", {"0.gate_proj", "0.w1"}, SPLIT(0, ROLE_EXPERT_GATE, 2)},
        {"down_proj", {"0.down_proj", "0.w2"}, SLOTS(0, ROLE_EXPERT_DOWN)},
    };
    const struct family *f = b->m->family;
    struct tensor_place place;
    char whole[600];

    snprintf(whole, sizeof whole, "%s.%s", module, name);
    place = tensor_place(f, b->m->spec, whole);
    for (size_t i = 0; i < COUNT(stacks); i++)
        for (size_t j = 0; j < COUNT(stacks[i].one) && place.to.kind == TARGET_NONE; j++) {
            if (strcmp(name, stacks[i].stack) != 0)
                continue;
            snprintf(whole, sizeof whole, "%s.%s.weight", module, stacks[i].one[j]);
            place = tensor_place(f, b->m->spec, whole);
            if (place.to.kind == TARGET_NONE)
                continue;
            int branch = place.to.branch;

            place.to = stacks[i].to;
            place.to.branch = branch;
            place.expert = -1;
            place.alternative = 0;
        }
    return place;
}

/* The other tensor of a pair; NULL: it is not there. */
static const struct checkpoint_tensor *partner(const struct binder *b,
                                               const struct checkpoint_tensor *t, char half)
{
    char name[512];
    char *at;

    if (strlen(t->name) >= sizeof name)
        return NULL;
    strcpy(name, t->name);
    at = strstr(name, ".lora_");
    if (!at)
        return NULL;
    at[strlen(".lora_")] = half;
    return checkpoint_find(b->adapter->weights, name);
}

/* Do the tensors have the sizes that a stack of experts asks for? 2: of a turned one */
static int fits_stack(const struct binder *b, const struct checkpoint_tensor *t,
                      const struct tensor_place *place)
{
    const struct checkpoint_tensor *ta = partner(b, t, 'A'), *tb = partner(b, t, 'B');
    int64_t rows;
    const struct nn_slot *slot = binder_slot(b, place, &rows);

    if (!slot || !slot->n_experts || place->expert >= 0 || !ta || !tb || ta->n_dims != 2 ||
        tb->n_dims != 2)
        return 0;
    if (ta->shape[1] == slot->n_in && tb->shape[0] == rows)
        return 1;
    return stack_is_turned(ta, tb, rows, slot->n_in) ? 2 : 0;
}

int stack_find(const struct binder *b, const struct checkpoint_tensor *t,
               struct tensor_place *place, char *module, size_t size)
{
    const struct adapter *a = b->adapter;
    enum tensor_part part = place->part;
    const char *found = NULL;
    int how = 3;

    for (int i = 0; i < a->n_parameters; i++) {
        const char *dot = strrchr(a->parameters[i], '.');
        const char *name = dot ? dot + 1 : a->parameters[i];
        struct tensor_place there;
        int fits;

        if (!adapter_is_target(a->parameters[i], module, name))
            continue;
        there = stack_place(b, module, name);
        fits = there.to.kind == TARGET_NONE ? 0 : fits_stack(b, t, &there);
        if (!fits || fits > how || (found && strcmp(found, name) == 0))
            continue;
        if (found && fits == how)
            return fail(b->err, CLM_ERR_UNSUPPORTED,
                        "%s: tensor %s may be for %s or %s, which have the same sizes", a->path,
                        t->name, found, name);
        *place = there;
        found = name;
        how = fits;
    }
    place->part = part;
    if (found && strlen(module) + strlen(found) + 2 > size)
        place->to.kind = TARGET_NONE;
    else if (found)
        snprintf(module + strlen(module), size - strlen(module), ".%s", found);
    return 0;
}

void stack_note(struct binder *b, const struct checkpoint_tensor *t,
                const struct tensor_place *place)
{
    int64_t rows = 0;
    const struct nn_slot *slot = binder_slot(b, place, &rows);

    if (b->adapter->peft && slot && slot->n_experts && place->expert < 0 && rows != slot->n_in &&
        is_addition(place->part))
        b->stacks = fits_stack(b, t, place) == 2 ? STACKS_TURNED : STACKS_AS_THEY_ARE;
}
