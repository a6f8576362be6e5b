/* Packed rows × int8 activations: the definition (i8.h gives the equation). */
#include "base/memory.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

static void look_up(const gptvq_i8_tile *job, size_t row, int8_t *codes) {
  const gptvq_tile *tile = job->tile;
  const int8_t *codebook = tile->codebook;
  uint16_t indices[GPTVQ_I8_MAX_WIDTH];
  gptvq_unpack_range(tile->units + row * tile->unit_bytes, tile->indices, tile->index_bits, 0, tile->indices,
                     indices);
  size_t plane = job->sets * GPTVQ_I8_SET;
  for (size_t e = 0; e < tile->dim; e++) {
    for (size_t i = 0; i < tile->indices; i++) codes[e * plane + i] = codebook[indices[i] * tile->dim + e];
    memset(codes + e * plane + tile->indices, 0, plane - tile->indices);
  }
}

void gptvq_i8_lane_scales(const gptvq_i8_tile *job, size_t row, float *by_lane) {
  const uint8_t *codes = job->tile->block_codes + row * job->tile->block_bytes;
  const size_t lanes = job->sets * GPTVQ_I8_LANES, step = job->block_vectors / 4;
  for (size_t first = 0, block = 0; first < lanes; first += step, block++) {
    /* beyond the last column all products are 0 */
    const float scale =
        block / 2 < job->tile->block_bytes ? job->block_table[gptvq_block_code(codes, block)] : 0.0f;
    for (size_t i = first; i < first + step && i < lanes; i++) by_lane[i] = scale;
  }
}

static void add_row(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane, const int8_t *x,
                    float scale, float *sums) {
  for (size_t lane = 0; lane < GPTVQ_I8_LANES; lane++) {
    int32_t total = 0;
    float scaled = 0.0f;
    for (size_t s = 0; s < job->sets; s++) {
      int32_t sum = 0;
      for (size_t e = 0; e < job->tile->dim; e++)
        for (size_t b = 0; b < 4; b++) {
          size_t at = (e * job->sets + s) * GPTVQ_I8_SET + 4 * lane + b;
          sum += (int32_t)codes[at] * x[at];
        }
      total += sum;
      if (job->block_vectors != 0) scaled = fmaf((float)sum, by_lane[s * GPTVQ_I8_LANES + lane], scaled);
    }
    sums[lane] = fmaf(job->block_vectors != 0 ? scaled : (float)total, scale, sums[lane]);
  }
}

void gptvq_i8_tile_scalar(const gptvq_i8_tile *job) {
  int8_t codes[GPTVQ_I8_MAX_WIDTH + 4 * GPTVQ_I8_SET];
  float by_lane[GPTVQ_I8_MAX_WIDTH / GPTVQ_I8_SET * GPTVQ_I8_LANES];
  for (size_t row = 0; row < job->tile->rows; row++) {
    look_up(job, row, codes);
    if (job->block_vectors != 0) gptvq_i8_lane_scales(job, row, by_lane);
    for (size_t t = 0; t < job->tokens; t++)
      add_row(job, codes, by_lane, job->x + t * job->input_stride, job->scales[t],
              job->sums + (row * job->tokens + t) * GPTVQ_I8_LANES);
  }
}

void gptvq_i8_fold_scalar(const float *sums, size_t n, float *out) {
  for (size_t i = 0; i < n; i++) {
    float row[GPTVQ_I8_LANES];
    memcpy(row, sums + i * GPTVQ_I8_LANES, sizeof row);
    out[i] = gptvq_fold16(row);
  }
}
