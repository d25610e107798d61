/* template/filters.h: the filters, by what they work on; the table of all is in filters.c. */
#ifndef TEMPLATE_FILTERS_H
#define TEMPLATE_FILTERS_H

#include "template/strings.h"

#define FILTER(name)                                                                               \
    int filter_##name(struct render *r, struct value self, const struct value *p,                  \
                      const struct args *args, struct value *out)

/* filter_text.c */
FILTER(capitalize);
FILTER(center);
FILTER(escape);
FILTER(forceescape);
FILTER(format);
FILTER(indent);
FILTER(lower);
FILTER(replace);
FILTER(safe);
FILTER(string);
FILTER(striptags);
FILTER(title);
FILTER(tojson); /* tojson.c */
FILTER(trim);
FILTER(truncate);
FILTER(upper);
FILTER(urlencode);
FILTER(wordcount);
FILTER(xmlattr);

/* filter_list.c */
FILTER(attr);
FILTER(batch);
FILTER(default);
FILTER(dictsort);
FILTER(first);
FILTER(groupby);
FILTER(items);
FILTER(join);
FILTER(last);
FILTER(length);
FILTER(list);
FILTER(map);
FILTER(max);
FILTER(min);
FILTER(reject);
FILTER(rejectattr);
FILTER(reverse);
FILTER(select);
FILTER(selectattr);
FILTER(slice);
FILTER(sort);
FILTER(sum);
FILTER(unique);

/* filter_number.c */
FILTER(abs);
FILTER(filesizeformat);
FILTER(float);
FILTER(int);
FILTER(round);

/* tojson as it leaves its text in the output; *out is not set. */
builtin_fn emit_tojson;

#endif
