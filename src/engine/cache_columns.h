/* engine/cache_columns.h: keys and values of a sequence as rows of a file. */
#ifndef ENGINE_CACHE_COLUMNS_H
#define ENGINE_CACHE_COLUMNS_H

#include "engine/engine.h"

/* As MLX has a quantised array: codes, scales and biases are arrays of their own. */
enum row_form { ROW_NUMBERS, ROW_CODES, ROW_SCALES, ROW_BIASES };

/* Columns [first, first + n) of the keys, or the values, of a layer of the cache; n and first are
 * made of whole groups unless numbers are asked for. */
struct cache_columns {
    int layer;
    bool of_values;
    int first, n;
    enum row_form form;
};

/* Bytes of a row. */
size_t cache_columns_bytes(const struct cache_columns *c, const struct kv_layer *kv);

/* Bytes of room that reading takes. */
size_t cache_columns_room(const struct cache_columns *c, const struct kv_layer *kv);

/* The rows of tokens [from, to), which lie in one block, of a head, one after another in out.
 * Where the cache has numbers and codes are asked for, or the other way round, they become so. */
void cache_columns_read(const struct cache_columns *c, engine *e, const kv_seq *seq, int head,
                        int from, int to, void *room, uint8_t *out);

#endif
