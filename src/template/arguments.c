#include "template/render.h"

int arg_int(struct render *r, const struct value *v, const char *what, int64_t *out)
{
    switch (v->kind) {
    case V_MISSING: /* the caller has put the default there */
        return 0;
    case V_BOOL:
    case V_INT:
        *out = v->i;
        return 0;
    case V_UNDEFINED:
        return undefined_error(r, v);
    case V_BIGINT:
        return render_fail(r, "%s: the integer is too large", what);
    default:
        return render_fail(r, "%s: '%s' object cannot be interpreted as an integer", what,
                           type_name(v));
    }
}

int arg_text(struct render *r, const struct value *v, const char *what, struct value *out)
{
    if (v->kind != V_STRING)
        return render_fail(r, "%s must be str, not %s", what, type_name(v));
    *out = *v;
    return 0;
}
