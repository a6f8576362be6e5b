/* checkpoint/checkpoint_internal.h: what the files of this part share about an open folder. */
#ifndef GPTVQ_CHECKPOINT_INTERNAL_H
#define GPTVQ_CHECKPOINT_INTERNAL_H

#include "checkpoint/safetensors.h"

struct gptvq_checkpoint {
  char *folder;
  const gptvq_callbacks *callbacks; /* for warnings while it is opened, else NULL */
  json_t *config, *generation;
  gptvq_st_file *files;
  size_t file_count;
  gptvq_tensor *tensors; /* of all files, sorted by name; names and files point into `files` */
  size_t tensor_count;
};

/* A __metadata__ text of the file that holds the tensor, or NULL. */
const char *gptvq_checkpoint_metadata(const gptvq_checkpoint *checkpoint, const gptvq_tensor *tensor,
                                      const char *key);

#endif
