/* Trellis rows for levels without a kernel of their own: codes by the table's trellis_codes, products in
 * portable C.
 */
#include "kernels/trellis.h"
#include "base/half.h"
#include "base/memory.h"
#include "kernels/multi/trellis_lanes.h"
#include "kernels/ref/ref.h"
#include "kernels/rows.h"

#include <string.h>

enum { ROWS = 8, CHUNK = GPTVQ_TRELLIS_CHUNK, LANES = GPTVQ_I8_LANES };

/* The prepared order of a chunk back to column order. */
static void unweave(size_t chunks, const int8_t *x, int8_t *out) {
  for (size_t i = 0; i < chunks * 64; i++) {
    size_t chunk = i / 64, lane = i % 64 / 4, j = i % 4;
    memcpy(out + chunk * CHUNK + 16 * lane + 4 * j, x + chunk * CHUNK + 64 * j + 4 * lane, 4);
  }
}

/* At most ROWS rows from `first` on: the activations of a group are reordered once, and a row's codes looked
 * up once. */
static void some_rows(const gptvq_trellis_rows *job, size_t first, size_t rows) {
  _Alignas(64) float sums[ROWS][GPTVQ_I8_MAX_TOKENS][LANES];
  int8_t codes[GPTVQ_I8_MAX_WIDTH], x[GPTVQ_I8_MAX_TOKENS][GPTVQ_I8_MAX_WIDTH];
  const gptvq_trellis_codes_fn look_up = gptvq_kernels(gptvq_cpu())->trellis_codes;
  for (size_t r = 0; r < rows; r++) memset(sums[r], 0, job->tokens * sizeof sums[r][0]);
  for (size_t g = 0; g < job->groups; g++) {
    size_t width = g + 1 == job->groups ? job->last_width : job->width, chunks = gptvq_ceil_div(width, CHUNK);
    float scale = gptvq_bf16_to_float(job->table_scales[g]) / 127.0f, scales[GPTVQ_I8_MAX_TOKENS];
    for (size_t t = 0; t < job->tokens; t++) {
      const size_t step = t * job->input_stride;
      scales[t] = scale * *(const float *)(const void *)((const char *)(job->x_scales + g) + step);
      unweave(chunks, job->x + g * job->group_codes + step, x[t]);
    }
    memset(codes + width, 0, chunks * CHUNK - width);
    for (size_t r = 0; r < rows; r++) {
      size_t row = first + r;
      float row_scale = gptvq_row_scale(job->row_scales[row * job->groups + g]);
      look_up(job->streams + row * job->row_bytes, job->index_bits, job->state_bits, g * job->width, width,
              job->tables + (g << job->state_bits), codes);
      for (size_t t = 0; t < job->tokens; t++) GPTVQ_MULTI_PICK(gptvq_add_lanes)
      (chunks, codes, x[t], scales[t] * row_scale, sums[r][t]);
    }
  }
  for (size_t r = 0; r < rows; r++) {
    float y[GPTVQ_I8_MAX_TOKENS];
    gptvq_kernels(gptvq_cpu())->i8_fold(&sums[r][0][0], job->tokens, y);
    for (size_t t = 0; t < job->tokens; t++) job->y[t * job->ldy + first + r] = y[t];
  }
}

static void trellis_rows(const gptvq_trellis_rows *job) {
  for (size_t row = 0; row < job->rows; row += ROWS)
    some_rows(job, row, gptvq_min_size(ROWS, job->rows - row));
}

static void trellis_codes(const uint8_t *stream, unsigned index_bits, unsigned state_bits, size_t begin,
                          size_t count, const int8_t *table, int8_t *codes) {
  GPTVQ_MULTI_PICK(gptvq_window_codes)(stream, index_bits, state_bits, begin, count, table, codes);
}

void gptvq_kernels_init_trellis(gptvq_kernel_table *table) {
  table->trellis_rows = trellis_rows;
  table->trellis_codes = trellis_codes;
}
