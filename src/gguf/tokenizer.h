/* gguf/tokenizer.h: the tokenizer in the metadata of a model as the files of a Hugging Face folder. */
#ifndef GPTVQ_GGUF_TOKENIZER_H
#define GPTVQ_GGUF_TOKENIZER_H

#include "gguf/reader.h"

/* Texts to be released with free(), NUL-terminated; NULL where the file has no vocabulary.
 * GPTVQ_ERROR_FORMAT: lists do not go together; GPTVQ_ERROR_UNSUPPORTED: another kind of tokenizer than
 * byte-level BPE ("gpt2") and SentencePiece's BPE ("llama"), or an unknown splitting. */
gptvq_status gptvq_gguf_tokenizer_json(const gptvq_gguf_reader *reader, char **text, size_t *size,
                                       gptvq_error *err);
gptvq_status gptvq_gguf_tokenizer_config(const gptvq_gguf_reader *reader, char **text, size_t *size,
                                         gptvq_error *err);

/* Does the file say anything of a vocabulary? */
bool gptvq_gguf_has_tokenizer(const gptvq_gguf_reader *reader);

#endif
