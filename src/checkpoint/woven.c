/* Tensors that hold the rows of several matrices group by group, as one tensor a matrix. */
#include "base/memory.h"
#include "base/threads.h"
#include "checkpoint/checkpoint_internal.h"
#include "checkpoint/names.h"

#include <stdio.h>
#include <string.h>

static const gptvq_woven *kind_of(const gptvq_woven *kinds, size_t count, const gptvq_tensor *tensor) {
  const size_t length = strlen(tensor->name);
  if (tensor->rank != 2 || strncmp(tensor->name, GPTVQ_NAME_BLOCKS, strlen(GPTVQ_NAME_BLOCKS)) != 0)
    return NULL;
  for (size_t k = 0; k < count; k++) {
    const size_t ending = strlen(kinds[k].ending);
    if (length > ending && strcmp(tensor->name + length - ending, kinds[k].ending) == 0) return &kinds[k];
  }
  return NULL;
}

/* Rows of a group that sections first … last - 1 have. */
static size_t rows_between(const gptvq_woven *kind, size_t first, size_t last) {
  size_t rows = 0;
  for (size_t i = first; i < last; i++) rows += kind->rows[i];
  return rows;
}

static gptvq_status check(const gptvq_tensor *tensor, const gptvq_woven *kind, gptvq_error *err) {
  const size_t rows = kind->groups * rows_between(kind, 0, GPTVQ_WOVEN_SECTIONS);
  char shape[GPTVQ_SHAPE_TEXT];
  if (tensor->dims[0] == rows && gptvq_tensor_type_size(tensor->type) > 0) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                    "%s: tensor %s of shape %s and type %s cannot be taken apart: config.json describes %zu "
                    "groups of %zu rows",
                    tensor->file, tensor->name, gptvq_shape_text(tensor->rank, tensor->dims, shape),
                    gptvq_tensor_type_name(tensor->type), kind->groups, rows / kind->groups);
}

typedef struct split {
  const gptvq_tensor *tensor;
  const gptvq_woven *kind;
  char *values; /* section after section, each with its rows of all groups */
} split;

static void take_groups(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const split *s = context;
  const size_t line = s->tensor->dims[1] * gptvq_tensor_type_size(s->tensor->type);
  const size_t group = rows_between(s->kind, 0, GPTVQ_WOVEN_SECTIONS);
  for (size_t g = begin; g < end; g++)
    for (size_t i = 0; i < GPTVQ_WOVEN_SECTIONS; i++) {
      const size_t before = rows_between(s->kind, 0, i), rows = s->kind->rows[i];
      if (rows > 0)
        memcpy(s->values + (s->kind->groups * before + g * rows) * line,
               s->tensor->data + (g * group + before) * line, rows * line);
    }
}

/* The two matrices of the tensor, whose rows lie at s->values; their names are put at *names. */
static void add_parts(const split *s, char **names, gptvq_tensor added[2]) {
  const gptvq_woven *kind = s->kind;
  const size_t line = s->tensor->dims[1] * gptvq_tensor_type_size(s->tensor->type);
  const int stem = (int)(strlen(s->tensor->name) - strlen(kind->ending));
  const size_t ends[3] = {0, kind->first_sections, GPTVQ_WOVEN_SECTIONS};
  for (size_t p = 0; p < 2; p++) {
    gptvq_tensor *part = &added[p];
    *part = *s->tensor;
    part->name = *names;
    *names += 1 + sprintf(*names, "%.*s%s", stem, s->tensor->name, kind->parts[p]);
    part->dims[0] = kind->groups * rows_between(kind, ends[p], ends[p + 1]);
    part->count = part->dims[0] * part->dims[1];
    part->bytes = part->dims[0] * line;
    part->file_bytes = s->tensor->file_bytes / s->tensor->dims[0] * part->dims[0];
    part->data = (const uint8_t *)s->values + kind->groups * rows_between(kind, 0, ends[p]) * line;
  }
}

gptvq_status gptvq_checkpoint_unweave(gptvq_checkpoint *checkpoint, const gptvq_woven *kinds, size_t count,
                                      gptvq_error *err) {
  size_t found = 0, name_bytes = 0, value_bytes = 0;
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    const gptvq_tensor *tensor = &checkpoint->tensors[t];
    const gptvq_woven *kind = kind_of(kinds, count, tensor);
    if (kind == NULL) continue;
    GPTVQ_TRY(check(tensor, kind, err));
    found++;
    name_bytes += 2 * strlen(tensor->name) + strlen(kind->parts[0]) + strlen(kind->parts[1]) + 2;
    value_bytes = gptvq_saturated_sum(value_bytes, gptvq_round_up(tensor->bytes, 64));
  }
  if (found == 0) return GPTVQ_OK;
  const size_t total = checkpoint->tensor_count + found;
  gptvq_tensor *tensors = gptvq_alloc(total, sizeof *tensors);
  char *names = checkpoint->woven_names = gptvq_alloc(name_bytes, 1);
  char *values = checkpoint->woven_values = gptvq_alloc(value_bytes, 1);
  if (tensors == NULL || names == NULL || values == NULL) {
    free(tensors);
    return gptvq_fail_memory(err, "matrices whose rows lie in groups", value_bytes);
  }
  size_t made = 0;
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    split s = {&checkpoint->tensors[t], kind_of(kinds, count, &checkpoint->tensors[t]), values};
    if (s.kind == NULL) {
      tensors[made++] = checkpoint->tensors[t];
      continue;
    }
    values += gptvq_round_up(s.tensor->bytes, 64);
    gptvq_parallel_for(s.kind->groups, 1, take_groups, &s);
    add_parts(&s, &names, &tensors[made]);
    made += 2;
  }
  free(checkpoint->tensors);
  checkpoint->tensors = tensors;
  checkpoint->tensor_count = made;
  gptvq_checkpoint_sort(checkpoint);
  return gptvq_checkpoint_check_names(checkpoint, err);
}
