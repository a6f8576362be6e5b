/* gguf/model_file.h: the small files of a model: those of a folder, or what a GGUF file holds in their place.
 * There a path is that of the GGUF file with "/NAME" behind it. */
#ifndef GPTVQ_GGUF_MODEL_FILE_H
#define GPTVQ_GGUF_MODEL_FILE_H

#include "base/file.h"

/* Names that a GGUF file may have, but for config.json; ends with NULL. */
extern const char *const gptvq_gguf_side_names[];

/* As gptvq_read_file and gptvq_path_exists, of both. */
gptvq_status gptvq_model_file_read(const char *path, size_t max_size, char **text, size_t *size,
                                   gptvq_error *err);
bool gptvq_model_file_exists(const char *path);

#endif
