/* Tensors that hold all experts of a layer, as one tensor an expert. */
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "checkpoint/checkpoint_internal.h"

#include <stdio.h>
#include <string.h>

/* What the numbers of an expert look like; rows of gate and up alternate in all but the first. */
typedef enum form {
  STACKED,    /* [rows, cols], those of gate above those of up: where they lie is fine */
  TRANSPOSED, /* [cols, rows] */
  VECTOR,     /* [rows] */
  MXFP4,      /* [rows, cols / 32, 16]: two e2m1 numbers a byte, the first in the low half */
  SCALES      /* [rows, cols / 32]: powers of two, plus 127, of the blocks of 32 numbers */
} form;

/* A tensor of all experts: what it is called, and the parts that it becomes in each expert. */
typedef struct fused {
  gptvq_experts_layout layout;
  form form;
  size_t rank;
  const char *ending, *parts[2];
} fused;
static const fused kinds[] = {
    {GPTVQ_EXPERTS_STACKED, STACKED, 3, ".experts.gate_up_proj", {"gate_proj.weight", "up_proj.weight"}},
    {GPTVQ_EXPERTS_STACKED, STACKED, 3, ".experts.down_proj", {"down_proj.weight", NULL}},
    {GPTVQ_EXPERTS_WOVEN, TRANSPOSED, 3, ".experts.gate_up_proj", {"gate_proj.weight", "up_proj.weight"}},
    {GPTVQ_EXPERTS_WOVEN, TRANSPOSED, 3, ".experts.down_proj", {"down_proj.weight", NULL}},
    {GPTVQ_EXPERTS_WOVEN, VECTOR, 2, ".experts.gate_up_proj_bias", {"gate_proj.bias", "up_proj.bias"}},
    {GPTVQ_EXPERTS_WOVEN, VECTOR, 2, ".experts.down_proj_bias", {"down_proj.bias", NULL}},
    {GPTVQ_EXPERTS_WOVEN, MXFP4, 4, ".experts.gate_up_proj_blocks", {"gate_proj.weight", "up_proj.weight"}},
    {GPTVQ_EXPERTS_WOVEN, MXFP4, 4, ".experts.down_proj_blocks", {"down_proj.weight", NULL}},
    {GPTVQ_EXPERTS_WOVEN, SCALES, 3, ".experts.gate_up_proj_scales", {NULL, NULL}},
    {GPTVQ_EXPERTS_WOVEN, SCALES, 3, ".experts.down_proj_scales", {NULL, NULL}},
};
enum { KINDS = sizeof kinds / sizeof kinds[0], BLOCK = 32, BLOCK_BYTES = 16 };

static const fused *kind_of(gptvq_experts_layout layout, const gptvq_tensor *tensor) {
  const size_t length = strlen(tensor->name);
  for (size_t k = 0; k < KINDS; k++) {
    const size_t ending = strlen(kinds[k].ending);
    if (kinds[k].layout == layout && tensor->rank == kinds[k].rank && length > ending &&
        strcmp(tensor->name + length - ending, kinds[k].ending) == 0)
      return &kinds[k];
  }
  return NULL;
}

static size_t part_count(const fused *kind) {
  return (kind->parts[0] != NULL ? 1u : 0u) + (kind->parts[1] != NULL ? 1u : 0u);
}

/* "PREFIX.experts." of a tensor's name, its length */
static size_t stem(const gptvq_tensor *tensor, const fused *kind) {
  return strlen(tensor->name) - strlen(kind->ending) + strlen(".experts.");
}

/* Rows of gate and up together, or of down; columns. */
static void sides(const gptvq_tensor *tensor, const fused *kind, size_t *rows, size_t *cols) {
  *rows = tensor->dims[kind->form == TRANSPOSED ? 2 : 1];
  *cols = kind->form == STACKED      ? tensor->dims[2]
          : kind->form == TRANSPOSED ? tensor->dims[1]
          : kind->form == MXFP4      ? tensor->dims[2] * BLOCK
                                     : 1;
}

static size_t value_bytes(const gptvq_tensor *tensor, const fused *kind) {
  return gptvq_tensor_type_size(kind->form == MXFP4 ? GPTVQ_T_BF16 : tensor->type);
}

enum { NAME_REST = 48 }; /* an expert's number and the longest part */

typedef struct room {
  gptvq_tensor *tensors;
  size_t count, room;
  char *names, *values;
  size_t name_bytes, value_bytes;
} room;

/* A tensor of all experts being taken apart. */
typedef struct split {
  const gptvq_tensor *tensor, *scales;
  const fused *kind;
  size_t rows, cols, part_bytes;
  char *values; /* of all parts of all experts, one after the other; NULL where they lie in the file */
} split;

static float e2m1(unsigned code) {
  static const float values[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  return (code & 8u) != 0 ? -values[code & 7u] : values[code & 7u];
}

/* 2^(code − 127); what the codes 255 and 254 make too large is not finite in bf16 either. */
static float e8m0(uint8_t code) { return gptvq_bits_float(code == 0 ? 0x00400000u : (uint32_t)code << 23); }

static void fill_mxfp4(const split *s, size_t expert, size_t row, char *to) {
  const size_t blocks = s->cols / BLOCK, at = (expert * s->tensor->dims[1] + row) * blocks;
  const uint8_t *codes = s->tensor->data + at * BLOCK_BYTES, *scales = s->scales->data + at;
  for (size_t i = 0; i < s->cols; i++) {
    const unsigned code = (codes[i / 2] >> (i % 2 * 4)) & 15u;
    const uint16_t value = gptvq_float_to_bf16(e2m1(code) * e8m0(scales[i / BLOCK]));
    memcpy(to + i * sizeof value, &value, sizeof value);
  }
}

/* Items are (expert, part). */
static void fill(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const split *s = context;
  const size_t parts = part_count(s->kind), size = value_bytes(s->tensor, s->kind), rows = s->rows / parts;
  for (size_t item = begin; item < end; item++) {
    const size_t expert = item / parts, part = item % parts;
    const uint8_t *from = s->tensor->data + expert * s->rows * s->cols * size;
    char *to = s->values + item * s->part_bytes;
    for (size_t r = 0; r < rows; r++) {
      const size_t row = r * parts + part;
      char *line = to + r * s->cols * size;
      if (s->kind->form == MXFP4) fill_mxfp4(s, expert, row, line);
      else /* of a vector the only column */
        for (size_t c = 0; c < s->cols; c++) memcpy(line + c * size, from + (c * s->rows + row) * size, size);
    }
  }
}

static void add_part(room *to, const split *s, size_t expert, size_t part) {
  const fused *kind = s->kind;
  const size_t parts = part_count(kind), number = expert * parts + part;
  char *name = to->names;
  to->names += 1 + snprintf(name, stem(s->tensor, kind) + NAME_REST, "%.*s%zu.%s", (int)stem(s->tensor, kind),
                            s->tensor->name, expert, kind->parts[part]);
  gptvq_tensor *added = &to->tensors[to->count++];
  *added = *s->tensor;
  added->name = name;
  added->type = kind->form == MXFP4 ? GPTVQ_T_BF16 : s->tensor->type;
  added->stored = kind->form == MXFP4 ? "mxfp4" : s->tensor->stored;
  added->rank = kind->form == VECTOR ? 1 : 2;
  added->dims[0] = s->rows / parts;
  added->dims[1] = s->cols;
  added->count = added->dims[0] * s->cols;
  added->bytes = s->part_bytes;
  added->file_bytes = s->tensor->file_bytes / s->tensor->dims[0] / parts;
  if (s->scales != NULL) added->file_bytes += s->scales->file_bytes / s->scales->dims[0] / parts;
  added->data = s->values != NULL ? (const uint8_t *)s->values + number * s->part_bytes
                                  : s->tensor->data + number * s->part_bytes;
}

/* *out for a tensor of all experts, checked; without memory for its values. */
static gptvq_status describe(const gptvq_checkpoint *checkpoint, const gptvq_tensor *tensor,
                             const fused *kind, split *out, gptvq_error *err) {
  *out = (split){.tensor = tensor, .kind = kind};
  if (part_count(kind) == 0) return GPTVQ_OK;
  sides(tensor, kind, &out->rows, &out->cols);
  const bool codes = kind->form == MXFP4;
  if (tensor->count == 0 || out->rows % part_count(kind) != 0 ||
      (codes && (tensor->type != GPTVQ_T_U8 || tensor->dims[3] != BLOCK_BYTES)) ||
      gptvq_tensor_type_size(tensor->type) == 0) {
    char shape[GPTVQ_SHAPE_TEXT];
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s of shape %s and type %s cannot be taken apart",
                      tensor->file, tensor->name, gptvq_shape_text(tensor->rank, tensor->dims, shape),
                      gptvq_tensor_type_name(tensor->type));
  }
  out->part_bytes = out->rows / part_count(kind) * out->cols * value_bytes(tensor, kind);
  if (!codes) return GPTVQ_OK;
  static const char ending[] = "scales";
  char name[512];
  const int length = (int)(strlen(tensor->name) - strlen("blocks"));
  (void)snprintf(name, sizeof name, "%.*s%s", length, tensor->name, ending);
  out->scales = gptvq_checkpoint_find(checkpoint, name);
  if (out->scales == NULL || out->scales->type != GPTVQ_T_U8 || out->scales->rank != 3 ||
      memcmp(out->scales->dims, tensor->dims, 3 * sizeof *tensor->dims) != 0)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s: tensor %s has no scales: %s is missing, or of another shape or type", tensor->file,
                      tensor->name, name);
  return GPTVQ_OK;
}

/* What the tensors become: how many there will be, bytes of new names and of values that lie nowhere yet. */
static gptvq_status measure(const gptvq_checkpoint *checkpoint, gptvq_experts_layout layout, room *to,
                            gptvq_error *err) {
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    const gptvq_tensor *tensor = &checkpoint->tensors[t];
    const fused *kind = kind_of(layout, tensor);
    split s;
    to->room++;
    if (kind == NULL) continue;
    GPTVQ_TRY(describe(checkpoint, tensor, kind, &s, err));
    const size_t parts = gptvq_saturated_size(tensor->dims[0], part_count(kind));
    to->room = gptvq_saturated_sum(to->room, parts);
    to->name_bytes =
        gptvq_saturated_sum(to->name_bytes, gptvq_saturated_size(parts, stem(tensor, kind) + NAME_REST));
    if (kind->form != STACKED)
      to->value_bytes = gptvq_saturated_sum(to->value_bytes, gptvq_saturated_size(parts, s.part_bytes));
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_checkpoint_check_names(const gptvq_checkpoint *checkpoint, gptvq_error *err) {
  for (size_t t = 1; t < checkpoint->tensor_count; t++)
    if (strcmp(checkpoint->tensors[t - 1].name, checkpoint->tensors[t].name) == 0)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s: tensor %s is there by itself and in a tensor of several matrices",
                        checkpoint->tensors[t].file, checkpoint->tensors[t].name);
  return GPTVQ_OK;
}

static gptvq_status take_apart(gptvq_checkpoint *checkpoint, gptvq_experts_layout layout, room *to,
                               gptvq_error *err) {
  char *values = to->values;
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    const gptvq_tensor *tensor = &checkpoint->tensors[t];
    const fused *kind = kind_of(layout, tensor);
    split s;
    if (kind == NULL) {
      to->tensors[to->count++] = *tensor;
      continue;
    }
    GPTVQ_TRY(describe(checkpoint, tensor, kind, &s, err));
    const size_t parts = part_count(kind), all = parts * tensor->dims[0];
    if (kind->form != STACKED && parts > 0) {
      s.values = values;
      values += all * s.part_bytes;
      gptvq_parallel_for(all, 1, fill, &s);
    }
    for (size_t i = 0; i < all; i++) add_part(to, &s, i / parts, i % parts);
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_checkpoint_split_experts(gptvq_checkpoint *checkpoint, gptvq_experts_layout layout,
                                            gptvq_error *err) {
  room to = {0};
  GPTVQ_TRY(measure(checkpoint, layout, &to, err));
  if (to.name_bytes == 0) return GPTVQ_OK;
  to.tensors = gptvq_alloc(to.room, sizeof *to.tensors);
  checkpoint->expert_names = to.names = gptvq_alloc(to.name_bytes, 1);
  if (to.value_bytes > 0) checkpoint->expert_values = to.values = gptvq_alloc(to.value_bytes, 1);
  if (to.tensors == NULL || to.names == NULL || (to.value_bytes > 0 && to.values == NULL)) {
    free(to.tensors);
    return gptvq_fail_memory(
        err, "tensors of experts",
        gptvq_saturated_sum(to.value_bytes, gptvq_saturated_size(to.room, sizeof *to.tensors)));
  }
  gptvq_status status = take_apart(checkpoint, layout, &to, err);
  if (status != GPTVQ_OK) {
    free(to.tensors);
    return status;
  }
  free(checkpoint->tensors);
  checkpoint->tensors = to.tensors;
  checkpoint->tensor_count = to.count;
  gptvq_checkpoint_sort(checkpoint);
  return gptvq_checkpoint_check_names(checkpoint, err);
}
