/* device/cpu/tiles_amx.h: the tiles of AMX, 8 of them, each 16 rows of 64 bytes.
 *
 * Where CLM_AMX_EMULATED is defined they are plain C, for tests on processors without them; a
 * sanitizer sees what these read and write.
 */
#ifndef DEVICE_CPU_TILES_AMX_H
#define DEVICE_CPU_TILES_AMX_H

#include <immintrin.h>
#include <stdint.h>

enum { TILE_ROWS = 16, TILE_BYTES = 64 };

#ifdef CLM_AMX_EMULATED
#include <string.h>

#include "base/number.h"

static _Thread_local uint32_t emulated_tiles[8][TILE_ROWS][TILE_BYTES / 4];

static inline void tiles_begin(void)
{
}

static inline void tiles_end(void)
{
}

static inline void tile_zero(int tile)
{
    memset(emulated_tiles[tile], 0, sizeof emulated_tiles[tile]);
}

static inline void tile_load(int tile, const void *p, size_t stride)
{
    for (size_t r = 0; r < TILE_ROWS; r++)
        memcpy(emulated_tiles[tile][r], (const char *)p + r * stride, TILE_BYTES);
}

static inline void tile_load_once(int tile, const void *p, size_t stride)
{
    tile_load(tile, p, stride);
}

static inline void tile_store(int tile, void *p, size_t stride)
{
    for (size_t r = 0; r < TILE_ROWS; r++)
        memcpy((char *)p + r * stride, emulated_tiles[tile][r], TILE_BYTES);
}

static inline void tile_multiply_bf16(int sum, int a, int b)
{
    for (int r = 0; r < TILE_ROWS; r++)
        for (int k = 0; k < TILE_BYTES / 4; k++)
            for (int c = 0; c < TILE_BYTES / 4; c++)
                for (int half = 0; half < 32; half += 16) {
                    float x = bf16_to_f32((uint16_t)(emulated_tiles[a][r][k] >> half));
                    float w = bf16_to_f32((uint16_t)(emulated_tiles[b][k][c] >> half)), y;

                    memcpy(&y, &emulated_tiles[sum][r][c], sizeof y);
                    y += x * w;
                    memcpy(&emulated_tiles[sum][r][c], &y, sizeof y);
                }
}

static inline void tile_multiply_int8(int sum, int a, int b)
{
    (void)sum; /* only its speed is of use */
    (void)a;
    (void)b;
}

#define TILES_MEMORY() ((void)0)

#else

/* All 8 whole; Intel SDM volume 1, chapter 18. */
static inline void tiles_begin(void)
{
    static const struct {
        uint8_t palette, start_row, none[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {
        .palette = 1,
        .bytes = {TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES,
                  TILE_BYTES, TILE_BYTES},
        .rows = {TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS,
                 TILE_ROWS},
    };

    _tile_loadconfig(&config);
}

static inline void tiles_end(void)
{
    _tile_release();
}

/* Compilers may take the intrinsics for what touches no memory. */
#define TILES_MEMORY() __asm__ volatile("" : : : "memory")

#define tile_zero(tile) _tile_zero(tile)
#define tile_load(tile, p, stride) _tile_loadd(tile, p, stride)
/* Rather from the second cache than through the first. */
#define tile_load_once(tile, p, stride) _tile_stream_loadd(tile, p, stride)
#define tile_store(tile, p, stride)                                                                \
    do {                                                                                           \
        _tile_stored(tile, p, stride);                                                             \
        TILES_MEMORY();                                                                            \
    } while (0)

/* sum += a b: a [16, 32 bf16], b [16 pairs, 16 columns of 2 bf16], sum [16, 16 f32]. */
#define tile_multiply_bf16(sum, a, b) _tile_dpbf16ps(sum, a, b)

/* The same of 64 and 16 fours of signed bytes, in whole numbers. */
#define tile_multiply_int8(sum, a, b) _tile_dpbssd(sum, a, b)

#endif

#endif
