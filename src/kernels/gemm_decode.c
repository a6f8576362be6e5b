#include "kernels/gemm_decode.h"
#include "base/half.h"
#include "base/memory.h"
#include "kernels/ref/ref.h"
#include "kernels/table.h"

#include <string.h>

enum { ROWS = GPTVQ_GEMM_ROWS };

bool gptvq_gemm_fits(const gptvq_packed_shape *s) {
  return gptvq_packed_has_i8(s) && (s->kind != GPTVQ_PACKED_UNIFORM || s->index_bits < 8);
}

gptvq_gemm_columns gptvq_gemm_cut(const gptvq_packed_shape *s) {
  gptvq_gemm_columns c;
  c.segment = gptvq_min_size(s->scale_block != 0 ? s->scale_block : s->group_cols, s->cols);
  c.segments = gptvq_ceil_div(s->cols, c.segment);
  c.last = s->cols - (c.segments - 1) * c.segment;
  c.group = gptvq_min_size(s->kind == GPTVQ_PACKED_UNIFORM ? s->scale_block : s->group_cols, s->cols);
  /* Padding indices are decoded too, at most 7 of 4 columns, and tiles are read whole. An odd number of cache
   * lines: rows of a tile do not fall into the same few sets of the cache. */
  c.stride = (gptvq_ceil_div(s->cols + 64, 64) | 1) * 64;
  return c;
}

typedef struct decoding {
  const gptvq_gemm_columns *columns;
  const float *block_table;
  size_t begin, block_columns;
  int8_t *codes; /* [ROWS][stride] */
  float *scales; /* [segments][ROWS] */
} decoding;

static void decode_tile(void *context, const gptvq_tile *tile) {
  const decoding *d = context;
  const gptvq_kernel_table *table = gptvq_kernels(gptvq_cpu());
  size_t lane = tile->row - d->begin, segment = d->columns->segment;
  int8_t *codes = d->codes + lane * d->columns->stride + tile->column;
  table->tile_codes(tile, codes, d->columns->stride);
  for (size_t c = 0; c < tile->width; c += segment) {
    float *scales = d->scales + (tile->column + c) / segment * ROWS + lane;
    for (size_t r = 0; r < tile->rows; r++) {
      scales[r] = tile->scale / 127.0f;
      if (d->block_columns == 0) continue;
      const uint8_t *blocks = tile->block_codes + r * tile->block_bytes;
      scales[r] *= d->block_table[gptvq_block_code(blocks, c / d->block_columns)];
    }
  }
}

/* Row `row` of a uniform layer: code − zero point, which has a sign and at most 7 bits more. */
static void decode_uniform(const decoding *d, const gptvq_packed *packed, size_t row) {
  enum { PIECE = 64 };
  const gptvq_packed_shape *s = &packed->shape;
  size_t lane = row - d->begin, groups = d->columns->segments,
         zero_count = gptvq_round_up(s->rows * groups, 8);
  uint8_t *codes = (uint8_t *)d->codes + lane * d->columns->stride;
  uint16_t zeros[PIECE];
  gptvq_kernels(gptvq_cpu())
      ->unpack_bytes(packed->indices + row * gptvq_unit_bytes(s, 0), gptvq_unit_indices(s, 0), s->index_bits,
                     codes);
  for (size_t first = 0; first < groups; first += PIECE) {
    size_t count = gptvq_min_size(PIECE, groups - first);
    gptvq_unpack_range(packed->zeros, zero_count, s->index_bits, row * groups + first, count, zeros);
    for (size_t g = 0; g < count; g++) {
      uint8_t *block = codes + (first + g) * s->scale_block, zero = (uint8_t)zeros[g];
      const size_t width = gptvq_min_size(s->scale_block, s->cols - (first + g) * s->scale_block);
      for (size_t c = 0; c < width; c++)
        block[c] = (uint8_t)(block[c] - zero); /* read as int8_t from here on */
      d->scales[(first + g) * ROWS + lane] = gptvq_fp16_to_float(packed->scales[row * groups + first + g]);
    }
  }
}

static void decode_trellis(const decoding *d, const gptvq_packed *packed, size_t row) {
  const gptvq_packed_shape *s = &packed->shape;
  size_t lane = row - d->begin, groups = d->columns->segments, stream = row * gptvq_trellis_row_bytes(s);
  for (size_t g = 0; g < groups; g++) {
    size_t first = g * d->columns->segment, width = gptvq_packed_width(s, g);
    gptvq_kernels(gptvq_cpu())
        ->trellis_codes(packed->indices + stream, s->index_bits, first, width,
                        (const int8_t *)packed->codebooks + g * GPTVQ_TRELLIS_TABLE,
                        d->codes + lane * d->columns->stride + first);
    d->scales[g * ROWS + lane] = gptvq_bf16_to_float(packed->codebook_scales[g]) / 127.0f *
                                 gptvq_row_scale(packed->row_scales[row * groups + g]);
  }
}

void gptvq_gemm_decode(const gptvq_packed *packed, const gptvq_gemm_columns *columns,
                       const float block_table[16], size_t first, size_t last, int8_t *codes, float *scales) {
  decoding d = {columns, block_table, first, packed->shape.scale_block, codes, scales};
  if (last - first < ROWS) {
    memset(codes, 0, ROWS * columns->stride);
    memset(scales, 0, columns->segments * ROWS * sizeof *scales);
  }
  if (packed->shape.kind == GPTVQ_PACKED_VQ) gptvq_walk_tiles(packed, first, last, ROWS, decode_tile, &d);
  else
    for (size_t row = first; row < last; row++)
      (packed->shape.kind == GPTVQ_PACKED_TRELLIS ? decode_trellis : decode_uniform)(&d, packed, row);
}
