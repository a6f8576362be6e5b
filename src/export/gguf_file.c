#include "export/gguf_file.h"
#include "text/bytes.h"

#include <stdlib.h>

enum { VERSION = 3, ALIGNMENT = 32 };
enum { TYPE_U32 = 4, TYPE_I32 = 5, TYPE_F32 = 6, TYPE_BOOL = 7, TYPE_STRING = 8, TYPE_ARRAY = 9 };

struct gptvq_gguf {
  gptvq_writer *writer;
  gptvq_bytes keys, infos;
  uint64_t key_count, data_bytes; /* data_bytes: of the declared tensors, padded */
  size_t *sizes;                  /* bytes of each declared tensor */
  size_t count, capacity;
  size_t next, written; /* tensor that is being written, and how much of it is there */
  bool started, failed;
};

static uint64_t padding(uint64_t size) { return (ALIGNMENT - size % ALIGNMENT) % ALIGNMENT; }

gptvq_status gptvq_gguf_create(const char *path, gptvq_gguf **out, gptvq_error *err) {
  gptvq_gguf *file = calloc(1, sizeof *file);
  *out = NULL;
  if (file == NULL) return gptvq_fail_memory(err, path, sizeof *file);
  gptvq_status status = gptvq_writer_open(path, &file->writer, err);
  if (status == GPTVQ_OK) *out = file;
  else free(file);
  return status;
}

static void put_u32(gptvq_bytes *bytes, uint32_t value) {
  unsigned char b[4];
  for (int i = 0; i < 4; i++) b[i] = (unsigned char)(value >> 8 * i);
  gptvq_bytes_append(bytes, b, sizeof b);
}
static void put_u64(gptvq_bytes *bytes, uint64_t value) {
  put_u32(bytes, (uint32_t)value);
  put_u32(bytes, (uint32_t)(value >> 32));
}
static void put_f32(gptvq_bytes *bytes, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  put_u32(bytes, bits);
}
static void put_text(gptvq_bytes *bytes, const char *text, size_t size) {
  put_u64(bytes, size);
  gptvq_bytes_append(bytes, text, size);
}
static void put_key(gptvq_gguf *file, const char *key, uint32_t type) {
  put_text(&file->keys, key, strlen(key));
  put_u32(&file->keys, type);
  file->key_count++;
}
static void put_array(gptvq_gguf *file, const char *key, uint32_t type, size_t count) {
  put_key(file, key, TYPE_ARRAY);
  put_u32(&file->keys, type);
  put_u64(&file->keys, count);
}

void gptvq_gguf_u32(gptvq_gguf *file, const char *key, uint32_t value) {
  put_key(file, key, TYPE_U32);
  put_u32(&file->keys, value);
}
void gptvq_gguf_f32(gptvq_gguf *file, const char *key, float value) {
  put_key(file, key, TYPE_F32);
  put_f32(&file->keys, value);
}
void gptvq_gguf_bool(gptvq_gguf *file, const char *key, bool value) {
  put_key(file, key, TYPE_BOOL);
  gptvq_bytes_append(&file->keys, value ? "\1" : "\0", 1);
}
void gptvq_gguf_text(gptvq_gguf *file, const char *key, const char *text, size_t size) {
  put_key(file, key, TYPE_STRING);
  put_text(&file->keys, text, size);
}
void gptvq_gguf_texts(gptvq_gguf *file, const char *key, size_t count) {
  put_array(file, key, TYPE_STRING, count);
}
void gptvq_gguf_text_item(gptvq_gguf *file, const char *text, size_t size) {
  put_text(&file->keys, text, size);
}
void gptvq_gguf_i32s(gptvq_gguf *file, const char *key, const int32_t *values, size_t count) {
  put_array(file, key, TYPE_I32, count);
  for (size_t i = 0; i < count; i++) put_u32(&file->keys, (uint32_t)values[i]);
}
void gptvq_gguf_f32s(gptvq_gguf *file, const char *key, const float *values, size_t count) {
  put_array(file, key, TYPE_F32, count);
  for (size_t i = 0; i < count; i++) put_f32(&file->keys, values[i]);
}

static bool push(gptvq_gguf *file, size_t bytes) {
  if (file->count == file->capacity) {
    size_t capacity = 2 * file->capacity + 64;
    size_t *more = realloc(file->sizes, capacity * sizeof *more);
    if (more == NULL) return false;
    file->sizes = more;
    file->capacity = capacity;
  }
  file->sizes[file->count++] = bytes;
  return true;
}

void gptvq_gguf_declare(gptvq_gguf *file, const char *name, gptvq_ggml_type type, size_t rank,
                        const size_t *dims) {
  size_t bytes = gptvq_ggml_row_bytes(type, dims[rank - 1]);
  put_text(&file->infos, name, strlen(name));
  put_u32(&file->infos, (uint32_t)rank);
  for (size_t i = rank; i-- > 0;) put_u64(&file->infos, dims[i]);
  put_u32(&file->infos, (uint32_t)type);
  put_u64(&file->infos, file->data_bytes);
  for (size_t i = 0; i + 1 < rank; i++) bytes *= dims[i];
  file->failed = !push(file, bytes) || file->failed;
  file->data_bytes += bytes + padding(bytes);
}

static uint64_t head_bytes(const gptvq_gguf *file) {
  return 24 + (uint64_t)file->keys.size + file->infos.size;
}

static gptvq_status pad(gptvq_gguf *file, uint64_t size, gptvq_error *err) {
  static const char zeros[ALIGNMENT];
  return gptvq_writer_write(file->writer, zeros, (size_t)padding(size), err);
}

static gptvq_status start(gptvq_gguf *file, gptvq_error *err) {
  gptvq_bytes head = {0};
  gptvq_status status = GPTVQ_OK;
  file->started = true;
  gptvq_bytes_append(&head, "GGUF", 4);
  put_u32(&head, VERSION);
  put_u64(&head, file->count);
  put_u64(&head, file->key_count);
  if (file->failed || file->keys.failed || file->infos.failed || head.failed)
    status = gptvq_fail_memory(err, "the GGUF metadata", file->keys.size);
  if (status == GPTVQ_OK) status = gptvq_writer_write(file->writer, head.data, head.size, err);
  if (status == GPTVQ_OK) status = gptvq_writer_write(file->writer, file->keys.data, file->keys.size, err);
  if (status == GPTVQ_OK) status = gptvq_writer_write(file->writer, file->infos.data, file->infos.size, err);
  if (status == GPTVQ_OK) status = pad(file, head_bytes(file), err);
  gptvq_bytes_free(&head);
  return status;
}

gptvq_status gptvq_gguf_write(gptvq_gguf *file, const void *data, size_t bytes, gptvq_error *err) {
  if (!file->started) GPTVQ_TRY(start(file, err));
  if (file->next == file->count || bytes > file->sizes[file->next] - file->written)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "more bytes than the GGUF tensors that were declared");
  GPTVQ_TRY(gptvq_writer_write(file->writer, data, bytes, err));
  file->written += bytes;
  if (file->written < file->sizes[file->next]) return GPTVQ_OK;
  GPTVQ_TRY(pad(file, file->written, err));
  file->next++;
  file->written = 0;
  return GPTVQ_OK;
}

static void release(gptvq_gguf *file) {
  gptvq_bytes_free(&file->keys);
  gptvq_bytes_free(&file->infos);
  free(file->sizes);
  free(file);
}

gptvq_status gptvq_gguf_commit(gptvq_gguf *file, gptvq_error *err) {
  gptvq_status status =
      file->started && file->next == file->count
          ? gptvq_writer_commit(file->writer, err)
          : gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "a GGUF tensor that was declared was not written");
  if (!file->started || file->next != file->count) gptvq_writer_abort(file->writer);
  release(file);
  return status;
}

void gptvq_gguf_abort(gptvq_gguf *file) {
  if (file == NULL) return;
  gptvq_writer_abort(file->writer);
  release(file);
}
