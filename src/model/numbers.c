/* What is said when the numbers of a running model stop being finite. */
#include "checkpoint/names.h"
#include "model/model_internal.h"

#include <stdio.h>
#include <string.h>

gptvq_status gptvq_fail_numbers(const gptvq_model *model, const gptvq_block *block, const char *part,
                                gptvq_error *err) {
  static const char layers[] = GPTVQ_NAME_BLOCKS;
  char prefix[64] = "", where[96] = "";
  if (block != NULL) {
    (void)snprintf(prefix, sizeof prefix, "%s%zu.", layers, block->index);
    (void)snprintf(where, sizeof where, " of block %zu (%s%zu)", block->index, layers, block->index);
  }
  for (size_t i = 0; i < gptvq_checkpoint_tensor_count(model->checkpoint); i++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(model->checkpoint, i);
    bool inside = block != NULL ? strncmp(tensor->name, prefix, strlen(prefix)) == 0
                                : strncmp(tensor->name, layers, strlen(layers)) != 0;
    if (inside) GPTVQ_TRY(gptvq_tensor_check_finite(tensor, err));
  }
  return gptvq_fail(
      err, GPTVQ_ERROR_NUMERIC,
      "%s: %s%s gives NaN, infinity or numbers too large to go on with: its weights are finite, "
      "but too large",
      gptvq_checkpoint_folder(model->checkpoint), part, where);
}
