#include "checkpoint/checkpoint_internal.h"
#include "checkpoint/config_values.h"
#include "checkpoint/packed_parts.h"
#include "base/json.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

/* The tensor NAME SUFFIX; without putting the name together, so that NULL always means that there is none. */
static const gptvq_tensor *find_part(const gptvq_checkpoint *checkpoint, const char *name,
                                     const char *suffix) {
  size_t low = 0, high = checkpoint->tensor_count, length = strlen(name);
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const gptvq_tensor *tensor = &checkpoint->tensors[middle];
    int order = strncmp(tensor->name, name, length);
    if (order == 0) order = strcmp(tensor->name + length, suffix);
    if (order == 0) return tensor;
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return NULL;
}

bool gptvq_checkpoint_has_packed(const gptvq_checkpoint *checkpoint, const char *name) {
  return find_part(checkpoint, name, ".indices") != NULL;
}

/* ---- the description in __metadata__ ---- */

static gptvq_status read_unsigned(const gptvq_config_source *source, const char *key, unsigned *out,
                                  gptvq_error *err) {
  size_t value = 0;
  GPTVQ_TRY(gptvq_config_need(source, key, err));
  GPTVQ_TRY(gptvq_config_size(source, key, 0, 1u << 30, &value, err));
  *out = (unsigned)value;
  return GPTVQ_OK;
}

static gptvq_status read_size(const gptvq_config_source *source, const char *key, size_t *out,
                              gptvq_error *err) {
  GPTVQ_TRY(gptvq_config_need(source, key, err));
  return gptvq_config_size(source, key, 0, (size_t)1 << 40, out, err);
}

static gptvq_status check_keys(const gptvq_config_source *source, unsigned version, gptvq_error *err) {
  const char *const known[] = {
      "format",        "version",
      "rows",          "cols",
      "dim",           "index_bits",
      "group_rows",    "group_cols",
      "codebook_bits", "scale_block",
      "permuted",      "method",
      "error",         version == GPTVQ_FORMAT_VERSION_FACTORED ? "svd_rank" : "error"};
  const size_t count = sizeof known / sizeof known[0];
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)source->object, key, value) {
    (void)value;
    size_t i = 0;
    while (i < count && strcmp(key, known[i]) != 0) i++;
    if (i == count)
      return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                        "%s: %s has a property \"%s\" that this gptvq does not know", source->folder,
                        source->file, key);
  }
  return GPTVQ_OK;
}

/* Messages read "FILE/gptvq.NAME: key …": the source's folder is the file, its file the metadata key. */
static gptvq_status parse_description(const gptvq_config_source *source, gptvq_packed_shape *shape,
                                      gptvq_packed_info *info, gptvq_error *err) {
  unsigned version = 0;
  char format[32] = "";
  GPTVQ_TRY(read_unsigned(source, "version", &version, err));
  if (version < GPTVQ_FORMAT_VERSION_PLAIN || version > GPTVQ_FORMAT_VERSION)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: %s: format version %u is not supported, only versions up to %d; update gptvq",
                      source->folder, source->file, version, GPTVQ_FORMAT_VERSION);
  GPTVQ_TRY(gptvq_config_need(source, "format", err));
  GPTVQ_TRY(gptvq_config_text(source, "format", format, sizeof format, err));
  if (strcmp(format, "vq") == 0) shape->kind = GPTVQ_PACKED_VQ;
  else if (strcmp(format, "uniform") == 0) shape->kind = GPTVQ_PACKED_UNIFORM;
  else if (strcmp(format, "trellis") == 0) shape->kind = GPTVQ_PACKED_TRELLIS;
  else
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: %s: format \"%s\" is not supported; supported: vq, uniform, trellis",
                      source->folder, source->file, format);
  if ((shape->kind == GPTVQ_PACKED_TRELLIS) != (version == GPTVQ_FORMAT_VERSION_TRELLIS))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: %s: format \"%s\" is not one of version %u",
                      source->folder, source->file, format, version);
  GPTVQ_TRY(check_keys(source, version, err));
  GPTVQ_TRY(read_size(source, "rows", &shape->rows, err));
  GPTVQ_TRY(read_size(source, "cols", &shape->cols, err));
  GPTVQ_TRY(read_unsigned(source, "dim", &shape->dim, err));
  GPTVQ_TRY(read_unsigned(source, "index_bits", &shape->index_bits, err));
  GPTVQ_TRY(read_size(source, "group_rows", &shape->group_rows, err));
  GPTVQ_TRY(read_size(source, "group_cols", &shape->group_cols, err));
  GPTVQ_TRY(read_unsigned(source, "codebook_bits", &shape->codebook_bits, err));
  GPTVQ_TRY(read_unsigned(source, "scale_block", &shape->scale_block, err));
  GPTVQ_TRY(gptvq_config_need(source, "permuted", err));
  GPTVQ_TRY(gptvq_config_bool(source, "permuted", &shape->permuted, err));
  GPTVQ_TRY(gptvq_config_text(source, "method", info->method, sizeof info->method, err));
  GPTVQ_TRY(gptvq_config_number(source, "error", 0.0, 1e300, &info->error, err));
  if (shape->kind == GPTVQ_PACKED_UNIFORM && shape->codebook_bits != 0)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s: %s: a uniform layer has no codebooks, but codebook_bits is %u", source->folder,
                      source->file, shape->codebook_bits);
  if (version == GPTVQ_FORMAT_VERSION_FACTORED)
    GPTVQ_TRY(read_unsigned(source, "svd_rank", &shape->svd_rank, err));
  gptvq_error detail; /* names the layer, not the file */
  gptvq_status status = gptvq_packed_check(shape, source->file, &detail);
  return status == GPTVQ_OK ? status : gptvq_fail(err, status, "%s: %s", source->folder, detail.message);
}

static gptvq_status read_description(const gptvq_checkpoint *checkpoint, const gptvq_tensor *indices,
                                     const char *name, gptvq_packed_shape *shape, gptvq_packed_info *info,
                                     gptvq_error *err) {
  char *key = gptvq_part_name(GPTVQ_PACKED_KEY, name);
  if (key == NULL) return gptvq_fail_memory(err, name, strlen(name) + 8);
  gptvq_status status = GPTVQ_OK;
  json_t *json = NULL;
  json_error_t where;
  const char *text = gptvq_checkpoint_metadata(checkpoint, indices, key);
  if (text == NULL) {
    status = gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: __metadata__ says nothing of the packed layer %s",
                        indices->file, name);
    goto done;
  }
  json = gptvq_json_parse(text, strlen(text), JSON_REJECT_DUPLICATES, &where);
  if (json == NULL && gptvq_json_no_memory(&where)) {
    status = gptvq_fail_memory(err, key, strlen(text));
    goto done;
  }
  if (!json_is_object(json)) {
    status =
        gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: the description of %s in __metadata__ is not a JSON object",
                   indices->file, name);
    goto done;
  }
  const gptvq_config_source source = {indices->file, key, "", json};
  status = parse_description(&source, shape, info, err);
done:
  json_decref(json);
  free(key);
  return status;
}

/* ---- the tensors ---- */

/* Those the shape has, with the type and shape it says, and no others. */
static gptvq_status collect_parts(const gptvq_checkpoint *checkpoint, const char *name,
                                  const gptvq_packed_part *parts, const gptvq_tensor **tensors,
                                  gptvq_error *err) {
  for (int i = 0; i < GPTVQ_PART_COUNT; i++) {
    const gptvq_packed_part *part = &parts[i];
    const gptvq_tensor *tensor = find_part(checkpoint, name, part->suffix);
    tensors[i] = tensor;
    if (!part->present && tensor != NULL)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s: tensor %s contradicts the description of the packed layer", tensor->file,
                        tensor->name);
    if (!part->present) continue;
    if (tensor == NULL)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s%s of a packed layer is missing",
                        checkpoint->folder, name, part->suffix);
    if (tensor->type != part->type)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s is %s, the packed layer needs %s",
                        tensor->file, tensor->name, gptvq_tensor_type_name(tensor->type),
                        gptvq_tensor_type_name(part->type));
    if (tensor->rank != part->rank ||
        memcmp(tensor->dims, part->dims, part->rank * sizeof *part->dims) != 0) {
      char has[GPTVQ_SHAPE_TEXT], wants[GPTVQ_SHAPE_TEXT];
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s has shape %s, the packed layer needs %s",
                        tensor->file, tensor->name, gptvq_shape_text(tensor->rank, tensor->dims, has),
                        gptvq_shape_text(part->rank, part->dims, wants));
    }
  }
  return GPTVQ_OK;
}

/* Bytes that a tensor takes in the owned block: 0 when the mapping serves as it is. */
static size_t owned_bytes(const gptvq_tensor *tensor, int part) {
  if (part == GPTVQ_PART_PERMUTATION) return gptvq_round_up(tensor->count * sizeof(uint32_t), 64);
  if ((uintptr_t)tensor->data % gptvq_tensor_type_size(tensor->type) == 0) return 0;
  return gptvq_round_up(tensor->bytes, 64);
}

static void widen_permutation(const gptvq_tensor *tensor, uint32_t *out) {
  for (size_t i = 0; i < tensor->count; i++) {
    uint16_t narrow;
    if (tensor->type == GPTVQ_T_U32) {
      memcpy(&out[i], tensor->data + 4 * i, 4);
    } else {
      memcpy(&narrow, tensor->data + 2 * i, 2);
      out[i] = narrow;
    }
  }
}

/* Pointers into the mapping, or into *owned where the file's alignment or width does not do. Codebooks that
 * the file has as factors get their place there too, at its beginning; the file's left factor bounds their
 * size. */
static gptvq_status place_parts(const gptvq_tensor *const *tensors, const char *name,
                                const gptvq_packed_shape *shape, const void **data, void **owned,
                                gptvq_error *err) {
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(shape, &sizes);
  size_t codebooks = gptvq_round_up(sizes.codebook_bytes, 64), total = 0;
  if (shape->svd_rank > 0) total = codebooks + gptvq_round_up(2 * sizes.codebook_scales, 64);
  for (int i = 0; i < GPTVQ_PART_COUNT; i++)
    if (tensors[i] != NULL) total += owned_bytes(tensors[i], i);
  uint8_t *block = NULL;
  if (total > 0) {
    block = gptvq_alloc(total, 1);
    if (block == NULL) return gptvq_fail_memory(err, name, total);
    *owned = block;
  }
  uint8_t *made = block;
  if (shape->svd_rank > 0) block += codebooks + gptvq_round_up(2 * sizes.codebook_scales, 64);
  for (int i = 0; i < GPTVQ_PART_COUNT; i++) {
    const gptvq_tensor *tensor = tensors[i];
    data[i] = tensor != NULL ? tensor->data : NULL;
    size_t bytes = tensor != NULL ? owned_bytes(tensor, i) : 0;
    if (bytes == 0) continue;
    if (i == GPTVQ_PART_PERMUTATION) widen_permutation(tensor, (uint32_t *)(void *)block);
    else memcpy(block, tensor->data, tensor->bytes);
    data[i] = block;
    block += bytes;
  }
  if (shape->svd_rank > 0) {
    data[GPTVQ_PART_CODEBOOKS] = made;
    data[GPTVQ_PART_CODEBOOK_SCALES] = made + codebooks;
  }
  return GPTVQ_OK;
}

static gptvq_status make_codebooks(const gptvq_tensor *scales, const gptvq_packed *packed, gptvq_error *err) {
  const gptvq_packed_shape *s = &packed->shape;
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(s, &sizes);
  GPTVQ_TRY(gptvq_tensor_check_finite(scales, err));
  if (!gptvq_factor_scales_fit(packed->factor_scales, s->svd_rank))
    return gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "%s: tensor %s gives centroids beyond 2^127", scales->file,
                      scales->name);
  gptvq_codebooks_from_factors(sizes.codebook_scales, (size_t)1 << s->index_bits, s->svd_rank,
                               packed->codebook_left, packed->codebook_right, packed->factor_scales,
                               s->codebook_bits, (void *)(uintptr_t)packed->codebooks,
                               (uint16_t *)(uintptr_t)packed->codebook_scales);
  return GPTVQ_OK;
}

static gptvq_status check_permutation(const gptvq_tensor *tensor, const uint32_t *permutation,
                                      gptvq_error *err) {
  size_t cols = tensor->count;
  gptvq_status status = GPTVQ_OK;
  uint8_t *seen = calloc(cols, 1);
  if (seen == NULL) return gptvq_fail_memory(err, tensor->name, cols);
  for (size_t i = 0; i < cols && status == GPTVQ_OK; i++) {
    uint32_t to = permutation[i];
    if (to >= cols || seen[to])
      status = gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                          "%s: tensor %s is not a permutation: element %zu is %u, %s", tensor->file,
                          tensor->name, i, (unsigned)to, to >= cols ? "out of range" : "for the second time");
    else seen[to] = 1;
  }
  free(seen);
  return status;
}

/* 4-bit exponents lo + step·code must give numbers that fp32 holds, with room for the products. */
static gptvq_status check_range(const gptvq_tensor *tensor, const float *range, gptvq_error *err) {
  float low = range[0], high = range[0] + 15.0f * range[1];
  if (isfinite(low) && isfinite(high) && fabsf(low) <= GPTVQ_MAX_SCALE_EXPONENT &&
      fabsf(high) <= GPTVQ_MAX_SCALE_EXPONENT)
    return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s gives scales from 2^%g to 2^%g, beyond 2^±%d",
                    tensor->file, tensor->name, (double)low, (double)high, GPTVQ_MAX_SCALE_EXPONENT);
}

static gptvq_status check_tables(const gptvq_tensor *tensor, const int8_t *tables, gptvq_error *err) {
  const size_t groups = tensor->count / GPTVQ_TRELLIS_TABLE, at = gptvq_trellis_find_overflow(tables, groups);
  if (at == groups) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                    "%s: tensor %s has values beyond ±127: sums of the two tables of column group %zu",
                    tensor->file, tensor->name, at);
}

static gptvq_status check_values(const gptvq_tensor *const *tensors, const gptvq_packed *packed,
                                 gptvq_error *err) {
  static const int numbers[] = {GPTVQ_PART_BLOCK_SCALE_RANGE, GPTVQ_PART_CODEBOOK_SCALES, GPTVQ_PART_SCALES,
                                GPTVQ_PART_CODEBOOKS};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
    if (tensors[numbers[i]] != NULL) GPTVQ_TRY(gptvq_tensor_check_finite(tensors[numbers[i]], err));
  if (packed->block_scale_range != NULL)
    GPTVQ_TRY(check_range(tensors[GPTVQ_PART_BLOCK_SCALE_RANGE], packed->block_scale_range, err));
  if (packed->permutation != NULL)
    GPTVQ_TRY(check_permutation(tensors[GPTVQ_PART_PERMUTATION], packed->permutation, err));
  if (packed->shape.kind == GPTVQ_PACKED_TRELLIS)
    GPTVQ_TRY(check_tables(tensors[GPTVQ_PART_CODEBOOKS], packed->codebooks, err));
  return GPTVQ_OK;
}

gptvq_status gptvq_checkpoint_get_packed(const gptvq_checkpoint *checkpoint, const char *name,
                                         gptvq_packed *packed, gptvq_packed_info *info, void **owned,
                                         gptvq_error *err) {
  const gptvq_tensor *tensors[GPTVQ_PART_COUNT];
  const void *data[GPTVQ_PART_COUNT] = {NULL};
  gptvq_packed_part parts[GPTVQ_PART_COUNT];
  memset(packed, 0, sizeof *packed);
  memset(info, 0, sizeof *info);
  info->error = (double)NAN;
  *owned = NULL;
  const gptvq_tensor *indices = find_part(checkpoint, name, ".indices");
  if (indices == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s.indices is missing", checkpoint->folder, name);
  GPTVQ_TRY(read_description(checkpoint, indices, name, &packed->shape, info, err));
  gptvq_packed_parts(&packed->shape, parts);
  GPTVQ_TRY(collect_parts(checkpoint, name, parts, tensors, err));
  gptvq_status status = place_parts(tensors, name, &packed->shape, data, owned, err);
  if (status == GPTVQ_OK) {
    packed->indices = data[GPTVQ_PART_INDICES];
    packed->codebooks = data[GPTVQ_PART_CODEBOOKS];
    packed->codebook_scales = data[GPTVQ_PART_CODEBOOK_SCALES];
    packed->block_scales = data[GPTVQ_PART_BLOCK_SCALES];
    packed->block_scale_range = data[GPTVQ_PART_BLOCK_SCALE_RANGE];
    packed->permutation = data[GPTVQ_PART_PERMUTATION];
    packed->scales = data[GPTVQ_PART_SCALES];
    packed->row_scales = data[GPTVQ_PART_ROW_SCALES];
    packed->zeros = data[GPTVQ_PART_ZEROS];
    packed->codebook_left = data[GPTVQ_PART_CODEBOOK_LEFT];
    packed->codebook_right = data[GPTVQ_PART_CODEBOOK_RIGHT];
    packed->factor_scales = data[GPTVQ_PART_FACTOR_SCALES];
    for (int i = 0; i < GPTVQ_PART_COUNT; i++) info->bytes += tensors[i] != NULL ? tensors[i]->bytes : 0;
    status = check_values(tensors, packed, err);
    if (status == GPTVQ_OK && packed->shape.svd_rank > 0)
      status = make_codebooks(tensors[GPTVQ_PART_FACTOR_SCALES], packed, err);
  }
  if (status != GPTVQ_OK) {
    free(*owned);
    *owned = NULL;
  }
  return status;
}
