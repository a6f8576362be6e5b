/* Block-wise scales: 4-bit codes of log2 of the blocks' max-norms. */
#include "base/memory.h"
#include "quant/layer/layer.h"

#include <math.h>
#include <string.h>

enum { CODES = 16 };

static void set_range(gptvq_vq *q, double low, double high) {
  q->scale_range[0] = (float)low;
  q->scale_range[1] = (float)((high - low) / (CODES - 1));
  for (unsigned code = 0; code < CODES; code++)
    q->scale_table[code] = exp2f(q->scale_range[0] + q->scale_range[1] * (float)code);
}

/* max-norm of one row's scale block, dead columns left out */
static float block_norm(const gptvq_vq *q, const float *row, size_t begin, size_t end, uint32_t scale_block) {
  float most = 0.0f;
  for (size_t b = begin; b < end; b++)
    if (q->block_scale_of[b] == scale_block)
      for (size_t i = b * q->dim; i < (b + 1) * q->dim; i++)
        if (!gptvq_factor_is_dead(q->factor, i)) most = fmaxf(most, fabsf(row[i]));
  return most;
}

void gptvq_vq_scale_range(gptvq_vq *q) {
  /* mean and spread of log2 of the max-norms of the original weights, zero blocks left out */
  double sum = 0.0, squares = 0.0, n = 0.0, low = INFINITY, high = -INFINITY;
  for (size_t row = 0; row < q->rows; row++)
    for (size_t g = 0; g < q->groups; g++) {
      size_t begin = q->group[g].start / q->dim, end = begin + q->group[g].width / q->dim;
      uint32_t first = UINT32_MAX, last = 0;
      for (size_t b = begin; b < end; b++) {
        if (q->block_scale_of[b] < first) first = q->block_scale_of[b];
        if (q->block_scale_of[b] > last) last = q->block_scale_of[b];
      }
      for (uint32_t s = first; s <= last; s++) {
        double x = log2((double)block_norm(q, q->target + row * q->padded, begin, end, s));
        if (!isfinite(x)) continue;
        sum += x, squares += x * x, n += 1.0;
        low = fmin(low, x), high = fmax(high, x);
      }
    }
  if (n == 0.0) {
    set_range(q, 0.0, 0.0);
    return;
  }
  /* rare outliers below must not coarsen the codes of the rest; compensated weights grow, so there is room
   * above */
  double mean = sum / n, spread = sqrt(fmax(0.0, squares / n - mean * mean));
  double least = (double)-GPTVQ_MAX_SCALE_EXPONENT; /* a reader refuses lower ones; the weights are near 1 */
  set_range(q, fmax(fmax(low, least), mean - 4.0 * spread), high + 0.25);
}

void gptvq_vq_scale_group(gptvq_vq *q, const gptvq_group *group, size_t row_begin, size_t row_end) {
  size_t begin = group->start / q->dim, end = begin + group->width / q->dim;
  for (size_t row = row_begin; row < row_end; row++) {
    const float *w = q->work + row * q->padded;
    uint8_t *codes = q->scale_codes + row * q->scale_blocks;
    uint32_t seen = UINT32_MAX;
    for (size_t b = begin; b < end; b++) {
      uint32_t s = q->block_scale_of[b];
      if (s == seen) continue;
      seen = s;
      float norm = block_norm(q, w, begin, end, s), code = 0.0f;
      if (norm > 0.0f && q->scale_range[1] > 0.0f)
        code = rintf((log2f(norm) - q->scale_range[0]) / q->scale_range[1]);
      codes[s] = (uint8_t)fminf(CODES - 1, fmaxf(0.0f, code));
    }
  }
}
