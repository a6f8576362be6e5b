/* format/tile.h: walking over the tiles of a VQ layer in the order of memory. */
#ifndef GPTVQ_FORMAT_TILE_H
#define GPTVQ_FORMAT_TILE_H

#include "format/packed.h"

enum {
  GPTVQ_TILE_MAX_WIDTH = 1024,                  /* columns of a group that the fast kernels take */
  GPTVQ_TILE_CODES = GPTVQ_TILE_MAX_WIDTH + 32, /* room for the codes of a row, padding indices included */
};

/* Some consecutive rows of one tile. */
typedef struct gptvq_tile {
  unsigned dim, index_bits;
  size_t row, rows;      /* first row of the layer, number of rows */
  size_t group, column;  /* column group, its first column */
  bool is_last;          /* the last column group */
  size_t width, indices; /* columns; indices of a unit, padding included */
  size_t unit_bytes;
  const uint8_t *units;       /* rows × unit_bytes */
  const void *codebook;       /* [k][dim] */
  float scale;                /* codebook scale */
  size_t block_bytes;         /* block-scale codes of a unit, or 0 */
  const uint8_t *block_codes; /* rows × block_bytes, or NULL */
} gptvq_tile;

/* Calls visit(context, tile) for rows [begin, end) in pieces of at most `most` rows of one stripe; for each
 * piece all column groups in ascending order. */
typedef void (*gptvq_visit_tile)(void *context, const gptvq_tile *tile);
void gptvq_walk_tiles(const gptvq_packed *packed, size_t begin, size_t end, size_t most,
                      gptvq_visit_tile visit, void *context);

/* 2^(lo + step·code) for the 16 block-scale codes; not used (all 1) when the layer has no block scales. */
void gptvq_block_scale_table(const gptvq_packed *packed, float table[16]);

static inline unsigned gptvq_block_code(const uint8_t *codes, size_t block) {
  return (unsigned)codes[block / 2] >> (block % 2 * 4) & 15u;
}

#endif
