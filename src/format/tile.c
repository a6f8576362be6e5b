#include "format/tile.h"
#include "base/half.h"
#include "base/memory.h"

#include <math.h>

void gptvq_block_scale_table(const gptvq_packed *packed, float table[16]) {
  for (unsigned code = 0; code < 16; code++)
    table[code] = packed->block_scale_range == NULL
                      ? 1.0f
                      : exp2f(packed->block_scale_range[0] + packed->block_scale_range[1] * (float)code);
}

/* What depends on the width of a column group only: all but the last are alike. */
static gptvq_tile group_template(const gptvq_packed_shape *s, size_t g) {
  gptvq_tile tile = {.dim = s->dim, .index_bits = s->index_bits};
  tile.width = gptvq_packed_width(s, g);
  tile.indices = gptvq_unit_indices(s, g);
  tile.unit_bytes = gptvq_unit_bytes(s, g);
  tile.block_bytes = s->scale_block ? gptvq_ceil_div(gptvq_ceil_div(tile.width, s->scale_block), 2) : 0;
  return tile;
}

/* Divisions stay out of the loops: with small groups there are few weights per tile to hide them behind. */
void gptvq_walk_tiles(const gptvq_packed *packed, size_t begin, size_t end, size_t most,
                      gptvq_visit_tile visit, void *context) {
  const gptvq_packed_shape *s = &packed->shape;
  size_t groups = gptvq_ceil_div(s->cols, s->group_cols), rows;
  gptvq_tile full = group_template(s, 0), last = group_template(s, groups - 1);
  size_t codebook_bytes = (s->dim << s->index_bits) * (s->codebook_bits / 8);
  size_t row_bytes = (groups - 1) * full.unit_bytes + last.unit_bytes;
  size_t row_block_bytes = (groups - 1) * full.block_bytes + last.block_bytes;
  size_t stripe = begin / s->group_rows, first = stripe * s->group_rows;
  for (size_t row = begin; row < end; row += rows) {
    if (row - first >= s->group_rows) first += s->group_rows, stripe++;
    size_t height = gptvq_min_size(s->group_rows, s->rows - first); /* units of a tile */
    rows = gptvq_min_size(most, gptvq_min_size(first + height, end) - row);
    const uint8_t *units = packed->indices + first * row_bytes;
    const uint8_t *block_codes = s->scale_block ? packed->block_scales : NULL;
    if (block_codes != NULL) block_codes += first * row_block_bytes;
    const uint8_t *codebook = (const uint8_t *)packed->codebooks + stripe * groups * codebook_bytes;
    const uint16_t *scales = packed->codebook_scales + stripe * groups;
    gptvq_tile tile = full;
    tile.row = row;
    tile.rows = rows;
    for (size_t g = 0; g < groups; g++) {
      if (g + 1 == groups) {
        tile.is_last = true;
        tile.width = last.width;
        tile.indices = last.indices;
        tile.unit_bytes = last.unit_bytes;
        tile.block_bytes = last.block_bytes;
      }
      tile.group = g;
      tile.column = g * full.width;
      tile.units = units + (row - first) * tile.unit_bytes;
      if (block_codes != NULL) tile.block_codes = block_codes + (row - first) * tile.block_bytes;
      tile.codebook = codebook;
      tile.scale = gptvq_bf16_to_float(scales[g]);
      visit(context, &tile);
      units += height * tile.unit_bytes;
      if (block_codes != NULL) block_codes += height * tile.block_bytes;
      codebook += codebook_bytes;
    }
  }
}
