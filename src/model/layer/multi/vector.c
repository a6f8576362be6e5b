#include "model/layer/vector.h"

#include "base/half.h"

#include <math.h>
#include <stdint.h>

enum { LANES = 16 };

/* Lane sums added pairwise. */
static inline float add_lanes(const float *lanes) {
  float half[LANES / 2];
  for (size_t j = 0; j < 8; j++) half[j] = lanes[j] + lanes[j + 8];
  for (size_t j = 0; j < 4; j++) half[j] += half[j + 4];
  return (half[0] + half[2]) + (half[1] + half[3]);
}

static inline float dot(size_t n, const float *a, const float *b) {
  float lanes[LANES] = {0};
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (size_t j = 0; j < LANES; j++) lanes[j] += a[i + j] * b[i + j];
  for (size_t j = 0; i + j < n; j++) lanes[j] += a[i + j] * b[i + j];
  return add_lanes(lanes);
}

/* yes where `choice` is 1, no where it is 0, without a branch: the compiler splits loops with branches to
 * constants into scalar ways, where it could work on vectors. */
static inline float pick(uint32_t choice, float yes, float no) {
  const uint32_t mask = 0u - choice;
  return gptvq_bits_float((mask & gptvq_float_bits(yes)) | (~mask & gptvq_float_bits(no)));
}

/* exp by x = k ln 2 + r, |r| <= ln 2 / 2, and the Taylor sum to r^7 / 7!: truncation below 6e-9 of the
 * result. ln 2 is split in two so that k · high is exact. */
static inline float exponential(float x) {
  const float magic = 12582912.0f; /* 1.5 · 2^23: adding it rounds to an integer in the low bits */
  x = pick(x < -87.0f, -87.0f, x); /* NaN stays NaN */
  x = pick(x > 88.0f, 88.0f, x);
  float shifted = x * 1.44269504f + magic, k = shifted - magic;
  float r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  uint32_t power = (gptvq_float_bits(shifted) - gptvq_float_bits(magic) + 127u) << 23;
  return p * gptvq_bits_float(power);
}

bool GPTVQ_MULTI(gptvq_rms_norm)(size_t n, const float *x, const float *weight, float eps, float *y) {
  float squares = dot(n, x, x);
  bool fine = isfinite(squares);
  float scale = fine ? 1.0f / sqrtf(squares / (float)n + eps) : NAN;
  for (size_t i = 0; i < n; i++) y[i] = x[i] * scale * weight[i];
  return fine;
}

void GPTVQ_MULTI(gptvq_silu_mul)(size_t n, float *gate, const float *up) {
  for (size_t i = 0; i < n; i++) gate[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
}

void GPTVQ_MULTI(gptvq_silu)(size_t n, float *x) {
  for (size_t i = 0; i < n; i++) x[i] = x[i] / (1.0f + exponential(-x[i]));
}

void GPTVQ_MULTI(gptvq_sigmoid_mul)(size_t n, const float *gate, float *x) {
  for (size_t i = 0; i < n; i++) x[i] = x[i] / (1.0f + exponential(-gate[i]));
}

void GPTVQ_MULTI(gptvq_l2_norm)(size_t n, const float *x, float scale, float *y) {
  float factor = scale / sqrtf(dot(n, x, x) + 1e-6f);
  for (size_t i = 0; i < n; i++) y[i] = x[i] * factor;
}

void GPTVQ_MULTI(gptvq_gelu_mul)(size_t n, float *gate, const float *up) {
  for (size_t i = 0; i < n; i++) {
    float x = gate[i], u = 0.797884561f * (x + 0.044715f * (x * x * x));
    gate[i] = x / (1.0f + exponential(-2.0f * u)) * up[i];
  }
}

/* tanh: 1 − 2 / (exp(2|x|) + 1), and for small |x|, where that cancels, the polynomial of the Cephes library.
 */
static inline float hyperbolic_tangent(float x) {
  float a = fabsf(x), s = x * x, p = -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  float small = p * s * x + x, large = copysignf(1.0f - 2.0f / (exponential(2.0f * a) + 1.0f), x);
  return pick(a < 0.625f, small, large);
}

void GPTVQ_MULTI(gptvq_clamped_mul)(size_t n, float *gate, const float *up) {
  const float limit = GPTVQ_SWIGLU_LIMIT;
  for (size_t i = 0; i < n; i++) {
    const float g = pick(gate[i] > limit, limit, gate[i]), below = pick(up[i] > limit, limit, up[i]),
                u = pick(below < -limit, -limit, below);
    gate[i] = g / (1.0f + exponential(-GPTVQ_SWIGLU_ALPHA * g)) * (u + 1.0f);
  }
}

void GPTVQ_MULTI(gptvq_soft_cap)(size_t n, float cap, float *x) {
  for (size_t i = 0; i < n; i++) x[i] = cap * hyperbolic_tangent(x[i] / cap);
}

void GPTVQ_MULTI(gptvq_add_scaled)(size_t n, float a, const float *x, float *y) {
  for (size_t i = 0; i < n; i++) y[i] += a * x[i];
}

void GPTVQ_MULTI(gptvq_rotate)(size_t half, const float *cosines, const float *sines, float *restrict a,
                               float *restrict b) {
  for (size_t i = 0; i < half; i++) {
    float x = a[i], y = b[i];
    a[i] = x * cosines[i] - y * sines[i];
    b[i] = y * cosines[i] + x * sines[i];
  }
}

float GPTVQ_MULTI(gptvq_exp_sum)(size_t n, float shift, float *x) {
  float lanes[LANES] = {0};
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (size_t j = 0; j < LANES; j++) {
      float e = exponential(x[i + j] - shift);
      x[i + j] = e;
      lanes[j] += e;
    }
  for (size_t j = 0; i + j < n; j++) lanes[j] += x[i + j] = exponential(x[i + j] - shift);
  return add_lanes(lanes);
}

float GPTVQ_MULTI(gptvq_max)(size_t n, const float *x) {
  float lanes[LANES];
  for (size_t j = 0; j < LANES; j++) lanes[j] = -INFINITY;
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (size_t j = 0; j < LANES; j++) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
  for (size_t j = 0; i + j < n; j++) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
  for (size_t half = LANES / 2; half > 0; half /= 2)
    for (size_t j = 0; j < half; j++) lanes[j] = lanes[j + half] > lanes[j] ? lanes[j + half] : lanes[j];
  return lanes[0];
}

/* Normal numbers: the exponent is moved by 112 and the mantissa rounded by an addition; below 2^-14 adding
 * 0.5 rounds in the FPU. */
void GPTVQ_MULTI(gptvq_to_half)(size_t n, const float *x, uint16_t *half) {
  for (size_t i = 0; i < n; i++) {
    uint32_t bits = gptvq_float_bits(x[i]), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    uint32_t tiny = gptvq_float_bits(gptvq_bits_float(magnitude) + 0.5f) - 0x3f000000u;
    /* masks, as in `pick`; from 65520 on: NaN */
    const uint32_t small = 0u - (magnitude < 0x38800000u), large = 0u - (magnitude >= 0x477ff000u);
    const uint32_t result = (small & tiny) | (~small & normal);
    half[i] = (uint16_t)(sign | (large & 0x7e00u) | (~large & result));
  }
}

bool GPTVQ_MULTI(gptvq_all_finite)(size_t n, const float *x) {
  uint32_t bad = 0;
  for (size_t i = 0; i < n; i++) bad |= (gptvq_float_bits(x[i]) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  return bad == 0;
}
