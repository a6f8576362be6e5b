#include "checkpoint/safetensors.h"
#include "base/json.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Every dtype of the format with its width; those that gptvq never reads are GPTVQ_T_OTHER, still checked for
 * size. */
static const struct {
  const char *name;
  gptvq_tensor_type type;
  unsigned bits;
} types[] = {
    {"F32", GPTVQ_T_F32, 32},          {"F16", GPTVQ_T_F16, 16},      {"BF16", GPTVQ_T_BF16, 16},
    {"F64", GPTVQ_T_F64, 64},          {"I8", GPTVQ_T_I8, 8},         {"U8", GPTVQ_T_U8, 8},
    {"I16", GPTVQ_T_I16, 16},          {"U16", GPTVQ_T_U16, 16},      {"I32", GPTVQ_T_I32, 32},
    {"U32", GPTVQ_T_U32, 32},          {"I64", GPTVQ_T_I64, 64},      {"U64", GPTVQ_T_U64, 64},
    {"BOOL", GPTVQ_T_BOOL, 8},         {"C64", GPTVQ_T_OTHER, 64},    {"F8_E4M3", GPTVQ_T_F8, 8},
    {"F8_E5M2", GPTVQ_T_OTHER, 8},     {"F8_E8M0", GPTVQ_T_OTHER, 8}, {"F8_E4M3FNUZ", GPTVQ_T_OTHER, 8},
    {"F8_E5M2FNUZ", GPTVQ_T_OTHER, 8}, {"F6_E2M3", GPTVQ_T_OTHER, 6}, {"F6_E3M2", GPTVQ_T_OTHER, 6},
    {"F4", GPTVQ_T_OTHER, 4},
};
enum { TYPE_COUNT = sizeof types / sizeof types[0] };

size_t gptvq_tensor_type_size(gptvq_tensor_type type) {
  if (type == GPTVQ_T_OTHER) return 0;
  for (size_t i = 0; i < TYPE_COUNT; i++)
    if (types[i].type == type) return types[i].bits / 8;
  return 0;
}

const char *gptvq_tensor_type_name(gptvq_tensor_type type) {
  if (type == GPTVQ_T_OTHER) return "a type that gptvq does not read";
  for (size_t i = 0; i < TYPE_COUNT; i++)
    if (types[i].type == type) return types[i].name;
  return "an unknown type";
}

bool gptvq_tensor_dtype(gptvq_tensor_type type, gptvq_dtype *dtype) {
  switch (type) {
  case GPTVQ_T_F32: *dtype = GPTVQ_F32; return true;
  case GPTVQ_T_F16: *dtype = GPTVQ_F16; return true;
  case GPTVQ_T_BF16: *dtype = GPTVQ_BF16; return true;
  default: return false;
  }
}

const char *gptvq_shape_text(size_t rank, const size_t *dims, char text[GPTVQ_SHAPE_TEXT]) {
  size_t at = 0;
  (void)snprintf(text, GPTVQ_SHAPE_TEXT, "a scalar");
  for (size_t i = 0; i < rank && at < GPTVQ_SHAPE_TEXT; i++)
    at += (size_t)snprintf(text + at, GPTVQ_SHAPE_TEXT - at, "%s%zu", i > 0 ? " x " : "", dims[i]);
  return text;
}

gptvq_status gptvq_load_json(const char *path, size_t max_size, json_t **out, gptvq_error *err) {
  char *text;
  size_t size;
  *out = NULL;
  GPTVQ_TRY(gptvq_read_file(path, max_size, &text, &size, err));
  json_error_t where;
  json_t *json = gptvq_json_parse(text, size, JSON_REJECT_DUPLICATES, &where);
  free(text);
  if (json == NULL && gptvq_json_no_memory(&where)) return gptvq_fail_memory(err, path, size);
  if (json == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s is not valid JSON: line %d: %s", path, where.line,
                      where.text);
  if (!json_is_object(json)) {
    json_decref(json);
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s does not hold a JSON object", path);
  }
  *out = json;
  return GPTVQ_OK;
}

/* json as a size; false when it is no integer or negative */
static bool get_size(const json_t *json, size_t *out) {
  if (!json_is_integer(json) || json_integer_value(json) < 0) return false;
  *out = (size_t)json_integer_value(json);
  return true;
}

static gptvq_status parse_shape(const char *path, const char *name, const json_t *shape, unsigned bits,
                                gptvq_tensor *tensor, gptvq_error *err) {
  if (!json_is_array(shape))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s: \"shape\" is missing or not an array", path,
                      name);
  tensor->rank = json_array_size(shape);
  if (tensor->rank > GPTVQ_MAX_RANK)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s has %zu dimensions, at most %d are supported",
                      path, name, tensor->rank, GPTVQ_MAX_RANK);
  /* A zero dimension must not hide an overflow of the others: sizes are multiplied with zeros left out. */
  size_t product = 1;
  bool empty = false;
  for (size_t i = 0; i < tensor->rank; i++) {
    if (!get_size(json_array_get(shape, i), &tensor->dims[i]))
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s: dimension %zu of \"shape\" is not a size",
                        path, name, i);
    if (tensor->dims[i] == 0) empty = true;
    else if (!gptvq_mul(product, tensor->dims[i], &product))
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s: the number of its elements overflows", path,
                        name);
  }
  size_t bit_count;
  if (!gptvq_mul(product, bits, &bit_count))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s: the size of its %zu elements overflows", path,
                      name, product);
  tensor->count = empty ? 0 : product;
  if (empty) bit_count = 0;
  if (bit_count % 8 != 0)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s: its %zu bits do not fill whole bytes", path,
                      name, bit_count);
  tensor->bytes = tensor->file_bytes = bit_count / 8;
  return GPTVQ_OK;
}

/* begin: where in the data it starts; the pointer is set by the caller, once all offsets are known to be good
 */
static gptvq_status parse_tensor(const gptvq_st_file *file, const char *name, const json_t *entry,
                                 size_t data_size, gptvq_tensor *tensor, size_t *begin, gptvq_error *err) {
  const char *path = file->path;
  if (!json_is_object(entry))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s: its header entry is not an object", path,
                      name);
  const char *dtype = json_string_value(json_object_get(entry, "dtype"));
  if (dtype == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s: \"dtype\" is missing or not text", path, name);
  size_t t = 0;
  while (t < TYPE_COUNT && strcmp(types[t].name, dtype) != 0) t++;
  if (t == TYPE_COUNT)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s: tensor %s: dtype %s is not known", path, name,
                      dtype);
  tensor->name = name;
  tensor->file = path;
  tensor->type = types[t].type;
  GPTVQ_TRY(parse_shape(path, name, json_object_get(entry, "shape"), types[t].bits, tensor, err));

  const json_t *offsets = json_object_get(entry, "data_offsets");
  size_t end;
  if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
      !get_size(json_array_get(offsets, 0), begin) || !get_size(json_array_get(offsets, 1), &end))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s: \"data_offsets\" is not a pair of sizes", path,
                      name);
  if (*begin > end)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s: its data begin at %zu, after their end %zu",
                      path, name, *begin, end);
  if (end - *begin != tensor->bytes) {
    char shape[GPTVQ_SHAPE_TEXT];
    return gptvq_fail(
        err, GPTVQ_ERROR_FORMAT, "%s: tensor %s: shape %s of %s needs %zu bytes, data_offsets give %zu", path,
        name, gptvq_shape_text(tensor->rank, tensor->dims, shape), dtype, tensor->bytes, end - *begin);
  }
  if (end > data_size)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s is truncated: tensor %s ends at byte %zu of the data, but only %zu bytes are there",
                      path, name, end, data_size);
  return GPTVQ_OK;
}

static int by_offset(const void *a, const void *b) {
  const gptvq_tensor *x = a, *y = b;
  if (x->data != y->data) return x->data < y->data ? -1 : 1;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; /* empty tensors first */
  return strcmp(x->name, y->name);
}

/* The sorted tensors cover the data exactly. */
static gptvq_status check_cover(const gptvq_st_file *file, size_t data_size, const uint8_t *data,
                                gptvq_error *err) {
  size_t end = 0;
  for (size_t i = 0; i < file->count; i++) {
    size_t begin = (size_t)(file->tensors[i].data - data);
    if (begin < end)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s: tensor %s begins at byte %zu of the data, inside tensor %s that ends at %zu",
                        file->path, file->tensors[i].name, begin, file->tensors[i - 1].name, end);
    if (begin > end)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s: tensor %s begins at byte %zu of the data, but the tensors before it end at %zu",
                        file->path, file->tensors[i].name, begin, end);
    end = begin + file->tensors[i].bytes;
  }
  if (end != data_size)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s: the tensors end at byte %zu of the data, but %zu bytes are there", file->path, end,
                      data_size);
  return GPTVQ_OK;
}

static gptvq_status check_metadata(const gptvq_st_file *file, const json_t *metadata, gptvq_error *err) {
  if (!json_is_object(metadata))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: __metadata__ is not an object", file->path);
  for (void *at = json_object_iter((json_t *)(uintptr_t)metadata); at != NULL;
       at = json_object_iter_next((json_t *)(uintptr_t)metadata, at))
    if (!json_is_string(json_object_iter_value(at)))
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: __metadata__ entry %s is not text", file->path,
                        json_object_iter_key(at));
  return GPTVQ_OK;
}

static gptvq_status parse_header(gptvq_st_file *file, gptvq_error *err) {
  const gptvq_mapping *mapping = &file->mapping;
  GPTVQ_TRY(gptvq_check_lfs(file->path, mapping->data, mapping->size, err));
  if (mapping->size < 8)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s is not a safetensors file: %zu bytes, at least 8 are needed", file->path,
                      mapping->size);
  uint64_t length = 0;
  for (unsigned i = 0; i < 8; i++) length |= (uint64_t)mapping->data[i] << (8 * i);
  if (length > GPTVQ_ST_MAX_HEADER)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s is not a safetensors file: its header of %" PRIu64 " bytes is longer than %d",
                      file->path, length, GPTVQ_ST_MAX_HEADER);
  if (length > mapping->size - 8)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s is truncated: its header has %" PRIu64 " bytes, %zu are there", file->path, length,
                      mapping->size - 8);
  const char *text = (const char *)mapping->data + 8;
  if (length < 2 || text[0] != '{')
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s is not a safetensors file: its header is not a JSON object", file->path);
  json_error_t where;
  file->header = gptvq_json_parse(text, (size_t)length, JSON_REJECT_DUPLICATES, &where);
  if (file->header == NULL && gptvq_json_no_memory(&where))
    return gptvq_fail_memory(err, file->path, (size_t)length);
  if (file->header == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: its header is not valid JSON: byte %d: %s", file->path,
                      where.position, where.text);

  const uint8_t *data = mapping->data + 8 + length;
  size_t data_size = mapping->size - 8 - (size_t)length, capacity = json_object_size(file->header);
  file->tensors = calloc(capacity + 1, sizeof *file->tensors);
  if (file->tensors == NULL)
    return gptvq_fail_memory(err, file->path, gptvq_saturated_size(capacity + 1, sizeof *file->tensors));
  for (void *at = json_object_iter(file->header); at != NULL; at = json_object_iter_next(file->header, at)) {
    const char *name = json_object_iter_key(at);
    const json_t *entry = json_object_iter_value(at);
    if (strcmp(name, "__metadata__") == 0) {
      GPTVQ_TRY(check_metadata(file, entry, err));
      file->metadata = entry;
      continue;
    }
    gptvq_tensor *tensor = &file->tensors[file->count];
    size_t begin = 0;
    GPTVQ_TRY(parse_tensor(file, name, entry, data_size, tensor, &begin, err));
    tensor->data = data + begin;
    file->count++;
  }
  if (file->count > 0) qsort(file->tensors, file->count, sizeof *file->tensors, by_offset);
  return check_cover(file, data_size, data, err);
}

gptvq_status gptvq_st_open(const char *path, gptvq_st_file *out, gptvq_error *err) {
  memset(out, 0, sizeof *out);
  out->path = strdup(path);
  if (out->path == NULL) return gptvq_fail_memory(err, path, strlen(path) + 1);
  gptvq_status status = gptvq_map_file(path, &out->mapping, err);
  if (status == GPTVQ_OK) status = parse_header(out, err);
  if (status != GPTVQ_OK) gptvq_st_close(out);
  return status;
}

void gptvq_st_close(gptvq_st_file *file) {
  free(file->tensors);
  json_decref(file->header);
  gptvq_unmap_file(&file->mapping);
  free(file->path);
  memset(file, 0, sizeof *file);
}
