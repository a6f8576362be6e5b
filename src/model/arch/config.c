#include "base/memory.h"
#include "model/arch/arch.h"

#include <stdio.h>
#include <string.h>

enum { DEFAULT_WINDOW_LAYERS = 28 }; /* max_window_layers of Qwen */

/* Ceilings far above any model: they only keep products of these sizes from overflowing. */
enum {
  MAX_WIDTH = 1 << 22,
  MAX_LAYERS = 1 << 12,
  MAX_HEADS = 1 << 14,
  MAX_HEAD_DIM = 1 << 14,
  MAX_VOCAB = 1 << 26,
  MAX_POSITIONS = 1 << 30,
  MAX_EXPERTS = 1 << 12
};

gptvq_status gptvq_config_architecture(const char *folder, const json_t *config, char architecture[64],
                                       gptvq_error *err) {
  const gptvq_config_source source = {folder, "config.json", "", config};
  const json_t *list = gptvq_config_value(&source, "architectures");
  const json_t *first = json_array_get(list, 0);
  const char *type = json_string_value(json_object_get(config, "model_type"));
  architecture[0] = '\0';
  if (list != NULL && (!json_is_array(list) || (first != NULL && !json_is_string(first))))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/config.json: architectures is not a list of names",
                      folder);
  if (first != NULL) {
    size_t length = json_string_length(first);
    if (length == 0 || length > 63)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s/config.json: the name in architectures has %zu bytes, not 1 to 63", folder,
                        length);
    memcpy(architecture, json_string_value(first), length + 1);
  }
  const gptvq_arch *by_type = type != NULL ? gptvq_find_model_type(type) : NULL;
  const gptvq_arch *by_name = gptvq_find_arch(architecture);
  if (first == NULL && type == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/config.json: neither architectures nor model_type says what the model is", folder);
  if (first == NULL && by_type == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/config.json: architectures is missing, and model_type %.63s is not supported",
                      folder, type);
  if (by_type != NULL && by_name != NULL && by_type != by_name)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/config.json: architectures says %s, but model_type says %s: correct one of them",
                      folder, architecture, type);
  if (first == NULL) by_name = by_type;
  if (by_name != NULL) (void)snprintf(architecture, 64, "%sForCausalLM", by_name->name);
  return GPTVQ_OK;
}

/* `initial`: what the family has it as where the key is missing; 0: it must not be. */
static gptvq_status required_size(const gptvq_config_source *source, const char *key, size_t high,
                                  size_t initial, size_t *out, gptvq_error *err) {
  *out = initial;
  if (initial == 0) GPTVQ_TRY(gptvq_config_need(source, key, err));
  return gptvq_config_size(source, key, 1, high, out, err);
}

static gptvq_status parse_sizes(const gptvq_config_source *source, const gptvq_config_rules *rules,
                                gptvq_config *c, gptvq_error *err) {
  GPTVQ_TRY(required_size(source, "hidden_size", MAX_WIDTH, 0, &c->hidden, err));
  GPTVQ_TRY(required_size(source,
                          rules->intermediate_key != NULL ? rules->intermediate_key : "intermediate_size",
                          MAX_WIDTH, 0, &c->intermediate, err));
  GPTVQ_TRY(required_size(source, "num_hidden_layers", MAX_LAYERS, 0, &c->layers, err));
  GPTVQ_TRY(required_size(source, "num_attention_heads", MAX_HEADS, rules->heads, &c->heads, err));
  GPTVQ_TRY(required_size(source, "vocab_size", MAX_VOCAB, rules->vocab, &c->vocab, err));
  c->kv_heads = rules->kv_heads > 0 ? rules->kv_heads : c->heads;
  GPTVQ_TRY(gptvq_config_size(source, "num_key_value_heads", 1, MAX_HEADS, &c->kv_heads, err));
  if (c->heads % c->kv_heads != 0)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/%s: num_attention_heads %zu is not a multiple of num_key_value_heads %zu",
                      source->folder, source->file, c->heads, c->kv_heads);
  c->head_dim = rules->head_dim;
  GPTVQ_TRY(gptvq_config_size(source, "head_dim", 1, MAX_HEAD_DIM, &c->head_dim, err));
  if (c->head_dim == 0) {
    if (c->hidden % c->heads != 0)
      return gptvq_fail(
          err, GPTVQ_ERROR_FORMAT,
          "%s/%s: hidden_size %zu is not a multiple of num_attention_heads %zu, and head_dim is missing",
          source->folder, source->file, c->hidden, c->heads);
    c->head_dim = c->hidden / c->heads;
  }
  c->max_positions = rules->max_positions;
  GPTVQ_TRY(gptvq_config_size(source, "max_position_embeddings", 1, MAX_POSITIONS, &c->max_positions, err));
  c->rms_norm_eps = rules->rms_norm_eps;
  return gptvq_config_number(source, "rms_norm_eps", 1e-20, 1.0, &c->rms_norm_eps, err);
}

gptvq_status gptvq_config_layer_types(const gptvq_config_source *source, const json_t *types,
                                      const char *other, size_t layers, bool *is_other, gptvq_error *err) {
  if (!json_is_array(types) || json_array_size(types) != layers)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/%s: layer_types is not a list of num_hidden_layers = %zu names", source->folder,
                      source->file, layers);
  for (size_t i = 0; i < layers; i++) {
    const char *type = json_string_value(json_array_get(types, i));
    is_other[i] = type != NULL && strcmp(type, other) == 0;
    if (!is_other[i] && (type == NULL || strcmp(type, "full_attention") != 0))
      return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                        "%s/%s: layer_types[%zu] is %s; supported: full_attention, %s", source->folder,
                        source->file, i, type != NULL ? type : "not text", other);
  }
  return GPTVQ_OK;
}

/* layer_slides from layer_types */
static gptvq_status parse_sliding_layers(const gptvq_config_source *source, const json_t *types,
                                         gptvq_config *c, gptvq_error *err) {
  GPTVQ_TRY(gptvq_config_layer_types(source, types, "sliding_attention", c->layers, c->layer_slides, err));
  for (size_t i = 0; i < c->layers; i++)
    if (c->layer_slides[i] && c->sliding_window == 0)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s/%s: layer_types[%zu] is sliding_attention, but there is no sliding_window",
                        source->folder, source->file, i);
  return GPTVQ_OK;
}

static gptvq_status parse_window(const gptvq_config_source *source, const gptvq_config_rules *rules,
                                 gptvq_config *c, gptvq_error *err) {
  c->layer_slides = calloc(c->layers, sizeof *c->layer_slides);
  if (c->layer_slides == NULL) return gptvq_fail_memory(err, "layer_types", c->layers);
  /* an explicit null means none, a key that is not there the architecture's default */
  c->sliding_window =
      json_is_null(json_object_get(source->object, "sliding_window")) ? 0 : rules->sliding_window;
  GPTVQ_TRY(gptvq_config_size(source, "sliding_window", 0, MAX_POSITIONS, &c->sliding_window, err));
  size_t first = 0;
  if (rules->window_switch) {
    bool used = false;
    first = DEFAULT_WINDOW_LAYERS;
    GPTVQ_TRY(gptvq_config_bool(source, "use_sliding_window", &used, err));
    GPTVQ_TRY(gptvq_config_size(source, "max_window_layers", 0, MAX_POSITIONS, &first, err));
    if (!used) c->sliding_window = 0;
  }
  const json_t *types = rules->layer_types ? gptvq_config_value(source, "layer_types") : NULL;
  if (types != NULL) GPTVQ_TRY(parse_sliding_layers(source, types, c, err));
  bool any = false;
  for (size_t i = 0; i < c->layers; i++) {
    if (types == NULL) c->layer_slides[i] = c->sliding_window > 0 && i >= first;
    any = any || c->layer_slides[i];
  }
  if (!any) c->sliding_window = 0;
  c->layer_rope = calloc(c->layers, sizeof *c->layer_rope);
  if (c->layer_rope == NULL) return gptvq_fail_memory(err, "layer_rope", c->layers * sizeof *c->layer_rope);
  for (size_t i = 0; i < c->layers; i++) c->layer_rope[i] = GPTVQ_USE_ROPE;
  return GPTVQ_OK;
}

void gptvq_config_full_every(const gptvq_config_source *source, size_t every, gptvq_config *c) {
  if (gptvq_config_value(source, "layer_types") != NULL) return;
  for (size_t i = 0; i < c->layers; i++) c->layer_slides[i] = c->sliding_window > 0 && (i + 1) % every != 0;
}

static gptvq_status parse_experts(const gptvq_config_source *source, const gptvq_config_rules *rules,
                                  gptvq_config *c, gptvq_error *err) {
  bool always = rules->experts > 0;
  c->experts = rules->experts;
  c->experts_per_token = rules->experts_per_token;
  GPTVQ_TRY(gptvq_config_size(source, "num_local_experts", always ? 1 : 0, MAX_EXPERTS, &c->experts, err));
  if (rules->experts_key != NULL)
    GPTVQ_TRY(gptvq_config_size(source, rules->experts_key, 1, MAX_EXPERTS, &c->experts, err));
  c->expert_intermediate = c->intermediate;
  c->layer_dense = calloc(c->layers, sizeof *c->layer_dense);
  if (c->layer_dense == NULL) return gptvq_fail_memory(err, "layers without experts", c->layers);
  if (c->experts == 0) return GPTVQ_OK;
  if (!always || c->experts_per_token > c->experts) /* a default only where there are as many */
    GPTVQ_TRY(gptvq_config_need(source, "num_experts_per_tok", err));
  return gptvq_config_size(source, "num_experts_per_tok", 1, c->experts, &c->experts_per_token, err);
}

/* One token id, or -1. Ids beyond the vocabulary are harmless: they never come up. */
static gptvq_status token_id(const gptvq_config_source *source, const char *key, const json_t *value,
                             int32_t *out, gptvq_error *err) {
  json_int_t id = json_integer_value(value);
  if (!json_is_integer(value) || id < -1 || id > INT32_MAX)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %s is not a token id", source->folder, source->file,
                      key);
  *out = (int32_t)id;
  return GPTVQ_OK;
}

/* bos_token_id and eos_token_id (a number or a list) where present; a list replaces what was there */
static gptvq_status parse_tokens(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  const json_t *bos = gptvq_config_value(source, "bos_token_id"),
               *eos = gptvq_config_value(source, "eos_token_id");
  if (bos != NULL) GPTVQ_TRY(token_id(source, "bos_token_id", bos, &c->bos, err));
  if (eos == NULL) return GPTVQ_OK;
  size_t count = json_is_array(eos) ? json_array_size(eos) : 1;
  free(c->eos);
  c->eos_count = 0;
  c->eos = calloc(count + 1, sizeof *c->eos);
  if (c->eos == NULL) return gptvq_fail_memory(err, "eos_token_id", (count + 1) * sizeof *c->eos);
  for (size_t i = 0; i < count; i++) {
    int32_t id = -1;
    GPTVQ_TRY(token_id(source, "eos_token_id", json_is_array(eos) ? json_array_get(eos, i) : eos, &id, err));
    if (id >= 0) c->eos[c->eos_count++] = id;
  }
  return GPTVQ_OK;
}

static gptvq_status parse_all(const char *folder, const json_t *config, const json_t *generation,
                              gptvq_config *c, gptvq_error *err) {
  const gptvq_config_source source = {folder, "config.json", "", config};
  GPTVQ_TRY(gptvq_config_architecture(folder, config, c->architecture, err));
  const gptvq_arch *arch = gptvq_find_arch(c->architecture);
  const gptvq_config_rules *rules = &(arch != NULL ? arch : &gptvq_arch_llama)->config;
  GPTVQ_TRY(gptvq_config_check_keys(&source, c->architecture, rules, err));
  GPTVQ_TRY(parse_sizes(&source, rules, c, err));
  c->tie_embeddings = rules->tie_embeddings;
  GPTVQ_TRY(gptvq_config_bool(&source, "tie_word_embeddings", &c->tie_embeddings, err));
  c->attention_bias = rules->attention_bias;
  GPTVQ_TRY(gptvq_config_bool(&source, "attention_bias", &c->attention_bias, err));
  c->attention_out_bias = c->attention_bias;
  GPTVQ_TRY(gptvq_config_bool(&source, "mlp_bias", &c->mlp_bias, err));
  GPTVQ_TRY(parse_window(&source, rules, c, err));
  if (rules->linear_layers) GPTVQ_TRY(gptvq_config_parse_delta(&source, c, err));
  GPTVQ_TRY(parse_experts(&source, rules, c, err));
  c->query_scalar = (double)c->head_dim;
  c->embedding_scale = c->residual_scale = c->logit_scale = 1.0;
  strcpy(c->hidden_act, "silu");
  GPTVQ_TRY(gptvq_config_text(&source, "hidden_act", c->hidden_act, sizeof c->hidden_act, err));
  GPTVQ_TRY(gptvq_config_text(&source, "torch_dtype", c->dtype, sizeof c->dtype, err));
  GPTVQ_TRY(gptvq_config_text(&source, "dtype", c->dtype, sizeof c->dtype, err));
  if (rules->read_own != NULL) GPTVQ_TRY(rules->read_own(&source, c, err));
  bool slides = false; /* a family may have said that no layer does */
  for (size_t i = 0; i < c->layers; i++) slides = slides || c->layer_slides[i];
  if (!slides) c->sliding_window = 0;
  GPTVQ_TRY(gptvq_config_parse_rope(&source, rules, c, err));
  c->bos = -1;
  GPTVQ_TRY(parse_tokens(&source, c, err));
  if (generation == NULL) return GPTVQ_OK;
  const gptvq_config_source second = {folder, "generation_config.json", "", generation};
  return parse_tokens(&second, c, err);
}

gptvq_status gptvq_config_parse(const char *folder, const json_t *config, const json_t *generation,
                                gptvq_config *out, gptvq_error *err) {
  memset(out, 0, sizeof *out);
  gptvq_status status = parse_all(folder, config, generation, out, err);
  if (status != GPTVQ_OK) gptvq_config_release(out);
  return status;
}

const gptvq_rope *gptvq_config_rope(const gptvq_config *config, gptvq_rope_use use) {
  size_t i = 0;
  while (i < config->layers && config->layer_rope[i] != use) i++;
  if (i == config->layers || use == GPTVQ_USE_NO_ROPE) return NULL;
  return use == GPTVQ_USE_LOCAL_ROPE ? &config->local_rope : &config->rope;
}

void gptvq_config_release(gptvq_config *config) {
  free(config->layer_slides);
  free(config->layer_is_delta);
  free(config->layer_rope);
  free(config->layer_dense);
  free(config->eos);
  gptvq_rope *const ropes[2] = {&config->rope, &config->local_rope};
  for (size_t i = 0; i < 2; i++) {
    free(ropes[i]->short_factor);
    free(ropes[i]->long_factor);
  }
  memset(config, 0, sizeof *config);
}
