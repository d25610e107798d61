/* template/format.h: one value in a field, for both of Python's ways to format. */
#ifndef TEMPLATE_FORMAT_H
#define TEMPLATE_FORMAT_H

#include "template/strings.h"

/* What may stand between the marks: [[fill]align][sign][#][0][width][,][.precision][type]. */
struct format_spec {
    struct value fill; /* one character; V_MISSING: the default */
    char align;        /* '<', '>', '^', '=', or 0 */
    char sign;         /* '+', ' ', '-' or 0 */
    bool alternate, zero;
    char group;               /* ',' or '_', or 0 */
    int64_t width, precision; /* -1: not given */
    char type;                /* 0: not given */
};

/* Both put the field out. A number with one of the types d b o x X c n, or e E f F g G %. */
int format_number(struct render *r, const struct format_spec *f, const struct value *v);
int format_text(struct render *r, const struct format_spec *f, const struct value *text);

#endif
