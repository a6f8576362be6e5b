#include "kernels/multi/quantize_input.h"

#include <math.h>
#include <string.h>

static inline void scatter(const float *x, size_t vectors, size_t dim, size_t plane, float inverse, int8_t *codes) {
  const float round = 12582912.0f; /* 1.5·2^23: adding it rounds to an integer, to nearest even */
  for (size_t e = 0; e < dim; e++)
    for (size_t i = 0; i < vectors; i++)
      codes[e * plane + i] = (int8_t)(int)((x[i * dim + e] * inverse + round) - round);
}

float GPTVQ_MULTI(gptvq_quantize_group)(const float *x, size_t width, size_t dim, size_t plane, int8_t *codes,
                                        int32_t *correction) {
  enum { LANES = 16 };
  float lanes[LANES] = {0}, largest = 0.0f, check = 0.0f;
  size_t i = 0;
  for (; i + LANES <= width; i += LANES)
    for (size_t j = 0; j < LANES; j++) {
      float a = fabsf(x[i + j]);
      lanes[j] = a > lanes[j] ? a : lanes[j];
    }
  for (; i < width; i++) lanes[0] = fabsf(x[i]) > lanes[0] ? fabsf(x[i]) : lanes[0];
  for (size_t j = 0; j < LANES; j++) largest = lanes[j] > largest ? lanes[j] : largest;
  for (size_t j = 0; j < width; j++) check += x[j] * 0.0f; /* NaN as soon as one x is NaN or infinite */
  memset(codes, 0, dim * plane);
  memset(correction, 0, LANES * sizeof *correction);
  if (!(check == 0.0f)) return NAN;
  if (largest == 0.0f) return 0.0f;
  float scale = largest / 127.0f, inverse = 127.0f / largest;
  if (!(inverse <= 3e38f)) { /* a subnormal maximum: its inverse overflows */
    return 0.0f;
  }
  size_t vectors = width / dim;
  if (dim == 1) scatter(x, vectors, 1, plane, inverse, codes);
  else if (dim == 2) scatter(x, vectors, 2, plane, inverse, codes);
  else scatter(x, vectors, 4, plane, inverse, codes);
  for (size_t c = vectors * dim; c < width; c++) { /* an incomplete last sub-vector */
    const float round = 12582912.0f;
    codes[(c - vectors * dim) * plane + vectors] = (int8_t)(int)((x[c] * inverse + round) - round);
  }
  for (size_t j = 0; j < dim * plane; j += 64)
    for (size_t lane = 0; lane < LANES; lane++)
      for (size_t b = 0; b < 4; b++) correction[lane] -= 128 * codes[j + 4 * lane + b];
  return scale;
}
