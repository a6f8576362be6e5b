/* Stored codebooks: rounding, and codebooks from the factors of their matrix. */
#include "format/packed.h"
#include "base/half.h"

#include <math.h>

enum { MAX_K = 256 }; /* of factored codebooks */
#define MAX_BF16 0x1.fep127f

/* smallest bf16 number >= x (x >= 0); the largest finite one when x is above it */
static uint16_t bf16_above(float x) {
  uint16_t h = gptvq_float_to_bf16(x);
  if (gptvq_bf16_to_float(h) < x) h++;
  return h < 0x7f80u ? h : 0x7f7fu;
}

void gptvq_round_codebook(const float *values, size_t n, unsigned bits, void *codes, uint16_t *stored) {
  float most = 0.0f;
  for (size_t i = 0; i < n; i++) most = fmaxf(most, fabsf(values[i]));
  *stored = bf16_above(most);
  float scale = gptvq_bf16_to_float(*stored);
  for (size_t i = 0; i < n; i++) {
    float ratio = scale > 0.0f ? values[i] / scale : 0.0f;
    if (bits == 8) ((int8_t *)codes)[i] = (int8_t)fminf(127.0f, fmaxf(-127.0f, rintf(ratio * 127.0f)));
    else ((uint16_t *)codes)[i] = gptvq_float_to_fp16(ratio);
  }
}

static int at_most(float code, int limit) { return (int)fminf((float)limit, fmaxf(-(float)limit, code)); }

void gptvq_round_trellis_tables(const float values[GPTVQ_TRELLIS_TABLE], int8_t codes[GPTVQ_TRELLIS_TABLE],
                                uint16_t *stored) {
  enum { HALF = GPTVQ_TRELLIS_TABLE / 2 };
  float low[2], high[2];
  for (size_t t = 0; t < 2; t++) {
    low[t] = high[t] = values[t * HALF];
    for (size_t i = 1; i < HALF; i++) {
      low[t] = fminf(low[t], values[t * HALF + i]);
      high[t] = fmaxf(high[t], values[t * HALF + i]);
    }
  }
  *stored = bf16_above(fmaxf(fabsf(low[0] + low[1]), fabsf(high[0] + high[1])));
  const float scale = gptvq_bf16_to_float(*stored), unit = scale > 0.0f ? 127.0f / scale : 0.0f,
              shift = rintf(0.5f * (low[0] + high[0]) * unit); /* whole, so that stored tables stay */
  int least = 127, most = -127;
  for (size_t i = HALF; i < 2 * HALF; i++) { /* the second table takes what the first one's middle is off 0 */
    codes[i] = (int8_t)at_most(rintf(values[i] * unit + shift), 127);
    least = codes[i] < least ? codes[i] : least;
    most = codes[i] > most ? codes[i] : most;
  }
  for (size_t i = 0; i < HALF; i++) { /* both may have been rounded away from 0 */
    int code = at_most(rintf(values[i] * unit - shift), 127);
    if (code + most > 127) code = 127 - most;
    if (code + least < -127) code = -127 - least;
    codes[i] = (int8_t)code;
  }
}

void gptvq_expand_codebook(const void *codes, size_t n, unsigned bits, uint16_t stored, float *values) {
  float scale = gptvq_bf16_to_float(stored);
  for (size_t i = 0; i < n; i++)
    values[i] = bits == 8 ? (float)((const int8_t *)codes)[i] * (scale / 127.0f)
                          : gptvq_fp16_to_float(((const uint16_t *)codes)[i]) * scale;
}

void gptvq_codebooks_from_factors(size_t tiles, size_t k, size_t rank, const int8_t *left,
                                  const int8_t *right, const float *scales, unsigned bits, void *codebooks,
                                  uint16_t *codebook_scales) {
  float values[MAX_K];
  for (size_t tile = 0; tile < tiles; tile++) {
    for (size_t m = 0; m < k; m++) {
      values[m] = 0.0f;
      for (size_t r = 0; r < rank; r++) {
        float term = scales[r] * (float)((int)left[tile * rank + r] * (int)right[r * k + m]);
        values[m] = values[m] + term;
      }
    }
    gptvq_round_codebook(values, k, bits, (char *)codebooks + tile * k * (bits / 8), &codebook_scales[tile]);
  }
}

bool gptvq_factor_scales_fit(const float *scales, size_t rank) {
  double sum = 0.0;
  for (size_t r = 0; r < rank; r++) sum += fabs((double)scales[r]) * (128.0 * 128.0);
  return sum <= (double)MAX_BF16; /* false for NaN */
}
