/* base/arena.h: memory whose lifetime is shared: taken piece by piece, given back all at once. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "base/memory.h"

typedef struct arena arena;

/* An empty arena, or NULL when there is no memory. Chunks of at least chunk_size bytes; 0 chooses.
 */
arena *arena_open(size_t chunk_size);
void arena_close(arena *a); /* NULL is fine */

/* count * size bytes, zeroed, 64-byte aligned; NULL on overflow or without memory. */
void *arena_zeroed(arena *a, size_t count, size_t size);

#define arena_array(a, type, n) ((type *)arena_zeroed((a), (size_t)(n), sizeof(type)))

/* Copies, NUL-terminated, in the arena; NULL without memory. */
char *arena_strdup(arena *a, const char *s);
char *arena_strndup(arena *a, const char *s, size_t n);
char *arena_printf(arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Give back all that was taken since the mark. Chunks stay with the arena for reuse. */
size_t arena_mark(const arena *a);
void arena_rewind(arena *a, size_t mark);

/* Bytes in use, and the most there have been at once. */
size_t arena_used(const arena *a);
size_t arena_peak(const arena *a);

#endif
