#include "model/layer/rope.h"
#include "model/layer/vector.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

size_t gptvq_rope_half(const gptvq_config *config, const gptvq_rope *rope) {
  if (config->latent.kv_rank > 0) return config->latent.rotated / 2;
  return (size_t)((double)config->head_dim * rope->partial_rotary_factor) / 2;
}

static gptvq_status check(const gptvq_config *config, const gptvq_rope *rope, const char *folder,
                          gptvq_error *err) {
  size_t half = gptvq_rope_half(config, rope);
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

gptvq_status gptvq_rope_check(const gptvq_config *config, const char *folder, gptvq_error *err) {
  for (gptvq_rope_use use = 0; use < GPTVQ_ROPE_USES; use++) {
    const gptvq_rope *rope = gptvq_config_rope(config, use);
    if (rope != NULL) GPTVQ_TRY(check(config, rope, folder, err));
  }
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

/* The dimension (a real number) that turns so often over YaRN's original context. */
static double yarn_dimension(const gptvq_rope *rope, size_t half, double turns) {
  return (double)half * log((double)rope->original_max_positions / (turns * 2.0 * pi)) / log(rope->theta);
}

/* YaRN (arXiv 2309.00071): dimensions that turn often stay, those that turn less than once are stretched by
 * `factor`, with a ramp from one to the other between. */
static double scale_yarn(const gptvq_rope *rope, size_t half, size_t i, double frequency) {
  double low = yarn_dimension(rope, half, rope->beta_fast),
         high = yarn_dimension(rope, half, rope->beta_slow);
  if (rope->truncate) {
    low = floor(low);
    high = ceil(high);
  }
  low = fmax(low, 0.0);
  high = fmin(high, (double)(2 * half - 1));
  if (low == high) high += 0.001; /* a step */
  double stretched = fmin(fmax(((double)i - low) / (high - low), 0.0), 1.0);
  return frequency / rope->factor * stretched + frequency * (1.0 - stretched);
}

/* Dynamic NTK scaling: a theta with which the slowest dimension turns as much over `positions` as over the
 * original context before; itself up to there. */
static double dynamic_theta(const gptvq_rope *rope, size_t half, size_t positions) {
  if (positions <= rope->original_max_positions) return rope->theta;
  double stretch =
      rope->factor * (double)positions / (double)rope->original_max_positions - (rope->factor - 1.0);
  return rope->theta * pow(stretch, (double)half / (double)(half - 1));
}

double gptvq_rope_frequency(const gptvq_config *config, const gptvq_rope *rope, size_t i, size_t positions) {
  size_t half = gptvq_rope_half(config, rope);
  double theta = rope->type == GPTVQ_ROPE_DYNAMIC ? dynamic_theta(rope, half, positions) : rope->theta;
  double frequency = pow(theta, -(double)i / (double)half);
  switch (rope->type) {
  case GPTVQ_ROPE_DEFAULT:
  case GPTVQ_ROPE_DYNAMIC: return frequency;
  case GPTVQ_ROPE_LINEAR: return frequency / rope->factor;
  case GPTVQ_ROPE_LLAMA3: return scale_llama3(rope, frequency);
  case GPTVQ_ROPE_YARN: return scale_yarn(rope, half, i, frequency);
  case GPTVQ_ROPE_LONGROPE:
    return frequency / (positions > rope->original_max_positions ? rope->long_factor : rope->short_factor)[i];
  }
  return frequency;
}

double gptvq_rope_magnitude(const gptvq_rope *rope) {
  if (rope->type != GPTVQ_ROPE_LONGROPE && rope->type != GPTVQ_ROPE_YARN) return 1.0;
  if (rope->attention_factor > 0.0) return rope->attention_factor;
  return rope->factor <= 1.0 ? 1.0
                             : sqrt(1.0 + log(rope->factor) / log((double)rope->original_max_positions));
}

void gptvq_rope_tables(const gptvq_config *config, const gptvq_rope *rope, size_t positions, float *cosines,
                       float *sines) {
  const size_t half = gptvq_rope_half(config, rope);
  const double magnitude = gptvq_rope_magnitude(rope);
  for (size_t i = 0; i < half; i++) {
    double frequency = gptvq_rope_frequency(config, rope, i, positions);
    for (size_t p = 0; p < positions; p++) {
      cosines[p * half + i] = (float)(magnitude * cos((double)p * frequency));
      sines[p * half + i] = (float)(magnitude * sin((double)p * frequency));
    }
  }
}

static void rotate_neighbours(size_t half, const float *cosines, const float *sines, float *x,
                              bool backward) {
  for (size_t i = 0; i < half; i++, x += 2) {
    float a = x[0], b = x[1], sine = backward ? -sines[i] : sines[i];
    x[0] = a * cosines[i] - b * sine;
    x[1] = b * cosines[i] + a * sine;
  }
}

void gptvq_rotate_heads(size_t half, bool neighbours, const float *cosines, const float *sines, size_t heads,
                        size_t dim, float *x, bool backward) {
  for (size_t h = 0; neighbours && h < heads; h++)
    rotate_neighbours(half, cosines, sines, x + h * dim, backward);
  if (neighbours) return;
  for (size_t h = 0; h < heads; h++, x += dim)
    GPTVQ_MULTI_PICK(gptvq_rotate)(half, cosines, sines, backward ? x + half : x, backward ? x : x + half);
}
