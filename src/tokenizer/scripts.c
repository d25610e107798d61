/* tokenizer/scripts.c: looking up the table of scripts. */
#include "tokenizer/scripts.h"

#include "base/memory.h"
#include "tokenizer/scripts_table.h"

int script_of(int32_t c)
{
    size_t low = 0, high = COUNT(script_runs);

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (c > script_runs[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < COUNT(script_runs) && c >= script_runs[low].first ? script_runs[low].script
                                                                   : SCRIPT_ANY;
}
