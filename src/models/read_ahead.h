/* models/read_ahead.h: a checkpoint's weights read from the disk before they are used. */
#ifndef MODELS_READ_AHEAD_H
#define MODELS_READ_AHEAD_H

#include "models/model.h"

/**
 * Bring those tensors into memory that every token uses: none that no place takes, no embedding of
 * which rows are looked up. Nothing is done where a sample says that they are there, where the
 * files lie in memory anyway, and where there is not memory enough to keep them. log hears how far
 * it is; go_on is asked whether to. Linux tells which pages of a file are there only to those who
 * may write it; for others it is taken to be there.
 *
 * Returns 0, or -1 with CLM_ERR_CANCELLED where go_on says no.
 */
int model_read_ahead(const struct model *m, bool (*go_on)(void *ctx), void *ctx,
                     const struct log *log, clm_error *err);

/* Map what lies in memory of them, one after the other, for as long as go_on says: what a thread
 * does for the first pass that has nothing else to do. */
void model_map_ahead(const struct model *m, bool (*go_on)(void *ctx), void *ctx);

#endif
