/* base/x86/tiles_amx.h: the one way in which AMX's tiles are laid out here: eight of 16 rows of 64 bytes. For
 * files compiled for AMX only. */
#ifndef GPTVQ_BASE_TILES_AMX_H
#define GPTVQ_BASE_TILES_AMX_H

#include <assert.h>
#include <immintrin.h>
#include <stdint.h>

/* Palette 1. In memory from the start, since gcc's _tile_loadconfig says that it reads eight bytes only. */
static const _Alignas(64) union {
  struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } tiles;
  uint8_t bytes[64];
} gptvq_tiles_layout = {{1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}}};
static_assert(sizeof gptvq_tiles_layout == 64, "what LDTILECFG reads");

/* This thread's tiles, all zero, until _tile_release(). */
static inline void gptvq_tiles_begin(void) { _tile_loadconfig(gptvq_tiles_layout.bytes); }

#endif
