#include "base/memory.h"
#include "model/arch/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double huge_factor = 1e6; /* beyond any context extension */
enum { MAX_POSITIONS = 1 << 30 };

static gptvq_status parse_type(const gptvq_config_source *source, const gptvq_config_rules *rules,
                               gptvq_rope_type *out, gptvq_error *err) {
  char name[32] = "default";
  GPTVQ_TRY(gptvq_config_text(source, "type", name, sizeof name, err));
  GPTVQ_TRY(gptvq_config_text(source, "rope_type", name, sizeof name, err));
  /* Phi-3's first configs call longrope "su" or "yarn" */
  bool older = rules->original_positions > 0;
  if (strcmp(name, "default") == 0) *out = GPTVQ_ROPE_DEFAULT;
  else if (strcmp(name, "linear") == 0) *out = GPTVQ_ROPE_LINEAR;
  else if (strcmp(name, "llama3") == 0) *out = GPTVQ_ROPE_LLAMA3;
  else if (strcmp(name, "longrope") == 0 || (older && (strcmp(name, "su") == 0 || strcmp(name, "yarn") == 0)))
    *out = GPTVQ_ROPE_LONGROPE;
  else if (strcmp(name, "yarn") == 0) *out = GPTVQ_ROPE_YARN;
  else if (strcmp(name, "dynamic") == 0) *out = GPTVQ_ROPE_DYNAMIC;
  else
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/%s: rope type %s is not supported; supported: default, linear, dynamic, yarn, "
                      "llama3, longrope",
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

/* The context length before it was extended: that of config.json itself (`top`) wins; Phi-3 has it only
 * there. */
static gptvq_status parse_original(const gptvq_config_source *source, const gptvq_config_source *top,
                                   const gptvq_config_rules *rules, const gptvq_config *config,
                                   gptvq_rope *rope, gptvq_error *err) {
  static const char key[] = "original_max_position_embeddings";
  size_t *length = &rope->original_max_positions;
  bool beside = rules->original_positions > 0;
  *length = beside ? rules->original_positions : config->max_positions;
  if (!beside) GPTVQ_TRY(gptvq_config_size(source, key, 2, MAX_POSITIONS, length, err));
  return gptvq_config_size(top, key, 2, MAX_POSITIONS, length, err);
}

static gptvq_status parse_llama3(const gptvq_config_source *source, const gptvq_config_source *top,
                                 const gptvq_config_rules *rules, const gptvq_config *config,
                                 gptvq_rope *rope, gptvq_error *err) {
  static const char *const keys[] = {"factor", "low_freq_factor", "high_freq_factor"};
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
    GPTVQ_TRY(gptvq_config_need(source, keys[i], err));
  GPTVQ_TRY(gptvq_config_number(source, "factor", 1.0, huge_factor, &rope->factor, err));
  GPTVQ_TRY(gptvq_config_number(source, "low_freq_factor", 1e-6, huge_factor, &rope->low_freq_factor, err));
  GPTVQ_TRY(gptvq_config_number(source, "high_freq_factor", 1e-6, huge_factor, &rope->high_freq_factor, err));
  GPTVQ_TRY(parse_original(source, top, rules, config, rope, err));
  if (rope->high_freq_factor <= rope->low_freq_factor)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %shigh_freq_factor %g is not above low_freq_factor %g",
                      source->folder, source->file, source->prefix, rope->high_freq_factor,
                      rope->low_freq_factor);
  return GPTVQ_OK;
}

static gptvq_status parse_longrope(const gptvq_config_source *source, const gptvq_config_source *top,
                                   const gptvq_config_rules *rules, size_t pairs, const gptvq_config *config,
                                   gptvq_rope *rope, gptvq_error *err) {
  GPTVQ_TRY(parse_original(source, top, rules, config, rope, err));
  if (rope->original_max_positions < 2) /* max_position_embeddings in its place */
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/%s: original_max_position_embeddings is missing, longrope needs it", source->folder,
                      source->file);
  rope->factor = (double)config->max_positions / (double)rope->original_max_positions;
  GPTVQ_TRY(gptvq_config_number(source, "factor", 1e-3, huge_factor, &rope->factor, err));
  GPTVQ_TRY(gptvq_config_number(source, "attention_factor", 1e-6, huge_factor, &rope->attention_factor, err));
  GPTVQ_TRY(parse_factors(source, "short_factor", pairs, &rope->short_factor, err));
  return parse_factors(source, "long_factor", pairs, &rope->long_factor, err);
}

/* What YaRN multiplies cosines and sines by: log-linear in the stretch. */
static double yarn_magnitude(double factor, double scale) {
  return factor <= 1.0 ? 1.0 : 0.1 * scale * log(factor) + 1.0;
}

static gptvq_status parse_yarn(const gptvq_config_source *source, const gptvq_config_source *top,
                               const gptvq_config_rules *rules, const gptvq_config *config, gptvq_rope *rope,
                               gptvq_error *err) {
  double scale = 0.0, scale_all = 0.0;
  GPTVQ_TRY(parse_original(source, top, rules, config, rope, err));
  rope->factor = (double)config->max_positions / (double)rope->original_max_positions;
  GPTVQ_TRY(gptvq_config_number(source, "factor", 1e-3, huge_factor, &rope->factor, err));
  GPTVQ_TRY(gptvq_config_number(source, "beta_fast", 0.0, huge_factor, &rope->beta_fast, err));
  GPTVQ_TRY(gptvq_config_number(source, "beta_slow", 0.0, huge_factor, &rope->beta_slow, err));
  if (rope->beta_fast == 0.0) rope->beta_fast = 32.0;
  if (rope->beta_slow == 0.0) rope->beta_slow = 1.0;
  rope->truncate = true;
  GPTVQ_TRY(gptvq_config_bool(source, "truncate", &rope->truncate, err));
  GPTVQ_TRY(gptvq_config_number(source, "mscale", 0.0, huge_factor, &scale, err));
  GPTVQ_TRY(gptvq_config_number(source, "mscale_all_dim", 0.0, huge_factor, &scale_all, err));
  rope->attention_factor = scale > 0.0 && scale_all > 0.0
                               ? yarn_magnitude(rope->factor, scale) / yarn_magnitude(rope->factor, scale_all)
                               : yarn_magnitude(rope->factor, 1.0);
  if (rules->scores_grow && scale_all > 0.0) rope->score_scale = yarn_magnitude(rope->factor, scale_all);
  if (rope->theta > 1.0)
    return gptvq_config_number(source, "attention_factor", 1e-6, huge_factor, &rope->attention_factor, err);
  return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: rope_theta %g is not above 1, as yarn needs it",
                    source->folder, source->file, rope->theta);
}

static gptvq_status parse_dynamic(const gptvq_config_source *source, size_t pairs, const gptvq_config *config,
                                  gptvq_rope *rope, gptvq_error *err) {
  GPTVQ_TRY(gptvq_config_need(source, "factor", err));
  rope->original_max_positions = config->max_positions;
  if (pairs > 1) return gptvq_config_number(source, "factor", 1.0, huge_factor, &rope->factor, err);
  return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                    "%s/%s: %stype dynamic needs heads of more than two rotated dimensions", source->folder,
                    source->file, source->prefix);
}

/* rope_scaling, the older name, unless it is null or empty; then rope_parameters. One takes the place of the
 * other as a whole: of the one that loses not even rope_theta counts. *source has no object without either.
 */
static gptvq_status find_parameters(const gptvq_config_source *top, gptvq_config_source *source,
                                    gptvq_error *err) {
  static const struct {
    const char *key, *prefix;
  } names[2] = {{"rope_scaling", "rope_scaling."}, {"rope_parameters", "rope_parameters."}};
  *source = (gptvq_config_source){.folder = top->folder, .file = top->file, .prefix = ""};
  for (size_t i = 0; i < 2; i++) {
    const json_t *object = gptvq_config_value(top, names[i].key);
    if (object != NULL && !json_is_object(object))
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %s is not an object", top->folder, top->file,
                        names[i].key);
    if (json_object_size(object) == 0 || source->object != NULL) continue;
    source->object = object;
    source->prefix = names[i].prefix;
  }
  return GPTVQ_OK;
}

/* Parameters per kind of layer stand in objects of their own, named like layer_types. */
static gptvq_status refuse_kinds(const gptvq_config_source *source, gptvq_error *err) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)source->object, key, value) {
    if (json_is_object(value))
      return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                        "%s/%s: %s%s: rope parameters per kind of layer are not supported", source->folder,
                        source->file, source->prefix, key);
  }
  return GPTVQ_OK;
}

/* What its type asks for. */
static gptvq_status parse_scaling(const gptvq_config_source *source, const gptvq_config_source *top,
                                  const gptvq_config_rules *rules, size_t pairs, const gptvq_config *config,
                                  gptvq_rope *rope, gptvq_error *err) {
  switch (rope->type) {
  case GPTVQ_ROPE_LINEAR:
    GPTVQ_TRY(gptvq_config_need(source, "factor", err));
    return gptvq_config_number(source, "factor", 1e-3, huge_factor, &rope->factor, err);
  case GPTVQ_ROPE_LLAMA3: return parse_llama3(source, top, rules, config, rope, err);
  case GPTVQ_ROPE_LONGROPE: return parse_longrope(source, top, rules, pairs, config, rope, err);
  case GPTVQ_ROPE_YARN: return parse_yarn(source, top, rules, config, rope, err);
  case GPTVQ_ROPE_DYNAMIC: return parse_dynamic(source, pairs, config, rope, err);
  default: return GPTVQ_OK;
  }
}

/* Queries that grow with their position. */
static gptvq_status parse_growth(const gptvq_config_source *source, const gptvq_config_source *top,
                                 const gptvq_config_rules *rules, const gptvq_config *config,
                                 gptvq_rope *rope, gptvq_error *err) {
  if (source->object == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: rope_parameters is missing", top->folder, top->file);
  GPTVQ_TRY(gptvq_config_number(source, "llama_4_scaling_beta", 0.0, 1e3, &rope->query_growth, err));
  return rope->query_growth > 0.0 ? parse_original(source, top, rules, config, rope, err) : GPTVQ_OK;
}

/* One rope: from the object of parameters, which may be missing, and where that says nothing from keys of
 * config.json itself (`top`), theta from `theta_key` there. */
static gptvq_status parse_rope(const gptvq_config_source *top, const gptvq_config_source *source,
                               const char *theta_key, const gptvq_config_rules *rules,
                               const gptvq_config *config, gptvq_rope *rope, gptvq_error *err) {
  const gptvq_config_source *places[2] = {top, source};
  const char *const theta_keys[2] = {theta_key, "rope_theta"};
  for (size_t i = 0; i < 2; i++) {
    if (places[i]->object == NULL) continue;
    GPTVQ_TRY(gptvq_config_number(places[i], theta_keys[i], 1.0, 1e15, &rope->theta, err));
    GPTVQ_TRY(gptvq_config_number(places[i], "partial_rotary_factor", 1e-3, 1.0, &rope->partial_rotary_factor,
                                  err));
  }
  if (source->object != NULL) {
    GPTVQ_TRY(refuse_kinds(source, err));
    GPTVQ_TRY(gptvq_config_check_rope_keys(source, rules, err));
    GPTVQ_TRY(parse_type(source, rules, &rope->type, err));
  }
  if (!rules->partial_rotation) { /* transformers ignores it there, or fails */
    if (rope->type != GPTVQ_ROPE_DEFAULT && rope->partial_rotary_factor < 1.0)
      return gptvq_fail(
          err, GPTVQ_ERROR_UNSUPPORTED,
          "%s/%s: partial_rotary_factor %g beside a RoPE scaling is not supported for this family",
          top->folder, top->file, rope->partial_rotary_factor);
    rope->partial_rotary_factor = 1.0;
  }
  size_t rotated = (size_t)((double)config->head_dim * rope->partial_rotary_factor);
  if (rotated < 2 || rotated % 2 != 0)
    return gptvq_fail(
        err, GPTVQ_ERROR_FORMAT,
        "%s/%s: partial_rotary_factor %g of head_dim %zu rotates %zu dimensions, not an even number",
        top->folder, top->file, rope->partial_rotary_factor, config->head_dim, rotated);
  GPTVQ_TRY(parse_scaling(source, top, rules, rotated / 2, config, rope, err));
  return rules->query_growth ? parse_growth(source, top, rules, config, rope, err) : GPTVQ_OK;
}

/* The parameters of the layers of that kind; an object that is missing leaves *out without one. */
static gptvq_status find_kind(const gptvq_config_source *source, const char *kind, char prefix[64],
                              gptvq_config_source *out, gptvq_error *err) {
  *out = *source;
  out->object = gptvq_config_value(source, kind);
  if (out->object != NULL && !json_is_object(out->object))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %s%s is not an object", source->folder, source->file,
                      source->prefix, kind);
  (void)snprintf(prefix, 64, "%s%s.", source->prefix, kind);
  out->prefix = prefix;
  return GPTVQ_OK;
}

gptvq_status gptvq_config_parse_rope(const gptvq_config_source *top, const gptvq_config_rules *rules,
                                     gptvq_config *config, gptvq_error *err) {
  static const char full[] = "full_attention", slides[] = "sliding_attention";
  gptvq_config_source source, global, local = {.folder = top->folder, .file = top->file, .prefix = ""};
  char prefixes[2][64];
  config->rope = (gptvq_rope){.type = GPTVQ_ROPE_DEFAULT,
                              .theta = rules->rope_theta,
                              .factor = 1.0,
                              .score_scale = 1.0,
                              .partial_rotary_factor =
                                  rules->partial_rotary_factor > 0.0 ? rules->partial_rotary_factor : 1.0};
  config->local_rope = config->rope;
  GPTVQ_TRY(find_parameters(top, &source, err));
  global = source;
  if (rules->local_theta != NULL && source.object != NULL &&
      (gptvq_config_value(&source, full) != NULL || gptvq_config_value(&source, slides) != NULL)) {
    GPTVQ_TRY(find_kind(&source, full, prefixes[0], &global, err));
    GPTVQ_TRY(find_kind(&source, slides, prefixes[1], &local, err));
    GPTVQ_TRY(gptvq_config_check_rope_kinds(&source, full, slides, err));
  }
  GPTVQ_TRY(parse_rope(top, &global, "rope_theta", rules, config, &config->rope, err));
  config->query_scalar /= pow(config->rope.score_scale, 4.0);
  if (rules->local_theta == NULL) return GPTVQ_OK;
  config->local_rope.theta = rules->local_rope_theta;
  for (size_t i = 0; i < config->layers; i++)
    if (config->layer_slides[i]) config->layer_rope[i] = GPTVQ_USE_LOCAL_ROPE;
  return parse_rope(top, &local, rules->local_theta, rules, config, &config->local_rope, err);
}
