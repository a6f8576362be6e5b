#include "kernels/multi/quantize_input.h"
#include "base/half.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Codes first, some at a time, then their components apart: bytes are sorted faster than floats. */
static inline void scatter(const float *restrict x, size_t vectors, size_t dim, size_t plane, float inverse,
                           int8_t *restrict codes) {
  enum { SOME = 256 };
  const float round = 12582912.0f; /* 1.5·2^23: adding it rounds to an integer, to nearest even */
  int8_t some[SOME];
  for (size_t first = 0; first < vectors; first += SOME / dim) {
    const size_t count = vectors - first < SOME / dim ? vectors - first : SOME / dim;
    int8_t *to = dim == 1 ? codes + first : some;
    for (size_t i = 0; i < count * dim; i++)
      to[i] = (int8_t)(int)((x[first * dim + i] * inverse + round) - round);
    for (size_t e = 0; e < dim && dim > 1; e++)
      for (size_t i = 0; i < count; i++) codes[e * plane + first + i] = some[i * dim + e];
  }
}

/* The largest of |x[i]| as bits: non-negative floats are ordered as their bits are, infinities and NaN above
 * all numbers. */
static inline int32_t largest_magnitude(const float *x, size_t width) {
  int32_t largest = 0;
  for (size_t i = 0; i < width; i++) {
    int32_t magnitude = (int32_t)(gptvq_float_bits(x[i]) & 0x7fffffffu);
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

float GPTVQ_MULTI(gptvq_quantize_group)(const float *x, size_t width, size_t dim, size_t plane,
                                        int8_t *codes) {
  memset(codes, 0, dim * plane);
  const int32_t bits = largest_magnitude(x, width);
  if (bits >= 0x7f800000) return NAN;
  float largest = gptvq_bits_float((uint32_t)bits), inverse = 127.0f / largest;
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
