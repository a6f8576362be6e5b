/* Tensors that hold all experts of a layer, as one tensor an expert. */
#include "base/memory.h"
#include "checkpoint/checkpoint_internal.h"

#include <stdio.h>
#include <string.h>

/* A tensor of all experts: what it is called, and the parts that it becomes in each expert. */
typedef struct fused {
  const char *ending, *parts[2];
  size_t rank;
} fused;
static const fused kinds[] = {
    {".experts.gate_up_proj", {"gate_proj.weight", "up_proj.weight"}, 3},
    {".experts.down_proj", {"down_proj.weight", NULL}, 3},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static const fused *kind_of(const gptvq_tensor *tensor) {
  const size_t length = strlen(tensor->name);
  for (size_t k = 0; k < KINDS; k++) {
    const size_t ending = strlen(kinds[k].ending);
    if (tensor->rank == kinds[k].rank && length > ending &&
        strcmp(tensor->name + length - ending, kinds[k].ending) == 0)
      return &kinds[k];
  }
  return NULL;
}

static size_t part_count(const fused *kind) { return kind->parts[1] != NULL ? 2 : 1; }

/* "PREFIX.experts." of a tensor's name, its length */
static size_t stem(const gptvq_tensor *tensor, const fused *kind) {
  return strlen(tensor->name) - strlen(kind->ending) + strlen(".experts.");
}

enum { NAME_REST = 48 }; /* an expert's number and the longest part */

typedef struct room {
  gptvq_tensor *tensors;
  size_t count;
  char *names;
} room;

/* Part `p` of expert `e`: rows of the fused tensor, where they lie. */
static void add_part(room *to, const gptvq_tensor *tensor, const fused *kind, size_t e, size_t p) {
  const size_t parts = part_count(kind), bytes = tensor->bytes / tensor->dims[0] / parts;
  char *name = to->names;
  to->names += 1 + snprintf(name, stem(tensor, kind) + NAME_REST, "%.*s%zu.%s", (int)stem(tensor, kind),
                            tensor->name, e, kind->parts[p]);
  gptvq_tensor *part = &to->tensors[to->count++];
  *part = *tensor;
  part->name = name;
  part->rank = 2;
  part->dims[0] = tensor->dims[1] / parts;
  part->dims[1] = tensor->dims[2];
  part->count = part->dims[0] * part->dims[1];
  part->bytes = bytes;
  part->file_bytes = tensor->file_bytes / tensor->dims[0] / parts;
  part->data = tensor->data + (e * parts + p) * bytes;
}

/* What the fused tensors become: tensors in all, bytes of their names. */
static gptvq_status measure(const gptvq_checkpoint *checkpoint, size_t *count, size_t *names,
                            gptvq_error *err) {
  *count = *names = 0;
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    const gptvq_tensor *tensor = &checkpoint->tensors[t];
    const fused *kind = kind_of(tensor);
    if (kind == NULL) continue;
    if (tensor->count == 0 || tensor->dims[1] % part_count(kind) != 0)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s: tensor %s of %zu x %zu x %zu is not the experts' gate and up side by side",
                        tensor->file, tensor->name, tensor->dims[0], tensor->dims[1], tensor->dims[2]);
    const size_t parts = gptvq_saturated_size(tensor->dims[0], part_count(kind));
    *count = gptvq_saturated_sum(*count, parts);
    *names = gptvq_saturated_sum(*names, gptvq_saturated_size(parts, stem(tensor, kind) + NAME_REST));
  }
  return GPTVQ_OK;
}

static gptvq_status check_names(const gptvq_checkpoint *checkpoint, gptvq_error *err) {
  for (size_t t = 1; t < checkpoint->tensor_count; t++)
    if (strcmp(checkpoint->tensors[t - 1].name, checkpoint->tensors[t].name) == 0)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s: tensor %s is there by itself and in the tensor of all experts",
                        checkpoint->tensors[t].file, checkpoint->tensors[t].name);
  return GPTVQ_OK;
}

gptvq_status gptvq_checkpoint_split_experts(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  size_t count, names;
  GPTVQ_TRY(measure(checkpoint, &count, &names, err));
  if (count == 0) return GPTVQ_OK;
  const size_t room_for = gptvq_saturated_sum(checkpoint->tensor_count, count);
  room to = {.tensors = gptvq_alloc(room_for, sizeof *to.tensors), .names = gptvq_alloc(names, 1)};
  if (to.tensors == NULL || to.names == NULL) {
    free(to.tensors);
    free(to.names);
    return gptvq_fail_memory(err, "tensors of experts", gptvq_saturated_size(room_for, sizeof *to.tensors));
  }
  free(checkpoint->expert_names);
  checkpoint->expert_names = to.names;
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    const gptvq_tensor *tensor = &checkpoint->tensors[t];
    const fused *kind = kind_of(tensor);
    if (kind == NULL) to.tensors[to.count++] = *tensor;
    for (size_t e = 0; kind != NULL && e < tensor->dims[0]; e++)
      for (size_t p = 0; p < part_count(kind); p++) add_part(&to, tensor, kind, e, p);
  }
  free(checkpoint->tensors);
  checkpoint->tensors = to.tensors;
  checkpoint->tensor_count = to.count;
  gptvq_checkpoint_sort(checkpoint);
  return check_names(checkpoint, err);
}
