/* export/gguf_file.h: writing a GGUF file, version 3 (ggml's docs/gguf.md): metadata, tensors declared, then
 * their bytes in the same order. Appears whole on commit. Lengths in bytes unless said otherwise. */
#ifndef GPTVQ_EXPORT_GGUF_FILE_H
#define GPTVQ_EXPORT_GGUF_FILE_H

#include "base/file.h"
#include "gguf/ggml.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gptvq_gguf gptvq_gguf;
gptvq_status gptvq_gguf_create(const char *path, gptvq_gguf **out, gptvq_error *err);

/* Metadata. Out of memory is remembered and reported by the first write. */
void gptvq_gguf_u32(gptvq_gguf *file, const char *key, uint32_t value);
void gptvq_gguf_f32(gptvq_gguf *file, const char *key, float value);
void gptvq_gguf_bool(gptvq_gguf *file, const char *key, bool value);
void gptvq_gguf_text(gptvq_gguf *file, const char *key, const char *text, size_t size);
/* `count` items follow, each by one call of the item's function. */
void gptvq_gguf_texts(gptvq_gguf *file, const char *key, size_t count);
void gptvq_gguf_text_item(gptvq_gguf *file, const char *text, size_t size);
void gptvq_gguf_i32s(gptvq_gguf *file, const char *key, const int32_t *values, size_t count);
void gptvq_gguf_f32s(gptvq_gguf *file, const char *key, const float *values, size_t count);

/* dims: outermost first, as everywhere here (GGUF has them the other way round); rank 1 … 3. */
void gptvq_gguf_declare(gptvq_gguf *file, const char *name, gptvq_ggml_type type, size_t rank,
                        const size_t *dims);

/* The next declared tensor's bytes, in one or more calls; the first one ends the declarations. */
gptvq_status gptvq_gguf_write(gptvq_gguf *file, const void *data, size_t bytes, gptvq_error *err);
/* Both release the writer. Commit fails (GPTVQ_ERROR_INTERNAL) when bytes are missing. */
gptvq_status gptvq_gguf_commit(gptvq_gguf *file, gptvq_error *err);
void gptvq_gguf_abort(gptvq_gguf *file); /* NULL is fine */

#endif
