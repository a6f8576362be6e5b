#include "checkpoint/safetensors.h"
#include "base/json.h"
#include "base/memory.h"

#include <string.h>

struct gptvq_st_writer {
  gptvq_writer *file;
  char *path;
  json_t *header, *metadata; /* metadata belongs to the header */
  size_t tensors, entries;   /* declared, and given as metadata */
  size_t declared, written;  /* bytes of data */
  bool started;              /* the header is out, no more declarations */
};

gptvq_status gptvq_st_writer_create(const char *path, gptvq_st_writer **out, gptvq_error *err) {
  *out = NULL;
  gptvq_st_writer *writer = calloc(1, sizeof *writer);
  if (writer == NULL) return gptvq_fail_memory(err, path, sizeof *writer);
  writer->path = strdup(path);
  writer->header = json_object();
  writer->metadata = json_object();
  gptvq_status status = GPTVQ_OK;
  /* insertion order is kept: the metadata come first. "pt" is what transformers asks for. */
  if (writer->path == NULL || writer->header == NULL || writer->metadata == NULL ||
      json_object_set(writer->header, "__metadata__", writer->metadata) != 0 ||
      json_object_set_new(writer->metadata, "format", json_string("pt")) != 0)
    status = gptvq_fail_memory(err, path, sizeof *writer);
  writer->entries = 1;
  if (status == GPTVQ_OK) status = gptvq_writer_open(path, &writer->file, err);
  if (status != GPTVQ_OK) {
    gptvq_st_writer_abort(writer);
    return status;
  }
  *out = writer;
  return GPTVQ_OK;
}

static gptvq_status misuse(const gptvq_st_writer *writer, const char *name, const char *what,
                           gptvq_error *err) {
  return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "writing %s: %s %s", writer->path, name, what);
}

/* jansson has not taken `text`, a name or what belongs to it: for what reason? */
static gptvq_status refused(const gptvq_st_writer *writer, const char *name, const char *text,
                            gptvq_error *err) {
  json_error_t where;
  json_t *again = json_pack_ex(&where, 0, "s", text);
  bool invalid = again == NULL && json_error_code(&where) == json_error_invalid_utf8;
  json_decref(again);
  return invalid ? misuse(writer, name, "is not valid UTF-8", err) : gptvq_fail_memory(err, name, 256);
}

gptvq_status gptvq_st_writer_declare(gptvq_st_writer *writer, const char *name, gptvq_tensor_type type,
                                     size_t rank, const size_t *dims, gptvq_error *err) {
  if (writer->started) return misuse(writer, name, "is declared after the first write", err);
  if (rank > GPTVQ_MAX_RANK) return misuse(writer, name, "has too many dimensions", err);
  if (strcmp(name, "__metadata__") == 0 || json_object_get(writer->header, name) != NULL)
    return misuse(writer, name, "is declared twice", err);
  size_t bytes = gptvq_tensor_type_size(type), end;
  if (bytes == 0) return misuse(writer, name, "has a type that cannot be written", err);
  bool empty = false;
  for (size_t i = 0; i < rank; i++) empty = empty || dims[i] == 0;
  for (size_t i = 0; i < rank; i++)
    if (dims[i] > INT64_MAX || (!empty && !gptvq_mul(bytes, dims[i], &bytes)))
      return misuse(writer, name, "is too large", err);
  if (empty) bytes = 0;
  if (!gptvq_add(writer->declared, bytes, &end) || end > INT64_MAX)
    return misuse(writer, name, "is too large", err);
  json_t *shape = json_array();
  int failed = shape == NULL;
  for (size_t i = 0; i < rank && !failed; i++)
    failed = json_array_append_new(shape, json_integer((json_int_t)dims[i]));
  json_t *entry = failed ? NULL
                         : json_pack("{s:s, s:O, s:[I, I]}", "dtype", gptvq_tensor_type_name(type), "shape",
                                     shape, "data_offsets", (json_int_t)writer->declared, (json_int_t)end);
  json_decref(shape);
  if (entry == NULL) return gptvq_fail_memory(err, name, 256);
  if (json_object_set_new(writer->header, name, entry) != 0) return refused(writer, name, name, err);
  writer->tensors++;
  writer->declared = end;
  return GPTVQ_OK;
}

gptvq_status gptvq_st_writer_metadata(gptvq_st_writer *writer, const char *key, const char *value,
                                      gptvq_error *err) {
  if (writer->started) return misuse(writer, key, "is metadata given after the first write", err);
  if (json_object_get(writer->metadata, key) == NULL) writer->entries++;
  if (json_object_set_new(writer->metadata, key, json_string(value)) != 0)
    return refused(writer, key, value, err);
  return GPTVQ_OK;
}

/* Read back, the text says what was declared: nothing is missing in it, and every reader can read it. */
static gptvq_status check_text(const gptvq_st_writer *writer, const char *text, gptvq_error *err) {
  json_error_t where;
  json_t *again = gptvq_json_parse(text, strlen(text), JSON_REJECT_DUPLICATES, &where);
  bool same = json_equal(again, writer->header) && json_object_size(again) == writer->tensors + 1 &&
              json_object_size(json_object_get(again, "__metadata__")) == writer->entries;
  gptvq_status status = GPTVQ_OK;
  if (again == NULL && gptvq_json_no_memory(&where))
    status = gptvq_fail_memory(err, writer->path, strlen(text));
  else if (again == NULL)
    status = gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "writing %s: its header cannot be read back: byte %d: %s",
                        writer->path, where.position, where.text);
  else if (!same)
    status = gptvq_fail(err, GPTVQ_ERROR_INTERNAL,
                        "writing %s: its header does not say what was declared for %zu tensors", writer->path,
                        writer->tensors);
  json_decref(again);
  return status;
}

/* Size and text of the header, padded with spaces so that the data begin at a multiple of 64 bytes. */
static gptvq_status start(gptvq_st_writer *writer, gptvq_error *err) {
  static const char spaces[64] = "                                                                ";
  writer->started = true;
  char *text = gptvq_json_dump(writer->header, JSON_COMPACT);
  if (text == NULL) return gptvq_fail_memory(err, writer->path, GPTVQ_ST_MAX_HEADER);
  size_t length = strlen(text), padded = gptvq_round_up(length + 8, 64) - 8;
  gptvq_status status = GPTVQ_OK;
  uint8_t size[8];
  for (unsigned i = 0; i < 8; i++) size[i] = (uint8_t)((uint64_t)padded >> (8 * i));
  if (padded > GPTVQ_ST_MAX_HEADER) {
    status = gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "writing %s: its header of %zu bytes is longer than %d",
                        writer->path, padded, GPTVQ_ST_MAX_HEADER);
    goto done;
  }
  GPTVQ_TRY_GOTO(check_text(writer, text, err));
  GPTVQ_TRY_GOTO(gptvq_writer_write(writer->file, size, sizeof size, err));
  GPTVQ_TRY_GOTO(gptvq_writer_write(writer->file, text, length, err));
  GPTVQ_TRY_GOTO(gptvq_writer_write(writer->file, spaces, padded - length, err));
done:
  free(text);
  return status;
}

gptvq_status gptvq_st_writer_write(gptvq_st_writer *writer, const void *data, size_t bytes,
                                   gptvq_error *err) {
  if (!writer->started) GPTVQ_TRY(start(writer, err));
  if (bytes > writer->declared - writer->written)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "writing %s: more than the declared %zu bytes", writer->path,
                      writer->declared);
  writer->written += bytes;
  return gptvq_writer_write(writer->file, data, bytes, err);
}

gptvq_status gptvq_st_writer_commit(gptvq_st_writer *writer, gptvq_error *err) {
  gptvq_status status = writer->started ? GPTVQ_OK : start(writer, err);
  if (status == GPTVQ_OK && writer->written != writer->declared)
    status = gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "writing %s: %zu bytes of the declared %zu", writer->path,
                        writer->written, writer->declared);
  if (status == GPTVQ_OK) {
    status = gptvq_writer_commit(writer->file, err);
    writer->file = NULL; /* released, also on failure */
  }
  gptvq_st_writer_abort(writer);
  return status;
}

void gptvq_st_writer_abort(gptvq_st_writer *writer) {
  if (writer == NULL) return;
  gptvq_writer_abort(writer->file);
  json_decref(writer->header);
  json_decref(writer->metadata);
  free(writer->path);
  free(writer);
}
