#include "kernels/gemm_i8.h"
#include "base/memory.h"
#include "kernels/gemm_decode.h"
#include "kernels/multi/quantize_input.h"
#include "kernels/multi/row_values.h"
#include "kernels/ref/ref.h"
#include "kernels/table.h"

#include <string.h>

enum { ROWS = GPTVQ_GEMM_ROWS, TOKENS = GPTVQ_GEMM_TOKENS };

/* Sizes of a layer's panels and prepared inputs; offsets in bytes. */
typedef struct layout {
  gptvq_gemm_columns columns;
  size_t quads, last_quads, all_quads;
  size_t corrections, x_scales, input_bytes; /* of one block of tokens */
  size_t weight_scales, panel_bytes;         /* of ROWS rows */
} layout;

static layout measure(const gptvq_packed_shape *s) {
  layout l = {.columns = gptvq_gemm_cut(s)};
  const size_t segments = l.columns.segments;
  l.quads = l.columns.segment / 4;
  l.last_quads = gptvq_ceil_div(l.columns.last, 4);
  l.all_quads = (segments - 1) * l.quads + l.last_quads;
  l.corrections = gptvq_round_up(l.all_quads * TOKENS * 4, 64);
  l.x_scales = l.corrections + segments * TOKENS * sizeof(int32_t);
  l.input_bytes = gptvq_round_up(l.x_scales + segments * TOKENS * sizeof(float), 64);
  l.weight_scales = l.all_quads * ROWS * 4;
  l.panel_bytes = l.weight_scales + segments * ROWS * sizeof(float);
  return l;
}

bool gptvq_packed_has_gemm_i8(const gptvq_packed_shape *shape) {
  return gptvq_gemm_fits(shape) && gptvq_kernels(gptvq_cpu())->gemm_block != NULL;
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
  return gptvq_ceil_div(rows, ROWS) * l.panel_bytes + ROWS * l.columns.stride;
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
  const size_t group = l.columns.group, segment = l.columns.segment;
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
      for (size_t c = 0; c < width; c += segment) {
        size_t at = (first + c) / segment * TOKENS + t;
        corrections[at] =
            -128 * GPTVQ_MULTI_PICK(gptvq_sum_codes)(codes + c, gptvq_min_size(segment, width - c));
        scales[at] = scale;
      }
    }
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
  int8_t *codes = (int8_t *)(weights + blocks * l.panel_bytes);
  for (size_t b = 0; b < blocks; b++) {
    size_t first = begin + b * ROWS;
    gptvq_gemm_decode(packed, &l.columns, block_table, first, gptvq_min_size(first + ROWS, end), codes,
                      (float *)(void *)(weights + b * l.panel_bytes + l.weight_scales));
    table->gemm_pack(codes, l.columns.stride, l.all_quads, weights + b * l.panel_bytes);
  }
  gptvq_gemm_block job = {
      .segments = l.columns.segments, .quads = l.quads, .last_quads = l.last_quads, .sums = sums};
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
