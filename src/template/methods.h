/* template/methods.h: the methods of values, by what they work on; the table of all is in
 * methods.c. */
#ifndef TEMPLATE_METHODS_H
#define TEMPLATE_METHODS_H

#include "template/render.h"

#define METHOD(name)                                                                               \
    int method_##name(struct render *r, struct value self, const struct value *p,                  \
                      const struct args *args, struct value *out)
#define METHOD_UNUSED ((void)r, (void)self, (void)p, (void)args)

/* method_text.c */
METHOD(upper);
METHOD(lower);
METHOD(title);
METHOD(capitalize);
METHOD(swapcase);
METHOD(casefold);
METHOD(isalnum);
METHOD(isalpha);
METHOD(isascii);
METHOD(isdecimal);
METHOD(isdigit);
METHOD(isnumeric);
METHOD(isprintable);
METHOD(isspace);
METHOD(islower);
METHOD(isupper);
METHOD(istitle);
METHOD(isidentifier);
METHOD(strip);
METHOD(lstrip);
METHOD(rstrip);
METHOD(split);
METHOD(rsplit);
METHOD(splitlines);
METHOD(join);
METHOD(replace);
METHOD(find);
METHOD(rfind);
METHOD(text_index);
METHOD(rindex);
METHOD(text_count);
METHOD(startswith);
METHOD(endswith);
METHOD(removeprefix);
METHOD(removesuffix);
METHOD(partition);
METHOD(rpartition);
METHOD(center);
METHOD(ljust);
METHOD(rjust);
METHOD(zfill);
METHOD(expandtabs);
METHOD(format);
METHOD(format_map);
METHOD(encode);
METHOD(decode);
METHOD(translate);

/* method_list.c: of mappings, lists, numbers and cyclers */
METHOD(keys);
METHOD(values);
METHOD(items);
METHOD(get);
METHOD(copy);
METHOD(fromkeys);
METHOD(item_count);
METHOD(item_index);
METHOD(is_integer);
METHOD(bit_length);
METHOD(conjugate);
METHOD(next);
METHOD(reset);

#endif
