#include "export/gguf_model.h"
#include "base/memory.h"
#include "model/layer/rope.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct family {
  const gptvq_arch *arch;
  const char *name; /* general.architecture */
  bool interleaved; /* llama.cpp rotates neighbouring values of a head there, Hugging Face its two halves */
} families[] = {
    {&gptvq_arch_llama, "llama", true},    {&gptvq_arch_mistral, "llama", true},
    {&gptvq_arch_mixtral, "llama", true},  {&gptvq_arch_qwen2, "qwen2", false},
    {&gptvq_arch_qwen3, "qwen3", false},   {&gptvq_arch_phi3, "phi3", false},
    {&gptvq_arch_gemma2, "gemma2", false}, {&gptvq_arch_granite, "granite", true},
    {&gptvq_arch_olmo2, "olmo2", false},
};

static const char *const norm_names[GPTVQ_NORMS] = {
    [GPTVQ_NORM_ATTENTION] = "attn_norm",
    [GPTVQ_NORM_MLP] = "ffn_norm",
    [GPTVQ_NORM_Q] = "attn_q_norm",
    [GPTVQ_NORM_K] = "attn_k_norm",
    [GPTVQ_NORM_ATTENTION_OUT] = "post_attention_norm",
    [GPTVQ_NORM_MLP_OUT] = "post_ffw_norm",
};

/* By how many linears read the input: one where q, k, v (gate, up) are fused. */
static const char *linear_name(gptvq_block_input input, size_t parts, size_t part) {
  static const char *const qkv[] = {"attn_q", "attn_k", "attn_v"}, *const gate_up[] = {"ffn_gate", "ffn_up"};
  switch (input) {
  case GPTVQ_INPUT_QKV: return parts == 1 ? "attn_qkv" : qkv[part];
  case GPTVQ_INPUT_O: return "attn_output";
  case GPTVQ_INPUT_GATE_UP: return parts == 1 ? "ffn_up" : gate_up[part];
  default: return "ffn_down";
  }
}

static const struct family *find_family(const gptvq_model *model) {
  for (size_t i = 0; i < sizeof families / sizeof *families; i++)
    if (families[i].arch == model->arch) return &families[i];
  return NULL;
}

static bool slides(const gptvq_config *config) {
  bool any = false;
  for (size_t i = 0; i < config->layers && config->sliding_window != 0; i++)
    any = any || config->layer_slides[i];
  return any;
}

static gptvq_status unsupported(const gptvq_model *model, const char *what, gptvq_error *err) {
  return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s: %s: not for GGUF (export --format hf is)",
                    gptvq_checkpoint_folder(model->checkpoint), what);
}

/* llama.cpp counts from whole dimensions, and has YaRN's own factor of cosines and sines built in. */
static bool is_plain_yarn(const gptvq_rope *rope) {
  double own = rope->factor <= 1.0 ? 1.0 : 1.0 + 0.1 * log(rope->factor);
  return rope->truncate && fabs(rope->attention_factor - own) < 1e-6 * own;
}

gptvq_status gptvq_gguf_check(const gptvq_model *model, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  const struct family *family = find_family(model);
  if (family == NULL) return unsupported(model, model->arch->name, err);
  if (model->arch == &gptvq_arch_gemma2 &&
      (c->query_scalar != (double)c->head_dim || c->attention_cap == 0.0 || c->logit_cap == 0.0))
    return unsupported(model, "query_pre_attn_scalar is not head_dim, or a soft cap is null", err);
  if (c->rope.type == GPTVQ_ROPE_LONGROPE && model->arch != &gptvq_arch_phi3)
    return unsupported(model, "LongRoPE outside of Phi-3", err);
  if (c->rope.type == GPTVQ_ROPE_LLAMA3 && !find_family(model)->interleaved)
    return unsupported(model, "Llama 3's rope scaling in this family", err);
  if (c->rope.type == GPTVQ_ROPE_YARN && !is_plain_yarn(&c->rope))
    return unsupported(model, "YaRN with an attention_factor or a ramp of its own", err);
  return GPTVQ_OK;
}

/* ---- keys ---- */

typedef struct keys {
  gptvq_gguf *file;
  const char *name; /* of the architecture */
} keys;

static const char *key(const keys *k, const char *rest, char text[128]) {
  (void)snprintf(text, 128, "%s.%s", k->name, rest);
  return text;
}
static void put(const keys *k, const char *rest, size_t value) {
  char text[128];
  gptvq_gguf_u32(k->file, key(k, rest, text), (uint32_t)gptvq_min_size(value, UINT32_MAX));
}
static void put_real(const keys *k, const char *rest, double value) {
  char text[128];
  gptvq_gguf_f32(k->file, key(k, rest, text), (float)value);
}

static void put_rope(const keys *k, const gptvq_config *c) {
  char text[128];
  put(k, "rope.dimension_count", 2 * gptvq_rope_half(c, &c->rope));
  put_real(k, "rope.freq_base", c->rope.theta);
  if (c->rope.type == GPTVQ_ROPE_LINEAR) {
    gptvq_gguf_text(k->file, key(k, "rope.scaling.type", text), "linear", 6);
    put_real(k, "rope.scaling.factor", c->rope.factor);
  } else if (c->rope.type == GPTVQ_ROPE_YARN) {
    gptvq_gguf_text(k->file, key(k, "rope.scaling.type", text), "yarn", 4);
    put_real(k, "rope.scaling.factor", c->rope.factor);
    put(k, "rope.scaling.original_context_length", c->rope.original_max_positions);
    put_real(k, "rope.scaling.yarn_beta_fast", c->rope.beta_fast);
    put_real(k, "rope.scaling.yarn_beta_slow", c->rope.beta_slow);
  } else if (c->rope.type == GPTVQ_ROPE_LONGROPE) {
    put(k, "rope.scaling.original_context_length", c->rope.original_max_positions);
    put_real(k, "rope.scaling.attn_factor", gptvq_rope_magnitude(&c->rope));
  }
}

void gptvq_gguf_config(gptvq_gguf *file, const gptvq_model *model, const char *name) {
  const gptvq_config *c = &model->config;
  const keys k = {file, find_family(model)->name};
  size_t positions = c->max_positions;
  /* llama.cpp knows no window in these: where it would make no difference is how far it is right */
  if (slides(c) && model->arch != &gptvq_arch_gemma2)
    positions = gptvq_min_size(positions, c->sliding_window);
  gptvq_gguf_text(file, "general.architecture", k.name, strlen(k.name));
  gptvq_gguf_text(file, "general.type", "model", 5);
  gptvq_gguf_text(file, "general.name", name, strlen(name));
  put(&k, "context_length", positions);
  put(&k, "embedding_length", c->hidden);
  put(&k, "block_count", c->layers);
  put(&k, "feed_forward_length", c->intermediate);
  put(&k, "attention.head_count", c->heads);
  put(&k, "attention.head_count_kv", c->kv_heads);
  put(&k, "attention.key_length", c->head_dim);
  put(&k, "attention.value_length", c->head_dim);
  put_real(&k, "attention.layer_norm_rms_epsilon", c->rms_norm_eps);
  put(&k, "vocab_size", c->vocab);
  put_rope(&k, c);
  if (c->experts > 0) {
    put(&k, "expert_count", c->experts);
    put(&k, "expert_used_count", c->experts_per_token);
  }
  if (model->arch == &gptvq_arch_granite) {
    put_real(&k, "attention.scale", 1.0 / sqrt(c->query_scalar));
    put_real(&k, "embedding_scale", c->embedding_scale);
    put_real(&k, "residual_scale", c->residual_scale);
    put_real(&k, "logit_scale", 1.0 / c->logit_scale);
  }
  if (model->arch == &gptvq_arch_phi3) put(&k, "attention.sliding_window", 0); /* it asks for the key */
  if (model->arch == &gptvq_arch_gemma2) {
    put(&k, "attention.sliding_window", c->sliding_window);
    put_real(&k, "attn_logit_softcapping", c->attention_cap);
    put_real(&k, "final_logit_softcapping", c->logit_cap);
  }
}

/* ---- tensors ---- */

static gptvq_gguf_tensor *add(gptvq_gguf_tensors *list) { return &list->items[list->count++]; }

static gptvq_gguf_tensor *add_values(gptvq_gguf_tensors *list, const char *name, const float *values,
                                     size_t n) {
  gptvq_gguf_tensor *t = add(list);
  *t = (gptvq_gguf_tensor){.values = values, .cols = n};
  (void)snprintf(t->name, sizeof t->name, "%s", name);
  return t;
}

static gptvq_gguf_tensor *add_linear(gptvq_gguf_tensors *list, const char *name, const gptvq_linear *linear) {
  gptvq_gguf_tensor *t = add(list);
  *t = (gptvq_gguf_tensor){.linear = linear, .rows = linear->rows, .cols = linear->cols};
  (void)snprintf(t->name, sizeof t->name, "%.55s.weight", name);
  return t;
}

static void add_input(gptvq_gguf_tensors *list, const gptvq_model *model, const gptvq_block *block,
                      gptvq_block_input input) {
  const gptvq_linear_group group = gptvq_input_readers(block, input, 0);
  for (size_t part = 0; part < group.count; part++) {
    char name[48];
    const gptvq_linear *linear = &block->linears[group.linear[part]];
    size_t experts = gptvq_input_count(block, input) > 1 ? block->mlp_count : 0;
    (void)snprintf(name, sizeof name, "blk.%zu.%s%s", block->index, linear_name(input, group.count, part),
                   experts > 0 ? "_exps" : "");
    gptvq_gguf_tensor *t = add_linear(list, name, linear);
    if (input == GPTVQ_INPUT_QKV && part < 2 && find_family(model)->interleaved)
      t->head_dim = model->config.head_dim;
    if (experts > 0) {
      t->linear = NULL;
      t->block = block;
      t->input = input;
      t->part = part;
      t->experts = experts;
    } else if (linear->bias != NULL) {
      char bias[64];
      (void)snprintf(bias, sizeof bias, "%s.bias", name);
      add_values(list, bias, linear->bias, linear->rows)->head_dim = t->head_dim;
    }
  }
}

static void add_block(gptvq_gguf_tensors *list, const gptvq_model *model, const gptvq_block *block) {
  char name[64];
  for (gptvq_norm_place place = 0; place < GPTVQ_NORMS; place++) {
    if (block->norms[place] == NULL) continue;
    (void)snprintf(name, sizeof name, "blk.%zu.%s.weight", block->index, norm_names[place]);
    add_values(list, name, block->norms[place], gptvq_norm_size(model, place));
  }
  for (gptvq_block_input input = 0; input < GPTVQ_INPUTS; input++) add_input(list, model, block, input);
  if (block->mlp_count > 1) {
    (void)snprintf(name, sizeof name, "blk.%zu.ffn_gate_inp", block->index);
    add_linear(list, name, &block->router);
  }
}

/* "Llama 3" scaling and LongRoPE go into the file as what each frequency is divided by. */
static gptvq_status add_rope(gptvq_gguf_tensors *list, const gptvq_model *model, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  size_t half = gptvq_rope_half(c, &c->rope);
  if (c->rope.type != GPTVQ_ROPE_LLAMA3 && c->rope.type != GPTVQ_ROPE_LONGROPE) return GPTVQ_OK;
  list->rope_factors = gptvq_alloc(2 * half, sizeof *list->rope_factors);
  if (list->rope_factors == NULL)
    return gptvq_fail_memory(err, "rope factors", gptvq_saturated_size(half, 8));
  for (size_t i = 0; i < half; i++) {
    double plain = pow(c->rope.theta, -(double)i / (double)half);
    for (size_t far = 0; far < 2; far++)
      list->rope_factors[far * half + i] =
          (float)(plain / gptvq_rope_frequency(c, &c->rope, i, far == 0 ? 1 : SIZE_MAX));
  }
  if (c->rope.type == GPTVQ_ROPE_LLAMA3) {
    add_values(list, "rope_freqs.weight", list->rope_factors, half);
  } else {
    add_values(list, "rope_factors_short.weight", list->rope_factors, half);
    add_values(list, "rope_factors_long.weight", list->rope_factors + half, half);
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_gguf_list(const gptvq_model *model, gptvq_gguf_tensors *out, gptvq_error *err) {
  enum { OUTSIDE = 5, PER_BLOCK = GPTVQ_NORMS + 2 * GPTVQ_MAX_PARTS * GPTVQ_INPUTS + 1 };
  *out = (gptvq_gguf_tensors){.items = NULL};
  out->items = gptvq_alloc_zero(model->config.layers * PER_BLOCK + OUTSIDE, sizeof *out->items);
  if (out->items == NULL)
    return gptvq_fail_memory(err, "the tensor list",
                             gptvq_saturated_size(model->config.layers, PER_BLOCK * sizeof *out->items));
  add_linear(out, "token_embd", &model->embedding);
  GPTVQ_TRY(add_rope(out, model, err));
  for (size_t b = 0; b < model->config.layers; b++) add_block(out, model, &model->blocks[b]);
  add_values(out, "output_norm.weight", model->final_norm, model->config.hidden);
  if (!model->config.tie_embeddings) add_linear(out, "output", &model->head);
  return GPTVQ_OK;
}

void gptvq_gguf_tensors_release(gptvq_gguf_tensors *tensors) {
  free(tensors->items);
  free(tensors->rope_factors);
}

const gptvq_linear *gptvq_gguf_linear(const gptvq_gguf_tensor *tensor, size_t expert) {
  if (tensor->linear != NULL) return tensor->linear;
  const gptvq_linear_group group = gptvq_input_readers(tensor->block, tensor->input, expert);
  return &tensor->block->linears[group.linear[tensor->part]];
}
