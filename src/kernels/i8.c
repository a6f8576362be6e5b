#include "kernels/i8.h"
#include "base/half.h"
#include "base/memory.h"
#include "kernels/multi/quantize_input.h"
#include "kernels/ref/ref.h"

enum { MAX_ROWS = 256, SUMS = 256 * GPTVQ_I8_LANES }; /* 16 KiB of sums stay in the first-level cache */

bool gptvq_packed_has_i8(const gptvq_packed_shape *s) {
  if (s->kind != GPTVQ_PACKED_VQ || s->codebook_bits != 8) return false;
  if (gptvq_min_size(s->group_cols, s->cols) > GPTVQ_I8_MAX_WIDTH) return false;
  return s->scale_block == 0 || s->scale_block / s->dim % 4 == 0;
}

void gptvq_input_measure(const gptvq_packed_shape *s, gptvq_input_layout *layout) {
  layout->width = gptvq_min_size(s->group_cols, s->cols);
  layout->groups = gptvq_ceil_div(s->cols, layout->width);
  layout->group_codes = s->dim * gptvq_round_up(gptvq_ceil_div(layout->width, s->dim), GPTVQ_I8_SET);
  layout->corrections = layout->groups * layout->group_codes;
  layout->scales = layout->corrections + layout->groups * GPTVQ_I8_LANES * sizeof(int32_t);
  layout->bytes = gptvq_round_up(layout->scales + layout->groups * sizeof(float), 64);
}

size_t gptvq_packed_input_bytes(const gptvq_packed_shape *shape) {
  gptvq_input_layout layout;
  gptvq_input_measure(shape, &layout);
  return layout.bytes;
}

bool gptvq_packed_same_input(const gptvq_packed *a, const gptvq_packed *b) {
  return a->shape.kind == b->shape.kind && a->shape.cols == b->shape.cols && a->shape.dim == b->shape.dim &&
         a->permutation == b->permutation &&
         gptvq_min_size(a->shape.group_cols, a->shape.cols) == gptvq_min_size(b->shape.group_cols, b->shape.cols);
}

void gptvq_packed_prepare(const gptvq_packed *packed, const float *x, void *input) {
  const gptvq_packed_shape *s = &packed->shape;
  gptvq_input_layout layout;
  gptvq_input_measure(s, &layout);
  int8_t *codes = input;
  int32_t *corrections = (int32_t *)(void *)(codes + layout.corrections);
  float *scales = (float *)(void *)(codes + layout.scales);
  float gathered[GPTVQ_I8_MAX_WIDTH];
  for (size_t g = 0; g < layout.groups; g++, codes += layout.group_codes, corrections += GPTVQ_I8_LANES) {
    size_t first = g * layout.width, width = gptvq_min_size(layout.width, s->cols - first);
    const float *from = x + first;
    if (packed->permutation != NULL) {
      for (size_t c = 0; c < width; c++) gathered[c] = x[packed->permutation[first + c]];
      from = gathered;
    }
    size_t plane = gptvq_round_up(gptvq_ceil_div(width, s->dim), GPTVQ_I8_SET);
    scales[g] = GPTVQ_MULTI_PICK(gptvq_quantize_group)(from, width, s->dim, plane, codes, corrections);
  }
}

/* the sums of one row and token, folded */
static float fold(float *sums) {
  for (size_t half = GPTVQ_I8_LANES / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; i++) sums[i] += sums[i + half];
  return sums[0];
}

/* The tile's fields that depend on the width of a column group only. */
static void set_group(const gptvq_packed_shape *s, size_t g, gptvq_i8_tile *tile) {
  tile->indices = gptvq_unit_indices(s, g);
  tile->sets = gptvq_ceil_div(tile->indices, GPTVQ_I8_SET);
  tile->unit_bytes = gptvq_unit_bytes(s, g);
  if (s->scale_block != 0)
    tile->block_bytes = gptvq_ceil_div(gptvq_ceil_div(gptvq_packed_width(s, g), s->scale_block), 2);
}

/* Rows [begin, begin + rows) of one stripe, all column groups. Divisions stay out of the loop. */
static void multiply_rows(const gptvq_packed *p, const gptvq_input_layout *layout, gptvq_i8_tile *tile,
                          const int8_t *input, size_t begin, float *sums) {
  const gptvq_packed_shape *s = &p->shape;
  void (*run)(const gptvq_i8_tile *) = gptvq_kernels(gptvq_cpu())->i8_tile;
  size_t stripe = begin / s->group_rows, first = stripe * s->group_rows, last = layout->groups - 1;
  size_t height = gptvq_min_size(s->group_rows, s->rows - first); /* units of a tile */
  const uint8_t *units = p->indices + gptvq_unit_offset(s, first, 0);
  const uint8_t *block_codes = s->scale_block ? p->block_scales + gptvq_block_scale_offset(s, first, 0) : NULL;
  const uint16_t *codebook_scales = p->codebook_scales + stripe * layout->groups;
  const size_t codebook_bytes = s->dim << s->index_bits;
  tile->codebook = (const int8_t *)p->codebooks + stripe * layout->groups * codebook_bytes;
  tile->x = input;
  tile->correction = (const int32_t *)(const void *)(input + layout->corrections);
  float scales[GPTVQ_I8_MAX_TOKENS];
  tile->scales = scales;
  tile->sums = sums;
  memset(sums, 0, tile->rows * tile->tokens * GPTVQ_I8_LANES * sizeof *sums);
  set_group(s, 0, tile);
  for (size_t g = 0; g <= last; g++) {
    if (g == last && g > 0) set_group(s, g, tile);
    float scale = gptvq_bf16_to_float(codebook_scales[g]) / 127.0f;
    for (size_t t = 0; t < tile->tokens; t++)
      scales[t] = scale * ((const float *)(const void *)(input + t * tile->input_stride + layout->scales))[g];
    tile->units = units + (begin - first) * tile->unit_bytes;
    if (block_codes != NULL) tile->block_codes = block_codes + (begin - first) * tile->block_bytes;
    run(tile);
    units += height * tile->unit_bytes;
    if (block_codes != NULL) block_codes += height * tile->block_bytes;
    tile->codebook += codebook_bytes;
    tile->x += layout->group_codes;
    tile->correction += GPTVQ_I8_LANES;
  }
}

void gptvq_packed_matmul_i8(const gptvq_packed *packed, const void *inputs, size_t count, size_t begin, size_t end,
                            float *y, size_t ldy) {
  const gptvq_packed_shape *s = &packed->shape;
  _Alignas(64) float sums[SUMS];
  float block_table[16];
  gptvq_input_layout layout;
  gptvq_input_measure(s, &layout);
  gptvq_block_scale_table(packed, block_table);
  gptvq_i8_tile tile = {.dim = s->dim, .index_bits = s->index_bits, .input_stride = layout.bytes,
                        .block_vectors = s->scale_block / s->dim, .block_table = block_table};
  for (size_t token = 0; token < count; token += tile.tokens) {
    tile.tokens = gptvq_min_size(GPTVQ_I8_MAX_TOKENS, count - token);
    const int8_t *input = (const int8_t *)inputs + token * layout.bytes;
    size_t at_once = MAX_ROWS / tile.tokens;
    for (size_t row = begin; row < end; row += tile.rows) {
      size_t stripe_end = (row / s->group_rows + 1) * s->group_rows;
      tile.rows = gptvq_min_size(at_once, gptvq_min_size(stripe_end, end) - row);
      multiply_rows(packed, &layout, &tile, input, row, sums);
      for (size_t r = 0; r < tile.rows; r++)
        for (size_t t = 0; t < tile.tokens; t++)
          y[(token + t) * ldy + row - begin + r] = fold(sums + (r * tile.tokens + t) * GPTVQ_I8_LANES);
    }
  }
}

void gptvq_packed_matvec_i8(const gptvq_packed *packed, const void *input, size_t begin, size_t end, float *y) {
  gptvq_packed_matmul_i8(packed, input, 1, begin, end, y, 0);
}
