#include "checkpoint/config_values.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

static const double huge_factor = 1e6; /* beyond any context extension */
enum { MAX_POSITIONS = 1 << 30 };

static gptvq_status parse_type(const gptvq_config_source *source, const gptvq_config *config,
                               gptvq_rope_type *out, gptvq_error *err) {
  char name[32] = "default";
  GPTVQ_TRY(gptvq_config_text(source, "type", name, sizeof name, err));
  GPTVQ_TRY(gptvq_config_text(source, "rope_type", name, sizeof name, err));
  /* Phi-3's first configs call longrope "su" or "yarn" */
  bool phi3 = strncmp(config->architecture, "Phi3", 4) == 0;
  if (strcmp(name, "default") == 0) *out = GPTVQ_ROPE_DEFAULT;
  else if (strcmp(name, "linear") == 0) *out = GPTVQ_ROPE_LINEAR;
  else if (strcmp(name, "llama3") == 0) *out = GPTVQ_ROPE_LLAMA3;
  else if (strcmp(name, "longrope") == 0 || (phi3 && (strcmp(name, "su") == 0 || strcmp(name, "yarn") == 0)))
    *out = GPTVQ_ROPE_LONGROPE;
  else
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/%s: rope type %s is not supported; supported: default, linear, llama3, longrope",
                      source->folder, source->file, name);
  return GPTVQ_OK;
}

static gptvq_status parse_factors(const gptvq_config_source *source, const char *key, size_t count,
                                  double **out, gptvq_error *err) {
  GPTVQ_TRY(gptvq_config_need(source, key, err));
  const json_t *list = gptvq_config_value(source, key);
  if (!json_is_array(list) || json_array_size(list) != count)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/%s: %s%s is not a list of %zu numbers, one per rotated pair", source->folder,
                      source->file, source->prefix, key, count);
  *out = calloc(count, sizeof **out);
  if (*out == NULL) return gptvq_fail_memory(err, key, gptvq_saturated_size(count, sizeof **out));
  for (size_t i = 0; i < count; i++) {
    const json_t *item = json_array_get(list, i);
    double value = json_is_number(item) ? json_number_value(item) : 0.0;
    if (!isfinite(value) || value <= 0.0 || value > huge_factor)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %s%s[%zu] is not a positive number", source->folder,
                        source->file, source->prefix, key, i);
    (*out)[i] = value;
  }
  return GPTVQ_OK;
}

static gptvq_status parse_llama3(const gptvq_config_source *source, gptvq_rope *rope, gptvq_error *err) {
  static const char *const keys[] = {"factor", "low_freq_factor", "high_freq_factor",
                                     "original_max_position_embeddings"};
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
    GPTVQ_TRY(gptvq_config_need(source, keys[i], err));
  GPTVQ_TRY(gptvq_config_number(source, "factor", 1.0, huge_factor, &rope->factor, err));
  GPTVQ_TRY(gptvq_config_number(source, "low_freq_factor", 1e-6, huge_factor, &rope->low_freq_factor, err));
  GPTVQ_TRY(gptvq_config_number(source, "high_freq_factor", 1e-6, huge_factor, &rope->high_freq_factor, err));
  GPTVQ_TRY(gptvq_config_size(source, "original_max_position_embeddings", 1, MAX_POSITIONS,
                              &rope->original_max_positions, err));
  if (rope->high_freq_factor <= rope->low_freq_factor)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %shigh_freq_factor %g is not above low_freq_factor %g",
                      source->folder, source->file, source->prefix, rope->high_freq_factor,
                      rope->low_freq_factor);
  return GPTVQ_OK;
}

/* top: config.json itself, where Phi-3 keeps the original context length */
static gptvq_status parse_longrope(const gptvq_config_source *source, const gptvq_config_source *top,
                                   size_t pairs, gptvq_config *config, gptvq_error *err) {
  gptvq_rope *rope = &config->rope;
  rope->original_max_positions = strncmp(config->architecture, "Phi3", 4) == 0 ? 4096 : 0;
  GPTVQ_TRY(gptvq_config_size(source, "original_max_position_embeddings", 2, MAX_POSITIONS,
                              &rope->original_max_positions, err));
  GPTVQ_TRY(gptvq_config_size(top, "original_max_position_embeddings", 2, MAX_POSITIONS,
                              &rope->original_max_positions, err));
  if (rope->original_max_positions == 0)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/%s: original_max_position_embeddings is missing, longrope needs it", source->folder,
                      source->file);
  rope->factor = (double)config->max_positions / (double)rope->original_max_positions;
  GPTVQ_TRY(gptvq_config_number(source, "factor", 1e-3, huge_factor, &rope->factor, err));
  GPTVQ_TRY(gptvq_config_number(source, "attention_factor", 1e-6, huge_factor, &rope->attention_factor, err));
  GPTVQ_TRY(parse_factors(source, "short_factor", pairs, &rope->short_factor, err));
  return parse_factors(source, "long_factor", pairs, &rope->long_factor, err);
}

gptvq_status gptvq_config_parse_rope(const gptvq_config_source *top, double theta, gptvq_config *config,
                                     gptvq_error *err) {
  gptvq_rope *rope = &config->rope;
  *rope =
      (gptvq_rope){.type = GPTVQ_ROPE_DEFAULT, .theta = theta, .factor = 1.0, .partial_rotary_factor = 1.0};
  gptvq_config_source source = {top->folder, top->file, "rope_parameters.",
                                gptvq_config_value(top, "rope_parameters")};
  if (source.object == NULL) {
    source.prefix = "rope_scaling.";
    source.object = gptvq_config_value(top, "rope_scaling");
  }
  if (source.object != NULL && !json_is_object(source.object))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %s is not an object", top->folder, top->file,
                      strcmp(source.prefix, "rope_scaling.") == 0 ? "rope_scaling" : "rope_parameters");
  /* the newer form wins where both give a value */
  const gptvq_config_source *places[2] = {top, &source};
  for (size_t i = 0; i < 2; i++) {
    if (places[i]->object == NULL) continue;
    GPTVQ_TRY(gptvq_config_number(places[i], "rope_theta", 1.0, 1e15, &rope->theta, err));
    GPTVQ_TRY(gptvq_config_number(places[i], "partial_rotary_factor", 1e-3, 1.0, &rope->partial_rotary_factor,
                                  err));
  }
  size_t rotated = (size_t)((double)config->head_dim * rope->partial_rotary_factor);
  if (rotated < 2 || rotated % 2 != 0)
    return gptvq_fail(
        err, GPTVQ_ERROR_FORMAT,
        "%s/%s: partial_rotary_factor %g of head_dim %zu rotates %zu dimensions, not an even number",
        top->folder, top->file, rope->partial_rotary_factor, config->head_dim, rotated);
  if (source.object == NULL) return GPTVQ_OK;

  static const char *const layered[] = {"full_attention", "sliding_attention"};
  for (size_t i = 0; i < 2; i++)
    if (gptvq_config_value(&source, layered[i]) != NULL)
      return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                        "%s/%s: %s%s: rope parameters per kind of layer are not supported", top->folder,
                        top->file, source.prefix, layered[i]);
  GPTVQ_TRY(parse_type(&source, config, &rope->type, err));
  switch (rope->type) {
  case GPTVQ_ROPE_LINEAR:
    GPTVQ_TRY(gptvq_config_need(&source, "factor", err));
    return gptvq_config_number(&source, "factor", 1e-3, huge_factor, &rope->factor, err);
  case GPTVQ_ROPE_LLAMA3: return parse_llama3(&source, rope, err);
  case GPTVQ_ROPE_LONGROPE: return parse_longrope(&source, top, rotated / 2, config, err);
  default: return GPTVQ_OK;
  }
}
