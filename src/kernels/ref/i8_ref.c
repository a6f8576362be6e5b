/* Packed rows × int8 activations: the definition (i8.h gives the equation). */
#include "base/memory.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

/* planar codes of a unit: component e of index i at codes[e·64·sets + i]; padding indices are looked up too, but meet zeros */
static void look_up(const gptvq_i8_tile *tile, const uint8_t *unit, int8_t *codes) {
  uint16_t indices[GPTVQ_I8_MAX_WIDTH];
  gptvq_unpack_range(unit, tile->indices, tile->index_bits, 0, tile->indices, indices);
  size_t plane = tile->sets * GPTVQ_I8_SET;
  for (size_t e = 0; e < tile->dim; e++) {
    for (size_t i = 0; i < tile->indices; i++) codes[e * plane + i] = tile->codebook[indices[i] * tile->dim + e];
    memset(codes + e * plane + tile->indices, 0, plane - tile->indices);
  }
}

static void add_row(const gptvq_i8_tile *tile, const int8_t *codes, const int8_t *x, const uint8_t *block_codes,
                    float scale, float *sums) {
  for (size_t lane = 0; lane < GPTVQ_I8_LANES; lane++) {
    int32_t total = 0;
    float scaled = 0.0f;
    for (size_t s = 0; s < tile->sets; s++) {
      int32_t sum = 0;
      for (size_t e = 0; e < tile->dim; e++)
        for (size_t b = 0; b < 4; b++) {
          size_t at = (e * tile->sets + s) * GPTVQ_I8_SET + 4 * lane + b;
          sum += (int32_t)codes[at] * x[at];
        }
      total += sum;
      if (tile->block_vectors != 0) {
        size_t block = (s * GPTVQ_I8_SET + 4 * lane) / tile->block_vectors;
        unsigned code = block / 2 < tile->block_bytes ? block_codes[block / 2] >> (block % 2 * 4) & 15u : 0;
        scaled = fmaf((float)sum, tile->block_table[code], scaled);
      }
    }
    sums[lane] = fmaf(tile->block_vectors != 0 ? scaled : (float)total, scale, sums[lane]);
  }
}

void gptvq_i8_tile_scalar(const gptvq_i8_tile *tile) {
  int8_t codes[GPTVQ_I8_MAX_WIDTH + 4 * GPTVQ_I8_SET];
  for (size_t row = 0; row < tile->rows; row++) {
    look_up(tile, tile->units + row * tile->unit_bytes, codes);
    for (size_t t = 0; t < tile->tokens; t++)
      add_row(tile, codes, tile->x + t * tile->input_stride,
              tile->block_vectors ? tile->block_codes + row * tile->block_bytes : NULL, tile->scales[t],
              tile->sums + (row * tile->tokens + t) * GPTVQ_I8_LANES);
  }
}
