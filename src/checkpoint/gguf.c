#include "checkpoint/gguf.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "checkpoint/names.h"
#include "gguf/config.h"

#include <stdio.h>
#include <string.h>

/* Names inside of a block; behind them stands ".weight" or ".bias". */
typedef enum role { PLAIN, NORM, QUERY_OR_KEY, EXPERTS } role;
static const struct name {
  const char *from, *to;
  role role;
} names[] = {
    {"attn_norm", "input_layernorm", NORM},
    {"attn_q_norm", "self_attn.q_norm", NORM},
    {"attn_k_norm", "self_attn.k_norm", NORM},
    {"post_attention_norm", "post_attention_layernorm", NORM},
    {"post_ffw_norm", "post_feedforward_layernorm", NORM},
    {"attn_q", "self_attn.q_proj", QUERY_OR_KEY},
    {"attn_k", "self_attn.k_proj", QUERY_OR_KEY},
    {"attn_v", "self_attn.v_proj", PLAIN},
    {"attn_qkv", "self_attn.qkv_proj", PLAIN},
    {"attn_output", "self_attn.o_proj", PLAIN},
    {"ffn_gate", "mlp.gate_proj", PLAIN},
    {"ffn_down", "mlp.down_proj", PLAIN},
    {"ffn_gate_inp", "block_sparse_moe.gate", PLAIN},
    {"ffn_gate_exps", "w1", EXPERTS},
    {"ffn_down_exps", "w2", EXPERTS},
    {"ffn_up_exps", "w3", EXPERTS},
};
static const struct name ffn_norm[2] = {{"ffn_norm", "post_attention_layernorm", NORM},
                                        {"ffn_norm", "pre_feedforward_layernorm", NORM}},
                         ffn_up[2] = {{"ffn_up", "mlp.up_proj", PLAIN},
                                      {"ffn_up", "mlp.gate_up_proj", PLAIN}}; /* Phi-3 */

/* Where a tensor goes, and what becomes of its values. */
typedef struct plan {
  const gptvq_gguf_entry *entry;
  gptvq_tensor_type type;
  size_t experts;  /* 0: it is one tensor */
  size_t head_dim; /* not 0: rows of a head pair by pair become half by half */
  float offset;    /* taken away */
  bool own;        /* the values are made, not those in the file */
  char name[96];   /* "": that of the entry; of experts up to their number */
  const char *part;
} plan;

typedef struct job {
  gptvq_checkpoint *checkpoint;
  const gptvq_gguf_family *family;
  size_t experts, head_dim;
  gptvq_tensor_type wanted; /* of F32 values that it holds */
  plan *plans;
  size_t count, tensors, name_bytes, value_bytes;
  gptvq_error *err;
} job;

static size_t config_size(const gptvq_checkpoint *checkpoint, const char *key) {
  return (size_t)json_integer_value(json_object_get(checkpoint->config, key));
}

static gptvq_tensor_type type_of(gptvq_ggml_type type) {
  return type == GPTVQ_GGML_F32 ? GPTVQ_T_F32 : type == GPTVQ_GGML_BF16 ? GPTVQ_T_BF16 : GPTVQ_T_F16;
}

static bool is_floating(gptvq_ggml_type type) {
  return type == GPTVQ_GGML_F32 || type == GPTVQ_GGML_F16 || type == GPTVQ_GGML_BF16;
}

/* These are part of the configuration. */
static bool is_rope(const char *name) {
  return strcmp(name, "rope_freqs.weight") == 0 || strncmp(name, "rope_factors_", 13) == 0;
}

static const struct name *find_name(const job *j, const char *from, size_t size) {
  const bool phi3 = strcmp(j->family->model_type, "phi3") == 0;
  if (size == 8 && memcmp(from, "ffn_norm", 8) == 0) return &ffn_norm[j->family->norms_around];
  if (size == 6 && memcmp(from, "ffn_up", 6) == 0) return &ffn_up[phi3];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strlen(names[i].from) == size && memcmp(names[i].from, from, size) == 0) return &names[i];
  return NULL;
}

/* blk.N.FROM.weight */
static gptvq_status plan_in_block(job *j, plan *p) {
  const char *from = p->entry->name, *end = strrchr(from, '.');
  const size_t digits = strspn(from + 4, "0123456789");
  if (digits == 0 || digits > 6 || from[4 + digits] != '.' || end <= from + 4 + digits) return GPTVQ_OK;
  const char *rest = from + 5 + digits;
  const struct name *name = find_name(j, rest, (size_t)(end - rest));
  if (name == NULL || strlen(end) > 16) return GPTVQ_OK;
  if (name->role == EXPERTS) {
    if (p->entry->rank != 3 || p->entry->dims[0] != j->experts || strcmp(end, ".weight") != 0)
      return gptvq_fail(j->err, GPTVQ_ERROR_FORMAT, "%s: tensor %s is not a matrix for each of %zu experts",
                        j->checkpoint->folder, from, j->experts);
    p->experts = j->experts;
    p->part = name->to;
    (void)snprintf(p->name, sizeof p->name, GPTVQ_NAME_BLOCKS "%.*s.block_sparse_moe.experts", (int)digits,
                   from + 4);
    return GPTVQ_OK;
  }
  (void)snprintf(p->name, sizeof p->name, GPTVQ_NAME_BLOCKS "%.*s.%s%s", (int)digits, from + 4, name->to,
                 end);
  if (name->role == NORM) p->offset = j->family->norm_offset;
  if (name->role == QUERY_OR_KEY && j->family->interleaved) {
    p->head_dim = j->head_dim;
    if (p->entry->rank == 1 && !is_floating(p->entry->type)) /* rows of one value are no whole blocks */
      return gptvq_fail(j->err, GPTVQ_ERROR_FORMAT, "%s: tensor %s is a vector of type %s, which is not read",
                        j->checkpoint->folder, from, gptvq_ggml_name(p->entry->type));
    if (p->head_dim % 2 != 0 || p->entry->dims[0] % p->head_dim != 0)
      return gptvq_fail(j->err, GPTVQ_ERROR_FORMAT, "%s: tensor %s has %zu rows, which are no heads of %zu",
                        j->checkpoint->folder, from, p->entry->dims[0], p->head_dim);
  }
  return GPTVQ_OK;
}

static gptvq_status plan_name(job *j, plan *p) {
  static const char *const outside[][2] = {{"token_embd.weight", GPTVQ_NAME_EMBEDDING ".weight"},
                                           {"output_norm.weight", GPTVQ_NAME_FINAL_NORM ".weight"},
                                           {"output.weight", GPTVQ_NAME_HEAD ".weight"}};
  for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
    if (strcmp(p->entry->name, outside[i][0]) == 0) {
      (void)snprintf(p->name, sizeof p->name, "%s", outside[i][1]);
      p->offset = i == 1 ? j->family->norm_offset : 0.0f;
      return GPTVQ_OK;
    }
  return strncmp(p->entry->name, "blk.", 4) == 0 ? plan_in_block(j, p) : GPTVQ_OK;
}

static uint16_t narrow(gptvq_tensor_type type, float value) {
  return type == GPTVQ_T_F16 ? gptvq_float_to_fp16(value) : gptvq_float_to_bf16(value);
}
static float widen(gptvq_tensor_type type, uint16_t value) {
  return type == GPTVQ_T_F16 ? gptvq_fp16_to_float(value) : gptvq_bf16_to_float(value);
}

static bool holds_all(const plan *p, gptvq_tensor_type type) {
  for (size_t i = 0; i < p->entry->count; i++) {
    float value;
    memcpy(&value, p->entry->data + i * sizeof value, sizeof value);
    value -= p->offset;
    if (!(widen(type, narrow(type, value)) == value)) return false;
  }
  return true;
}

static gptvq_status make_plans(job *j) {
  const gptvq_gguf_reader *reader = &j->checkpoint->gguf;
  for (size_t i = 0; i < reader->entry_count; i++) {
    if (is_rope(reader->entries[i].name)) continue;
    plan *p = &j->plans[j->count++];
    *p = (plan){.entry = &reader->entries[i], .type = type_of(reader->entries[i].type)};
    GPTVQ_TRY(plan_name(j, p));
    if (p->type == GPTVQ_T_F32 && j->wanted != GPTVQ_T_F32 && holds_all(p, j->wanted)) p->type = j->wanted;
    p->own = !is_floating(p->entry->type) || p->head_dim > 0 || p->offset != 0.0f ||
             p->type != type_of(p->entry->type);
    const size_t copies = gptvq_max_size(p->experts, 1);
    j->tensors += copies;
    j->name_bytes += copies * (sizeof p->name + 32) + strlen(p->entry->name) + 1;
    if (p->own) /* counts were checked against the file's size */
      j->value_bytes = gptvq_saturated_sum(
          j->value_bytes, gptvq_round_up(p->entry->count * gptvq_tensor_type_size(p->type), 64));
  }
  return GPTVQ_OK;
}

/* ---- values ---- */

typedef struct panel {
  const plan *plan;
  size_t cols;
  char *out;
} panel;

/* Which one of a head's rows, half by half, comes from the i-th, pair by pair. */
static size_t target_of(size_t i, size_t head_dim) {
  if (head_dim == 0) return i;
  const size_t in_head = i % head_dim;
  return i - in_head + in_head / 2 + (in_head % 2) * (head_dim / 2);
}

static void convert_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const panel *p = context;
  const gptvq_ggml_type from = p->plan->entry->type;
  const size_t row = gptvq_ggml_row_bytes(from, p->cols), width = gptvq_tensor_type_size(p->plan->type);
  size_t values = 1, bytes = 1;
  float block[256];
  (void)gptvq_ggml_block(from, &values, &bytes);
  for (size_t r = begin; r < end; r++) {
    const uint8_t *in = p->plan->entry->data + r * row;
    char *out = p->out + target_of(r, p->plan->head_dim) * p->cols * width;
    if (is_floating(from) && p->plan->offset == 0.0f && type_of(from) == p->plan->type) {
      memcpy(out, in, row);
      continue;
    }
    for (size_t c = 0; c < p->cols; c += values, in += bytes) {
      gptvq_ggml_decode(from, in, values, block);
      for (size_t i = 0; i < values; i++, out += width) {
        const float value = block[i] - p->plan->offset;
        const uint16_t half = width == 2 ? narrow(p->plan->type, value) : 0;
        if (width == 2) memcpy(out, &half, sizeof half);
        else memcpy(out, &value, sizeof value);
      }
    }
  }
}

static const uint8_t *convert(const plan *p, char *out) {
  enum { GRAIN = 16 };
  const gptvq_gguf_entry *entry = p->entry;
  /* a vector is rows of one value where it is put in order */
  panel work = {p, p->head_dim > 0 && entry->rank == 1 ? 1 : entry->dims[entry->rank - 1], out};
  gptvq_parallel_for(entry->count / work.cols, GRAIN, convert_rows, &work);
  return (const uint8_t *)out;
}

static void add_tensor(const job *j, const plan *p, const uint8_t *data, size_t expert, char **names_at) {
  gptvq_st_file *file = &j->checkpoint->files[0];
  gptvq_tensor *t = &file->tensors[file->count++];
  const gptvq_gguf_entry *entry = p->entry;
  const size_t copies = gptvq_max_size(p->experts, 1), outer = p->experts > 0 ? 1 : 0;
  *t = (gptvq_tensor){.name = *names_at,
                      .file = file->path,
                      .type = p->type,
                      .rank = entry->rank - outer,
                      .count = entry->count / copies,
                      .bytes = entry->count / copies * gptvq_tensor_type_size(p->type),
                      .stored = is_floating(entry->type) ? NULL : gptvq_ggml_name(entry->type),
                      .file_bytes = entry->bytes / copies};
  memcpy(t->dims, entry->dims + outer, t->rank * sizeof *t->dims);
  t->data = data + expert * t->bytes;
  const int size = p->experts > 0       ? sprintf(*names_at, "%s.%zu.%s.weight", p->name, expert, p->part)
                   : p->name[0] != '\0' ? sprintf(*names_at, "%s", p->name)
                                        : sprintf(*names_at, "%s", entry->name);
  *names_at += size + 1;
}

static gptvq_status make_tensors(job *j) {
  gptvq_checkpoint *checkpoint = j->checkpoint;
  gptvq_st_file *file = checkpoint->files;
  char *names_at = checkpoint->gguf_names = gptvq_alloc(j->name_bytes, 1);
  char *values = checkpoint->gguf_values = gptvq_alloc(j->value_bytes, 1);
  file->tensors = gptvq_alloc_zero(j->tensors, sizeof *file->tensors);
  if (names_at == NULL || file->tensors == NULL)
    return gptvq_fail_memory(j->err, "names of tensors", j->name_bytes);
  if (values == NULL) return gptvq_fail_memory(j->err, "tensors of a GGUF file as F16", j->value_bytes);
  for (size_t i = 0; i < j->count; i++) {
    const plan *p = &j->plans[i];
    const uint8_t *data = p->own ? convert(p, values) : p->entry->data;
    if (p->own) values += gptvq_round_up(p->entry->count * gptvq_tensor_type_size(p->type), 64);
    for (size_t e = 0; e < gptvq_max_size(p->experts, 1); e++) add_tensor(j, p, data, e, &names_at);
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_checkpoint_open_gguf(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  job j = {.checkpoint = checkpoint, .err = err};
  GPTVQ_TRY(gptvq_gguf_open(checkpoint->folder, &checkpoint->gguf, err));
  GPTVQ_TRY(gptvq_gguf_family_of(&checkpoint->gguf, &j.family, err));
  GPTVQ_TRY(gptvq_gguf_config_json(&checkpoint->gguf, &checkpoint->config, err));
  checkpoint->files = gptvq_alloc_zero(1, sizeof *checkpoint->files);
  if (checkpoint->files == NULL) return gptvq_fail_memory(err, checkpoint->folder, sizeof *checkpoint->files);
  checkpoint->file_count = 1;
  checkpoint->files->path = strdup(checkpoint->folder);
  checkpoint->files->header = json_object();
  j.plans = gptvq_alloc(checkpoint->gguf.entry_count, sizeof *j.plans);
  j.experts = config_size(checkpoint, "num_local_experts");
  j.head_dim = config_size(checkpoint, "head_dim");
  if (j.head_dim == 0)
    j.head_dim = config_size(checkpoint, "hidden_size") / config_size(checkpoint, "num_attention_heads");
  j.wanted = type_of(gptvq_gguf_find_entry(&checkpoint->gguf, "token_embd.weight")->type);
  gptvq_status status = GPTVQ_OK;
  if (j.plans == NULL || checkpoint->files->path == NULL || checkpoint->files->header == NULL)
    status = gptvq_fail_memory(err, checkpoint->folder,
                               gptvq_saturated_size(checkpoint->gguf.entry_count, sizeof *j.plans));
  if (status == GPTVQ_OK && j.head_dim == 0)
    status = gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: heads of no size", checkpoint->folder);
  if (status == GPTVQ_OK) status = make_plans(&j);
  if (status == GPTVQ_OK) status = make_tensors(&j);
  free(j.plans);
  return status;
}
