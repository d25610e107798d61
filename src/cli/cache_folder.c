#include "cli/cache_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* With sudo it can be another user's, who could not use what is left there. */
static bool is_own(const char *folder)
{
    struct stat st;

    return stat(folder, &st) == 0 && st.st_uid == geteuid();
}

bool cache_folder(char *out, size_t size, const char *kind)
{
    const char *own = getenv("CLM_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    int n = 0;

    if (own && *own == '/')
        n = snprintf(out, size, "%s/%s", own, kind);
    else if (own)
        return false;
    else if (xdg && *xdg == '/')
        n = snprintf(out, size, "%s/clm/%s", xdg, kind);
    else if (home && *home == '/' && is_own(home))
        n = snprintf(out, size, "%s/.cache/clm/%s", home, kind);
    return n > 0 && (size_t)n < size;
}
