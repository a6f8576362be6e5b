/* checkpoint/checkpoint_internal.h: what the files of this part share about an open folder. */
#ifndef GPTVQ_CHECKPOINT_INTERNAL_H
#define GPTVQ_CHECKPOINT_INTERNAL_H

#include "checkpoint/safetensors.h"
#include "gguf/reader.h"

struct gptvq_checkpoint {
  char *folder;
  const gptvq_callbacks *callbacks; /* for warnings while it is opened, else NULL */
  json_t *config, *generation;
  gptvq_st_file *files;
  size_t file_count;
  gptvq_tensor *tensors; /* of all files, sorted by name; names and files point into `files` */
  size_t tensor_count;
  char *names;                      /* of tensors that go by another name than in their file, or NULL */
  char *expert_names;               /* of those that gptvq_checkpoint_split_experts made, or NULL */
  char *expert_values;              /* what of these does not lie in files as it is, or NULL */
  char *woven_names, *woven_values; /* the same of gptvq_checkpoint_unweave */
  float *narrowed;                  /* values of all F64 tensors, or NULL */
  uint16_t *widened;                /* of all fp8 matrices, as bf16, or NULL */
  gptvq_gguf_reader gguf;           /* zeroed, or the file in the place of a folder */
  char *gguf_names, *gguf_values;   /* of its tensors, or NULL */
};

/* For the end of a message about a folder that lacks something: "; it holds NAME, NAME and 3 more: ADVICE",
 * or nothing. `instead`, unless NULL, is the advice where the files found are safetensors. Returns text. */
enum { GPTVQ_HINT_TEXT = 800 }; /* two names of any length, the advice */
const char *gptvq_folder_hint(const char *folder, const char *instead, char text[GPTVQ_HINT_TEXT]);

/* The tensors, collected but not yet sorted, get the names and types that readers expect (checkpoint.h).
 * GPTVQ_ERROR_MEMORY; GPTVQ_ERROR_NUMERIC naming an F64 tensor with a value that fp32 does not hold. */
gptvq_status gptvq_standard_tensors(gptvq_checkpoint *checkpoint, gptvq_error *err);

/* Matrices of fp8 (e4m3) numbers with NAME_scale_inv, a scale for each block (quantization_config's
 * weight_block_size), become bf16 in memory of the checkpoint's own; their scales are gone. The tensors are
 * sorted. GPTVQ_ERROR_MEMORY; GPTVQ_ERROR_UNSUPPORTED: there are no such scales; GPTVQ_ERROR_FORMAT: of
 * another shape or type. */
gptvq_status gptvq_widen_fp8(gptvq_checkpoint *checkpoint, gptvq_error *err);

/* The tensors by name again. */
void gptvq_checkpoint_sort(gptvq_checkpoint *checkpoint);

/* GPTVQ_ERROR_FORMAT: two tensors, sorted, have one name. */
gptvq_status gptvq_checkpoint_check_names(const gptvq_checkpoint *checkpoint, gptvq_error *err);

/* Where element i of a tensor is, for messages: "row 3, column 5" of a matrix, "element 7 of 64". Returns
 * text. */
enum { GPTVQ_PLACE_TEXT = 64 };
const char *gptvq_element_place(const gptvq_tensor *tensor, size_t i, char text[GPTVQ_PLACE_TEXT]);

/* A __metadata__ text of the file that holds the tensor, or NULL. */
const char *gptvq_checkpoint_metadata(const gptvq_checkpoint *checkpoint, const gptvq_tensor *tensor,
                                      const char *key);

#endif
