/* template/scope.h: which variable a name means.
 *
 * Jinja decides this once, when it compiles a template, and so do we: every name becomes a slot in
 * the frame of some function. The rules are those of its symbol tables: a loop body, a with, a
 * filter or set block, a macro open a scope; an if does not; a name that is set anywhere in a
 * scope is that scope's own from its start, beginning as a copy of the outer one; a name that is
 * only read belongs to the innermost scope that mentions it.
 */
#ifndef TEMPLATE_SCOPE_H
#define TEMPLATE_SCOPE_H

#include "base/error.h"
#include "template/tree.h"

int scope_bind(struct template *t, clm_error *err);

#endif
