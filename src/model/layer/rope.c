#include "model/layer/rope.h"
#include "model/layer/vector.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

size_t gptvq_rope_half(const gptvq_config *config) {
  return (size_t)((double)config->head_dim * config->rope.partial_rotary_factor) / 2;
}

gptvq_status gptvq_rope_check(const gptvq_config *config, const char *folder, gptvq_error *err) {
  const gptvq_rope *rope = &config->rope;
  size_t half = gptvq_rope_half(config);
  if (half == 0 || half * 2 > config->head_dim)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/config.json: head_dim %zu with partial_rotary_factor %g leaves nothing to rotate",
                      folder, config->head_dim, rope->partial_rotary_factor);
  if (rope->type == GPTVQ_ROPE_LONGROPE &&
      (rope->short_factor == NULL || rope->long_factor == NULL || rope->original_max_positions < 2))
    return gptvq_fail(
        err, GPTVQ_ERROR_FORMAT,
        "%s/config.json: longrope needs short_factor, long_factor and original_max_position_embeddings",
        folder);
  return GPTVQ_OK;
}

/* "Llama 3" scaling: wavelengths beyond the original context are stretched by `factor`, short ones kept,
 * those between blended. */
static double scale_llama3(const gptvq_rope *rope, double frequency) {
  double wavelength = 2.0 * pi / frequency, context = (double)rope->original_max_positions;
  if (wavelength < context / rope->high_freq_factor) return frequency;
  if (wavelength > context / rope->low_freq_factor) return frequency / rope->factor;
  double blend =
      (context / wavelength - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
  return (1.0 - blend) * frequency / rope->factor + blend * frequency;
}

double gptvq_rope_frequency(const gptvq_config *config, size_t i, bool far) {
  const gptvq_rope *rope = &config->rope;
  double frequency = pow(rope->theta, -(double)i / (double)gptvq_rope_half(config));
  switch (rope->type) {
  case GPTVQ_ROPE_DEFAULT: return frequency;
  case GPTVQ_ROPE_LINEAR: return frequency / rope->factor;
  case GPTVQ_ROPE_LLAMA3: return scale_llama3(rope, frequency);
  case GPTVQ_ROPE_LONGROPE: return frequency / (far ? rope->long_factor : rope->short_factor)[i];
  }
  return frequency;
}

double gptvq_rope_magnitude(const gptvq_config *config) {
  const gptvq_rope *rope = &config->rope;
  if (rope->type != GPTVQ_ROPE_LONGROPE) return 1.0;
  if (rope->attention_factor > 0.0) return rope->attention_factor;
  return rope->factor <= 1.0 ? 1.0
                             : sqrt(1.0 + log(rope->factor) / log((double)rope->original_max_positions));
}

void gptvq_rope_tables(const gptvq_config *config, size_t positions, float *cosines, float *sines) {
  size_t half = gptvq_rope_half(config);
  bool far = positions > config->rope.original_max_positions;
  double magnitude = gptvq_rope_magnitude(config);
  for (size_t i = 0; i < half; i++) {
    double frequency = gptvq_rope_frequency(config, i, far);
    for (size_t p = 0; p < positions; p++) {
      cosines[p * half + i] = (float)(magnitude * cos((double)p * frequency));
      sines[p * half + i] = (float)(magnitude * sin((double)p * frequency));
    }
  }
}

void gptvq_rotate_heads(size_t half, const float *cosines, const float *sines, size_t heads, size_t dim,
                        float *x, bool backward) {
  for (size_t h = 0; h < heads; h++, x += dim)
    GPTVQ_MULTI_PICK(gptvq_rotate)(half, cosines, sines, backward ? x + half : x, backward ? x : x + half);
}
