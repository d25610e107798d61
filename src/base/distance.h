/* base/distance.h: how unlike two words are, for "did you mean". */
#ifndef BASE_DISTANCE_H
#define BASE_DISTANCE_H

#include <stdbool.h>

/* Characters to insert, delete or replace to make b of a (Levenshtein); INT_MAX where one of them
 * has 64 bytes or more. */
int edit_distance(const char *a, const char *b);

/* Is a word that far from another likely to be meant for it? */
bool is_misspelling(int distance, const char *word);

#endif
