/* parse/read_pairs.h: one call, its name first, then keys and values in tags of their own. */
#ifndef PARSE_READ_PAIRS_H
#define PARSE_READ_PAIRS_H

#include "parse/tool_reader.h"

enum step read_glm47(struct tool_reader *r);
enum step read_longcat(struct tool_reader *r);

/* For glm47, a text without tags: JSON, or a name with arguments in one of several forms. Always
 * something comes out of it. */
void read_glm47_plain(struct tool_reader *r);

#endif
