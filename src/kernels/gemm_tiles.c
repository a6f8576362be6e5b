#include "kernels/gemm_tiles.h"
#include "base/memory.h"
#include "kernels/multi/quantize_input.h"
#include "kernels/table.h"

#include <string.h>

enum { ROWS = GPTVQ_GEMM_ROWS, TOKENS = GPTVQ_TILES_TOKENS, COLUMNS = GPTVQ_TILE_COLUMNS };

/* Sizes of prepared inputs; x_scales and input_bytes in bytes, of TOKENS tokens. */
typedef struct layout {
  gptvq_gemm_columns columns;
  size_t steps, last_steps, x_scales, input_bytes;
} layout;

static layout measure(const gptvq_packed_shape *s) {
  layout l = {.columns = gptvq_gemm_cut(s)};
  const gptvq_gemm_columns *c = &l.columns;
  l.steps = gptvq_ceil_div(c->segment, COLUMNS);
  l.last_steps = gptvq_ceil_div(c->last, COLUMNS);
  l.x_scales = ((c->segments - 1) * l.steps + l.last_steps) * GPTVQ_TILE_BYTES;
  l.input_bytes = l.x_scales + c->segments * TOKENS * sizeof(float);
  return l;
}

bool gptvq_packed_has_tiles_i8(const gptvq_packed_shape *shape) {
  enum { LEAST = 32 }; /* below, adding up scaled sums takes longer than what tiles save */
  return gptvq_kernels(gptvq_cpu())->tiles != NULL && gptvq_gemm_fits(shape) &&
         gptvq_gemm_cut(shape).segment >= LEAST;
}

size_t gptvq_packed_tiles_input_bytes(const gptvq_packed_shape *shape) { return measure(shape).input_bytes; }

void gptvq_packed_tiles_prepare(const gptvq_packed *packed, const float *x, size_t ldx, size_t count,
                                void *input) {
  const gptvq_packed_shape *s = &packed->shape;
  const layout l = measure(s);
  const size_t group = l.columns.group, segment = l.columns.segment;
  int8_t *out = input, codes[GPTVQ_I8_MAX_WIDTH + 64];
  float gathered[GPTVQ_I8_MAX_WIDTH], *scales = (float *)(void *)(out + l.x_scales);
  memset(input, 0, l.input_bytes);
  for (size_t t = 0; t < count; t++, x += ldx)
    for (size_t first = 0; first < s->cols; first += group) {
      const size_t width = gptvq_min_size(group, s->cols - first);
      const float *from = x + first;
      if (packed->permutation != NULL) {
        for (size_t c = 0; c < width; c++) gathered[c] = x[packed->permutation[first + c]];
        from = gathered;
      }
      const float scale =
          GPTVQ_MULTI_PICK(gptvq_quantize_group)(from, width, 1, gptvq_round_up(width, 64), codes);
      for (size_t c = 0; c < width; c += segment) {
        const size_t at = (first + c) / segment,
                     quads = gptvq_ceil_div(gptvq_min_size(segment, width - c), 4);
        int8_t *to = out + at * l.steps * GPTVQ_TILE_BYTES + t * 4;
        for (size_t q = 0; q < quads; q++) memcpy(to + q * TOKENS * 4, codes + c + 4 * q, 4);
        scales[at * TOKENS + t] = scale;
      }
    }
}

size_t gptvq_packed_tiles_panel_bytes(const gptvq_packed_shape *shape, size_t count) {
  const gptvq_gemm_columns c = gptvq_gemm_cut(shape);
  return ROWS * (c.stride + c.segments * sizeof(float) + gptvq_round_up(count, TOKENS) * sizeof(float));
}

void gptvq_packed_tiles_i8(const gptvq_packed *packed, const void *inputs, size_t count, size_t begin,
                           size_t end, float *y, size_t ldy, void *panel) {
  const gptvq_tiles_kernel *fast = gptvq_kernels(gptvq_cpu())->tiles,
                           *kernel = fast != NULL ? fast : &gptvq_tiles_ref;
  const layout l = measure(&packed->shape);
  const gptvq_gemm_columns *c = &l.columns;
  float block_table[16];
  int8_t *codes = panel;
  float *scales = (float *)(void *)(codes + ROWS * c->stride);
  gptvq_block_scale_table(packed, block_table);
  gptvq_tiles job = {.tokens = count,
                     .segments = c->segments,
                     .segment = c->segment,
                     .steps = l.steps,
                     .last_steps = l.last_steps,
                     .weights = codes,
                     .stride = c->stride,
                     .weight_scales = scales,
                     .x = inputs,
                     .input_bytes = l.input_bytes,
                     .x_scales = l.x_scales,
                     .sums = scales + c->segments * ROWS,
                     .ldy = ldy};
  kernel->begin();
  for (size_t row = begin; row < end; row += job.rows) {
    job.rows = gptvq_min_size(ROWS, end - row);
    job.y = y + (row - begin);
    gptvq_gemm_decode(packed, c, block_table, row, row + job.rows, codes, scales);
    kernel->multiply(&job);
  }
  kernel->end();
}
