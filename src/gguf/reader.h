/* gguf/reader.h: a GGUF file, version 2 or 3 (ggml's docs/gguf.md), mapped and checked: metadata, then
 * tensors. Little-endian. */
#ifndef GPTVQ_GGUF_READER_H
#define GPTVQ_GGUF_READER_H

#include "base/file.h"
#include "gguf/ggml.h"

/* Types of metadata. */
typedef enum gptvq_gguf_kind {
  GPTVQ_GGUF_U8,
  GPTVQ_GGUF_I8,
  GPTVQ_GGUF_U16,
  GPTVQ_GGUF_I16,
  GPTVQ_GGUF_U32,
  GPTVQ_GGUF_I32,
  GPTVQ_GGUF_F32,
  GPTVQ_GGUF_BOOL,
  GPTVQ_GGUF_TEXT,
  GPTVQ_GGUF_ARRAY,
  GPTVQ_GGUF_U64,
  GPTVQ_GGUF_I64,
  GPTVQ_GGUF_F64,
  GPTVQ_GGUF_KINDS
} gptvq_gguf_kind;

typedef struct gptvq_gguf_value {
  char *key;
  gptvq_gguf_kind kind, item; /* item: of an array */
  size_t count;               /* items of an array, bytes of a text */
  const uint8_t *data;        /* the number, the text, or the first item */
} gptvq_gguf_value;

enum { GPTVQ_GGUF_RANK = 4 };
typedef struct gptvq_gguf_entry { /* a tensor */
  char *name;
  gptvq_ggml_type type;
  size_t rank, dims[GPTVQ_GGUF_RANK]; /* outermost first; none is 0, the last is whole blocks */
  size_t count, bytes;
  const uint8_t *data;
} gptvq_gguf_entry;

typedef struct gptvq_gguf_reader {
  char *path;
  gptvq_mapping mapping;
  gptvq_gguf_value *values;
  gptvq_gguf_entry *entries;
  size_t value_count, entry_count;
} gptvq_gguf_reader;

/* Is it a file that begins as GGUF files do? */
bool gptvq_is_gguf(const char *path);

/* GPTVQ_ERROR_IO: cannot be opened; GPTVQ_ERROR_FORMAT: anything wrong in it, with file, key or tensor and
 * both numbers; GPTVQ_ERROR_UNSUPPORTED: another version, a type of tensors that is not read, one of several
 * files of a model. On failure nothing needs to be closed. */
gptvq_status gptvq_gguf_open(const char *path, gptvq_gguf_reader *out, gptvq_error *err);
void gptvq_gguf_close(gptvq_gguf_reader *reader); /* a zeroed or already closed one is fine */

const gptvq_gguf_value *gptvq_gguf_find(const gptvq_gguf_reader *reader, const char *key); /* or NULL */
const gptvq_gguf_entry *gptvq_gguf_find_entry(const gptvq_gguf_reader *reader, const char *name);

bool gptvq_gguf_is_negative(const gptvq_gguf_value *value); /* a signed whole number below 0 */

/* Each leaves *out as it is where the key is absent; GPTVQ_ERROR_FORMAT for another type or, where a range is
 * given, a value outside of it. */
gptvq_status gptvq_gguf_get_size(const gptvq_gguf_reader *reader, const char *key, size_t low, size_t high,
                                 size_t *out, gptvq_error *err);
gptvq_status gptvq_gguf_get_number(const gptvq_gguf_reader *reader, const char *key, double *out,
                                   gptvq_error *err); /* with the fewest digits that make the same fp32 */
gptvq_status gptvq_gguf_get_bool(const gptvq_gguf_reader *reader, const char *key, bool *out,
                                 gptvq_error *err);
/* Not NUL-terminated, in the mapping. */
gptvq_status gptvq_gguf_get_text(const gptvq_gguf_reader *reader, const char *key, const char **out,
                                 size_t *size, gptvq_error *err);
/* An array whose items are of one of the kinds, *out NULL where it is absent. */
gptvq_status gptvq_gguf_get_array(const gptvq_gguf_reader *reader, const char *key, gptvq_gguf_kind item,
                                  const gptvq_gguf_value **out, gptvq_error *err);

/* The text at *at inside of an array's data; *at becomes the next one. */
const char *gptvq_gguf_next_text(const uint8_t **at, size_t *size);
uint32_t gptvq_gguf_u32_at(const uint8_t *at);
float gptvq_gguf_f32_at(const uint8_t *at);

#endif
