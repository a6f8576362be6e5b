#include "kernels/gemm_i8.h"
#include "base/half.h"
#include "base/memory.h"
#include "kernels/i8.h"
#include "kernels/multi/quantize_input.h"
#include "kernels/multi/row_values.h"
#include "kernels/ref/ref.h"
#include "kernels/table.h"

#include <string.h>

enum { ROWS = GPTVQ_GEMM_ROWS, TOKENS = GPTVQ_GEMM_TOKENS };

/* Sizes of a layer's panels and prepared inputs; offsets in bytes. */
typedef struct layout {
  size_t segment, segments, quads, last_quads, all_quads;
  size_t corrections, x_scales, input_bytes; /* of one block of tokens */
  size_t weight_scales, panel_bytes;         /* of ROWS rows */
  size_t stride;                             /* of decoded rows */
} layout;

/* Columns of activations that share a scale. */
static size_t input_group(const gptvq_packed_shape *s) {
  return gptvq_min_size(s->kind == GPTVQ_PACKED_UNIFORM ? s->scale_block : s->group_cols, s->cols);
}

static layout measure(const gptvq_packed_shape *s) {
  layout l;
  l.segment = gptvq_min_size(s->scale_block != 0 ? s->scale_block : s->group_cols, s->cols);
  l.segments = gptvq_ceil_div(s->cols, l.segment);
  l.quads = l.segment / 4;
  l.last_quads = gptvq_ceil_div(s->cols - (l.segments - 1) * l.segment, 4);
  l.all_quads = (l.segments - 1) * l.quads + l.last_quads;
  l.corrections = gptvq_round_up(l.all_quads * TOKENS * 4, 64);
  l.x_scales = l.corrections + l.segments * TOKENS * sizeof(int32_t);
  l.input_bytes = gptvq_round_up(l.x_scales + l.segments * TOKENS * sizeof(float), 64);
  l.weight_scales = l.all_quads * ROWS * 4;
  l.panel_bytes = l.weight_scales + l.segments * ROWS * sizeof(float);
  l.stride = gptvq_round_up(s->cols + 32, 64); /* padding indices are decoded too, at most 7 of 4 columns */
  return l;
}

/* Decoded weights fit int8: codes of 8 bits less a zero point do not. */
static bool fits(const gptvq_packed_shape *s) {
  return gptvq_packed_has_i8(s) && (s->kind != GPTVQ_PACKED_UNIFORM || s->index_bits < 8);
}

bool gptvq_packed_has_gemm_i8(const gptvq_packed_shape *shape) {
  return fits(shape) && gptvq_kernels(gptvq_cpu())->gemm_block != NULL;
}

size_t gptvq_packed_few_tokens(const gptvq_packed_shape *s) {
  enum { UNIFORM = 8 }; /* are multiplied token by token otherwise */
  if (!gptvq_packed_has_gemm_i8(s)) return s->kind == GPTVQ_PACKED_UNIFORM ? UNIFORM : SIZE_MAX;
  if (s->kind == GPTVQ_PACKED_UNIFORM) return UNIFORM;
  const gptvq_kernel_table *table = gptvq_kernels(gptvq_cpu());
  const bool usual = s->group_cols == 256 && s->cols % 256 == 0 && s->index_bits <= 8 && s->scale_block == 0;
  return usual ? table->i8_tokens : table->i8_tokens_other;
}

bool gptvq_packed_same_gemm_input(const gptvq_packed *a, const gptvq_packed *b) {
  return gptvq_packed_same_input(a, b) && a->shape.scale_block == b->shape.scale_block;
}

size_t gptvq_packed_gemm_input_bytes(const gptvq_packed_shape *shape) { return measure(shape).input_bytes; }

size_t gptvq_packed_gemm_panel_bytes(const gptvq_packed_shape *shape, size_t rows) {
  layout l = measure(shape);
  return gptvq_ceil_div(rows, ROWS) * l.panel_bytes + ROWS * l.stride;
}

void gptvq_packed_gemm_prepare(const gptvq_packed *packed, const float *x, size_t ldx, size_t count,
                               void *input) {
  const gptvq_packed_shape *s = &packed->shape;
  layout l = measure(s);
  int8_t *out = input, codes[GPTVQ_I8_MAX_WIDTH + 64];
  float gathered[GPTVQ_I8_MAX_WIDTH];
  int32_t *corrections = (int32_t *)(void *)(out + l.corrections);
  float *scales = (float *)(void *)(out + l.x_scales);
  memset(input, 0, l.input_bytes);
  size_t group = input_group(s);
  for (size_t t = 0; t < count; t++, x += ldx)
    for (size_t first = 0; first < s->cols; first += group) {
      size_t width = gptvq_min_size(group, s->cols - first);
      const float *from = x + first;
      if (packed->permutation != NULL) {
        for (size_t c = 0; c < width; c++) gathered[c] = x[packed->permutation[first + c]];
        from = gathered;
      }
      float scale = GPTVQ_MULTI_PICK(gptvq_quantize_group)(from, width, 1, gptvq_round_up(width, 64), codes);
      for (size_t q = 0; 4 * q < width; q++)
        memcpy(out + ((first / 4 + q) * TOKENS + t) * 4, codes + 4 * q, 4);
      for (size_t c = 0; c < width; c += l.segment) {
        size_t at = (first + c) / l.segment * TOKENS + t;
        corrections[at] =
            -128 * GPTVQ_MULTI_PICK(gptvq_sum_codes)(codes + c, gptvq_min_size(l.segment, width - c));
        scales[at] = scale;
      }
    }
}

typedef struct decoding {
  const layout *layout;
  const float *block_table;
  size_t begin, block_columns;
  int8_t *codes; /* [ROWS][stride] */
  float *scales; /* [segments][ROWS] */
} decoding;

static void decode_tile(void *context, const gptvq_tile *tile) {
  const decoding *d = context;
  const gptvq_kernel_table *table = gptvq_kernels(gptvq_cpu());
  size_t lane = tile->row - d->begin, segment = d->layout->segment;
  int8_t *codes = d->codes + lane * d->layout->stride + tile->column;
  table->tile_codes(tile, codes, d->layout->stride);
  for (size_t r = 0; r < tile->rows; r++)
    for (size_t c = 0; c < tile->width; c += segment) {
      float scale = tile->scale / 127.0f;
      if (d->block_columns != 0)
        scale *=
            d->block_table[gptvq_block_code(tile->block_codes + r * tile->block_bytes, c / d->block_columns)];
      d->scales[(tile->column + c) / segment * ROWS + lane + r] = scale;
    }
}

/* Row `row` of a uniform layer: code − zero point, which has a sign and at most 7 bits more. */
static void decode_uniform(const decoding *d, const gptvq_packed *packed, size_t row) {
  enum { PIECE = 64 };
  const gptvq_packed_shape *s = &packed->shape;
  size_t lane = row - d->begin, groups = d->layout->segments,
         zero_count = gptvq_round_up(s->rows * groups, 8);
  uint8_t *codes = (uint8_t *)d->codes + lane * d->layout->stride;
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
  size_t lane = row - d->begin, groups = d->layout->segments, stream = row * gptvq_trellis_row_bytes(s);
  for (size_t g = 0; g < groups; g++) {
    size_t first = g * d->layout->segment, width = gptvq_packed_width(s, g);
    gptvq_kernels(gptvq_cpu())
        ->trellis_codes(packed->indices + stream, s->index_bits, s->state_bits, first, width,
                        (const int8_t *)packed->codebooks + (g << s->state_bits),
                        d->codes + lane * d->layout->stride + first);
    d->scales[g * ROWS + lane] = gptvq_bf16_to_float(packed->codebook_scales[g]) / 127.0f *
                                 gptvq_row_scale(packed->row_scales[row * groups + g]);
  }
}

/* Rows [first, last), at most ROWS, to d->codes and d->scales; what is missing to ROWS is set to zero. */
static void decode_rows(decoding *d, const gptvq_packed *packed, size_t first, size_t last) {
  d->begin = first;
  if (last - first < ROWS) {
    memset(d->codes, 0, ROWS * d->layout->stride);
    memset(d->scales, 0, d->layout->segments * ROWS * sizeof *d->scales);
  }
  if (packed->shape.kind == GPTVQ_PACKED_VQ) gptvq_walk_tiles(packed, first, last, ROWS, decode_tile, d);
  else
    for (size_t row = first; row < last; row++)
      (packed->shape.kind == GPTVQ_PACKED_TRELLIS ? decode_trellis : decode_uniform)(d, packed, row);
}

void gptvq_packed_gemm_i8(const gptvq_packed *packed, const void *inputs, size_t count, size_t begin,
                          size_t end, float *y, size_t ldy, void *panel) {
  const gptvq_kernel_table *table = gptvq_kernels(gptvq_cpu());
  _Alignas(64) float sums[TOKENS * ROWS];
  float block_table[16];
  layout l = measure(&packed->shape);
  size_t blocks = gptvq_ceil_div(end - begin, ROWS);
  uint8_t *weights = panel;
  gptvq_block_scale_table(packed, block_table);
  decoding d = {.layout = &l,
                .block_table = block_table,
                .block_columns = packed->shape.scale_block,
                .codes = (int8_t *)(weights + blocks * l.panel_bytes)};
  for (size_t b = 0; b < blocks; b++) {
    size_t first = begin + b * ROWS;
    d.scales = (float *)(void *)(weights + b * l.panel_bytes + l.weight_scales);
    decode_rows(&d, packed, first, gptvq_min_size(first + ROWS, end));
    table->gemm_pack(d.codes, l.stride, l.all_quads, weights + b * l.panel_bytes);
  }
  gptvq_gemm_block job = {.segments = l.segments, .quads = l.quads, .last_quads = l.last_quads, .sums = sums};
  for (size_t first = 0; first < count; first += TOKENS) {
    const int8_t *input = (const int8_t *)inputs + first / TOKENS * l.input_bytes;
    size_t tokens = gptvq_min_size(TOKENS, count - first);
    job.x = input;
    job.corrections = (const int32_t *)(const void *)(input + l.corrections);
    job.x_scales = (const float *)(const void *)(input + l.x_scales);
    for (size_t b = 0; b < blocks; b++) {
      job.weights = weights + b * l.panel_bytes;
      job.weight_scales = (const float *)(const void *)(job.weights + l.weight_scales);
      table->gemm_block(&job);
      size_t rows = gptvq_min_size(ROWS, end - begin - b * ROWS);
      for (size_t t = 0; t < tokens; t++)
        memcpy(y + (first + t) * ldy + b * ROWS, sums + t * ROWS, rows * sizeof *y);
    }
  }
}

/* ---- by a product from outside ---- */

enum { PLAIN_TOKENS = 256 }; /* per product: their int32 sums stay in the second-level cache */

bool gptvq_packed_has_plain_i8(const gptvq_packed_shape *shape) {
  return fits(shape) && measure(shape).segment >= 64;
}

static size_t plain_scales(const gptvq_packed_shape *s) { return gptvq_round_up(s->cols, 64); }

size_t gptvq_packed_plain_input_bytes(const gptvq_packed_shape *shape) {
  return plain_scales(shape) + gptvq_round_up(measure(shape).segments * sizeof(float), 64);
}

void gptvq_packed_plain_prepare(const gptvq_packed *packed, const float *x, void *input) {
  const gptvq_packed_shape *s = &packed->shape;
  layout l = measure(s);
  int8_t *out = input, codes[GPTVQ_I8_MAX_WIDTH + 64];
  float gathered[GPTVQ_I8_MAX_WIDTH], *scales = (float *)(void *)(out + plain_scales(s));
  for (size_t first = 0; first < s->cols; first += input_group(s)) {
    size_t width = gptvq_min_size(input_group(s), s->cols - first);
    const float *from = x + first;
    if (packed->permutation != NULL) {
      for (size_t c = 0; c < width; c++) gathered[c] = x[packed->permutation[first + c]];
      from = gathered;
    }
    float scale = GPTVQ_MULTI_PICK(gptvq_quantize_group)(from, width, 1, gptvq_round_up(width, 64), codes);
    memcpy(out + first, codes, width);
    for (size_t c = 0; c < width; c += l.segment) scales[(first + c) / l.segment] = scale;
  }
}

size_t gptvq_packed_plain_panel_bytes(const gptvq_packed_shape *shape, size_t rows) {
  layout l = measure(shape);
  size_t blocks = gptvq_ceil_div(rows, ROWS);
  return blocks * ROWS * (l.stride + l.segments * sizeof(float)) +
         PLAIN_TOKENS * blocks * ROWS * sizeof(int32_t);
}

bool gptvq_packed_plain_i8(const gptvq_packed *packed, const void *inputs, size_t count, size_t begin,
                           size_t end, float *y, size_t ldy, void *panel, gptvq_int8_product product) {
  const gptvq_packed_shape *s = &packed->shape;
  layout l = measure(s);
  const size_t rows = end - begin, blocks = gptvq_ceil_div(rows, ROWS),
               bytes = gptvq_packed_plain_input_bytes(s);
  float block_table[16], *scales = (float *)(void *)((int8_t *)panel + blocks * ROWS * l.stride);
  int32_t *sums = (int32_t *)(void *)(scales + blocks * ROWS * l.segments);
  gptvq_block_scale_table(packed, block_table);
  decoding d = {.layout = &l, .block_table = block_table, .block_columns = s->scale_block};
  for (size_t b = 0; b < blocks; b++) {
    d.codes = (int8_t *)panel + b * ROWS * l.stride;
    d.scales = scales + b * ROWS * l.segments;
    decode_rows(&d, packed, begin + b * ROWS, gptvq_min_size(begin + (b + 1) * ROWS, end));
  }
  for (size_t first = 0; first < count; first += PLAIN_TOKENS) {
    const size_t tokens = gptvq_min_size(PLAIN_TOKENS, count - first);
    const int8_t *x = (const int8_t *)inputs + first * bytes;
    for (size_t segment = 0; segment < l.segments; segment++) {
      const size_t column = segment * l.segment, width = gptvq_min_size(l.segment, s->cols - column);
      if (!product(tokens, rows, width, x + column, bytes, (const int8_t *)panel + column, l.stride, sums,
                   rows))
        return false;
      for (size_t t = 0; t < tokens; t++) {
        const float x_scale = ((const float *)(const void *)(x + t * bytes + plain_scales(s)))[segment];
        for (size_t r = 0; r < rows; r += ROWS) GPTVQ_MULTI_PICK(gptvq_add_products)
        (sums + t * rows + r, scales + (r * l.segments + segment * ROWS), x_scale,
         gptvq_min_size(ROWS, rows - r), segment == 0, y + (first + t) * ldy + r);
      }
    }
  }
  return true;
}
