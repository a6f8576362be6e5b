/* Matrices of fp8 numbers with a scale for each of their blocks, as originals. */
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "checkpoint/checkpoint_internal.h"

#include <stdio.h>
#include <string.h>

enum { BLOCK = 128 };
static const char scale_ending[] = "_scale_inv";

/* E4M3 without infinities: sign, 4 bits of exponent (bias 7), 3 of mantissa; all ones are NaN. */
static float e4m3(uint8_t code) {
  const unsigned exponent = (code >> 3) & 15u, mantissa = code & 7u;
  const uint32_t sign = (uint32_t)(code & 0x80u) << 24;
  if ((code & 0x7fu) == 0x7fu) return gptvq_bits_float(0x7fc00000u);
  if (exponent == 0) return ((code & 0x80u) != 0 ? -1.0f : 1.0f) * (float)mantissa * 0x1p-9f;
  return gptvq_bits_float(sign | (exponent + 120u) << 23 | mantissa << 20);
}

/* A matrix and its scales. */
typedef struct fp8 {
  const gptvq_tensor *codes, *scales;
  size_t rows, cols, block_rows, block_cols;
  uint16_t *values; /* [rows × cols] bf16 */
} fp8;

static float scale_at(const gptvq_tensor *scales, size_t i) {
  float value;
  gptvq_dtype dtype = GPTVQ_F32;
  (void)gptvq_tensor_dtype(scales->type, &dtype);
  gptvq_to_float(dtype, scales->data + i * gptvq_dtype_size(dtype), 1, &value);
  return value;
}

static void fill_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const fp8 *m = context;
  const size_t across = gptvq_ceil_div(m->cols, m->block_cols);
  float numbers[256];
  for (unsigned code = 0; code < 256; code++) numbers[code] = e4m3((uint8_t)code);
  for (size_t r = begin; r < end; r++)
    for (size_t block = 0; block < across; block++) {
      const float scale = scale_at(m->scales, r / m->block_rows * across + block);
      const size_t last = gptvq_min_size((block + 1) * m->block_cols, m->cols);
      for (size_t c = block * m->block_cols; c < last; c++)
        m->values[r * m->cols + c] = gptvq_float_to_bf16(numbers[m->codes->data[r * m->cols + c]] * scale);
    }
}

/* weight_block_size of config.json; 128 x 128 where it does not say. */
static gptvq_status read_block(const gptvq_checkpoint *checkpoint, fp8 *m, gptvq_error *err) {
  const json_t *quantization = json_object_get(checkpoint->config, "quantization_config"),
               *block = json_object_get(quantization, "weight_block_size");
  const json_int_t sides[2] = {json_integer_value(json_array_get(block, 0)),
                               json_integer_value(json_array_get(block, 1))};
  m->block_rows = m->block_cols = BLOCK;
  if (block == NULL || json_is_null(block)) return GPTVQ_OK;
  if (json_array_size(block) != 2 || sides[0] < 1 || sides[1] < 1)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/config.json: quantization_config.weight_block_size is not two positive numbers",
                      checkpoint->folder);
  m->block_rows = (size_t)sides[0];
  m->block_cols = (size_t)sides[1];
  return GPTVQ_OK;
}

/* *found: it is a matrix of fp8 numbers; then *m is what it takes to read it, without memory for the values.
 */
static gptvq_status describe(const gptvq_checkpoint *checkpoint, const gptvq_tensor *tensor, fp8 *m,
                             bool *found, gptvq_error *err) {
  char name[512], has[GPTVQ_SHAPE_TEXT], wants[GPTVQ_SHAPE_TEXT];
  *found = tensor->type == GPTVQ_T_F8 && tensor->rank == 2 && tensor->count > 0;
  if (!*found) return GPTVQ_OK;
  (void)snprintf(name, sizeof name, "%s%s", tensor->name, scale_ending);
  m->codes = tensor;
  m->rows = tensor->dims[0];
  m->cols = tensor->dims[1];
  m->scales = gptvq_checkpoint_find(checkpoint, name);
  if (m->scales == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: tensor %s is fp8 without scales of its blocks: %s is missing; other kinds of fp8 "
                      "are not supported, give the model in bf16",
                      tensor->file, tensor->name, name);
  const size_t dims[2] = {gptvq_ceil_div(m->rows, m->block_rows), gptvq_ceil_div(m->cols, m->block_cols)};
  gptvq_dtype dtype;
  if (m->scales->rank == 2 && memcmp(m->scales->dims, dims, sizeof dims) == 0 &&
      gptvq_tensor_dtype(m->scales->type, &dtype))
    return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                    "%s: tensor %s is %s of %s, but blocks of %zu x %zu of the matrix take %s of F32 or BF16",
                    m->scales->file, m->scales->name, gptvq_tensor_type_name(m->scales->type),
                    gptvq_shape_text(m->scales->rank, m->scales->dims, has), m->block_rows, m->block_cols,
                    gptvq_shape_text(2, dims, wants));
}

/* Scales go: they are part of their matrices now. */
static void drop_scales(gptvq_checkpoint *checkpoint, const bool *wide) {
  size_t kept = 0;
  const char *matrix = "";
  for (size_t t = 0; t < checkpoint->tensor_count; t++) { /* NAME_scale_inv comes behind NAME */
    const gptvq_tensor *tensor = &checkpoint->tensors[t];
    const size_t length = strlen(matrix);
    if (wide[t]) matrix = tensor->name;
    else if (length > 0 && strncmp(tensor->name, matrix, length) == 0 &&
             strcmp(tensor->name + length, scale_ending) == 0)
      continue;
    checkpoint->tensors[kept++] = *tensor;
  }
  checkpoint->tensor_count = kept;
}

static gptvq_status widen(gptvq_checkpoint *checkpoint, fp8 block, bool *wide, gptvq_error *err) {
  uint16_t *values = checkpoint->widened;
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    gptvq_tensor *tensor = &checkpoint->tensors[t];
    fp8 m = block;
    GPTVQ_TRY(describe(checkpoint, tensor, &m, &wide[t], err));
    if (!wide[t]) continue;
    m.values = values;
    gptvq_parallel_for(m.rows, 16, fill_rows, &m);
    tensor->type = GPTVQ_T_BF16;
    tensor->stored = "fp8";
    tensor->bytes = tensor->count * sizeof *values;
    tensor->file_bytes += m.scales->file_bytes;
    tensor->data = (const uint8_t *)values;
    values += gptvq_round_up(tensor->count, 32);
  }
  drop_scales(checkpoint, wide);
  return GPTVQ_OK;
}

gptvq_status gptvq_widen_fp8(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  fp8 m = {0};
  size_t values = 0;
  GPTVQ_TRY(read_block(checkpoint, &m, err));
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    bool found;
    GPTVQ_TRY(describe(checkpoint, &checkpoint->tensors[t], &m, &found, err));
    if (found) values = gptvq_saturated_sum(values, gptvq_round_up(checkpoint->tensors[t].count, 32));
  }
  if (values == 0) return GPTVQ_OK;
  bool *wide = gptvq_alloc_zero(checkpoint->tensor_count, sizeof *wide);
  checkpoint->widened = gptvq_alloc(values, sizeof *checkpoint->widened);
  gptvq_status status = wide == NULL || checkpoint->widened == NULL
                            ? gptvq_fail_memory(err, "fp8 tensors as bf16",
                                                gptvq_saturated_size(values, sizeof *checkpoint->widened))
                            : widen(checkpoint, m, wide, err);
  free(wide);
  return status;
}
