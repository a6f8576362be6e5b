/* Models of random weights: what speed is measured on when there is no room for the real files. */
#include "base/memory.h"
#include "base/random.h"
#include "checkpoint/names.h"
#include "checkpoint/output.h"
#include "model/arch/arch.h"
#include "quant/layer/layer.h"
#include "tools/bench.h"

#include <stdio.h>
#include <string.h>

/* What the config.json of a well-known model says. */
typedef struct figures {
  const char *name, *architecture, *type;
  size_t hidden, mlp, layers, heads, kv_heads, head_dim, vocab, positions;
  double theta, eps;
  bool tied;      /* the head is the embedding */
  size_t experts; /* of which two are used; 0: no mixture */
} figures;

#define LLAMA "LlamaForCausalLM", "llama"
#define MISTRAL "MistralForCausalLM", "mistral"
#define MIXTRAL "MixtralForCausalLM", "mixtral"
#define QWEN2 "Qwen2ForCausalLM", "qwen2"
#define PHI3 "Phi3ForCausalLM", "phi3"
static const figures known[] = {
    {"llama-2-7b", LLAMA, 4096, 11008, 32, 32, 32, 128, 32000, 4096, 1e4, 1e-5, false, 0},
    {"llama-2-13b", LLAMA, 5120, 13824, 40, 40, 40, 128, 32000, 4096, 1e4, 1e-5, false, 0},
    {"llama-2-70b", LLAMA, 8192, 28672, 80, 64, 8, 128, 32000, 4096, 1e4, 1e-5, false, 0},
    {"mistral-7b", MISTRAL, 4096, 14336, 32, 32, 8, 128, 32000, 32768, 1e4, 1e-5, false, 0},
    {"mixtral-8x7b", MIXTRAL, 4096, 14336, 32, 32, 8, 128, 32000, 32768, 1e6, 1e-5, false, 8},
    {"llama-3-8b", LLAMA, 4096, 14336, 32, 32, 8, 128, 128256, 8192, 5e5, 1e-5, false, 0},
    {"llama-3.2-1b", LLAMA, 2048, 8192, 16, 32, 8, 64, 128256, 131072, 5e5, 1e-5, true, 0},
    {"llama-3.2-3b", LLAMA, 3072, 8192, 28, 24, 8, 128, 128256, 131072, 5e5, 1e-5, true, 0},
    {"qwen2.5-0.5b", QWEN2, 896, 4864, 24, 14, 2, 64, 151936, 32768, 1e6, 1e-6, true, 0},
    {"qwen2.5-1.5b", QWEN2, 1536, 8960, 28, 12, 2, 128, 151936, 131072, 1e6, 1e-6, true, 0},
    {"qwen2.5-7b", QWEN2, 3584, 18944, 28, 28, 4, 128, 152064, 131072, 1e6, 1e-6, false, 0},
    {"phi-3-mini", PHI3, 3072, 8192, 32, 32, 32, 96, 32064, 4096, 1e4, 1e-5, false, 0},
    {"smollm2-135m", LLAMA, 576, 1536, 30, 9, 3, 64, 49152, 8192, 1e5, 1e-5, true, 0},
    {"smollm2-360m", LLAMA, 960, 2560, 32, 15, 5, 64, 49152, 8192, 1e5, 1e-5, true, 0},
    {"stories", LLAMA, 256, 768, 4, 8, 4, 32, 1024, 512, 1e4, 1e-5, false, 0},
};
enum { KNOWN = sizeof known / sizeof known[0], MAX_LINEARS = 32, CHUNK = 1 << 15 };

const char *const *gptvq_random_shapes(void) {
  static const char *names[KNOWN + 1];
  for (size_t i = 0; i < KNOWN; i++) names[i] = known[i].name;
  return names;
}

void gptvq_random_model_init(gptvq_random_model *model) {
  memset(model, 0, sizeof *model);
  model->shape = known[0].name;
  gptvq_quantize_options_init(&model->format);
  model->format.code = GPTVQ_CODE_VQ;
}

typedef struct linear_figures {
  char name[GPTVQ_TENSOR_NAME];
  size_t rows, cols;
  bool bias;
} linear_figures;

typedef struct job {
  const gptvq_random_model *model;
  gptvq_resolved format;
  const figures *shape;
  const gptvq_arch *arch;
  gptvq_output out;
  gptvq_st_writer *writer;
  uint64_t state, *chunk; /* [CHUNK] */
} job;

/* The linears of a block; returns how many. */
static size_t list_linears(const job *j, size_t layer, linear_figures list[MAX_LINEARS]) {
  const figures *f = j->shape;
  size_t q = f->heads * f->head_dim, kv = f->kv_heads * f->head_dim, count = 0;
  const size_t rows[GPTVQ_INPUTS][GPTVQ_MAX_PARTS] = {
      {q, kv, kv}, {f->hidden}, {f->mlp, f->mlp}, {f->hidden}};
  const size_t cols[GPTVQ_INPUTS] = {f->hidden, q, f->hidden, f->mlp};
  for (size_t e = 0; e < gptvq_max_size(f->experts, 1); e++)
    for (gptvq_block_input input = e == 0 ? GPTVQ_INPUT_QKV : GPTVQ_INPUT_GATE_UP; input < GPTVQ_INPUTS;
         input++)
      for (size_t part = 0, parts = gptvq_arch_parts(j->arch, input); part < parts; part++) {
        linear_figures *linear = &list[count++];
        linear->rows = rows[input][part];
        for (size_t i = 1; i < GPTVQ_MAX_PARTS && parts == 1; i++) linear->rows += rows[input][i]; /* fused */
        linear->cols = cols[input];
        linear->bias = j->arch->linears[input].bias == GPTVQ_BIAS_ALWAYS;
        gptvq_linear_name(j->arch, layer, input, part, e, linear->name);
      }
  return count;
}

/* Random bytes; for bf16 numbers: 0.008 to 0.031 of either sign. */
static gptvq_status write_random(job *j, size_t bytes, bool bf16, gptvq_error *err) {
  for (size_t size; bytes > 0; bytes -= size) {
    size = gptvq_min_size(bytes, CHUNK * sizeof *j->chunk);
    for (size_t i = 0; i < gptvq_ceil_div(size, sizeof *j->chunk); i++) {
      j->chunk[i] = gptvq_random(&j->state);
      if (bf16) j->chunk[i] = (j->chunk[i] & 0x80ff80ff80ff80ffu) | 0x3c003c003c003c00u;
    }
    GPTVQ_TRY(gptvq_st_writer_write(j->writer, j->chunk, size, err));
  }
  return GPTVQ_OK;
}

static gptvq_status write_ones(job *j, size_t count, gptvq_error *err) {
  static const uint16_t one = 0x3f80;
  for (size_t i = 0; i < count; i++) GPTVQ_TRY(gptvq_st_writer_write(j->writer, &one, sizeof one, err));
  return GPTVQ_OK;
}

static gptvq_status declare(job *j, const char *name, size_t rows, size_t cols, gptvq_error *err) {
  const size_t dims[2] = {rows, cols};
  return gptvq_st_writer_declare(j->writer, name, GPTVQ_T_BF16, cols > 0 ? 2 : 1, dims, err);
}

/* The arrays of one packed layer; all of them in one block that the caller frees. */
static gptvq_status fill_layer(job *j, const linear_figures *f, gptvq_packed *p, void **block,
                               gptvq_error *err) {
  gptvq_packed_sizes sizes;
  memset(p, 0, sizeof *p);
  *block = NULL;
  GPTVQ_TRY(gptvq_layer_shape(f->rows, f->cols, &j->format, &p->shape, err));
  p->shape.svd_rank = 0; /* the same speed: factored codebooks are multiplied out when a model is opened */
  gptvq_packed_measure(&p->shape, &sizes);
  bool vq = p->shape.kind != GPTVQ_PACKED_UNIFORM;
  size_t indices = gptvq_round_up(sizes.index_bytes, 64),
         codebooks = gptvq_round_up(sizes.codebook_bytes, 64);
  size_t blocks = gptvq_round_up(sizes.block_scale_bytes + sizes.zero_bytes + sizes.row_scale_bytes, 64);
  size_t scales = gptvq_max_size(sizes.codebook_scales, sizes.uniform_scales);
  size_t random = indices + codebooks + blocks,
         permutation = p->shape.permuted ? p->shape.cols * sizeof(uint32_t) : 0;
  uint8_t *at = gptvq_alloc(random + gptvq_round_up(2 * scales, 64) + permutation, 1);
  if (at == NULL) return gptvq_fail_memory(err, f->name, random);
  *block = at;
  for (size_t i = 0; i < random; i += sizeof(uint64_t)) {
    uint64_t word = gptvq_random(&j->state);
    if (i >= indices && i < indices + codebooks && vq && p->shape.codebook_bits == 16)
      word = (word & 0x83ff83ff83ff83ffu) | 0x3800380038003800u; /* fp16 of 0.5 to 1 */
    memcpy(at + i, &word, sizeof word);
  }
  for (size_t i = indices; p->shape.kind == GPTVQ_PACKED_TRELLIS && i < indices + codebooks; i++)
    at[i] = (uint8_t)(at[i] % 127 - 63); /* sums of two are within ±127 */
  p->indices = at;
  uint16_t *numbers = (uint16_t *)(void *)(at + random);
  for (size_t i = 0; i < scales; i++) numbers[i] = vq ? 0x3d4d : 0x211f; /* 0.05 as bf16, 0.01 as fp16 */
  if (vq) {
    static const float range[2] = {-2.0f, 0.125f};
    p->codebooks = at + indices;
    p->codebook_scales = numbers;
    if (sizes.row_scale_bytes > 0) { /* scales of 1 to 2 */
      uint8_t *row_scales = at + indices + codebooks;
      for (size_t i = 0; i < sizes.row_scale_bytes; i++) row_scales[i] = (uint8_t)(128 + row_scales[i] % 16);
      p->row_scales = row_scales;
    }
    if (p->shape.scale_block != 0) {
      p->block_scales = at + indices + codebooks;
      p->block_scale_range = range;
    }
  } else {
    p->scales = numbers;
    p->zeros = at + indices + codebooks;
  }
  if (permutation != 0) {
    uint32_t *order = (uint32_t *)(void *)(at + random + gptvq_round_up(2 * scales, 64));
    for (size_t i = 0; i < f->cols; i++) {
      size_t other = gptvq_random_below(&j->state, i + 1);
      if (other != i) order[i] = order[other];
      order[other] = (uint32_t)i;
    }
    p->permutation = order;
  }
  return GPTVQ_OK;
}

static gptvq_status declare_suffixed(job *j, const char *name, const char *suffix, size_t rows, size_t cols,
                                     gptvq_error *err) {
  char full[GPTVQ_TENSOR_NAME + 16];
  (void)snprintf(full, sizeof full, "%.*s.%s", GPTVQ_TENSOR_NAME - 1, name, suffix);
  return declare(j, full, rows, cols, err);
}

static gptvq_status write_tensors(job *j, size_t layer, const linear_figures *linears, gptvq_packed *packed,
                                  size_t count, gptvq_error *err) {
  static const gptvq_norm_place norms[] = {GPTVQ_NORM_ATTENTION, GPTVQ_NORM_MLP};
  const size_t hidden = j->shape->hidden, experts = j->shape->experts;
  char name[GPTVQ_TENSOR_NAME];
  for (size_t i = 0; i < count; i++) {
    const linear_figures *f = &linears[i];
    if (j->model->dense) GPTVQ_TRY(declare_suffixed(j, f->name, "weight", f->rows, f->cols, err));
    else GPTVQ_TRY(gptvq_packed_declare(j->writer, f->name, &packed[i], "gptvq", 0.0, err));
    if (f->bias) GPTVQ_TRY(declare_suffixed(j, f->name, "bias", f->rows, 0, err));
  }
  if (experts > 0)
    GPTVQ_TRY(declare(j, gptvq_block_name(layer, j->arch->router, ".weight", name), experts, hidden, err));
  for (size_t i = 0; i < 2; i++)
    GPTVQ_TRY(declare(j, gptvq_block_name(layer, j->arch->norms[norms[i]], ".weight", name), hidden, 0, err));
  for (size_t i = 0; i < count; i++) {
    const linear_figures *f = &linears[i];
    if (j->model->dense) GPTVQ_TRY(write_random(j, 2 * f->rows * f->cols, true, err));
    else GPTVQ_TRY(gptvq_packed_write(j->writer, &packed[i], err));
    if (f->bias) GPTVQ_TRY(write_random(j, 2 * f->rows, true, err));
  }
  if (experts > 0) GPTVQ_TRY(write_random(j, 2 * experts * hidden, true, err));
  return write_ones(j, 2 * hidden, err);
}

static gptvq_status end_shard(job *j, gptvq_status status, gptvq_error *err) {
  gptvq_st_writer *writer = j->writer;
  j->writer = NULL;
  if (status == GPTVQ_OK) return gptvq_st_writer_commit(writer, err);
  gptvq_st_writer_abort(writer);
  return status;
}

static gptvq_status begin_shard(job *j, size_t shard, size_t layers, gptvq_error *err) {
  char name[GPTVQ_SHARD_NAME], path[GPTVQ_PATH_MAX];
  gptvq_shard_name(shard, layers + 1, name);
  GPTVQ_TRY(gptvq_output_path(&j->out, name, path, err));
  return gptvq_st_writer_create(path, &j->writer, err);
}

static gptvq_status write_block(job *j, size_t layer, size_t layers, gptvq_error *err) {
  linear_figures linears[MAX_LINEARS];
  gptvq_packed packed[MAX_LINEARS];
  void *memory[MAX_LINEARS] = {NULL};
  gptvq_status status = GPTVQ_OK;
  size_t count = list_linears(j, layer, linears);
  for (size_t i = 0; i < count && status == GPTVQ_OK && !j->model->dense; i++)
    status = fill_layer(j, &linears[i], &packed[i], &memory[i], err);
  if (status == GPTVQ_OK) status = begin_shard(j, layer, layers, err);
  if (status == GPTVQ_OK) status = end_shard(j, write_tensors(j, layer, linears, packed, count, err), err);
  for (size_t i = 0; i < count; i++) free(memory[i]);
  return status;
}

static gptvq_status write_rest(job *j, gptvq_error *err) {
  size_t vocab = j->shape->vocab, hidden = j->shape->hidden, matrices = j->shape->tied ? 1 : 2;
  GPTVQ_TRY(declare(j, GPTVQ_NAME_EMBEDDING ".weight", vocab, hidden, err));
  if (!j->shape->tied) GPTVQ_TRY(declare(j, GPTVQ_NAME_HEAD ".weight", vocab, hidden, err));
  GPTVQ_TRY(declare(j, GPTVQ_NAME_FINAL_NORM ".weight", hidden, 0, err));
  GPTVQ_TRY(write_random(j, matrices * 2 * vocab * hidden, true, err)); /* they follow each other */
  return write_ones(j, hidden, err);
}

static gptvq_status write_config(const job *j, size_t layers, gptvq_error *err) {
  const figures *f = j->shape;
  char path[GPTVQ_PATH_MAX];
  GPTVQ_TRY(gptvq_output_path(&j->out, "config.json", path, err));
  json_t *config = json_pack(
      "{s:[s], s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:b, s:n, s:i, s:i, s:s}",
      "architectures", f->architecture, "model_type", f->type, "hidden_act", "silu", "hidden_size",
      (json_int_t)f->hidden, "intermediate_size", (json_int_t)f->mlp, "num_hidden_layers", (json_int_t)layers,
      "num_attention_heads", (json_int_t)f->heads, "num_key_value_heads", (json_int_t)f->kv_heads, "head_dim",
      (json_int_t)f->head_dim, "vocab_size", (json_int_t)f->vocab, "max_position_embeddings",
      (json_int_t)f->positions, "rms_norm_eps", f->eps, "rope_theta", f->theta, "tie_word_embeddings",
      (int)f->tied, "sliding_window", "bos_token_id", 1, "eos_token_id", 2, "torch_dtype", "bfloat16");
  bool fine = config != NULL;
  if (f->experts > 0)
    fine = fine &&
           json_object_set_new(config, "num_local_experts", json_integer((json_int_t)f->experts)) == 0 &&
           json_object_set_new(config, "num_experts_per_tok", json_integer(2)) == 0;
  if (!j->model->dense)
    fine = fine && json_object_set_new(config, "quantization_config",
                                       json_pack("{s:s, s:i}", "quant_method", "gptvq", "version", 1)) == 0;
  gptvq_status status = fine ? gptvq_write_json(path, config, err) : gptvq_fail_memory(err, path, 0);
  json_decref(config);
  return status;
}

static gptvq_status write_all(job *j, gptvq_error *err) {
  size_t layers = j->model->layers != 0 ? j->model->layers : j->shape->layers;
  GPTVQ_TRY(write_config(j, layers, err));
  for (size_t i = 0; i < layers; i++) GPTVQ_TRY(write_block(j, i, layers, err));
  GPTVQ_TRY(begin_shard(j, layers, layers, err));
  GPTVQ_TRY(end_shard(j, write_rest(j, err), err));
  GPTVQ_TRY(gptvq_write_numbered_index(j->out.work, layers + 1, layers + 1, err));
  return gptvq_output_publish(&j->out, NULL, err);
}

gptvq_status gptvq_write_random_model(const gptvq_random_model *model, const char *out_dir,
                                      gptvq_error *err) {
  job j = {.model = model, .state = model->seed};
  for (size_t i = 0; i < KNOWN && j.shape == NULL; i++)
    if (strcmp(known[i].name, model->shape) == 0) j.shape = &known[i];
  if (j.shape == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "there is no model shape %s", model->shape);
  j.arch = gptvq_find_arch(j.shape->architecture);
  if (!model->dense) GPTVQ_TRY(gptvq_resolve(&model->format, &j.format, err));
  gptvq_status status = gptvq_output_check(out_dir, NULL, model->force, 0, &j.out, err);
  if (status == GPTVQ_OK) status = gptvq_output_start(&j.out, "make-model", model->force, err);
  if (status == GPTVQ_OK) {
    j.chunk = gptvq_alloc(CHUNK, sizeof *j.chunk);
    status = j.chunk == NULL ? gptvq_fail_memory(err, out_dir, CHUNK * sizeof *j.chunk) : write_all(&j, err);
  }
  if (status != GPTVQ_OK) gptvq_output_discard(&j.out);
  free(j.chunk);
  gptvq_output_release(&j.out);
  return status;
}
