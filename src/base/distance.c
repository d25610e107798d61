/* base/distance.c: Levenshtein's distance, a row of the table at a time. */
#include "base/distance.h"

#include <limits.h>
#include <string.h>

int edit_distance(const char *a, const char *b)
{
    int row[64], n = (int)strlen(b);

    if (n >= (int)(sizeof row / sizeof row[0]) || strlen(a) >= 64)
        return INT_MAX;
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];

        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]);
            int step = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;

            diagonal = row[j];
            row[j] = change < step ? change : step;
        }
    }
    return row[n];
}

bool is_misspelling(int distance, const char *word)
{
    return distance <= 1 + (int)strlen(word) / 3;
}
