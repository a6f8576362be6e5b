#include "gguf/config.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const gptvq_gguf_family families[] = {
    {"llama", "llama", "LlamaForCausalLM", true, false, 0.0f},
    {"llama", "mixtral", "MixtralForCausalLM", true, false, 0.0f}, /* with experts */
    {"qwen2", "qwen2", "Qwen2ForCausalLM", false, false, 0.0f},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", false, false, 0.0f},
    {"phi3", "phi3", "Phi3ForCausalLM", false, false, 0.0f},
    {"gemma2", "gemma2", "Gemma2ForCausalLM", false, true, 1.0f},
    {"granite", "granite", "GraniteForCausalLM", true, false, 0.0f},
    {"olmo2", "olmo2", "Olmo2ForCausalLM", false, false, 0.0f},
};

/* Keys of the file become keys of config.json. */
typedef struct build {
  const gptvq_gguf_reader *reader;
  const gptvq_gguf_family *family;
  json_t *config;
  gptvq_error *err;
} build;

enum { KEY = 128 };
static const char *key_of(const gptvq_gguf_family *family, const char *rest, char text[KEY]) {
  (void)snprintf(text, KEY, "%s.%s", family->name, rest);
  return text;
}

gptvq_status gptvq_gguf_family_of(const gptvq_gguf_reader *reader, const gptvq_gguf_family **out,
                                  gptvq_error *err) {
  const char *name = NULL;
  size_t size = 0, experts = 0;
  char key[KEY];
  GPTVQ_TRY(gptvq_gguf_get_text(reader, "general.architecture", &name, &size, err));
  if (name == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: key general.architecture is missing", reader->path);
  *out = NULL;
  for (size_t i = 0; i < sizeof families / sizeof *families && *out == NULL; i++)
    if (strlen(families[i].name) == size && memcmp(families[i].name, name, size) == 0) *out = &families[i];
  if (*out == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: architecture %.*s is not read from GGUF files (llama, qwen2, qwen3, phi3, gemma2, "
                      "granite, olmo2 are): give the folder of the original model",
                      reader->path, (int)(size < 64 ? size : 64), name);
  GPTVQ_TRY(gptvq_gguf_get_size(reader, key_of(*out, "expert_count", key), 0, USHRT_MAX, &experts, err));
  if (experts > 0 && *out == &families[0]) ++*out;
  else if (experts > 0)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s: %s with experts is not read from GGUF files",
                      reader->path, (*out)->name);
  return GPTVQ_OK;
}

static gptvq_status set(const build *b, const char *name, json_t *value) {
  return json_object_set_new(b->config, name, value) == 0
             ? GPTVQ_OK
             : gptvq_fail_memory(b->err, "the configuration", 64);
}

static gptvq_status missing(const build *b, const char *key) {
  return gptvq_fail(b->err, GPTVQ_ERROR_FORMAT, "%s: key %s is missing", b->reader->path, key);
}

enum { MOST = 1 << 30, ABSENT = 0 };
/* *out: 0 where the key is absent */
static gptvq_status get_size(const build *b, const char *rest, size_t *out) {
  char key[KEY];
  *out = ABSENT;
  return gptvq_gguf_get_size(b->reader, key_of(b->family, rest, key), 0, MOST, out, b->err);
}

/* What config.json has to have is the value, else `instead`, unless that is 0. */
static gptvq_status put_size(const build *b, const char *rest, const char *name, size_t instead,
                             size_t *out) {
  char key[KEY];
  size_t value;
  GPTVQ_TRY(get_size(b, rest, &value));
  if (value == ABSENT) value = instead;
  if (value == ABSENT) return missing(b, key_of(b->family, rest, key));
  if (out != NULL) *out = value;
  return set(b, name, json_integer((json_int_t)value));
}

/* NAN where the key is absent */
static gptvq_status get_number(const build *b, const char *rest, double *out) {
  char key[KEY];
  *out = NAN;
  return gptvq_gguf_get_number(b->reader, key_of(b->family, rest, key), out, b->err);
}

/* Nothing where the key is absent. */
static gptvq_status put_number(const build *b, const char *rest, const char *name) {
  double value;
  GPTVQ_TRY(get_number(b, rest, &value));
  return isnan(value) ? GPTVQ_OK : set(b, name, json_real(value));
}

/* ---- rotary embeddings ---- */

/* A tensor of fp32 factors, one for each of `pairs`. */
static gptvq_status find_factors(const build *b, const char *name, size_t pairs, const uint8_t **out) {
  const gptvq_gguf_entry *entry = gptvq_gguf_find_entry(b->reader, name);
  *out = NULL;
  if (entry == NULL) return GPTVQ_OK;
  bool fine = entry->type == GPTVQ_GGML_F32 && entry->rank == 1 && entry->count == pairs;
  for (size_t i = 0; i < pairs && fine; i++) {
    const float factor = gptvq_gguf_f32_at(entry->data + 4 * i);
    fine = isfinite(factor) && factor > 0.0f;
  }
  if (!fine)
    return gptvq_fail(b->err, GPTVQ_ERROR_FORMAT, "%s: tensor %s is not %zu positive F32 numbers",
                      b->reader->path, name, pairs);
  *out = entry->data;
  return GPTVQ_OK;
}

static json_t *factor_list(const uint8_t *factors, size_t pairs) {
  json_t *list = json_array();
  for (size_t i = 0; i < pairs && list != NULL; i++)
    if (json_array_append_new(list, json_real((double)gptvq_gguf_f32_at(factors + 4 * i))) != 0) {
      json_decref(list);
      list = NULL;
    }
  return list;
}

/* What Llama 3's scaling divides frequency number i by. */
static double llama3_factor(double theta, size_t i, size_t pairs, double factor, double context) {
  static const double low = 1.0, high = 4.0, pi = 3.14159265358979323846;
  const double frequency = pow(theta, -(double)i / (double)pairs), turns = context * frequency / (2.0 * pi);
  if (turns > high) return 1.0;
  if (turns < low) return factor;
  const double blend = (turns - low) / (high - low);
  return 1.0 / ((1.0 - blend) / factor + blend);
}

/* The original context that gives these factors with the ramp that every model of Llama 3 has, or 0. */
static size_t find_llama3(const uint8_t *factors, size_t pairs, double theta, double *factor) {
  *factor = 1.0;
  for (size_t i = 0; i < pairs; i++) *factor = fmax(*factor, (double)gptvq_gguf_f32_at(factors + 4 * i));
  for (size_t context = 16; context <= MOST; context *= 2) {
    size_t same = 0;
    while (same < pairs) {
      const double own = (double)gptvq_gguf_f32_at(factors + 4 * same);
      if (fabs(llama3_factor(theta, same, pairs, *factor, (double)context) - own) > 1e-6 * own) break;
      same++;
    }
    if (same == pairs) return context;
  }
  return 0;
}

/* rope_freqs: Llama 3's, or whatever frequencies are divided by, which LongRoPE can say. */
static gptvq_status put_frequencies(const build *b, const uint8_t *factors, size_t pairs, double theta,
                                    size_t positions) {
  double factor;
  const size_t context = find_llama3(factors, pairs, theta, &factor);
  if (context > 0)
    return set(b, "rope_scaling",
               json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3", "factor", factor,
                         "low_freq_factor", 1.0, "high_freq_factor", 4.0, "original_max_position_embeddings",
                         (json_int_t)context));
  return set(b, "rope_scaling",
             json_pack("{s:s, s:f, s:I, s:o, s:o}", "rope_type", "longrope", "attention_factor", 1.0,
                       "original_max_position_embeddings", (json_int_t)positions, "short_factor",
                       factor_list(factors, pairs), "long_factor", factor_list(factors, pairs)));
}

static gptvq_status put_longrope(const build *b, const uint8_t *near_ones, const uint8_t *far_ones,
                                 size_t pairs) {
  size_t original;
  double magnitude;
  char key[KEY];
  GPTVQ_TRY(get_size(b, "rope.scaling.original_context_length", &original));
  GPTVQ_TRY(get_number(b, "rope.scaling.attn_factor", &magnitude));
  if (original == ABSENT) return missing(b, key_of(b->family, "rope.scaling.original_context_length", key));
  json_t *scaling = json_pack("{s:s, s:o, s:o}", "rope_type", "longrope", "short_factor",
                              factor_list(near_ones, pairs), "long_factor", factor_list(far_ones, pairs));
  if (scaling != NULL && !isnan(magnitude) &&
      json_object_set_new(scaling, "attention_factor", json_real(magnitude)) != 0) {
    json_decref(scaling);
    scaling = NULL;
  }
  GPTVQ_TRY(set(b, "rope_scaling", scaling));
  return set(b, "original_max_position_embeddings", json_integer((json_int_t)original));
}

static gptvq_status put_yarn(const build *b, double factor) {
  static const char *const keys[2][2] = {{"rope.scaling.yarn_beta_fast", "beta_fast"},
                                         {"rope.scaling.yarn_beta_slow", "beta_slow"}};
  size_t original;
  GPTVQ_TRY(get_size(b, "rope.scaling.original_context_length", &original));
  json_t *scaling = json_pack("{s:s, s:f}", "rope_type", "yarn", "factor", factor);
  GPTVQ_TRY(set(b, "rope_scaling", scaling));
  build inner = *b;
  inner.config = scaling;
  for (size_t i = 0; i < 2; i++) GPTVQ_TRY(put_number(&inner, keys[i][0], keys[i][1]));
  return original == ABSENT
             ? GPTVQ_OK
             : set(&inner, "original_max_position_embeddings", json_integer((json_int_t)original));
}

static gptvq_status put_scaling(const build *b) {
  char key[KEY];
  const char *type = "none";
  size_t size = 4;
  double factor;
  GPTVQ_TRY(
      gptvq_gguf_get_text(b->reader, key_of(b->family, "rope.scaling.type", key), &type, &size, b->err));
  GPTVQ_TRY(get_number(b, "rope.scaling.factor", &factor));
  if (size == 4 && memcmp(type, "none", 4) == 0) return GPTVQ_OK;
  if (isnan(factor)) return missing(b, key_of(b->family, "rope.scaling.factor", key));
  if (size == 4 && memcmp(type, "yarn", 4) == 0) return put_yarn(b, factor);
  if (size == 6 && memcmp(type, "linear", 6) == 0)
    return set(b, "rope_scaling", json_pack("{s:s, s:f}", "rope_type", "linear", "factor", factor));
  return gptvq_fail(b->err, GPTVQ_ERROR_UNSUPPORTED, "%s: rope scaling %.*s is not read from GGUF files",
                    b->reader->path, (int)(size < 64 ? size : 64), type);
}

static gptvq_status put_rope(const build *b, size_t head_dim, size_t positions) {
  size_t rotated;
  double theta;
  const uint8_t *factors, *near_ones, *far_ones;
  GPTVQ_TRY(get_size(b, "rope.dimension_count", &rotated));
  GPTVQ_TRY(get_number(b, "rope.freq_base", &theta));
  if (rotated == ABSENT || rotated > head_dim) rotated = head_dim;
  if (isnan(theta)) theta = 10000.0; /* as llama.cpp has it */
  GPTVQ_TRY(set(b, "rope_theta", json_real(theta)));
  if (rotated < head_dim)
    GPTVQ_TRY(set(b, "partial_rotary_factor", json_real((double)rotated / (double)head_dim)));
  GPTVQ_TRY(find_factors(b, "rope_freqs.weight", rotated / 2, &factors));
  GPTVQ_TRY(find_factors(b, "rope_factors_short.weight", rotated / 2, &near_ones));
  GPTVQ_TRY(find_factors(b, "rope_factors_long.weight", rotated / 2, &far_ones));
  if (near_ones != NULL && far_ones != NULL) return put_longrope(b, near_ones, far_ones, rotated / 2);
  if (factors != NULL) return put_frequencies(b, factors, rotated / 2, theta, positions);
  return put_scaling(b);
}

/* ---- the rest ---- */

static bool has(const build *b, const char *tensor) {
  return gptvq_gguf_find_entry(b->reader, tensor) != NULL;
}

static gptvq_status put_sizes(const build *b) {
  size_t hidden, heads, kv_heads, positions, head_dim;
  const gptvq_gguf_entry *embedding = gptvq_gguf_find_entry(b->reader, "token_embd.weight");
  if (embedding == NULL || embedding->rank != 2)
    return gptvq_fail(b->err, GPTVQ_ERROR_FORMAT, "%s: tensor token_embd.weight is missing, or no matrix",
                      b->reader->path);
  GPTVQ_TRY(set(b, "vocab_size", json_integer((json_int_t)embedding->dims[0])));
  GPTVQ_TRY(put_size(b, "embedding_length", "hidden_size", 0, &hidden));
  GPTVQ_TRY(put_size(b, "block_count", "num_hidden_layers", 0, NULL));
  GPTVQ_TRY(put_size(b, "feed_forward_length", "intermediate_size", 0, NULL));
  GPTVQ_TRY(put_size(b, "attention.head_count", "num_attention_heads", 0, &heads));
  GPTVQ_TRY(put_size(b, "attention.head_count_kv", "num_key_value_heads", heads, &kv_heads));
  GPTVQ_TRY(put_size(b, "context_length", "max_position_embeddings", 0, &positions));
  GPTVQ_TRY(get_size(b, "attention.key_length", &head_dim));
  if (head_dim == ABSENT) head_dim = hidden / heads;
  else GPTVQ_TRY(set(b, "head_dim", json_integer((json_int_t)head_dim)));
  GPTVQ_TRY(put_number(b, "attention.layer_norm_rms_epsilon", "rms_norm_eps"));
  return put_rope(b, head_dim, positions);
}

/* query_pre_attn_scalar: llama.cpp has it built in, 1 / 16 for every size but the largest. */
static gptvq_status put_gemma2(const build *b) {
  size_t hidden, heads, layers, head_dim;
  GPTVQ_TRY(get_size(b, "embedding_length", &hidden));
  GPTVQ_TRY(get_size(b, "attention.head_count", &heads));
  GPTVQ_TRY(get_size(b, "block_count", &layers));
  GPTVQ_TRY(get_size(b, "attention.key_length", &head_dim));
  const bool largest = layers == 46; /* of 27 billion weights */
  if (head_dim != ABSENT || largest)
    GPTVQ_TRY(
        set(b, "query_pre_attn_scalar", json_integer((json_int_t)(largest ? hidden / heads : head_dim))));
  GPTVQ_TRY(put_size(b, "attention.sliding_window", "sliding_window", 4096, NULL));
  GPTVQ_TRY(put_number(b, "attn_logit_softcapping", "attn_logit_softcapping"));
  GPTVQ_TRY(put_number(b, "final_logit_softcapping", "final_logit_softcapping"));
  return set(b, "hidden_activation", json_string("gelu_pytorch_tanh"));
}

static gptvq_status put_own(const build *b) {
  const char *type = b->family->model_type;
  if (strcmp(type, "gemma2") == 0) return put_gemma2(b);
  GPTVQ_TRY(set(b, "hidden_act", json_string("silu")));
  if (strcmp(type, "mixtral") == 0) {
    GPTVQ_TRY(put_size(b, "expert_count", "num_local_experts", 0, NULL));
    return put_size(b, "expert_used_count", "num_experts_per_tok", 0, NULL);
  }
  if (strcmp(type, "granite") == 0) {
    GPTVQ_TRY(put_number(b, "attention.scale", "attention_multiplier"));
    GPTVQ_TRY(put_number(b, "embedding_scale", "embedding_multiplier"));
    GPTVQ_TRY(put_number(b, "residual_scale", "residual_multiplier"));
    GPTVQ_TRY(put_number(b, "logit_scale", "logits_scaling"));
  }
  if (strcmp(type, "llama") == 0 || strcmp(type, "granite") == 0) {
    GPTVQ_TRY(set(b, "attention_bias", json_boolean(has(b, "blk.0.attn_q.bias"))));
    GPTVQ_TRY(set(b, "mlp_bias", json_boolean(has(b, "blk.0.ffn_gate.bias"))));
  }
  return GPTVQ_OK;
}

static gptvq_status put_tokens(const build *b) {
  static const char *const eos_keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"};
  size_t bos = MOST, eos[2] = {MOST, MOST};
  GPTVQ_TRY(gptvq_gguf_get_size(b->reader, "tokenizer.ggml.bos_token_id", 0, UINT32_MAX, &bos, b->err));
  if (bos < MOST) GPTVQ_TRY(set(b, "bos_token_id", json_integer((json_int_t)bos)));
  for (size_t i = 0; i < 2; i++)
    GPTVQ_TRY(gptvq_gguf_get_size(b->reader, eos_keys[i], 0, UINT32_MAX, &eos[i], b->err));
  if (eos[0] >= MOST) return GPTVQ_OK;
  if (eos[1] >= MOST || eos[1] == eos[0]) return set(b, "eos_token_id", json_integer((json_int_t)eos[0]));
  return set(b, "eos_token_id", json_pack("[I, I]", (json_int_t)eos[0], (json_int_t)eos[1]));
}

/* What most numbers become (checkpoint/gguf.h). */
static const char *dtype_of(const build *b) {
  const gptvq_gguf_entry *embedding = gptvq_gguf_find_entry(b->reader, "token_embd.weight");
  return embedding != NULL && embedding->type == GPTVQ_GGML_F32    ? "float32"
         : embedding != NULL && embedding->type == GPTVQ_GGML_BF16 ? "bfloat16"
                                                                   : "float16";
}

static gptvq_status put_all(const build *b) {
  GPTVQ_TRY(set(b, "architectures", json_pack("[s]", b->family->architecture)));
  GPTVQ_TRY(set(b, "model_type", json_string(b->family->model_type)));
  GPTVQ_TRY(set(b, "dtype", json_string(dtype_of(b))));
  GPTVQ_TRY(put_sizes(b));
  GPTVQ_TRY(set(b, "tie_word_embeddings", json_boolean(!has(b, "output.weight"))));
  GPTVQ_TRY(put_own(b));
  return put_tokens(b);
}

gptvq_status gptvq_gguf_config_json(const gptvq_gguf_reader *reader, json_t **out, gptvq_error *err) {
  build b = {.reader = reader, .err = err};
  *out = NULL;
  GPTVQ_TRY(gptvq_gguf_family_of(reader, &b.family, err));
  b.config = json_object();
  if (b.config == NULL) return gptvq_fail_memory(err, "the configuration", 64);
  gptvq_status status = put_all(&b);
  if (status == GPTVQ_OK) *out = b.config;
  else json_decref(b.config);
  return status;
}
