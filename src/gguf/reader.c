#include "gguf/reader.h"
#include "base/half.h"
#include "base/memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
  MAX_KEYS = 1 << 12,
  MAX_TENSORS = 1 << 20,
  MAX_NAME = 1 << 10,
  ALIGNMENT = 32,
  MAX_ALIGNMENT = 1 << 20
};

static const size_t number_bytes[GPTVQ_GGUF_KINDS] = {
    [GPTVQ_GGUF_U8] = 1,  [GPTVQ_GGUF_I8] = 1,  [GPTVQ_GGUF_U16] = 2, [GPTVQ_GGUF_I16] = 2,
    [GPTVQ_GGUF_U32] = 4, [GPTVQ_GGUF_I32] = 4, [GPTVQ_GGUF_F32] = 4, [GPTVQ_GGUF_BOOL] = 1,
    [GPTVQ_GGUF_U64] = 8, [GPTVQ_GGUF_I64] = 8, [GPTVQ_GGUF_F64] = 8,
};

static uint64_t number_at(const uint8_t *at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; i++) value |= (uint64_t)at[i] << (8 * i);
  return value;
}
uint32_t gptvq_gguf_u32_at(const uint8_t *at) { return (uint32_t)number_at(at, 4); }
float gptvq_gguf_f32_at(const uint8_t *at) { return gptvq_bits_float(gptvq_gguf_u32_at(at)); }

const char *gptvq_gguf_next_text(const uint8_t **at, size_t *size) {
  const uint8_t *text = *at + 8;
  *size = (size_t)number_at(*at, 8);
  *at = text + *size;
  return (const char *)text;
}

bool gptvq_is_gguf(const char *path) {
  struct stat info;
  char magic[4];
  if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) return false;
  FILE *file = fopen(path, "rb");
  if (file == NULL) return false;
  bool is = fread(magic, 1, sizeof magic, file) == sizeof magic && memcmp(magic, "GGUF", 4) == 0;
  (void)fclose(file);
  return is;
}

/* ---- parsing ---- */

typedef struct cursor {
  const gptvq_gguf_reader *reader;
  size_t at;
  gptvq_error *err;
} cursor;

static gptvq_status truncated(const cursor *c, const char *what) {
  return gptvq_fail(c->err, GPTVQ_ERROR_FORMAT,
                    "%s is truncated or damaged: %s at byte %zu of %zu do not fit", c->reader->path, what,
                    c->at, c->reader->mapping.size);
}

static gptvq_status take(cursor *c, size_t bytes, const char *what, const uint8_t **out) {
  *out = c->reader->mapping.data;
  if (bytes > c->reader->mapping.size - c->at) return truncated(c, what);
  *out += c->at;
  c->at += bytes;
  return GPTVQ_OK;
}

static gptvq_status take_number(cursor *c, size_t bytes, const char *what, uint64_t *out) {
  const uint8_t *at = NULL;
  GPTVQ_TRY(take(c, bytes, what, &at));
  *out = number_at(at, bytes);
  return GPTVQ_OK;
}

static gptvq_status take_text(cursor *c, const char *what, const uint8_t **text, size_t *size) {
  uint64_t length;
  *size = 0;
  GPTVQ_TRY(take_number(c, 8, what, &length));
  if (length > c->reader->mapping.size) return truncated(c, what);
  *size = (size_t)length;
  return take(c, *size, what, text);
}

/* A key or a tensor's name, NUL-terminated; *out is the caller's. */
static gptvq_status take_name(cursor *c, const char *what, char **out) {
  const uint8_t *text = NULL;
  size_t size = 0;
  GPTVQ_TRY(take_text(c, what, &text, &size));
  if (size == 0 || size > MAX_NAME || memchr(text, '\0', size) != NULL)
    return gptvq_fail(c->err, GPTVQ_ERROR_FORMAT,
                      "%s: %s at byte %zu: a name of %zu bytes, or with NUL in it", c->reader->path, what,
                      c->at - size, size);
  *out = strndup((const char *)text, size);
  return *out != NULL ? GPTVQ_OK : gptvq_fail_memory(c->err, what, size);
}

static gptvq_status take_kind(cursor *c, const char *key, gptvq_gguf_kind *out) {
  uint64_t kind;
  GPTVQ_TRY(take_number(c, 4, "metadata", &kind));
  if (kind >= GPTVQ_GGUF_KINDS)
    return gptvq_fail(c->err, GPTVQ_ERROR_FORMAT, "%s: key %s is of type %" PRIu64 ", which is none",
                      c->reader->path, key, kind);
  *out = (gptvq_gguf_kind)kind;
  return GPTVQ_OK;
}

static gptvq_status take_items(cursor *c, gptvq_gguf_value *value) {
  uint64_t count;
  GPTVQ_TRY(take_kind(c, value->key, &value->item));
  GPTVQ_TRY(take_number(c, 8, "metadata", &count));
  if (count > c->reader->mapping.size) return truncated(c, "items of an array");
  value->count = (size_t)count;
  value->data = c->reader->mapping.data + c->at;
  if (value->item == GPTVQ_GGUF_ARRAY)
    return gptvq_fail(c->err, GPTVQ_ERROR_UNSUPPORTED, "%s: key %s is an array of arrays", c->reader->path,
                      value->key);
  const uint8_t *text;
  size_t bytes;
  if (value->item != GPTVQ_GGUF_TEXT) { /* count is below the file's size */
    if (!gptvq_mul(value->count, number_bytes[value->item], &bytes)) return truncated(c, "items of an array");
    return take(c, bytes, "items of an array", &text);
  }
  for (size_t i = 0; i < value->count; i++) GPTVQ_TRY(take_text(c, "texts of an array", &text, &bytes));
  return GPTVQ_OK;
}

static gptvq_status take_value(cursor *c, gptvq_gguf_value *value) {
  GPTVQ_TRY(take_name(c, "a key", &value->key));
  GPTVQ_TRY(take_kind(c, value->key, &value->kind));
  if (value->kind == GPTVQ_GGUF_ARRAY) return take_items(c, value);
  if (value->kind == GPTVQ_GGUF_TEXT) return take_text(c, "a text", &value->data, &value->count);
  return take(c, number_bytes[value->kind], "a number", &value->data);
}

static gptvq_status take_dims(cursor *c, gptvq_gguf_entry *entry) {
  uint64_t rank;
  GPTVQ_TRY(take_number(c, 4, "a shape", &rank));
  if (rank < 1 || rank > GPTVQ_GGUF_RANK)
    return gptvq_fail(c->err, GPTVQ_ERROR_FORMAT, "%s: tensor %s has %" PRIu64 " dimensions, not 1 to %d",
                      c->reader->path, entry->name, rank, GPTVQ_GGUF_RANK);
  entry->rank = (size_t)rank;
  entry->count = 1;
  for (size_t i = entry->rank; i-- > 0;) {
    uint64_t size;
    GPTVQ_TRY(take_number(c, 8, "a shape", &size));
    entry->dims[i] = (size_t)size;
    if (size == 0 || size > SIZE_MAX / 8 || !gptvq_mul(entry->count, entry->dims[i], &entry->count))
      return gptvq_fail(c->err, GPTVQ_ERROR_FORMAT,
                        "%s: tensor %s: dimension %" PRIu64 " is zero, or the number of elements overflows",
                        c->reader->path, entry->name, size);
  }
  return GPTVQ_OK;
}

static gptvq_status take_type(cursor *c, gptvq_gguf_entry *entry) {
  uint64_t type;
  size_t values, bytes;
  GPTVQ_TRY(take_number(c, 4, "a type", &type));
  if (!gptvq_ggml_block((uint32_t)type, &values, &bytes)) {
    const char *name = gptvq_ggml_name((uint32_t)type);
    return gptvq_fail(c->err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: tensor %s is of type %s (%" PRIu64
                      "), which is not read; these are: F32, F16, BF16, "
                      "Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL, IQ4_XS",
                      c->reader->path, entry->name, name == NULL ? "unknown" : name, type);
  }
  entry->type = (gptvq_ggml_type)type;
  const size_t row = entry->dims[entry->rank - 1];
  if (row % values != 0)
    return gptvq_fail(c->err, GPTVQ_ERROR_FORMAT,
                      "%s: tensor %s has rows of %zu values, which are no whole blocks of %zu of %s",
                      c->reader->path, entry->name, row, values, gptvq_ggml_name((uint32_t)type));
  if (gptvq_mul(entry->count / values, bytes, &entry->bytes)) return GPTVQ_OK;
  return gptvq_fail(c->err, GPTVQ_ERROR_FORMAT, "%s: tensor %s: its size overflows", c->reader->path,
                    entry->name);
}

/* Tensors lie one after another, each on a multiple of the alignment. offsets: of all, from where the data
 * begin. */
static gptvq_status place(cursor *c, gptvq_gguf_reader *reader, const uint64_t *offsets) {
  size_t alignment = ALIGNMENT;
  GPTVQ_TRY(gptvq_gguf_get_size(reader, "general.alignment", 1, MAX_ALIGNMENT, &alignment, c->err));
  if ((alignment & (alignment - 1)) != 0)
    return gptvq_fail(c->err, GPTVQ_ERROR_FORMAT, "%s: general.alignment %zu is no power of two",
                      reader->path, alignment);
  const size_t begin = gptvq_round_up(c->at, alignment);
  size_t end = 0;
  for (size_t i = 0; i < reader->entry_count; i++) {
    gptvq_gguf_entry *entry = &reader->entries[i];
    if (offsets[i] != end)
      return gptvq_fail(c->err, GPTVQ_ERROR_FORMAT,
                        "%s: tensor %s begins at byte %" PRIu64
                        " of the data, not where the one before ends, %zu",
                        reader->path, entry->name, offsets[i], end);
    const size_t room = reader->mapping.size > begin ? reader->mapping.size - begin : 0;
    if (end > room || entry->bytes > room - end)
      return gptvq_fail(
          c->err, GPTVQ_ERROR_FORMAT,
          "%s is truncated: tensor %s needs %zu bytes from byte %zu of the data, but only %zu are "
          "there",
          reader->path, entry->name, entry->bytes, end, room);
    entry->data = reader->mapping.data + begin + end;
    end = gptvq_round_up(end + entry->bytes, alignment);
  }
  return GPTVQ_OK;
}

static gptvq_status parse_entries(cursor *c, gptvq_gguf_reader *reader, size_t count) {
  uint64_t *offsets = gptvq_alloc(count, sizeof *offsets);
  reader->entries = gptvq_alloc_zero(count, sizeof *reader->entries);
  gptvq_status status = GPTVQ_OK;
  if (offsets == NULL || reader->entries == NULL)
    status = gptvq_fail_memory(c->err, reader->path, gptvq_saturated_size(count, sizeof *reader->entries));
  for (size_t i = 0; i < count && status == GPTVQ_OK; i++) {
    gptvq_gguf_entry *entry = &reader->entries[reader->entry_count++];
    GPTVQ_TRY_GOTO(take_name(c, "a tensor's name", &entry->name));
    GPTVQ_TRY_GOTO(take_dims(c, entry));
    GPTVQ_TRY_GOTO(take_type(c, entry));
    GPTVQ_TRY_GOTO(take_number(c, 8, "an offset", &offsets[i]));
  }
  if (status == GPTVQ_OK) status = place(c, reader, offsets);
done:
  free(offsets);
  return status;
}

static gptvq_status parse_values(cursor *c, gptvq_gguf_reader *reader, size_t count) {
  reader->values = gptvq_alloc_zero(count, sizeof *reader->values);
  if (reader->values == NULL)
    return gptvq_fail_memory(c->err, reader->path, gptvq_saturated_size(count, sizeof *reader->values));
  for (size_t i = 0; i < count; i++) {
    gptvq_gguf_value *value = &reader->values[reader->value_count++];
    GPTVQ_TRY(take_value(c, value));
    for (size_t j = 0; j < i; j++)
      if (strcmp(reader->values[j].key, value->key) == 0)
        return gptvq_fail(c->err, GPTVQ_ERROR_FORMAT, "%s: key %s is there twice", reader->path, value->key);
  }
  return GPTVQ_OK;
}

static gptvq_status parse(gptvq_gguf_reader *reader, gptvq_error *err) {
  cursor c = {reader, 0, err};
  const uint8_t *magic = NULL;
  uint64_t version, tensors, keys;
  size_t parts = 1;
  GPTVQ_TRY(gptvq_check_lfs(reader->path, reader->mapping.data, reader->mapping.size, err));
  GPTVQ_TRY(take(&c, 4, "the first bytes", &magic));
  if (memcmp(magic, "GGUF", 4) != 0)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s is not a GGUF file", reader->path);
  GPTVQ_TRY(take_number(&c, 4, "the version", &version));
  if (version != 2 && version != 3)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s is of GGUF version %" PRIu64 "%s; versions 2 and 3 are read", reader->path, version,
                      version > UINT16_MAX ? " or big-endian" : "");
  GPTVQ_TRY(take_number(&c, 8, "the number of tensors", &tensors));
  GPTVQ_TRY(take_number(&c, 8, "the number of keys", &keys));
  if (tensors > MAX_TENSORS || keys > MAX_KEYS)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s is damaged: %" PRIu64 " tensors and %" PRIu64 " keys, at most %d and %d are read",
                      reader->path, tensors, keys, MAX_TENSORS, MAX_KEYS);
  GPTVQ_TRY(parse_values(&c, reader, (size_t)keys));
  GPTVQ_TRY(gptvq_gguf_get_size(reader, "split.count", 0, UINT16_MAX, &parts, err));
  if (parts > 1)
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "%s is one of %zu files of a model: put them together (llama.cpp: llama-gguf-split --merge)",
        reader->path, parts);
  return parse_entries(&c, reader, (size_t)tensors);
}

gptvq_status gptvq_gguf_open(const char *path, gptvq_gguf_reader *out, gptvq_error *err) {
  *out = (gptvq_gguf_reader){.path = strdup(path)};
  if (out->path == NULL) return gptvq_fail_memory(err, path, strlen(path) + 1);
  gptvq_status status = gptvq_map_file(path, &out->mapping, err);
  if (status == GPTVQ_OK) status = parse(out, err);
  if (status != GPTVQ_OK) gptvq_gguf_close(out);
  return status;
}

void gptvq_gguf_close(gptvq_gguf_reader *reader) {
  for (size_t i = 0; i < reader->value_count; i++) free(reader->values[i].key);
  for (size_t i = 0; i < reader->entry_count; i++) free(reader->entries[i].name);
  free(reader->values);
  free(reader->entries);
  gptvq_unmap_file(&reader->mapping);
  free(reader->path);
  *reader = (gptvq_gguf_reader){.path = NULL};
}

/* ---- questions ---- */

const gptvq_gguf_value *gptvq_gguf_find(const gptvq_gguf_reader *reader, const char *key) {
  for (size_t i = 0; i < reader->value_count; i++)
    if (strcmp(reader->values[i].key, key) == 0) return &reader->values[i];
  return NULL;
}

const gptvq_gguf_entry *gptvq_gguf_find_entry(const gptvq_gguf_reader *reader, const char *name) {
  for (size_t i = 0; i < reader->entry_count; i++)
    if (strcmp(reader->entries[i].name, name) == 0) return &reader->entries[i];
  return NULL;
}

static gptvq_status wrong_kind(const gptvq_gguf_reader *reader, const char *key, const char *wanted,
                               gptvq_error *err) {
  return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: key %s is not %s", reader->path, key, wanted);
}

bool gptvq_gguf_is_negative(const gptvq_gguf_value *value) {
  const bool is_signed = value->kind == GPTVQ_GGUF_I8 || value->kind == GPTVQ_GGUF_I16 ||
                         value->kind == GPTVQ_GGUF_I32 || value->kind == GPTVQ_GGUF_I64;
  return is_signed && value->data[number_bytes[value->kind] - 1] >> 7 != 0;
}

gptvq_status gptvq_gguf_get_size(const gptvq_gguf_reader *reader, const char *key, size_t low, size_t high,
                                 size_t *out, gptvq_error *err) {
  const gptvq_gguf_value *value = gptvq_gguf_find(reader, key);
  if (value == NULL) return GPTVQ_OK;
  const size_t bytes = number_bytes[value->kind];
  if (value->kind == GPTVQ_GGUF_ARRAY)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: key %s has a value for each layer, which is not read", reader->path, key);
  if (bytes == 0 || value->kind == GPTVQ_GGUF_F32 || value->kind == GPTVQ_GGUF_F64 ||
      value->kind == GPTVQ_GGUF_BOOL)
    return wrong_kind(reader, key, "a whole number", err);
  const uint64_t number = number_at(value->data, bytes);
  if (gptvq_gguf_is_negative(value) || number < low || number > high)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: key %s is %" PRIu64 ", not %zu to %zu", reader->path, key,
                      number, low, high);
  *out = (size_t)number;
  return GPTVQ_OK;
}

/* 1e-05f is what 0.00001 was before it became an fp32. */
static double shortest(float value) {
  char text[32];
  for (int digits = 6; digits < 9; digits++) {
    (void)snprintf(text, sizeof text, "%.*g", digits, (double)value);
    if (strtof(text, NULL) == value) return strtod(text, NULL);
  }
  return (double)value;
}

gptvq_status gptvq_gguf_get_number(const gptvq_gguf_reader *reader, const char *key, double *out,
                                   gptvq_error *err) {
  const gptvq_gguf_value *value = gptvq_gguf_find(reader, key);
  if (value == NULL) return GPTVQ_OK;
  if (value->kind != GPTVQ_GGUF_F32 || !isfinite(gptvq_gguf_f32_at(value->data)))
    return wrong_kind(reader, key, "a finite fp32 number", err);
  *out = shortest(gptvq_gguf_f32_at(value->data));
  return GPTVQ_OK;
}

gptvq_status gptvq_gguf_get_bool(const gptvq_gguf_reader *reader, const char *key, bool *out,
                                 gptvq_error *err) {
  const gptvq_gguf_value *value = gptvq_gguf_find(reader, key);
  if (value == NULL) return GPTVQ_OK;
  if (value->kind != GPTVQ_GGUF_BOOL) return wrong_kind(reader, key, "true or false", err);
  *out = value->data[0] != 0;
  return GPTVQ_OK;
}

gptvq_status gptvq_gguf_get_text(const gptvq_gguf_reader *reader, const char *key, const char **out,
                                 size_t *size, gptvq_error *err) {
  const gptvq_gguf_value *value = gptvq_gguf_find(reader, key);
  if (value == NULL) return GPTVQ_OK;
  if (value->kind != GPTVQ_GGUF_TEXT) return wrong_kind(reader, key, "a text", err);
  *out = (const char *)value->data;
  *size = value->count;
  return GPTVQ_OK;
}

gptvq_status gptvq_gguf_get_array(const gptvq_gguf_reader *reader, const char *key, gptvq_gguf_kind item,
                                  const gptvq_gguf_value **out, gptvq_error *err) {
  const gptvq_gguf_value *value = gptvq_gguf_find(reader, key);
  *out = NULL;
  if (value == NULL) return GPTVQ_OK;
  if (value->kind != GPTVQ_GGUF_ARRAY || value->item != item)
    return wrong_kind(reader, key, "an array of what it should hold", err);
  *out = value;
  return GPTVQ_OK;
}
