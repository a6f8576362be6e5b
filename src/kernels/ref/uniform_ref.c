/* Uniform rows × int8 activations: the definition (uniform.h gives the equation). */
#include "kernels/uniform.h"
#include "base/half.h"
#include "base/memory.h"
#include "kernels/ref/ref.h"

#include <math.h>

bool gptvq_uniform_in_parts(const gptvq_packed_shape *s) {
  if (s->index_bits != 2 && s->index_bits != 4) return false;
  if (s->scale_block != 32 && s->scale_block % 64 != 0) return false;
  return s->cols % (8 / s->index_bits * (s->scale_block == 32 ? 64 : s->scale_block)) == 0;
}

bool gptvq_uniform_has_i8(const gptvq_packed_shape *s) {
  if (s->kind != GPTVQ_PACKED_UNIFORM || s->scale_block > GPTVQ_I8_MAX_WIDTH) return false;
  const size_t blocks = gptvq_ceil_div(s->cols, s->scale_block);
  if (blocks > GPTVQ_UNIFORM_MAX_BLOCKS) return false;
  return gptvq_uniform_in_parts(s) ||
         ((blocks == 1 || s->scale_block % 4 == 0) && s->cols <= GPTVQ_UNIFORM_MAX_COLS);
}

float gptvq_uniform_row_scalar(const gptvq_uniform_row *row) {
  enum { SET = GPTVQ_I8_SET };
  float sums[4][16] = {{0}}, correction[16] = {0};
  const unsigned mask = (1u << row->field) - 1u;
  const bool whole = gptvq_uniform_whole_sets(row);
  const size_t parts = 8 / row->field, most = whole ? gptvq_round_up(row->block, SET) : SET;
  for (size_t part = 0; part < parts; part++)
    for (size_t at = 0, end; at < row->bytes; at = end) {
      end = gptvq_min_size(at + most, row->bytes);
      for (size_t lane = 0; lane < 16; lane++) {
        const size_t column = part * row->bytes + at + (whole ? 0 : 4 * lane);
        const size_t block = gptvq_min_size(column / row->block, row->blocks - 1);
        int32_t sum = 0;
        for (size_t first = at; first < end; first += SET)
          for (size_t b = 0; b < 4; b++) {
            size_t byte = first + 4 * lane + b;
            int code = (int)((unsigned)row->unit[byte] >> (part * row->field) & mask);
            sum += code * row->x[part * row->bytes + byte];
          }
        float scale = gptvq_fp16_to_float(row->scales[block]) * row->x_scales[block];
        sums[part][lane] = fmaf((float)sum, scale, sums[part][lane]);
      }
    }
  for (size_t block = 0; block < row->blocks; block++) {
    uint16_t zero;
    gptvq_unpack_range(row->zeros, row->zero_count, row->bits, row->zero_at + block, 1, &zero);
    float scale = gptvq_fp16_to_float(row->scales[block]) * row->x_scales[block];
    correction[block % 16] = fmaf(scale * (float)zero, row->x_sums[block], correction[block % 16]);
  }
  for (size_t part = 1; part < parts; part++)
    for (size_t lane = 0; lane < 16; lane++) sums[0][lane] += sums[part][lane];
  return gptvq_fold16(sums[0]) - gptvq_fold16(correction);
}
