/* export/gguf_tokenizer.h: a model folder's tokenizer as GGUF metadata (llama.cpp's gguf-py, constants.py).
 */
#ifndef GPTVQ_EXPORT_GGUF_TOKENIZER_H
#define GPTVQ_EXPORT_GGUF_TOKENIZER_H

#include "export/gguf_file.h"

/* tokenizer.ggml.* and tokenizer.chat_template from FOLDER's tokenizer.json, tokenizer_config.json and
 * chat_template.jinja, filled up to `vocab` tokens. eos: the model's, or -1. A folder without tokenizer.json
 * gives a file without a vocabulary. GPTVQ_ERROR_UNSUPPORTED: llama.cpp has no name for what this tokenizer
 * does. */
gptvq_status gptvq_gguf_tokenizer(gptvq_gguf *file, const char *folder, size_t vocab, int32_t eos,
                                  gptvq_error *err);

#endif
