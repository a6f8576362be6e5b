#include "checkpoint/checkpoint_internal.h"
#include "checkpoint/packed_parts.h"
#include "base/json.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

static gptvq_status declare_description(gptvq_st_writer *writer, const char *name,
                                        const gptvq_packed_shape *s, const char *method, double error,
                                        gptvq_error *err) {
  static const char *const formats[] = {
      [GPTVQ_PACKED_VQ] = "vq", [GPTVQ_PACKED_UNIFORM] = "uniform", [GPTVQ_PACKED_TRELLIS] = "trellis"};
  json_t *json = json_pack("{s:s, s:i, s:I, s:I, s:i, s:i, s:I, s:I, s:i, s:i, s:b, s:s, s:o}", "format",
                           formats[s->kind], "version",
                           s->kind == GPTVQ_PACKED_TRELLIS ? GPTVQ_FORMAT_VERSION_TRELLIS
                           : s->svd_rank > 0               ? GPTVQ_FORMAT_VERSION_FACTORED
                                                           : GPTVQ_FORMAT_VERSION_PLAIN,
                           "rows", (json_int_t)s->rows, "cols", (json_int_t)s->cols, "dim", (int)s->dim,
                           "index_bits", (int)s->index_bits, "group_rows", (json_int_t)s->group_rows,
                           "group_cols", (json_int_t)s->group_cols, "codebook_bits",
                           s->kind == GPTVQ_PACKED_UNIFORM ? 0 : (int)s->codebook_bits, "scale_block",
                           (int)s->scale_block, "permuted", (int)s->permuted, "method", method, "error",
                           isfinite(error) ? json_real(error) : json_null());
  if (json != NULL && s->svd_rank > 0 &&
      json_object_set_new(json, "svd_rank", json_integer((json_int_t)s->svd_rank)) != 0) {
    json_decref(json);
    json = NULL;
  }
  char *text = json != NULL ? gptvq_json_dump(json, JSON_COMPACT) : NULL,
       *key = gptvq_part_name(GPTVQ_PACKED_KEY, name);
  gptvq_status status = text == NULL || key == NULL ? gptvq_fail_memory(err, name, 512)
                                                    : gptvq_st_writer_metadata(writer, key, text, err);
  free(key);
  free(text);
  json_decref(json);
  return status;
}

gptvq_status gptvq_packed_declare(gptvq_st_writer *writer, const char *name, const gptvq_packed *packed,
                                  const char *method, double error, gptvq_error *err) {
  gptvq_packed_info info;
  if (strlen(method) >= sizeof info.method)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "%s: the method's name %s is too long", name, method);
  GPTVQ_TRY(gptvq_packed_check(&packed->shape, name, err));
  GPTVQ_TRY(declare_description(writer, name, &packed->shape, method, error, err));
  gptvq_packed_part parts[GPTVQ_PART_COUNT];
  gptvq_packed_parts(&packed->shape, parts);
  for (int i = 0; i < GPTVQ_PART_COUNT; i++) {
    if (!parts[i].present) continue;
    if (gptvq_packed_part_data(packed, (enum gptvq_part)i) == NULL)
      return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "%s%s is not there to be written", name, parts[i].suffix);
    char *full = gptvq_part_name(name, parts[i].suffix);
    if (full == NULL) return gptvq_fail_memory(err, name, strlen(name) + 32);
    gptvq_status status =
        gptvq_st_writer_declare(writer, full, parts[i].type, parts[i].rank, parts[i].dims, err);
    free(full);
    GPTVQ_TRY(status);
  }
  return GPTVQ_OK;
}

/* u32 in memory, u16 in the file */
static gptvq_status write_narrow(gptvq_st_writer *writer, const uint32_t *values, size_t count,
                                 gptvq_error *err) {
  uint16_t chunk[512];
  const size_t room = sizeof chunk / sizeof chunk[0];
  for (size_t at = 0; at < count; at += room) {
    size_t n = gptvq_min_size(room, count - at);
    for (size_t i = 0; i < n; i++) chunk[i] = (uint16_t)values[at + i];
    GPTVQ_TRY(gptvq_st_writer_write(writer, chunk, n * sizeof chunk[0], err));
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_packed_write(gptvq_st_writer *writer, const gptvq_packed *packed, gptvq_error *err) {
  gptvq_packed_part parts[GPTVQ_PART_COUNT];
  gptvq_packed_parts(&packed->shape, parts);
  for (int i = 0; i < GPTVQ_PART_COUNT; i++) {
    const gptvq_packed_part *part = &parts[i];
    if (!part->present) continue;
    if (i == GPTVQ_PART_PERMUTATION && part->type == GPTVQ_T_U16) {
      GPTVQ_TRY(write_narrow(writer, packed->permutation, packed->shape.cols, err));
      continue;
    }
    size_t bytes = gptvq_tensor_type_size(part->type);
    for (size_t d = 0; d < part->rank; d++) bytes *= part->dims[d];
    GPTVQ_TRY(gptvq_st_writer_write(writer, gptvq_packed_part_data(packed, (enum gptvq_part)i), bytes, err));
  }
  return GPTVQ_OK;
}
