#include "eval/losses.h"

#include <stdint.h>
#include <string.h>

enum { LANES = 8 };

static inline uint64_t bits_of(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline double of_bits(uint64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* exp of x <= 0 by x = k ln 2 + r, |r| <= ln 2 / 2, and the Taylor sum to r^13 / 13!: truncation below 5e-18
 * of the result. ln 2 is split in two so that k · high is exact. */
static inline double exponential(double x) {
  const double magic = 6755399441055744.0; /* 1.5 · 2^52: adding it rounds to an integer in the low bits */
  const uint64_t low = 0u - (uint64_t)(x < -700.0); /* a mask; NaN stays NaN */
  x = of_bits((low & bits_of(-700.0)) | (~low & bits_of(x)));
  const double shifted = x * 1.4426950408889634 + magic, k = shifted - magic,
               r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r * r + r + 1.0;
  return p * of_bits((bits_of(shifted) - bits_of(magic) + 1023u) << 52);
}

static inline double add_lanes(const double *lanes) {
  double half[LANES / 2];
  for (size_t j = 0; j < 4; j++) half[j] = lanes[j] + lanes[j + 4];
  return (half[0] + half[2]) + (half[1] + half[3]);
}

double GPTVQ_MULTI(gptvq_exp_total)(size_t n, const float *x, double shift) {
  double lanes[LANES] = {0};
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (size_t j = 0; j < LANES; j++) lanes[j] += exponential((double)x[i + j] - shift);
  for (size_t j = 0; i + j < n; j++) lanes[j] += exponential((double)x[i + j] - shift);
  return add_lanes(lanes);
}

static inline double term(float a, double total_a, float b, double total_b) {
  const double log_a = (double)a - total_a;
  return exponential(log_a) * (log_a - ((double)b - total_b));
}

double GPTVQ_MULTI(gptvq_divergence)(size_t n, const float *a, double total_a, const float *b,
                                     double total_b) {
  double lanes[LANES] = {0};
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (size_t j = 0; j < LANES; j++) lanes[j] += term(a[i + j], total_a, b[i + j], total_b);
  for (size_t j = 0; i + j < n; j++) lanes[j] += term(a[i + j], total_a, b[i + j], total_b);
  return add_lanes(lanes);
}
