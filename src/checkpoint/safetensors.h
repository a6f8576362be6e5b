/* checkpoint/safetensors.h: one safetensors file, mapped and checked; and the JSON files beside it.
 *
 * A file is: u64 little-endian header size n; n bytes of JSON {NAME: {"dtype", "shape", "data_offsets":
 * [begin, end)}, …,
 * "__metadata__": {KEY: TEXT}}, padded with spaces; then the data, which the tensors cover completely and
 * without overlap. */
#ifndef GPTVQ_CHECKPOINT_SAFETENSORS_H
#define GPTVQ_CHECKPOINT_SAFETENSORS_H

#include "base/file.h"
#include "checkpoint/checkpoint.h"

/* Names and data of the tensors point into `header` and `mapping`; file points to `path`. Sorted by offset.
 */
typedef struct gptvq_st_file {
  char *path;
  gptvq_mapping mapping;
  json_t *header;
  const json_t *metadata; /* object of strings inside header, or NULL */
  gptvq_tensor *tensors;
  size_t count;
} gptvq_st_file;

/* Maps and validates the whole header. GPTVQ_ERROR_IO: cannot be opened; GPTVQ_ERROR_FORMAT: anything wrong
 * in it, with file, tensor and both numbers; GPTVQ_ERROR_UNSUPPORTED: a dtype that is not known. On failure
 * nothing needs to be closed. */
gptvq_status gptvq_st_open(const char *path, gptvq_st_file *out, gptvq_error *err);
void gptvq_st_close(gptvq_st_file *file); /* a zeroed or already closed file is fine */

/* A JSON file that holds one object (duplicate keys are refused). The caller owns *out. */
gptvq_status gptvq_load_json(const char *path, size_t max_size, json_t **out, gptvq_error *err);

/* "3 x 4" into a caller's buffer, for messages; "a scalar" for rank 0. Returns text. */
enum { GPTVQ_SHAPE_TEXT = 192 };
const char *gptvq_shape_text(size_t rank, const size_t *dims, char text[GPTVQ_SHAPE_TEXT]);

/* Sizes of the header and of a rank that readers accept. */
enum { GPTVQ_ST_MAX_HEADER = 100000000 };

#endif
