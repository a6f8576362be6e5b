/* The account of tensors that are not the block linears': matrices that stay as they are, and what the model
 * leaves out. */
#include "base/memory.h"
#include "base/sized.h"
#include "model/loader.h"

gptvq_status gptvq_note_tensors(gptvq_model *model, const gptvq_tensor *tensor, size_t tensors, bool used,
                                const char *why, gptvq_error *err) {
  gptvq_model_parts *parts = model->owned;
  if (parts->other_count == parts->other_room) {
    const size_t room = parts->other_room > 0 ? 2 * parts->other_room : 8;
    gptvq_other_info *more = realloc(parts->others, room * sizeof *more);
    if (more == NULL) return gptvq_fail_memory(err, "the account of tensors", room * sizeof *more);
    parts->others = more;
    parts->other_room = room;
  }
  const char *name = gptvq_model_name(model, tensor->name);
  if (name == NULL) return gptvq_fail_memory(err, "tensor names", 1);
  parts->others[parts->other_count++] = (gptvq_other_info){
      .name = name,
      .why = why,
      .used = used,
      .rows = tensor->rank > 0 ? tensor->dims[0] : 1,
      .cols = tensor->rank > 1 && tensor->dims[0] > 0 ? tensor->count / tensor->dims[0] : 1,
      .bytes = tensor->file_bytes,
      .tensors = tensors};
  return GPTVQ_OK;
}

size_t gptvq_model_other_count(const gptvq_model *model) {
  return ((const gptvq_model_parts *)model->owned)->other_count;
}

void gptvq_model_get_other(const gptvq_model *model, size_t index, gptvq_other_info *info) {
  const gptvq_model_parts *parts = model->owned;
  gptvq_other_info own = {.name = "", .why = ""};
  if (index < parts->other_count) own = parts->others[index];
  gptvq_give_struct(&own, sizeof own, info);
}
