/* models/stacks.h: PEFT's adapters of parameters that are stacks of experts. */
#ifndef MODELS_STACKS_H
#define MODELS_STACKS_H

#include "models/adapter.h"
#include "models/pieces.h"

/**
 * What a tensor of an adapter is for that is named after a module none of whose tensors it fits:
 * the one of its parameters that has the sizes.
 *
 * place   its part is known; TARGET_NONE stays where no parameter of target_parameters fits.
 * module  its name becomes that of the parameter.
 *
 * Errors: CLM_ERR_UNSUPPORTED where two parameters fit. Returns 0, or -1 with b->err.
 */
int stack_find(const struct binder *b, const struct checkpoint_tensor *t,
               struct tensor_place *place, char *module, size_t size);

/* Notes how PEFT has turned the stacks of this adapter, which square ones do not tell. */
void stack_note(struct binder *b, const struct checkpoint_tensor *t,
                const struct tensor_place *place);

/* Whether A runs over the outputs of W, rows in all, and B over its inputs, cols, as PEFT has them
 * where it takes a stack for transposed. */
bool stack_is_turned(const struct checkpoint_tensor *a, const struct checkpoint_tensor *b,
                     int64_t rows, int64_t cols);

#endif
