#include "linalg/hadamard.h"
#include "base/memory.h"
#include "base/random.h"

#include <math.h>

gptvq_status gptvq_rotation_init(gptvq_rotation *rotation, size_t n, uint64_t seed, const char *what,
                                 gptvq_error *err) {
  size_t odd = n, power = 1;
  *rotation = (gptvq_rotation){0};
  while (odd > 0 && odd % 2 == 0) {
    odd /= 2;
    power *= 2;
  }
  if (odd == 0 || odd > GPTVQ_ROTATION_ODD_MAX)
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "%s of %zu cannot be rotated: it is not a power of two times an odd number of at most %d", what, n,
        GPTVQ_ROTATION_ODD_MAX);
  double *memory = gptvq_alloc(n + odd * odd, sizeof *memory);
  if (memory == NULL)
    return gptvq_fail_memory(err, "a rotation", gptvq_saturated_size(n + odd * odd, sizeof *memory));
  *rotation = (gptvq_rotation){.n = n, .power = power, .odd = odd, .signs = memory, .hartley = memory + n};
  uint64_t state = seed;
  double scale = 1.0 / sqrt((double)power), root = 1.0 / sqrt((double)odd),
         turn = 2.0 * acos(-1.0) / (double)odd;
  for (size_t i = 0; i < n; i++) rotation->signs[i] = gptvq_random(&state) >> 63 ? -scale : scale;
  for (size_t j = 0; j < odd; j++)
    for (size_t k = 0; k < odd; k++) {
      double angle = turn * (double)(j * k % odd);
      rotation->hartley[j * odd + k] = root * (cos(angle) + sin(angle));
    }
  return GPTVQ_OK;
}

void gptvq_rotation_release(gptvq_rotation *rotation) {
  free(rotation->signs);
  *rotation = (gptvq_rotation){0};
}

void gptvq_rotation_apply(const gptvq_rotation *rotation, double *x, double *scratch) {
  size_t n = rotation->n, m = rotation->odd;
  for (size_t i = 0; i < n; i++) x[i] *= rotation->signs[i];
  for (size_t half = m; half < n; half *= 2)
    for (size_t block = 0; block < n; block += 2 * half)
      for (size_t i = block; i < block + half; i++) {
        double a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
  if (m == 1) return;
  for (size_t block = 0; block < n; block += m)
    for (size_t k = 0; k < m; k++) {
      double sum = 0;
      for (size_t j = 0; j < m; j++) sum += x[block + j] * rotation->hartley[j * m + k];
      scratch[block + k] = sum;
    }
  for (size_t i = 0; i < n; i++) x[i] = scratch[i];
}
