#include "kernels/multi/quantize_input.h"
#include "base/half.h"

#include <float.h>
#include <math.h>
#include <string.h>

static inline void scatter(const float *x, size_t vectors, size_t dim, size_t plane, float inverse,
                           int8_t *codes) {
  const float round = 12582912.0f; /* 1.5·2^23: adding it rounds to an integer, to nearest even */
  for (size_t e = 0; e < dim; e++)
    for (size_t i = 0; i < vectors; i++)
      codes[e * plane + i] = (int8_t)(int)((x[i * dim + e] * inverse + round) - round);
}

static inline float largest_magnitude(const float *x, size_t width) {
  enum { LANES = 64 };
  float lanes[LANES] = {0}, largest = 0.0f;
  size_t i = 0;
  for (; i + LANES <= width; i += LANES)
    for (size_t j = 0; j < LANES; j++) {
      float a = fabsf(x[i + j]);
      lanes[j] = a > lanes[j] ? a : lanes[j];
    }
  for (; i < width; i++) lanes[0] = fabsf(x[i]) > lanes[0] ? fabsf(x[i]) : lanes[0];
  for (size_t j = 0; j < LANES; j++) largest = lanes[j] > largest ? lanes[j] : largest;
  return largest;
}

/* Exponents of all ones: infinities and NaN. The comparisons above pass NaN over. */
static inline int all_finite(const float *x, size_t width) {
  uint32_t bad = 0;
  for (size_t i = 0; i < width; i++) bad |= (gptvq_float_bits(x[i]) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  return bad == 0;
}

float GPTVQ_MULTI(gptvq_quantize_group)(const float *x, size_t width, size_t dim, size_t plane,
                                        int8_t *codes) {
  memset(codes, 0, dim * plane);
  if (!all_finite(x, width)) return NAN;
  float largest = largest_magnitude(x, width), inverse = 127.0f / largest;
  if (!(inverse <= FLT_MAX)) return 0.0f; /* all zero, or so small that the inverse overflows */
  size_t vectors = width / dim;
  if (dim == 1) scatter(x, vectors, 1, plane, inverse, codes);
  else if (dim == 2) scatter(x, vectors, 2, plane, inverse, codes);
  else scatter(x, vectors, 4, plane, inverse, codes);
  for (size_t c = vectors * dim; c < width; c++) /* an incomplete last sub-vector */
    scatter(x + c, 1, 1, plane, inverse, codes + (c - vectors * dim) * plane + vectors);
  return largest / 127.0f;
}

void GPTVQ_MULTI(gptvq_correct_lanes)(const int8_t *codes, size_t n, int32_t *correction) {
  int32_t sums[64] = {0};
  for (size_t i = 0; i < n; i += 64)
    for (size_t j = 0; j < 64; j++) sums[j] += codes[i + j];
  for (size_t lane = 0; lane < 16; lane++)
    correction[lane] = -128 * (sums[4 * lane] + sums[4 * lane + 1] + sums[4 * lane + 2] + sums[4 * lane + 3]);
}

int32_t GPTVQ_MULTI(gptvq_sum_codes)(const int8_t *codes, size_t n) {
  int32_t sum = 0;
  for (size_t i = 0; i < n; i++) sum += codes[i];
  return sum;
}
