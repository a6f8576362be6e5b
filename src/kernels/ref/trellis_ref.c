/* Trellis rows × int8 activations: the definition (trellis.h gives the equation). */
#include "kernels/trellis.h"
#include "base/half.h"
#include "base/memory.h"
#include "kernels/ref/ref.h"

#include <math.h>

void gptvq_trellis_codes_ref(const uint8_t *stream, unsigned index_bits, size_t begin, size_t count,
                             const int8_t *table, int8_t *codes) {
  enum { PIECE = 256 };
  uint8_t states[PIECE];
  for (size_t at = 0; at < count; at += PIECE) {
    size_t n = gptvq_min_size(PIECE, count - at);
    gptvq_trellis_states(stream, index_bits, begin + at, n, states);
    for (size_t i = 0; i < n; i++) codes[at + i] = gptvq_trellis_value(table, index_bits, states[i]);
  }
}

static void add_group(const int8_t *codes, size_t width, size_t planes, const int8_t *x, float scale,
                      float *sums) {
  int32_t totals[GPTVQ_I8_LANES] = {0};
  const size_t plane = gptvq_input_plane(width, planes);
  for (size_t c = 0; c < width; c++) {
    size_t index = c / planes;
    totals[index % GPTVQ_I8_SET / 4] += (int32_t)codes[c] * x[c % planes * plane + index];
  }
  for (size_t lane = 0; lane < GPTVQ_I8_LANES; lane++)
    sums[lane] = fmaf((float)totals[lane], scale, sums[lane]);
}

void gptvq_trellis_rows_ref(const gptvq_trellis_rows *job) {
  int8_t codes[GPTVQ_I8_MAX_WIDTH];
  float sums[GPTVQ_I8_MAX_TOKENS][GPTVQ_I8_LANES];
  for (size_t row = 0; row < job->rows; row++) {
    memset(sums, 0, sizeof sums);
    for (size_t g = 0; g < job->groups; g++) {
      size_t width = g + 1 == job->groups ? job->last_width : job->width;
      float scale = gptvq_bf16_to_float(job->table_scales[g]) / 127.0f,
            row_scale = gptvq_row_scale(job->row_scales[row * job->groups + g]);
      gptvq_trellis_codes_ref(job->streams + row * job->row_bytes, job->index_bits, g * job->width, width,
                              job->tables + g * GPTVQ_TRELLIS_TABLE, codes);
      for (size_t t = 0; t < job->tokens; t++) {
        size_t step = t * job->input_stride;
        float x_scale = *(const float *)(const void *)((const char *)(job->x_scales + g) + step);
        add_group(codes, width, gptvq_trellis_planes(job->index_bits), job->x + g * job->group_codes + step,
                  scale * x_scale * row_scale, sums[t]);
      }
    }
    for (size_t t = 0; t < job->tokens; t++) gptvq_i8_fold_scalar(sums[t], 1, job->y + t * job->ldy + row);
  }
}
